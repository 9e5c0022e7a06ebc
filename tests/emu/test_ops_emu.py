"""The C of every op's cases on every emulated board: the same bits as on this PC.

One program a board runs all cases on the inputs drawn on the host, and sends a hash of each case's memory; the same
source as a shared library gives the hashes of the PC.
"""

import ctypes
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from cases import KERNEL_INCLUDES, Array, CompiledCase, OpCase, coded
from cbuild import RUNTIME, build_shared

from strop.compiler.dtypes import FLOAT32, DType
from strop.compiler.schedules import Tiling
from strop.errors import FlashError
from strop.host.flash import runner_for
from strop.host.transport import transport_for
from strop.host.transport.base import PortClosedError
from strop.targets.board import Board, load_board
from strop.targets.toolchain import build_elf

BOARDS = ("qemu-rv32imf", "qemu-rv32imac", "qemu-cortex-m4f")
CASES = coded()

HASH = """
static float ram[%d];

/* FNV-1a. Bytes may alias whatever type a kernel stored. */
static uint32_t hash_of(uint32_t words) {
    const uint8_t *const byte = (const uint8_t *)ram;
    uint32_t hash = 2166136261u;
    for (uint32_t i = 0; i < 4u * words; ++i) {
        hash = (hash ^ byte[i]) * 16777619u;
    }
    return hash;
}

static void load(const uint32_t *image, uint32_t words) {
    const uint8_t *const from = (const uint8_t *)image;
    uint8_t *const to = (uint8_t *)ram;
    for (uint32_t i = 0; i < 4u * words; ++i) {
        to[i] = from[i];
    }
}
"""

MAIN = """
uint32_t case_hash(uint32_t number);
uint32_t case_hash(uint32_t number) {
    return cases[number]();
}

#ifdef STROP_BOARD
#include "port.h"

/* Waits until someone listens, then sends one word a case, little end first. */
int main(void) {
    uint8_t start[1];
    strop_port_init();
    strop_port_read(start, 1);
    for (uint32_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        const uint32_t hash = cases[i]();
        const uint8_t bytes[] = {hash & 255u, hash >> 8 & 255u, hash >> 16 & 255u, hash >> 24};
        strop_port_write(bytes, 4);
    }
    return 0;
}
#endif
"""


def words(array: Array) -> list[int]:
    """The bytes of an array as 32-bit words, padded with zeros."""
    data = array.tobytes()
    return [int(w) for w in np.frombuffer(data + bytes(-len(data) % 4), np.uint32)]


def case_source(compiled: CompiledCase, number: int) -> str:
    """`case_N`: the kernel on its operands, side by side in `ram`."""
    image: list[int] = []
    offsets: list[str] = []
    for operand in compiled.operands:
        offsets.append(f"ram + {len(image)}")
        image += words(operand)
    return (
        compiled.source(f"run_{number}")
        + f"static uint32_t case_{number}(void) {{\n"
        + f"    static const uint32_t image[] = {{{', '.join(f'{w}u' for w in image)}}};\n"
        + f"    void *const operands[] = {{{', '.join(offsets)}}};\n"
        + f"    load(image, {len(image)}u);\n    run_{number}(operands);\n    return hash_of({len(image)}u);\n}}\n"
    )


def program(
    tiling: Tiling, *, fma: bool, cases: Sequence[OpCase] = CASES, dtype: DType = FLOAT32, half: str = ""
) -> str:
    """Cases, `case_hash`, and `main` for a board. dtype, half: see `CompiledCase`."""
    compiled = [CompiledCase(case, tiling, fma=fma, dtype=dtype, half=half) for case in cases]
    largest = max(sum(len(words(operand)) for operand in each.operands) for each in compiled)
    table = ", ".join(f"case_{i}" for i in range(len(compiled)))
    sources = [case_source(each, i) for i, each in enumerate(compiled)]
    pointers = f"static uint32_t (*const cases[])(void) = {{{table}}};\n"
    return "\n".join([KERNEL_INCLUDES, HASH % largest, *sources, pointers, MAIN])


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest) -> Board:
    board = load_board(request.param)
    try:
        runner_for(board).start(Path("/nowhere"))
    except FlashError as error:
        if "not installed" in str(error):
            pytest.skip(str(error))
    return board


def board_hashes(board: Board, elf: Path, count: int = len(CASES)) -> bytes:
    """What the program sends until it ends."""
    received, until = b"", time.monotonic() + 60
    with runner_for(board).start(elf) as running:
        port = transport_for(running.endpoint)
        port.open()
        port.write(b"\0\0")
        try:
            while len(received) < 4 * count and time.monotonic() < until:
                received += port.read(0.2)
        except PortClosedError:
            pass
    return received


def test_every_case_gives_the_bits_of_the_pc(board: Board, tmp_path: Path) -> None:
    text = program(Tiling(**board.core.tiling), fma=board.core.fma)
    source = tmp_path / "cases.c"
    source.write_text(text)
    elf = build_elf(board, [source, RUNTIME / "numerics.c"], [RUNTIME], tmp_path / "cases.elf")
    pc = build_shared([text, RUNTIME / "numerics.c"])
    pc.case_hash.restype = ctypes.c_uint32
    expected = [pc.case_hash(i) for i in range(len(CASES))]
    received = [int(w) for w in np.frombuffer(board_hashes(board, elf), "<u4")]
    different = [str(case) for case, a, b in zip(CASES, expected, received, strict=True) if a != b]
    assert not different
