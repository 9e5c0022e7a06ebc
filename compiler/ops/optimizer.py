"""Parameter updates in place. Each reads the gradient at its own element only, so a gradient need not be stored."""

from collections.abc import Sequence

import numpy as np

from strop.compiler.ir import TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, OpSpec, Te, Tensor, f32


class Update(OpSpec):
    """An op that overwrites its first inputs, one output each; the last input is the gradient."""

    elementwise = True

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[source] for source in self.overwrites.values()]


def decayed(te: Te, w: Expr, gradient: Expr, attrs: Attrs) -> Expr:
    """Gradient with weight decay: g + weight_decay * w."""
    return gradient + w * te.const(attrs["weight_decay"]) if attrs["weight_decay"] else gradient


class Sgd(Update):
    """w, g -> w - lr (g + weight_decay w)."""

    kind = "sgd"
    operands = ("w", "dw")
    results = ("w",)
    overwrites = {0: 0}

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        w, g = inputs
        return [w - w.dtype.type(attrs["lr"]) * (g + w.dtype.type(attrs["weight_decay"]) * w)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        w, g = inputs

        def element(*i: Expr) -> Expr:
            gradient = decayed(te, w[i], g[i], attrs)
            return w[i] - (gradient if attrs["lr"] == 1 else te.const(attrs["lr"]) * gradient)

        return [te.compute(types[0].shape, element, "w")]

    def cases(self) -> list[Case]:
        settings = ((0.1, 0.0), (0.1, 0.01), (1.0, 0.0))
        return [Case((f32(3, 5),) * 2, {"lr": lr, "weight_decay": decay}) for lr, decay in settings]


class Momentum(Update):
    """w, v, g -> v' = momentum v + (g + weight_decay w); w - lr v' (as torch.optim.SGD)."""

    kind = "momentum"
    operands = ("w", "velocity", "dw")
    results = ("velocity", "w")
    suffixes = ("", ".velocity")
    overwrites = {0: 1, 1: 0}

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[1], inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        w, v, g = inputs
        kind = w.dtype.type
        v = kind(attrs["momentum"]) * v + (g + kind(attrs["weight_decay"]) * w)
        return [v, w - kind(attrs["lr"]) * v]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        w, v, g = inputs
        lr, momentum = te.const(attrs["lr"]), te.const(attrs["momentum"])
        v_new = te.compute(types[0].shape, lambda *i: momentum * v[i] + decayed(te, w[i], g[i], attrs), "v")
        return [v_new, te.compute(types[0].shape, lambda *i: w[i] - lr * v_new[i], "w")]

    def cases(self) -> list[Case]:
        return [Case((f32(3, 5),) * 3, {"lr": 0.1, "momentum": 0.9, "weight_decay": decay}) for decay in (0.0, 0.01)]


class Adam(Update):
    """w, m, v, c1, c2, g -> m, v, w. Kingma & Ba (arXiv 1412.6980), algorithm 1; c1 = 1 - beta1^t, c2 = 1 - beta2^t.

    m' = beta1 m + (1 - beta1) g;  v' = beta2 v + (1 - beta2) g^2;  w - lr / c1 * m' / (sqrt(v' / c2) + eps).
    """

    kind = "adam"
    operands = ("w", "m", "v", "c1", "c2", "dw")
    results = ("m", "v", "w")
    suffixes = (".m", ".v", "")
    overwrites = {0: 1, 1: 2, 2: 0}

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        w, m, v, c1, c2, g = inputs
        kind = w.dtype.type
        beta1, beta2 = attrs["beta1"], attrs["beta2"]
        g = g + kind(attrs["weight_decay"]) * w
        m = kind(beta1) * m + kind(1 - beta1) * g
        v = kind(beta2) * v + kind(1 - beta2) * g * g
        return [m, v, w - kind(attrs["lr"]) * (m / c1) / (np.sqrt(v / c2) + kind(attrs["eps"]))]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        w, m, v, c1, c2, g = inputs
        shape, beta1, beta2 = types[0].shape, attrs["beta1"], attrs["beta2"]

        def first(*i: Expr) -> Expr:
            return te.const(beta1) * m[i] + te.const(1 - beta1) * decayed(te, w[i], g[i], attrs)

        def second(*i: Expr) -> Expr:
            gradient = decayed(te, w[i], g[i], attrs)
            return te.const(beta2) * v[i] + te.const(1 - beta2) * gradient * gradient

        m_new, v_new = te.compute(shape, first, "m"), te.compute(shape, second, "v")

        def step(*i: Expr) -> Expr:
            root = te.call("sqrt", v_new[i] / c2[0]) + te.const(attrs["eps"])
            return w[i] - te.const(attrs["lr"]) * (m_new[i] / c1[0]) / root

        return [m_new, v_new, te.compute(shape, step, "w")]

    def cases(self) -> list[Case]:
        attrs = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
        types = (*(f32(3, 5),) * 3, f32(1), f32(1), f32(3, 5))
        return [Case(types, {**attrs, "weight_decay": decay}) for decay in (0.0, 0.01)]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        w, m, v, c1, c2, g = super().draw(rng, case)
        return [w, m, v * v, *(np.abs(c) / (1 + np.abs(c)) + np.float32(0.1) for c in (c1, c2)), g]


class BiasCorrection(Update):
    """c (1) -> beta c + (1 - beta): after t steps 1 - beta^t, without the cancellation of subtracting a power."""

    kind = "bias_correction"
    operands = ("c",)
    results = ("c",)
    overwrites = {0: 0}

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        c, kind = inputs[0], inputs[0].dtype.type
        return [kind(attrs["beta"]) * c + kind(1 - attrs["beta"])]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        c, beta = inputs[0], attrs["beta"]
        return [te.compute((1,), lambda i: te.const(beta) * c[i] + te.const(1 - beta), "c")]

    def cases(self) -> list[Case]:
        return [Case((f32(1),), {"beta": 0.999})]
