"""DRTP (Frenkel, Lefebvre & Bol, Frontiers in Neuroscience 2021): the label alone tells hidden layers where to go.

    dJ/da_l = B_l y*    B_l fixed and random: a push of one of two values a unit and class, known before any activity

The output layer minimises the task loss. B's entries are +-sqrt(2/n) for n units, the standard deviation of the paper's
kaiming-uniform, by the generator: 0 bytes. A convolution is pushed at its channel means.
"""

from dataclasses import dataclass, field
from math import sqrt

from strop.compiler import rng as generator
from strop.compiler.dtypes import FLOAT32
from strop.compiler.ir import Attr, Builder
from strop.compiler.ops import spec
from strop.compiler.rules.base import Block, Rule, Task, about
from strop.compiler.rules.local import check_strength, rows
from strop.errors import RuleError

BOUNDED = ("tanh", "sigmoid")
"""Activations that a constant push does not drive without end."""

INSTEAD = "Keep it fixed with --freeze, or use another rule, such as mono-forward"


@dataclass(frozen=True)
class Injected(Rule):
    """A rule that gives hidden layers a direction instead of an objective.

    strength: of the push beside the task loss; under SGD, the ratio of the hidden layers' learning rate to the last's.
    """

    strength: float = field(default=1.0, metadata=about("> 0", "of the push beside the task loss"))

    def __post_init__(self) -> None:
        check_strength(self.strength)


@dataclass(frozen=True)
class DRTP(Injected):
    """Direct random target projection, for fully connected layers, and convolutions with tanh or sigmoid.

    strength: see `Injected`. Needs wide layers, best with tanh. Trained convolutions are often no better than random
    ones that stay.
    """

    name = "drtp"
    source = "Frontiers in Neuroscience 2021, 10.3389/fnins.2021.629892"
    refuses = "recurrent layers, convolutions without tanh or sigmoid, layers that run at every step of a sequence"

    def emit_objective(self, b: Builder, block: Block, task: Task) -> str:
        """<a, B y*>."""
        check_bounded(block, "DRTP")
        if spec(block.ops[-1].kind).activity:
            raise RuleError("DRTP pushes in one direction as long as a label lasts, which saturates recurrent units",
                            where=block.loc, do="Use another rule, such as tpsgd or fixed-m")  # fmt: skip
        activity = rows(b, block)
        direction = self._direction(b, block, activity, task)
        name = f"{block.output}.objective"
        return b.emit1("dot", (activity, direction), name, loc=block.loc, strength=self.strength)

    def _direction(self, b: Builder, block: Block, activity: str, task: Task) -> str:
        """B y*: of a class, a column of B."""
        stream = feedback(b, block, activity, self.seed)
        name, loc = f"{block.output}.push", block.loc
        if b.values[task.label].dtype is FLOAT32:
            return b.emit1("random_projection", (task.label,), name, loc=loc, **stream)
        classes, scale = b.values[task.output].shape[1], float(str(stream.pop("scale")))
        return b.emit1("random_target", (task.label,), name, loc=loc, classes=classes, low=-scale, high=scale, **stream)


def feedback(b: Builder, block: Block, activity: str, seed: int) -> dict[str, Attr]:
    """Attributes of B (n,K) of a layer: its stream is named after the layer's weight."""
    units = b.values[activity].shape[1]
    key = generator.tensor_key(f"{block.weight}.feedback")
    return {"units": units, "seed": seed, "tensor": key, "scale": sqrt(2 / units)}


def check_bounded(block: Block, rule: str) -> None:
    """Refuse a convolution without a bounded activation behind it."""
    kinds = [op.kind for op in block.ops]
    if "conv2d" in kinds and not set(kinds[kinds.index("conv2d") :]) & set(BOUNDED):
        last = f"behind {kinds[-1]}" if kinds[-1] != "conv2d" else "without activation"
        raise RuleError(f"a convolution {last} collapses under the random errors of {rule}, which no saturation limits",
                        where=block.loc, do=f"Use tanh or sigmoid. {INSTEAD}")  # fmt: skip
