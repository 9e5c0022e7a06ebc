"""Forward-Forward (Hinton, arXiv 2212.13345): pairs of samples with a right and a wrong label, and their goodness.

A batch of B samples becomes 2B rows: first the samples with their own labels (positive), then with others (negative).
"""

from collections.abc import Sequence

import numpy as np

from strop.compiler import rng as generator
from strop.compiler.dtypes import INT32
from strop.compiler.ir import Builder, Op, TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, OpSpec, Te, Tensor, f32

COUNTED = 1 << 24
"""Samples after which the stream of wrong labels starts over."""


def _labels(count: int) -> TensorType:
    return TensorType((count,), INT32)


class WrongLabel(OpSpec):
    """y (B) int32, seen (1) int32 -> wrong (B) = (y + away) mod K: another class, all equally likely; and away (B).

    away = 1 + floor((K - 1) u), u of row b the element seen + b of the stream. A count that is not in [0, 2^24) is
    taken for 0, and so is a label outside [0, K). attrs: classes K >= 2, seed, tensor (key of the stream).
    """

    kind = "wrong_label"
    operands = ("label", "seen")
    results = ("wrong", "away")
    suffixes = ("", ".away")
    working = (1,)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0], inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        (y, seen), classes = inputs, attrs["classes"]
        first = int(seen[0]) if 0 <= seen[0] < COUNTED else 0
        share = generator.uniform(attrs["seed"], attrs["tensor"], first + np.arange(len(y)))
        away = 1 + (share * np.float32(classes - 1)).astype(np.int32)
        known = np.where((y >= 0) & (y < classes), y, 0)
        return [((known + away) % classes).astype(np.int32), away]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (y, seen), shape, classes = inputs, types[0].shape, attrs["classes"]

        def distance(b: Expr) -> Expr:
            first = te.where(te.every(seen[0] >= 0, seen[0] < COUNTED), seen[0], 0)
            share = te.uniform_hash(attrs["seed"], attrs["tensor"], first + b)
            return te.cast(share * te.const(classes - 1), INT32) + 1

        def moved(b: Expr) -> Expr:
            """A label out of range could overflow the sum."""
            known = te.where(te.every(y[b] >= 0, y[b] < classes), y[b], 0)
            return te.where(known + away[b] < classes, known + away[b], known + away[b] - classes)

        away = te.compute(shape, distance, "away")
        return [te.compute(shape, moved, "wrong"), away]

    def cases(self) -> list[Case]:
        attrs = {"seed": 3, "tensor": 99}
        return [Case((_labels(b), _labels(1)), {**attrs, "classes": k}) for b, k in ((1, 10), (3, 2), (7, 5))]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        seen = {1: 12345, 3: COUNTED - 1, 7: -1}[case.inputs[0].size]
        labels = rng.integers(0, case.attrs["classes"], case.inputs[0].shape, np.int32)
        return [labels, np.array([seen], np.int32)]


class EmbedLabel(OpSpec):
    """x (B,n)[, labels (R)] -> y (R,n): sample r mod B, its first K features the label, one-hot.

    Without labels R = B, and each of the K features is 1/K. attrs: classes K. A label outside [0, K) gives zeros.
    """

    kind = "embed_label"
    operands = ("x", "labels")

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        (batch, features), *labels = (type_.shape for type_ in inputs)
        return [f32(labels[0][0] if labels else batch, features)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        (x, *labels), classes = inputs, attrs["classes"]
        rows = len(labels[0]) if labels else len(x)
        y = x[np.arange(rows) % len(x)]
        y[:, :classes] = np.arange(classes) == labels[0][:, None] if labels else 1 / classes
        return [y]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (x, *labels), classes, batch = inputs, attrs["classes"], types[0].shape[0]

        def mark(r: Expr, i: Expr) -> Expr:
            return te.where(labels[0][r] == i, te.const(1), te.const(0)) if labels else te.const(1 / classes)

        def element(r: Expr, i: Expr) -> Expr:
            return te.where(i < classes, mark(r, i), x[r % batch, i])

        return [te.compute(self.infer(types, attrs)[0].shape, element, "y")]

    def cases(self) -> list[Case]:
        shapes = ((1, 7, 3, 2), (1, 5, 4, 1), (3, 11, 4, 6))
        labelled = [Case((f32(b, n), _labels(rows)), {"classes": k}) for b, n, k, rows in shapes]
        return [*labelled, Case((f32(1, 9),), {"classes": 4}), Case((f32(3, 5),), {"classes": 3})]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        x, *labels = case.inputs
        drawn = [rng.integers(0, case.attrs["classes"], type_.shape, np.int32) for type_ in labels]
        return [rng.standard_normal(x.shape).astype(np.float32), *drawn]


class UnitRms(OpSpec):
    """x (R,n) -> y = x scale with scale (R) = 1 / (sqrt(mean of the row's squares) + eps). attrs: eps.

    Takes the goodness out of what a layer hands on, so that the next one has to find features of its own (section 2).
    """

    kind = "unit_rms"
    results = ("y", "scale")
    suffixes = ("", ".scale")
    working = (1,)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0], f32(inputs[0].shape[0])]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        x = inputs[0]
        scale = 1 / (np.sqrt(np.square(x).mean(1)) + x.dtype.type(attrs["eps"]))
        return [x * scale[:, None], scale]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (x,), (rows, units) = inputs, types[0].shape
        (i,) = te.axes(units)

        def inverse(r: Expr) -> Expr:
            return te.const(1) / (te.call("sqrt", total[r] * te.const(1 / units)) + te.const(attrs["eps"]))

        total = te.compute((rows,), lambda r: te.sum(x[r, i] * x[r, i], [i]), "total")
        scale = te.compute((rows,), inverse, "scale")
        return [te.compute((rows, units), lambda r, i: x[r, i] * scale[r], "y"), scale]

    def cases(self) -> list[Case]:
        return [Case((f32(1, 9),), {"eps": 1e-8}), Case((f32(6, 11),), {"eps": 0.5})]


class Goodness(OpSpec):
    """y (R,n) -> g (R) = scale times the row's sum of squares. attrs: scale, 1 for the sum, 1/n for the mean."""

    kind = "goodness"
    operands = ("y",)
    results = ("g",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(inputs[0].shape[0])]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [np.square(inputs[0]).sum(1) * inputs[0].dtype.type(attrs["scale"])]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (y,), (rows, units) = inputs, types[0].shape
        (j,) = te.axes(units)
        total = te.compute((rows,), lambda r: te.sum(y[r, j] * y[r, j], [j]), "total")
        return [te.compute((rows,), lambda r: total[r] * te.const(attrs["scale"]), "g")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        (y,), dg = op.inputs, grads[0]
        assert dg is not None
        return [b.emit1("goodness_grad", (dg, y), f"d_{y}", loc=op.loc, **op.attrs)]

    def cases(self) -> list[Case]:
        return [Case((f32(1, 7),), {"scale": 1.0}), Case((f32(6, 5),), {"scale": 0.2})]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


class GoodnessGrad(OpSpec):
    """dg (R), y (R,n) -> dy = 2 scale dg y. attrs: scale."""

    kind = "goodness_grad"
    operands = ("dg", "y")
    results = ("dy",)
    elementwise = True

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[1]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dg, y = inputs
        return [(2 * y.dtype.type(attrs["scale"]) * dg)[:, None] * y]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (dg, y), double = inputs, te.const(2 * attrs["scale"])
        return [te.compute(types[1].shape, lambda r, j: dg[r] * double * y[r, j], "dy")]

    def cases(self) -> list[Case]:
        return [Case((f32(1), f32(1, 7)), {"scale": 1.0}), Case((f32(6), f32(6, 5)), {"scale": 0.2})]


def _excess(te: Te, g: Expr, attrs: Attrs) -> Expr:
    """How far a row is above the threshold."""
    return g - te.const(attrs["threshold"])


class Contrast(OpSpec):
    """g (2B)[, activity (n)] -> J (1) = mean of softplus(threshold - g) of the first half and softplus(g - threshold)

    of the second, and peer times the mean of (mean activity - activity)^2. attrs: threshold, peer.
    """

    kind = "contrast"
    operands = ("g", "activity")
    results = ("objective",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(1)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        g, *activity = inputs
        sign = np.where(np.arange(len(g)) < len(g) // 2, -1, 1)
        surprise = np.logaddexp(0, sign * (g - g.dtype.type(attrs["threshold"]))).mean()
        spread = attrs["peer"] * activity[0].var() if activity else 0
        return [np.array([surprise + spread], g.dtype)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (g, *activity), (rows,) = inputs, types[0].shape
        (r,) = te.axes(rows)

        def softplus(above: Expr) -> Expr:
            u = te.where(r < rows // 2, te.const(0) - above, above)
            low = te.where(u < te.const(0), u, te.const(0) - u)
            return te.call("relu", u) + te.call("log", te.const(1) + te.call("exp", low))

        total = te.compute((1,), lambda _: te.sum(softplus(_excess(te, g[r], attrs)), [r]), "total")
        spread = _variance(te, activity[0], types[1], attrs["peer"]) if activity else None

        def mean(i: Expr) -> Expr:
            share = total[i] * te.const(1 / rows)
            return share if spread is None else share + spread[i]

        return [te.compute((1,), mean, "J")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        """An objective is where a gradient starts."""
        g, *activity = op.inputs
        strength = op.attrs["peer"]
        dg = b.emit1("contrast_grad", (g,), f"d_{g}", loc=op.loc, threshold=op.attrs["threshold"])
        return [dg, *(b.emit1("peer_grad", (a,), f"d_{a}", loc=op.loc, peer=strength) for a in activity)]

    def cases(self) -> list[Case]:
        attrs = {"threshold": 1.5, "peer": 0.0}
        alone = [Case((f32(rows),), attrs) for rows in (2, 6)]
        return [*alone, Case((f32(4), f32(7)), {**attrs, "peer": 0.3})]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        return [3 * x for x in super().draw(rng, case)]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0, 1)


def _mean(te: Te, values: Tensor, type_: TensorType) -> Tensor:
    (j,) = te.axes(type_.size)
    total = te.compute((1,), lambda _: te.sum(values[j], [j]), "sum")
    return te.compute((1,), lambda i: total[i] * te.const(1 / type_.size), "mean")


def _variance(te: Te, values: Tensor, type_: TensorType, strength: float) -> Tensor:
    mean, (j,) = _mean(te, values, type_), te.axes(type_.size)
    total = te.compute((1,), lambda _: te.sum((values[j] - mean[0]) * (values[j] - mean[0]), [j]), "squares")
    return te.compute((1,), lambda i: total[i] * te.const(strength / type_.size), "spread")


class ContrastGrad(OpSpec):
    """g (2B) -> dg: -sigmoid(threshold - g) / 2B in the first half, sigmoid(g - threshold) / 2B in the second."""

    kind = "contrast_grad"
    operands = ("g",)
    results = ("dg",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        g = inputs[0]
        sign = np.where(np.arange(len(g)) < len(g) // 2, -1, 1).astype(g.dtype)
        above = sign * (g - g.dtype.type(attrs["threshold"]))
        return [sign * np.exp(-np.logaddexp(0, -above)) / g.dtype.type(len(g))]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (g,), (rows,) = inputs, types[0].shape

        def element(r: Expr) -> Expr:
            above = _excess(te, g[r], attrs)
            low = te.const(-1 / rows) * te.call("sigmoid", te.const(0) - above)
            return te.where(r < rows // 2, low, te.const(1 / rows) * te.call("sigmoid", above))

        return [te.compute((rows,), element, "dg")]

    def cases(self) -> list[Case]:
        return [Case((f32(rows),), {"threshold": 1.5}) for rows in (2, 6)]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        return [3 * x for x in super().draw(rng, case)]


class PeerActivity(OpSpec):
    """y (2B,n), before (n) -> activity (n) = decay before + (1 - decay) mean of the first B rows. attrs: decay."""

    kind = "peer_activity"
    operands = ("y", "before")
    results = ("activity",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[1]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        (y, before), decay = inputs, inputs[0].dtype.type(attrs["decay"])
        return [decay * before + (1 - decay) * y[: len(y) // 2].mean(0)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (y, before), (rows, units), decay = inputs, types[0].shape, attrs["decay"]
        (r,) = te.axes(rows // 2)
        total = te.compute((units,), lambda j: te.sum(y[r, j], [r]), "total")
        share = te.const((1 - decay) / (rows // 2))
        return [te.compute((units,), lambda j: total[j] * share + te.const(decay) * before[j], "activity")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        """What was before is held constant."""
        (y, _), da = op.inputs, grads[0]
        assert da is not None
        rows = b.values[y].shape[0]
        return [b.emit1("peer_activity_grad", (da,), f"d_{y}", loc=op.loc, rows=rows, **op.attrs), None]

    def cases(self) -> list[Case]:
        return [Case((f32(rows, 7), f32(7)), {"decay": decay}) for rows, decay in ((2, 0.9), (6, 0.5))]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


class PeerActivityGrad(OpSpec):
    """dactivity (n) -> dy (rows,n): (1 - decay) / B dactivity in the first B rows, else 0. attrs: decay, rows = 2B."""

    kind = "peer_activity_grad"
    operands = ("dactivity",)
    results = ("dy",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(attrs["rows"], inputs[0].size)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        da, half = inputs[0], attrs["rows"] // 2
        share = da.dtype.type((1 - attrs["decay"]) / half)
        return [np.concatenate([np.tile(share * da, (half, 1)), np.zeros((half, len(da)), da.dtype)])]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (da,), half = inputs, attrs["rows"] // 2
        share = te.const((1 - attrs["decay"]) / half)
        shape = (2 * half, types[0].size)
        return [te.compute(shape, lambda r, j: te.where(r < half, share * da[j], te.const(0)), "dy")]

    def cases(self) -> list[Case]:
        return [Case((f32(7),), {"decay": 0.9, "rows": rows}) for rows in (2, 6)]


class PeerGrad(OpSpec):
    """activity (n) -> 2 peer / n (activity - mean activity). attrs: peer."""

    kind = "peer_grad"
    operands = ("activity",)
    results = ("dactivity",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        a = inputs[0]
        return [a.dtype.type(2 * attrs["peer"] / len(a)) * (a - a.mean())]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (a,), mean, strength = inputs, _mean(te, inputs[0], types[0]), te.const(2 * attrs["peer"] / types[0].size)
        return [te.compute(types[0].shape, lambda j: strength * (a[j] - mean[0]), "da")]

    def cases(self) -> list[Case]:
        return [Case((f32(7),), {"peer": 0.3})]


class Keep(OpSpec):
    """old (n), new (n) -> new, in place of the old."""

    kind = "keep"
    operands = ("old", "new")
    results = ("old",)
    overwrites = {0: 0}

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [inputs[1].copy()]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        return [te.compute(types[0].shape, lambda *i: inputs[1][i], "old")]

    def cases(self) -> list[Case]:
        return [Case((f32(7),) * 2)]
