"""What a command shows while it works: a bar on a terminal, a line every few seconds in a log, or nothing.

Results go to stdout and everything else to stderr, so that a result can be piped.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("strop")

BAR_SECONDS, LINE_SECONDS, STAGE_SECONDS = 0.1, 5.0, 2.0
"""Time between two updates of a bar, between two lines of a log, and between two that name a stage."""
LOG_WIDTH = 100
"""Columns of output that goes to a file or pipe."""
WINDOW = 100
"""Steps over which the shown loss is averaged."""

Stage = Callable[[str], None]


class Meter:
    """Counts steps and shows, now and then, how far they are.

    total: steps in all.  done: steps done before.  show: called with the meter at most every `seconds`.
    """

    def __init__(self, title: str, total: int, show: Callable[["Meter"], None], seconds: float, done: int = 0) -> None:
        self.title, self.total, self.done = title, total, done
        self.loss: float | None = None
        self.accuracy: float | None = None
        self._show, self._seconds, self._first = show, seconds, done
        self._began = self._shown = time.monotonic()

    def advance(self, loss: float | None = None) -> None:
        """Count a step; its loss enters the running mean."""
        self.done += 1
        if loss is not None:
            weight = 1 / min(self.done - self._first, WINDOW)
            self.loss = loss if self.loss is None else self.loss + weight * (loss - self.loss)
        if time.monotonic() - self._shown >= self._seconds:
            self.show()

    def show(self) -> None:
        """Show now."""
        self._shown = time.monotonic()
        self._show(self)

    @property
    def rate(self) -> float:
        """Steps a second since the start."""
        return (self.done - self._first) / max(time.monotonic() - self._began, 1e-9)

    @property
    def status(self) -> str:
        """Rate, loss and accuracy in words."""
        parts = [f"{self.rate:,.0f}/s"]
        parts += [] if self.loss is None else [f"loss {self.loss:.3f}"]
        parts += [] if self.accuracy is None else [f"accuracy {self.accuracy:.1%}"]
        return "  ".join(parts)


class Terminal:
    """Where a command talks. json: only the result is written.  verbose: 1 adds stages and board messages.

    quiet: no notes.  progress: whether bars and lines are shown.
    """

    def __init__(
        self, *, json: bool = False, verbose: int = 0, quiet: bool = False, progress: bool = True
    ) -> None:
        self.out, self.err = _console(stderr=False), _console(stderr=True)
        self.json, self.verbose, self.quiet = json, verbose, quiet
        self._progress = progress and not json and not quiet
        if verbose:
            _echo_log(self.err)

    @property
    def is_live(self) -> bool:
        """Whether something that moves may be shown."""
        return self._progress and self.err.is_terminal and not self.verbose

    def note(self, text: str) -> None:
        """Tell the user what happens, on stderr, and keep it in the run's log."""
        log.info(text)
        if not (self.json or self.quiet or self.verbose):
            self.err.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def meter(self, title: str, total: int, *, done: int = 0) -> Iterator[Meter]:
        """Count steps in the way this terminal shows them."""
        if not self._progress:
            yield Meter(title, total, lambda _: None, LINE_SECONDS, done)
        elif self.err.is_terminal:
            yield from self._bar(title, total, done)
        else:
            meter = Meter(title, total, self._line, LINE_SECONDS, done)
            yield meter
            meter.show()

    @contextmanager
    def working(self, title: str) -> Iterator[Stage]:
        """Show that something without a count goes on; yields a function that takes the name of each stage."""
        shown = self._progress and self.err.is_terminal
        lines = self._progress and not shown and not self.verbose
        due = 0.0  # the first stage at once, later ones now and then
        with self.err.status(title) if shown else nullcontext() as status:

            def stage(name: str) -> None:
                nonlocal due
                log.debug("%s: %s", title, name)
                if status is not None:
                    status.update(f"{title}: {name}")
                elif lines and time.monotonic() >= due:
                    due = time.monotonic() + STAGE_SECONDS
                    self.err.print(f"{title}: {name}", markup=False, highlight=False, soft_wrap=True)

            yield stage

    def _bar(self, title: str, total: int, done: int) -> Iterator[Meter]:
        columns = (
            TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"), TimeRemainingColumn(compact=True),
        )  # fmt: skip
        with Progress(*columns, console=self.err) as progress:
            task = progress.add_task(title, total=total, completed=done, status="")

            def show(meter: Meter) -> None:
                progress.update(task, completed=meter.done, status=meter.status)

            meter = Meter(title, total, show, BAR_SECONDS, done)
            yield meter
            meter.show()

    def _line(self, meter: Meter) -> None:
        left = (meter.total - meter.done) / meter.rate if meter.rate else 0
        text = f"{meter.title}  {meter.done}/{meter.total}  {meter.status}  {left:.0f} s left"
        self.err.print(text, markup=False, highlight=False, soft_wrap=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else LOG_WIDTH, highlight=False)


def _echo_log(console: Console) -> None:
    """Show log records of this package."""

    class Echo(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = f"{record.name.removeprefix('strop').lstrip('.') or 'strop'}: {record.getMessage()}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    log.setLevel(logging.DEBUG)
    log.addHandler(Echo())
