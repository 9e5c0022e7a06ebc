"""Boards: where a program runs. One TOML file a board; ``boards/<name>.toml`` needs no other mention anywhere."""

import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

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
    """How to start the board in QEMU; ``package`` is the Debian package that has the ``binary``.

    cpu: empty where the machine has only its own. args: further options. serial: what the serial line is on the PC, a
    unix socket or, where the machine loses bytes that a socket has no room for, a pseudo-terminal. store: options that
    put a file behind the memory of ``[store]``, with {file} for its path and {elf} for the program's; store_bytes: what
    the file must have. Without a file the store forgets when the emulator ends.
    """

    binary: str
    package: str
    machine: str
    cpu: str = ""
    args: tuple[str, ...] = Field(default=(), strict=False)
    serial: Literal["socket", "pty"] = "socket"
    store: tuple[str, ...] = Field(default=(), strict=False)
    store_bytes: Word = 0


class Store(_Table):
    """Non-volatile memory that checkpoints are kept in; its ``[store]`` begins where ``flash`` ends, or lies apart.

    origin, length: of the memory, in bytes; two slots share it.  sector: bytes that one erase clears, all sectors of
    the region are alike.  write: bytes that are programmed at a time, and once only between two erases.
    """

    origin: Word
    length: Size
    sector: Size
    write: Size

    @model_validator(mode="after")
    def _divides(self) -> "Store":
        if self.origin % self.sector or self.length % (2 * self.sector) or self.sector % self.write:
            raise ValueError("origin and half the length must be multiples of sector, and sector one of write")
        return self

    @property
    def region(self) -> Region:
        """The same addresses as a region."""
        return Region(origin=self.origin, length=self.length)

    @property
    def defines(self) -> tuple[str, ...]:
        """Macros for the port and the main loop."""
        return (
            f"STROP_STORE_ORIGIN={self.origin:#x}U",
            f"STROP_STORE_BYTES={self.length:#x}U",
            f"STROP_STORE_SECTOR={self.sector:#x}U",
            f"STROP_STORE_UNIT={self.write}U",
        )


class Runner(_Table):
    """A tool that brings a program onto the board, and what this tool calls the board.

    name: a module of ``host/flash``.  config: a configuration file of the tool.  target, chip, device: the chip's name,
    under the word the tool uses.  interface: the debug probe.  base: address or offset a plain binary is written to.
    format: file the tool is given where it takes several: ``elf``, ``bin``, ``hex``, ``uf2``.
    """

    name: str
    config: str = ""
    target: str = ""
    interface: str = ""
    chip: str = ""
    device: str = ""
    base: str = ""
    format: str = ""


class UsbId(_Table):
    """A USB device that the board, or the debug probe on it, is on the PC.

    vid, pid: as in its device descriptor.  interface: text that tells its serial line from its other interfaces; empty
    where it has one.
    """

    vid: Annotated[int, Field(ge=0, le=0xFFFF)]
    pid: Annotated[int, Field(ge=0, le=0xFFFF)]
    interface: str = ""


class Board(_Table):
    """A board's description, as its TOML file gives it; ``name`` is the file's.

    isa: name of an instruction set.  clock_hz: core clock.  flash, ram: regions a program is linked into.
    stack_reserve: bytes of RAM that no plan may use, the linker refuses less.  rom_stack: bytes of stack that functions
    of the chip's own ROM take, which no analysis of the program sees.  window: bytes that may be on their way to the
    board while it computes.  backlog: bytes that may wait to leave it meanwhile; 0: it sends before it goes on.
    port: its port.c, relative to ``firmware/boards/`` or to the TOML file.
    constants: numbers in which the chips of one port.c differ, each a macro STROP_<NAME>.  data_bus: origin of the view
    of ``flash`` that constants are read through, where the core cannot read bytes through the one that it runs from.
    store: where checkpoints are kept.  runners: tools that flash it, the preferred one first.  usb: how to find it.
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
    rom_stack: Word = 0
    uart: Uart | None = None
    window: Word = LOSSLESS
    backlog: Word = 0
    port: str = ""
    constants: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Word] = Field(default_factory=dict)
    data_bus: Word | None = None
    store: Store | None = None
    emulator: Emulator | None = None
    runners: tuple[Runner, ...] = Field(default=(), strict=False)
    usb: tuple[UsbId, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _is_complete(self) -> "Board":
        load_isa(self.isa)
        if not self.is_host:
            missing = [key for key in ("flash", "ram", "uart", "port") if not getattr(self, key)]
            if missing:
                raise ValueError(f"[{missing[0]}] is missing: only the PC goes without")
            if self.memory[0].overlaps(self.memory[1]):
                raise ValueError("flash and ram overlap")
            if self.store and any(self.store.region.overlaps(region) for region in self.memory):
                raise ValueError("store overlaps flash or ram: a program and its checkpoints need memory of their own")
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
            f"STROP_BACKLOG={self.backlog}U",
            *(f"STROP_{name.upper()}={value:#x}" for name, value in self.constants.items()),
            *(self.store.defines if self.store else ("STROP_SESSION_STORE=0",)),
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
        known = _entries(tuple(part for part in first["loc"][:-1] if isinstance(part, str)))
        return BoardError(f"unknown entry {entry!r}", where=str(path), do=nearest(str(first["loc"][-1]), known))
    message = str(first["msg"]).removeprefix("Value error, ")
    return BoardError(f"{entry}: {message}" if entry else message, where=str(path))


def _entries(table: tuple[str, ...]) -> list[str]:
    """Return the entries that a table of the file may have: of ``[flash]``, say, or of the file itself."""
    tables: dict[tuple[str, ...], type[_Table]] = {
        (): Board, ("flash",): Region, ("ram",): Region, ("counter",): Counter, ("uart",): Uart,
        ("emulator",): Emulator, ("store",): Store, ("runners",): Runner, ("usb",): UsbId,
    }  # fmt: skip
    return [entry for entry in tables[table].model_fields if entry not in ("name", "path")]
