"""What every runner does: bring a program onto a board, or start an emulator with it."""

from enum import Enum
from pathlib import Path
from typing import Protocol, Self

Commands = list[list[str]]
"""Programs to run one after the other, each with its arguments."""


class Ability(Enum):
    """What a runner can do with its board; a command line offers only these."""

    FLASH = "flash"  # the program outlives the runner
    ERASE = "erase"  # clear the whole flash
    RESET = "reset"  # restart the board without flashing
    ID = "device id"  # tell one probe or port from another
    DRY_RUN = "dry-run"  # print the command instead of running it


class Running(Protocol):
    """A board that runs. Closing it ends an emulator, and lets go of a device."""

    @property
    def endpoint(self) -> str:
        """Address for ``strop.host.transport.transport_for``."""

    @property
    def pid(self) -> int | None:
        """Process id of an emulator, None for a device."""

    def check(self) -> None:
        """Raise FlashError, with the tool's own words, when the board has stopped."""

    def close(self) -> None:
        """End it; harmless when it has ended already."""

    def __enter__(self) -> Self:
        """Return itself."""

    def __exit__(self, *exception: object) -> None:
        """Close it."""


class Runner(Protocol):
    """A flash tool or emulator for one board."""

    name: str
    abilities: frozenset[Ability]

    def commands(self, elf: Path, *, erase: bool = False) -> Commands:
        """Return what ``start`` would run, complete enough to be pasted into a shell.

        Writes what the tool reads besides the program, such as its image in another format, beside it.
        """

    def start(self, elf: Path, *, erase: bool = False) -> Running:
        """Bring the program onto the board and let it run. erase: clear the whole flash first.

        Raises FlashError: the tool is missing (with the command that installs it) or fails (with its own words).
        """

    def reset(self) -> None:
        """Restart the board. Raises FlashError where the runner lacks this ability, and as ``start`` does."""
