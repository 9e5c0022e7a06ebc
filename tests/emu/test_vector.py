"""Boards with vector units: every op's kernels in vectors, on the emulated core, have the bits of scalars on the PC."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
from cbuild import RUNTIME, build_shared
from test_ops_emu import CASES, board_hashes, program

from strop.compiler.schedules import Tiling
from strop.targets.board import load_board
from strop.targets.toolchain import build_elf

BOARDS = ("qemu-rv32v", "qemu-rv32v256")
VECTORS = '#include "lanes.h"\n'


@pytest.mark.parametrize("name", BOARDS)
def test_vectors_on_the_board_have_the_bits_of_scalars_on_the_pc(name: str, tmp_path: Path) -> None:
    board = load_board(name)
    tiling = Tiling(**board.core.tiling)
    assert tiling.lanes == board.core.lanes * 8
    text = program(tiling, fma=True)
    assert text.count("strop_x") > len(CASES)
    source = tmp_path / "cases.c"
    source.write_text(VECTORS + text)
    elf = build_elf(board, [source, RUNTIME / "numerics.c"], [RUNTIME], tmp_path / "cases.elf")
    pc = build_shared([program(Tiling(), fma=True), RUNTIME / "numerics.c"])
    pc.case_hash.restype = ctypes.c_uint32
    expected = [pc.case_hash(i) for i in range(len(CASES))]
    received = [int(w) for w in np.frombuffer(board_hashes(board, elf), "<u4")]
    different = [str(case) for case, a, b in zip(CASES, expected, received, strict=True) if a != b]
    assert not different
