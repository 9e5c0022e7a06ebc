"""What a board says by itself, and how training goes there; nothing is asked of it that would change anything."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from math import isnan
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from strop.errors import SessionError, TransportError
from strop.host import wire
from strop.host.arrays import write_file
from strop.host.transport.base import PortClosedError, Transport
from strop.host.wire import REPLY, Frame, Hello, Type, Watch

ASK_SECONDS = 1.0
"""Time between two questions for the count of steps: HELLO, which takes no number and changes nothing."""

WINDOW = 500
"""Answers over which the shown accuracy is taken."""

LAST_LINE = "there are no more samples"
"""What a board says when it has trained on all samples of its own (firmware/onboard.c)."""

BARS = " ▁▂▃▄▅▆▇█"
ROWS, COLUMNS = 8, 72
"""Of the plot in a terminal."""
LINES = 5
"""Of what the board said, below the plot."""


@dataclass
class Observation:
    """What was seen of a board.

    reports: of training on samples of its own.  lines: what it said.  steps: done, -1 until it is known.  missed:
    reports that did not arrive.
    """

    reports: list[Watch] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    board: str = ""
    hash: str = ""
    steps: int = -1
    missed: int = 0
    ended: bool = False
    """Whether the board's port was closed."""
    finished: bool = False
    """Whether it said that there are no more samples."""
    settled: bool = False
    """Whether the count of steps is from after that."""
    _number: int = -1

    def take(self, frame: Frame) -> bool:
        """Take in a frame; tell whether it says anything new."""
        before = self._news
        match frame.type & ~REPLY:
            case Type.LOG:
                self.lines.append(wire.printable(frame.payload))
                self.finished = self.finished or self.lines[-1] == LAST_LINE
            case Type.WATCH:
                self._report(frame)
            case Type.HELLO if not frame.status:
                hello = Hello.unpack(frame)
                self.board, self.hash, self.steps = hello.board, hello.hash.hex(), hello.steps
                self.settled = self.finished
        return before != self._news

    @property
    def _news(self) -> tuple[int, int, int]:
        return len(self.reports), len(self.lines), self.steps

    def _report(self, frame: Frame) -> None:
        report = Watch.unpack(frame)
        if self._number >= 0 and frame.seq > self._number + 1:
            self.missed += frame.seq - self._number - 1
        self._number, self.steps, self.hash = frame.seq, report.steps, report.hash.hex()
        self.reports.append(report)

    def accuracy(self, end: int | None = None) -> float | None:
        """Share of right answers in the last WINDOW before report `end`; None where nothing was compared."""
        asked = right = 0
        for report in reversed(self.reports[:end]):
            asked, right = asked + report.asked, right + report.right
            if asked >= WINDOW:
                break
        return right / asked if asked else None

    @property
    def status(self) -> str:
        """Where training stands, in a line."""
        parts = [f"step {self.steps:,}"]
        if self.reports:
            last, accuracy = self.reports[-1], self.accuracy()
            parts.append(f"loss {last.loss:.4f}")
            parts += [] if accuracy is None else [f"accuracy {accuracy:.1%}"]
            parts += [f"cost {last.cost // last.since:,} a step"] if last.cost else []
            parts += [] if last.stack_used is None else [f"stack {last.stack_used:,} B"]
        return "  ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain numbers and texts."""
        rows = [{**_row(report), "accuracy": self.accuracy(i)} for i, report in enumerate(self.reports, 1)]
        last = self.reports[-1] if self.reports else None
        return {
            "board": self.board, "hash": self.hash, "steps": self.steps, "loss": last.loss if last else None,
            "accuracy": self.accuracy(), "missed": self.missed, "reports": rows, "lines": self.lines,
        }  # fmt: skip

    def draw(self, path: Path) -> None:
        """Draw loss and accuracy against steps as a PNG, or as what the path's ending says."""
        from matplotlib.figure import Figure

        figure, steps = Figure(figsize=(9, 4.5), layout="constrained"), [report.steps for report in self.reports]
        losses, scores = figure.subplots(1, 2)
        losses.plot(steps, [report.loss for report in self.reports])
        accuracy = [self.accuracy(i) for i in range(1, len(steps) + 1)]
        if None not in accuracy:
            scores.plot(steps, [value for value in accuracy if value is not None])
        for axes, title in ((losses, "mean loss"), (scores, f"accuracy over the last {WINDOW} answers")):
            axes.set_xlabel("steps")
            axes.set_title(title, size=10)
            axes.grid(alpha=0.3)
        buffer = BytesIO()
        figure.savefig(buffer, format=path.suffix.lstrip(".") or "png", dpi=150)
        write_file(path, buffer.getvalue())


def _row(report: Watch) -> dict[str, Any]:
    """A report as JSON; its hash stands once in the document."""
    return {name: value for name, value in report._asdict().items() if name != "hash"}


def watch(
    transport: Transport, seen: Observation, *, done: Callable[[], bool], on_change: Callable[[], None],
    timeout: float = 5.0, expect_hash: bytes | None = None,
) -> None:  # fmt: skip
    """Listen until `done`, or until the port is closed, which `seen` tells.

    on_change: called after whatever is new.  timeout: seconds until a board must have said something, whatever it is.
    expect_hash: the model's, if it must be that one. Raises TransportError for a board that never says anything, or a
    port that cannot be opened; SessionError for another model.
    """
    decoder, began, asked = wire.Decoder(), time.monotonic(), float("-inf")
    transport.open()
    try:
        while not done() or (seen.steps < 0 and time.monotonic() - began < timeout):
            if time.monotonic() - asked >= ASK_SECONDS:
                transport.write(b"\0" + wire.encode(Frame(Type.HELLO, secrets.randbits(32))))
                asked = time.monotonic()
            frames = decoder.feed(transport.read(0.2))
            for frame in frames:
                if seen.take(frame):
                    on_change()
                if frame.type & ~REPLY == Type.LOG and seen.finished:
                    asked = float("-inf")
            _check(seen, expect_hash, transport.name)
            if seen.steps < 0 and not seen.lines and time.monotonic() - began > timeout:
                raise TransportError(
                    f"the board has said nothing for {timeout:g} s", where=transport.name,
                    do="Check the port and its rate, or allow a longer --timeout",
                )  # fmt: skip
    except PortClosedError:
        if seen.steps < 0 and not seen.lines:
            raise
        seen.ended = True
    finally:
        transport.close()


def _check(seen: Observation, expected: bytes | None, where: str) -> None:
    if expected is not None and seen.hash and seen.hash != expected.hex():
        raise SessionError(
            f"the board runs model {seen.hash[:12]}, not {expected.hex()[:12]}", where=where,
            do="Flash the model that is meant",
        )  # fmt: skip


def dashboard(seen: Observation) -> RenderableType:
    """The observation for a terminal: where it stands, the loss as bars, and what the board said last."""
    title = seen.board or (seen.hash[:12] and f"model {seen.hash[:12]}") or "waiting for the board"
    losses = [report.loss for report in seen.reports]
    parts: list[RenderableType] = [Text(seen.status if seen.steps >= 0 else "…", style="bold")]
    if losses:
        parts += [Text(), *(Text(row, style="cyan") for row in bars(losses))]
    if seen.lines:
        parts += [Text(), *(Text(line, style="dim") for line in seen.lines[-LINES:])]
    return Panel(Group(*parts), title=title, title_align="left", width=COLUMNS + 16)


def bars(values: list[float], rows: int = ROWS, columns: int = COLUMNS) -> list[str]:
    """Values as bars of text from left to right, zero at the bottom, with the scale at the left.

    More values than columns are averaged over equal stretches; what is no number has no bar.
    """
    count = min(len(values), columns)
    bounds = [i * len(values) // count for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(bounds)]
    top = max((value for value in means if 0 < value < float("inf")), default=1.0)
    text = []
    for row in reversed(range(rows)):
        scale = f"{top * (row + 1) / rows:9.3g} │" if row in (rows - 1, rows // 2 - 1) else " " * 10 + "│"
        text.append(scale + "".join(_cell(value / top * rows - row) for value in means))
    return [*text, " " * 8 + "0 └" + "─" * columns]


def _cell(height: float) -> str:
    """One character of a bar that reaches so many rows above this one's foot."""
    return BARS[round(8 * min(max(height, 0.0), 1.0))] if not isnan(height) else " "
