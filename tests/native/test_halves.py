"""Arithmetic in binary16: each operation rounded once, and kernels that use it, on this PC."""

import ctypes
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from cases import KERNEL_INCLUDES, CompiledCase, OpCase, coded, rests
from cbuild import RUNTIME, build_shared
from numpy.typing import NDArray

from strop.compiler.dtypes import FLOAT16
from strop.compiler.ops import spec
from strop.compiler.schedules import Tiling

Halves = NDArray[np.uint16]
TILING = Tiling(8, 4, depth=8, lanes=32, halves=64)
PANELS = Tiling(20, 4, depth=8, lanes=16, halves=16, registers=8, at_once=4, panel=512)
CASES = [case for case in coded() if rests(case, FLOAT16)]
KINDS = ("maps", "sums")

OPERATIONS = """
#define OPERATION(name, value) \\
    void name(const uint16_t *p, const uint16_t *q, const uint16_t *r, uint16_t *out); \\
    void name(const uint16_t *p, const uint16_t *q, const uint16_t *r, uint16_t *out) { \\
        const strop_f16x8 a = strop_x8_half(p, 1, 8), b = strop_x8_half(q, 1, 8), c = strop_x8_half(r, 1, 8); \\
        (void)b, (void)c; \\
        strop_x8_half_store(out, 1, value, 8); \\
    }
OPERATION(add, strop_x8_half_add(a, b, 8))
OPERATION(sub, strop_x8_half_sub(a, b, 8))
OPERATION(mul, strop_x8_half_mul(a, b, 8))
OPERATION(fma_, strop_x8_half_fma(a, b, c, 8))
OPERATION(fnma, strop_x8_half_fnma(a, b, c, 8))
OPERATION(larger, strop_x8_half_pick_gt(a, b, a, b, 8))
OPERATION(relu, strop_x8_half_relu(a, 8))
"""


@cache
def operations() -> ctypes.CDLL:
    text = KERNEL_INCLUDES + '#include "lanes.h"\n' + OPERATIONS
    return build_shared([text, RUNTIME / "numerics.c"], cc="gcc", flags=["-Wno-psabi", "-Wno-unused-function"])


def applied(name: str, *operands: Halves) -> Halves:
    out = np.empty_like(operands[0])
    for i in range(0, len(out), 8):
        operations()[name](*(ctypes.c_void_p(x[i:].ctypes.data) for x in (*operands, out)))
    return out


def operands(seed: int, count: int = 4000) -> list[Halves]:
    """Three rows of finite halves: of any size, and of sizes at which products and sums meet half a last place."""
    rng = np.random.default_rng(seed)
    wild = [rng.integers(0, 0x7C00, count) | rng.integers(0, 2, count) << 15 for _ in range(3)]
    near = [rng.integers(0x3000, 0x4800, count) | rng.integers(0, 2, count) << 15 for _ in range(3)]
    product = np.abs(near[0].astype(np.uint16).view(np.float16) * near[1].astype(np.uint16).view(np.float16))
    with np.errstate(over="ignore"):
        near[2] = (product * np.float16(2) ** rng.integers(-12, 13, count).astype(np.float16)).view(np.uint16)
    return [np.concatenate(pair).astype(np.uint16) for pair in zip(wild, near, strict=True)]


def nearest(x: Fraction) -> float:
    """The half nearest to a number, ties to even, infinity from half a last place beyond the largest."""
    magnitude = abs(x)
    exponent = -14
    while magnitude >= Fraction(2) ** (exponent + 1):
        exponent += 1
    place = Fraction(2) ** (exponent - 10)
    rounded = round(magnitude / place) * place
    value = float("inf") if rounded >= 65536 else float(rounded)
    return -value if x < 0 else value


def finite(row: Halves) -> list[Fraction]:
    return [Fraction(float(x)) for x in row.view(np.float16)]


FORMULAS: dict[str, Callable[..., Fraction]] = {
    "add": lambda a, b, c: a + b, "sub": lambda a, b, c: a - b, "mul": lambda a, b, c: a * b,
    "fma_": lambda a, b, c: a * b + c, "fnma": lambda a, b, c: c - a * b, "larger": lambda a, b, c: max(a, b),
    "relu": lambda a, b, c: max(a, Fraction(0)),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_each_operation_is_rounded_once(name: str) -> None:
    rows = [np.where(row & 0x7C00 == 0x7C00, row & 0x83FF, row).astype(np.uint16) for row in operands(3)]
    found = applied(name, *rows).view(np.float16).astype(np.float64)
    wanted = [nearest(FORMULAS[name](*row)) for row in zip(*map(finite, rows), strict=True)]
    np.testing.assert_array_equal(found, wanted)


def test_no_result_is_rounded_twice() -> None:
    """1 + 2^-10 and a little less than half a place: float32 would call it half a place, and round to even, up."""
    c, a, b = (np.full(8, bits, np.uint16) for bits in (0x3C01, 0x1001, 0x3BFE))  # 2^-11 (1 + 2^-10), 1 - 2^-10
    assert (applied("fma_", a, b, c) == 0x3C01).all()


def test_infinities_and_nan_stay() -> None:
    infinite, one, nan = (np.full(8, bits, np.uint16) for bits in (0x7C00, 0x3C00, 0x7E00))
    assert (applied("fma_", infinite, one, one) == 0x7C00).all()
    assert (applied("fnma", infinite, one, infinite) == 0x7E00).all()
    assert (applied("add", nan, one, one) == 0x7E00).all()


@cache
def library(half: str) -> ctypes.CDLL:
    kernels = [CompiledCase(case, TILING, fma=True, dtype=FLOAT16, half=half).source(str(case)) for case in CASES]
    source = KERNEL_INCLUDES + '#include "lanes.h"\n' + "\n".join(kernels)
    return build_shared([source, RUNTIME / "numerics.c"], cc="gcc", flags=["-Wno-psabi", "-Wno-unused-function"])


@pytest.mark.parametrize("half", KINDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_in_halves_are_near_the_reference(case: OpCase, half: str) -> None:
    """What is computed in halves is some roundings of 2^-11 away from the reference on the same inputs."""
    kernel = CompiledCase(case, TILING, fma=True, dtype=FLOAT16, half=half)
    rested = zip(case.draw(), kernel.spec.types, strict=False)
    inputs = [x.astype(t.dtype.numpy).astype(np.float64) if t.dtype.narrow else x for x, t in rested]
    pointers = [array.ctypes.data for array in kernel.operands]
    library(half)[str(case)]((ctypes.c_void_p * len(pointers))(*pointers))
    exact = spec(case.kind).reference(inputs, case.case.attrs)
    for got, want in zip(kernel.results, exact, strict=True):
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("half", KINDS)
def test_most_linear_algebra_is_in_halves(half: str) -> None:
    kernels = [CompiledCase(case, TILING, fma=True, dtype=FLOAT16, half=half) for case in CASES]
    kinds = {kernel.case.kind for kernel in kernels if "half_fma" in kernel.kernel.body}
    sums = {"dense", "dense_dx", "conv2d", "conv2d_dx", "conv2d_dw"}
    assert "batch_norm" in kinds
    assert sums <= kinds if half == "sums" else not sums & kinds


@pytest.mark.parametrize("half", ["", *KINDS])
def test_a_panel_changes_no_bit(half: str) -> None:
    """Of operands that are widened beforehand: a tile of an image, a whole one with padding, of odd places too."""

    def kernels(tiling: Tiling) -> list[CompiledCase]:
        return [CompiledCase(case, tiling, fma=True, dtype=FLOAT16, half=half) for case in CASES]

    with_panels = [kernel for kernel in kernels(PANELS) if "_panel[" in kernel.kernel.body]
    names = {str(kernel.case) for kernel in with_panels}
    without = [kernel for kernel in kernels(replace(PANELS, panel=0)) if str(kernel.case) in names]
    assert {kernel.case.kind for kernel in with_panels} == {"conv2d", "conv2d_dx", "conv2d_dw"}
    for one, other in zip(with_panels, without, strict=True):
        assert run(one) == run(other), str(one.case)


def run(kernel: CompiledCase) -> list[bytes]:
    source = KERNEL_INCLUDES + '#include "lanes.h"\n' + kernel.source("kernel")
    flags = ["-Wno-psabi", "-Wno-unused-function"]
    pointers = [array.ctypes.data for array in kernel.operands]
    library = build_shared([source, RUNTIME / "numerics.c"], cc="gcc", flags=flags)
    library.kernel((ctypes.c_void_p * len(pointers))(*pointers))
    return [result.tobytes() for result in kernel.results]


def test_a_long_sum_is_widened_every_few_terms() -> None:
    (case,) = [case for case in CASES if case.kind == "dense" and case.case.inputs[0].shape == (1, 7)]
    body = CompiledCase(case, TILING, fma=True, dtype=FLOAT16, half="sums").kernel.body
    assert "strop_f16x8 sum" in body, "seven terms need no float32 sum"
