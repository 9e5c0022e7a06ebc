"""`boards` and `doctor`: what there is to work with."""

from typing import Any

from strop.host.cli.command import Outcome, verb
from strop.host.cli.show import table
from strop.targets.board import Board, Region, board_names, load_board


@verb()
def boards() -> Outcome:
    """Show the boards that strop knows."""
    found = [load_board(name) for name in board_names()]
    rows = [
        (b.name, b.isa, _kilobytes(b.ram), _kilobytes(b.flash), _megahertz(b), "yes" if b.emulator else "", _runners(b))
        for b in found
    ]
    heads = ("board", "core", "RAM", "flash", "clock", "QEMU", "flashed with")
    return Outcome({"boards": [_described(b) for b in found]}, lambda out: table(out, heads, rows))


@verb()
def doctor() -> Outcome:
    """Check what is installed, and tell how to get what is missing."""
    from strop.host.doctor import examine, works

    found = examine()
    fine = works(found)
    rows = [(c.what, "ok" if c.ok else "missing", c.found or f"{c.need}: {c.get}") for c in found]
    document = {"ok": fine, "checks": [check.to_json() for check in found]}
    return Outcome(document, lambda out: table(out, ("", "", ""), rows), 0 if fine else 1)


def _kilobytes(region: Region | None) -> str:
    return f"{region.length / 1024:g} KB" if region else "-"


def _megahertz(board: Board) -> str:
    return "-" if board.is_host else f"{board.clock_hz / 1e6:g} MHz"


def _runners(board: Board) -> str:
    return "-" if board.is_host else ", ".join(runner.name for runner in board.runners)


def _described(board: Board) -> dict[str, Any]:
    sizes = {name: region.length if region else None for name, region in (("ram", board.ram), ("flash", board.flash))}
    return {
        "name": board.name, "description": board.description, "isa": board.isa, "clock_hz": board.clock_hz,
        "ram_bytes": sizes["ram"], "flash_bytes": sizes["flash"], "counter": board.counter.unit,
        "emulated": board.emulator is not None, "runners": [runner.name for runner in board.runners],
        "store_bytes": board.store.length if board.store else None,
    }  # fmt: skip
