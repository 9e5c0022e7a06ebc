"""Fixed M: every layer learns the task on a fixed random read-out of its own activity.

Hidden layer l minimises the task loss of M_l a_l, M_l (K,n) fixed and random, entries +-1/sqrt(n) from the generator: 0
bytes. Under cross-entropy, da = M^T (softmax(M a) - y*), as in TinyFoA (Huang et al., AAAI 2025). The output layer
minimises the task loss; nothing passes back from layer to layer. An image is seen as the means over a grid.
"""

from dataclasses import dataclass, field
from math import sqrt

from strop.compiler import rng as generator
from strop.compiler.ir import Builder
from strop.compiler.rules.base import Block, Rule, Task, about
from strop.compiler.rules.local import check_grid, rows


@dataclass(frozen=True)
class FixedM(Rule):
    """The task loss on a fixed random read-out of every layer, which costs no memory.

    grid: cells along each axis of an image.  Convolutions need tanh or another bounded activation: with ReLU they were
    measured to end up below convolutions that keep their random weights.
    """

    name = "fixed-m"
    source = "TinyFoA, AAAI 2025"
    refuses = "layers that run at every step of a sequence"

    grid: int = field(default=4, metadata=about("≥ 1", "cells along each axis of an image that a head sees"))

    def __post_init__(self) -> None:
        check_grid(self.grid)

    def emit_objective(self, b: Builder, block: Block, task: Task) -> str:
        """The task loss of M a; the stream of M is named after the layer's weight."""
        seen, loc = rows(b, block, self.grid), block.loc
        answer = b.emit1(
            "random_dense", (seen,), f"{block.output}.answer", loc=loc, units=b.values[task.output].shape[1],
            seed=self.seed, tensor=generator.tensor_key(f"{block.weight}.m"), scale=1 / sqrt(b.values[seen].shape[1]),
        )  # fmt: skip
        return task.emit(b, answer, f"{block.output}.objective")
