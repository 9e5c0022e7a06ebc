"""Boards with vector units: every op's kernels in vectors, on the emulated core, have the bits of scalars on the PC."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
from cases import rests
from cbuild import RUNTIME, build_shared
from test_ops_emu import CASES, board_hashes, program

from strop.compiler.dtypes import BFLOAT16, FLOAT16, FLOAT32, DType
from strop.compiler.emit import FLUSH
from strop.compiler.schedules import Tiling
from strop.targets.board import load_board
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
    source = tmp_path / "cases.c"
    source.write_text((FLUSH if board.core.flush else "") + VECTORS + text)
    elf = build_elf(board, [source, RUNTIME / "numerics.c"], [RUNTIME], tmp_path / "cases.elf")
    pc = build_shared([program(Tiling(), fma=True, cases=cases, dtype=dtype), RUNTIME / "numerics.c"])
    pc.case_hash.restype = ctypes.c_uint32
    expected = [pc.case_hash(i) for i in range(len(cases))]
    received = [int(w) for w in np.frombuffer(board_hashes(board, elf, len(cases)), "<u4")]
    different = [str(case) for case, a, b in zip(cases, expected, received, strict=True) if a != b]
    assert not different
