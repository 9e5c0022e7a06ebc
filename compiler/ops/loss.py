"""Losses: mean over the batch. A loss is where a gradient starts, so its `vjp` takes no incoming gradient."""

from collections.abc import Sequence

import numpy as np

from strop.compiler.dtypes import INT32
from strop.compiler.ir import Builder, Op, TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, OpSpec, Te, Tensor, f32


def _labels(*shape: int) -> TensorType:
    return TensorType(tuple(shape), INT32)


class CrossEntropy(OpSpec):
    """logits (B,K), y (B) int32 in [0, K) -> loss (1), and what the gradient and the mean over the batch use:

    exp(logits - max) (B,K), its sum (B), and the label's logit - max (B). Softmax cross-entropy, as
    torch.nn.functional.cross_entropy. A label outside [0, K) matches no class.
    """

    kind = "cross_entropy"
    operands = ("logits", "label")
    results = ("loss", "exp", "sum", "margin")
    suffixes = ("", ".exp", ".sum", ".margin")

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        rows = f32(inputs[0].shape[0])
        return [f32(1), inputs[0], rows, rows]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        z, y = inputs
        shifted = z - z.max(axis=1, keepdims=True)
        e = np.exp(shifted)
        s, margin = e.sum(axis=1), shifted[np.arange(len(y)), y]
        return [(np.log(s) - margin).mean(keepdims=True).astype(z.dtype), e, s, margin]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (z, y), (batch, classes) = inputs, types[0].shape
        k, j, m = (te.axes(classes)[0] for _ in range(3))
        top = te.compute((batch,), lambda b: te.max(z[b, k], [k]), "top")
        e = te.compute((batch, classes), lambda b, c: te.call("exp", z[b, c] - top[b]), "exp")
        s = te.compute((batch,), lambda b: te.sum(e[b, j], [j]), "sum")
        margin = te.compute(
            (batch,), lambda b: te.sum(te.where(y[b] == m, z[b, m] - top[b], te.const(0)), [m]), "margin"
        )
        return [self._mean(te, s, margin, batch), e, s, margin]

    def _mean(self, te: Te, s: Tensor, margin: Tensor, batch: int) -> Tensor:
        if batch == 1:
            return te.compute((1,), lambda b: te.call("log", s[b]) - margin[b], "loss")
        (b,) = te.axes(batch)
        total = te.compute((1,), lambda _: te.sum(te.call("log", s[b]) - margin[b], [b]), "total")
        return te.compute((1,), lambda i: total[i] * te.const(1 / batch), "loss")

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        inputs = (op.outputs[1], op.outputs[2], op.inputs[1])
        return [b.emit1("cross_entropy_grad", inputs, f"d_{op.inputs[0]}", loc=op.loc), None]

    def cases(self) -> list[Case]:
        return [Case((f32(1, 10), _labels(1))), Case((f32(3, 7), _labels(3)))]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        batch, classes = case.inputs[0].shape
        return [3 * rng.standard_normal((batch, classes)).astype(np.float32), rng.integers(0, classes, batch, np.int32)]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


class CrossEntropyGrad(OpSpec):
    """exp (B,K), sum (B), y (B) -> dlogits (B,K) = (softmax - onehot) / B."""

    kind = "cross_entropy_grad"
    operands = ("exp", "sum", "label")
    results = ("dlogits",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        e, s, y = inputs
        return [((e / s[:, None]) - (np.arange(e.shape[1]) == y[:, None])) / e.dtype.type(len(y))]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (e, s, y), (batch, classes) = inputs, types[0].shape

        def element(b: Expr, c: Expr) -> Expr:
            difference = e[b, c] / s[b] - te.where(y[b] == c, te.const(1), te.const(0))
            return difference if batch == 1 else difference * te.const(1 / batch)

        return [te.compute((batch, classes), element, "dz")]

    def cases(self) -> list[Case]:
        return [Case((f32(1, 10), f32(1), _labels(1))), Case((f32(3, 7), f32(3), _labels(3)))]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        z, y = CrossEntropy().draw(rng, Case((case.inputs[0], case.inputs[2])))
        return [*CrossEntropy().reference([z, y], {})[1:3], y]


class Mse(OpSpec):
    """prediction (B,K), y (B,K) float32 -> loss (1) = mean of the squared differences."""

    kind = "mse"
    operands = ("prediction", "label")
    results = ("loss",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(1)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        z, y = inputs
        return [np.square(z - y).mean(keepdims=True).reshape(1)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (z, y), axes = inputs, te.axes(*types[0].shape)
        i = tuple(axes)
        total = te.compute((1,), lambda _: te.sum((z[i] - y[i]) * (z[i] - y[i]), list(axes)), "total")
        return [te.compute((1,), lambda j: total[j] * te.const(1 / types[0].size), "loss")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        return [b.emit1("mse_grad", op.inputs, f"d_{op.inputs[0]}", loc=op.loc), None]

    def cases(self) -> list[Case]:
        return [Case((f32(1, 7),) * 2), Case((f32(3, 5),) * 2)]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


class MseGrad(OpSpec):
    """prediction (B,K), y (B,K) -> 2 (prediction - y) / (B K)."""

    kind = "mse_grad"
    operands = ("prediction", "label")
    results = ("dprediction",)
    elementwise = True

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        z, y = inputs
        return [(z - y) * z.dtype.type(2 / z.size)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (z, y), scale = inputs, te.const(2 / types[0].size)
        return [te.compute(types[0].shape, lambda *i: (z[i] - y[i]) * scale, "dz")]

    def cases(self) -> list[Case]:
        return Mse().cases()


class Bce(OpSpec):
    """logits (B,K), y (B,K) float32 in [0, 1] -> loss (1) = mean over all elements of the binary cross-entropy of

    sigmoid(logits), as torch.nn.functional.binary_cross_entropy_with_logits: max(z, 0) - z y + log(1 + exp(-|z|)).
    """

    kind = "bce"
    operands = ("logits", "label")
    results = ("loss",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(1)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        z, y = inputs
        return [(np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))).mean(keepdims=True).reshape(1)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (z, y), axes = inputs, te.axes(*types[0].shape)
        i = tuple(axes)

        def element() -> Expr:
            low = te.where(z[i] < te.const(0), z[i], te.const(0) - z[i])
            softplus = te.call("relu", z[i]) + te.call("log", te.const(1) + te.call("exp", low))
            return softplus - z[i] * y[i]

        total = te.compute((1,), lambda _: te.sum(element(), list(axes)), "total")
        return [te.compute((1,), lambda j: total[j] * te.const(1 / types[0].size), "loss")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        return [b.emit1("bce_grad", op.inputs, f"d_{op.inputs[0]}", loc=op.loc), None]

    def cases(self) -> list[Case]:
        return [Case((f32(1, 7),) * 2), Case((f32(3, 5),) * 2)]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        z, y = (type_.shape for type_ in case.inputs)
        return [3 * rng.standard_normal(z).astype(np.float32), rng.random(y, np.float32)]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


class BceGrad(OpSpec):
    """logits (B,K), y (B,K) -> (sigmoid(logits) - y) / (B K)."""

    kind = "bce_grad"
    operands = ("logits", "label")
    results = ("dlogits",)
    elementwise = True

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        z, y = inputs
        return [(1 / (1 + np.exp(-z)) - y) * z.dtype.type(1 / z.size)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (z, y), share = inputs, te.const(1 / types[0].size)
        return [te.compute(types[0].shape, lambda *i: (te.call("sigmoid", z[i]) - y[i]) * share, "dz")]

    def cases(self) -> list[Case]:
        return Bce().cases()

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        return Bce().draw(rng, case)
