"""FeTrIL: the last layer learns new classes, and keeps the old ones by pseudo-features (arXiv 2211.13131, WACV 2023).

The features f before the last layer come from frozen layers. The board keeps, of every class, the mean of the features
it has seen, and nothing else. A sample of class n stands for one of an old class c as well:

    count[n] += 1;  mean[n] += (f - mean[n]) / count[n]
    f' = f - mean[n] + mean[c]                               (equal to f for c = n)
    the last layer follows the gradient of the task loss on (f, n) and on every (f', c), mean over all

An old class is any other of which a sample has been seen, so one pass over old samples, on the board, its twin or one
board for all, measures the means; while there is no old class, f' is f and c is n.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from strop.compiler.dtypes import INT32
from strop.compiler.ir import Builder, Op, Program, Role, TensorType
from strop.compiler.ops import spec
from strop.compiler.ops.base import f32
from strop.compiler.optim import Optimizer
from strop.compiler.rng import tensor_key
from strop.compiler.rules.base import Task, about, train, trainable
from strop.compiler.rules.head_only import HeadOnly
from strop.compiler.rules.local import check_rows
from strop.errors import RuleError, nearest

OLD = ("one", "all")

MEAN, SEEN, STEP = "fetril.mean", "fetril.seen", "fetril.step"
"""States: class means (K,D), samples seen of each class (K) int32, and steps so far (1) int32, where one is drawn."""

MOST_CLASSES = 256


@dataclass(frozen=True)
class FeTrIL(HeadOnly):
    """Head-only training on features and pseudo-features of old classes.

    old: `one` old class a sample and step, drawn anew each time, or `all` of them; the head then works on as many rows
    as there are classes; a class without samples so far repeats the sample itself.
    """

    name = "fetril"
    source = "arXiv 2211.13131"
    refuses = "tasks without classes, a last layer that is not Linear on flat features"

    old: str = field(default="one", metadata=about(", ".join(OLD), "old classes that each sample stands for"))

    def __post_init__(self) -> None:
        if self.old not in OLD:
            raise RuleError(f"FeTrIL cannot replay {self.old!r} old classes", do=nearest(self.old, OLD))

    def check(self, program: Program) -> None:
        """Refuse a network that does not end in a fully connected layer over one row of features a sample."""
        at = _head(program)
        head, known = program.infer[at], {program.infer[at].inputs[0]}
        if head.kind != "dense" or len(program.values[head.inputs[0]].shape) != 2:
            raise RuleError(
                "FeTrIL makes features of old classes for a fully connected last layer, which this network lacks",
                where=head.loc, do="End the network with a Linear layer over flat features",
            )  # fmt: skip
        check_rows(program.values[head.inputs[0]].shape[0], program.batch, head.loc)
        for op in program.infer[at:]:
            strange = [n for n in op.inputs if program.values[n].role in (Role.ACT, Role.INPUT) and n not in known]
            if strange:
                raise RuleError(
                    f"{strange[0]} passes the last layer by, so it is no feature of it",
                    where=op.loc,
                    do="Train with the rule head-only",
                )
            known.update(op.outputs)

    def emit_step(self, b: Builder, program: Program, task: Task, optimizer: Optimizer) -> str:
        """Emit the frozen layers, the means, and the last layer on features and pseudo-features."""
        at, classes = _head(program), program.values[program.output].shape[-1]
        _check_task(task, classes)
        b.ops.extend(program.infer[:at])
        rows, labels = self._rows(b, program.infer[at].inputs[0], task.label, classes)
        start = len(b.ops)
        output = _on(b, program.infer[at:], rows)
        loss = replace(task, label=labels).emit(b, output, "loss")
        optimizer.start(b)
        train(b, optimizer, trainable(program, program.infer[at:]), b.ops[start:], loss)
        return loss

    def _rows(self, b: Builder, feature: str, label: str, classes: int) -> tuple[str, str]:
        """Emit means and pseudo-features; returns all rows and their labels."""
        width = b.values[feature].shape[1]
        b.value(MEAN, f32(classes, width), Role.STATE, data=np.zeros((classes, width)))
        b.value(SEEN, TensorType((classes,), INT32), Role.STATE, data=np.zeros(classes))
        b.update("class_count", (SEEN, label), (SEEN,))
        nth = b.emit1("class_nth", (SEEN, label), "fetril.nth")
        b.update("class_mean", (MEAN, feature, label, nth), (MEAN,))
        choice = self._choice(b, label, classes)
        rows, labels = b.emit("pseudo_features", (feature, label, choice, MEAN), "fetril.rows")
        return rows, labels

    def _choice(self, b: Builder, label: str, classes: int) -> str:
        """Emit the old classes of each sample."""
        if self.old == "all":
            return b.emit1("old_classes", (SEEN, label), "fetril.old")
        end = (1 << 30) // (classes * b.values[label].shape[0])  # keeps the generator's index below 2^31
        b.value(STEP, TensorType((1,), INT32), Role.STATE, data=np.zeros(1))
        b.update("tally", (STEP,), (STEP,), by=1, end=end, back=1)
        key = tensor_key("fetril.old")
        priority = b.emit1("class_priority", (SEEN, label, STEP), "fetril.priority", seed=self.seed, tensor=key)
        return b.emit1("choose_class", (priority,), "fetril.old")


def _head(program: Program) -> int:
    """The place of the last layer."""
    places = [at for at, op in enumerate(program.infer) if spec(op.kind).weighted]
    if not places:
        raise RuleError("the network has no layer with weights", do="Add a Linear layer")
    return places[-1]


def _check_task(task: Task, classes: int) -> None:
    if task.loss != "cross_entropy":
        raise RuleError(f"FeTrIL learns classes, but the loss {task.loss} has none", do="Use cross_entropy")
    if not 2 <= classes <= MOST_CLASSES:
        raise RuleError(f"FeTrIL knows 2 to {MOST_CLASSES} classes, not {classes}", do="Train with the rule head-only")


def _on(b: Builder, ops: tuple[Op, ...], rows: str) -> str:
    """Emit the ops of the last layer on other rows than they were captured for; returns their output."""
    names = {ops[0].inputs[0]: rows}
    for op in ops:
        attrs = dict(op.attrs)
        if op.kind == "reshape":
            attrs["shape"] = (b.values[rows].shape[0], *b.values[op.outputs[0]].shape[1:])
        inputs = tuple(names.get(name, name) for name in op.inputs)
        made = b.emit(op.kind, inputs, f"{op.outputs[0]}.rows", loc=op.loc, **attrs)
        names.update(zip(op.outputs, made, strict=True))
    return names[ops[-1].outputs[0]]
