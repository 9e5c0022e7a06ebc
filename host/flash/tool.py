"""What the flash tools have in common: a program of somebody else's, called for one board on this desk."""

import re
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

from strop.compiler.bundle import write_whole
from strop.errors import FlashError
from strop.host.flash.base import Ability, Commands
from strop.host.instances import Instance
from strop.targets.board import Board
from strop.targets.board import Runner as Entry

TOOL_SECONDS = 300.0
"""How long a tool may take; a slow probe writes some 10 KB/s."""
PORT_SECONDS = 10.0
"""How long a board on USB may take to come back after its reset."""
USB_IDS = re.compile("^[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}:")
"""As in 1366:1015:000683759358, which only probe-rs wants; the parts of an address such as 84:F7:… are shorter."""
WORDS = 6
"""Lines of a failing tool that a message repeats."""


class Tool(ABC):
    """A flash tool. A subclass says what it can do, and the commands that do it.

    binary: the program.  get: how to install it.  hint: what to look at when it fails.
    """

    name: ClassVar[str]
    binary: ClassVar[str]
    get: ClassVar[str]
    hint: ClassVar[str] = "Check cable, power and probe"
    abilities: ClassVar[frozenset[Ability]]

    def __init__(self, board: Board, instance: Instance | None = None) -> None:
        self.board, self.instance = board, instance or Instance(board.name)

    @classmethod
    def claims(cls, board: Board) -> bool:
        """Whether the board's description names the tool."""
        return any(same_name(entry.name, cls.name) for entry in board.runners)

    @cached_property
    def entry(self) -> Entry:
        """What the board's description says to this tool."""
        return next(entry for entry in self.board.runners if same_name(entry.name, self.name))

    @property
    def program(self) -> str:
        """The tool's name where the shell finds it, or its path beside this Python, where pip puts it."""
        return self.binary if shutil.which(self.binary) else found(self.binary) or self.binary

    @property
    def probe(self) -> str:
        """Serial number of the probe, without the USB ids that may stand before it; empty for the only one."""
        return USB_IDS.sub("", self.instance.probe)

    @abstractmethod
    def flashing(self, elf: Path) -> Commands:
        """What writes the program and lets it run."""

    def erasing(self) -> Commands:
        """What clears the whole flash."""
        raise FlashError(f"{self.name} cannot erase {self.board.name}", do="Choose another --runner")

    def resetting(self) -> Commands:
        """What restarts the board."""
        raise FlashError(f"{self.name} cannot reset {self.board.name}", do="Choose another --runner")

    def commands(self, elf: Path, *, erase: bool = False) -> Commands:
        """Return what ``start`` would run."""
        return [*(self.erasing() if erase else []), *self.flashing(elf)]

    def start(self, elf: Path, *, erase: bool = False) -> "Flashed":
        """Flash the program, and wait until the board's port is there again."""
        self._run(self.commands(elf, erase=erase))
        return Flashed(self.instance, self.board)

    def reset(self) -> None:
        """Restart the board."""
        self._run(self.resetting())

    def required(self, field: str) -> str:
        """An entry of the board's description that this tool cannot do without."""
        value = str(getattr(self.entry, field))
        if not value:
            raise FlashError(
                f"{self.name} needs to know the {field} of {self.board.name}", where=str(self.board.path),
                do=f"Add {field} = … to its entry in runners",
            )  # fmt: skip
        return value

    def _run(self, commands: Commands) -> None:
        for command in commands:
            if not found(command[0]):
                raise FlashError(f"{self.binary} is not installed", do=self.get)
            self._call(command)

    def _call(self, command: list[str]) -> None:
        """Run one program, without a terminal: it has nobody to ask."""
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=TOOL_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise FlashError(f"{self.binary} did not end within {TOOL_SECONDS:g} s", do=self.hint) from None
        except OSError as error:
            raise FlashError(f"{self.binary} cannot be run: {error}", do=self.get) from error
        if done.returncode:
            lines = [line.strip() for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
            said = " / ".join(lines[-WORDS:]) or f"status {done.returncode}"
            raise FlashError(f"{self.binary} failed: {said}", do=self.hint)


def found(binary: str) -> str:
    """Path of a program, on PATH or beside this Python; empty where it is not installed."""
    return shutil.which(binary) or shutil.which(binary, path=str(Path(sys.executable).parent)) or ""


def same_name(one: str, other: str) -> bool:
    """Whether two runners' names are the same, however they are joined: `probe-rs`, `probe_rs`."""
    return one.replace("_", "-") == other.replace("_", "-")


def beside(elf: Path, suffix: str, content: bytes | str) -> Path:
    """Write a file beside the program, whole; returns its path."""
    path = elf.with_suffix(suffix)
    write_whole(path, content if isinstance(content, bytes) else content.encode())
    return path


class Flashed:
    """A device that has been flashed and runs by itself."""

    pid: int | None = None

    def __init__(self, instance: Instance, board: Board) -> None:
        self._instance, self._board = instance, board

    @property
    def endpoint(self) -> str:
        """Address of the serial line. Raises FlashError when it is not known, or does not come back."""
        port = self._instance.serial
        if not port:
            advice = "Name it with serial: in a hardware map, or with --port once the board runs"
            raise FlashError(f"the serial port of {self._board.name} is not known", do=advice)
        until = time.monotonic() + PORT_SECONDS
        while port.startswith("/dev/") and not Path(port).exists():
            if time.monotonic() > until:
                raise FlashError("the board's port did not come back", where=port, do="Check the cable; see strop list")
            time.sleep(0.05)
        return self._instance.address(self._board)

    def check(self) -> None:
        """A device does not report its end."""

    def close(self) -> None:
        """The device goes on."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it running."""
