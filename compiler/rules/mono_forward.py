"""Mono-Forward (Gong, Li & Abdulla, arXiv 2501.09238): every layer learns the task together with a head of its own.

Hidden layer l minimises the task loss of M_l a_l, M_l (K,n) trained beside it: under cross-entropy

    s = softmax(M a) - y*;  dM = s a^T;  da = M^T s

with the old M in both. The output layer minimises the task loss; nothing passes back from layer to layer. An image is
seen as the means over a grid.
"""

from dataclasses import dataclass, field

from strop.compiler.ir import Builder
from strop.compiler.rules.base import Block, Rule, Task, about
from strop.compiler.rules.local import check_grid, head, rows


@dataclass(frozen=True)
class MonoForward(Rule):
    """The task loss on a trained linear head of every layer.

    grid: cells along each axis of an image. A head is a state `<weight>.head` of (K,n) float32, n the units, or grid^2
    times the channels; it starts uniform in +-1/sqrt(n), by the generator, and only training uses it.
    """

    name = "mono-forward"
    source = "arXiv 2501.09238"
    refuses = "layers that run at every step of a sequence"

    grid: int = field(
        default=4, kw_only=True, metadata=about("≥ 1", "cells along each axis of an image that a head sees")
    )

    def __post_init__(self) -> None:
        check_grid(self.grid)

    def emit_objective(self, b: Builder, block: Block, task: Task) -> str:
        """The task loss of M a."""
        seen = rows(b, block, self.grid)
        matrix = head(b, block, seen, b.values[task.output].shape[1], self.seed)
        answer = b.emit1("dense", (seen, matrix), f"{block.output}.answer", loc=block.loc)
        return task.emit(b, answer, f"{block.output}.objective")
