"""Boards: where a program runs. One TOML file a board; ``boards/<name>.toml`` needs no other mention anywhere."""

import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from strop import firmware
from strop.errors import BoardError, nearest
from strop.targets import boards
from strop.targets.isa import Isa, load_isa

BOARDS = Path(boards.__file__).parent
PORTS = Path(firmware.__file__).parent / "boards"
LOSSLESS = 0xFFFFFFFF
"""A window that never ends: the port loses no byte, however many are on their way."""

Word = Annotated[int, Field(ge=0, le=0xFFFFFFFF)]
Size = Annotated[int, Field(gt=0, le=0xFFFFFFFF)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Region(_Table):
    """A range of addresses: ``origin`` and ``length`` in bytes."""

    origin: Word
    length: Size

    @model_validator(mode="after")
    def _ends_in_the_address_space(self) -> "Region":
        if self.end > 1 << 32:
            raise ValueError(f"ends at {self.end:#x}, behind the 32-bit address space")
        if self.origin % 16 or self.length % 16:
            raise ValueError("origin and length must be multiples of 16 bytes")
        return self

    @property
    def end(self) -> int:
        """First address behind the region."""
        return self.origin + self.length

    def overlaps(self, other: "Region") -> bool:
        """Whether an address lies in both."""
        return self.origin < other.end and other.origin < self.end


class Counter(_Table):
    """What ``strop_port_counter`` counts: ``unit``, in steps of ``resolution``."""

    unit: str
    resolution: Size = 1


class Uart(_Table):
    """The serial line: base address of its registers (macro STROP_UART_BASE) and baud rate (STROP_UART_BAUD)."""

    base: Word
    baud: Size


class Emulator(_Table):
    """How to start the board in QEMU; ``package`` is the Debian package that has the ``binary``."""

    binary: str
    package: str
    machine: str
    cpu: str
    args: tuple[str, ...] = Field(default=(), strict=False)


class Board(_Table):
    """A board's description, as its TOML file gives it; ``name`` is the file's.

    isa: name of an instruction set.  clock_hz: core clock.  flash, ram: regions a program is linked into.
    stack_reserve: bytes of RAM that no plan may use, the linker refuses less.  window: bytes that may be on their way
    to the board while it computes.  port: its port.c, relative to ``firmware/boards/`` or to the TOML file.
    The PC (``host``) has no regions, no UART and no port.
    """

    name: str
    path: Path = Field(strict=False)
    description: str
    isa: str
    clock_hz: Size
    counter: Counter
    flash: Region | None = None
    ram: Region | None = None
    stack_reserve: Size = 1024
    uart: Uart | None = None
    window: Word = LOSSLESS
    port: str = ""
    emulator: Emulator | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> "Board":
        load_isa(self.isa)
        if not self.is_host:
            missing = [key for key in ("flash", "ram", "uart", "port") if not getattr(self, key)]
            if missing:
                raise ValueError(f"[{missing[0]}] is missing: only the PC goes without")
            if self.memory[0].overlaps(self.memory[1]):
                raise ValueError("flash and ram overlap")
            if not self.port_source.is_file():
                raise ValueError(f"port: there is no file {self.port_source}")
        return self

    @cached_property
    def core(self) -> Isa:
        """The instruction set."""
        return load_isa(self.isa)

    @property
    def is_host(self) -> bool:
        """Whether this is the PC, where the twin runs in-process and nothing is linked or flashed."""
        return self.core.arch == "host"

    @property
    def memory(self) -> tuple[Region, Region]:
        """Flash and RAM; raises BoardError on the PC, which has no such limits."""
        if self.flash is None or self.ram is None:
            raise BoardError(f"board {self.name!r} has no memory regions", do="Choose a board that is not the PC")
        return self.flash, self.ram

    @property
    def port_source(self) -> Path:
        """The C file that implements port.h: beside the TOML file, or in the firmware's own folder."""
        beside = self.path.parent / self.port
        return beside if self.path.parent != BOARDS or beside.is_file() else PORTS / self.port

    @property
    def defines(self) -> tuple[str, ...]:
        """Macros for the port and the main loop."""
        uart = self.uart or Uart(base=0, baud=1)
        return (
            f'STROP_BOARD="{self.name}"',
            f"STROP_CLOCK_HZ={self.clock_hz}U",
            f"STROP_UART_BASE={uart.base:#x}U",
            f"STROP_UART_BAUD={uart.baud}U",
            f"STROP_WINDOW={self.window}U",
        )


def board_names() -> tuple[str, ...]:
    """Return the names of the boards that come with strop, sorted."""
    return tuple(sorted(path.stem for path in BOARDS.glob("*.toml")))


def load_board(name: str | Path) -> Board:
    """Return a board by name, or from a path ending in ``.toml`` with its port.c beside it.

    Raises BoardError, which names the file and the entry that is wrong, or the nearest known board.
    """
    path = Path(name)
    if path.suffix == ".toml":
        return _read(path)
    if str(name) not in board_names():
        advice = f"{nearest(str(name), board_names())}. A path to a .toml file works as well"
        raise BoardError(f"there is no board {str(name)!r}", do=advice)
    return _read(BOARDS / f"{name}.toml")


def _read(path: Path) -> Board:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BoardError(f"cannot read the board's description: {error}", where=str(path)) from error
    try:
        return Board.model_validate({**table, "name": path.stem, "path": path.absolute()})
    except ValidationError as error:
        raise _explained(error, path) from error


def _explained(error: ValidationError, path: Path) -> BoardError:
    """Turn pydantic's first complaint into one sentence; a misspelt entry comes before the one then missing."""
    first: Any = min(error.errors(include_url=False), key=lambda complaint: complaint["type"] != "extra_forbidden")
    entry = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _entries(tuple(first["loc"][:-1]))
        return BoardError(f"unknown entry {entry!r}", where=str(path), do=nearest(str(first["loc"][-1]), known))
    message = str(first["msg"]).removeprefix("Value error, ")
    return BoardError(f"{entry}: {message}" if entry else message, where=str(path))


def _entries(table: tuple[str, ...]) -> list[str]:
    """Return the entries that a table of the file may have: of ``[flash]``, say, or of the file itself."""
    tables: dict[tuple[str, ...], type[_Table]] = {
        (): Board, ("flash",): Region, ("ram",): Region, ("counter",): Counter, ("uart",): Uart,
        ("emulator",): Emulator,
    }  # fmt: skip
    return [entry for entry in tables[table].model_fields if entry not in ("name", "path")]
