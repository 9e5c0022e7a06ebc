"""`analyze` and `build`: what becomes of a model without running it."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from strop.errors import PlanError
from strop.host.arrays import write_file
from strop.host.cli.choices import bundle_of
from strop.host.cli.command import Outcome, verb
from strop.host.cli.options import Build, Model, Shared, Tools, Weights
from strop.host.cli.show import table
from strop.targets.board import Board, Region, load_board

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle
    from strop.host.footprint import Report

ROOM = 1 << 27
"""Bytes of each memory of a board that any model of this kind fits."""

Out = Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")]


@verb()
def analyze(shared: Shared, model: Model, build: Build, tools: Tools) -> Outcome:
    """Show the memory a training step needs, stack included, and whether it fits the board."""
    board = load_board(shared.board)
    try:
        bundle, found = _measured(model, build, shared, tools, board)
    except PlanError as error:
        if board.is_host:
            raise
        bundle, found = _oversized(model, build, shared, tools, board, error)
    return Outcome(found.to_json(), lambda out: _show_memory(out, bundle, found), 0 if found.fits else 1)


def _measured(model: str, build: Build, shared: Shared, tools: Tools, board: Board) -> "tuple[Bundle, Report]":
    from strop.host.footprint import report

    bundle = bundle_of(model, build, shared, board=board)
    with shared.terminal.working("measuring"):
        return bundle, report(bundle, toolchain=tools.toolchain)


def _oversized(
    model: str, build: Build, shared: Shared, tools: Tools, board: Board, error: PlanError
) -> "tuple[Bundle, Report]":
    """The figures of a model that is too large for its board, taken on a roomy one; raises the error otherwise."""
    flash, ram = board.memory
    room = {"flash": Region(origin=flash.origin, length=ROOM), "ram": Region(origin=ram.origin, length=ROOM)}
    if room["flash"].overlaps(room["ram"]):
        room["ram"] = Region(origin=room["flash"].end, length=ROOM)
    bundle, found = _measured(model, build, shared, tools, board.model_copy(update=room))
    whole = found.firmware
    if not whole or (whole.ram <= ram.length and whole.flash <= flash.length):
        raise error
    whole = replace(whole, ram_available=ram.length, flash_available=flash.length)
    return bundle, replace(found, firmware=whole, fits=False)


@verb()
def build(shared: Shared, model: Model, build: Build, start: Weights, tools: Tools, out: Out = Path("out")) -> Outcome:
    """Write the generated C, the memory map and the firmware to a folder."""
    from strop.host.firmware import elf

    bundle = bundle_of(model, build, shared, start.weights)
    folder = bundle.save(out)
    written = sorted(folder.iterdir())
    if not bundle.board.is_host:
        with shared.terminal.working("compiling"):
            image = folder / f"{bundle.board.name}.elf"
            write_file(image, elf(bundle, toolchain=tools.toolchain).read_bytes())
            written.append(image)
    return _written(folder, written, bundle)


def _written(folder: Path, files: list[Path], bundle: "Bundle") -> Outcome:
    document: dict[str, Any] = {
        "folder": str(folder), "files": [file.name for file in files], "hash": bundle.hash.hex(),
        "model": bundle.manifest["name"], "board": bundle.board.name,
    }  # fmt: skip

    def show(out: Console) -> None:
        for file in files:
            out.print(f"{file}  {file.stat().st_size:,} B", soft_wrap=True, markup=False)

    return Outcome(document, show)


def _show_memory(out: Console, bundle: "Bundle", found: "Report") -> None:
    out.print(bundle.plan.text, soft_wrap=True, markup=False)
    ram, flash = found.to_json()["ram"], found.to_json()["flash"]
    names = [*ram, *(name for name in flash if name not in ram)]
    names.sort(key="total".__eq__)
    rows = [(name, *(_bytes(part.get(name)) for part in (ram, flash))) for name in names]
    table(out, ("", "RAM", "flash"), rows, numbers=2)
    if whole := found.firmware:
        free = f"RAM {whole.ram:,} of {whole.ram_available:,} B, flash {whole.flash:,} of {whole.flash_available:,} B"
        out.print(f"{bundle.board.name}: {'fits' if found.fits else 'does NOT fit'}: with the session, {free}")


def _bytes(size: int | None) -> str:
    return "" if size is None else f"{size:,} B"
