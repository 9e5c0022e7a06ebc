"""Batch normalisation with frozen statistics: an affine map a channel whose gain and offset can be trained."""

from collections.abc import Sequence

import numpy as np

from strop.compiler.ir import Builder, Op, TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, OpSpec, Te, Tensor, f32

PRECISE = frozenset({"gain", "offset", "mean", "inv_std"})
"""A gain near 1 does not move in bfloat16, and a statistic is one number for many: both stay float32."""

BATCH_NORMS = (f32(1, 3, 5, 7), f32(2, 5), f32(3, 4, 3, 2))


def _channels(values: Array, like: Array) -> Array:
    return values.reshape(1, -1, *(1,) * (like.ndim - 2))


class BatchNorm(OpSpec):
    """x (B,C,...), gain (C), offset (C), mean (C), inv_std (C) -> (x - mean) * inv_std * gain + offset."""

    kind = "batch_norm"
    precise = PRECISE
    follows = True
    operands = ("x", "gain", "offset", "mean", "inv_std")
    elementwise = True

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        x = inputs[0]
        gain, offset, mean, inv_std = (_channels(v, x) for v in inputs[1:])
        return [(x - mean) * (inv_std * gain) + offset]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        x, gain, offset, mean, inv_std = inputs

        def element(*i: Expr) -> Expr:
            c = i[1]
            return (x[i] - mean[c]) * (inv_std[c] * gain[c]) + offset[c]

        return [te.compute(types[0].shape, element, "y")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        dy, (x, gain, offset, mean, inv_std) = grads[0], op.inputs
        assert dy is not None
        dx = b.emit1("batch_norm_dx", (dy, gain, inv_std), f"d_{x}", loc=op.loc)
        dgain = b.emit1("batch_norm_dgain", (dy, x, mean, inv_std), f"d_{gain}", loc=op.loc)
        return [dx, dgain, b.emit1("bias_grad", (dy,), f"d_{offset}", loc=op.loc), None, None]

    def cases(self) -> list[Case]:
        return [Case((x, *(f32(x.shape[1]),) * 4)) for x in BATCH_NORMS]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        *free, inv_std = super().draw(rng, case)
        return [*free, np.abs(inv_std) + np.float32(0.5)]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0, 1, 2)


class BatchNormDx(OpSpec):
    """dy (B,C,...), gain (C), inv_std (C) -> dx."""

    kind = "batch_norm_dx"
    precise = PRECISE
    operands = ("dy", "gain", "inv_std")
    linear = "dy"
    results = ("dx",)
    elementwise = True

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, gain, inv_std = inputs
        return [dy * _channels(gain * inv_std, dy)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        dy, gain, inv_std = inputs
        return [te.compute(types[0].shape, lambda *i: dy[i] * (inv_std[i[1]] * gain[i[1]]), "dx")]

    def cases(self) -> list[Case]:
        return [Case((x, *(f32(x.shape[1]),) * 2)) for x in BATCH_NORMS]


class BatchNormDgain(OpSpec):
    """dy (B,C,...), x (B,C,...), mean (C), inv_std (C) -> dgain (C)."""

    kind = "batch_norm_dgain"
    linear = "dy"
    precise = PRECISE
    operands = ("dy", "x", "mean", "inv_std")
    results = ("dgain",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[2]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, x, mean, inv_std = inputs
        axes = (0, *range(2, dy.ndim))
        return [(dy * (x - _channels(mean, x))).sum(axis=axes) * inv_std]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        dy, x, mean, inv_std = inputs
        batch, channels, *rest = types[0].shape
        b, *where = te.axes(batch, *rest)

        def element(c: Expr) -> Expr:
            i = (b, c, *where)
            return te.sum((x[i] - mean[c]) * dy[i], [b, *where])

        total = te.compute((channels,), element, "sum")
        return [te.compute((channels,), lambda c: total[c] * inv_std[c], "dgain")]

    def cases(self) -> list[Case]:
        return [Case((x, x, *(f32(x.shape[1]),) * 2)) for x in BATCH_NORMS]
