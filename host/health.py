"""Watches a run for numbers that go wrong, and says so in words while the run can still be saved."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite, nan

from strop.host.wire import Stats

START = 3
"""First steps, before much is learned, whose mean loss later ones are compared with."""

GROWTH, AFTER = 2.0, 20
"""Times that mean at which a running mean is said to grow, and steps before which it says nothing."""

SHARE = 0.01
"""Share of steps with an error beyond its format's range that is worth a word."""


@dataclass
class Watch:
    """What one run has shown so far; every warning comes once. say: takes a sentence."""

    say: Callable[[str], None]
    first: float = 0.0
    """Mean loss of the first steps, by which a run that does not learn can be told."""
    mean: float = nan
    """Running mean of the loss."""
    seen: int = 0
    said: set[str] = field(default_factory=set)

    def step(self, step: int, loss: float) -> None:
        """Take in the loss of a step, counted from 1."""
        if not isfinite(loss):
            what = "infinite" if loss in (float("inf"), -float("inf")) else "NaN"
            self._once("lost", f"The loss of step {step} is {what}: the parameters are no use any more. Go back to a"
                       " checkpoint, with a smaller --lr, or with --clip-value.")  # fmt: skip
            return
        self.seen += 1
        self.mean = loss if self.seen == 1 else self.mean + 0.05 * (loss - self.mean)
        if self.seen <= START:
            self.first += (loss - self.first) / self.seen
        elif self.seen > AFTER and self.mean > GROWTH * self.first:
            self._once("grows", f"The loss has grown from {self.first:.3g} to {self.mean:.3g} by step {step}: a smaller"
                       " --lr or a --clip-value may save the run.")  # fmt: skip

    def stats(self, stats: Stats) -> None:
        """Take in the board's counters."""
        if stats.skipped > SHARE * stats.steps:
            self._once("skipped", f"Updates were skipped in {stats.skipped:,} of {stats.steps:,} steps, whose errors"
                       " were too large for 16 bits; the error scale goes down by itself.")  # fmt: skip
        elif stats.saturated > SHARE * stats.steps:
            self._once("saturated", f"In {stats.saturated:,} of {stats.steps:,} steps an error was too large for 16"
                       " bits and was cut: give a smaller --error-scale, or dynamic.")  # fmt: skip

    def _once(self, what: str, sentence: str) -> None:
        if what not in self.said:
            self.said.add(what)
            self.say(f"warning: {sentence}")
