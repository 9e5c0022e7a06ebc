"""Head-only training: the last layer learns the task, everything before it keeps its weights."""

from dataclasses import dataclass

from strop.compiler.ir import Program, Role
from strop.compiler.rules.backprop import Backprop
from strop.compiler.rules.base import layerwise
from strop.errors import RuleError


@dataclass(frozen=True)
class HeadOnly(Backprop):
    """Backpropagation that stops at the last layer with weights."""

    name = "head-only"
    refuses = "a last layer that shares its weights"

    def frozen(self, program: Program) -> set[str]:
        """Everything but the last layer, and what the user froze besides; refuses a head that is shared."""
        *earlier, head = layerwise(program)
        fixed = super().frozen(program)
        for name in head.params:
            if name not in fixed and any(name in block.params for block in earlier):
                raise RuleError(f"the last layer shares {name} with an earlier one, which must keep its weights",
                                where=head.loc, do=f"Use backprop, or freeze {name}")  # fmt: skip
        return {value.name for value in program.of(Role.PARAM) if value.name not in head.params} | fixed
