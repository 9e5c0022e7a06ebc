"""What the terms of recurrent ops add up to without their signs, from absolute operands: see `test_ops_native`.

A gate magnifies the rounding of its sum, which is at most as large as the sum's terms.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def gru_cell(a: Array, m: Array, h: Array) -> list[Array]:
    r, z, new = np.split(1 + a + m, 3, axis=1)
    n = r * new
    return [r, z, np.split(m, 3, axis=1)[2], n, n + z * (h + n)]


def gru_cell_grad(z: Array, n: Array, inner: Array, r: Array, h: Array, dh: Array) -> list[Array]:
    dn = dh * (1 + z) * (1 + n * n)
    return [dh * z * (h + n) * (1 + z), dn, dn * inner * r * (1 + r), dn * r, dh * z]


def leaky_cell_grad(c: Array, dh: Array, a: Mapping[str, Any]) -> list[Array]:
    return [dh * (1 - a["leak"]) * (1 + c * c), dh * a["leak"]]


def lstm_cell(a: Array, m: Array, c: Array) -> list[Array]:
    i, f, g, o = np.split(1 + a + m, 4, axis=1)
    cell = f * c + i * g
    return [o * (1 + cell), cell, g * i * (1 + i), f, i * (1 + g * g), o, i, g]


def lstm_cell_grad(*operands: Array) -> list[Array]:
    dc, slope_i, f, slope_g, o, _, before, dh = operands
    total = dc + 2 * dh * o
    df, do = total * before * f * (1 + f), dh * o * (1 + o)
    return [total * f, total * slope_i, df, total * slope_g, do, total, np.ones_like(dc)]


def _bare(function: Callable[..., list[Array]]) -> Callable[..., list[Array]]:
    """For an op without attributes."""

    def magnitude(*operands: Array, a: Mapping[str, Any]) -> list[Array]:
        del a
        return function(*operands)

    return magnitude


RECURRENT: dict[str, Callable[..., list[Array]]] = {
    function.__name__: _bare(function) for function in (gru_cell, gru_cell_grad, lstm_cell, lstm_cell_grad)
} | {"leaky_cell_grad": leaky_cell_grad}
