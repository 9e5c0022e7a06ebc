"""Parameter updates in place. Each reads the gradient at its own element only, so a gradient need not be stored.

Two operands behind the gradient are optional: `lr` (1), the learning rate, else an attribute; and `phase` (1), which an
op with an attribute `every` has: unless the phase has come to `every`, the variables stay as they are.
"""

from collections.abc import Callable, Sequence

import numpy as np

from strop.compiler.ir import TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, OpSpec, Te, Tensor, f32

WEIGHT = "w"
"""Operand of an update that is the trained parameter; its other variables are states of that parameter."""


class Update(OpSpec):
    """An op that overwrites its first inputs, one output each; the gradient follows them."""

    elementwise = True

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[source] for source in self.overwrites.values()]

    def updated(self, inputs: Sequence[Array], lr: Array, attrs: Attrs) -> list[Array]:
        """The new variables in numpy, in the dtype of the inputs."""
        raise NotImplementedError

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        if "every" in attrs and not inputs[-1] >= attrs["every"]:
            return [inputs[source] for source in self.overwrites.values()]
        lr = np.asarray(attrs["lr"], inputs[0].dtype) if "lr" in attrs else inputs[place(attrs)]
        return self.updated(inputs, lr, attrs)

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """The rate is positive; the phase is a count, at its end where `every` is even, one before where it is odd."""
        inputs, every = super().draw(rng, case), case.attrs.get("every")
        if every:
            inputs[-1] = np.array([every - every % 2], np.float32)
        if "lr" in self.operands and "lr" not in case.attrs:
            inputs[place(case.attrs)] = np.array([0.3], np.float32)
        return inputs


def place(attrs: Attrs) -> int:
    """Where the learning rate is among the operands, if it is one."""
    return -2 if "every" in attrs else -1


def rate(te: Te, inputs: Sequence[Tensor], attrs: Attrs) -> Expr:
    """The learning rate: a literal, or the operand behind the gradient."""
    return te.const(attrs["lr"]) if "lr" in attrs else inputs[place(attrs)][0]


def new(
    te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs,
    source: int, element: Callable[..., Expr], name: str,
) -> Tensor:  # fmt: skip
    """The contents of variable `source` after the op: its elements, or the old ones before the phase has come."""
    if "every" not in attrs:
        return te.compute(types[source].shape, element, name)
    old, phase, every = inputs[source], inputs[-1], te.const(attrs["every"])
    return te.compute(types[source].shape, lambda *i: te.where(phase[0] >= every, element(*i), old[i]), name)


def paced(types: Sequence[TensorType], attrs: Attrs) -> list[Case]:
    """Cases with the rate as an attribute, as an operand, and as an operand at the end of a phase and before it."""
    operand = {name: value for name, value in attrs.items() if name != "lr"}
    gated = [Case((*types, f32(1), f32(1)), {**operand, "every": every}) for every in (2, 3)]
    return [Case(tuple(types), attrs), Case((*types, f32(1)), operand), *gated]


def decayed(te: Te, w: Expr, gradient: Expr, attrs: Attrs) -> Expr:
    """Gradient with weight decay: g + weight_decay * w."""
    return gradient + w * te.const(attrs["weight_decay"]) if attrs["weight_decay"] else gradient


class Sgd(Update):
    """w, g -> w - lr (g + weight_decay w). A rate of -1 takes no product: `passes.hoist` leaves it."""

    kind = "sgd"
    operands = ("w", "dw", "lr", "phase")
    gradient = "dw"
    results = ("w",)
    overwrites = {0: 0}

    def updated(self, inputs: Sequence[Array], lr: Array, attrs: Attrs) -> list[Array]:
        w, g, *_ = inputs
        return [w - lr * (g + w.dtype.type(attrs["weight_decay"]) * w)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (w, g, *_), lr = inputs, rate(te, inputs, attrs)

        def element(*i: Expr) -> Expr:
            gradient = decayed(te, w[i], g[i], attrs)
            return w[i] + gradient if attrs.get("lr") == -1 else w[i] - lr * gradient

        return [new(te, inputs, types, attrs, 0, element, "w")]

    def cases(self) -> list[Case]:
        whole = Case((f32(3, 5),) * 2, {"lr": -1.0, "weight_decay": 0.0})
        settings = [{"lr": 0.1, "weight_decay": decay} for decay in (0.0, 0.01)]
        return [whole, *(case for attrs in settings for case in paced((f32(3, 5),) * 2, attrs))]


class Momentum(Update):
    """w, v, g -> v' = momentum v + (g + weight_decay w); w - lr v' (as torch.optim.SGD)."""

    kind = "momentum"
    operands = ("w", "velocity", "dw", "lr", "phase")
    results = ("velocity", "w")
    suffixes = ("", ".velocity")
    overwrites = {0: 1, 1: 0}

    def updated(self, inputs: Sequence[Array], lr: Array, attrs: Attrs) -> list[Array]:
        w, v, g, *_ = inputs
        kind = w.dtype.type
        v = kind(attrs["momentum"]) * v + (g + kind(attrs["weight_decay"]) * w)
        return [v, w - lr * v]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (w, v, g, *_), lr, momentum = inputs, rate(te, inputs, attrs), te.const(attrs["momentum"])

        def velocity(*i: Expr) -> Expr:
            return momentum * v[i] + decayed(te, w[i], g[i], attrs)

        v_new = new(te, inputs, types, attrs, 1, velocity, "v")
        return [v_new, new(te, inputs, types, attrs, 0, lambda *i: w[i] - lr * v_new[i], "w")]

    def cases(self) -> list[Case]:
        settings = [{"lr": 0.1, "momentum": 0.9, "weight_decay": decay} for decay in (0.0, 0.01)]
        return [case for attrs in settings for case in paced((f32(3, 5),) * 3, attrs)]


class Adam(Update):
    """w, m, v, c1, c2, g -> m, v, w. Kingma & Ba (arXiv 1412.6980), algorithm 1; c1 = 1 - beta1^t, c2 = 1 - beta2^t.

    m' = beta1 m + (1 - beta1) g;  v' = beta2 v + (1 - beta2) g^2;  w - lr / c1 * m' / (sqrt(v' / c2) + eps).
    """

    kind = "adam"
    precise = frozenset({"v"})  # a square below 6e-8 would be 0 in float16, and the step a division by eps
    operands = ("w", "m", "v", "c1", "c2", "dw", "lr", "phase")
    results = ("m", "v", "w")
    suffixes = (".m", ".v", "")
    overwrites = {0: 1, 1: 2, 2: 0}

    def updated(self, inputs: Sequence[Array], lr: Array, attrs: Attrs) -> list[Array]:
        w, m, v, c1, c2, g, *_ = inputs
        kind = w.dtype.type
        beta1, beta2 = attrs["beta1"], attrs["beta2"]
        g = g + kind(attrs["weight_decay"]) * w
        m = kind(beta1) * m + kind(1 - beta1) * g
        v = kind(beta2) * v + kind(1 - beta2) * g * g
        return [m, v, w - lr * (m / c1) / (np.sqrt(v / c2) + kind(attrs["eps"]))]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (w, m, v, c1, c2, g, *_), lr = inputs, rate(te, inputs, attrs)
        beta1, beta2 = attrs["beta1"], attrs["beta2"]

        def first(*i: Expr) -> Expr:
            return te.const(beta1) * m[i] + te.const(1 - beta1) * decayed(te, w[i], g[i], attrs)

        def second(*i: Expr) -> Expr:
            gradient = decayed(te, w[i], g[i], attrs)
            return te.const(beta2) * v[i] + te.const(1 - beta2) * gradient * gradient

        m_new = new(te, inputs, types, attrs, 1, first, "m")
        v_new = new(te, inputs, types, attrs, 2, second, "v")

        def step(*i: Expr) -> Expr:
            root = te.call("sqrt", v_new[i] / c2[0]) + te.const(attrs["eps"])
            return w[i] - lr * (m_new[i] / c1[0]) / root

        return [m_new, v_new, new(te, inputs, types, attrs, 0, step, "w")]

    def cases(self) -> list[Case]:
        attrs = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
        types = (*(f32(3, 5),) * 3, f32(1), f32(1), f32(3, 5))
        return [case for decay in (0.0, 0.01) for case in paced(types, {**attrs, "weight_decay": decay})]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        w, m, v, c1, c2, *rest = super().draw(rng, case)
        return [w, m, v * v, *(np.abs(c) / (1 + np.abs(c)) + np.float32(0.1) for c in (c1, c2)), *rest]


class Lion(Update):
    """w, m, g -> w, m. Chen et al. (arXiv 2302.06675), algorithm 2; the sign of 0 is 0.

    w - lr (sign(beta1 m + (1 - beta1) g) + weight_decay w);  m' = beta2 m + (1 - beta2) g.
    """

    kind = "lion"
    operands = ("w", "m", "dw", "lr", "phase")
    results = ("w", "m")
    suffixes = ("", ".m")
    overwrites = {0: 0, 1: 1}

    def updated(self, inputs: Sequence[Array], lr: Array, attrs: Attrs) -> list[Array]:
        w, m, g, *_ = inputs
        kind = w.dtype.type
        beta1, beta2 = attrs["beta1"], attrs["beta2"]
        direction = np.sign(kind(beta1) * m + kind(1 - beta1) * g) + kind(attrs["weight_decay"]) * w
        return [w - lr * direction, kind(beta2) * m + kind(1 - beta2) * g]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (w, m, g, *_), lr, zero = inputs, rate(te, inputs, attrs), te.const(0)

        def mixed(beta: float, *i: Expr) -> Expr:
            return te.const(beta) * m[i] + te.const(1 - beta) * g[i]

        def step(*i: Expr) -> Expr:
            ahead = mixed(attrs["beta1"], *i)
            sign = te.where(ahead > zero, te.const(1), te.where(ahead < zero, te.const(-1), zero))
            return w[i] - lr * decayed(te, w[i], sign, attrs)

        w_new = new(te, inputs, types, attrs, 0, step, "w")
        return [w_new, new(te, inputs, types, attrs, 1, lambda *i: mixed(attrs["beta2"], *i), "m")]

    def cases(self) -> list[Case]:
        attrs = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99}
        return [case for decay in (0.0, 0.5) for case in paced((f32(3, 5),) * 3, {**attrs, "weight_decay": decay})]


class _Counter(Update):
    """One number (1) that moves with every update."""

    results = ("c",)
    overwrites = {0: 0}

    def element(self, te: Te, c: Expr, attrs: Attrs) -> Expr:
        """The next number."""
        raise NotImplementedError

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        return [new(te, inputs, types, attrs, 0, lambda i: self.element(te, inputs[0][i], attrs), "c")]


class BiasCorrection(_Counter):
    """c (1) -> beta c + (1 - beta): after t steps 1 - beta^t, without the cancellation of subtracting a power."""

    kind = "bias_correction"
    operands = ("c", "phase")

    def updated(self, inputs: Sequence[Array], lr: Array, attrs: Attrs) -> list[Array]:
        c, kind = inputs[0], inputs[0].dtype.type
        return [kind(attrs["beta"]) * c + kind(1 - attrs["beta"])]

    def element(self, te: Te, c: Expr, attrs: Attrs) -> Expr:
        return te.const(attrs["beta"]) * c + te.const(1 - attrs["beta"])

    def cases(self) -> list[Case]:
        attrs = {"beta": 0.999}
        return [Case((f32(1),), attrs), *(Case((f32(1),) * 2, {**attrs, "every": every}) for every in (2, 3))]


class Count(_Counter):
    """c (1) -> c + 1; exact up to 2^24, where it stays."""

    kind = "count"
    operands = ("c", "phase")

    def updated(self, inputs: Sequence[Array], lr: Array, attrs: Attrs) -> list[Array]:
        return [inputs[0] + inputs[0].dtype.type(1)]

    def element(self, te: Te, c: Expr, attrs: Attrs) -> Expr:
        return c + te.const(1)

    def cases(self) -> list[Case]:
        return [Case((f32(1),)), *(Case((f32(1),) * 2, {"every": every}) for every in (2, 3))]
