"""A linked program in the formats that flash tools take: raw binary, Intel hex and UF2."""

import struct
from collections.abc import Iterator
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from strop.errors import FlashError
from strop.targets.board import Board

ERASED = 0xFF
"""What fills a gap: flash that was never written."""
RECORD = 16
"""Data bytes in a line of Intel hex."""
WHOLE = 64 << 20
"""Bytes of the largest plain binary: beyond, the parts of a program lie in different memories."""
PAYLOAD = 256
"""Data bytes in a block of UF2: a page of the flash."""

Parts = list[tuple[int, bytes]]
"""What is loaded where: (address, bytes), sorted."""


def contents(elf: Path, board: Board | None = None) -> Parts:
    """What a program puts into memory before it starts, by load address.

    board: whose constants, where they are read through another bus, go to the flash that both buses see.
    Raises FlashError for a file that is missing, no ELF, or empty.
    """
    try:
        with elf.open("rb") as file:
            found = sorted((_seen(address, board), data) for address, data in _loaded(ELFFile(file)))
    except (OSError, ELFError) as error:
        raise FlashError(f"cannot read the program: {error}", where=str(elf), do="Build it first") from error
    if not found:
        raise FlashError("the program has nothing to load", where=str(elf))
    return found


def _loaded(file: ELFFile) -> Iterator[tuple[int, bytes]]:
    """Sections with contents, where their segment is loaded; a segment's gaps, which a linker fills, are left out."""
    for segment in file.iter_segments("PT_LOAD"):
        inside = [s for s in file.iter_sections() if s["sh_type"] == "SHT_PROGBITS" and segment.section_in_segment(s)]
        for section in inside:
            if section["sh_size"]:
                yield int(segment["p_paddr"] + section["sh_offset"] - segment["p_offset"]), bytes(section.data())
        if not inside and segment["p_filesz"]:
            yield int(segment["p_paddr"]), bytes(segment.data())


def _seen(address: int, board: Board | None) -> int:
    """An address of the flash as the core fetches code from it."""
    if board is None or board.data_bus is None or not board.flash:
        return address
    offset = address - board.data_bus
    return board.flash.origin + offset if 0 <= offset < board.flash.length else address


def binary(loaded: Parts) -> tuple[int, bytes]:
    """(first address, bytes from there on), gaps filled with 0xFF. Raises FlashError for parts too far apart."""
    start = loaded[0][0]
    if loaded[-1][0] - start > WHOLE:
        ends = f"{start:#x} and {loaded[-1][0]:#x}"
        raise FlashError(f"the program has parts at {ends}, too far apart for a plain binary")
    image = bytearray()
    for address, data in loaded:
        image += bytes([ERASED]) * (address - start - len(image)) + data
    return start, bytes(image)


def intel_hex(loaded: Parts) -> str:
    """Intel hex with 32-bit addresses (Hexadecimal Object File Format Specification, revision A, 1988)."""
    lines = []
    upper = -1
    for address, data in _pieces(loaded, RECORD):
        if address >> 16 != upper:
            upper = address >> 16
            lines.append(_record(0, 4, upper.to_bytes(2, "big")))
        lines.append(_record(address & 0xFFFF, 0, data))
    return "\n".join([*lines, _record(0, 1, b""), ""])


def _pieces(loaded: Parts, size: int) -> Parts:
    """The parts cut at multiples of a size, so that no piece crosses one."""
    pieces = []
    for start, data in loaded:
        at = 0
        while at < len(data):
            end = at + size - (start + at) % size
            pieces.append((start + at, data[at:end]))
            at = end
    return pieces


def _record(address: int, kind: int, data: bytes) -> str:
    body = struct.pack(">BHB", len(data), address, kind) + data
    return f":{body.hex().upper()}{-sum(body) & 0xFF:02X}"


def uf2(loaded: Parts, family: int) -> bytes:
    """UF2, a block a page (github.com/microsoft/uf2). family: id of the chip, to which its boot loader listens."""
    pages: dict[int, bytearray] = {}
    for address, data in _pieces(loaded, PAYLOAD):
        page = pages.setdefault(address - address % PAYLOAD, bytearray([ERASED]) * PAYLOAD)
        page[address % PAYLOAD : address % PAYLOAD + len(data)] = data
    blocks = enumerate(sorted(pages.items()))
    return b"".join(_block(i, len(pages), address, bytes(page), family) for i, (address, page) in blocks)


def _block(number: int, count: int, address: int, page: bytes, family: int) -> bytes:
    """512 bytes: eight words, 476 bytes of data, and a closing word. The flag 0x2000 says that a family is given."""
    head = struct.pack("<8I", 0x0A324655, 0x9E5D5157, 0x2000, address, PAYLOAD, number, count, family)
    return head + page.ljust(476, b"\0") + struct.pack("<I", 0x0AB16F30)
