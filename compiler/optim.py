"""Optimizers: a gradient becomes an in-place update; state is declared beside the parameter it serves."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from strop.compiler.ir import Attr, Builder, Role
from strop.compiler.ops.base import f32
from strop.errors import UsageError


class Optimizer(Protocol):
    """Turns gradients into updates. A frozen dataclass whose fields are its hyper-parameters."""

    def start(self, b: Builder) -> None:
        """Emit what happens once a step, before any update."""

    def update(self, b: Builder, param: str, grad: str, loc: str) -> None:
        """Emit the update of one parameter, overwriting it."""


def _state(b: Builder, name: str, like: str) -> str:
    value = b.values[like]
    return b.value(name, value.type, Role.STATE, value.loc, np.zeros(value.shape))


def _positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not (np.isfinite(number) and number > 0):
            raise UsageError(f"{name} must be a positive number, not {number}")


def _fraction(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 <= number < 1:
            raise UsageError(f"{name} must lie in [0, 1), not {number}")


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent. lr > 0; weight_decay >= 0 (added to the gradient); momentum in [0, 1)."""

    lr: float = 0.01
    weight_decay: float = 0.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        _positive(lr=self.lr)
        _fraction(momentum=self.momentum, weight_decay=self.weight_decay)

    def start(self, b: Builder) -> None:
        """Nothing to do."""

    def update(self, b: Builder, param: str, grad: str, loc: str) -> None:
        """w -= lr g, or through a velocity of the parameter's shape."""
        attrs: dict[str, Attr] = {"lr": self.lr, "weight_decay": self.weight_decay}
        if not self.momentum:
            b.update("sgd", (param, grad), (param,), loc=loc, **attrs)
            return
        velocity = _state(b, f"{param}.velocity", param)
        b.update("momentum", (param, velocity, grad), (velocity, param), loc=loc, momentum=self.momentum, **attrs)


@dataclass(frozen=True)
class Adam:
    """Adam (arXiv 1412.6980). Two moments of each parameter's shape and two scalars of state."""

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _positive(lr=self.lr, eps=self.eps)
        _fraction(beta1=self.beta1, beta2=self.beta2, weight_decay=self.weight_decay)

    def start(self, b: Builder) -> None:
        """Advance 1 - beta^t."""
        for name, beta in (("adam.c1", self.beta1), ("adam.c2", self.beta2)):
            b.value(name, f32(1), Role.STATE, data=np.zeros(1))
            b.update("bias_correction", (name,), (name,), beta=beta)

    def update(self, b: Builder, param: str, grad: str, loc: str) -> None:
        """Update both moments and the parameter."""
        m, v = _state(b, f"{param}.m", param), _state(b, f"{param}.v", param)
        b.update(
            "adam", (param, m, v, "adam.c1", "adam.c2", grad), (m, v, param), loc=loc,
            lr=self.lr, beta1=self.beta1, beta2=self.beta2, eps=self.eps, weight_decay=self.weight_decay,
        )  # fmt: skip


OPTIMIZERS = {"sgd": SGD, "adam": Adam}
