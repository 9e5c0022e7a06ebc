"""`run` and `weights`: a board and what is on it."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.errors import UsageError
from strop.host.arrays import check_weights_path, read_weights, write_weights
from strop.host.cli.choices import bundle_of, device_of, instance_of, not_with_port
from strop.host.cli.command import Outcome, app, verb
from strop.host.cli.options import Build, Keep, Model, Shared, Tools, Weights
from strop.host.cli.show import facts
from strop.host.session import Session

POLL_SECONDS = 0.3
"""Time between two looks for Ctrl-C."""

weights = typer.Typer(no_args_is_help=True, help="Move trained weights between a board and files.")
app.add_typer(weights, name="weights")

File = Annotated[Path, typer.Argument(metavar="FILE", help="A .pt or .npz.", show_default=False)]
OutFile = Annotated[Path, typer.Option("--out", "-o", help="The file to write: .pt or .npz.")]


@verb()
def run(shared: Shared, model: Model, build: Build, start: Weights, tools: Tools, keep: Keep) -> Outcome:
    """Flash or emulate, and leave the board running for other commands with --port, until Ctrl-C."""
    from strop.host.device import start as start_board
    from strop.host.firmware import elf
    from strop.host.store import emulating
    from strop.host.transport import transport_for

    not_with_port(shared, "run")
    bundle = bundle_of(model, build, shared, start.weights)
    if bundle.board.is_host:
        raise UsageError("the twin lives inside a command and cannot be left running", do="Choose a board with --board")
    instance, running = instance_of(bundle.board, shared), ExitStack()
    with shared.terminal.working(f"starting {bundle.board.name}"):
        board = emulating(bundle.board, Path(keep.store)) if keep.store else bundle.board
        address = start_board(board, elf(bundle, toolchain=tools.toolchain), running, instance)
        with Session(transport_for(address), expect_hash=bundle.hash, timeout=tools.timeout) as session:
            if keep.autosave:
                session.autosave(keep.autosave)
            steps = session.steps
    document = {"board": board.name, "port": address, "hash": bundle.hash.hex(), "steps": steps}
    return Outcome(document, lambda out: facts(out, document), then=lambda: _until_interrupted(running))


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


def _until_interrupted(running: ExitStack) -> None:
    with running:
        while True:
            time.sleep(POLL_SECONDS)
