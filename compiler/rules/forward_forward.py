"""Forward-Forward (Hinton, arXiv 2212.13345): no error goes back; layers tell right labels from wrong ones.

    rows = samples with their labels in the first K features, then the same samples with wrong labels
    xh   = a / (sqrt(mean a^2) + 1e-8)    the input of each layer: length 1 a unit, the error stops here
    y    = relu(W xh + b)                 and g = sum of y^2 (its mean, or 8 times that), the goodness of a row
    J    = mean of softplus(threshold - g) over right rows and softplus(g - threshold) over wrong ones

Both kinds of rows go through the network as one batch, so that a weight's gradient is one sum over them, never stored.
Wrong labels come from the counter-based generator and a count of samples, the same on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from strop.compiler import rng as generator
from strop.compiler.dtypes import INT32
from strop.compiler.ir import Builder, Program, Role, TensorType
from strop.compiler.ops import spec
from strop.compiler.ops.base import f32
from strop.compiler.ops.goodness import COUNTED
from strop.compiler.optim import Optimizer
from strop.compiler.rules.base import Block, Rule, Task, about, disjoint, layerwise, train
from strop.errors import RuleError, nearest

THRESHOLDS = {"sum": None, "mean": 2.0, "sharp": 2.0}
"""Kinds of goodness, with the threshold that fits: of a sum, the number of units."""

SHARPNESS = 8.0
"""The sharp goodness is so many times the mean: fresh layers then lie near the threshold, where the slope is steep."""

PREDICTIONS = ("head", "labels")

EPS = 1e-8
"""Keeps a row without activity at 0."""

DECAY = 0.9
"""Of the running mean activity of each unit."""

SEEN = "forward_forward.seen"
"""State: samples seen, (1) int32, below 2^24: where in the stream of wrong labels the next sample is."""


@dataclass(frozen=True)
class ForwardForward(Rule):
    """Forward-Forward for classifiers of fully connected layers with ReLU: hidden layers, then a linear one.

    A sample's first K features, one a class, are overwritten by a label: pad samples whose first features matter.

    goodness: 'sum' or 'mean' of a layer's squared activities, or 'sharp', 8 times the mean, which suits one sample a
    step; a sum does not, unless with Adam.  threshold: between the goodness of right and of wrong rows; if not given,
    the number of units for a sum, else 2.  peer: strength of peer normalisation, which keeps units equally active on
    average (mean over units of (mean activity - activity)^2, on running means of the right rows); 0.03 is usual, 0
    leaves it out.

    prediction: 'head': the network's last layer, which learns the task loss on the normalised activity of the last
    hidden layer when every class is given 1/K; a step returns that loss, and `infer` gives logits after one pass.
    'labels': the class under which hidden layers are most active; `infer` runs K passes and gives (B,K) goodness,
    summed over all hidden layers but the first (over the first if it is the only one); the last layer keeps its weights
    and is not used, and a step returns the sum of J over the layers that train.

    A parameter's gradient is the mean over the 2B rows. What is learned needs this way of predicting: the module's own
    `forward` knows neither the labels in the features nor the normalisation.
    """

    name = "forward-forward"
    source = "arXiv 2212.13345"
    refuses = "layers that are not fully connected, functions other than ReLU, tasks without classes"

    goodness: str = field(
        default="sharp", metadata=about(", ".join(THRESHOLDS), "of the squared activities of a layer")
    )
    threshold: float | None = field(
        default=None, metadata=about("> 0", "of goodness; by default the units for a sum, else 2")
    )
    prediction: str = field(default="head", metadata=about(", ".join(PREDICTIONS), "what infer answers from"))
    peer: float = field(default=0.0, metadata=about("≥ 0", "strength of peer normalisation; 0.03 is usual"))

    def __post_init__(self) -> None:
        for what, kinds in (("goodness", tuple(THRESHOLDS)), ("prediction", PREDICTIONS)):
            if getattr(self, what) not in kinds:
                raise RuleError(
                    f"Forward-Forward has no {what} {getattr(self, what)!r}", do=nearest(getattr(self, what), kinds)
                )
        if not self.peer >= 0:
            raise RuleError(f"the strength of peer normalisation is at least 0, not {self.peer}")
        if self.threshold is not None and not self.threshold > 0:
            raise RuleError(f"the threshold of Forward-Forward must be positive, not {self.threshold}")

    def check(self, program: Program) -> None:
        """Refuse anything but fully connected layers with ReLU between them."""
        ops = [op for op in program.infer if not spec(op.kind).free]
        for op, expected in zip(ops, ["dense", "relu"] * len(ops), strict=False):
            if op.kind == expected:
                continue
            if expected == "relu":
                raise RuleError(
                    f"Forward-Forward needs a ReLU behind each hidden layer, and finds {op.kind}: goodness is the"
                    " square of what a ReLU lets pass", where=op.loc, do="Use ReLU, or another rule, such as tpsgd",
                )  # fmt: skip
            raise RuleError(
                f"Forward-Forward trains fully connected layers, not {op.kind}: a label in a sample's first features"
                " would not reach all units", where=op.loc, do="Use another rule, such as backprop or tpsgd",
            )  # fmt: skip
        if len(ops) % 2 == 0 or len(ops) < 3:
            raise RuleError(
                "Forward-Forward needs hidden layers with ReLU and a linear layer behind them",
                do="End the network with a Linear layer, or use another rule, such as backprop",
            )

    def frozen(self, program: Program) -> set[str]:
        """What the user froze, and a last layer that prediction does not use."""
        unused = layerwise(program)[-1].params if self.prediction == "labels" else ()
        return {*super().frozen(program), *unused}

    def emit_step(self, b: Builder, program: Program, task: Task, optimizer: Optimizer) -> str:
        """Emit the passes over pairs and, for a head, over neutral rows; then each layer's update."""
        *hidden, head = disjoint(self.cut(program))
        samples = _samples(b, program, task)
        pairs = _layers(b, hidden, self._pairs(b, samples, task), "pairs")
        if self.prediction == "labels":
            optimizer.start(b)
            return _sum(b, self._train(b, optimizer, pairs, task), "loss")
        logits = _logits(b, hidden, head, samples, task)
        start = len(b.ops) - 1
        loss = task.emit(b, logits, "loss")
        answer = b.ops[start:]
        optimizer.start(b)
        if head.params:
            train(b, optimizer, head.params, answer, loss)
        self._train(b, optimizer, pairs, task)
        return loss

    def _train(self, b: Builder, optimizer: Optimizer, pairs: Sequence[Block], task: Task) -> list[str]:
        """Emit each hidden layer's objective and update; returns the objectives."""
        objectives = []
        for block in pairs:
            if block.params:
                start = len(b.ops)
                objectives.append(self.emit_objective(b, block, task))
                train(b, optimizer, block.params, [*block.ops, *b.ops[start:]], objectives[-1])
        return objectives

    def emit_objective(self, b: Builder, block: Block, task: Task) -> str:
        """J of a layer's activity on right and wrong rows."""
        del task
        y, loc = block.output, block.loc
        units = b.values[y].shape[1]
        g = self._goodness(b, y)
        threshold = next(t for t in (self.threshold, THRESHOLDS[self.goodness], units) if t is not None)
        inputs = (g, self._activity(b, block)) if self.peer else (g,)
        return b.emit1("contrast", inputs, f"{y}.contrast", loc=loc, threshold=float(threshold), peer=self.peer)

    def predict(self, b: Builder, program: Program, task: Task) -> str:
        """Emit one pass of neutral rows, or K passes of one label each."""
        *hidden, head = self.cut(program)
        samples = _samples(b, program, task)
        if self.prediction == "head":
            return _logits(b, hidden, head, samples, task)
        (batch, classes), columns = b.values[task.output].shape, []
        for k in range(classes):
            label = b.value(f"label.{k}", TensorType((batch,), INT32), Role.CONST, data=np.full(batch, k))
            rows = b.emit1("embed_label", (samples, label), f"class.{k}", classes=classes)
            layers = _layers(b, hidden, rows, f"class.{k}")
            total = _sum(b, [self._goodness(b, layer.output) for layer in layers[1:] or layers], f"goodness.{k}")
            columns.append(b.emit1("reshape", (total,), f"goodness.{k}.column", shape=(batch, 1)))
        return _beside(b, columns, "goodness")

    def _pairs(self, b: Builder, samples: str, task: Task) -> str:
        """Emit the rows with right and wrong labels; returns (2B,n)."""
        (batch, classes) = b.values[task.output].shape
        seen = b.value(SEEN, TensorType((1,), INT32), Role.STATE, data=np.zeros(1))
        key = generator.tensor_key("forward_forward.wrong")
        wrong = b.emit1("wrong_label", (task.label, seen), "wrong", classes=classes, seed=self.seed, tensor=key)
        b.update("tally", (seen,), (seen,), by=batch, end=COUNTED - batch, back=0)
        labels = b.emit1("concat", (task.label, wrong), "labels", axis=0)
        return b.emit1("embed_label", (samples, labels), "pairs", classes=classes)

    def _goodness(self, b: Builder, y: str) -> str:
        units = b.values[y].shape[1]
        scale = {"sum": 1.0, "mean": 1 / units, "sharp": SHARPNESS / units}[self.goodness]
        return b.emit1("goodness", (y,), f"{y}.goodness", loc=b.values[y].loc, scale=scale)

    def _activity(self, b: Builder, block: Block) -> str:
        """Emit the running mean activity of each unit and keep it."""
        y, loc = block.output, block.loc
        units = b.values[y].shape[1:]
        kept = b.value(f"{block.weight}.activity", f32(*units), Role.STATE, loc, np.full(units, 0.5))
        activity = b.emit1("peer_activity", (y, kept), f"{y}.activity", loc=loc, decay=DECAY)
        b.update("keep", (kept, activity), (kept,), loc=loc)
        return activity


def _samples(b: Builder, program: Program, task: Task) -> str:
    """Emit the input as one row a sample; refuse a task that has no labels to write into it."""
    x, classes = program.only(Role.INPUT), b.values[task.output].shape[1]
    if b.values[task.label].dtype is not INT32 or classes < 2:
        raise RuleError("Forward-Forward learns from right and wrong classes, and this task has none",
                        do="Use the cross_entropy loss, or another rule, such as backprop")  # fmt: skip
    batch, features = x.shape[0], x.type.size // x.shape[0]
    if features <= classes:
        raise RuleError(f"the {classes} classes' labels would overwrite all {features} features of a sample",
                        do="Pad the samples, or use another rule, such as tpsgd")  # fmt: skip
    if len(x.shape) == 2:
        return x.name
    return b.emit1("reshape", (x.name,), "samples", shape=(batch, features))


def _layers(b: Builder, layers: Sequence[Block], rows: str, tag: str) -> list[Block]:
    """Emit hidden layers on rows, each behind a normalisation that is not part of its block."""
    blocks = []
    for layer in layers:
        rows = b.emit1("unit_rms", (rows,), f"{rows}.unit", loc=layer.loc, eps=EPS)
        start = len(b.ops)
        for op in layer.ops:
            if not spec(op.kind).free:
                rows = b.emit1(op.kind, (rows, *op.inputs[1:]), f"{op.outputs[0]}.{tag}", loc=op.loc, **op.attrs)
        blocks.append(Block(tuple(b.ops[start:]), layer.params))
    return blocks


def _logits(b: Builder, hidden: Sequence[Block], head: Block, samples: str, task: Task) -> str:
    """Emit the last layer on the last hidden layer's normalised activity, every class given alike."""
    rows = b.emit1("embed_label", (samples,), "neutral", classes=b.values[task.output].shape[1])
    (answer,) = _layers(b, [head], _layers(b, hidden, rows, "neutral")[-1].output, "head")
    return answer.output


def _sum(b: Builder, terms: Sequence[str], name: str) -> str:
    """Emit the sum of one or more values of one shape."""
    total, *rest = terms
    for term in rest:
        total = b.emit1("add", (total, term), name)
    return total


def _beside(b: Builder, columns: Sequence[str], name: str) -> str:
    """Emit columns side by side, as many at a time as the op takes."""
    most = len(spec("concat").operands)
    while len(columns) > 1:
        groups = [columns[at : at + most] for at in range(0, len(columns), most)]
        columns = [b.emit1("concat", group, name, axis=1) if len(group) > 1 else group[0] for group in groups]
    return columns[0]
