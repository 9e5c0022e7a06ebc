"""torch.optim behind the names that a board gives to its optimizer states."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from strop.compiler import optim


class TorchOptimizer:
    """A torch optimizer over named parameters whose states can be read and set.

    buffers: torch's name of a state of each parameter, by the suffix that the board gives it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None,
        parameters: Mapping[str, nn.Parameter],
        buffers: Mapping[str, str],
    ) -> None:
        self.optimizer = optimizer
        self.buffers: dict[str, torch.Tensor] = {}
        for name, parameter in parameters.items():
            for suffix, key in buffers.items():
                self.buffers[f"{name}.{suffix}"] = state = torch.zeros_like(parameter, requires_grad=False)
                self.states(parameter)[key] = state

    def states(self, parameter: nn.Parameter) -> dict[str, Any]:
        """Torch's states of one parameter."""
        states: dict[str, Any] = self.optimizer.state[parameter] if self.optimizer else {}
        return states

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        if self.optimizer:
            self.optimizer.step()

    def state(self) -> dict[str, NDArray[Any]]:
        """A copy of all states."""
        return {name: buffer.numpy().copy() for name, buffer in self.buffers.items()}

    def load(self, name: str, data: NDArray[Any]) -> None:
        """Overwrite one state."""
        self.buffers[name].copy_(torch.as_tensor(data))


class TorchAdam(TorchOptimizer):
    """Adam. Torch counts steps t where the board keeps 1 - beta^t."""

    def __init__(self, settings: optim.Adam, parameters: Mapping[str, nn.Parameter]) -> None:
        adam = torch.optim.Adam(
            parameters.values(), lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.eps,
            weight_decay=settings.weight_decay,
        ) if parameters else None  # fmt: skip
        super().__init__(adam, parameters, {"m": "exp_avg", "v": "exp_avg_sq"})
        self.betas = {"adam.c1": settings.beta1, "adam.c2": settings.beta2}
        self.steps = [self.states(parameter).setdefault("step", torch.tensor(0.0)) for parameter in parameters.values()]

    def state(self) -> dict[str, NDArray[Any]]:
        """A copy of both moments and the two corrections."""
        t = max((float(step) for step in self.steps), default=0.0)
        return {**super().state(), **{name: np.array([1 - beta**t]) for name, beta in self.betas.items()}}

    def load(self, name: str, data: NDArray[Any]) -> None:
        """Overwrite one state; the slower correction tells the number of steps, until it is 1 but for rounding."""
        if name not in self.betas:
            super().load(name, data)
        elif self.betas[name] == max(self.betas.values()):
            beta = max(self.betas[name], 1e-30)
            t = round(math.log(max(1 - float(data.reshape(())), 1e-9)) / math.log(beta))
            for step in self.steps:
                step.fill_(t)


def torch_optimizer(settings: optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> TorchOptimizer | None:
    """The torch optimizer of the same equations; None for one that torch does not have."""
    if type(settings) is optim.Adam:
        return TorchAdam(settings, parameters)
    if type(settings) is not optim.SGD:
        return None
    sgd = torch.optim.SGD(
        parameters.values(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    ) if parameters else None  # fmt: skip
    return TorchOptimizer(sgd, parameters, {"velocity": "momentum_buffer"} if settings.momentum else {})
