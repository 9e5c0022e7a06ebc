"""PEPITA (Dellaferrera & Kreiman, arXiv 2201.11665): a second forward pass in place of the backward one.

    pass 1: h_l = f_l(h_{l-1}), h_0 = x          e  = gradient of each sample's task loss at the output
    pass 2: h'_l = f_l(h'_{l-1}), h'_0 = x + F e  e' = the same at the second pass's output
    hidden layers: W_l -= lr (h_l - h'_l) h'_{l-1}^T    last layer: W_L -= lr e' h'_{L-1}^T, and its bias by e'

f_l is the layer with its activation, whose slope does not enter. F is fixed and random, uniform in +-0.05 sqrt(6 / n)
for n input features, from the generator: 0 bytes. Updates are means over the batch, a convolution's over its output
positions too. Hidden biases and normalisations have no rule and keep their values.

MEMPEPITA (Pau & Aymone, 2023) computes pass 1 once more beside pass 2, layer by layer: three forward passes, no h_l
kept from the first to the second, and the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod, sqrt

from strop.compiler import rng as generator
from strop.compiler.autodiff import gradients
from strop.compiler.ir import Builder, Op, Program, Role
from strop.compiler.ops import spec
from strop.compiler.optim import Optimizer
from strop.compiler.rules.base import Block, Rule, Task, about, disjoint, layerwise, train
from strop.compiler.rules.local import check_rows
from strop.errors import RuleError

TRAINED = ("dense", "conv2d")
"""Layers that have a rule: each use of a weight is one row of activities, or one position of an image."""


@dataclass(frozen=True)
class Pepita(Rule):
    """PEPITA for fully connected and convolutional layers.

    memory_saving: compute the first pass twice instead of keeping its activities (MEMPEPITA): their memory no longer
    grows with depth, and a step takes a third pass. A step returns the first pass's task loss.
    """

    name = "pepita"
    source = "arXiv 2201.11665"
    refuses = "recurrent layers, embeddings, layers that run at every step of a sequence"

    memory_saving: bool = field(
        default=False, metadata=about("true, false", "compute the first pass twice instead of keeping it")
    )

    def check(self, program: Program) -> None:
        """Refuse recurrent layers, embeddings, and what runs at every step of a sequence."""
        for op in program.infer:
            if op.kind == "embedding" or (spec(op.kind).weighted and op.kind not in TRAINED):
                raise RuleError(
                    f"PEPITA compares a layer's activities in two passes, which says nothing about {op.kind}, whose"
                    " weights are used more than once or looked up", where=op.loc,
                    do="Use another rule, such as backprop or tpsgd",
                )  # fmt: skip
            if op.kind == "dense":
                check_rows(program.values[op.outputs[0]].shape[0], program.batch, op.loc)

    def frozen(self, program: Program) -> set[str]:
        """What the user froze, and everything but the weights of hidden layers."""
        *hidden, _ = layerwise(program)
        fixed = {param for block in hidden for param in block.params if param != block.weight}
        return {*super().frozen(program), *fixed}

    def cut(self, program: Program) -> list[Block]:
        """One block a layer, whose activity is as large as what its weights give."""
        return layerwise(program, pools=False)

    def emit_objective(self, b: Builder, block: Block, task: Task) -> str:
        """Never asked: the objective of a layer is in both passes."""
        raise AssertionError(block.output)

    def emit_step(self, b: Builder, program: Program, task: Task, optimizer: Optimizer) -> str:
        """Emit the first pass; then, layer by layer, the second one, and each layer's update right behind it."""
        *hidden, last = disjoint(self.cut(program))
        b.ops.extend(program.infer)
        loss = task.emit(b, program.output, "loss")
        error = gradients(b, b.ops[-1:], loss, [program.output])[program.output]
        clean: dict[str, str] = {}
        moved = {program.only(Role.INPUT).name: self._modulated(b, program, error)}
        optimizer.start(b)
        for block in hidden:
            if self.memory_saving:
                _again(b, block.ops, clean, "clean")
            layer = _again(b, block.ops, moved, "moved")
            if block.params:
                self._train(b, optimizer, block, layer, (clean.get(block.output, block.output), moved[block.output]))
        start = len(b.ops)
        _again(b, last.ops, moved, "moved")
        again = task.emit(b, moved[program.output], "loss.moved")
        if last.params:
            train(b, optimizer, last.params, b.ops[start:], again)
        return loss

    def _modulated(self, b: Builder, program: Program, error: str) -> str:
        """Emit x + F e; the error is that of the mean over the batch."""
        x = program.only(Role.INPUT)
        scale = 0.05 * sqrt(6 / prod(x.shape[1:]))
        key = generator.tensor_key("pepita.modulation")
        return b.emit1(
            "modulate", (x.name, error), f"{x.name}.moved",
            seed=self.seed, tensor=key, scale=scale, strength=float(x.shape[0]),
        )  # fmt: skip

    def _train(
        self, b: Builder, optimizer: Optimizer, block: Block, layer: Sequence[Op], activities: tuple[str, str]
    ) -> None:
        """Emit the update of a hidden layer by the difference of its activities."""
        op = next(op for op in layer if block.weight in op.inputs)
        z = op.outputs[0]
        positions = prod(b.values[z].shape[2:])
        gap = b.emit1("gap", (z, *activities), f"{z}.gap", loc=block.loc, strength=1 / positions)
        train(b, optimizer, block.params, [op, b.ops[-1]], gap)


@dataclass(frozen=True)
class MemPepita(Pepita):
    """PEPITA that computes the first pass twice instead of keeping its activities: see `Pepita.memory_saving`."""

    name = "mempepita"
    source = "Pau & Aymone 2023"

    memory_saving: bool = field(default=True, metadata=about("true, false", "compute the first pass twice"))


def _again(b: Builder, ops: Sequence[Op], names: dict[str, str], tag: str) -> list[Op]:
    """Emit ops once more on renamed inputs; `names`, old to new, takes in their outputs."""
    start = len(b.ops)
    for op in ops:
        inputs = [names.get(name, name) for name in op.inputs]
        made = b.emit(op.kind, inputs, f"{op.outputs[0]}.{tag}", loc=op.loc, **op.attrs)
        names.update(zip(op.outputs, made, strict=True))
    return b.ops[start:]
