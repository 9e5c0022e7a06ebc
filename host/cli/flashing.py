"""`list`, `flash` and `reset`: boards on this desk, and how a program gets onto one."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from strop.errors import FlashError
from strop.host.cli.choices import bundle_of, device_of, instance_of, not_with_port, session_of
from strop.host.cli.command import Outcome, verb
from strop.host.cli.options import Build, Model, Shared, Tools, Weights
from strop.host.cli.show import facts, table
from strop.targets.board import load_board

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle
    from strop.host.flash import Runner
    from strop.host.instances import Instance
    from strop.targets.board import Board

WriteMap = Annotated[
    Path | None, typer.Option("--write-map", help="Write a hardware map, or bring one up to date.", show_default=False)
]
Tool = Annotated[str, typer.Option("--runner", help="Flash tool; the board's first that is installed if not given.")]
Erase = Annotated[bool, typer.Option("--erase", help="Clear the whole flash first.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the command that flashes, ready to paste.")]
Restart = Annotated[bool, typer.Option("--restart", help="Restart the board instead; an emulator ends.")]


@verb("list")
def list_boards(shared: Shared, write_map: WriteMap = None) -> Outcome:
    """Show the serial ports and debug probes of this computer, and the boards that may be behind them."""
    from strop.host.hardware_map import UNKNOWN
    from strop.host.hardware_map import write_map as write
    from strop.host.instances import devices

    found = devices()
    entries = write(write_map, found, shared.board) if write_map else []
    rows = [(d.port or "-", d.serial_number, d.usb_id, ", ".join(d.boards), d.description) for d in found]
    heads = ("port", "serial number", "USB id", "board", "description")
    document: dict[str, Any] = {
        "ports": [
            {"port": d.port, "description": d.description, "serial_number": d.serial_number, "usb_id": d.usb_id,
             "boards": list(d.boards)} for d in found
        ],
        "map": str(write_map) if write_map else None,
    }  # fmt: skip

    def show(out: Console) -> None:
        table(out, heads, rows or [("none", "", "", "", "")])
        if write_map:
            unknown = [entry.id for entry in entries if entry.board == UNKNOWN]
            say = f": write the board of {', '.join(unknown)}, several fit" if unknown else ""
            out.print(f"{write_map} has {len(entries)} entries{say}", soft_wrap=True, markup=False)

    return Outcome(document, show)


@verb()
def flash(
    shared: Shared, model: Model, build: Build, start: Weights, tools: Tools, runner: Tool = "", erase: Erase = False,
    dry_run: DryRun = False,
) -> Outcome:  # fmt: skip
    """Build the firmware, put it on the board, and check that it answers."""
    not_with_port(shared, "flash")
    bundle = bundle_of(model, build, shared, start.weights)
    if bundle.board.is_host:
        with device_of(bundle, shared, tools, framed=True):
            return _flashed(bundle, answers=True)
    instance = _target(shared, bundle.board, runner, dry_run)
    if dry_run:
        return _dry_run(bundle, runner, instance, tools, erase)
    with shared.terminal.working(f"flashing {bundle.board.name}"):
        answers = _flash(bundle, runner, instance, tools, erase)
    return _flashed(bundle, answers=answers)


@verb()
def reset(shared: Shared, tools: Tools, restart: Restart = False, runner: Tool = "") -> Outcome:
    """Set a running board's parameters and state to their beginning; with --runner, restart it by its probe."""
    if runner:
        board = load_board(shared.board)
        _able(board, runner, instance_of(board, shared, hardware=True)).reset()
    else:
        with session_of(shared, tools, "reset") as session:
            (session.restart if restart else session.reset)()
    document = {"port": shared.port or shared.board, "done": "restarted" if restart or runner else "reset"}
    return Outcome(document, lambda out: facts(out, document))


def _target(shared: Shared, board: "Board", runner: str, dry_run: bool) -> "Instance | None":
    """The board to flash; None for an emulator. A dry run needs none to be there, but one that a map has."""
    from strop.host.instances import Instance, MissingBoardError

    try:
        return instance_of(board, shared, hardware=runner not in ("", "qemu"))
    except MissingBoardError:
        if not dry_run or shared.hardware_map:
            raise
        return Instance(board.name, shared.id, probe=shared.id)


def _flash(bundle: "Bundle", runner: str, instance: "Instance | None", tools: Tools, erase: bool) -> bool:
    """Flash or emulate; returns whether the board answered, which needs a port that is known."""
    from strop.host.firmware import elf
    from strop.host.session import Session
    from strop.host.transport import transport_for

    tool = _able(bundle.board, runner, instance)
    with tool.start(elf(bundle, toolchain=tools.toolchain), erase=erase) as running:
        if instance and not instance.serial:
            return False
        with Session(transport_for(running.endpoint), expect_hash=bundle.hash, timeout=tools.timeout):
            return True


def _dry_run(bundle: "Bundle", runner: str, instance: "Instance | None", tools: Tools, erase: bool) -> Outcome:
    from strop.host.firmware import elf

    image = elf(bundle, toolchain=tools.toolchain)
    commands = _able(bundle.board, runner, instance).commands(image, erase=erase)
    document = {"board": bundle.board.name, "commands": commands}

    def show(out: Console) -> None:
        for command in commands:
            out.print(shlex.join(command), soft_wrap=True, markup=False, highlight=False)

    return Outcome(document, show)


def _able(board: "Board", runner: str, instance: "Instance | None") -> "Runner":
    """The runner, if it can tell boards apart where one is to be told apart."""
    from strop.host.flash import Ability, runner_for

    found = runner_for(board, runner, instance)
    if instance and instance.probe and Ability.ID not in found.abilities:
        advice = "Choose another --runner, or leave out --id"
        raise FlashError(f"{found.name} cannot choose a board by its id", do=advice)
    return found


def _flashed(bundle: "Bundle", *, answers: bool) -> Outcome:
    document = {"board": bundle.board.name, "model": bundle.manifest["name"], "hash": bundle.hash.hex()}
    shown = document if answers else {**document, "answers": "not asked: its serial port is not known"}
    return Outcome({**document, "answers": answers or None}, lambda out: facts(out, shown))
