"""A user's own Python file: `file.py:name` on the command line, whatever the name stands for."""

import importlib.util
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from strop.errors import StropError, UsageError

T = TypeVar("T")


def is_userfile(spec: str) -> bool:
    """Tell whether a word of the command line means a name in a Python file."""
    path, colon, name = spec.rpartition(":")
    return bool(colon and name) and path.endswith(".py")


def load(spec: str, what: str) -> tuple[Path, Any]:
    """Import `file.py:name`; returns the file and what the name stands for.

    what: the kind of file in messages, such as "model".  The file's folder is on the path while it is imported, so
    that it finds its neighbours.  Raises UsageError for a file or name that is missing, and for what the file raises.
    """
    place, _, name = spec.rpartition(":")
    path = Path(place)
    if not path.is_file():
        raise UsageError(f"the {what} file {path} does not exist", do="Give the path of a Python file")
    module = guarded(path, what, partial(_import, path))
    if not hasattr(module, name):
        raise UsageError(f"{path} has no {name!r}", do=f"Give {what} as file.py:name of something in the file")
    return path, getattr(module, name)


def call(spec: str, what: str) -> tuple[Path, Any]:
    """Import `file.py:callable` and call it without arguments; returns the file and the result."""
    path, maker = load(spec, what)
    if not callable(maker):
        raise UsageError(f"{spec.rpartition(':')[2]!r} is not callable", where=str(path), do="Name a function")
    return path, guarded(path, what, maker)


def guarded(path: Path, what: str, action: Callable[[], T]) -> T:
    """Run the user's code; what it raises becomes one sentence with the line it came from."""
    try:
        return action()
    except StropError:
        raise
    except Exception as error:
        raise UsageError(
            f"the {what} file fails: {type(error).__name__}: {error}", where=_line(path, error), do="Repair it"
        ) from error


def _import(path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        found.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module


def _line(path: Path, error: Exception) -> str:
    """The innermost line of the user's file that an error went through."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    return f"{path}:{lines[-1]}" if lines else str(path)
