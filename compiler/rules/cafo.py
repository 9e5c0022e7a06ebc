"""CaFo (Zhao et al., arXiv 2303.09728), with random blocks: only linear heads learn, one on each layer.

Hidden layers keep their initial weights. Each has a head W_l (K,n) without bias that minimises the task loss of
W_l a_l; the output layer is the last head. The prediction is the sum of softmax(W_l a_l) over all heads.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from strop.compiler.dtypes import INT32
from strop.compiler.ir import Builder, Program, Role
from strop.compiler.rules.base import Block, Rule, Task, about, layerwise
from strop.compiler.rules.local import check_grid, head, head_name, rows
from strop.errors import RuleError


@dataclass(frozen=True)
class CaFo(Rule):
    """Linear heads on random layers, for classifiers; `infer` answers the sum of the heads' probabilities.

    grid: cells along each axis of an image. A head is a state `<weight>.head` of (K,n) float32, n the units, or grid^2
    times the channels. It starts at zero, which learns as the ones of the paper do: equal logits for every class.
    """

    name = "cafo"
    source = "arXiv 2303.09728"
    refuses = "tasks without classes, layers that run at every step of a sequence"
    heads: ClassVar[bool] = True

    grid: int = field(default=4, metadata=about("≥ 1", "cells along each axis of an image that a head sees"))

    def __post_init__(self) -> None:
        check_grid(self.grid)

    def frozen(self, program: Program) -> set[str]:
        """Everything but the last layer, and what the user froze besides."""
        last = layerwise(program)[-1].params
        return {value.name for value in program.of(Role.PARAM) if value.name not in last} | super().frozen(program)

    def emit_objective(self, b: Builder, block: Block, task: Task) -> str:
        """The task loss of the head."""
        seen = rows(b, block, self.grid)
        matrix = head(b, block, seen, b.values[task.output].shape[1])
        answer = b.emit1("dense", (seen, matrix), f"{block.output}.answer", loc=block.loc)
        return task.emit(b, answer, f"{block.output}.objective")

    def predict(self, b: Builder, program: Program, task: Task) -> str:
        """Emit the sum of all heads' softmax. Raises RuleError for a task without classes."""
        if b.values[task.label].dtype is not INT32:
            raise RuleError("CaFo adds up probabilities of classes, and this task has none",
                            do="Use the cross_entropy loss, or another rule, such as mono-forward")  # fmt: skip
        *hidden, _ = self.cut(program)
        b.ops.extend(program.infer)
        answers = [
            b.emit1("dense", (rows(b, block, self.grid), head_name(block)), f"{block.output}.answer", loc=block.loc)
            for block in hidden
        ]
        total, *shares = [b.emit1("softmax", (answer,), f"{answer}.share") for answer in [*answers, program.output]]
        for share in shares:
            total = b.emit1("add", (total, share), "prediction")
        return total
