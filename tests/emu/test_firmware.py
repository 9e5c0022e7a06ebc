"""The firmware on emulated boards: start-up, serial line, counter, stack, faults, and a session with a small model."""

import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from strop.errors import FlashError
from strop.host.flash import Ability, runner_for, runner_names
from strop.host.flash.qemu import Qemu
from strop.host.session import Session
from strop.host.transport import Transport, transport_for
from strop.targets.board import PORTS, Board, load_board
from strop.targets.elf import measure
from strop.targets.toolchain import build_elf, build_firmware

HERE = Path(__file__).parent
REFERENCE = ("qemu-rv32imf", "qemu-rv32imac", "qemu-cortex-m4f")
OWNED = ("netduinoplus2", "stm32vldiscovery", "microbit", "hifive1")  # boards with interrupts, a ring and a real clock


@pytest.fixture(scope="module", params=REFERENCE + OWNED)
def board(request: pytest.FixtureRequest) -> Board:
    board = load_board(request.param)
    try:
        runner_for(board).start(Path("/nowhere"))
    except FlashError as error:
        if "not installed" in str(error):
            pytest.skip(str(error))
    return board


@pytest.fixture(scope="module")
def probe_elf(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_elf(board, [HERE / "probe" / "main.c"], [], tmp_path_factory.mktemp(board.name) / "probe.elf")


@pytest.fixture
def probe(board: Board, probe_elf: Path) -> Iterator["Probe"]:
    with runner_for(board).start(probe_elf) as running:
        yield Probe(running)


class Probe:
    """Talks to tests/emu/probe/main.c."""

    def __init__(self, running: Qemu) -> None:
        self.running = running
        self.port: Transport = transport_for(running.endpoint)
        self.port.open()
        until = time.monotonic() + 20
        while not self.ask(b"\0i", 8, 2.0):  # a UART that is not yet set up may lose bytes; a session asks again, too
            assert time.monotonic() < until, "the board does not answer"

    def ask(self, command: bytes, answer_bytes: int, seconds: float = 20.0) -> bytes:
        self.port.write(command)
        answer, until = b"", time.monotonic() + seconds
        while len(answer) < answer_bytes and time.monotonic() < until:
            answer += self.port.read(0.2)
        return answer

    def count(self, n: int) -> tuple[int, ...]:
        return struct.unpack("<3Q", self.ask(b"c" + struct.pack("<I", n), 24))


def test_startup_copies_data_and_clears_bss(probe: Probe) -> None:
    assert probe.ask(b"i", 8) == struct.pack("<Q", 1)


def test_every_byte_value_comes_back_in_order(probe: Probe) -> None:
    data = bytes(range(256)) * 8 + b"\0" * 13  # not a multiple of any FIFO
    assert probe.ask(b"e" + struct.pack("<I", len(data)) + data, len(data)) == data


def test_a_long_answer_is_complete(probe: Probe) -> None:
    n = 30_001
    assert probe.ask(b"m" + struct.pack("<I", n), n) == (bytes(range(256)) * 118)[:n]


@pytest.mark.parametrize("n", [300, 350, 400, 3_000])  # a socket of an emulator holds 278 bytes, a ring 64 to 256
def test_a_reader_that_comes_late_gets_all(probe: Probe, n: int) -> None:
    """The line is full meanwhile, and the board has nothing else to do."""
    probe.port.write(b"m" + struct.pack("<I", n))
    time.sleep(0.3)
    assert probe.ask(b"", n, 5.0) == (bytes(range(256)) * 12)[:n]


def test_what_was_written_leaves_before_the_end(probe: Probe) -> None:
    n = 1_000
    assert probe.ask(b"m" + struct.pack("<I", n) + b"x" + bytes(4), n) == (bytes(range(256)) * 4)[:n]
    assert probe.running.wait(5.0) == 0


def test_counter_is_exact_and_repeats(board: Board, probe: Probe) -> None:
    if board.name in OWNED:
        pytest.skip("counts cycles of its own clock, and interrupts with them")
    empty, first, second = probe.count(1000)
    assert first == second  # the same work, the same count, whatever the phase of a timer
    assert (empty, first, second) == probe.count(1000)
    longer = probe.count(3_000_000)[1]
    assert abs((longer - first) - 2 * 2_999_000) < board.counter.resolution
    assert empty <= 24  # what the board's description calls the cost of asking


def test_cycles_of_a_real_clock(board: Board, probe: Probe) -> None:
    """Emulated, an instruction takes a nanosecond whatever the clock, and mcycle counts instructions."""
    if board.name in REFERENCE:
        pytest.skip("counts instructions")
    rate = 1.0 if board.core.arch == "riscv32" else board.clock_hz / 1e9
    turns = 60_000_000 if board.name == "netduinoplus2" else 3_000_000  # the former is more than SysTick's 24 bits hold
    before, after = probe.count(1000)[1], probe.count(turns)[1]
    assert abs((after - before) - 2 * (turns - 1000) * rate) < 2 + 1e-6 * turns


def test_more_bytes_than_the_ring_holds(board: Board, probe: Probe) -> None:
    """While the board computes, a window of bytes waits in its ring; an emulator keeps what goes beyond that."""
    n = min(4 * board.window, 8192)
    data = bytes((7 * i + i // 256) % 256 for i in range(n))
    probe.port.write(b"c" + struct.pack("<I", 10_000_000) + b"e" + struct.pack("<I", n))
    time.sleep(0.02)
    assert probe.ask(data, 24 + n)[24:] == data


def test_stack_high_water_mark(board: Board, probe: Probe, probe_elf: Path) -> None:
    used = struct.unpack("<Q", probe.ask(b"s", 8))[0]
    stated = measure(probe_elf, board).stack
    assert 1024 < used <= stated < 1.2 * used


def test_a_fault_is_told_in_words_and_ends_the_program(board: Board, probe: Probe) -> None:
    said = probe.ask(b"f", 58)
    causes = {"cortex-m0": "00000003"}  # HardFault
    cause = causes.get(board.isa, "00010000" if board.core.arch == "thumb" else "00000002")  # UNDEFINSTR, illegal
    line = rf"\0fault: cause 0x{cause} pc 0x[0-9a-f]{{8}} address 0x[0-9a-f]{{8}}\0"
    assert re.fullmatch(line.encode(), said)
    assert probe.running.wait(5.0) == (0 if board.core.arch == "thumb" else 1)  # a Cortex-M reset carries no status


def test_exit_ends_the_emulator(probe: Probe) -> None:
    probe.port.write(b"x" + struct.pack("<I", 0))
    assert probe.running.wait(5.0) == 0
    with pytest.raises(FlashError, match="ended with status 0"):
        probe.running.check()


def test_a_board_with_nothing_to_do_sleeps(probe: Probe) -> None:
    """Else every emulated board takes a whole CPU, and a device its battery."""
    probe.ask(b"e" + struct.pack("<I", 40) + bytes(40), 40)
    time.sleep(0.05)
    before = _cpu_seconds(probe.running.pid)
    time.sleep(0.4)
    assert _cpu_seconds(probe.running.pid) - before < 0.1


def _cpu_seconds(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- the session ------------------------------------------------------------------------------------------------

INPUTS = 64


def _samples(n: int) -> list[tuple[list[int], int]]:
    """Small integers, so that every step of the model is exact and the fractions below predict the bits."""
    return [([int((7 * i + 3 * j) % 16 == 0) for j in range(INPUTS)], i % 3 - 1) for i in range(n)]


def _wire(x: list[int], y: int) -> tuple[bytes, bytes]:
    return struct.pack(f"<{INPUTS}f", *x), struct.pack("<f", y)


def _trained(samples: list[tuple[list[int], int]]) -> tuple[list[Fraction], list[float]]:
    """The model of tests/emu/fake in exact arithmetic: final weights, and the loss of every step."""
    w = [Fraction(value) for value in (1, -1, 0.5, 0.25, 2, 0, -0.5, 4, *[0] * (INPUTS - 8))]
    losses = []
    for x, y in samples:
        error = sum(a * b for a, b in zip(w, x, strict=True)) - y
        w = [a - error / 16 * b for a, b in zip(w, x, strict=True)]
        losses.append(float(error * error))
    return w, losses


@pytest.fixture(scope="module")
def model_elf(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_firmware(board, HERE / "fake", tmp_path_factory.mktemp(board.name) / "model.elf")


def _packed(weights: list[Fraction]) -> bytes:
    return struct.pack(f"<{INPUTS}f", *map(float, weights))


def test_training_over_the_wire(board: Board, model_elf: Path) -> None:
    samples = _samples(6)
    with runner_for(board).start(model_elf) as running:
        session = Session(transport_for(running.endpoint), expect_hash=b"emulated model!\0")
        assert session.hello().board == board.name
        results = list(session.train(_wire(*sample) for sample in samples))
        weights, losses = _trained(samples)
        assert [result.loss for result in results] == losses
        assert session.read_tensor(0) == _packed(weights)
        output = next(iter(session.infer([_wire(*samples[0])[0]]))).output
        assert struct.unpack("<f", output)[0] == float(sum(a * b for a, b in zip(weights, samples[0][0], strict=True)))
        session.write_tensor(0, _packed([Fraction(1)] * INPUTS))
        session.reset()
        again = list(session.train(_wire(*sample) for sample in samples))
        first, second = ([result.cost for result in run] for run in (results, again))
        if board.name in OWNED:  # now and then an interrupt falls into a step, and the counter's tick
            assert min(second) == pytest.approx(min(first), rel=0.1)
        else:
            assert second == first
        if board.emulator.store:
            session.save()  # the deepest of all
        used = session.stats().stack_used
        session.close()
    stated = measure(model_elf, board).stack
    assert 64 < used <= stated < 3 * used  # nothing was saved: the store's part of the stack is not used


# --- the runner -------------------------------------------------------------------------------------------------


def test_dry_run_command_is_complete(board: Board) -> None:
    runner = runner_for(board)
    assert Ability.DRY_RUN in runner.abilities
    assert runner.command(Path("a.elf"))[:3] == [board.emulator.binary, "-M", board.emulator.machine]
    assert "-icount" in runner.command(Path("a.elf"))
    assert "qemu" in runner_names(board)


def test_missing_qemu_names_the_package(board: Board, probe_elf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FlashError, match=f"apt-get install {board.emulator.package}"):
        runner_for(board).start(probe_elf)


def test_qemu_that_refuses_to_start_is_quoted(board: Board, probe_elf: Path) -> None:
    emulator = board.emulator.model_copy(update={"machine": "no-such-machine"})
    with pytest.raises(FlashError, match="unsupported machine type"):
        runner_for(board.model_copy(update={"emulator": emulator})).start(probe_elf)


def test_nothing_runs_a_board_without_emulator() -> None:
    with pytest.raises(FlashError, match="onto board 'host'"):
        runner_for(load_board("host"))


def test_close_leaves_no_process_and_no_folder(
    board: Board, probe_elf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    running = runner_for(board).start(probe_elf)
    assert len(list(tmp_path.iterdir())) == 1
    running.close()
    running.close()
    assert not list(tmp_path.iterdir())
    assert not _alive(running.pid)


def test_qemu_dies_with_a_killed_parent(board: Board, probe_elf: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from strop.host.flash import runner_for;"
        "from strop.targets.board import load_board;"
        "running = runner_for(load_board(sys.argv[1])).start(Path(sys.argv[2])); print(running.pid, flush=True);"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, board.name, str(probe_elf)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert _alive(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 5
    while _alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _alive(pid)


def _alive(pid: int | None) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_board_from_a_folder_of_its_own_runs(board: Board, tmp_path: Path) -> None:
    """The seam: a description and a port.c beside it, and nothing else, make a board."""
    source = board.path.read_text(encoding="utf-8")
    folder, _, port = board.port.rpartition("/")
    assert f'"{folder}/' in source
    (tmp_path / "mine.toml").write_text(source.replace(f'"{folder}/', '"'), encoding="utf-8")
    for file in (PORTS / folder).iterdir():  # a port may have a header of its own
        (tmp_path / file.name).write_bytes(file.read_bytes())
    mine = load_board(tmp_path / "mine.toml")
    assert mine.port_source == tmp_path / port
    elf = build_elf(mine, [HERE / "probe" / "main.c"], [], tmp_path / "probe.elf")
    with runner_for(mine).start(elf) as running:
        assert Probe(running).ask(b"i", 8) == struct.pack("<Q", 1)
