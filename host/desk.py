"""The boards of a test run: those on the desk, by a hardware map or a port, and the emulated ones for the rest."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from strop.errors import UsageError
from strop.host.hardware_map import UNKNOWN, read_map
from strop.host.instances import Instance, choose, located
from strop.targets.board import Board, load_board

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle


def board_named(spec: str) -> Board:
    """The board of `name` or `name@id`."""
    return load_board(spec.partition("@")[0])


class Desk:
    """The boards of a test run. hardware_map: None for emulated boards only.  port: of the one board that is tested."""

    def __init__(self, hardware_map: Path | None = None, port: str = "", *, autoflash: bool = True) -> None:
        self._map, self._port, self.autoflash = hardware_map, port, autoflash
        self.bundles: dict[str, Bundle] = {}
        """What has been built, by a hash of all that went into it."""
        self._entries = read_map(hardware_map) if hardware_map else []

    @property
    def names(self) -> list[str]:
        """Each board of the map that can be used, with its id where there are several of a kind."""
        usable = [entry for entry in self._entries if entry.connected and entry.board != UNKNOWN]
        kinds = [entry.board for entry in usable]
        return [one.board if kinds.count(one.board) == 1 else f"{one.board}@{one.id}" for one in usable]

    def instance(self, spec: str) -> Instance | None:
        """The hardware behind `name` or `name@id`; None where it is emulated. Raises UsageError for several."""
        name, _, wanted = spec.partition("@")
        board = board_named(spec)
        if self._port:
            return Instance(board.name, wanted, self._port)
        try:
            found = choose(self._entries, board.name, wanted)
        except UsageError as error:
            error.do = f"Choose one with --board {name}@ID"
            raise
        return located(found, board) if found else None

    def why_not(self, spec: str, *, hardware: bool = False, ram: int = 0) -> str:
        """Why a test cannot run on a board, or an empty string. hardware: it must be none emulated.  ram: bytes."""
        board, instance = board_named(spec), self.instance(spec)
        if board.ram and board.ram.length < ram:
            return f"{board.name} has {board.ram.length:,} bytes of RAM, the test needs {ram:,}"
        if instance or (board.is_host and not hardware):
            return ""
        where = f"{self._map} does not name it" if self._map else "there is no --hardware-map"
        if hardware or board.emulator is None:
            return f"{spec} is needed as hardware, and {where}" if hardware else f"{spec} is not emulated, and {where}"
        if "@" in spec:
            return f"{spec} is one board of several, and {where}"
        emulator = board.emulator
        if shutil.which(emulator.binary) is None:
            return f"{emulator.binary} is not installed: sudo apt-get install {emulator.package}"
        return ""
