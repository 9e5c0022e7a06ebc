"""Backpropagation: one block, the task loss."""

from dataclasses import dataclass

from strop.compiler.ir import Builder, Program
from strop.compiler.rules.base import Block, Rule, Task, whole


@dataclass(frozen=True)
class Backprop(Rule):
    """Gradient descent on the task loss through the whole network."""

    name = "backprop"
    source = "Rumelhart, Hinton & Williams, Nature 1986"

    def cut(self, program: Program) -> list[Block]:
        """The network is one block."""
        return [whole(program)]

    def emit_objective(self, b: Builder, block: Block, task: Task) -> str:
        """Never asked: the only block ends in the task loss."""
        raise AssertionError(block.output)
