"""tpSGD: every layer learns towards a fixed random projection of the label (arXiv 2208.08503).

Hidden layer l minimises J(a_l, P_l y*), P_l fixed and random; the output layer minimises the task loss. Nothing passes
back from layer to layer. A convolution's target sits on its channel means, a recurrent layer's on its last step.
"""

from dataclasses import dataclass, field

from strop.compiler import rng as generator
from strop.compiler.dtypes import FLOAT32
from strop.compiler.ir import Attr, Builder
from strop.compiler.ops import spec
from strop.compiler.rules.base import Block, Rule, Task, about
from strop.compiler.rules.local import check_strength, rows
from strop.errors import RuleError, nearest

OBJECTIVES = ("l2", "l1", "cosine", "huber")


@dataclass(frozen=True)
class TpSGD(Rule):
    """Target projection SGD.

    objective: 'l2' (delta = strength (a - t)), 'l1' (delta = strength sign(a - t)), 'huber' (a - t limited to +-delta)
    or 'cosine' (1 - cos(a, t), which leaves lengths free).  strength: weight of the hidden layers' objectives beside
    the task loss; under SGD, the ratio of their learning rates.  delta: of huber.
    """

    name = "tpsgd"
    source = "arXiv 2208.08503"
    refuses = "layers that run at every step of a sequence"

    objective: str = field(default="l2", metadata=about(", ".join(OBJECTIVES), "between an activity and its target"))
    strength: float = field(default=1.0, metadata=about("> 0", "weight of the objectives beside the task loss"))
    delta: float = field(default=0.5, metadata=about("> 0", "of huber: where it becomes a straight line"))

    def __post_init__(self) -> None:
        check_strength(self.strength)
        if self.objective == "cross_entropy":
            raise RuleError("tpSGD compares an activity with a target, and cross_entropy with a label",
                            do="Use the rule fixed-m, which is cross_entropy on a random projection")  # fmt: skip
        if self.objective not in OBJECTIVES:
            raise RuleError(f"tpSGD has no objective {self.objective!r}", do=nearest(self.objective, OBJECTIVES))
        if not self.delta > 0:
            raise RuleError(f"huber's delta must be positive, not {self.delta}")

    def emit_objective(self, b: Builder, block: Block, task: Task) -> str:
        """J(a, t) on what is seen of a layer."""
        activity = rows(b, block)
        attrs: dict[str, Attr] = {"strength": self.strength}
        if self.objective == "huber":
            attrs["delta"] = self.delta
        inputs, name = (activity, self._target(b, block, activity, task)), f"{block.output}.objective"
        return b.emit1(self.objective, inputs, name, loc=block.loc, **attrs)

    def _target(self, b: Builder, block: Block, activity: str, task: Task) -> str:
        """t = P y*, the same bits on every machine; the stream is named after the layer's weight."""
        name, loc = f"{block.output}.target", block.loc
        low, high = next(filter(None, (spec(op.kind).reach for op in reversed(block.ops))), (-0.9, 0.9))
        units, key = b.values[activity].shape[1], generator.tensor_key(f"{block.weight}.target")
        stream: dict[str, Attr] = {"units": units, "seed": self.seed, "tensor": key}
        if b.values[task.label].dtype is FLOAT32:
            return b.emit1("random_projection", (task.label,), name, loc=loc, scale=high, **stream)
        classes = b.values[task.output].shape[1]
        return b.emit1("random_target", (task.label,), name, loc=loc, classes=classes, low=low, high=high, **stream)
