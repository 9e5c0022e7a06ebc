"""Boards and instruction sets: those that come with strop are sound, mistakes are named, and adding one is one file."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from strop.errors import BoardError
from strop.targets import isa as isa_package
from strop.targets.board import BOARDS, LOSSLESS, PORTS, Board, board_names, load_board
from strop.targets.isa import isa_names, load_isa
from strop.targets.link import linker_script

GOOD = (BOARDS / "qemu-rv32imf.toml").read_text(encoding="utf-8").replace("qemu-virt/port.c", "port.c")


def _board(folder: Path, text: str) -> Path:
    (folder / "port.c").touch()
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", board_names())
def test_boards_that_come_with_strop_are_sound(name: str) -> None:
    board = load_board(name)
    assert board.name == name
    assert board.core.name == board.isa
    if board.is_host:
        assert (board.flash, board.ram, board.emulator) == (None, None, None)
        return
    flash, ram = board.memory
    assert not flash.overlaps(ram)
    assert board.port_source.is_file()
    assert board.window == LOSSLESS or board.window.bit_count() == 1
    assert bool(board.backlog) == (board.window != LOSSLESS), "rings come in pairs"
    assert board.backlog.bit_count() <= 1
    assert board.emulator or board.runners, "nothing brings a program onto it"
    lines = board.path.read_text(encoding="utf-8").splitlines()
    for table in ("flash = {", "uart = {", "data_bus = ", "[store]"):  # every address says where it was read
        for line in (i for i, text in enumerate(lines) if text.startswith(table)):
            assert lines[line - 1].startswith("#"), table


@pytest.mark.parametrize(
    "file", sorted(PORTS.parent.rglob("*.[ch]")), ids=lambda file: str(file.relative_to(PORTS.parent))
)
def test_a_source_file_with_addresses_says_where_they_were_read(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    has_addresses = re.search(r"REGISTER\(0x|#define \w+ +0x[45][0-9A-F]{7}\b|ROM\(\w+, 0x", text)
    assert not has_addresses or re.search(r"Sources?: .*(\n \*.*)*\w", text.partition("*/")[0])


@pytest.mark.parametrize("name", [name for name in board_names() if load_board(name).runners])
def test_boards_that_people_own_are_described_in_full(name: str) -> None:
    """A store has two slots, each of which could keep all of RAM, or 128 KB; a runner is told what it needs."""
    board = load_board(name)
    flash, ram = board.memory
    assert board.description.count("KB") + board.description.count("MB") == 2
    assert "#" in next(line for line in board.path.read_text(encoding="utf-8").splitlines() if "clock_hz" in line)
    assert board.store
    assert board.store.length // 2 >= min(ram.length, 128 << 10)
    assert board.store.origin == flash.end
    for runner in board.runners:
        assert runner.config or runner.target or runner.chip or runner.device, runner.name
    assert len({runner.name for runner in board.runners}) == len(board.runners)


@pytest.mark.parametrize("name", isa_names())
def test_instruction_sets_that_come_with_strop_are_sound(name: str) -> None:
    isa = load_isa(name)
    assert {"zig"} <= set(isa.flags) <= {"zig", "gcc", "clang"}
    assert isa.lanes >= 1
    assert bool(isa.startup) == (isa.arch != "host")


def test_only_cores_with_the_instruction_contract() -> None:
    """Every core with an FPU multiplies and adds with one rounding; on the others a program must not ask for it."""
    assert {name for name in isa_names() if not load_isa(name).fma} == {
        "rv32imac", "rv32imc", "cortex-m0", "cortex-m3",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('isa = "rv32imf"', 'isa = "rv32imx"', "no instruction set 'rv32imx'. .*Did you mean 'rv32imf'"),
        ("clock_hz = 1_000_000_000", "", "clock_hz: Field required"),
        ("clock_hz = 1_000_000_000", 'clock_hz = "1 GHz"', "clock_hz: Input should be a valid integer"),
        ("clock_hz = 1_000_000_000", "clock_hz = 1e9", "clock_hz: Input should be a valid integer"),
        ("clock_hz = 1_000_000_000", "clock_hz = 0", "clock_hz: Input should be greater than 0"),
        ("stack_reserve", "stack_reserved", "unknown entry 'stack_reserved'.*Did you mean 'stack_reserve'"),
        ("baud = 115200", "bauds = 115200", "unknown entry 'uart.bauds'.*Did you mean 'baud'"),
        ("origin = 0x8020_0000", "origin = 0x8010_0000", "flash and ram overlap"),
        ("length = 0x18_0000", "length = 0xF000_0000", "ram: ends at 0x170200000"),
        ("length = 0x18_0000", "length = 100", "ram: .*multiples of 16"),
        ("length = 0x18_0000", "length = -16", "ram.length: Input should be greater than 0"),
        ("[store]", "[store]\nsectors = 4096", "unknown entry 'store.sectors'.*Did you mean 'sector'"),
        ("length = 0x30_0000", "length = 0x34_0000", "store: .*half the length must be multiples of sector"),
        ("origin = 0x2200_0000", "origin = 0x8000_0000", "store overlaps flash or ram"),
        ('port = "port.c"', 'port = "port.c"\nconstants = { "uart-irq" = 3 }', "constants.uart-irq"),
        ("[emulator]", '[[runners]]\nname = "x"\ntarge = "y"\n[emulator]', "'runners.0.targe'.*Did you mean 'target'"),
        ("[emulator]", "[[usb]]\nvid = 0x10000\npid = 1\n[emulator]", "usb.0.vid: .*less than or equal to 65535"),
        ('port = "port.c"', 'port = "gone.c"', "port: there is no file .*gone.c"),
        ('port = "port.c"', "", r"\[port\] is missing"),
        ("uart = {", "uart = [", "cannot read the board's description"),
    ],
)
def test_bad_descriptions_are_named(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    assert old in GOOD
    path = _board(tmp_path, GOOD.replace(old, new))
    with pytest.raises(BoardError, match=complaint) as caught:
        load_board(path)
    assert "Traceback" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_is_named_in_the_complaint(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=str(tmp_path / "mine.toml")):
        load_board(_board(tmp_path, GOOD.replace("clock_hz = 1_000_000_000", "")))


def test_unknown_board_suggests_the_nearest() -> None:
    with pytest.raises(BoardError, match=r"no board 'netduino-plus-2'.*Did you mean 'netduinoplus2'"):
        load_board("netduino-plus-2")


def test_missing_and_binary_files() -> None:
    with pytest.raises(BoardError, match=r"cannot read.*nowhere.toml"):
        load_board("/nowhere.toml")


def test_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BoardError, match="cannot read the board's description"):
        load_board(path)


def test_a_board_is_frozen() -> None:
    with pytest.raises(ValidationError):
        load_board("host").clock_hz = 1  # type: ignore[misc]


def test_the_pc_has_no_linker_script() -> None:
    with pytest.raises(BoardError, match="'host' has no memory regions"):
        linker_script(load_board("host"))


def test_a_board_in_a_folder_of_its_own(tmp_path: Path) -> None:
    board = load_board(_board(tmp_path, GOOD))
    assert (board.name, board.port_source) == ("mine", tmp_path / "port.c")
    script = linker_script(board)
    assert "FLASH (rx)  : ORIGIN = 0x80000000, LENGTH = 0x200000" in script
    assert "RAM   (rwx) : ORIGIN = 0x80200000, LENGTH = 0x180000" in script
    assert "strop_stack_limit + 1024 <= strop_stack_top" in script
    assert "@" not in script


def test_constants_on_a_bus_of_their_own(tmp_path: Path) -> None:
    """They have an address there, and lie in flash behind the code."""
    script = linker_script(load_board(_board(tmp_path, f"data_bus = 0x3C00_0000\n{GOOD}")))
    assert "DATA (r) : ORIGIN = 0x3c000000, LENGTH = 0x200000" in script
    assert script.count("> DATA AT > FLASH :const") == 2
    assert "@" not in script


def test_defines_reach_the_port(tmp_path: Path) -> None:
    board: Board = load_board(_board(tmp_path, f"constants = {{ uart_irq = 33 }}\n{GOOD}"))
    assert "STROP_UART_IRQ=0x21" in board.defines
    assert 'STROP_BOARD="mine"' in board.defines
    assert "STROP_UART_BASE=0x10000000U" in board.defines


@pytest.fixture
def isa_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(isa_package, "__path__", [*isa_package.__path__, str(tmp_path)])
    load_isa.cache_clear()
    yield tmp_path
    load_isa.cache_clear()


def test_an_instruction_set_is_one_file(isa_folder: Path) -> None:
    """The seam: a file in a searched folder is all that an ISA needs, and a board may name it."""
    source = Path(isa_package.__file__).with_name("rv32imf.py").read_text(encoding="utf-8")
    (isa_folder / "dummy_core.py").write_text(source.replace('name="rv32imf"', 'name="dummy-core"'), encoding="utf-8")
    assert "dummy-core" in isa_names()
    board = load_board(_board(isa_folder, GOOD.replace('isa = "rv32imf"', 'isa = "dummy-core"')))
    assert dataclasses.replace(board.core, name="rv32imf") == load_isa("rv32imf")


def test_a_file_that_defines_no_instruction_set(isa_folder: Path) -> None:
    (isa_folder / "broken_core.py").write_text("ISA = 3\n", encoding="utf-8")
    with pytest.raises(BoardError, match="does not define ISA"):
        load_isa("broken-core")
