"""Runners. One file each: it has ``claims(board) -> bool`` and ``open_runner(board) -> Runner``."""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from strop.errors import FlashError
from strop.host.flash.base import Ability, Runner, Running
from strop.targets.board import Board

__all__ = ["Ability", "Runner", "Running", "runner_for", "runner_names"]


def _modules() -> Iterator[tuple[str, ModuleType]]:
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        if hasattr(module, "open_runner"):
            yield found.name, module


def runner_names(board: Board) -> tuple[str, ...]:
    """Return the names of the runners that can bring a program onto ``board``."""
    return tuple(name for name, module in _modules() if module.claims(board))


def runner_for(board: Board, name: str = "") -> Runner:
    """Return the runner called ``name``, or else the first that claims ``board``.

    Raises FlashError when there is none.
    """
    claiming = {found: module for found, module in _modules() if module.claims(board)}
    module = claiming.get(name) if name else next(iter(claiming.values()), None)
    if module is None:
        wanted = f"runner {name!r} does not serve" if name else "nothing can start a program on"
        raise FlashError(f"{wanted} board {board.name!r}", do=f"Known for it: {', '.join(claiming) or 'none'}")
    runner: Runner = module.open_runner(board)
    return runner
