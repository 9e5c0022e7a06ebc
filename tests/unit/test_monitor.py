"""What monitor makes of a board's frames: reports of watch.c, lines, answers to HELLO, and silence."""

import ctypes
import struct
from collections import deque
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from cbuild import RUNTIME, build_shared
from rich.console import Console

from strop.errors import SessionError, TransportError
from strop.host import wire
from strop.host.cli import run
from strop.host.monitor import COLUMNS, ROWS, WINDOW, Observation, bars, dashboard, watch
from strop.host.transport.base import PortClosedError
from strop.host.wire import REPLY, Decoder, Frame, Type, Watch

HASH = bytes(range(16))

HARNESS = """
#include "watch.h"
static uint8_t sent[65536];
static size_t length;
static void write(void *ctx, const uint8_t *bytes, size_t n) {
    (void)ctx;
    for (size_t i = 0; i < n; i++) { sent[length++] = bytes[i]; }
}
static strop_encoder_t encoder = {.write = write};
static strop_model_t model = {.hash = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, .batch = 2};
static strop_watch_t watch;
void start(uint32_t every, uint32_t classes);
void guess(const int32_t *y, const float *out);
void step(uint32_t steps, float loss, uint64_t cost);
size_t taken(uint8_t *to);
void start(uint32_t every, uint32_t classes) {
    model.n_classes = classes;
    model.out_bytes = 2u * 3u * 4u;
    strop_watch_init(&watch, &encoder, &model, every);
}
void guess(const int32_t *y, const float *out) { strop_watch_guess(&watch, y, out); }
void step(uint32_t steps, float loss, uint64_t cost) { strop_watch_step(&watch, steps, loss, cost); }
size_t taken(uint8_t *to) {
    const size_t n = length;
    for (size_t i = 0; i < n; i++) { to[i] = sent[i]; }
    length = 0;
    return n;
}
"""


@pytest.fixture
def board() -> ctypes.CDLL:
    return build_shared([HARNESS, RUNTIME / "watch.c", RUNTIME / "frame.c"])


def frames(board: ctypes.CDLL) -> list[Frame]:
    buffer = ctypes.create_string_buffer(65536)
    count = board.taken(buffer)
    return Decoder().feed(buffer.raw[:count])


def step(board: ctypes.CDLL, steps: int, loss: float, cost: int = 7) -> None:
    board.step(ctypes.c_uint32(steps), ctypes.c_float(loss), ctypes.c_uint64(cost))


def test_a_board_reports_every_so_many_steps(board: ctypes.CDLL) -> None:
    board.start(3, 3)
    losses = np.array([0.3, 1.7, 2.2, 0.1, 0.2, 0.9, 5.0], np.float32)
    y, out = np.array([1, 2], np.int32), np.array([[0, 2, 2], [1, 5, 3]], np.float32)  # of equal ones the first
    for i, loss in enumerate(losses):
        board.guess(y.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p))
        step(board, 11 + i, float(loss))
    first, second = frames(board)
    assert [frame.seq for frame in (first, second)] == [0, 1]
    total = np.float32(0)
    for loss in losses[:3]:
        total += loss
    assert Watch.unpack(first) == Watch(HASH, 13, 3, float(total / np.float32(3)), 6, 3, None, 21)
    assert Watch.unpack(second)[1:3] == (16, 3)


def test_a_regression_is_not_asked(board: ctypes.CDLL) -> None:
    board.start(0, 0)
    board.guess(None, None)
    step(board, 1, 2.5)
    (frame,) = frames(board)
    assert Watch.unpack(frame)[2:6] == (1, 2.5, 0, 0)


# --- the host -----------------------------------------------------------------------------------------------------


def report(number: int, *, steps: int, loss: float = 1.0, asked: int = 0, right: int = 0) -> Frame:
    payload = struct.pack("<16s2If3IQ", HASH, steps, 100, loss, asked, right, 300, 5000)
    return Frame(Type.WATCH | REPLY, number, payload)


def log(text: str) -> Frame:
    return Frame(Type.LOG | REPLY, payload=text.encode())


def hello(steps: int) -> Frame:
    payload = struct.pack("<16s12I32s", HASH, 1, 1, 4, 4, 4, 0, 0, 0, steps, 0, 0, 0, b"bench")
    return Frame(Type.HELLO | REPLY, payload=payload)


class FakePort:
    """A board that says one thing a read, answers HELLO if it can, and then closes the port or is silent."""

    name = "fake"

    def __init__(self, *said: Frame, answers: Callable[[], Frame] | None = None, closes: bool = True) -> None:
        self.said, self.answers, self.closes = deque(map(wire.encode, said)), answers, closes
        self.asked: list[Frame] = []
        self.is_open = False

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def reset_input(self) -> None: ...

    def write(self, data: bytes) -> None:
        self.asked += Decoder().feed(data)
        if self.answers:
            self.said.appendleft(wire.encode(self.answers()))

    def read(self, timeout: float) -> bytes:
        if not self.said and self.closes:
            raise PortClosedError("closed", where="fake")
        return self.said.popleft() if self.said else b""


def watched(port: FakePort, **options: object) -> tuple[Observation, int]:
    seen, changes = Observation(), []
    watch(port, seen, done=lambda: False, on_change=lambda: changes.append(1), **options)  # type: ignore[arg-type]
    return seen, len(changes)


def test_reports_and_lines_are_taken_in() -> None:
    port = FakePort(log("hello\x1b[31m"), report(0, steps=100, loss=2.0), report(3, steps=400, loss=1.0))
    seen, changes = watched(port)
    assert changes == 3
    assert seen.lines == ["hello·[31m"], "nothing steers the terminal"
    assert (seen.steps, seen.missed, seen.ended) == (400, 2, True)
    assert not port.is_open
    document = seen.to_json()
    assert [row["steps"] for row in document["reports"]] == [100, 400]
    assert document["loss"] == 1.0
    assert document["hash"] == HASH.hex()


def test_only_hello_is_asked() -> None:
    port = FakePort(answers=lambda: hello(42))
    seen, _ = watched(port)
    assert {frame.type for frame in port.asked} == {Type.HELLO}
    assert (seen.steps, seen.board) == (42, "bench")


def test_after_the_last_sample_the_count_is_asked_again() -> None:
    port = FakePort(report(0, steps=50), log("there are no more samples"), answers=lambda: hello(59))
    seen = Observation()
    watch(port, seen, done=lambda: seen.settled, on_change=lambda: None)
    assert (seen.steps, seen.ended) == (59, False)


def test_damaged_bytes_are_no_news() -> None:
    port = FakePort(log("a line"))
    port.said.extend([b"\x05\x07\0", b"\xff\xff\0"])
    seen, changes = watched(port)
    assert (changes, seen.reports) == (1, [])


def test_a_silent_board_is_an_error() -> None:
    with pytest.raises(TransportError, match="said nothing"):
        watched(FakePort(closes=False), timeout=0.05)
    with pytest.raises(PortClosedError):
        watched(FakePort())


def test_another_model_is_an_error() -> None:
    with pytest.raises(SessionError, match="not ffff"):
        watched(FakePort(report(0, steps=1)), expect_hash=b"\xff" * 16)


def test_accuracy_is_over_a_window() -> None:
    seen = Observation()
    for i in range(20):
        seen.take(report(i, steps=i, asked=100, right=0 if i < 10 else 90))
    assert WINDOW == 500
    assert seen.accuracy() == 0.9
    assert seen.accuracy(12) == pytest.approx(2 * 90 / 500)
    assert Observation().accuracy() is None
    assert "accuracy 90.0%" in seen.status
    assert "cost 50 a step" in seen.status


def test_bars() -> None:
    rows = bars([4.0, 2.0, 0.0, float("nan"), float("inf")])
    assert len(rows) == ROWS + 1
    columns = ["".join(row.split("│")[1][i] for row in rows[:-1]) for i in range(5)]
    assert columns == ["█" * 8, " " * 4 + "█" * 4, " " * 8, " " * 8, "█" * 8]
    assert rows[0].startswith("        4 │")
    long = bars(list(np.linspace(9, 1, 1000)))
    assert max(map(len, long)) == COLUMNS + 11


def test_the_dashboard_shows_all() -> None:
    seen = Observation(board="bench")
    console = Console(file=StringIO(), width=100)
    console.print(dashboard(seen))
    for frame in (report(0, steps=100, loss=2.0, asked=100, right=50), log("a line")):
        seen.take(frame)
    console.print(dashboard(seen))
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert all(word in text for word in ("bench", "step 100", "loss 2.0000", "50.0%", "a line", "█"))


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_a_picture(tmp_path: Path, ending: str) -> None:
    seen = Observation()
    seen.draw(tmp_path / f"none{ending}")
    for i in range(5):
        seen.take(report(i, steps=100 * i, loss=5.0 - i, asked=100, right=20 * i))
    seen.draw(tmp_path / f"some{ending}")
    start = {".png": b"\x89PNG", ".svg": b"<?xml"}[ending]
    data = (tmp_path / f"some{ending}").read_bytes()
    assert data.startswith(start)
    assert len(data) > (tmp_path / f"none{ending}").stat().st_size


def test_a_sample_needs_a_model_and_a_board(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["monitor", "--sample", "a.c", "--json"]) == 1
    assert "no model" in capsys.readouterr().out
    assert run(["monitor", "mlp-64-32-10", "--sample", "a.c", "--json"]) == 1
    assert "--board" in capsys.readouterr().out
    words = ["monitor", "mlp-64-32-10", "--board", "qemu-rv32imf", "--sample", str(tmp_path / "a.c"), "--json"]
    assert run(words) == 1
    assert "does not exist" in capsys.readouterr().out
