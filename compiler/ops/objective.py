"""Local objectives of layer-wise rules, and the fixed random tensors that go into them.

tpSGD (arXiv 2208.08503): J(a, t) with t = P y*, P fixed and random, one column a class.  DRTP (Frenkel et al. 2021) and
DFA (Nokland 2016): <a, B y*> and <a, B e>.  Fixed M: the task loss of M a.  No random tensor is ever stored.
"""

from collections.abc import Callable, Sequence

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


class RandomDense(OpSpec):
    """x (B,n) -> y (B,K) = x M^T, M[k, j] = +-scale by the generator at (seed, tensor, jK + k).

    attrs: units K, seed, tensor, scale. M is never stored; it is the transpose of `random_projection`'s P.
    """

    kind = "random_dense"

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(inputs[0].shape[0], attrs["units"])]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        x, units = inputs[0], attrs["units"]
        index = np.arange(x.shape[1] * units).reshape(x.shape[1], units)
        signs = generator.sign(attrs["seed"], attrs["tensor"], index).astype(x.dtype)
        return [x @ signs * x.dtype.type(attrs["scale"])]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (x,), (batch, features), units = inputs, types[0].shape, attrs["units"]
        (j,) = te.axes(features)

        def element(b: Expr, k: Expr) -> Expr:
            return te.sum(x[b, j] * te.sign_hash(attrs["seed"], attrs["tensor"], j * units + k), [j])

        total = te.compute((batch, units), element, "sum")
        return [te.compute((batch, units), lambda *i: total[i] * te.const(attrs["scale"]), "y")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        """The way back through M is the projection by its transpose."""
        (x,), dy = op.inputs, grads[0]
        assert dy is not None
        attrs = {**op.attrs, "units": b.values[x].shape[1]}
        return [b.emit1("random_projection", (dy,), f"d_{x}", loc=op.loc, **attrs)]

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType], attrs: Attrs) -> int:
        units: int = attrs["units"]
        return inputs[0].size * units

    def cases(self) -> list[Case]:
        return [Case((f32(batch, 7),), {"units": 3, "seed": 3, "tensor": 99, "scale": 0.5}) for batch in (1, 3)]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


class Sign(Elementwise):
    """-1, 0 or 1."""

    kind = "sign"

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [np.sign(inputs[0])]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        return _sign(te, values[0])


def _sign(te: Te, x: Expr) -> Expr:
    negative = te.where(x < te.const(0), te.const(-1), te.const(0))
    return te.where(x > te.const(0), te.const(1), negative)


def _magnitude(te: Te, x: Expr) -> Expr:
    return te.where(x > te.const(0), x, te.const(0) - x)


class _Objective(OpSpec):
    """a (B,n), t (B,n) -> J (1): attrs["strength"] times the mean over the batch of what units contribute."""

    operands = ("a", "target")
    results = ("objective",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(1)]

    def unit(self, te: Te, a: Expr, t: Expr, attrs: Attrs) -> Expr:
        """One unit's contribution."""
        raise NotImplementedError

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (a, t), axes = inputs, te.axes(*types[0].shape)
        i = tuple(axes)
        total = te.compute((1,), lambda _: te.sum(self.unit(te, a[i], t[i], attrs), list(axes)), "total")
        return [te.compute((1,), lambda j: total[j] * te.const(attrs["strength"] / types[0].shape[0]), "J")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        """A loss is where a gradient starts; the target is fixed."""
        return [b.emit1(f"{self.kind}_grad", op.inputs, f"d_{op.inputs[0]}", loc=op.loc, **op.attrs), None]

    def cases(self) -> list[Case]:
        return _cases()

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


def _cases(**more: float) -> list[Case]:
    return [
        Case((f32(1, 7),) * 2, {"strength": 1.0, **more}),
        Case((f32(3, 5),) * 2, {"strength": 0.25, **more}),
    ]


class L2(_Objective):
    """J = strength/2 ||a - t||^2, so that dJ/da = strength (a - t)."""

    kind = "l2"

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        a, t = inputs
        return [(np.square(a - t).sum() * (attrs["strength"] / (2 * len(a)))).reshape(1).astype(a.dtype)]

    def unit(self, te: Te, a: Expr, t: Expr, attrs: Attrs) -> Expr:
        return te.const(0.5) * (a - t) * (a - t)


class L1(_Objective):
    """J = strength ||a - t||_1, so that dJ/da = strength sign(a - t)."""

    kind = "l1"

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        a, t = inputs
        return [(np.abs(a - t).sum() * (attrs["strength"] / len(a))).reshape(1).astype(a.dtype)]

    def unit(self, te: Te, a: Expr, t: Expr, attrs: Attrs) -> Expr:
        return _magnitude(te, a - t)


class Huber(_Objective):
    """J = strength sum h(a - t): h(d) = d^2/2 where |d| < delta, else delta (|d| - delta/2). attrs: strength, delta.

    dJ/da = strength (a - t), limited to +-delta.
    """

    kind = "huber"

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        (a, t), delta = inputs, attrs["delta"]
        d = np.abs(a - t)
        h = np.where(d < delta, np.square(d) / 2, delta * (d - delta / 2))
        return [(h.sum() * (attrs["strength"] / len(a))).reshape(1).astype(a.dtype)]

    def unit(self, te: Te, a: Expr, t: Expr, attrs: Attrs) -> Expr:
        d, delta = _magnitude(te, a - t), attrs["delta"]
        near, far = te.const(0.5) * d * d, te.const(delta) * (d - te.const(delta / 2))
        return te.where(d < te.const(delta), near, far)

    def cases(self) -> list[Case]:
        return [*_cases(delta=1.0), *_cases(delta=0.4)]


class Dot(_Objective):
    """J = strength <a, direction>, so that dJ/da = strength direction: the error of rules that inject one."""

    kind = "dot"
    operands = ("a", "direction")

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        a, direction = inputs
        return [((a * direction).sum() * (attrs["strength"] / len(a))).reshape(1).astype(a.dtype)]

    def unit(self, te: Te, a: Expr, t: Expr, attrs: Attrs) -> Expr:
        return a * t

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        """Needs no activity; and no op at all, if the direction is the gradient itself."""
        a, direction = op.inputs
        if op.attrs["strength"] == b.values[a].shape[0]:
            return [direction, None]
        return [b.emit1("dot_grad", (direction,), f"d_{a}", loc=op.loc, **op.attrs), None]


class DotGrad(Elementwise):
    """strength direction / B."""

    kind = "dot_grad"
    operands = ("direction",)
    results = ("da",)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        (direction,) = inputs
        return [direction * direction.dtype.type(attrs["strength"] / len(direction))]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (direction,), share = inputs, te.const(attrs["strength"] / types[0].shape[0])
        return [te.compute(types[0].shape, lambda *i: direction[i] * share, "da")]

    def cases(self) -> list[Case]:
        return [Case((case.inputs[0],), case.attrs) for case in _cases()]


class _Slope(Elementwise):
    """dJ/da of an objective of units: the slope of each, times strength / B."""

    operands = ("a", "target")
    results = ("da",)

    def slope(self, te: Te, a: Expr, t: Expr, attrs: Attrs) -> Expr:
        """Derivative of one unit's contribution."""
        raise NotImplementedError

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (a, t), scale = inputs, attrs["strength"] / types[0].shape[0]

        def element(*i: Expr) -> Expr:
            slope = self.slope(te, a[i], t[i], attrs)
            return slope if scale == 1 else slope * te.const(scale)

        return [te.compute(types[0].shape, element, "da")]

    def cases(self) -> list[Case]:
        return _cases()


class L2Grad(_Slope):
    """strength (a - t) / B."""

    kind = "l2_grad"

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        a, t = inputs
        return [(a - t) * a.dtype.type(attrs["strength"] / len(a))]

    def slope(self, te: Te, a: Expr, t: Expr, attrs: Attrs) -> Expr:
        return a - t


class L1Grad(_Slope):
    """strength sign(a - t) / B; 0 where they are equal."""

    kind = "l1_grad"

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        a, t = inputs
        return [np.sign(a - t) * a.dtype.type(attrs["strength"] / len(a))]

    def slope(self, te: Te, a: Expr, t: Expr, attrs: Attrs) -> Expr:
        return _sign(te, a - t)


class HuberGrad(_Slope):
    """strength (a - t) / B, a - t limited to +-delta."""

    kind = "huber_grad"

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        (a, t), delta = inputs, attrs["delta"]
        return [np.clip(a - t, -delta, delta) * a.dtype.type(attrs["strength"] / len(a))]

    def slope(self, te: Te, a: Expr, t: Expr, attrs: Attrs) -> Expr:
        low, high = te.const(-attrs["delta"]), te.const(attrs["delta"])
        return te.where(a - t > high, high, te.where(a - t < low, low, a - t))

    def cases(self) -> list[Case]:
        return Huber().cases()


COSINE_EPS = 1e-8
"""Added to a squared length, so that a row without activity has one."""


class Cosine(OpSpec):
    """a (B,n), t (B,n) -> J (1) = strength times the mean over the batch of 1 - cos(a, t), and what its gradient uses:

    <a, t> (B), and the inverse lengths of both (B), 1 / sqrt(|a|^2 + 1e-8); cos is their product. attrs: strength.
    """

    kind = "cosine"
    operands = ("a", "target")
    results = ("objective", "dot", "inverse_a", "inverse_t")
    suffixes = ("", ".dot", ".inverse_a", ".inverse_t")
    working = (1, 2, 3)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        rows = f32(inputs[0].shape[0])
        return [f32(1), rows, rows, rows]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        a, t = inputs
        inverse_a, inverse_t = (1 / np.sqrt(np.square(x).sum(1) + x.dtype.type(COSINE_EPS)) for x in inputs)
        dot = (a * t).sum(1)
        mean = (1 - dot * inverse_a * inverse_t).mean(keepdims=True)
        return [(mean * attrs["strength"]).astype(a.dtype), dot, inverse_a, inverse_t]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (a, t), (batch, units) = inputs, types[0].shape
        (j,) = te.axes(units)
        inverse_a, inverse_t = (_inverse_length(te, x, types[0].shape) for x in inputs)
        dot = te.compute((batch,), lambda b: te.sum(a[b, j] * t[b, j], [j]), "dot")

        def apart(b: Expr) -> Expr:
            return te.const(1) - dot[b] * inverse_a[b] * inverse_t[b]

        return [_mean(te, apart, batch, attrs["strength"]), dot, inverse_a, inverse_t]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        """A loss is where a gradient starts; the target is fixed."""
        inputs = (*op.inputs, *op.outputs[1:])
        return [b.emit1("cosine_grad", inputs, f"d_{op.inputs[0]}", loc=op.loc, **op.attrs), None]

    def cases(self) -> list[Case]:
        return _cases()

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


def _inverse_length(te: Te, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    (j,) = te.axes(shape[1])
    squares = te.compute(shape[:1], lambda b: te.sum(x[b, j] * x[b, j], [j]), "squares")
    return te.compute(shape[:1], lambda b: te.const(1) / te.call("sqrt", squares[b] + te.const(COSINE_EPS)), "inverse")


def _mean(te: Te, row: Callable[[Expr], Expr], batch: int, strength: float) -> Tensor:
    """Strength times the mean of a number a row."""
    if batch == 1:
        return te.compute((1,), lambda b: row(b) * te.const(strength), "J")
    (r,) = te.axes(batch)
    total = te.compute((1,), lambda _: te.sum(row(r), [r]), "total")
    return te.compute((1,), lambda i: total[i] * te.const(strength / batch), "J")


class CosineGrad(OpSpec):
    """da (B,n) = strength / B (<a, t> inverse_a^2 a - t) inverse_a inverse_t; operands as `cosine` gives them."""

    kind = "cosine_grad"
    operands = ("a", "target", "dot", "inverse_a", "inverse_t")
    results = ("da",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        a, t, *rows = inputs
        dot, inverse_a, inverse_t = (row[:, None] for row in rows)
        share = a.dtype.type(attrs["strength"] / len(a)) * inverse_a * inverse_t
        return [share * (dot * inverse_a * inverse_a * a - t)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (a, t, dot, inverse_a, inverse_t), shape = inputs, types[0].shape

        def element(b: Expr, j: Expr) -> Expr:
            share = te.const(attrs["strength"] / shape[0]) * inverse_a[b] * inverse_t[b]
            return share * (dot[b] * inverse_a[b] * inverse_a[b] * a[b, j] - t[b, j])

        return [te.compute(shape, element, "da")]

    def cases(self) -> list[Case]:
        return [Case((*case.inputs, *(f32(case.inputs[0].shape[0]),) * 3), case.attrs) for case in _cases()]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        rows = [rng.standard_normal(type_.shape).astype(np.float32) for type_ in case.inputs[:2]]
        return [*rows, *Cosine().reference(rows, case.attrs)[1:]]
