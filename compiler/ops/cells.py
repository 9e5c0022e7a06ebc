"""One step of recurrent cells, and its gradient, element by element; all of the linear algebra is done outside.

A cell keeps, for the way back, what its gradient then overwrites with the errors of the gates: two tensors of the same
size never exist at once. What it keeps and the order of the results are chosen so that each result may overwrite its
operand while the ones after it still find theirs.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from strop.compiler.ir import TensorType
from strop.compiler.ops.base import Array, Attrs, Case, OpSpec, Te, Tensor, f32


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class Cell(OpSpec):
    """a, m (B,G*H): what input and last state give each gate; the last operand and all results are (B,H)."""

    gates: ClassVar[int]
    dtypes = ("float32",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[2]] * len(self.results)

    def cases(self) -> list[Case]:
        return [Case((f32(b, self.gates * h), f32(b, self.gates * h), f32(b, h))) for b, h in ((1, 7), (3, 5))]


class CellGrad(OpSpec):
    """Everything is (B,H); the results behind those that overwrite an operand are new."""

    elementwise = True
    dtypes = ("float32",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]] * len(self.results)

    def cases(self) -> list[Case]:
        return [Case((f32(b, h),) * len(self.operands)) for b, h in ((1, 7), (3, 5))]


class GruCell(Cell):
    """h' = n + z (h - n), with r, z = sigmoid(a + m) and n = tanh(a + r m); keeps m of the new gate, z, n and r.

    Gates in PyTorch's order: reset, update, new. Cho et al., arXiv 1406.1078, with the reset gate behind the product.
    """

    kind = "gru_cell"
    gates = 3
    operands = ("a", "m", "h")
    results = ("r", "z", "inner", "n", "y")
    suffixes = ("", ".z", ".inner", ".n", ".y")

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        (a_r, a_z, a_n), (m_r, m_z, m_n) = (np.split(x, 3, axis=1) for x in inputs[:2])
        r, z = _sigmoid(a_r + m_r), _sigmoid(a_z + m_z)
        n = np.tanh(a_n + r * m_n)
        return [r, z, m_n.copy(), n, n + z * (inputs[2] - n)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (a, m, h), shape = inputs, types[2].shape
        size = shape[1]
        r = te.compute(shape, lambda b, j: te.call("sigmoid", a[b, j] + m[b, j]), "r")
        z = te.compute(shape, lambda b, j: te.call("sigmoid", a[b, size + j] + m[b, size + j]), "z")
        inner = te.compute(shape, lambda b, j: m[b, 2 * size + j], "inner")
        n = te.compute(shape, lambda b, j: te.call("tanh", a[b, 2 * size + j] + r[b, j] * m[b, 2 * size + j]), "n")
        y = te.compute(shape, lambda b, j: n[b, j] + z[b, j] * (h[b, j] - n[b, j]), "y")
        return [r, z, inner, n, y]


class GruCellGrad(CellGrad):
    """The errors of the gates, and what of dh passes the update gate by; h is the state before the step.

    z becomes the error of the update gate, n of the new gate, inner of the reset gate, r of the inner product.
    """

    kind = "gru_cell_grad"
    operands = ("z", "n", "inner", "r", "h", "dh")
    results = ("dz", "dn", "dr", "dinner", "passed")
    suffixes = ("", ".dn", ".dr", ".dinner", ".passed")
    overwrites: ClassVar[Mapping[int, int]] = {0: 0, 1: 1, 2: 2, 3: 3}
    working = (4,)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        z, n, inner, r, h, dh = inputs
        dn = dh * (1 - z) * (1 - n * n)
        return [dh * (h - n) * z * (1 - z), dn, dn * inner * r * (1 - r), dn * r, dh * z]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (z, n, inner, r, h, dh), shape, one = inputs, types[0].shape, te.const(1)
        passed = te.compute(shape, lambda *i: dh[i] * z[i], "passed")
        dz = te.compute(shape, lambda *i: passed[i] * (h[i] - n[i]) * (one - z[i]), "dz")
        dn = te.compute(shape, lambda *i: (dh[i] - passed[i]) * (one - n[i] * n[i]), "dn")
        dr = te.compute(shape, lambda *i: dn[i] * inner[i] * r[i] * (one - r[i]), "dr")
        return [dz, dn, dr, te.compute(shape, lambda *i: dn[i] * r[i], "dinner"), passed]


class LeakyCell(OpSpec):
    """z, h (B,H) -> h' = leak h + (1 - leak) c, and c = tanh(z): a leaky integrator (Jaeger et al. 2007)."""

    kind = "leaky_cell"
    operands = ("z", "h")
    results = ("y", "c")
    suffixes = ("", ".c")
    elementwise = True
    dtypes = ("float32",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]] * 2

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        z, h = inputs
        c, leak = np.tanh(z), z.dtype.type(attrs["leak"])
        return [leak * h + (1 - leak) * c, c]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (z, h), shape, leak = inputs, types[0].shape, attrs["leak"]
        c = te.compute(shape, lambda *i: te.call("tanh", z[i]), "c")
        return [te.compute(shape, lambda *i: te.const(leak) * h[i] + te.const(1 - leak) * c[i], "y"), c]

    def cases(self) -> list[Case]:
        return [Case((f32(b, h),) * 2, {"leak": leak}) for b, h, leak in ((1, 7, 0.9), (3, 5, 0.25))]


class LeakyCellGrad(CellGrad):
    """c becomes the error of z; and what of dh passes to the state before. attrs: leak."""

    kind = "leaky_cell_grad"
    operands = ("c", "dh")
    results = ("dz", "passed")
    suffixes = ("", ".passed")
    overwrites: ClassVar[Mapping[int, int]] = {0: 0}

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        (c, dh), leak = inputs, inputs[0].dtype.type(attrs["leak"])
        return [(1 - leak) * dh * (1 - c * c), leak * dh]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (c, dh), shape, leak = inputs, types[0].shape, attrs["leak"]
        dz = te.compute(shape, lambda *i: te.const(1 - leak) * dh[i] * (te.const(1) - c[i] * c[i]), "dz")
        return [dz, te.compute(shape, lambda *i: te.const(leak) * dh[i], "passed")]

    def cases(self) -> list[Case]:
        return LeakyCell().cases()


class Trace(CellGrad):
    """e, x -> e = leak e + (1 - leak) x: what a leaky unit still holds of a signal. attrs: leak."""

    kind = "trace"
    operands = ("trace", "x")
    results = ("trace",)
    overwrites: ClassVar[Mapping[int, int]] = {0: 0}

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        (e, x), leak = inputs, inputs[0].dtype.type(attrs["leak"])
        return [leak * e + (1 - leak) * x]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (e, x), leak = inputs, attrs["leak"]
        return [te.compute(types[0].shape, lambda *i: te.const(leak) * e[i] + te.const(1 - leak) * x[i], "trace")]

    def cases(self) -> list[Case]:
        return LeakyCell().cases()


class LstmCell(Cell):
    """h' = o tanh(c'), c' = f c + i g, with i, f, o = sigmoid(a + m) and g = tanh(a + m); the last operand is c.

    Keeps f, o and the slopes of c' towards the sums of the gates i and g: g i (1 - i) and i (1 - g^2). Gates in
    PyTorch's order: input, forget, cell, output. Hochreiter and Schmidhuber 1997, with Gers' forget gate.
    """

    kind = "lstm_cell"
    gates = 4
    operands = ("a", "m", "c")
    results = ("y", "cell", "slope_i", "f", "slope_g", "o", "i", "g")
    suffixes = ("", ".cell", ".slope_i", ".f", ".slope_g", ".o", ".i", ".g")
    working = (6, 7)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        i, f, g, o = np.split(inputs[0] + inputs[1], 4, axis=1)
        i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
        c = f * inputs[2] + i * g
        return [o * np.tanh(c), c, g * i * (1 - i), f, i * (1 - g * g), o, i, g]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (a, m, c), shape, one = inputs, types[2].shape, te.const(1)
        size = shape[1]

        def gate(function: str, number: int, name: str) -> Tensor:
            start = number * size
            return te.compute(shape, lambda b, j: te.call(function, a[b, start + j] + m[b, start + j]), name)

        i, f, g, o = (
            gate(*each) for each in (("sigmoid", 0, "i"), ("sigmoid", 1, "f"), ("tanh", 2, "g"), ("sigmoid", 3, "o"))
        )
        cell = te.compute(shape, lambda *k: f[k] * c[k] + i[k] * g[k], "cell")
        y = te.compute(shape, lambda *k: o[k] * te.call("tanh", cell[k]), "y")
        slope_i = te.compute(shape, lambda *k: g[k] * i[k] * (one - i[k]), "slope_i")
        slope_g = te.compute(shape, lambda *k: i[k] * (one - g[k] * g[k]), "slope_g")
        return [y, cell, slope_i, f, slope_g, o, i, g]


class LstmCellGrad(CellGrad):
    """dc becomes the error of the cell before the step, and what the cell kept the errors of its gates.

    c: the cell after the step, before: before it.  Results beside: the error of c, and tanh(c).
    """

    kind = "lstm_cell_grad"
    operands = ("dc", "slope_i", "f", "slope_g", "o", "c", "before", "dh")
    results = ("dbefore", "di", "df", "dg", "do", "total", "squashed")
    suffixes = ("", ".di", ".df", ".dg", ".do", ".total", ".squashed")
    overwrites: ClassVar[Mapping[int, int]] = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}
    working = (5, 6)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dc, slope_i, f, slope_g, o, c, before, dh = inputs
        t = np.tanh(c)
        total = dc + dh * o * (1 - t * t)
        gates = [total * slope_i, total * before * f * (1 - f), total * slope_g, dh * t * o * (1 - o)]
        return [total * f, *gates, total, t]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (dc, slope_i, f, slope_g, o, c, before, dh), shape, one = inputs, types[0].shape, te.const(1)
        t = te.compute(shape, lambda *i: te.call("tanh", c[i]), "squashed")
        total = te.compute(shape, lambda *i: dc[i] + dh[i] * o[i] * (one - t[i] * t[i]), "total")
        dbefore = te.compute(shape, lambda *i: total[i] * f[i], "dbefore")
        di = te.compute(shape, lambda *i: total[i] * slope_i[i], "di")
        df = te.compute(shape, lambda *i: total[i] * before[i] * f[i] * (one - f[i]), "df")
        dg = te.compute(shape, lambda *i: total[i] * slope_g[i], "dg")
        do = te.compute(shape, lambda *i: dh[i] * t[i] * o[i] * (one - o[i]), "do")
        return [dbefore, di, df, dg, do, total, t]
