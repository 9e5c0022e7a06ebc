"""What must be installed, whether it is, and how to get it."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from strop.errors import ToolchainError
from strop.host.flash import flash_tools
from strop.host.flash.tool import found
from strop.host.runs import PACKAGES, first_line, installed
from strop.targets.board import board_names, load_board
from strop.targets.isa import load_isa
from strop.targets.toolchain import OWN_FLAGS as FAMILIES
from strop.targets.toolchain import cache_folder, find_toolchain


class Need(StrEnum):
    """What a missing thing means."""

    ALWAYS = "needed"
    CHOICE = "only for --toolchain"
    BOARDS = "only for boards on a cable"


@dataclass(frozen=True)
class Check:
    """One thing looked for. found: version or place, empty where it is missing.  get: command that installs it."""

    what: str
    need: Need
    found: str
    get: str

    @property
    def ok(self) -> bool:
        """Whether it is there."""
        return bool(self.found)

    def to_json(self) -> dict[str, Any]:
        """The check as `strop doctor --json` prints it."""
        return {**asdict(self), "ok": self.ok}


def examine() -> list[Check]:
    """Look for everything that some verb needs."""
    return [*_packages(), *_emulators(), *_compilers(), *_flash_tools(), _cache(), _ports()]


def works(checks: list[Check]) -> bool:
    """Whether all that the emulated boards need is there."""
    return all(check.ok for check in checks if check.need is Need.ALWAYS)


def _packages() -> Iterator[Check]:
    for package in PACKAGES:
        yield Check(f"Python package {package}", Need.ALWAYS, installed(package), f"pip install {package}")


def _emulators() -> Iterator[Check]:
    emulators = {e.binary: e.package for name in board_names() if (e := load_board(name).emulator)}
    for binary, package in emulators.items():
        found = first_line(binary, "--version") if shutil.which(binary) else ""
        yield Check(binary, Need.ALWAYS, found, f"sudo apt-get install {package}")


def _compilers() -> Iterator[Check]:
    """Every compiler, for every instruction set that strop has flags of it for."""
    isas = sorted({load_board(name).isa for name in board_names()})
    for family in FAMILIES:
        need = Need.ALWAYS if family == "zig" else Need.CHOICE
        answers = {isa: _compiler(family, isa) for isa in isas if family in load_isa(isa).flags}
        for answer in dict.fromkeys(answers.values()):
            served = ", ".join(isa for isa, found in answers.items() if found == answer)
            yield Check(f"{family} for {served}", need, *answer)


def _compiler(family: str, isa: str) -> tuple[str, str]:
    """What was found, and how to get it otherwise."""
    try:
        return find_toolchain(family, load_isa(isa)).version, ""
    except ToolchainError as error:
        return "", error.do


def _flash_tools() -> Iterator[Check]:
    """Those that some board's description names; one for each board is enough."""
    boards = [load_board(name) for name in board_names()]
    for kind in flash_tools():
        if served := [board.name for board in boards if kind.claims(board)]:
            yield Check(f"{kind.name} for {', '.join(served)}", Need.BOARDS, found(kind.binary), kind.get)


def _cache() -> Check:
    """Builds are kept between commands."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    advice = "set STROP_CACHE to a folder that you may write to"
    return Check("cache folder", Need.ALWAYS, str(folder) if writable else "", advice)


def _ports() -> Check:
    """Serial ports that are there but closed to this user count as missing; none at all is fine."""
    from serial.tools.list_ports import comports

    closed = [port.device for port in comports() if not os.access(port.device, os.R_OK | os.W_OK)]
    advice = f"sudo usermod -a -G dialout $USER, and log in again, to use {', '.join(closed)}"
    return Check("serial ports", Need.BOARDS, "" if closed else "no port is closed to you", advice)
