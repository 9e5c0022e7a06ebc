"""The twin of a model small enough to follow by hand (fake/model.c)."""

import struct
from functools import cache
from pathlib import Path

from cbuild import RUNTIME, compile_c

from strop.host.transport.loopback import Twin

FAKE = Path(__file__).parent / "fake"
SOURCES = (RUNTIME / "session.c", RUNTIME / "frame.c", RUNTIME / "store.c", FAKE / "model.c")
HASH = bytes.fromhex("00112233445566778899aabbccddeeff")


@cache
def library() -> Path:
    return compile_c([RUNTIME / "twin.c", *SOURCES], "twin.so", flags=("-O2", "-shared", "-fPIC", f"-I{FAKE}"))


def fresh_twin() -> Twin:
    return Twin(library())


def sample(i: int) -> tuple[bytes, bytes]:
    """The i-th batch: ten bytes and two labels."""
    return bytes((i * 7 + j * j) % 256 for j in range(10)), struct.pack("<ii", i % 5, (i // 5) % 5)


def samples(n: int, start: int = 0) -> list[tuple[bytes, bytes]]:
    return [sample(i) for i in range(start, start + n)]
