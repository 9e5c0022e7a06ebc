"""Frames and what is in them, as runtime/PROTOCOL.md shows them byte by byte.

Everything is little-endian. Structures only ever grow at their end: ``unpack`` wants what this version knows and
ignores what a newer board appends.
"""

import re
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple, Self

from cobs import cobs

from strop.errors import DataError, SessionError

VERSION = 1
REPLY = 0x80
SEQ_MASK = 0xFFFFFFFF
UNKNOWN = 0xFFFFFFFF
MAX_RECEIVED = 1 << 20
"""Bytes without a delimiter after which a decoder starts afresh."""

_HEADER = struct.Struct("<BBBBI")
_CRC = struct.Struct("<I")
_HELLO = struct.Struct("<16s12I32s")
_STAND = struct.Struct("<II")
_ACK = struct.Struct("<IfQ")
_TENSOR = struct.Struct("<IBBBx")
_WATCH = struct.Struct("<16s2If3IQ")
_STORE = struct.Struct("<5I")
_FIRST_STATS, _STATS = struct.Struct("<6I"), struct.Struct("<10I")


class Type(IntEnum):
    """Types of frames (enum strop_type); a reply's is its request's plus REPLY."""

    NOTICE = 0
    HELLO = 1
    STEP = 2
    INFER = 3
    READ = 4
    WRITE = 5
    RESET = 6
    STATS = 7
    PROFILE = 8
    TENSOR = 9
    REBOOT = 10
    LOG = 11
    SAVE = 12
    LOAD = 13
    FORGET = 14
    AUTOSAVE = 15
    WATCH = 16


class Status(IntEnum):
    """What a board answers (runtime/errors.def)."""

    OK = 0
    BAD_FRAME = 1
    BAD_VERSION = 2
    BAD_TYPE = 3
    OUT_OF_ORDER = 4
    DUPLICATE = 5
    BAD_LENGTH = 6
    BAD_TENSOR = 7
    BAD_RANGE = 8
    READ_ONLY = 9
    BAD_LABEL = 10
    UNSUPPORTED = 11
    NO_CHECKPOINT = 12
    OTHER_MODEL = 13
    STORE_TOO_SMALL = 14
    STORE_FAILED = 15


@cache
def sentences() -> dict[int, tuple[str, str]]:
    """Return the name and the sentence of every status of runtime/errors.def, by number."""
    text = files("strop.runtime").joinpath("errors.def").read_text(encoding="utf-8")
    rows = re.findall(r'^STROP_STATUS\((\w+), (\d+), "([^"]*)"\)$', text, re.MULTILINE)
    return {int(number): (name, sentence) for name, number, sentence in rows}


def sentence(status: int) -> str:
    """Say in words what a status means; a newer board may answer with one that is not known here."""
    return sentences().get(status, ("", f"the board answers with the unknown status {status}"))[1]


class Frame(NamedTuple):
    """One frame: header and payload."""

    type: int
    seq: int = 0
    payload: bytes = b""
    status: int = 0
    echo: int = 0
    version: int = VERSION


DAMAGED = Frame(Type.NOTICE | REPLY, status=Status.BAD_FRAME)
"""What a decoder gives for bytes that are no frame: the same that a board says of those it cannot read."""


def encode(frame: Frame) -> bytes:
    """Return the bytes on the wire, delimiter included."""
    body = _HEADER.pack(frame.version, frame.type, frame.status, frame.echo, frame.seq) + frame.payload
    return bytes(cobs.encode(body + _CRC.pack(zlib.crc32(body)))) + b"\0"


def decode(piece: bytes) -> Frame:
    """Return the frame of the bytes between two delimiters.

    A line of plain text, which a board's fault handler sends without a frame, becomes a LOG frame; anything else
    that is no whole frame becomes DAMAGED.
    """
    try:
        body = cobs.decode(piece)
    except cobs.DecodeError:
        body = b""
    if len(body) < _HEADER.size + _CRC.size or _CRC.pack(zlib.crc32(body[:-4])) != body[-4:]:
        is_text = len(piece) >= 4 and all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in piece)
        return Frame(Type.LOG | REPLY, payload=piece) if is_text else DAMAGED
    version, kind, status, echo, seq = _HEADER.unpack_from(body)
    return Frame(kind, seq, body[_HEADER.size:-_CRC.size], status, echo, version)


class Decoder:
    """Collects bytes until frames are whole."""

    def __init__(self) -> None:
        self._partial = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that the bytes complete, DAMAGED for each that cannot be read."""
        self._partial += data
        *pieces, rest = self._partial.split(b"\0")
        self._partial = rest if len(rest) <= MAX_RECEIVED else bytearray()
        return [decode(bytes(piece)) for piece in pieces if piece]

    def reset(self) -> None:
        """Forget a frame that has begun."""
        self._partial.clear()


def _fields(layout: struct.Struct, frame: Frame) -> tuple[Any, ...]:
    if len(frame.payload) < layout.size:
        raise SessionError(f"the board's answer has {len(frame.payload)} bytes instead of {layout.size}",
                           where=f"frame type {frame.type & ~REPLY}", do="Flash firmware of this version")
    return layout.unpack_from(frame.payload)


class Store(NamedTuple):
    """A board's memory for checkpoints."""

    size: int
    """In bytes, both slots."""
    erases: tuple[int, int]
    """Of each slot, ever."""
    saved: int | None
    """Steps of the checkpoint that was last saved or loaded since the board started."""
    autosave: int
    """Steps between two checkpoints that the board saves by itself; 0: none."""

    @classmethod
    def unpack(cls, payload: bytes) -> Self | None:
        """Read the end of HELLO's reply; None for a board without, or too old to have one."""
        if len(payload) < _STORE.size:
            return None
        size, first, second, saved, autosave = _STORE.unpack_from(payload)
        return cls(size, (first, second), None if saved == UNKNOWN else saved, autosave) if size else None


@dataclass(frozen=True, slots=True)
class Hello:
    """Who answers. Sizes in bytes, of one batch."""

    hash: bytes
    """First 16 bytes of the model's hash."""
    abi: int
    batch: int
    x_bytes: int
    y_bytes: int
    out_bytes: int
    n_tensors: int
    n_kernels: int
    """0 unless the model was built for profiling."""
    next_seq: int
    """The sequence number the board expects of the next request."""
    steps: int
    """Steps done since the parameters were initial."""
    window: int
    """Bytes the board takes in while it computes."""
    max_payload: int
    replies: int
    """Replies the board keeps: how many requests may be in flight."""
    board: str
    store: Store | None = None
    """Where it keeps checkpoints; None for a board without."""

    @classmethod
    def unpack(cls, frame: Frame) -> Self:
        """Read HELLO's reply."""
        *words, board = _fields(_HELLO, frame)
        values = (*words, printable(board.rstrip(b"\0")), Store.unpack(frame.payload[_HELLO.size:]))
        return cls(*values)

    def step_payload(self, x: bytes, y: bytes) -> bytes:
        """Return STEP's payload: x, padded to a multiple of 4, and y."""
        return x + bytes(-len(x) % 4) + y


class Stand(NamedTuple):
    """Where a board stands: in every answer whose status is not OK."""

    next_seq: int
    steps: int

    @classmethod
    def unpack(cls, frame: Frame) -> Self:
        """Read a refusal."""
        return cls(*_fields(_STAND, frame))


class Ack(NamedTuple):
    """What a change did."""

    steps: int
    loss: float
    cost: int

    @classmethod
    def unpack(cls, frame: Frame) -> Self:
        """Read the reply to a change."""
        return cls(*_fields(_ACK, frame))


class Tensor(NamedTuple):
    """A tensor as the board knows it: codes of dtype and role as in runtime/strop.h."""

    size: int
    """In bytes."""
    dtype: int
    role: int
    writable: bool

    @classmethod
    def unpack(cls, frame: Frame) -> Self:
        """Read TENSOR's reply."""
        size, dtype, role, writable = _fields(_TENSOR, frame)
        return cls(size, dtype, role, bool(writable))


class Stats(NamedTuple):
    """Counters since the board started; frames as the board received them."""

    steps: int
    frames_good: int
    frames_bad: int
    frames_duplicate: int
    frames_early: int
    stack_used: int | None
    """High-water mark in bytes; None where the port cannot tell."""
    nan: int = 0
    """Steps whose loss was NaN."""
    inf: int = 0
    """Steps whose loss was infinite."""
    saturated: int = 0
    """Steps with a 16-bit error beyond its range."""
    skipped: int = 0
    """Steps whose updates were skipped for that."""

    @classmethod
    def unpack(cls, frame: Frame) -> Self:
        """Read STATS's reply; a board of an older release counts less, from the beginning of the list."""
        if len(frame.payload) >= _FIRST_STATS.size:
            frame = frame._replace(payload=frame.payload.ljust(_STATS.size, b"\0"))
        counters = dict(zip(cls._fields, _fields(_STATS, frame), strict=True))
        return cls(**{**counters, "stack_used": None if counters["stack_used"] == UNKNOWN else counters["stack_used"]})


class Watch(NamedTuple):
    """How training went since the report before, unasked."""

    hash: bytes
    """First 16 bytes of the model's hash."""
    steps: int
    """Done in all."""
    since: int
    """Steps since the report before."""
    loss: float
    """Mean of their losses."""
    asked: int
    """Answers that were compared with labels before training on them."""
    right: int
    """Of them."""
    stack_used: int | None
    """High-water mark in bytes; None where unknown."""
    cost: int
    """Counter units of their train steps; 0 where unknown."""

    @classmethod
    def unpack(cls, frame: Frame) -> Self:
        """Read a WATCH frame."""
        *facts, stack, cost = _fields(_WATCH, frame)
        values = (*facts, None if stack == UNKNOWN else stack, cost)
        return cls(*values)


def interval(steps: int) -> int:
    """Return a number of steps between two checkpoints; DataError for one that a board cannot count."""
    if not 0 <= steps <= SEQ_MASK:
        raise DataError(f"a board cannot save every {steps} steps", do="Give a number of steps, or 0 for never")
    return steps


def printable(data: bytes) -> str:
    """Text that a board sent, without anything that would steer a terminal."""
    return "".join(c if c.isprintable() else "·" for c in data.decode("utf-8", "replace").strip())
