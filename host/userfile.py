"""A user's own Python file: `file.py:name` on the command line, for a model, a data set or a rule."""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from strop.errors import StropError, UsageError


def is_userfile(spec: str) -> bool:
    """Tell whether a word of the command line means a name in a Python file."""
    path, colon, name = spec.rpartition(":")
    return bool(colon and name) and path.endswith(".py")


def load(spec: str, what: str) -> tuple[Path, Callable[..., Any]]:
    """Import `file.py:name`; returns the file, and the function or class of that name.

    what: the kind of file in messages, such as "model".  Raises UsageError for a file or name that is missing, and for
    what the file raises, with its line.
    """
    place, _, name = spec.rpartition(":")
    path = Path(place)
    if not path.is_file():
        raise UsageError(f"the {what} file {path} does not exist", do="Give the path of a Python file")
    with _guarded(path, what):
        found = getattr(_import(path, what), name, None)
    if not callable(found):
        raise UsageError(f"{path} has no callable {name!r}", do=f"Name a function or class of the {what} file")
    return path, found


def call(spec: str, what: str) -> tuple[Path, Any]:
    """Import `file.py:callable` and call it without arguments; returns the file and the result."""
    path, maker = load(spec, what)
    with _guarded(path, what):
        return path, maker()


def _import(path: Path, what: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(f"user_{what}_{path.stem}", path)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses and pickles of the file look it up
    found.loader.exec_module(module)
    return module


@contextmanager
def _guarded(path: Path, what: str) -> Iterator[None]:
    """Run the file's code beside its neighbours; what it raises becomes one sentence with the line it came from."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    except StropError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"the {what} file fails: {type(error).__name__}: {error}", where=_line(path, error), do="Repair it"
        ) from error
    finally:
        sys.path.remove(folder)


def _line(path: Path, error: BaseException) -> str:
    """The innermost line of the user's file that an error went through."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    return f"{path}:{lines[-1]}" if lines else str(path)
