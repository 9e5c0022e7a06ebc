"""PEPITA (Dellaferrera & Kreiman, arXiv 2201.11665): an input that the error has moved, and what its pass changes."""

from collections.abc import Sequence
from functools import reduce

import numpy as np

from strop.compiler import rng as generator
from strop.compiler.ir import Builder, Op, TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Elementwise, Expr, OpSpec, Te, Tensor, f32


class Modulate(OpSpec):
    """x (B,...), e (B,K) -> x + strength F e, F[i, k] = scale (2u - 1) by the generator at (seed, tensor, iK + k).

    i counts the features of a sample, row major. attrs: seed, tensor, scale, strength. F is never stored.
    """

    kind = "modulate"
    operands = ("x", "error")

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        x, e = inputs
        index = np.arange(x[0].size * e.shape[1]).reshape(-1, e.shape[1])
        signed = 2 * generator.uniform(attrs["seed"], attrs["tensor"], index).astype(x.dtype) - 1
        return [x + (e @ signed.T * x.dtype.type(attrs["scale"] * attrs["strength"])).reshape(x.shape)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (x, e), (_, *sizes), classes = inputs, types[0].shape, types[1].shape[1]
        (k,) = te.axes(classes)

        def push(b: Expr, *place: Expr) -> Expr:
            feature = reduce(lambda at, step: at * step[1] + step[0], zip(place, sizes, strict=True), 0)
            share = te.uniform_hash(attrs["seed"], attrs["tensor"], feature * classes + k)
            return te.sum(e[b, k] * (te.const(2) * share - te.const(1)), [k])

        total, scale = te.compute(types[0].shape, push, "push"), te.const(attrs["scale"] * attrs["strength"])
        return [te.compute(types[0].shape, lambda *i: x[i] + total[i] * scale, "y")]

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType], attrs: Attrs) -> int:
        return outputs[0].size * inputs[1].shape[1]

    def cases(self) -> list[Case]:
        attrs = {"seed": 3, "tensor": 99, "scale": 0.05}
        flat, images = (f32(1, 7), f32(1, 5)), (f32(3, 2, 3, 5), f32(3, 4))
        return [Case(flat, {**attrs, "strength": 1.0}), Case(images, {**attrs, "strength": 3.0})]


class Gap(OpSpec):
    """z, clean, moved (B,...) -> J (1) = strength <z, clean - moved> / B, so that dJ/dz = strength (clean - moved) / B.

    attrs: strength. The activities are held constant: they are the error that this objective injects.
    """

    kind = "gap"
    operands = ("z", "clean", "moved")
    results = ("objective",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(1)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        z, clean, moved = inputs
        return [np.sum(z * (clean - moved), keepdims=True).reshape(1) * z.dtype.type(attrs["strength"] / len(z))]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (z, clean, moved), axes = inputs, te.axes(*types[0].shape)
        i = tuple(axes)
        total = te.compute((1,), lambda _: te.sum(z[i] * (clean[i] - moved[i]), list(axes)), "total")
        return [te.compute((1,), lambda j: total[j] * te.const(attrs["strength"] / types[0].shape[0]), "J")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        """An objective is where a gradient starts."""
        z, *activities = op.inputs
        strength = op.attrs["strength"] / b.values[z].shape[0]  # type: ignore[operator]
        return [b.emit1("gap_grad", activities, f"d_{z}", loc=op.loc, strength=strength), None, None]

    def cases(self) -> list[Case]:
        return [Case((f32(1, 7),) * 3, {"strength": 1.0}), Case((f32(3, 2, 5),) * 3, {"strength": 0.25})]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


class GapGrad(Elementwise):
    """strength (clean - moved)."""

    kind = "gap_grad"
    operands = ("clean", "moved")
    results = ("dz",)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        clean, moved = inputs
        return [(clean - moved) * clean.dtype.type(attrs["strength"])]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        difference = values[0] - values[1]
        return difference if attrs["strength"] == 1 else difference * te.const(attrs["strength"])

    def cases(self) -> list[Case]:
        return [Case((f32(1, 7),) * 2, {"strength": 1.0}), Case((f32(3, 2, 5),) * 2, {"strength": 0.25})]
