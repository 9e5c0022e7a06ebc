"""`monitor`: watch a board, and one that trains by itself."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live

from strop.errors import UsageError
from strop.host.cli.choices import bundle_of, instance_of, port_of
from strop.host.cli.command import Outcome, verb
from strop.host.cli.options import Build, Keep, Shared, Tools, Weights
from strop.host.cli.show import facts
from strop.host.monitor import Observation, dashboard, watch

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle

OptionalModel = Annotated[str, typer.Argument(metavar="[MODEL]", help="With --sample: what the board is to train.")]
Sample = Annotated[Path | None, typer.Option(help="C file with strop_sample: the board trains on what that gives.")]
Every = Annotated[int, typer.Option(min=1, help="With --sample: steps between two reports.")]
Seconds = Annotated[float, typer.Option("--seconds", help="Stop after this time; Ctrl-C if not given.")]
Steps = Annotated[int, typer.Option("--steps", min=0, help="Stop when the board has trained so many steps.")]
Plot = Annotated[Path | None, typer.Option(help="Picture of loss and accuracy to write at the end: a .png or .svg.")]


@verb()
def monitor(
    shared: Shared, build: Build, start: Weights, tools: Tools, keep: Keep, model: OptionalModel = "",
    sample: Sample = None, every: Every = 100, seconds: Seconds = 0.0, steps: Steps = 0, plot: Plot = None,
) -> Outcome:  # fmt: skip
    """Watch a running board: loss, accuracy, steps and what it says. With --sample, start one that trains by itself."""
    from strop.host.transport import transport_for

    bundle = _bundle(shared, model, build, start, sample)
    seen, until = Observation(board=bundle.board.name if sample and bundle else ""), time.monotonic() + seconds
    with ExitStack() as resources:
        address = _address(shared, tools, bundle, sample, every, keep, resources)
        on_change = resources.enter_context(_shown(shared, seen))

        def done() -> bool:
            return bool((seconds and time.monotonic() > until) or (steps and seen.steps >= steps) or seen.settled)

        try:
            watch(
                transport_for(address), seen, done=done, on_change=on_change, timeout=tools.timeout,
                expect_hash=bundle.hash if bundle else None,
            )  # fmt: skip
        except KeyboardInterrupt:
            shared.terminal.note("stopped")
    if plot:
        seen.draw(plot)
    document = seen.to_json()
    names = ("board", "steps", "loss", "accuracy")
    shown = {name: document[name] for name in names if document[name] not in (None, "")}
    return Outcome(document, lambda out: facts(out, shown))


def _bundle(shared: Shared, model: str, build: Build, start: Weights, sample: Path | None) -> "Bundle | None":
    if sample and not model:
        raise UsageError("no model is given for the board to train", do="Name a built-in, or file.py:callable")
    return bundle_of(model, build, shared, start.weights) if model else None


def _address(
    shared: Shared, tools: Tools, bundle: "Bundle | None", sample: Path | None, every: int, keep: Keep,
    resources: ExitStack,
) -> str:  # fmt: skip
    """The port of a board that runs, or of one that is started with the samples."""
    from strop.host.device import start
    from strop.host.firmware import onboard_elf
    from strop.host.store import emulating

    if shared.port or not (sample and bundle):
        return port_of(shared, "monitor")
    if bundle.board.is_host:
        raise UsageError("the twin has no program of its own to train in", do="Choose a board with --board")
    with shared.terminal.working(f"starting {bundle.board.name}"):
        image = onboard_elf(bundle, sample, every=every, autosave=keep.autosave, toolchain=tools.toolchain)
        board = emulating(bundle.board, Path(keep.store)) if keep.store else bundle.board
        return start(board, image, resources, instance_of(bundle.board, shared))


@contextmanager
def _shown(shared: Shared, seen: Observation) -> Iterator[Callable[[], None]]:
    """A dashboard on a terminal, lines in a log, nothing with --json: a function to call when something is new."""
    terminal = shared.terminal
    if not terminal.is_live:
        yield _Lines(shared, seen).show
        return
    with Live(dashboard(seen), console=terminal.err, refresh_per_second=8) as live:
        yield lambda: live.update(dashboard(seen))


class _Lines:
    """Notes what is new: each line, and where training stands."""

    def __init__(self, shared: Shared, seen: Observation) -> None:
        self._terminal, self._seen = shared.terminal, seen
        self._lines, self._status = 0, ""

    def show(self) -> None:
        for line in self._seen.lines[self._lines :]:
            self._terminal.note(line)
        self._lines = len(self._seen.lines)
        if self._seen.steps >= 0 and self._seen.status != self._status:
            self._status = self._seen.status
            self._terminal.note(self._status)
