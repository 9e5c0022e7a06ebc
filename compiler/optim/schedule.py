"""Schedules: the learning rate as a function of the number of updates, computed on the board once a step.

`warmup` belongs to the optimizer and goes with every schedule: update t (from 0) of the first `warmup` has the rate
lr (t + 1) / warmup. The schedule begins after them. What it computes, with which error, is said in `ops/rate.py`.
"""

from dataclasses import asdict, dataclass
from typing import ClassVar

from strop.compiler.ir import Builder
from strop.compiler.optim import checks
from strop.errors import UsageError


@dataclass(frozen=True)
class Schedule:
    """A frozen dataclass of settings. kind: of the op that computes the rate; its attributes are the settings."""

    kind: ClassVar[str]

    def check(self, warmup: int) -> None:
        """Raise UsageError for a warm-up that leaves no time for the schedule."""

    def emit(self, b: Builder, step: str, name: str, lr: float, warmup: int) -> str:
        """Emit the rate, (1), of the update that `step` others came before."""
        return b.emit1(self.kind, (step,), name, lr=lr, warmup=warmup, **asdict(self))


@dataclass(frozen=True)
class Constant(Schedule):
    """The learning rate stays. Without a warm-up it is a literal in the code, and nothing is counted."""

    kind = "constant_rate"


@dataclass(frozen=True)
class StepDecay(Schedule):
    """Every `every` updates the rate shrinks to `factor` of itself, factor in (0, 1] (torch's StepLR)."""

    kind = "step_rate"

    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        checks.count(1, every=self.every)
        checks.positive(factor=self.factor)
        checks.share(factor=self.factor)


@dataclass(frozen=True)
class _Decay(Schedule):
    """From lr at the end of the warm-up to `final` lr, final in [0, 1], at update `steps`; there it stays.

    steps: updates in all, the warm-up's included.
    """

    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        checks.count(1, steps=self.steps)
        checks.share(final=self.final)

    def check(self, warmup: int) -> None:
        """The end comes after the warm-up."""
        if self.steps <= warmup:
            raise UsageError(
                f"a schedule of {self.steps} steps ends before its warm-up of {warmup}",
                do="Count the warm-up among the schedule's steps",
            )


@dataclass(frozen=True)
class Linear(_Decay):
    """A straight line from lr down to `final` lr at update `steps`, the warm-up included."""

    kind = "linear_rate"


@dataclass(frozen=True)
class Cosine(_Decay):
    """Half a cosine from lr down to `final` lr at update `steps`, the warm-up included (arXiv 1608.03983, eq. 5)."""

    kind = "cosine_rate"
