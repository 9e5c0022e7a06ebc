"""Boards with vector units: every op's kernels in vectors, on the emulated core, have the bits that the PC's have.

So have those of vectors that flush, where no operand is near the subnormal numbers. Whole trainings compare with a twin
that flushes too.
"""

import ctypes
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from cases import OpCase, rests
from cbuild import RUNTIME, build_shared
from test_ops_emu import CASES, board_hashes, program

import strop
from strop.compiler.dtypes import BFLOAT16, FLOAT16, FLOAT32, DType
from strop.compiler.emit import FLUSH
from strop.compiler.schedules import Tiling
from strop.host.device import connect, twin
from strop.host.validate import validate
from strop.host.zoo import MODELS
from strop.targets.board import Board, load_board
from strop.targets.toolchain import BARE_METAL, NUMERICS, build_elf, find_toolchain

BOARDS = ("qemu-rv32v", "qemu-rv32v256", "qemu-cortex-m55")
VECTORS = '#include "lanes.h"\n'


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16, BFLOAT16], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("name", BOARDS)
def test_vectors_on_the_board_have_the_bits_of_those_on_the_pc(name: str, dtype: DType, tmp_path: Path) -> None:
    board = load_board(name)
    tiling = Tiling(**board.core.tiling)
    assert tiling.lanes > board.core.lanes == tiling.register
    cases = [case for case in CASES if dtype is FLOAT32 or rests(case, dtype)]
    text = VECTORS + program(tiling, fma=True, cases=cases, dtype=dtype)
    assert text.count("strop_x") > len(cases)
    assert not different(board, cases, text, text, tmp_path)


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


TRAININGS = [
    ("mlp-64-32-10", "backprop", "float32"), ("mlp-64-32-10", "tpsgd", "float16"),
    ("mlp-64-32-10", "mono-forward", "bfloat16"), ("cnn-8x8", "backprop", "float16"), ("cnn-8x8", "tpsgd", "bfloat16"),
    ("cnn-8x8", "mono-forward", "float32"), ("digits-cnn", "backprop", "bfloat16"), ("digits-cnn", "tpsgd", "float32"),
    ("digits-cnn", "mono-forward", "float16"),
]  # fmt: skip
STEPS = 20
ARITHMETIC = re.compile(r"\bv(?!cvt|neg|abs|mov|dup)\w+\.f(?:16|32)\s.*\bq\d.*")
"""Instructions of Helium that flush."""


@pytest.mark.parametrize("scale", [1.0, 1e-37], ids=["usual", "subnormal"])
@pytest.mark.parametrize(("model", "rule", "dtype"), TRAININGS)
def test_trainings_that_flush_have_the_bits_of_the_twin(model: str, rule: str, dtype: str, scale: float) -> None:
    """Parameters of 1e-37 bring products, errors and updates to FLT_MIN and below."""
    network, example = MODELS[model]()
    network.load_state_dict({name: scale * data for name, data in network.state_dict().items()})
    bundle = strop.build(network, example, rule=rule, dtype=dtype, board="qemu-cortex-m55", name=model)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((STEPS, *example.shape[1:])).astype(np.float32)
    y = rng.integers(0, 10, STEPS).astype(np.int32)
    with connect(bundle) as device, twin(bundle) as pc:
        assert validate(device, pc, None, x, y).bits_equal


def test_only_functions_of_lanes_compute_in_vectors(tmp_path: Path) -> None:
    """The compiler's own vectors would flush what scalars keep. In its assembly, ours stand between APP and NO_APP."""
    core = load_board("qemu-cortex-m55").core
    compiler, source, assembly = find_toolchain("zig", core), tmp_path / "cases.c", tmp_path / "cases.s"
    scalars = program(Tiling(), fma=True)
    for text in (scalars, FLUSH + VECTORS + program(Tiling(**core.tiling), fma=True)):
        source.write_text(text)
        flags = [*core.flags["zig"], *NUMERICS, *BARE_METAL, f"-I{RUNTIME}", "-w", "-S"]
        subprocess.run([*compiler.command, *flags, str(source), "-o", str(assembly)], check=True, capture_output=True)
        made = assembly.read_text()
        ours = "".join(re.findall(r"@APP\n(.*?)@NO_APP", made, re.DOTALL))
        all_, from_us = (ARITHMETIC.findall(part) for part in (made, ours))
        assert all_ == from_us
        assert bool(all_) == (text is not scalars)
