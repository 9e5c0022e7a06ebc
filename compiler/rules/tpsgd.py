"""tpSGD: every layer learns towards a fixed random projection of the label (arXiv 2208.08503).

Hidden layer l minimises J(a_l, P_l y*), P_l fixed and random; the output layer minimises the task loss. Nothing passes
back from layer to layer. A convolution's target sits on its channel means.
"""

from dataclasses import dataclass

from strop.compiler import rng as generator
from strop.compiler.dtypes import FLOAT32
from strop.compiler.ir import Attr, Builder, Program
from strop.compiler.ops import spec
from strop.compiler.rules.base import Block, Rule, Task, layerwise
from strop.errors import RuleError, nearest

OBJECTIVES = ("l2", "l1")


@dataclass(frozen=True)
class TpSGD(Rule):
    """Target projection SGD.

    objective: 'l2' (delta = strength (a - t)) or 'l1' (delta = strength sign(a - t)).  strength: weight of the hidden
    layers' objectives beside the task loss; under SGD, the ratio of their learning rates.
    """

    name = "tpsgd"

    objective: str = "l2"
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not self.strength > 0:
            raise RuleError(f"the strength of tpSGD must be positive, not {self.strength}")
        if self.objective not in OBJECTIVES:
            raise RuleError(f"tpSGD has no objective {self.objective!r}", do=nearest(self.objective, OBJECTIVES))

    def cut(self, program: Program) -> list[Block]:
        """One block a layer."""
        return layerwise(program)

    def emit_objective(self, b: Builder, block: Block, task: Task) -> str:
        """J(a, t) on the units of a dense layer or the channel means of a convolution."""
        activity, loc = block.activity, block.loc
        shape = b.values[activity].shape
        if len(shape) == 4:
            image = shape[2:]
            mean = b.emit1(
                "avg_pool2d", (activity,), f"{activity}.mean", loc=loc, kernel=image, stride=image, padding=(0, 0)
            )
            activity = b.emit1("reshape", (mean,), f"{activity}.channels", loc=loc, shape=shape[:2])
        target = self._target(b, block, activity, task)
        name = f"{block.output}.objective"
        return b.emit1(self.objective, (activity, target), name, loc=loc, strength=self.strength)

    def _target(self, b: Builder, block: Block, activity: str, task: Task) -> str:
        """t = P y*, the same bits on every machine; the stream is named after the layer's weight."""
        name, loc = f"{block.output}.target", block.loc
        low, high = spec(block.ops[-1].kind).reach or (-0.9, 0.9)
        units, key = b.values[activity].shape[1], generator.tensor_key(f"{block.weight}.target")
        stream: dict[str, Attr] = {"units": units, "seed": self.seed, "tensor": key}
        if b.values[task.label].dtype is FLOAT32:
            return b.emit1("random_projection", (task.label,), name, loc=loc, scale=high, **stream)
        classes = b.values[task.output].shape[1]
        return b.emit1("random_target", (task.label,), name, loc=loc, classes=classes, low=low, high=high, **stream)
