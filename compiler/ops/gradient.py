"""What happens to a gradient between the rule and the update: averaging over steps, and clipping."""

from collections.abc import Sequence

import numpy as np

from strop.compiler.ir import TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Elementwise, Expr, OpSpec, Te, Tensor, f32

GUARD = 1e-6
"""Added to a norm that divides, as in torch.nn.utils.clip_grad_norm_."""


class Phase(OpSpec):
    """phase (1) -> the next of 1, 2, ... every, and 1 again; from 0, and from anything out of range, to 1."""

    kind = "phase"
    operands = ("phase",)
    results = ("phase",)
    overwrites = {0: 0}

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        (phase,), one = inputs, inputs[0].dtype.type(1)
        return [np.where((phase >= 0) & (phase < attrs["every"]), phase + one, one)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (phase,), one = inputs, te.const(1)

        def element(i: Expr) -> Expr:
            inside = te.every(phase[i] >= te.const(0), phase[i] < te.const(attrs["every"]))
            return te.where(inside, phase[i] + one, one)

        return [te.compute((1,), element, "phase")]

    def cases(self) -> list[Case]:
        return [Case((f32(1),), {"every": every}) for every in (2, 3, 4, 5)]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        return [np.array([{2: 0, 3: 2, 4: 4, 5: -7}[case.attrs["every"]]], np.float32)]


class Accumulate(OpSpec):
    """sum, g, phase (1) -> sum + g / every, from 0 where the phase is 1. At the last phase it is the mean of g."""

    kind = "accumulate"
    operands = ("sum", "dw", "phase")
    results = ("sum",)
    overwrites = {0: 0}
    elementwise = True

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        total, g, phase = inputs
        return [np.where(phase > 1, total, 0) + g * g.dtype.type(1 / attrs["every"])]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        total, g, phase = inputs
        share = te.const(1 / attrs["every"])

        def element(*i: Expr) -> Expr:
            return te.where(phase[0] > te.const(1), total[i], te.const(0)) + g[i] * share

        return [te.compute(types[0].shape, element, "sum")]

    def cases(self) -> list[Case]:
        return [Case((f32(3, 5), f32(3, 5), f32(1)), {"every": every}) for every in (2, 3)]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """The first phase where `every` is even, the second where it is odd."""
        total, g, _ = super().draw(rng, case)
        return [total, g, np.array([1 + case.attrs["every"] % 2], np.float32)]


class ClipValue(Elementwise):
    """g -> g between -limit and limit; NaN stays."""

    kind = "clip_value"
    operands = ("dw",)
    results = ("clipped",)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        limit = inputs[0].dtype.type(attrs["limit"])
        return [np.clip(inputs[0], -limit, limit)]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        (g,), high, low = values, te.const(attrs["limit"]), te.const(-attrs["limit"])
        return te.where(g > high, high, te.where(g < low, low, g))

    def cases(self) -> list[Case]:
        return [Case((f32(3, 5),), {"limit": 0.5}), Case((f32(2, 3, 3, 1),), {"limit": 100.0})]


class Squares(OpSpec):
    """g -> the sum of the squares of all its elements, (1)."""

    kind = "squares"
    operands = ("dw",)
    results = ("total",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(1)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [np.square(inputs[0]).sum().reshape(1)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (g,), i = inputs, te.axes(*types[0].shape)
        return [te.compute((1,), lambda _: te.sum(g[i] * g[i], list(i)), "total")]

    def cases(self) -> list[Case]:
        return [Case((f32(*shape),)) for shape in ((3, 5), (7,), (2, 3, 3, 1))]


class ClipFactor(OpSpec):
    """total (1), of the squares -> factor (1) = min(1, limit / (sqrt(total) + 1e-6)); 1 where the norm is NaN."""

    kind = "clip_factor"
    operands = ("total",)
    results = ("factor",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(1)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        norm = np.sqrt(inputs[0]) + GUARD
        return [np.where(norm > attrs["limit"], attrs["limit"] / norm, 1).astype(inputs[0].dtype)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (total,), limit = inputs, te.const(attrs["limit"])

        def factor(i: Expr) -> Expr:
            norm = te.call("sqrt", total[i]) + te.const(GUARD)
            return te.where(norm > limit, limit / norm, te.const(1))

        return [te.compute((1,), factor, "factor")]

    def cases(self) -> list[Case]:
        return [Case((f32(1),), {"limit": limit}) for limit in (0.5, 1.5, 90.0)]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        return [10 * np.square(x) for x in super().draw(rng, case)]


class Scaled(OpSpec):
    """g, factor (1) -> factor g."""

    kind = "scaled"
    operands = ("dw", "factor")
    results = ("scaled",)
    elementwise = True

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [inputs[0] * inputs[1]]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        g, factor = inputs
        return [te.compute(types[0].shape, lambda *i: g[i] * factor[0], "scaled")]

    def cases(self) -> list[Case]:
        return [Case((f32(3, 5), f32(1)))]
