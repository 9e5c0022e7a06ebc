"""Gradient-isolated blocks: groups of layers, back-propagation inside each, the task loss on a local head at its end.

One knob from backpropagation (one block) to Mono-Forward (a block a layer). A step needs the activations of the largest
block instead of those of all layers.
"""

from dataclasses import dataclass, field
from itertools import pairwise

from strop.compiler.ir import Program
from strop.compiler.rules.base import Block, about, layerwise, trainable
from strop.compiler.rules.mono_forward import MonoForward
from strop.errors import RuleError


@dataclass(frozen=True)
class Blocks(MonoForward):
    """Backpropagation inside n groups of neighbouring layers, as equal in number of layers as possible.

    n: groups, 1 to the number of layers.  Heads as in Mono-Forward, on the last layer of each group but the last.
    """

    name = "blocks"
    refuses = "layers that run at every step of a sequence, at the end of a block"

    n: int = field(default=2, metadata=about("1 to the layers", "groups, cut off from each other"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n < 1:
            raise RuleError(f"a network cannot be cut into {self.n} blocks", do="Give at least 1")

    def cut(self, program: Program) -> list[Block]:
        """Layers of group i: floor(i L / n) to floor((i + 1) L / n) - 1."""
        layers = layerwise(program)
        if self.n > len(layers):
            raise RuleError(f"{len(layers)} layers cannot make {self.n} blocks", do=f"Give at most {len(layers)}")
        ends = [i * len(layers) // self.n for i in range(self.n + 1)]
        groups = [[op for layer in layers[first:end] for op in layer.ops] for first, end in pairwise(ends)]
        return [Block(tuple(ops), trainable(program, ops)) for ops in groups]
