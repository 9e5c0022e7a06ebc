"""A run's folder: `runs/<time>/` with `log.txt`, `report.json`, and whatever else the run leaves behind."""

import json
import logging
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from strop.compiler.bundle import write_whole
from strop.errors import StropError, UsageError

if TYPE_CHECKING:
    from strop.targets.board import Board

PACKAGES = ("strop", "torch", "apache-tvm", "ziglang", "numpy", "scikit-learn")
"""Python packages whose version can change a result."""


class Interrupted(StropError):
    """The user stopped the command."""


class Run:
    """Records one run. Use as a context manager: whatever ends it, `report.json` says how.

    settings: all that is needed to do it again, JSON-able.  tools: see `tools_used`.
    folder: made if missing; None for `runs/<time>`.
    """

    def __init__(
        self, verb: str, settings: Mapping[str, Any], tools: Mapping[str, str], folder: Path | None = None
    ) -> None:
        self.folder = _folder(folder)
        self._began = time.monotonic()
        self._page: Callable[[Mapping[str, Any]], object] | None = None
        self._log = logging.FileHandler(self.folder / "log.txt")
        self._log.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
        self.report: dict[str, Any] = {
            "verb": verb,
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "status": "running",
            "settings": dict(settings),
            "versions": versions(),
            "tools": dict(tools),
        }

    def __enter__(self) -> Self:
        logger = logging.getLogger("strop")
        logger.addHandler(self._log)
        logger.setLevel(logging.DEBUG)
        self._write()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        self.report["status"] = "interrupted" if stopped else "failed" if error else "done"
        self.report["seconds"] = round(time.monotonic() - self._began, 3)
        if error is not None:
            self.report["error"] = described(error)
            logging.getLogger("strop").error("%s", error or kind)
        self._write()
        if self._page:
            self._publish(self._page, failed=error is not None)
        logging.getLogger("strop").removeHandler(self._log)
        self._log.close()

    def add(self, **entries: Any) -> None:
        """Put entries into the report, at once also on disk."""
        self.report.update(entries)
        self._write()

    def publish(self, page: Callable[[Mapping[str, Any]], object]) -> None:
        """Have a page written when the run has ended, however: it is called with the whole report."""
        self._page = page

    def path(self, name: str) -> Path:
        """Where a file of this run goes."""
        return self.folder / name

    def _publish(self, page: Callable[[Mapping[str, Any]], object], *, failed: bool) -> None:
        """Write the page; behind a run that failed, what goes wrong here is only told in the log."""
        try:
            page(self.report)
        except Exception as error:
            logging.getLogger("strop").warning("no page was written: %s", error)
            if not failed:
                raise

    def _write(self) -> None:
        write_whole(self.folder / "report.json", (to_json(self.report) + "\n").encode())


def to_json(document: Mapping[str, Any] | Sequence[Any]) -> str:
    """A document as text; what JSON has no number for (NaN, infinity) becomes null."""
    return json.dumps(_finite(document), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if isfinite(value) else None
        case Mapping():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
    return value


def read_report(folder: Path) -> dict[str, Any]:
    """The report of an earlier run. Raises UsageError where there is none."""
    try:
        report = json.loads((folder / "report.json").read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} is not the folder of a run: {error}", do="Name a folder in runs/") from None
    return dict(report)


def described(error: BaseException) -> dict[str, Any]:
    """An error as JSON: what, where, what to do, and its kind."""
    if isinstance(error, StropError):
        return {"kind": type(error).__name__, "what": error.what, "where": error.where, "do": error.do}
    return {"kind": type(error).__name__, "what": str(error), "where": "", "do": ""}


def versions() -> dict[str, str]:
    """What the figures of a run depend on."""
    found = {name: installed(name) for name in PACKAGES}
    return {**found, "python": platform.python_version(), "system": platform.platform()}


def tools_used(board: "Board", toolchain: str) -> dict[str, str]:
    """Compiler, its flags and the emulator that a run on this board uses."""
    from strop.targets.toolchain import BARE_METAL, NUMERICS, SHARED, find_toolchain

    compiler = find_toolchain(toolchain, board.core)
    flags = (*compiler.flags, *NUMERICS, *(SHARED if board.is_host else BARE_METAL))
    emulator = first_line(board.emulator.binary, "--version") if board.emulator else ""
    return {"compiler": compiler.version, "flags": " ".join(flags), "emulator": emulator}


@cache
def first_line(*command: str) -> str:
    """First line that a command prints, such as its version; empty where it is missing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).partition("\n")[0].strip()


def installed(package: str) -> str:
    """Version of a Python package, empty where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _folder(folder: Path | None) -> Path:
    """The folder that is given, or a new one named after the time."""
    try:
        if folder is None:
            return _new_folder()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the run's folder cannot be made: {error}", do="Give another with --run-dir") from error
    return folder


def _new_folder() -> Path:
    stem = Path("runs") / datetime.now().astimezone().strftime("%Y-%m-%dT%H-%M-%S")
    number = 1
    while True:
        folder = stem if number == 1 else stem.with_name(f"{stem.name}.{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder
