"""Kernels in vectors have the bits of kernels in scalars: every op's cases, for short and long vectors, on this PC."""

import ctypes
from functools import cache

import pytest
from cases import KERNEL_INCLUDES, CompiledCase, OpCase, coded
from cbuild import RUNTIME, build_shared, has_compiler

from strop.compiler.schedules import Tiling

SCALAR = Tiling(8, 4)
VECTORS = (Tiling(8, 4, depth=8, lanes=32), Tiling(8, 4, depth=2, lanes=8))
COMPILERS = [cc for cc in ("zig", "gcc") if has_compiler(cc)]
CASES = coded()


def compiled(case: OpCase, tiling: Tiling) -> CompiledCase:
    return CompiledCase(case, tiling, fma=True)


@cache
def library(cc: str) -> ctypes.CDLL:
    """Every kernel in every tiling."""
    kernels = [
        compiled(case, tiling).source(f"{case}_{tiling.lanes}") for case in CASES for tiling in (SCALAR, *VECTORS)
    ]
    source = KERNEL_INCLUDES + '#include "lanes.h"\n' + "\n".join(kernels)
    return build_shared([source, RUNTIME / "numerics.c"], cc=cc)


def run(case: OpCase, tiling: Tiling, cc: str) -> list[bytes]:
    """The outputs of one kernel."""
    kernel = compiled(case, tiling)
    pointers = [array.ctypes.data for array in kernel.operands]
    library(cc)[f"{case}_{tiling.lanes}"]((ctypes.c_void_p * len(pointers))(*pointers))
    return [result.tobytes() for result in kernel.results]


@pytest.mark.parametrize("cc", COMPILERS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_vectors_have_the_bits_of_scalars(case: OpCase, cc: str) -> None:
    for tiling in VECTORS:
        assert run(case, tiling, cc) == run(case, SCALAR, "gcc" if "gcc" in COMPILERS else cc)


def test_most_linear_algebra_is_in_vectors() -> None:
    kinds = {case.kind for case in CASES if "strop_x" in compiled(case, VECTORS[0]).kernel.body}
    assert {"dense", "dense_dx", "dense_dw", "conv2d", "conv2d_dx", "conv2d_dw", "conv2d_dw_pooled"} <= kinds
    assert {"bias_grad", "sgd", "momentum", "batch_norm", "relu_grad", "max_pool2d_argmax"} <= kinds
