"""Adam (arXiv 1412.6980, algorithm 1)."""

from dataclasses import dataclass

from strop.compiler.ir import Builder
from strop.compiler.optim import checks
from strop.compiler.optim.base import Optimizer, counter, state


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam. Two moments of each parameter's shape and two scalars of state.

    beta1, beta2 in [0, 1); eps > 0; weight_decay in [0, 1) (added to the gradient, as torch.optim.Adam).
    """

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.positive(eps=self.eps)
        checks.fraction(beta1=self.beta1, beta2=self.beta2, weight_decay=self.weight_decay)

    def start(self, b: Builder) -> None:
        """Advance 1 - beta^t."""
        super().start(b)
        for name, beta in (("adam.c1", self.beta1), ("adam.c2", self.beta2)):
            self.overwrite(b, "bias_correction", (counter(b, name),), (name,), beta=beta)

    def descend(self, b: Builder, param: str, grad: str, loc: str) -> None:
        """Update both moments and the parameter."""
        m, v = state(b, f"{param}.m", param), state(b, f"{param}.v", param)
        self.step(
            b, "adam", (param, m, v, "adam.c1", "adam.c2", grad), (m, v, param), loc,
            beta1=self.beta1, beta2=self.beta2, eps=self.eps, weight_decay=self.weight_decay,
        )  # fmt: skip
