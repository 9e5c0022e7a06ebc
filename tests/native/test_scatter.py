"""Ops that write a row by index: whatever the index is, the C writes inside its variable and nowhere else."""

import ctypes
from functools import cache

import numpy as np
import pytest
from cases import KERNEL_INCLUDES, OP_CASES, Array, CompiledCase, OpCase
from cbuild import RUNTIME, build_shared

from strop.compiler.schedules import Tiling

GUARD = 4096
"""Bytes on each side of the variable that must stay."""

INDICES = {"replay_store": 2, "class_count": 1, "class_mean": 2}
"""The ops, and which operand is the index."""

HOSTILE = (-(2**31), -100, -1, 2**31 - 1, 2**30, 300)
CASES = [case for case in OP_CASES if case.kind in INDICES]


@cache
def library() -> ctypes.CDLL:
    kernels = [CompiledCase(case, Tiling(), fma=False).source(str(case)) for case in CASES]
    return build_shared([KERNEL_INCLUDES + "\n".join(kernels), RUNTIME / "numerics.c"])


def guarded(array: Array) -> tuple[Array, Array]:
    """Memory filled with a pattern, and a view of its middle that holds a copy of the array."""
    memory = np.full(2 * GUARD + array.nbytes, 0x5A, np.uint8)
    view = memory[GUARD : GUARD + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return memory, view


@pytest.mark.parametrize("index", [*HOSTILE, "first outside", "inside"], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_writes_stay_inside(case: OpCase, index: int | str) -> None:
    inputs = case.draw()
    rows = len(inputs[0])
    inputs[INDICES[case.kind]][:] = {"first outside": rows, "inside": rows - 1}.get(str(index), index)
    memory, variable = guarded(inputs[0])
    pointers = [array.ctypes.data for array in (variable, *inputs[1:])]
    library()[str(case)]((ctypes.c_void_p * len(pointers))(*pointers))
    assert (memory[:GUARD] == 0x5A).all()
    assert (memory[-GUARD:] == 0x5A).all()
    before = case.draw()[0]
    np.testing.assert_array_equal(variable[:-1], before[:-1])
    assert np.array_equal(variable[-1], before[-1]) == (index != "inside")


def test_the_guards_are_seen() -> None:
    """The test itself: a write just outside changes the pattern."""
    memory, view = guarded(np.zeros(3, np.float32))
    ctypes.memset(view.ctypes.data + view.nbytes, 0, 1)
    assert not (memory[-GUARD:] == 0x5A).all()
