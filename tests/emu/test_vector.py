"""Boards with vector units: every op's kernels in vectors, on the emulated core, have the bits of scalars on the PC."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from cases import OpCase, rests
from cbuild import RUNTIME, build_shared
from test_ops_emu import CASES, board_hashes, program

from strop.compiler.dtypes import BFLOAT16, FLOAT16, FLOAT32, DType
from strop.compiler.emit import FLUSH
from strop.compiler.schedules import Tiling
from strop.targets.board import Board, load_board
from strop.targets.toolchain import build_elf

BOARDS = ("qemu-rv32v", "qemu-rv32v256", "qemu-cortex-m55")
VECTORS = '#include "lanes.h"\n'


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16, BFLOAT16], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("name", BOARDS)
def test_vectors_on_the_board_have_the_bits_of_scalars_on_the_pc(name: str, dtype: DType, tmp_path: Path) -> None:
    board = load_board(name)
    tiling = Tiling(**board.core.tiling)
    assert tiling.lanes > board.core.lanes == tiling.register
    cases = [case for case in CASES if dtype is FLOAT32 or rests(case, dtype)]
    text = program(tiling, fma=True, cases=cases, dtype=dtype)
    assert text.count("strop_x") > len(cases)
    assert not different(board, cases, VECTORS + text, program(Tiling(), fma=True, cases=cases, dtype=dtype), tmp_path)


@pytest.mark.parametrize("half", ["maps", "sums"])
@pytest.mark.parametrize("name", [name for name in BOARDS if "halves" in load_board(name).core.tiling])
def test_halves_on_the_board_have_the_bits_of_halves_on_the_pc(name: str, half: str, tmp_path: Path) -> None:
    board = load_board(name)
    cases = [case for case in CASES if rests(case, FLOAT16)]
    text = VECTORS + program(Tiling(**board.core.tiling), fma=True, cases=cases, dtype=FLOAT16, half=half)
    assert text.count("_half_") > len(cases)
    assert not different(board, cases, text, text, tmp_path)


def different(board: Board, cases: Sequence[OpCase], on_board: str, on_pc: str, folder: Path) -> list[str]:
    """The cases whose memory differs afterwards."""
    source = folder / "cases.c"
    source.write_text((FLUSH if board.core.flush else "") + on_board)
    elf = build_elf(board, [source, RUNTIME / "numerics.c"], [RUNTIME], folder / "cases.elf")
    pc = build_shared([on_pc, RUNTIME / "numerics.c"])
    pc.case_hash.restype = ctypes.c_uint32
    expected = [pc.case_hash(i) for i in range(len(cases))]
    received = [int(w) for w in np.frombuffer(board_hashes(board, elf, len(cases)), "<u4")]
    return [str(case) for case, a, b in zip(cases, expected, received, strict=True) if a != b]
