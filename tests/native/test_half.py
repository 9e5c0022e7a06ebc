"""16-bit storage: every pattern, every boundary between two of them, rounding by chance, and numpy's bits.

Digests over the same on other builds and on emulated boards are in test_numerics.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cbuild import RUNTIME, build_shared, has_compiler
from numpy.typing import NDArray
from test_numerics import BUILDS

from strop.compiler.dtypes import BFLOAT16, FLOAT16, DType

Array = NDArray[Any]
FORMATS = (FLOAT16, BFLOAT16)
PATTERNS = np.arange(1 << 16, dtype=np.uint16)
WORDS = 1 << 14
"""Random words that a mean is taken over."""


@pytest.fixture(params=BUILDS, scope="module")
def c(request: pytest.FixtureRequest) -> ctypes.CDLL:
    cc, flags = BUILDS[request.param]
    if not has_compiler(cc):
        pytest.skip(f"{cc} is not installed")
    return build_shared([RUNTIME / "numerics.c", Path(__file__).parent / "half.c"], cc=cc, flags=flags)


def run(function: Callable[..., Any], dtype: DType, *inputs: Array, to: type[Any]) -> Array:
    out = np.empty(len(inputs[0]), to)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (*map(np.ascontiguousarray, inputs), out)]
    function(int(dtype is BFLOAT16), *pointers, len(out))
    return out


def bits(x: Array) -> Array:
    """The bits of floats; NaNs are one."""
    return np.where(np.isnan(x), np.uint32(0x7FC00000), x.astype(np.float32).view(np.uint32))


def values(dtype: DType) -> Array:
    """Every pattern as numpy and ml_dtypes read it."""
    return PATTERNS.view(dtype.numpy).astype(np.float32)


def arguments(dtype: DType) -> Array:
    """All numbers of a format, the middles between neighbours, their neighbours among floats, and any floats at all."""
    dropped = 16 if dtype is BFLOAT16 else 13
    found = values(dtype).view(np.uint32)
    if dtype is FLOAT16:  # below 2^-14, a middle is half of 2^-24 away
        tiny = (np.arange(0, 2048, dtype=np.float32) * np.float32(2.0**-25)).view(np.uint32)
        found = np.concatenate([found, tiny, tiny | np.uint32(1 << 31)])
    middles = found + np.uint32(1 << (dropped - 1))
    near = [around + np.uint32(step % 2**32) for around in (found, middles) for step in (-1, 0, 1)]
    some = np.random.default_rng(0).integers(0, 2**32, 1 << 18, np.uint32)
    edges = np.array([0, 1, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x7F800000, 0x477FEFFF, 0x477FF000, 0x477FF001,
                      0x7F7F7FFF, 0x7F7F8000, 0x7F800001, 0x7FFFFFFF], np.uint32)  # fmt: skip
    return np.concatenate([*near, some, edges, edges | np.uint32(1 << 31)]).view(np.float32)


@pytest.mark.parametrize("dtype", FORMATS, ids=lambda d: d.name)
def test_every_pattern_widens_exactly(c: ctypes.CDLL, dtype: DType) -> None:
    np.testing.assert_array_equal(bits(run(c.widen, dtype, PATTERNS, to=np.float32)), bits(values(dtype)))


@pytest.mark.parametrize("dtype", FORMATS, ids=lambda d: d.name)
def test_floats_become_the_nearest_and_ties_even(c: ctypes.CDLL, dtype: DType) -> None:
    x = arguments(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(dtype.numpy)
    got = run(c.narrow, dtype, x, to=np.uint16)
    nan = np.isnan(x)
    assert np.isnan(got[nan].view(dtype.numpy).astype(np.float32)).all()
    np.testing.assert_array_equal(got[~nan], expected.view(np.uint16)[~nan])
    rested = run(c.rest, dtype, x, to=np.float32)
    np.testing.assert_array_equal(bits(rested), bits(expected.astype(np.float32)))


@pytest.mark.parametrize("dtype", FORMATS, ids=lambda d: d.name)
def test_chance_picks_a_neighbour_as_numpy_does(c: ctypes.CDLL, dtype: DType) -> None:
    x = arguments(dtype)
    random = np.random.default_rng(1).integers(0, 2**32, len(x), np.uint32)
    random[::7], random[1::7] = 0, 2**32 - 1
    got = run(c.dither, dtype, x, random, to=np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        np.testing.assert_array_equal(bits(got), bits(dtype.dithered(x, random)))
    within = np.abs(x) <= dtype.most
    below, above = neighbours(dtype, x[within])
    assert ((got[within] == below) | (got[within] == above)).all()


def neighbours(dtype: DType, x: Array) -> tuple[Array, Array]:
    """The largest number of a format that is not above x, and the smallest that is not below; 2^16 behind 65504."""
    end = 2 * dtype.most - float(values(dtype)[values(dtype) < dtype.most].max())
    known = np.unique(values(dtype)[np.isfinite(values(dtype))].astype(np.float64))
    known = np.concatenate([[-end], known, [end]])
    at = np.searchsorted(known, x.astype(np.float64))
    exact = known[at] == x
    return np.where(exact, known[at], known[at - 1]).astype(np.float32), known[at].astype(np.float32)


@pytest.mark.parametrize("dtype", FORMATS, ids=lambda d: d.name)
def test_what_is_exact_stays_under_any_chance(c: ctypes.CDLL, dtype: DType) -> None:
    x = values(dtype)
    for word in (0, 1, 2**31, 2**32 - 1):
        got = run(c.dither, dtype, x, np.full(len(x), word, np.uint32), to=np.float32)
        np.testing.assert_array_equal(bits(got), bits(x))


@pytest.mark.parametrize("dtype", FORMATS, ids=lambda d: d.name)
@pytest.mark.parametrize("x", [0.1, -0.1, 1 + 2.0**-14, -1000.3, 3e-5, 1e-5, -1e-6, 3e-8, 1e-9, 65519.0])
def test_the_mean_of_many_is_the_number(c: ctypes.CDLL, dtype: DType, x: float) -> None:
    """Within five standard errors; the variance is at most a quarter of the gap's square."""
    words = np.random.default_rng(2).integers(0, 2**32, WORDS, np.uint32)
    single = np.float32(x)
    got = run(c.dither, dtype, np.full(WORDS, single), words, to=np.float32).astype(np.float64)
    gap = float(got.max() - got.min()) or abs(x)
    assert len(np.unique(got)) <= 2
    assert abs(got.mean() - float(single)) <= 5 * gap / 2 / np.sqrt(WORDS)
