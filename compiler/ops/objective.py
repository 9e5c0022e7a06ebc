"""Local objectives of layer-wise rules and their fixed random targets.

tpSGD (arXiv 2208.08503): J(a, t) with t = P y*, P fixed and random, one column a class.
"""

from collections.abc import Sequence

import numpy as np

from strop.compiler import rng as generator
from strop.compiler.dtypes import INT32
from strop.compiler.ir import Builder, Op, TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Elementwise, Expr, OpSpec, Te, Tensor, f32


class RandomTarget(OpSpec):
    """y (B) int32 -> t (B,units) = P[:, y], with P[j, c] one of {low, high} by the generator at (seed, tensor, jK + c).

    attrs: units, classes K, seed, tensor (key of the stream), low, high. P is never stored.
    """

    kind = "random_target"
    operands = ("label",)
    results = ("target",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(inputs[0].shape[0], attrs["units"])]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        index = np.arange(attrs["units"]) * attrs["classes"] + inputs[0][:, None]
        sign = generator.sign(attrs["seed"], attrs["tensor"], index)
        return [np.where(sign > 0, np.float32(attrs["high"]), np.float32(attrs["low"]))]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (y,), shape = inputs, (types[0].shape[0], attrs["units"])

        def element(b: Expr, j: Expr) -> Expr:
            sign = te.sign_hash(attrs["seed"], attrs["tensor"], j * attrs["classes"] + y[b])
            return te.where(sign > te.const(0), te.const(attrs["high"]), te.const(attrs["low"]))

        return [te.compute(shape, element, "t")]

    def cases(self) -> list[Case]:
        attrs = {"units": 7, "classes": 5, "seed": 3, "tensor": 99, "low": -0.9, "high": 0.9}
        return [Case((TensorType((batch,), INT32),), attrs) for batch in (1, 3)]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        return [rng.integers(0, case.attrs["classes"], case.inputs[0].shape, np.int32)]


class RandomProjection(OpSpec):
    """y (B,K) float32 -> t (B,units) = y P^T, P[j, k] = +-scale by the generator at (seed, tensor, jK + k).

    attrs: units, seed, tensor, scale. The target of a regression label.
    """

    kind = "random_projection"
    operands = ("label",)
    results = ("target",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(inputs[0].shape[0], attrs["units"])]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        y = inputs[0]
        index = np.arange(attrs["units"] * y.shape[1]).reshape(attrs["units"], y.shape[1])
        return [
            y @ (generator.sign(attrs["seed"], attrs["tensor"], index).astype(y.dtype).T * y.dtype.type(attrs["scale"]))
        ]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (y,), (batch, classes) = inputs, types[0].shape
        (k,) = te.axes(classes)

        def element(b: Expr, j: Expr) -> Expr:
            return te.sum(y[b, k] * te.sign_hash(attrs["seed"], attrs["tensor"], j * classes + k), [k])

        shape = (batch, attrs["units"])
        total = te.compute(shape, element, "sum")
        return [te.compute(shape, lambda *i: total[i] * te.const(attrs["scale"]), "t")]

    def cases(self) -> list[Case]:
        return [Case((f32(batch, 3),), {"units": 7, "seed": 3, "tensor": 99, "scale": 0.5}) for batch in (1, 3)]


class _Distance(OpSpec):
    """a (B,n), t (B,n) -> J (1): attrs["strength"] times the mean over the batch of a distance summed over units."""

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(1)]

    def element(self, te: Te, difference: Expr) -> Expr:
        """One unit's share of the distance."""
        raise NotImplementedError

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (a, t), axes = inputs, te.axes(*types[0].shape)
        i = tuple(axes)
        total = te.compute((1,), lambda _: te.sum(self.element(te, a[i] - t[i]), list(axes)), "total")
        return [te.compute((1,), lambda j: total[j] * te.const(attrs["strength"] / types[0].shape[0]), "J")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        """A loss is where a gradient starts; the target is fixed."""
        return [b.emit1(f"{self.kind}_grad", op.inputs, f"d_{op.inputs[0]}", loc=op.loc, **op.attrs), None]

    def cases(self) -> list[Case]:
        return _cases()

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


class L2(_Distance):
    """J = strength/2 ||a - t||^2, so that dJ/da = strength (a - t)."""

    kind = "l2"
    operands = ("a", "target")
    results = ("objective",)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        a, t = inputs
        return [(np.square(a - t).sum() * (attrs["strength"] / (2 * len(a)))).reshape(1).astype(a.dtype)]

    def element(self, te: Te, difference: Expr) -> Expr:
        return te.const(0.5) * difference * difference


class L1(_Distance):
    """J = strength ||a - t||_1, so that dJ/da = strength sign(a - t)."""

    kind = "l1"
    operands = ("a", "target")
    results = ("objective",)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        a, t = inputs
        return [(np.abs(a - t).sum() * (attrs["strength"] / len(a))).reshape(1).astype(a.dtype)]

    def element(self, te: Te, difference: Expr) -> Expr:
        return te.where(difference > te.const(0), difference, te.const(0) - difference)


def _cases() -> list[Case]:
    return [Case((f32(1, 7),) * 2, {"strength": 1.0}), Case((f32(3, 5),) * 2, {"strength": 0.25})]


class _DistanceGrad(Elementwise):
    arity = 2

    def slope(self, te: Te, difference: Expr) -> Expr:
        """Derivative of one unit's share."""
        raise NotImplementedError

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (a, t), scale = inputs, attrs["strength"] / types[0].shape[0]

        def element(*i: Expr) -> Expr:
            slope = self.slope(te, a[i] - t[i])
            return slope if scale == 1 else slope * te.const(scale)

        return [te.compute(types[0].shape, element, "da")]

    def cases(self) -> list[Case]:
        return _cases()


class L2Grad(_DistanceGrad):
    """strength (a - t) / B."""

    kind = "l2_grad"
    operands = ("a", "target")
    results = ("da",)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        a, t = inputs
        return [(a - t) * a.dtype.type(attrs["strength"] / len(a))]

    def slope(self, te: Te, difference: Expr) -> Expr:
        return difference


class L1Grad(_DistanceGrad):
    """strength sign(a - t) / B; 0 where they are equal."""

    kind = "l1_grad"
    operands = ("a", "target")
    results = ("da",)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        a, t = inputs
        return [np.sign(a - t) * a.dtype.type(attrs["strength"] / len(a))]

    def slope(self, te: Te, difference: Expr) -> Expr:
        negative = te.where(difference < te.const(0), te.const(-1), te.const(0))
        return te.where(difference > te.const(0), te.const(1), negative)
