"""Fully connected layers: y = x W^T + b, and both gradients."""

from collections.abc import Sequence

from strop.compiler.dtypes import FLOAT32
from strop.compiler.ir import Builder, Op, TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, Hints, OpSpec, Te, Tensor, f32


class Dense(OpSpec):
    """x (B,I), w (O,I)[, b (O)] -> y (B,O)."""

    kind = "dense"
    weighted = True
    operands = ("x", "w", "b")

    def hints(self, types: Sequence[TensorType], attrs: Attrs) -> Hints:
        return Hints(tile=(1,), dot=True)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        (batch, _), (out, _) = inputs[0].shape, inputs[1].shape
        return [TensorType((batch, out), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        x, w, *bias = inputs
        y = x @ w.T
        return [y + bias[0] if bias else y]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        x, w, *bias = inputs
        (i,) = te.axes(types[0].shape[1])
        shape = (types[0].shape[0], types[1].shape[0])
        y = te.compute(shape, lambda b, o: te.sum(x[b, i] * w[o, i], [i]), "sum")
        return [te.compute(shape, lambda b, o: y[b, o] + bias[0][o], "y") if bias else y]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        dy, (x, w, *bias) = grads[0], op.inputs
        assert dy is not None
        dx = b.emit1("dense_dx", (dy, w), f"d_{x}", loc=op.loc)
        dw = b.emit1("dense_dw", (dy, x), f"d_{w}", loc=op.loc)
        return [dx, dw, *(b.emit1("bias_grad", (dy,), f"d_{name}", loc=op.loc) for name in bias)]

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType], attrs: Attrs) -> int:
        return inputs[0].shape[0] * inputs[1].size

    def cases(self) -> list[Case]:
        return [
            Case((f32(1, 7), f32(5, 7), f32(5))),
            Case((f32(3, 11), f32(9, 11))),
            Case((f32(1, 1), f32(1, 1), f32(1))),
        ]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0, 1, 2)


class DenseDx(OpSpec):
    """dy (B,O), w (O,I) -> dx (B,I) = dy W."""

    kind = "dense_dx"
    operands = ("dy", "w")
    linear = "dy"
    results = ("dx",)

    def hints(self, types: Sequence[TensorType], attrs: Attrs) -> Hints:
        return Hints(tile=(1,))

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType((inputs[0].shape[0], inputs[1].shape[1]), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, w = inputs
        return [dy @ w]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        dy, w = inputs
        (o,) = te.axes(types[1].shape[0])
        shape = (types[0].shape[0], types[1].shape[1])
        return [te.compute(shape, lambda b, i: te.sum(dy[b, o] * w[o, i], [o]), "dx")]

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType], attrs: Attrs) -> int:
        return inputs[0].shape[0] * inputs[1].size

    def cases(self) -> list[Case]:
        return [Case((f32(1, 5), f32(5, 7))), Case((f32(3, 9), f32(9, 11)))]


class DenseDw(OpSpec):
    """dy (B,O), x (B,I) -> dw (O,I), summed over the batch.

    attrs, optional: scale multiplies x first (minus the learning rate, see `passes.hoist`).
    """

    kind = "dense_dw"
    operands = ("dy", "x")
    linear = "dy"
    results = ("dw",)

    def hints(self, types: Sequence[TensorType], attrs: Attrs) -> Hints:
        return Hints(tile=(0, 1), slides=False, outer=types[0].shape[0] == 1)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType((inputs[0].shape[1], inputs[1].shape[1]), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, x = inputs
        return [dy.T @ (x * x.dtype.type(attrs.get("scale", 1)))]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        dy, x = inputs
        batch, shape = types[0].shape[0], (types[0].shape[1], types[1].shape[1])
        scale = te.const(attrs["scale"]) if "scale" in attrs else None

        def term(b: Expr, o: Expr, i: Expr) -> Expr:
            return dy[b, o] * (x[b, i] if scale is None else x[b, i] * scale)

        if batch == 1:
            return [te.compute(shape, lambda o, i: term(0, o, i), "dw")]
        (b,) = te.axes(batch)
        return [te.compute(shape, lambda o, i: te.sum(term(b, o, i), [b]), "dw")]

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType], attrs: Attrs) -> int:
        return inputs[0].shape[0] * outputs[0].size

    def cases(self) -> list[Case]:
        scaled = Case((f32(1, 6), f32(1, 9)), {"scale": 0.01})
        return [Case((f32(1, 5), f32(1, 7))), Case((f32(3, 9), f32(3, 11))), scaled]


class BiasGrad(OpSpec):
    """dy (B,C,...) -> db (C), summed over everything but the channel."""

    kind = "bias_grad"
    operands = ("dy",)
    linear = "dy"
    results = ("db",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType((inputs[0].shape[1],), FLOAT32)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy = inputs[0]
        return [dy.sum(axis=(0, *range(2, dy.ndim)))]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (dy,), (batch, channels, *rest) = inputs, types[0].shape
        if batch == 1 and not rest:
            return [te.compute((channels,), lambda c: dy[0, c], "db")]
        b, *where = te.axes(batch, *rest)
        return [te.compute((channels,), lambda c: te.sum(dy[(b, c, *where)], [b, *where]), "db")]

    def cases(self) -> list[Case]:
        return [Case((f32(1, 7),)), Case((f32(3, 5),)), Case((f32(2, 3, 5, 7),))]
