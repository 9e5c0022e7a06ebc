"""Lion: the sign of an interpolated momentum (arXiv 2302.06675, algorithm 2)."""

from dataclasses import dataclass

from strop.compiler.ir import Builder
from strop.compiler.optim import checks
from strop.compiler.optim.base import Optimizer, state


@dataclass(frozen=True)
class Lion(Optimizer):
    """Lion. One moment of each parameter's shape; every weight moves by lr.

    beta1, beta2 in [0, 1); weight_decay >= 0, apart from the gradient: a step shrinks w by lr weight_decay w. Lion
    takes a learning rate 3 to 10 times smaller than Adam, a decay as much larger, and likes large batches: see
    `accumulate`.
    """

    lr: float = 0.0001
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.fraction(beta1=self.beta1, beta2=self.beta2)
        checks.not_negative(weight_decay=self.weight_decay)

    def descend(self, b: Builder, param: str, grad: str, loc: str) -> None:
        """Update the parameter by the old moment, then the moment."""
        m = state(b, f"{param}.m", param)
        self.step(
            b, "lion", (param, m, grad), (param, m), loc,
            beta1=self.beta1, beta2=self.beta2, weight_decay=self.weight_decay,
        )  # fmt: skip
