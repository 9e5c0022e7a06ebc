"""`flash`, `run`, `monitor`, `reset` and `weights`: a board and what is on it."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.errors import UsageError
from strop.host.arrays import check_weights_path, read_weights, write_weights
from strop.host.cli.choices import bundle_of, device_of
from strop.host.cli.command import Outcome, app, verb
from strop.host.cli.options import Build, Model, Shared, Tools, Weights
from strop.host.cli.show import facts
from strop.host.session import Session

POLL_SECONDS = 0.3
"""Time between two questions to a board that is watched."""

weights = typer.Typer(no_args_is_help=True, help="Move trained weights between a board and files.")
app.add_typer(weights, name="weights")

Seconds = Annotated[float, typer.Option("--seconds", help="Stop after this time; Ctrl-C if not given.")]
Restart = Annotated[bool, typer.Option("--restart", help="Restart the board instead; an emulator ends.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A .pt or .npz.", show_default=False)]
OutFile = Annotated[Path, typer.Option("--out", "-o", help="The file to write: .pt or .npz.")]


@verb()
def flash(shared: Shared, model: Model, build: Build, start: Weights, tools: Tools) -> Outcome:
    """Build the firmware, put it on the board, and check that it answers."""
    _not_with_port(shared, "flash")
    bundle = bundle_of(model, build, shared, start.weights)
    with device_of(bundle, shared, tools, framed=True):
        document = {"board": bundle.board.name, "model": bundle.manifest["name"], "hash": bundle.hash.hex()}
    return Outcome(document, lambda out: facts(out, document))


@verb()
def run(shared: Shared, model: Model, build: Build, start: Weights, tools: Tools) -> Outcome:
    """Flash or emulate, and leave the board running for other commands with --port, until Ctrl-C."""
    from strop.host.device import start as start_board
    from strop.host.firmware import elf
    from strop.host.transport import transport_for

    _not_with_port(shared, "run")
    bundle = bundle_of(model, build, shared, start.weights)
    if bundle.board.is_host:
        raise UsageError("the twin lives inside a command and cannot be left running", do="Choose a board with --board")
    running = ExitStack()
    with shared.terminal.working(f"starting {bundle.board.name}"):
        address = start_board(bundle.board, elf(bundle, toolchain=tools.toolchain), running)
        with Session(transport_for(address), expect_hash=bundle.hash, timeout=tools.timeout):
            pass
    document = {"board": bundle.board.name, "port": address, "hash": bundle.hash.hex()}
    return Outcome(document, lambda out: facts(out, document), then=lambda: _until_interrupted(running))


@verb()
def monitor(shared: Shared, tools: Tools, seconds: Seconds = 0.0) -> Outcome:
    """Show what a running board says, and how many steps it has trained."""
    lines: list[str] = []

    def hear(line: str) -> None:
        lines.append(line)
        shared.terminal.note(line)

    until = time.monotonic() + seconds
    with _session(shared, tools, "monitor", hear) as session:
        steps = -1
        while not seconds or time.monotonic() < until:
            stats = session.stats()
            if stats.steps != steps:
                steps = stats.steps
                shared.terminal.note(f"{steps} steps")
            time.sleep(POLL_SECONDS)
    return Outcome({"steps": steps, "lines": lines}, lambda out: facts(out, {"steps": steps}))


@verb()
def reset(shared: Shared, tools: Tools, restart: Restart = False) -> Outcome:
    """Set a running board's parameters and state to their beginning."""
    with _session(shared, tools, "reset") as session:
        if restart:
            session.restart()
        else:
            session.reset()
    document = {"port": shared.port, "done": "restarted" if restart else "reset"}
    return Outcome(document, lambda out: facts(out, document))


@verb("pull", weights)
def pull(
    shared: Shared, model: Model, build: Build, start: Weights, tools: Tools, out: OutFile = Path("weights.pt")
) -> Outcome:
    """Write a board's weights to a file that torch reads into the module."""
    check_weights_path(out)
    bundle = bundle_of(model, build, shared, start.weights)
    with device_of(bundle, shared, tools) as device:
        state, steps = device.state_dict(), device.steps
    write_weights(out, state)
    document: dict[str, Any] = {"file": str(out), "board": device.name, "steps": steps, "tensors": list(state)}
    return Outcome(document, lambda console: facts(console, {**document, "tensors": len(state)}))


@verb("push", weights)
def push(shared: Shared, model: Model, file: File, build: Build, start: Weights, tools: Tools) -> Outcome:
    """Load the weights of a file into a board, and read them back."""
    state = read_weights(file)
    bundle = bundle_of(model, build, shared, start.weights)
    with device_of(bundle, shared, tools) as device:
        device.load_tensors(state)
        pushed = [name for name in device.tensors() if name in state]
    document: dict[str, Any] = {"file": str(file), "board": device.name, "tensors": pushed}
    return Outcome(document, lambda console: facts(console, {**document, "tensors": len(pushed)}))


def _session(
    shared: Shared, tools: Tools, name: str, on_log: Callable[[str], None] | None = None
) -> Session:
    """A board that runs already, whatever its model."""
    from strop.host.transport import transport_for

    if not shared.port:
        raise UsageError(f"{name} needs a board that runs already", do="Name it with --port; see strop list")
    return Session(transport_for(shared.port), timeout=tools.timeout, on_log=on_log)


def _not_with_port(shared: Shared, name: str) -> None:
    if shared.port:
        raise UsageError(f"{name} starts a board, so it takes no --port", do="Choose the board with --board")


def _until_interrupted(running: ExitStack) -> None:
    with running:
        while True:
            time.sleep(POLL_SECONDS)
