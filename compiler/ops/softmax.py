"""Softmax and its logarithm over the last axis, shifted by the largest element so that nothing overflows."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from strop.compiler.ir import Builder, Op, TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, OpSpec, Te, Tensor, f32

ROWS = (f32(1, 10), f32(3, 7), f32(2, 3, 5))


def _shifted(te: Te, x: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, tuple[Expr, ...]]:
    """The largest of each row, and an axis over a row's elements."""
    (k,), (j,) = te.axes(shape[-1]), te.axes(shape[-1])
    return te.compute(shape[:-1], lambda *r: te.max(x[(*r, k)], [k]), "top"), j


class _Softmax(OpSpec):
    """An op whose gradient needs its result alone."""

    follows = True

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        assert grads[0] is not None
        return [b.emit1(f"{self.kind}_grad", (grads[0], op.outputs[0]), f"d_{op.inputs[0]}", loc=op.loc)]

    def cases(self) -> list[Case]:
        return [Case((x,)) for x in ROWS]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        return [3 * x for x in super().draw(rng, case)]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


class Softmax(_Softmax):
    """x (...,K) -> y = exp(x - max) / sum over the row; the exponentials are an output too, as working memory."""

    kind = "softmax"
    results = ("y", "exp")
    suffixes = ("", ".exp")
    working = (1,)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0], inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        e = np.exp(inputs[0] - inputs[0].max(-1, keepdims=True))
        return [e / e.sum(-1, keepdims=True), e]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (x,), shape = inputs, types[0].shape
        top, j = _shifted(te, x, shape)
        e = te.compute(shape, lambda *i: te.call("exp", x[i] - top[i[:-1]]), "exp")
        total = te.compute(shape[:-1], lambda *r: te.sum(e[(*r, j)], [j]), "sum")
        return [te.compute(shape, lambda *i: e[i] / total[i[:-1]], "y"), e]


class _Grad(OpSpec):
    """dy (...,K), y -> dx. of: the op it belongs to."""

    operands = ("dy", "y")
    results = ("dx",)
    of: ClassVar[OpSpec]

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def cases(self) -> list[Case]:
        return [Case((x, x)) for x in ROWS]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """y of a real forward pass."""
        dy, x = super().draw(rng, case)
        return [dy, self.of.reference([x], {})[0]]


class SoftmaxGrad(_Grad):
    """dx = y (dy - sum of dy y over the row)."""

    kind = "softmax_grad"
    of = Softmax()

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, y = inputs
        return [y * (dy - (dy * y).sum(-1, keepdims=True))]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (dy, y), shape, (k,) = inputs, types[0].shape, te.axes(types[0].shape[-1])
        dot = te.compute(shape[:-1], lambda *r: te.sum(dy[(*r, k)] * y[(*r, k)], [k]), "dot")
        return [te.compute(shape, lambda *i: y[i] * (dy[i] - dot[i[:-1]]), "dx")]


class LogSoftmax(_Softmax):
    """x (...,K) -> y = x - max - log of the sum of exp(x - max) over the row; that sum's logarithm is an output too."""

    kind = "log_softmax"
    results = ("y", "log_sum")
    suffixes = ("", ".log_sum")
    working = (1,)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0], TensorType(inputs[0].shape[:-1], inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        shifted = inputs[0] - inputs[0].max(-1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(-1))
        return [shifted - log_sum[..., None], log_sum]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (x,), shape = inputs, types[0].shape
        top, j = _shifted(te, x, shape)
        total = te.compute(shape[:-1], lambda *r: te.sum(te.call("exp", x[(*r, j)] - top[r]), [j]), "sum")
        log_sum = te.compute(shape[:-1], lambda *r: te.call("log", total[r]), "log_sum")
        return [te.compute(shape, lambda *i: x[i] - top[i[:-1]] - log_sum[i[:-1]], "y"), log_sum]


class LogSoftmaxGrad(_Grad):
    """dx = dy - exp(y) times the sum of dy over the row."""

    kind = "log_softmax_grad"
    of = LogSoftmax()

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, y = inputs
        return [dy - np.exp(y) * dy.sum(-1, keepdims=True)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (dy, y), shape, (k,) = inputs, types[0].shape, te.axes(types[0].shape[-1])
        total = te.compute(shape[:-1], lambda *r: te.sum(dy[(*r, k)], [k]), "sum")
        return [te.compute(shape, lambda *i: dy[i] - te.call("exp", y[i]) * total[i[:-1]], "dx")]
