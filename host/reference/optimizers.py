"""torch.optim behind the names that a board gives to its optimizer states, with what comes before and around it.

    gradient -> mean over `accumulate` steps -> clip_grad_value_ -> clip_grad_norm_ of each tensor, then of all together
             -> optimizer

The learning rate of each update is set from the schedule's equation.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from strop.compiler import optim

Array = NDArray[Any]


SCHEDULES = (optim.Constant, optim.StepDecay, optim.Linear, optim.Cosine)
"""Those whose equation is here."""


def learning_rate(settings: optim.Optimizer, updates: int) -> float:
    """The rate of the update that `updates` others came before."""
    schedule, warmup = settings.schedule, settings.warmup
    if updates < warmup:
        return settings.lr * (updates + 1) / warmup
    match schedule:
        case optim.StepDecay(every=every, factor=factor):
            return settings.lr * factor ** ((updates - warmup) // every)
        case optim.Linear(steps=steps, final=final):
            return settings.lr + settings.lr * (final - 1) * passed(updates, warmup, steps)
        case optim.Cosine(steps=steps, final=final):
            low, angle = settings.lr * final, math.pi * passed(updates, warmup, steps)
            return low + (settings.lr - low) * (1 + math.cos(angle)) / 2
    return settings.lr


def passed(updates: int, warmup: int, steps: int) -> float:
    """How much of the time between warm-up and end is over, 0 to 1."""
    return min((updates - warmup) / (steps - warmup), 1.0)


class TorchOptimizer:
    """A torch optimizer over named parameters whose states can be read and set.

    buffers: torch's name of a state of each parameter, by the suffix that the board gives it.
    """

    def __init__(
        self,
        settings: optim.Optimizer,
        optimizer: torch.optim.Optimizer | None,
        parameters: Mapping[str, nn.Parameter],
        buffers: Mapping[str, str],
    ) -> None:
        self.settings, self.optimizer, self.parameters = settings, optimizer, dict(parameters)
        self.updates, self.phase = 0, 0
        self.buffers: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            for suffix, key in buffers.items():
                self.buffers[f"{name}.{suffix}"] = state = torch.zeros_like(parameter, requires_grad=False)
                self.states(parameter)[key] = state
            if settings.accumulate > 1:
                self.buffers[f"{name}.gradient"] = torch.zeros_like(parameter, requires_grad=False)

    def states(self, parameter: nn.Parameter) -> dict[str, Any]:
        """Torch's states of one parameter."""
        states: dict[str, Any] = self.optimizer.state[parameter] if self.optimizer else {}
        return states

    def step(self) -> None:
        """Update every parameter that has a gradient, or add it to the sum until there are enough."""
        if not self.optimizer:
            return
        if self.settings.accumulate > 1 and not self._accumulated():
            return
        self.move()
        self.updates += 1

    def move(self) -> None:
        """Update every parameter that has a gradient, at the rate of this step."""
        assert self.optimizer
        learning = [parameter for parameter in self.parameters.values() if parameter.grad is not None]
        for parameter in learning:
            if self.settings.clip_value is not None:
                clip_grad_value_([parameter], self.settings.clip_value)
            if self.settings.clip_norm is not None:
                clip_grad_norm_([parameter], self.settings.clip_norm)
        if self.settings.clip_global_norm is not None:
            clip_grad_norm_(learning, self.settings.clip_global_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.updates)
        self.optimizer.step()

    def _accumulated(self) -> bool:
        """Add the gradients to their sums; at the end of an accumulation, the means become the gradients."""
        n = self.settings.accumulate
        self.phase = self.phase % n + 1
        for name, parameter in self.parameters.items():
            total = self.buffers[f"{name}.gradient"]
            if self.phase == 1:
                total.zero_()
            if parameter.grad is not None:
                total.add_(parameter.grad, alpha=1 / n)
                parameter.grad = total.clone()
        return self.phase == n

    def state(self) -> dict[str, Array]:
        """A copy of all states."""
        counts = {"optim.step": np.array([float(self.updates)]), "optim.phase": np.array([float(self.phase)])}
        return {**counts, **{name: buffer.numpy().copy() for name, buffer in self.buffers.items()}}

    def load(self, name: str, data: Array) -> None:
        """Overwrite one state."""
        if name == "optim.step":
            self.updates = int(data.item())
        elif name == "optim.phase":
            self.phase = int(data.item())
        else:
            self.buffers[name].copy_(torch.as_tensor(data))

    def decided(self, name: str, result: Array, ours: Array) -> Array:
        """A parameter after a step, where an update jumps taken at that side of a jump which is nearer to `ours`.

        result: this optimizer's own.  Only sides that rounding decides count, and only Lion jumps.
        """
        del name, ours
        return result


class TorchAdam(TorchOptimizer):
    """Adam. Torch counts steps t where the board keeps 1 - beta^t."""

    def __init__(self, settings: optim.Adam, parameters: Mapping[str, nn.Parameter]) -> None:
        adam = torch.optim.Adam(
            parameters.values(), lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.eps,
            weight_decay=settings.weight_decay,
        ) if parameters else None  # fmt: skip
        super().__init__(settings, adam, parameters, {"m": "exp_avg", "v": "exp_avg_sq"})
        self.betas = {"adam.c1": settings.beta1, "adam.c2": settings.beta2}
        self.steps = [self.states(parameter).setdefault("step", torch.tensor(0.0)) for parameter in parameters.values()]

    def state(self) -> dict[str, Array]:
        """A copy of both moments and the two corrections."""
        t = max((float(step) for step in self.steps), default=0.0)
        return {**super().state(), **{name: np.array([1 - beta**t]) for name, beta in self.betas.items()}}

    def load(self, name: str, data: Array) -> None:
        """Overwrite one state; the slower correction tells the number of steps, until it is 1 but for rounding."""
        if name not in self.betas:
            super().load(name, data)
        elif self.betas[name] == max(self.betas.values()):
            beta = max(self.betas[name], 1e-30)
            t = round(math.log(max(1 - float(data.reshape(())), 1e-9)) / math.log(beta))
            for step in self.steps:
                step.fill_(t)


UNDECIDED = (1e-4, 1e-6)
"""Where rounding to float32 may decide a sign: below this share of the tensor's largest mixed momentum, or below this
change of it by the gradient."""


@dataclass(frozen=True)
class Jump:
    """Lion's last update of a tensor. middle: the parameter, had it only decayed.  undecided: where.  lr: the move."""

    middle: Array
    undecided: Array
    lr: float


class LionEquations(torch.optim.Optimizer):
    """Lion (arXiv 2302.06675, algorithm 2), which torch does not have; betas (b1, b2), decoupled decay wd.

    p *= 1 - lr wd;  p -= lr sign(b1 m + (1 - b1) g);  m = b2 m + (1 - b2) g.
    """

    def __init__(self, params: Iterable[nn.Parameter], settings: optim.Lion) -> None:
        super().__init__(params, {"lr": settings.lr})
        self.settings = settings
        self.jumps: dict[nn.Parameter, Jump] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of each parameter that has a gradient."""
        del closure
        b1, b2 = self.settings.beta1, self.settings.beta2
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                m, lr = self.state[p]["momentum"], group["lr"]
                mixed = b1 * m + (1 - b1) * p.grad
                p.mul_(1 - lr * self.settings.weight_decay)
                limit = UNDECIDED[0] * mixed.abs().max() + UNDECIDED[1] * (1 - b1)
                self.jumps[p] = Jump(p.numpy().copy(), (mixed.abs() <= limit).numpy(), lr)
                p.sub_(torch.sign(mixed), alpha=lr)
                m.copy_(b2 * m + (1 - b2) * p.grad)


class TorchLion(TorchOptimizer):
    """Lion by its equations."""

    def __init__(self, settings: optim.Lion, parameters: Mapping[str, nn.Parameter]) -> None:
        self.lion = LionEquations(parameters.values(), settings) if parameters else None
        super().__init__(settings, self.lion, parameters, {"m": "momentum"})

    def step(self) -> None:
        """As all optimizers; without an update, nothing jumps."""
        if self.lion:
            self.lion.jumps.clear()
        super().step()

    def decided(self, name: str, result: Array, ours: Array) -> Array:
        """Where the sign is undecided, the nearest of the three places that sign -1, 0 and 1 lead to."""
        jump = self.lion.jumps.get(self.parameters[name]) if self.lion and name in self.parameters else None
        if jump is None:
            return result
        places = jump.middle + jump.lr * np.array([-1, 0, 1]).reshape(-1, *(1,) * result.ndim)
        nearest = np.abs(places - ours).argmin(0)
        return np.where(jump.undecided, np.take_along_axis(places, nearest[None], 0)[0], result)


def torch_optimizer(settings: optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> TorchOptimizer | None:
    """The torch optimizer of the same equations; None for one that has no reference."""
    if type(settings) not in (optim.SGD, optim.Adam, optim.Lion) or type(settings.schedule) not in SCHEDULES:
        return None
    if isinstance(settings, optim.Adam):
        return TorchAdam(settings, parameters)
    if isinstance(settings, optim.Lion):
        return TorchLion(settings, parameters)
    assert isinstance(settings, optim.SGD)
    sgd = torch.optim.SGD(
        parameters.values(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    ) if parameters else None  # fmt: skip
    return TorchOptimizer(settings, sgd, parameters, {"velocity": "momentum_buffer"} if settings.momentum else {})
