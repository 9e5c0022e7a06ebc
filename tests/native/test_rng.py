"""The counter-based generator: the same bits in C and numpy, bits that never change, and their statistics."""

import ctypes
import math
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from cbuild import RUNTIME, build_shared
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from strop.compiler.rng import rng, sign, tensor_key, uniform
from strop.errors import UsageError

WORD = st.integers(0, 2**32 - 1)
Words = NDArray[np.uint32]


def in_c(seed: int, tensor: int, first: int, count: int) -> tuple[Words, NDArray[np.float32], NDArray[np.float32]]:
    """Bits, uniform and sign of ``count`` elements, by runtime/rng.h."""
    lib = build_shared([RUNTIME / "numerics.c", Path(__file__).parent / "sweep.c"], flags=("-lm",))
    out = np.zeros(count, np.uint32), np.zeros(count, np.float32), np.zeros(count, np.float32)
    words = [ctypes.c_uint32(v) for v in (seed, tensor, first, count)]
    lib.fill_rng(*words, *(a.ctypes.data_as(ctypes.c_void_p) for a in out))
    return out


@given(seed=WORD, tensor=WORD, first=st.integers(0, 2**32 - 65))
@settings(deadline=None)
def test_c_and_python_give_the_same_bits(seed: int, tensor: int, first: int) -> None:
    index = np.arange(first, first + 64, dtype=np.uint64)
    for got, want in zip(in_c(seed, tensor, first, 64), (rng, uniform, sign), strict=True):
        np.testing.assert_array_equal(got.view(np.uint32), want(seed, tensor, index).view(np.uint32))


GOLDEN = {
    (0, 0, 0): 0xC5D4C6AE,
    (0, 0, 1): 0x1B49A12B,
    (1, 0, 0): 0x36FB2151,
    (0, 1, 0): 0x830346CD,
    (42, 0xCBF43926, 1000): 0x762B52D1,
    (2**32 - 1, 2**32 - 1, 2**32 - 1): 0xC1B2BAD1,
}


def test_bits_never_change() -> None:
    """Golden on purpose: a checkpoint was trained against these projections, so another release must rebuild them."""
    assert {where: int(rng(*where)) for where in GOLDEN} == GOLDEN


def test_tensor_key_is_the_standard_crc() -> None:
    assert tensor_key("123456789") == 0xCBF43926  # the check value of CRC-32/ISO-HDLC
    assert tensor_key("größe") == crc32("größe".encode())


def test_shapes_follow_the_index() -> None:
    grid = np.arange(12).reshape(3, 4)
    assert rng(1, 2, grid).shape == uniform(1, 2, grid).shape == sign(1, 2, grid).shape == (3, 4)
    assert rng(1, 2, 5).shape == ()
    assert rng(1, 2, []).shape == (0,)
    assert rng(1, 2, grid)[2, 3] == rng(1, 2, 11)


@pytest.mark.parametrize("bad", [-1, 2**32, 2**70, 1.5, "3", True])
def test_numbers_that_do_not_fit_are_refused(bad: int) -> None:
    for arguments in ((bad, 0, 0), (0, bad, 0), (0, 0, [bad])):
        with pytest.raises(UsageError, match="32 bits"):
            rng(*arguments)


N = 1 << 18
INDEX = np.arange(N)
NOISE = 1 / np.sqrt(N)  # standard deviation of a mean of N independent signs


def centred(seed: int, tensor: int) -> NDArray[np.float64]:
    """Uniform numbers of mean 0 and variance 1."""
    return (uniform(seed, tensor, INDEX).astype(np.float64) - 0.5) * math.sqrt(12)


def test_uniform_is_uniform() -> None:
    u = uniform(3, 4, INDEX)
    assert u.dtype == np.float32 and u.min() >= 0 and u.max() < 1
    np.testing.assert_array_equal(u * 2**24, np.floor(u * 2**24))
    cells = np.bincount((u * 1024).astype(int), minlength=1024)
    chi_square = float(((cells - N / 1024) ** 2).sum() / (N / 1024))
    assert abs(chi_square - 1023) < 5 * np.sqrt(2 * 1023)


def test_signs_are_balanced() -> None:
    s = sign(5, 6, INDEX)
    assert set(np.unique(s)) == {-1.0, 1.0}
    assert abs(s.mean()) < 5 * NOISE


@pytest.mark.parametrize("distance", [1, 2, 3, 10, *(2**k for k in range(2, 15))])
def test_neighbours_are_uncorrelated(distance: int) -> None:
    """Power-of-two distances are the rows of a matrix, and where weak integer hashes show."""
    u, s = centred(7, 8), sign(7, 8, INDEX)
    assert abs(np.mean(u[distance:] * u[:-distance])) < 5 * NOISE
    assert abs(np.mean(s[distance:] * s[:-distance])) < 5 * NOISE


@pytest.mark.parametrize(("seed", "tensor"), [(0, 1), (1, 0), (0, 2**31), (2**31, 0), (0x9E3779B9, 0)])
def test_streams_are_independent(seed: int, tensor: int) -> None:
    """Seeds and keys that differ in one bit: no correlation, and no more common numbers than chance gives."""
    assert abs(np.mean(centred(0, 0) * centred(seed, tensor))) < 5 * NOISE
    common = np.intersect1d(rng(0, 0, INDEX), rng(seed, tensor, INDEX)).size
    assert abs(common - N * N / 2**32) < 6 * np.sqrt(N * N / 2**32)


def test_one_stream_repeats_no_number() -> None:
    assert np.unique(rng(9, 10, INDEX)).size == N


def flip_bias(numbers: Callable[[int], Words]) -> float:
    """Largest distance from 1/2 of the probability that an output bit flips; numbers(mask) has its inputs xor mask."""
    base = numbers(0)
    flipped = [base ^ numbers(1 << bit) for bit in range(32)]
    return max(float(abs(np.unpackbits(f.view(np.uint8)).reshape(-1, 32).mean(0) - 0.5).max()) for f in flipped)


def test_avalanche() -> None:
    """Every bit of index, seed and tensor flips every output bit half the time (to 5 standard deviations)."""
    small = np.arange(1 << 15)
    assert flip_bias(lambda mask: rng(11, 12, small ^ mask)) < 2.5 / np.sqrt(small.size)
    keys = range(1 << 9)
    assert flip_bias(lambda mask: np.array([rng(k ^ mask, 12, 1) for k in keys])) < 2.5 / np.sqrt(len(keys))
    assert flip_bias(lambda mask: np.array([rng(12, k ^ mask, 1) for k in keys])) < 2.5 / np.sqrt(len(keys))
