"""Layer and group normalisation: each sample's own statistics over groups of its elements, one op for both."""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from strop.compiler.ir import Builder, Op, TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, OpSpec, Te, Tensor, f32
from strop.compiler.ops.norm import PRECISE


class Rows:
    """Groups of x (B,...) under layer normalisation: the last `trailing` axes, each element with its own gain.

    stats: shape of the statistics.  members: extents of a group.  units: shape of gain and offset.  shared: extents of
    what has the same gain.  Indices are tuples.
    """

    def __init__(self, x: tuple[int, ...], trailing: int) -> None:
        self.lead = len(x) - trailing
        self.stats = self.shared = x[: self.lead]
        self.members = self.units = x[self.lead :]

    def member(self, group: tuple[Expr, ...], place: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """The index of a group's element."""
        return (*group, *place)

    def group(self, index: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """The group of an element."""
        return index[: self.lead]

    def unit(self, index: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """Where an element's gain is."""
        return index[self.lead :]

    def use(self, unit: tuple[Expr, ...], place: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """The index of an element with a given gain."""
        return (*place, *unit)

    def wide(self, gain: Array) -> Array:
        """A gain or offset against the axes of x."""
        return gain


class Channels(Rows):
    """Groups of x (B,C,...) under group normalisation: C/groups neighbouring channels, one gain a channel."""

    def __init__(self, x: tuple[int, ...], groups: int) -> None:
        batch, channels, *image = x
        self.per_group, self.rank = channels // groups, len(x)
        self.stats, self.members = (batch, groups), (self.per_group, *image)
        self.units, self.shared = (channels,), (batch, *image)

    def member(self, group: tuple[Expr, ...], place: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return (group[0], group[1] * self.per_group + place[0], *place[1:])

    def group(self, index: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return (index[0], index[1] // self.per_group)

    def unit(self, index: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return (index[1],)

    def use(self, unit: tuple[Expr, ...], place: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return (place[0], *unit, *place[1:])

    def wide(self, gain: Array) -> Array:
        return gain.reshape(-1, *(1,) * (self.rank - 2))


def groups_of(x: tuple[int, ...], attrs: Attrs) -> Rows:
    """How x is grouped. attrs: `trailing` (layer normalisation) or `groups` (group normalisation)."""
    return Channels(x, attrs["groups"]) if "groups" in attrs else Rows(x, attrs["trailing"])


def _rows(x: Array, groups: Rows) -> Array:
    """One row a group: its members lie side by side in memory."""
    return x.reshape(*groups.stats, -1)


def _each(statistic: Array, x: Array, groups: Rows) -> Array:
    """The statistic of every element's group."""
    return np.broadcast_to(statistic[..., None], _rows(x, groups).shape).reshape(x.shape)


def _sum(te: Te, extents: Sequence[int], term: Callable[[tuple[Expr, ...]], Expr]) -> Expr:
    """The sum of `term(place)` over all places; an axis with one place is no loop."""
    axes = te.axes(*(extent for extent in extents if extent > 1))
    turning = iter(axes)
    place = tuple(next(turning) if extent > 1 else 0 for extent in extents)
    return te.sum(term(place), axes) if axes else term(place)


class Normalize(OpSpec):
    """x (B,...), gain, offset -> (x - mean) * inv_std * gain + offset, and each group's mean and 1 / sqrt(var + eps).

    attrs: eps, and `trailing` or `groups`, see `groups_of`. The variance is the mean square of x - mean: layer
    normalisation (arXiv 1607.06450, eq. 3) and group normalisation (arXiv 1803.08494, eq. 1, 2, 6 and 7).
    """

    kind = "normalize"
    precise = PRECISE
    operands = ("x", "gain", "offset")
    results = ("y", "mean", "inv_std")
    suffixes = ("", ".mean", ".inv_std")
    working = (1, 2)
    follows = True

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        x = inputs[0]
        statistic = TensorType(groups_of(x.shape, attrs).stats, x.dtype)
        return [x, statistic, statistic]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        x, gain, offset = inputs
        groups = groups_of(x.shape, attrs)
        rows = _rows(x, groups)
        mean, inv_std = rows.mean(-1), 1 / np.sqrt(rows.var(-1) + x.dtype.type(attrs["eps"]))
        standard = (x - _each(mean, x, groups)) * _each(inv_std, x, groups)
        return [standard * groups.wide(gain) + groups.wide(offset), mean, inv_std]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        x, gain, offset = inputs
        groups = groups_of(types[0].shape, attrs)
        share, eps = te.const(1 / prod(groups.members)), te.const(attrs["eps"])

        def total(*g: Expr) -> Expr:
            return _sum(te, groups.members, lambda place: x[groups.member(g, place)])

        def squares(*g: Expr) -> Expr:
            def centred(place: tuple[Expr, ...]) -> Expr:
                return x[groups.member(g, place)] - mean[g]

            return _sum(te, groups.members, lambda place: centred(place) * centred(place))

        def element(*i: Expr) -> Expr:
            g, u = groups.group(i), groups.unit(i)
            return (x[i] - mean[g]) * inv_std[g] * gain[u] + offset[u]

        sums = te.compute(groups.stats, total, "total")
        mean = te.compute(groups.stats, lambda *g: sums[g] * share, "mean")
        spread = te.compute(groups.stats, squares, "squares")
        inv_std = te.compute(groups.stats, lambda *g: te.const(1) / te.call("sqrt", spread[g] * share + eps), "inv_std")
        return [te.compute(types[0].shape, element, "y"), mean, inv_std]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        """Of y; the statistics are for the gradient alone."""
        dy, (x, gain, offset) = grads[0], op.inputs
        assert dy is not None
        _, mean, inv_std = op.outputs
        attrs = {name: value for name, value in op.attrs.items() if name != "eps"}
        dx = b.emit1("normalize_dx", (dy, x, gain, mean, inv_std), f"d_{x}", loc=op.loc, **attrs)
        dgain = b.emit1("normalize_dgain", (dy, x, mean, inv_std), f"d_{gain}", loc=op.loc, **attrs)
        return [dx, dgain, b.emit1("normalize_doffset", (dy,), f"d_{offset}", loc=op.loc, **attrs)]

    def cases(self) -> list[Case]:
        return [Case(_from(x, attrs, "x", "gain", "gain"), {"eps": eps, **attrs}) for x, attrs, eps in NORMALIZATIONS]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0, 1, 2)


NORMALIZATIONS: tuple[tuple[TensorType, dict[str, int], float], ...] = (
    (f32(1, 11), {"trailing": 1}, 1e-5),
    (f32(3, 2, 7), {"trailing": 1}, 1e-5),
    (f32(2, 3, 5, 4), {"trailing": 3}, 1e-3),
    (f32(1, 6, 5, 3), {"groups": 2}, 1e-5),
    (f32(2, 4, 7), {"groups": 4}, 1e-3),
    (f32(3, 9), {"groups": 3}, 1e-5),
    (f32(2, 6, 1, 5), {"groups": 2}, 1e-5),
)
"""Odd sizes; every kind of group: x, grouping, eps."""


STABLE = 1e-5
"""An eps for tests of gradients."""


def _from(x: TensorType, attrs: Attrs, *names: str) -> tuple[TensorType, ...]:
    """Types of the operands of a gradient, by name."""
    groups = groups_of(x.shape, attrs)
    shapes = {"dy": x.shape, "x": x.shape, "gain": groups.units, "mean": groups.stats, "inv_std": groups.stats}
    return tuple(f32(*shapes[name]) for name in names)


class NormalizeDx(OpSpec):
    """dy, x (B,...), gain, mean, inv_std -> dx = inv_std (g - shift - (x - mean) slope), with g = dy gain.

    shift = mean of g over the group; slope = inv_std^2 times the mean of g (x - mean). Both are outputs, as working
    memory. attrs: see `groups_of`.
    """

    kind = "normalize_dx"
    precise = PRECISE
    operands = ("dy", "x", "gain", "mean", "inv_std")
    results = ("dx", "shift", "slope")
    suffixes = ("", ".shift", ".slope")
    working = (1, 2)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[1], inputs[3], inputs[3]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, x, gain, mean, inv_std = inputs
        groups = groups_of(x.shape, attrs)
        g, centred = dy * groups.wide(gain), x - _each(mean, x, groups)
        shift = _rows(g, groups).mean(-1)
        slope = _rows(g * centred, groups).mean(-1) * inv_std * inv_std
        error = g - _each(shift, x, groups) - centred * _each(slope, x, groups)
        return [_each(inv_std, x, groups) * error, shift, slope]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        dy, x, gain, mean, inv_std = inputs
        groups = groups_of(types[1].shape, attrs)
        share = te.const(1 / prod(groups.members))

        def weighed(i: tuple[Expr, ...]) -> Expr:
            return dy[i] * gain[groups.unit(i)]

        def plain(*g: Expr) -> Expr:
            return _sum(te, groups.members, lambda place: weighed(groups.member(g, place)))

        def along(*g: Expr) -> Expr:
            def product(i: tuple[Expr, ...]) -> Expr:
                return weighed(i) * (x[i] - mean[g])

            return _sum(te, groups.members, lambda place: product(groups.member(g, place)))

        def element(*i: Expr) -> Expr:
            g = groups.group(i)
            return inv_std[g] * (weighed(i) - shift[g] - (x[i] - mean[g]) * slope[g])

        total = te.compute(groups.stats, plain, "total")
        shift = te.compute(groups.stats, lambda *g: total[g] * share, "shift")
        product = te.compute(groups.stats, along, "product")
        slope = te.compute(groups.stats, lambda *g: product[g] * share * inv_std[g] * inv_std[g], "slope")
        return [te.compute(types[1].shape, element, "dx"), shift, slope]

    def cases(self) -> list[Case]:
        return [Case(_from(x, attrs, *self.operands), attrs) for x, attrs, _ in NORMALIZATIONS]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """The statistics of x, with STABLE under the root."""
        dy, x, gain, *_ = super().draw(rng, case)
        return [dy, x, gain, *Normalize().reference([x, gain, gain], {"eps": STABLE, **case.attrs})[1:]]


class _UnitSum(OpSpec):
    """Something summed over all that has the same gain."""

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType(groups_of(inputs[0].shape, attrs).units, inputs[0].dtype)]

    def term(self, inputs: Sequence[Tensor], groups: Rows, i: tuple[Expr, ...]) -> Expr:
        """What the element at an index adds."""
        raise NotImplementedError

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        groups = groups_of(types[0].shape, attrs)

        def element(*u: Expr) -> Expr:
            return _sum(te, groups.shared, lambda place: self.term(inputs, groups, groups.use(u, place)))

        return [te.compute(groups.units, element, self.results[0])]

    def cases(self) -> list[Case]:
        return [Case(_from(x, attrs, *self.operands), attrs) for x, attrs, _ in NORMALIZATIONS]


class NormalizeDgain(_UnitSum):
    """dy, x (B,...), mean, inv_std -> dgain: the sum of dy (x - mean) inv_std. attrs: see `groups_of`."""

    kind = "normalize_dgain"
    precise = PRECISE
    operands = ("dy", "x", "mean", "inv_std")
    results = ("dgain",)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, x, mean, inv_std = inputs
        groups = groups_of(x.shape, attrs)
        return [_total(dy * (x - _each(mean, x, groups)) * _each(inv_std, x, groups), groups)]

    def term(self, inputs: Sequence[Tensor], groups: Rows, i: tuple[Expr, ...]) -> Expr:
        dy, x, mean, inv_std = inputs
        g = groups.group(i)
        return (x[i] - mean[g]) * inv_std[g] * dy[i]


class NormalizeDoffset(_UnitSum):
    """dy (B,...) -> doffset: the sum of dy. attrs: see `groups_of`."""

    kind = "normalize_doffset"
    precise = PRECISE
    operands = ("dy",)
    results = ("doffset",)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [_total(inputs[0], groups_of(inputs[0].shape, attrs))]

    def term(self, inputs: Sequence[Tensor], groups: Rows, i: tuple[Expr, ...]) -> Expr:
        return inputs[0][i]


def _total(terms: Array, groups: Rows) -> Array:
    """The sum over all that has the same gain."""
    axes = (0, *range(2, terms.ndim)) if isinstance(groups, Channels) else tuple(range(groups.lead))
    total: Array = terms.sum(axis=axes)
    return total
