"""Lanes that flush (runtime/lanes_flush.h): by hand, and against exact rational arithmetic, as Arm defines them."""

import ctypes
from collections.abc import Sequence
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from cbuild import RUNTIME, build_shared, has_compiler

from strop.compiler.emit import FLUSH

BUILDS = [("zig", ()), ("gcc", ()), ("gcc", ("-mavx2", "-mfma", "-O3")), ("gcc", ("-DSTROP_SOFT",))]
BUILDS = [build for build in BUILDS if has_compiler(build[0])]
MIN, SIGN, NAN, INF = 0x00800000, 0x80000000, 0x7FC00000, 0x7F800000
SMALLEST = Fraction(1, 2**126)
OPERATIONS = ("add", "sub", "mul", "fma", "fnma")

SOURCE = """
static uint16_t rest[8];
#define LOAD(p) strop_x8_load(p, 1, 8)
#define RUN(name, vector)                                                               \\
    void run_##name(const float *a, const float *b, const float *c, float *y);          \\
    void run_##name(const float *a, const float *b, const float *c, float *y) {         \\
        (void)b, (void)c;                                                               \\
        strop_x8_store(y, 1, vector, 8);                                                \\
    }
RUN(add, strop_x8_add(LOAD(a), LOAD(b), 8))
RUN(sub, strop_x8_sub(LOAD(a), LOAD(b), 8))
RUN(mul, strop_x8_mul(LOAD(a), LOAD(b), 8))
RUN(fma, strop_x8_fma(LOAD(a), LOAD(b), LOAD(c), 8))
RUN(fnma, strop_x8_fnma(LOAD(a), LOAD(b), LOAD(c), 8))
RUN(div, strop_x8_div(LOAD(a), LOAD(b), 8))
RUN(root, strop_x8_sqrt(LOAD(a), 8))
RUN(above, strop_x8_pick_gt(LOAD(a), LOAD(b), LOAD(a), LOAD(c), 8))
RUN(equal, strop_x8_pick_eq(LOAD(a), LOAD(b), LOAD(a), LOAD(c), 8))
RUN(moved, (strop_x8_store_f16(rest, 1, LOAD(a), 8), strop_x8_load_f16(rest, 1, 8)))
"""

BY_HAND = [  # operation, a, b, c, result
    ("mul", 0x3F000001, 0x00FFFFFE, 0, 0),  # below FLT_MIN, though it rounds to that
    ("mul", 0xBF000001, 0x00FFFFFE, 0, SIGN),
    ("mul", 0x3F000001, 0x00FFFFFF, 0, MIN),
    ("mul", 0x3F000000, 0x01000000, 0, MIN),
    ("mul", MIN - 1, 0x7F000000, 0, 0),  # a subnormal operand is zero
    ("mul", SIGN | 1, INF, 0, NAN),  # and zero times infinity is none
    ("add", MIN, SIGN | MIN + 1, 0, SIGN),
    ("add", SIGN | 5, SIGN, 0, SIGN),
    ("add", 5, SIGN, 0, 0),
    ("add", MIN, 1, 0, MIN),
    ("sub", MIN + 1, MIN, 0, 0),
    ("sub", SIGN | 1, 1, 0, SIGN),
    ("fma", MIN, SIGN | MIN, MIN, 0),  # FLT_MIN less 2^-252
    ("fnma", MIN, MIN, SIGN | MIN, SIGN | MIN),
    ("fma", MIN, MIN, MIN, MIN),
    ("fma", 0x3F000001, 0x00FFFFFE, 0, 0),
    ("fma", 0x3F000001, 0x00FFFFFE, 1, 0),  # the addend is zero too
    ("fma", MIN - 1, 0x3F800000, MIN - 1, 0),
    ("add", INF, SIGN | INF, 0, NAN),
    ("add", 0xFFC12345, 0, 0, NAN),  # one NaN, whatever came in
    ("fma", 0x7F800001, 0, 0, NAN),
    ("above", 1, 0, 0x3F800000, 0x3F800000),  # compared as zero
    ("above", MIN, MIN - 1, 0x3F800000, MIN),
    ("equal", 1, SIGN | 7, 0x3F800000, 1),  # equal, and the side is moved as it is
    ("div", MIN, 0x40000000, 0, MIN >> 1),  # the scalar unit keeps subnormals
    ("div", 7, 0x3F800000, 0, 7),
    ("root", 2, 0, 0, 0x1A800000),
    ("moved", 0x33800000, 0, 0, 0x33800000),  # a subnormal of binary16
    ("moved", SIGN | 5, 0, 0, SIGN),
    ("moved", 0xFFC12345, 0, 0, NAN),
]  # fmt: skip


@cache
def library(cc: str, flags: tuple[str, ...]) -> ctypes.CDLL:
    text = "#include <stdbool.h>\n#include <stdint.h>\n" + FLUSH + '#include "lanes.h"\n' + SOURCE
    return build_shared([text, RUNTIME / "numerics.c"], cc=cc, flags=flags)


def run(cc: str, flags: tuple[str, ...], operation: str, *operands: Sequence[int]) -> list[int]:
    """The bits of eight results."""
    arrays = [np.array(bits, np.uint32) for bits in operands]
    y = np.zeros(8, np.uint32)
    library(cc, flags)[f"run_{operation}"](*(ctypes.c_void_p(array.ctypes.data) for array in (*arrays, y)))
    return [int(bits) for bits in y]


@pytest.mark.parametrize("build", BUILDS, ids=str)
@pytest.mark.parametrize("case", BY_HAND, ids=lambda case: f"{case[0]}-{case[1]:x}-{case[2]:x}-{case[3]:x}")
def test_by_hand(case: tuple[str, int, int, int, int], build: tuple[str, tuple[str, ...]]) -> None:
    operation, a, b, c, result = case
    assert run(*build, operation, [a] * 8, [b] * 8, [c] * 8) == [result] * 8


def value(bits: int) -> Fraction:
    """An operand: what is subnormal is zero."""
    exponent, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    magnitude = Fraction(fraction | 1 << 23) * Fraction(2) ** (exponent - 150) if exponent else Fraction(0)
    return -magnitude if bits & SIGN else magnitude


def rounded(exact: Fraction) -> int:
    """The bits of a result that is neither zero nor infinite: flushed by its exact value, then rounded to even."""
    sign = SIGN if exact < 0 else 0
    if abs(exact) < SMALLEST:
        return sign
    magnitude, exponent = abs(exact), 150
    while magnitude >= 1 << 24:
        magnitude, exponent = magnitude / 2, exponent + 1
    while magnitude < 1 << 23:
        magnitude, exponent = magnitude * 2, exponent - 1
    return sign | ((exponent - 1 << 23) + round(magnitude))  # a carry out of the fraction is one in the exponent


@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_random_operands_around_the_smallest(build: tuple[str, tuple[str, ...]]) -> None:
    rng = np.random.default_rng(7)
    compared = 0
    for _ in range(400):
        a, b, c = (rng.integers(0, 2**32, 8, np.uint32) & 0x807FFFFF for _ in range(3))
        exponent = rng.integers(2, 120, 8).astype(np.uint32)
        a |= exponent << 23
        b |= (126 + rng.integers(0, 3, 8).astype(np.uint32) - exponent) << 23
        c |= rng.integers(0, 4, 8).astype(np.uint32) << 23
        operands = [[int(bits) for bits in each] for each in (a, b, c)]
        for operation in OPERATIONS:
            given = operands if operation in ("mul", "fma", "fnma") else [operands[2], operands[2][::-1], operands[0]]
            for i, bits in enumerate(run(*build, operation, *given)):
                x, y, z = (value(each[i]) for each in given)
                exact = {"add": x + y, "sub": x - y, "mul": x * y, "fma": x * y + z, "fnma": z - x * y}[operation]
                assert not exact or bits == rounded(exact)
                compared += exact != 0
    assert compared > 9000
