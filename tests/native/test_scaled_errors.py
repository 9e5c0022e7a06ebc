"""Kernels of errors that rest times a power of two: right whether the factor is taken back at once, late, or never."""

import ctypes
from functools import cache

import numpy as np
import pytest
from cases import KERNEL_INCLUDES, CompiledCase, OpCase, coded
from cbuild import RUNTIME, build_shared

from strop.compiler.cvector import WIDTHS
from strop.compiler.dtypes import FLOAT16
from strop.compiler.health import DECLARATION, definitions
from strop.compiler.ops import spec
from strop.compiler.schedules import Tiling

SCALED = FLOAT16.scaled(6)
CASES = [case for case in coded() if spec(case.kind).linear]
TILINGS = (Tiling(8, 4), Tiling(8, 4, lanes=32))


def compiled(case: OpCase, tiling: Tiling) -> CompiledCase:
    return CompiledCase(case, tiling, fma=True, dtype=SCALED)


@cache
def library() -> ctypes.CDLL:
    """Every kernel in every tiling."""
    kernels = [compiled(case, tiling).source(f"{case}_{tiling.lanes}") for case in CASES for tiling in TILINGS]
    health = definitions(SCALED, "", WIDTHS)
    source = "\n".join([KERNEL_INCLUDES, '#include "lanes.h"', DECLARATION, health, *kernels])
    return build_shared([source, RUNTIME / "numerics.c"], cc="gcc", flags=["-Wno-unused-function", "-Wno-psabi"])


@pytest.mark.parametrize("tiling", TILINGS, ids=lambda tiling: f"{tiling.lanes} lanes")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_results_are_those_of_the_errors_themselves(case: OpCase, tiling: Tiling) -> None:
    kernel = compiled(case, tiling)
    rested = zip(case.draw(), kernel.spec.types, strict=False)
    # The reference sums in float64: sums in float16 would be further from the truth than the kernel is.
    inputs = [np.float64(x.astype(t.dtype.numpy)) * 2.0**-t.dtype.exponent if t.dtype.narrow else x for x, t in rested]
    pointers = [array.ctypes.data for array in kernel.operands]
    library()[f"{case}_{tiling.lanes}"]((ctypes.c_void_p * len(pointers))(*pointers))
    exact = spec(case.kind).reference(inputs, case.case.attrs)
    for got, want, operand in zip(kernel.results, exact, kernel.spec.results, strict=True):
        factor = 2.0 ** -kernel.spec.types[operand].dtype.exponent
        np.testing.assert_allclose(got.astype(np.float64) * factor, want, rtol=1e-3, atol=1e-6)
