"""Boards that people own: every one links, with what its chip needs to boot; those QEMU knows train as the twin."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

import strop
from strop.errors import PlanError, SessionError, ToolchainError
from strop.host.cli import run
from strop.host.firmware import elf
from strop.host.zoo import load_model
from strop.targets.board import Board, board_names, load_board
from strop.targets.elf import measure, reached
from strop.targets.toolchain import find_toolchain

OWNED = [name for name in board_names() if load_board(name).runners]
LARGEST = {"stm32vldiscovery": "mlp-64-16-10"}  # of this family of networks; elsewhere mlp-64-32-10 fits


def bundle_of(model: str, board: str) -> Any:
    _, module, example = load_model(model)
    return strop.build(module, example, board=board, batch=1)


class Image:
    """What a flash tool writes: the loaded bytes of a program at their places in flash."""

    def __init__(self, path: Path, board: Board) -> None:
        flash = board.memory[0]
        self.board, self.bytes = board, bytearray(flash.length)
        with path.open("rb") as stream:
            file = ELFFile(stream)
            self.entry = file.header["e_entry"]
            constants = file.get_section_by_name(".rodata")
            self.constants, self.constants_at = constants.data(), constants["sh_addr"]
            for segment in file.iter_segments("PT_LOAD"):
                at = segment["p_paddr"] - flash.origin
                data = segment.data()
                assert not data or 0 <= at <= at + len(data) <= flash.length
                self.bytes[at : at + len(data)] = data
        self.bytes = self.bytes.rstrip(b"\0")

    def words(self, offset: int, n: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{n}I", self.bytes, offset)


@pytest.mark.parametrize("name", OWNED)
def test_every_board_links_and_fits(name: str) -> None:
    board = load_board(name)
    bundle = bundle_of(LARGEST.get(name, "mlp-64-32-10"), name)
    program = elf(bundle)
    flash, ram = board.memory
    sizes = measure(program, board)
    assert sizes.flash <= flash.length
    assert sizes.ram <= ram.length
    assert ("interrupt" in [link.function for link in sizes.stack_chain]) == ("uart_irq" in board.constants)
    check_boot(Image(program, board))


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", [name for name in board_names() if not load_board(name).is_host])
def test_every_board_links_with_the_other_compilers(name: str, compiler: str) -> None:
    try:
        find_toolchain(compiler, load_board(name).core)
    except ToolchainError as missing:
        pytest.skip(str(missing))
    assert elf(bundle_of("mlp-64-16-10", name), toolchain=compiler).stat().st_size


def check_boot(image: Image) -> None:
    """The first words of the flash, as the chip's boot ROM or core reads them."""
    board = image.board
    flash, ram = board.memory
    if board.isa == "rv32imc":  # ESP32-C3: direct boot
        assert image.words(0, 2) == (0xAEDB041D, 0xAEDB041D)
        assert image.entry == flash.origin + 8
        seen = image.constants_at - board.data_bus  # the data bus sees the whole flash, from its beginning
        assert image.bytes[seen : seen + len(image.constants)] == image.constants
    elif board.core.arch == "riscv32":
        assert image.entry == flash.origin
    else:
        stack, reset, *rest = image.words(0, 16 + board.constants["interrupts"])
        assert (stack, reset) == (ram.end, image.entry | 1)
        assert all(handler & 1 and flash.origin < handler < flash.origin + len(image.bytes) for handler in rest)
        assert len(set(rest[:13])) == 1, "faults have one handler"
        assert rest[14 + board.constants["uart_irq"]] != rest[0], "the UART has another one"
    if board.name.startswith("pico2"):
        start = image.bytes.find(struct.pack("<I", 0xFFFFDED3), 0, 4096)
        kind = 0x11010142 if board.core.arch == "riscv32" else 0x10210142
        assert start % 4 == 0
        assert image.words(start, 5) == (0xFFFFDED3, kind, 0x1FF, 0, 0xAB123579)


def test_a_network_too_large_for_eight_kilobytes() -> None:
    with pytest.raises(PlanError, match=r"needs [\d,]+ B of RAM, stm32vldiscovery has 8,192 B"):
        bundle_of("mlp-64-32-10", "stm32vldiscovery")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command line in an empty folder; returns its JSON."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Any:
        status = run([*words, "--json"])
        document = json.loads(capsys.readouterr().out)
        assert status == 0, document
        return document

    return call


@pytest.mark.parametrize(
    ("board", "model", "rule"),
    [
        ("netduinoplus2", "digits-cnn", "tpsgd"),
        ("stm32vldiscovery", "mlp-64-16-10", "backprop"),
        ("microbit", "mlp-64-32-10", "tpsgd"),
        ("hifive1", "mlp-64-32-10", "backprop"),
    ],
)
def test_training_is_the_twins(command: Callable[..., Any], board: str, model: str, rule: str) -> None:
    verdict = command("validate", model, "-b", board, "--rule", rule, "--steps", "15")
    assert verdict["bits_equal"] is True
    assert verdict["torch"]["max_rel_error"] < 1e-4


@pytest.mark.parametrize("board", ["netduinoplus2", "hifive1"])
def test_many_steps_in_flight(board: str) -> None:
    """As many samples on their way as the window takes: none is lost or taken twice."""
    bundle = bundle_of("mlp-64-16-10", board)
    generator = np.random.default_rng(3)
    xs = generator.random((120, 64), dtype=np.float32)
    ys = generator.integers(0, 10, 120).astype(np.int32)
    with strop.connect(bundle) as device, bundle.twin() as twin:
        np.testing.assert_array_equal(device.train(xs, ys), twin.train(xs, ys))


@pytest.mark.parametrize(
    ("board", "last"), [("hifive1", "spi_change"), ("pico2-arm", "rom"), ("pico2-riscv", "rom"), ("esp32-c3", "rom")]
)
def test_a_flash_driver_counts_wherever_its_code_lies(board: str, last: str) -> None:
    """In RAM, or in the chip's own ROM, of which the description states a figure."""
    described = load_board(board)
    driver = reached(elf(bundle_of("mlp-64-16-10", board)), described, ["strop_port_store_write"])
    assert driver.chain[-1].function == last
    assert driver.chain[-1].bytes == (described.rom_stack or driver.chain[-1].bytes) > 0


@pytest.mark.parametrize("board", ["netduinoplus2", "stm32vldiscovery", "hifive1"])
def test_flash_that_the_emulator_does_not_model_is_a_failure(board: str) -> None:
    """The driver runs, on hifive1 from RAM, sees that nothing changed, and the board goes on."""
    with strop.connect(bundle_of("mlp-64-16-10", board)) as device:
        with pytest.raises(SessionError, match="refuses SAVE"):
            device.save()
        stats = device.backend.stats()
        device.train_step(np.zeros((1, 64), np.float32), np.array([1], np.int32))
    assert 0 < stats.stack_used <= measure(elf(bundle_of("mlp-64-16-10", board)), load_board(board)).stack


def test_a_checkpoint_in_the_flash_of_an_emulated_chip() -> None:
    """QEMU models the nRF51's flash controller: pages are erased and words written as on the chip."""
    with strop.connect(bundle_of("mlp-64-16-10", "microbit")) as device:
        generator = np.random.default_rng(5)

        def train(steps: int) -> dict[str, bytes]:
            for i in range(steps):
                device.train_step(generator.random((1, 64), dtype=np.float32), np.array([i % 10], np.int32))
            return {name: np.asarray(value).tobytes() for name, value in device.state_dict().items()}

        kept = train(3)
        assert device.save() == 3
        assert train(3) != kept
        assert device.load() == 3
        assert train(0) == kept
        assert train(2) != kept
        assert device.save() == 5  # into the other slot
