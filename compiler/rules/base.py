"""What every learning rule shares: cut the network into blocks, differentiate inside each, update in place."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import ClassVar

from strop.compiler.autodiff import gradients
from strop.compiler.dtypes import FLOAT32, INT32
from strop.compiler.ir import Builder, Op, Program, Role, TensorType
from strop.compiler.ops import spec
from strop.compiler.optim import Optimizer
from strop.errors import RuleError, nearest

LOSSES = {"cross_entropy": INT32, "mse": FLOAT32, "l1": FLOAT32, "huber": FLOAT32, "bce": FLOAT32}
"""Task losses by name, with the dtype of their label."""

DISTANCES: dict[str, dict[str, float]] = {"l1": {}, "huber": {"delta": 1.0}}
"""Losses whose op is a local objective too: it sums over units, where a loss is the mean."""

CONTAINED = {"cross_entropy": ("softmax", "log_softmax"), "bce": ("sigmoid",)}
"""What a loss applies to the network's output itself."""


@dataclass(frozen=True)
class Block:
    """A run of forward ops trained by one objective. params: trainable values read inside."""

    ops: tuple[Op, ...]
    params: tuple[str, ...]

    @property
    def output(self) -> str:
        """What the block hands on."""
        return self.ops[-1].outputs[0]

    @property
    def activity(self) -> str:
        """What objectives look at: the output, or a recurrent layer's last step."""
        last = self.ops[-1]
        return last.outputs[spec(last.kind).activity]

    @property
    def weight(self) -> str:
        """The weight of the block's last layer: what names its random tensors."""
        return next(op.inputs[1] for op in reversed(self.ops) if spec(op.kind).weighted)

    @property
    def loc(self) -> str:
        """The layer of the user's model that the block ends in."""
        return self.ops[-1].loc


@dataclass(frozen=True)
class Task:
    """What the network shall learn. loss: kind of the task loss.  label, output: values that it compares."""

    loss: str
    label: str
    output: str

    def emit(self, b: Builder, prediction: str, name: str) -> str:
        """Emit the task loss of a prediction of the output's shape; returns the scalar."""
        value, attrs = b.values[prediction], DISTANCES.get(self.loss)
        if attrs is not None:
            attrs = {"strength": 1 / value.shape[1], **attrs}
        return b.emit1(self.loss, (prediction, self.label), name, loc=value.loc, **attrs or {})

    def error(self, b: Builder) -> str:
        """The gradient at the output, (B,K), of the loss emitted, a mean over the batch: the last layer's, or new."""
        made = [op.outputs[0] for op in b.ops if op.kind == f"{self.loss}_grad"]
        if made:
            return made[0]
        loss = next(op for op in b.ops if op.kind == self.loss)
        return gradients(b, [loss], loss.outputs[0], [self.output])[self.output]


def about(values: str, what: str) -> dict[str, str]:
    """Metadata of a rule's setting, as `strop rules` shows it. values: that it may have.  what: it does."""
    return {"values": values, "what": what}


@dataclass(frozen=True)
class Rule(ABC):
    """A learning rule: a frozen dataclass of its settings, applied to a forward Program.

    freeze: names or shell patterns of parameters that keep their values.  seed: of every random tensor the rule uses.
    truncate: steps that an error goes back through a recurrent layer; 0 for the whole sequence.
    """

    name: ClassVar[str]

    source: ClassVar[str] = ""
    """Where the rule is published."""

    refuses: ClassVar[str] = "nothing"
    """Networks and tasks that it does not train, for `strop rules`."""

    heads: ClassVar[bool] = False
    """Whether a block with nothing to train has an objective too: that of its local head, which prediction uses."""

    freeze: tuple[str, ...] = field(
        default=(), kw_only=True, metadata=about("names or patterns", "parameters that keep their values")
    )
    seed: int = field(default=0, kw_only=True, metadata=about("any", "of every random tensor that the rule uses"))
    truncate: int = field(
        default=0, kw_only=True, metadata=about("≥ 0", "steps that an error goes back in a recurrent layer; 0 for all")
    )

    def cut(self, program: Program) -> list[Block]:
        """The blocks, in forward order; here, one a layer."""
        return layerwise(program)

    @abstractmethod
    def emit_objective(self, b: Builder, block: Block, task: Task) -> str:
        """Emit the objective of a block that is not the last; returns the scalar to minimise.

        The whole forward pass and the task loss are emitted before. States declared here, such as the weight of a local
        head, are trained with the block.
        """

    def check(self, program: Program) -> None:  # noqa: B027 - most rules train anything
        """Raise RuleError, with the reason and an alternative, for a network this rule cannot train."""

    def predict(self, b: Builder, program: Program, task: Task) -> str:
        """Emit what the trained network answers; returns its output. Here: its forward pass, as captured."""
        del task
        b.ops.extend(program.infer)
        return program.output

    def frozen(self, program: Program) -> set[str]:
        """Parameters that keep their values."""
        params = [value.name for value in program.of(Role.PARAM)]
        for pattern in self.freeze:
            if not any(fnmatchcase(name, pattern) for name in params):
                raise RuleError(f"no parameter matches {pattern!r} in the freeze list", do=nearest(pattern, params))
        return {name for name in params if any(fnmatchcase(name, pattern) for pattern in self.freeze)}

    def apply(self, program: Program, loss: str, optimizer: Optimizer) -> Program:
        """Return the Program with a train step; parameters that stay fixed become constants."""
        self.check(program)
        program = _truncated(_freeze(program, self.frozen(program)), self.truncate)
        if not program.of(Role.PARAM):
            raise RuleError("every parameter is frozen, so there is nothing to train", do="Freeze fewer parameters")
        step = Builder(program.values, program.initial)
        task = Task(loss, _declare_label(step, program, loss), program.output)
        objective = self.emit_step(step, program, task, optimizer)
        optimizer.finish(step)
        infer = Builder(step.values, step.initial)
        output = self.predict(infer, program, task)
        return program.with_(
            values=infer.values, initial=infer.initial, train_step=tuple(step.ops), loss=objective,
            infer=tuple(infer.ops), output=output,
        )  # fmt: skip

    def emit_step(self, b: Builder, program: Program, task: Task, optimizer: Optimizer) -> str:
        """Emit the forward pass, then every block's objective, gradients and updates; returns the task loss."""
        blocks = disjoint(self.cut(program))
        b.ops.extend(op for block in blocks for op in block.ops)
        loss = task.emit(b, program.output, "loss")
        optimizer.start(b)
        self.learn(b, blocks, task, optimizer, loss)
        return loss

    def learn(self, b: Builder, blocks: Sequence[Block], task: Task, optimizer: Optimizer, loss: str) -> None:
        """Emit objective, gradients and updates of every block; forward pass and task loss are emitted before."""
        losses = [op for op in b.ops if loss in op.outputs]
        for block in reversed(blocks):
            if block is blocks[-1]:
                train(b, optimizer, block.params, [*block.ops, *losses], loss)
            elif block.params or self.heads:
                start, known = len(b.ops), set(b.values)
                objective = self.emit_objective(b, block, task)
                heads = [v.name for v in b.values.values() if v.role is Role.STATE and v.name not in known]
                train(b, optimizer, (*block.params, *heads), [*block.ops, *b.ops[start:]], objective)


def train(b: Builder, optimizer: Optimizer, params: Sequence[str], ops: Sequence[Op], objective: str) -> None:
    """Differentiate the objective through the ops; update the params after all gradients, which read the old ones."""
    grads = gradients(b, ops, objective, params)
    for param in reversed(params):
        if param not in grads:
            raise RuleError(f"{param} has no part in {objective!r}, so it would never change", do="Freeze it")
        optimizer.update(b, param, grads[param], b.values[param].loc)


def disjoint(blocks: list[Block]) -> list[Block]:
    """The blocks, if no parameter would be trained by two of them."""
    uses = Counter(param for block in blocks for param in block.params)
    for param, count in uses.items():
        if count > 1:
            raise RuleError(f"{param} is shared by {count} blocks", do="Freeze it, or train the network as one block")
    return blocks


def _freeze(program: Program, frozen: set[str]) -> Program:
    values = {
        name: replace(value, role=Role.CONST) if name in frozen else value for name, value in program.values.items()
    }
    return program.with_(values=values)


def _truncated(program: Program, steps: int) -> Program:
    """The Program whose recurrent layers send an error back so many steps."""
    if steps < 0:
        raise RuleError(f"an error cannot go back {steps} steps", do="Give 0 for the whole sequence")
    ops = [replace(op, attrs={**op.attrs, "truncate": steps}) if "truncate" in op.attrs else op for op in program.infer]
    return program.with_(infer=tuple(ops))


def _declare_label(b: Builder, program: Program, loss: str) -> str:
    if loss not in LOSSES:
        raise RuleError(f"no loss is called {loss!r}", do=nearest(loss, LOSSES))
    output = program.values[program.output]
    if len(output.shape) != 2:
        raise RuleError(f"the network's output has shape {output.shape}", do="End the network with one row a sample")
    _check_logits(program, loss)
    shape = output.shape if LOSSES[loss] is FLOAT32 else output.shape[:1]
    return b.value("y", TensorType(shape, LOSSES[loss]), Role.LABEL)


def _check_logits(program: Program, loss: str) -> None:
    """Refuse a softmax or sigmoid in front of the loss that contains one."""
    last = next(op for op in reversed(program.infer) if not spec(op.kind).free)
    if last.kind in CONTAINED.get(loss, ()):
        raise RuleError(
            f"the network ends in a {last.kind.removeprefix('log_')}, which the {loss} loss applies itself",
            where=last.loc, do="Remove it: the loss takes logits",
        )  # fmt: skip


def trainable(program: Program, ops: Sequence[Op]) -> tuple[str, ...]:
    """The parameters that ops read, in order of use."""
    names = dict.fromkeys(name for op in ops for name in op.inputs)
    return tuple(name for name in names if program.values[name].role is Role.PARAM)


def whole(program: Program) -> Block:
    """The network as one block."""
    return Block(program.infer, trainable(program, program.infer))


def layerwise(program: Program, *, pools: bool = True) -> list[Block]:
    """One block a layer: an op with weights and the activations, normalisations and, if `pools`, max-pools behind it.

    What follows (averaging, reshaping, adding, anything behind a recurrent layer) opens the next block, so no gradient
    passes through it. A local objective on what is left of a map behind its pool lets go of the map itself.
    """
    blocks: list[list[Op]] = []
    pending: list[Op] = []
    for op in program.infer:
        if spec(op.kind).weighted:
            blocks.append([*pending, op])
            pending = []
        elif blocks and not pending and _belongs(op, blocks[-1][-1], program, pools):
            blocks[-1].append(op)
        else:
            pending.append(op)
    if not blocks:
        raise RuleError("the network has no layer with weights", do="Add a Linear or Conv2d layer")
    blocks[-1].extend(pending)
    return [Block(tuple(ops), trainable(program, ops)) for ops in blocks]


def _belongs(op: Op, last: Op, program: Program, pools: bool) -> bool:
    """Whether an op belongs to the layer that ends in `last` so far."""
    keeps = program.values[op.outputs[0]].shape == program.values[op.inputs[0]].shape
    return spec(op.kind).follows and not spec(last.kind).activity and (pools or keeps)
