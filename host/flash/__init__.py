"""Runners. One file each: it has ``claims(board) -> bool`` and ``open_runner(board, instance=None) -> Runner``."""

import importlib
import pkgutil
from functools import cache
from types import ModuleType

from strop.errors import FlashError
from strop.host.flash.base import Ability, Runner, Running
from strop.host.flash.tool import Tool, found
from strop.host.instances import Instance
from strop.targets.board import Board

__all__ = ["Ability", "Runner", "Running", "flash_tools", "runner_for", "runner_names"]


@cache
def _modules() -> dict[str, ModuleType]:
    """Runners by name: that of their file, with hyphens."""
    names = [item.name for item in pkgutil.iter_modules(__path__)]
    modules = {name.replace("_", "-"): importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "open_runner")}


def flash_tools() -> list[type[Tool]]:
    """Every flash tool, by name; emulators are none."""
    kinds = [module.open_runner for _, module in sorted(_modules().items())]
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Tool)]


def runner_names(board: Board) -> tuple[str, ...]:
    """Return the names of the runners that can bring a program onto ``board``.

    An emulator comes first, then the tools as the board's description orders them.
    """
    order = [entry.name.replace("_", "-") for entry in board.runners]
    claiming = [name for name, module in _modules().items() if module.claims(board)]
    return tuple(sorted(claiming, key=lambda name: order.index(name) if name in order else -1))


def runner_for(board: Board, name: str = "", instance: Instance | None = None) -> Runner:
    """Return the runner called ``name``, or else the one that suits ``board`` best.

    instance: the board on the desk; one that is given is flashed, not emulated. Of several tools, the first that is
    installed is taken.  Raises FlashError when there is none.
    """
    claiming = runner_names(board)
    wanted = (name or (instance.runner if instance else "")).replace("_", "-")
    usable = [one for one in claiming if not instance or one != "qemu"]
    chosen = wanted if wanted in claiming else "" if wanted else _best(usable)
    if not chosen:
        what = f"runner {wanted!r} does not serve" if wanted else "nothing can bring a program onto"
        raise FlashError(f"{what} board {board.name!r}", do=f"Known for it: {', '.join(claiming) or 'none'}")
    runner: Runner = _modules()[chosen].open_runner(board, instance)
    return runner


def _best(names: list[str]) -> str:
    """The first whose program is installed, or else the first; its error then tells how to get it."""
    tools = [name for name in names if name == "qemu" or found(_modules()[name].open_runner.binary)]
    return next(iter(tools or names), "")
