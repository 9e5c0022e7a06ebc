"""Sparse update: backpropagation on a choice of parameters, by name or by what a budget of memory pays for.

What is not chosen is constant: its gradient, its optimizer state and the activations that only its gradient would read
do not exist.
"""

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from strop.compiler.ir import Program, Role
from strop.compiler.liveness import aliases
from strop.compiler.optim import Optimizer
from strop.compiler.passes.simplify import simplify
from strop.compiler.rules.backprop import Backprop
from strop.compiler.rules.base import about
from strop.errors import RuleError, nearest


@dataclass(frozen=True)
class Sparse(Backprop):
    """Backpropagation that updates some parameters.

    update: names or shell patterns of those that learn.  budget: bytes instead; from the last layer back, every
    parameter learns that they pay for, at the price of its optimizer state and of what its gradient needs of the
    forward pass (activations, signs, places; the network's input is there anyway).  One of the two must be given.
    """

    name = "sparse"
    refuses = "budgets that pay for no parameter"

    update: tuple[str, ...] = field(default=(), metadata=about("names or patterns", "parameters that learn"))
    budget: int = field(default=0, metadata=about("bytes", "instead: memory that training may take"))

    def __post_init__(self) -> None:
        if bool(self.update) == bool(self.budget) or self.budget < 0:
            raise RuleError("sparse needs to know what to update", do="Give names or a budget in bytes, one of the two")

    def frozen(self, program: Program) -> set[str]:
        """What no pattern chooses, and what the user froze besides."""
        params = [value.name for value in program.of(Role.PARAM)]
        for pattern in self.update:
            if not any(fnmatchcase(name, pattern) for name in params):
                raise RuleError(f"no parameter matches {pattern!r} in the update list", do=nearest(pattern, params))
        kept = {name for name in params if not any(fnmatchcase(name, pattern) for pattern in self.update)}
        return kept | super().frozen(program)

    def apply(self, program: Program, loss: str, optimizer: Optimizer) -> Program:
        """Return the Program with a train step. Raises RuleError for a budget that pays for no parameter."""
        if not self.budget:
            return super().apply(program, loss, optimizer)
        chosen: tuple[str, ...] = ()
        best, least = None, 0
        for name in self._candidates(program):
            trained = replace(self, update=(*chosen, name), budget=0).apply(program, loss, optimizer)
            price = training_bytes(trained, len(program.infer))
            least = min(least or price, price)
            if price <= self.budget:
                chosen, best = (*chosen, name), trained
        if best is None:
            raise RuleError(f"no parameter can be trained with {self.budget} bytes", do=f"Give at least {least}")
        return best

    def _candidates(self, program: Program) -> list[str]:
        """Parameters that may learn, from the last use back; a layer's bias, which costs less, before its weight."""
        fixed = super().frozen(program)
        names = dict.fromkeys(name for op in reversed(program.infer) for name in reversed(op.inputs))
        return [name for name in names if program.values[name].role is Role.PARAM and name not in fixed]


def training_bytes(trained: Program, forward: int) -> int:
    """Bytes that training needs beside those of inference: states, and what is read later of the forward pass.

    trained: with a train step whose first `forward` ops are the forward pass.
    """
    made = {name for op in trained.train_step[:forward] for name in op.outputs} - {trained.output}
    step = simplify(trained).train_step
    root = aliases(step)
    first = next(i for i, op in enumerate(step) if trained.loss in op.outputs)
    kept = {root.get(name, name) for op in step[first:] for name in op.inputs if name in made}
    held = [trained.values[name].bytes for name in kept if trained.values[name].role is Role.ACT]
    return sum(held) + sum(value.bytes for value in trained.of(Role.STATE))
