"""Stochastic gradient descent, with momentum and weight decay (as torch.optim.SGD)."""

from dataclasses import dataclass

from strop.compiler.ir import Builder
from strop.compiler.optim import checks
from strop.compiler.optim.base import Optimizer, state


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent. lr > 0; weight_decay in [0, 1) (added to the gradient); momentum in [0, 1)."""

    lr: float = 0.01
    weight_decay: float = 0.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.fraction(momentum=self.momentum, weight_decay=self.weight_decay)

    def descend(self, b: Builder, param: str, grad: str, loc: str) -> None:
        """w -= lr g, or through a velocity of the parameter's shape."""
        if not self.momentum:
            self.step(b, "sgd", (param, grad), (param,), loc, weight_decay=self.weight_decay)
            return
        velocity = state(b, f"{param}.velocity", param)
        self.step(
            b, "momentum", (param, velocity, grad), (velocity, param), loc,
            momentum=self.momentum, weight_decay=self.weight_decay,
        )  # fmt: skip
