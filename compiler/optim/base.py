"""What all optimizers share: the way of a gradient to its update.

    gradient -> mean over `accumulate` steps -> clip_value -> clip_norm -> clip_global_norm
             -> update at the rate that the schedule gives

What is off leaves no trace: no op, no state. By default the rate is a literal in the code, and the update is fused with
the gradient, which is then never stored.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields

import numpy as np

from strop.compiler.ir import Attr, Builder, Role
from strop.compiler.ops.base import f32
from strop.compiler.optim import checks
from strop.compiler.optim.schedule import Constant, Schedule

RATE = "optim.lr"
"""The learning rate of this update, (1), where it is not a literal."""

STEP = "optim.step"
"""State: updates before this one, (1)."""

PHASE = "optim.phase"
"""State: gradients in the sums, this step's included, (1): 1 to `accumulate`."""

FACTOR = "optim.factor"
"""What the norm of all gradients together leaves of each, (1)."""


@dataclass(frozen=True)
class Optimizer(ABC):
    """Turns gradients into updates. A frozen dataclass whose fields are its hyper-parameters.

    lr: learning rate > 0, the largest of a schedule.  schedule: its course; 4 bytes of state if not constant.  warmup:
    first updates, over which lr rises from lr / warmup; counts in updates, as the schedule does.  clip_value: largest
    magnitude of a gradient's element.  clip_norm: largest norm of each parameter's gradient, which is then stored until
    its update.  clip_global_norm: largest norm of the gradients of all parameters and local heads together (as
    torch.nn.utils.clip_grad_norm_); all are then stored, and every update waits for the last of them.  accumulate:
    steps whose gradients are averaged into one update; needs a sum of each parameter's shape. Clipping applies to the
    average, and states (momentum, moments, schedule) move with updates only.
    """

    lr: float
    schedule: Schedule = field(default=Constant(), kw_only=True)
    warmup: int = field(default=0, kw_only=True)
    clip_value: float | None = field(default=None, kw_only=True)
    clip_norm: float | None = field(default=None, kw_only=True)
    clip_global_norm: float | None = field(default=None, kw_only=True)
    accumulate: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        checks.positive(
            lr=self.lr, clip_value=self.clip_value, clip_norm=self.clip_norm, clip_global_norm=self.clip_global_norm
        )
        checks.count(0, warmup=self.warmup)
        checks.count(1, accumulate=self.accumulate)
        self.schedule.check(self.warmup)

    def __str__(self) -> str:
        """The optimizer's own settings, and of the shared ones those that differ from their defaults."""
        own = [f for f in fields(self) if not f.kw_only]
        shared = [f for f in fields(self) if f.kw_only and getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in [*own, *shared])})"

    @property
    def scheduled(self) -> bool:
        """Whether the rate changes."""
        return self.warmup > 0 or not isinstance(self.schedule, Constant)

    def start(self, b: Builder) -> None:
        """Emit what happens once a step, before any update: count, and compute the rate."""
        if self.accumulate > 1:
            counter(b, PHASE)
            b.update("phase", (PHASE,), (PHASE,), every=self.accumulate)
        if self.scheduled:
            counter(b, STEP)
            self.schedule.emit(b, STEP, RATE, self.lr, self.warmup)
            self.overwrite(b, "count", (STEP,), (STEP,))
        elif self.accumulate > 1:
            b.value(RATE, f32(1), Role.CONST, data=np.array([self.lr]))
        if self.clip_global_norm is not None:
            b.value(FACTOR, f32(1), Role.ACT)

    def update(self, b: Builder, param: str, grad: str, loc: str) -> None:
        """Emit the update of one parameter, overwriting it."""
        if self.accumulate > 1:
            total = state(b, f"{param}.gradient", param)
            b.update("accumulate", (total, grad, PHASE), (total,), loc=loc, every=self.accumulate)
            grad = total
        if self.clip_value is not None:
            grad = b.emit1("clip_value", (grad,), f"{grad}.clipped", loc=loc, limit=self.clip_value)
        if self.clip_norm is not None:
            total = b.emit1("squares", (grad,), f"{grad}.squares", loc=loc)
            factor = b.emit1("clip_factor", (total,), f"{grad}.factor", loc=loc, limit=self.clip_norm)
            grad = b.emit1("scaled", (grad, factor), f"{grad}.scaled", loc=loc)
        if self.clip_global_norm is not None:
            grad = b.emit1("scaled", (grad, FACTOR), f"{grad}.shared", loc=loc)
        self.descend(b, param, grad, loc)

    def finish(self, b: Builder) -> None:
        """Emit what all updates of a step wait for: with `clip_global_norm`, the norm of all gradients together."""
        if self.clip_global_norm is None:
            return
        waiting, late = {FACTOR}, []
        for op in b.ops:
            if waiting.intersection(op.inputs):
                waiting.update(name for name in op.outputs if b.values[name].role is Role.ACT)
                late.append(op)
        b.ops = [op for op in b.ops if op not in late]
        grads = [op.inputs[0] for op in late if FACTOR in op.inputs]
        total, *others = [b.emit1("squares", (grad,), f"{grad}.squares", loc=b.values[grad].loc) for grad in grads]
        for other in others:
            total = b.emit1("add", (total, other), "optim.squares")
        b.update("clip_factor", (total,), (FACTOR,), limit=self.clip_global_norm)
        b.ops += late

    @abstractmethod
    def descend(self, b: Builder, param: str, grad: str, loc: str) -> None:
        """Emit the overwriting of one parameter and its states by the averaged and clipped gradient."""

    def step(
        self, b: Builder, kind: str, inputs: tuple[str, ...], variables: tuple[str, ...], loc: str, **attrs: Attr
    ) -> None:
        """Emit an op that takes the learning rate: as attribute `lr`, or as a value after its inputs."""
        if self.scheduled or self.accumulate > 1:
            self.overwrite(b, kind, (*inputs, RATE), variables, loc, **attrs)
        else:
            self.overwrite(b, kind, inputs, variables, loc, lr=self.lr, **attrs)

    def overwrite(
        self, b: Builder, kind: str, inputs: tuple[str, ...], variables: tuple[str, ...], loc: str = "", **attrs: Attr
    ) -> None:
        """Emit an op that overwrites variables, at the end of an accumulation if there is one."""
        if self.accumulate > 1:
            inputs, attrs = (*inputs, PHASE), {**attrs, "every": self.accumulate}
        b.update(kind, inputs, variables, loc=loc, **attrs)


def state(b: Builder, name: str, like: str) -> str:
    """Declare a state of a parameter's shape, zero at start."""
    value = b.values[like]
    return b.value(name, value.type, Role.STATE, value.loc, np.zeros(value.shape))


def counter(b: Builder, name: str) -> str:
    """Declare a state of one number, zero at start."""
    return b.value(name, f32(1), Role.STATE, data=np.zeros(1))
