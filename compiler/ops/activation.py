"""Activations and their gradients, taken from the output so that no pre-activation is kept."""

from collections.abc import Sequence

import numpy as np

from strop.compiler.ir import Builder, Op
from strop.compiler.ops.base import Array, Attrs, Case, Elementwise, Expr, Te, f32


class Activation(Elementwise):
    """y = f(x), never decreasing, with f' a function of y."""

    follows = True
    monotone = True

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        """dx = dy * f'(y)."""
        assert grads[0] is not None
        y = op.outputs[0]
        return [b.emit1(f"{self.kind}_grad", (grads[0], y), f"d_{op.inputs[0]}", loc=op.loc, **op.attrs)]

    @property
    def differentiable(self) -> tuple[int, ...]:
        """The only input."""
        return (0,)


class ActivationGrad(Elementwise):
    """dx = dy * f'(y)."""

    operands = ("dy", "y")
    linear = "dy"
    results = ("dx",)

    arity = 2


class Relu(Activation):
    """max(x, 0)."""

    kind = "relu"
    reach = (0.0, 1.0)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [np.maximum(inputs[0], 0)]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        return te.call("relu", values[0])


class ReluGrad(ActivationGrad):
    """dy where y > 0, else 0 (so the gradient at 0 is 0, as in PyTorch)."""

    kind = "relu_grad"

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, y = inputs
        return [np.where(y > 0, dy, 0)]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        dy, y = values
        return te.where(y > te.const(0), dy, te.const(0))


class LeakyRelu(Activation):
    """x where x > 0, else slope * x; slope must be positive, so that y tells the sign of x."""

    kind = "leaky_relu"
    reach = (-0.1, 1.0)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        x = inputs[0]
        return [np.where(x > 0, x, x * x.dtype.type(attrs["slope"]))]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        return te.where(values[0] > te.const(0), values[0], values[0] * te.const(attrs["slope"]))

    def cases(self) -> list[Case]:
        return [Case((f32(2, 3, 5),), {"slope": 0.125})]


class LeakyReluGrad(ActivationGrad):
    """dy where y > 0, else slope * dy."""

    kind = "leaky_relu_grad"

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, y = inputs
        return [np.where(y > 0, dy, dy * dy.dtype.type(attrs["slope"]))]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        dy, y = values
        return te.where(y > te.const(0), dy, dy * te.const(attrs["slope"]))

    def cases(self) -> list[Case]:
        return [Case((f32(2, 3, 5),) * 2, {"slope": 0.125})]


class Relu6(Activation):
    """min(max(x, 0), 6)."""

    kind = "relu6"
    reach = (0.0, 1.0)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [np.clip(inputs[0], 0, 6)]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        positive = te.where(values[0] > te.const(0), values[0], te.const(0))
        return te.where(positive < te.const(6), positive, te.const(6))

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        return [6 * x for x in super().draw(rng, case)]


class Relu6Grad(ActivationGrad):
    """dy where 0 < y < 6, else 0."""

    kind = "relu6_grad"

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, y = inputs
        return [np.where((y > 0) & (y < 6), dy, 0)]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        dy, y = values
        return te.where(te.every(y > te.const(0), y < te.const(6)), dy, te.const(0))

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        dy, y = super().draw(rng, case)
        return [dy, np.clip(6 * y, 0, 6)]


class Tanh(Activation):
    """Hyperbolic tangent, by the runtime's function."""

    kind = "tanh"
    reach = (-0.9, 0.9)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [np.tanh(inputs[0])]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        return te.call("tanh", values[0])


class TanhGrad(ActivationGrad):
    """dy * (1 - y^2)."""

    kind = "tanh_grad"

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, y = inputs
        return [dy * (1 - y * y)]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        dy, y = values
        return dy * (te.const(1) - y * y)


class Sigmoid(Activation):
    """1 / (1 + exp(-x)), by the runtime's function."""

    kind = "sigmoid"
    reach = (0.1, 0.9)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [1 / (1 + np.exp(-inputs[0]))]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        return te.call("sigmoid", values[0])


class SigmoidGrad(ActivationGrad):
    """dy * y * (1 - y)."""

    kind = "sigmoid_grad"

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, y = inputs
        return [dy * (y * (1 - y))]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        dy, y = values
        return dy * (y * (te.const(1) - y))
