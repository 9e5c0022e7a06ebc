"""Learning rates: a function of the number of updates so far, computed once a step with the runtime's numerics only.

A rate's relative error, of what its formula gives for the float32 settings, is at most 2^-21 (8 units in the last
place of a result in [1, 2)) for all but `step_rate`, which says its own; the first after a warm-up is lr to the bit.
"""

from collections.abc import Callable, Sequence
from math import log, pi
from typing import ClassVar

import numpy as np

from strop.compiler.dtypes import FLOAT32, INT32
from strop.compiler.ir import TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, OpSpec, Te, Tensor, f32

HALF_COSINE = (2.46740106, -2.02935372, 0.667606794, -0.117568218, 0.0127264401, -0.000812354571)
"""(1 - cos(pi r)) / 2 = r^2 P(r^2) on [0, 1], coefficients from the lowest; relative error 1.6e-8, P(1) = 1."""


class Rate(OpSpec):
    """step (1) = t -> lr (1): lr (t + 1) / warmup while t < warmup; then lr share(t - warmup)."""

    operands = ("step",)
    results: ClassVar[tuple[str, ...]] = ("lr",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(1)]

    def share(self, age: Array, attrs: Attrs) -> Array:
        """The schedule in numpy: the share of lr that is left `age` updates after the warm-up."""
        raise NotImplementedError

    def expressed(self, te: Te, age: Expr, attrs: Attrs) -> Expr:
        """The same as an expression."""
        raise NotImplementedError

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        (t,), lr, warmup = inputs, attrs["lr"], attrs["warmup"]
        return [lr * (np.minimum(t + 1, warmup) / warmup if t < warmup else self.share(t - warmup, attrs))]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (step,) = inputs
        return [self.rated(te, step, lambda i: self.expressed(te, step[i] - te.const(attrs["warmup"]), attrs), attrs)]

    def rated(self, te: Te, step: Tensor, share: Callable[[Expr], Expr], attrs: Attrs) -> Tensor:
        """The rate, from the share after the warm-up."""
        lr, warmup = te.const(attrs["lr"]), te.const(attrs["warmup"])

        def element(i: Expr) -> Expr:
            if not attrs["warmup"]:
                return lr * share(i)
            return lr * te.where(step[i] < warmup, (step[i] + te.const(1)) / warmup, share(i))

        return te.compute((1,), element, "lr")

    def cases(self) -> list[Case]:
        return [Case((f32(1),), {"lr": 0.3, **attrs}) for attrs in self.settings()]

    def settings(self) -> list[Attrs]:
        """Attributes of the cases; each draws a step of its own."""
        raise NotImplementedError

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        return [np.array([rng.integers(0, 40)], np.float32)]


class ConstantRate(Rate):
    """lr after the warm-up."""

    kind = "constant_rate"

    def share(self, age: Array, attrs: Attrs) -> Array:
        return np.ones_like(age)

    def expressed(self, te: Te, age: Expr, attrs: Attrs) -> Expr:
        return te.const(1)

    def settings(self) -> list[Attrs]:
        return [{"warmup": warmup} for warmup in (1, 20, 60, 100)]


class StepRate(Rate):
    """lr factor^floor(age / every), by exp(floor log factor): relative error 2^-22 (1 + floor |log factor|)."""

    kind = "step_rate"

    def share(self, age: Array, attrs: Attrs) -> Array:
        share: Array = age.dtype.type(attrs["factor"]) ** (age // attrs["every"])
        return share

    def expressed(self, te: Te, age: Expr, attrs: Attrs) -> Expr:
        most = 1 << 24
        turns = te.cast(te.cast(age / te.const(attrs["every"]), INT32), FLOAT32)
        counted = te.where(te.every(age >= te.const(0), age <= te.const(most)), turns, te.const(most))
        return te.call("exp", counted * te.const(log(attrs["factor"])))

    def settings(self) -> list[Attrs]:
        pairs = ((7, 0.5), (1, 0.9), (10, 0.1))
        return [{"every": every, "factor": factor, "warmup": warmup} for every, factor in pairs for warmup in (0, 5)]


class _Decay(Rate):
    """step (1) -> lr (1), left (1): the share is final + (1 - final) curve(left).

    left: of the time between warm-up and end, from 1 to 0; a result, so that it is computed once.
    """

    results = ("lr", "left")
    suffixes = ("", ".left")

    def curve(self, left: Array) -> Array:
        """The course from 1 to 0 in numpy."""
        raise NotImplementedError

    def curved(self, te: Te, left: Expr) -> Expr:
        """The same as an expression."""
        raise NotImplementedError

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(1), f32(1)]

    def left(self, t: Array, attrs: Attrs) -> Array:
        """The share of time that is left, in numpy."""
        left: Array = np.clip(1 - (t - attrs["warmup"]) / (attrs["steps"] - attrs["warmup"]), 0, 1)
        return left

    def share(self, age: Array, attrs: Attrs) -> Array:
        curve = self.curve(self.left(age + attrs["warmup"], attrs))
        share: Array = attrs["final"] + (1 - attrs["final"]) * curve
        return share

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [*super().reference(inputs, attrs), self.left(inputs[0], attrs)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (step,), final = inputs, attrs["final"]
        end, length = te.const(attrs["steps"]), te.const(attrs["steps"] - attrs["warmup"])

        def remaining(i: Expr) -> Expr:
            after = te.where(step[i] < end, (end - step[i]) / length, te.const(0))
            return te.where(step[i] < te.const(attrs["warmup"]), te.const(1), after) if attrs["warmup"] else after

        left = te.compute((1,), remaining, "left")

        def share(i: Expr) -> Expr:
            curve = self.curved(te, left[i])
            return te.const(final) + te.const(1 - final) * curve if final else curve

        return [self.rated(te, step, share, attrs), left]

    def settings(self) -> list[Attrs]:
        rows = ((40, 0, 0.0), (50, 7, 0.0), (41, 0, 0.125), (9, 0, 0.0), (9, 4, 0.25), (60, 50, 0.5))
        return [{"steps": steps, "warmup": warmup, "final": final} for steps, warmup, final in rows]


class LinearRate(_Decay):
    """A straight line."""

    kind = "linear_rate"

    def curve(self, left: Array) -> Array:
        return left

    def curved(self, te: Te, left: Expr) -> Expr:
        return left


class CosineRate(_Decay):
    """(1 + cos(pi (1 - left))) / 2 = (1 - cos(pi left)) / 2, which keeps its relative accuracy to the very end."""

    kind = "cosine_rate"

    def curve(self, left: Array) -> Array:
        return (1 + np.cos(pi * (1 - left))) / 2

    def curved(self, te: Te, left: Expr) -> Expr:
        square = left * left
        polynomial = te.const(HALF_COSINE[-1])
        for coefficient in reversed(HALF_COSINE[:-1]):
            polynomial = polynomial * square + te.const(coefficient)
        return square * polynomial
