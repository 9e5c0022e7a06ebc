"""exp in lanes has the bits of strop_expf, in its usual range and out of it, on cores that flush as well."""

import ctypes

import numpy as np
import pytest
from cbuild import RUNTIME, build_shared, has_compiler

from strop.compiler.emit import FLUSH

SOURCE = """
#include "lanes.h"
void scalars(const float *x, float *y, size_t n);
void scalars(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; ++i) {
        y[i] = strop_expf(x[i]);
    }
}
void lanes(const float *x, float *y, size_t n);
void lanes(const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i += 8) {
        const size_t left = n - i < 8 ? n - i : 8;
        strop_x8_store(y + i, 1, strop_x8_exp(strop_x8_load(x + i, 1, left), left), left);
    }
}
"""
SMALL = [0.0, -0.0, 1e-45, -1e-45, 1.1e-38, -1.2e-38, 3e-20, -3e-23, 6e-8, -3e-8, 1e-4]
EXTREME = [np.inf, -np.inf, np.nan, 86.0, 86.00001, -86.5, 87.0, -87.0, 88.8, -104.0, 3e38]


def arguments() -> np.ndarray:
    """Vectors of usual numbers, of all kinds together, and a shorter one at the end."""
    rng = np.random.default_rng(0)
    usual = rng.uniform(-86, 86, 8 * 4000)
    mixed = rng.permutation(np.concatenate([np.repeat(SMALL + EXTREME, 40), rng.uniform(-120, 100, 1000)]))
    return np.float32(np.concatenate([usual, rng.permutation(np.repeat(SMALL, 8)), mixed, [1.5, -3.0, 0.25]]))


@pytest.mark.parametrize("flush", ("", FLUSH), ids=("ieee", "flushing"))
@pytest.mark.parametrize("cc", ("zig", "gcc"))
def test_exp_has_the_bits_of_the_scalar(cc: str, flush: str) -> None:
    if not has_compiler(cc):
        pytest.skip(f"no {cc}")
    library = build_shared(["#include <stdint.h>\n" + flush + SOURCE, RUNTIME / "numerics.c"], cc=cc)
    x = arguments()
    assert len(x) % 8 == 3
    results = np.empty((2, len(x)), np.float32)
    for function, y in zip(("scalars", "lanes"), results, strict=True):
        library[function](x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(len(x)))
    scalars, lanes = results
    np.testing.assert_array_equal(np.isnan(lanes), np.isnan(scalars))
    number = ~np.isnan(scalars)
    np.testing.assert_array_equal(lanes[number].view("<u4"), scalars[number].view("<u4"))
