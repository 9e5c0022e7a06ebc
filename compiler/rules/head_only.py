"""Head-only training: the last layer learns the task, everything before it keeps its weights."""

from dataclasses import dataclass

from strop.compiler.ir import Program, Role
from strop.compiler.rules.backprop import Backprop
from strop.compiler.rules.base import layerwise


@dataclass(frozen=True)
class HeadOnly(Backprop):
    """Backpropagation that stops at the last layer with weights."""

    name = "head-only"

    def frozen(self, program: Program) -> set[str]:
        """Everything but the last layer, and what the user froze besides."""
        head = layerwise(program)[-1].params
        return {value.name for value in program.of(Role.PARAM) if value.name not in head} | super().frozen(program)
