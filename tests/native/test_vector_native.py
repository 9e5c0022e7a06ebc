"""Kernels in vectors have the bits of kernels in scalars: every op's cases, for short and long vectors, on this PC.

But for those whose lanes are terms of a sum, which add in another order.
"""

import ctypes
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from cases import KERNEL_INCLUDES, Array, CompiledCase, OpCase, coded, rests
from cbuild import RUNTIME, build_shared, has_compiler

from strop.compiler.dtypes import BFLOAT16, FLOAT16, FLOAT32, DType
from strop.compiler.health import DECLARATION, definitions
from strop.compiler.schedules import Tiling

SCALAR = Tiling(8, 4)
VECTORS = (Tiling(8, 4, depth=8, lanes=32), Tiling(8, 4, depth=2, lanes=8))
COMPILERS = [cc for cc in ("zig", "gcc") if has_compiler(cc)]
CASES = coded()


FORMATS = (FLOAT32, FLOAT16, BFLOAT16)
RESTING = [(dtype, case) for dtype in FORMATS for case in CASES if dtype is FLOAT32 or rests(case, dtype)]


def vectors(dtype: DType) -> Sequence[Tiling]:
    """Short vectors too where operands rest as they are summed."""
    return VECTORS if dtype is FLOAT32 else VECTORS[:1]


def compiled(case: OpCase, tiling: Tiling, dtype: DType = FLOAT32) -> CompiledCase:
    return CompiledCase(case, tiling, fma=True, dtype=dtype)


@cache
def library(cc: str, dtype: DType) -> ctypes.CDLL:
    """Every kernel in every tiling."""
    kernels = [
        compiled(case, tiling, dtype).source(f"{case}_{tiling.lanes}")
        for own, case in RESTING if own is dtype for tiling in (SCALAR, *vectors(dtype))
    ]  # fmt: skip
    source = KERNEL_INCLUDES + '#include "lanes.h"\n' + "\n".join(kernels)
    return build_shared([source, RUNTIME / "numerics.c"], cc=cc)


def run(case: OpCase, tiling: Tiling, cc: str, dtype: DType) -> list[Array]:
    """The outputs of one kernel."""
    kernel = compiled(case, tiling, dtype)
    pointers = [array.ctypes.data for array in kernel.operands]
    library(cc, dtype)[f"{case}_{tiling.lanes}"]((ctypes.c_void_p * len(pointers))(*pointers))
    return [result.copy() for result in kernel.results]


@pytest.mark.parametrize("cc", COMPILERS)
@pytest.mark.parametrize(("dtype", "case"), [pytest.param(*row, id=f"{row[0].name}-{row[1]}") for row in RESTING])
def test_vectors_have_the_bits_of_scalars(case: OpCase, dtype: DType, cc: str) -> None:
    scalars = run(case, SCALAR, "gcc" if "gcc" in COMPILERS else cc, dtype)
    for tiling in vectors(dtype):
        partial = "_sum(" in compiled(case, tiling, dtype).kernel.body
        for got, expected in zip(run(case, tiling, cc, dtype), scalars, strict=True):
            if partial:
                near = (expected.astype(np.float64), 1e-5 if dtype is FLOAT32 else 2.0**-8, 1e-5)
                np.testing.assert_allclose(got.astype(np.float64), *near)
            else:
                assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("format_", FORMATS, ids=lambda dtype: dtype.name)
def test_most_linear_algebra_is_in_vectors(format_: DType) -> None:
    in_vectors = (case for dtype, case in RESTING if dtype is format_)
    kinds = {case.kind for case in in_vectors if "strop_x" in compiled(case, VECTORS[0], format_).kernel.body}
    assert {"dense", "dense_dx", "dense_dw", "conv2d", "conv2d_dx", "conv2d_dw", "conv2d_dw_pooled"} <= kinds
    assert {"bias_grad", "sgd", "momentum", "batch_norm", "relu_grad", "max_pool2d_argmax"} <= kinds


LIMITED = """
void one_by_one(float *x, bool *far, size_t n);
void one_by_one(float *x, bool *far, size_t n) {
    beyond = false;
    for (size_t i = 0; i < n; ++i) {
        x[i] = strop_model_limited(x[i]);
    }
    *far = beyond;
}
void together(float *x, bool *far, size_t n);
void together(float *x, bool *far, size_t n) {
    beyond = false;
    strop_x8_store(x, 1, strop_model_limited_x8(strop_x8_load(x, 1, n), n), n);
    *far = beyond;
}
"""
EDGES = ((1.0, -65504.0, 65504.0), (-65504.1, 2.0), (70000.0, -1e30), (float("inf"),), (1.0, float("nan"), -1e9))


@pytest.mark.parametrize("values", EDGES, ids=str)
@pytest.mark.parametrize("dtype", [FLOAT16.scaled(10), FLOAT16.follows], ids=lambda dtype: dtype.name)
def test_errors_are_limited_together_as_one_by_one(dtype: DType, values: tuple[float, ...]) -> None:
    state = "static float state[3];\n" if dtype.dynamic else ""
    text = [KERNEL_INCLUDES, '#include "lanes.h"\n', state, DECLARATION, definitions(dtype, "state", [8]), LIMITED]
    c = build_shared(["".join(text), RUNTIME / "numerics.c"], cc="gcc", flags=["-Wno-unused-function"])
    found = []
    for function in (c.one_by_one, c.together):
        x, far = np.array(values, np.float32), ctypes.c_bool()
        function(ctypes.c_void_p(x.ctypes.data), ctypes.byref(far), ctypes.c_size_t(len(x)))
        found.append((x.tobytes(), far.value))
    assert found[0] == found[1]
    assert found[0][1] == (not all(abs(value) <= 65504 for value in values))
