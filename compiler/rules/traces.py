"""Eligibility traces: leaky recurrent layers learn at every step, in memory that does not grow with time.

A leaky layer h' = leak h + (1 - leak) c, c = tanh(W x + U h + b), has a head M of its own. At each step, with s the
gradient of the task loss at M h':

    delta = M^T s (1 - c^2)                 the error of this step alone: none goes back in time
    e_x   = leak e_x + (1 - leak) x         e_h and e_b so of h, the state before the step, and of 1
    W    -= lr delta e_x^T,  U -= lr delta e_h^T,  b -= lr delta e_b,  M -= lr s h'^T       all from the old M

What a weight once added to the state fades by the leak, and the traces hold what is left of it. The gradient is that of
the step's loss, but for paths through U, and with the slope 1 - c^2 of now for that of then: a trace is one number an
input instead of one a weight. It is e-prop (Bellec et al., Nature Communications 2020) reduced to that, with
Mono-Forward's learning signal instead of fixed feedback.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from strop.compiler.autodiff import gradients
from strop.compiler.ir import Builder, Op, Program, Role
from strop.compiler.ops import spec
from strop.compiler.ops.base import f32
from strop.compiler.ops.recurrent import Steps
from strop.compiler.optim import SGD, Optimizer
from strop.compiler.rules.base import Block, Task, about, disjoint
from strop.compiler.rules.local import check_strength, head
from strop.compiler.rules.mono_forward import MonoForward
from strop.errors import RuleError


@dataclass(frozen=True)
class Traces(MonoForward):
    """Leaky recurrent layers (`strop.nn.LeakyRNN`) by eligibility traces, all other layers as in Mono-Forward.

    strength: of the learning signal; the signal of each of T steps is strength / T times the loss's gradient, so that 1
    stands for the mean loss over the steps. `truncate` does not apply to leaky layers.

    Weights move T times a sample, with the learning rate of that sample, so the optimizer is SGD, with momentum, decay,
    clipping (of each step's gradients) and schedules if wanted, and does not average over samples. Training takes, of a
    layer with n inputs and H units, n + H + 1 numbers for its traces and two states, whatever T is.
    """

    name = "traces"
    source = "after e-prop, Nature Communications 2020"
    refuses = "networks without strop.nn.LeakyRNN or that end in it, optimizers other than SGD, accumulation"

    strength: float = field(
        default=1.0, kw_only=True, metadata=about("> 0", "of the learning signal; 1: of the mean loss over the steps")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strength(self.strength)

    def check(self, program: Program) -> None:
        """Refuse a network without leaky layers, or that ends in one."""
        layers = [op for op in program.infer if spec(op.kind).weighted]
        if not any(op.kind == "leaky_rnn" for op in layers):
            raise RuleError("the network has no leaky recurrent layer, and traces are those of leaky units",
                            do="Use strop.nn.LeakyRNN, or the rule mono-forward")  # fmt: skip
        if layers[-1].kind == "leaky_rnn":
            raise RuleError("the network ends in a leaky recurrent layer, whose steps have no loss to learn from",
                            where=layers[-1].loc, do="End the network with a Linear layer")  # fmt: skip

    def emit_step(self, b: Builder, program: Program, task: Task, optimizer: Optimizer) -> str:
        """Emit leaky layers that learn as they run, then everything else as in Mono-Forward."""
        if type(optimizer) is not SGD or optimizer.accumulate > 1 or optimizer.clip_global_norm:
            raise RuleError(
                "traces move weights at every step of a sequence, which only SGD can, without accumulation or the norm"
                " of all gradients together", do="Use sgd or momentum, and --clip-norm for the norm of each",
            )  # fmt: skip
        blocks = disjoint(self.cut(program))
        online = [block for block in blocks if _learns(program, block)]
        optimizer.start(b)
        self._forward(b, blocks, online, task, optimizer)
        loss = task.emit(b, program.output, "loss")
        self.learn(b, [block for block in blocks if block not in online], task, optimizer, loss)
        return loss

    def predict(self, b: Builder, program: Program, task: Task) -> str:
        """Emit the forward pass, with one loop over time for leaky layers that read each other's states."""
        blocks = self.cut(program)
        self._forward(b, blocks, [block for block in blocks if block.ops[-1].kind == "leaky_rnn"], task, None)
        return program.output

    def _forward(
        self, b: Builder, blocks: Sequence[Block], online: Sequence[Block], task: Task, optimizer: Optimizer | None
    ) -> None:
        """Emit the forward pass. online: leaky layers in loops of their own.  optimizer: theirs, if they learn."""
        for stack in _stacks(blocks, online):
            if stack[0] in online:
                b.ops.extend(stack[0].ops[:-1])
                self._run(b, stack, task, optimizer)
            else:
                b.ops.extend(op for block in stack for op in block.ops)

    def _run(self, b: Builder, stack: Sequence[Block], task: Task, optimizer: Optimizer | None) -> None:
        """Emit one loop over time for leaky layers that read each other's states."""
        ops = [block.ops[-1] for block in stack]
        steps, *shape = b.values[ops[0].inputs[0]].shape
        s = Steps(b, ops[-1], 0, steps - 1)
        x = s.row(ops[0].inputs[0], tuple(shape))
        for block in stack:
            s.loc = block.loc
            now, *learned_from = _step(s, block.ops[-1], x)
            if optimizer:
                self._learn(s, block, (x, now, *learned_from), task, optimizer)
            x = now
        s.close([op.outputs[0] for op in ops])
        for op in ops:
            y, last = op.outputs[:2]
            b.ops.append(Op("rows", (y,), (last,), {"first": steps - 1, "shape": b.values[last].shape}, op.loc))

    def _learn(self, s: Steps, block: Block, step: Sequence[str], task: Task, optimizer: Optimizer) -> None:
        """Append what a layer learns from a step. step: its input, and what `_step` gives."""
        (x, now, before, c), op, b = step, block.ops[-1], s.body
        turns = abs(s.times[1] - s.times[0]) + 1
        share = b.value(f"{op.outputs[0]}.share", f32(1), Role.CONST, data=np.array([self.strength / turns]))
        matrix = head(b, block, now, s.shape(task.output)[1], self.seed)
        dh, dm = _signal(b, task, (now, matrix), share, op.outputs[0])
        delta = s.emit("tanh_grad", (dh, c), f"d_{op.outputs[0]}")
        sources = dict(zip(op.inputs[1:], (x, before, ""), strict=False))
        for param in block.params:
            optimizer.update(b, param, _gradient(s, param, sources[param], delta, _leak(op)), block.loc)
        optimizer.update(b, matrix, dm, block.loc)


def _step(s: Steps, op: Op, x: str) -> tuple[str, str, str]:
    """Append a step of a leaky layer; returns its state after it and before it, and c."""
    y, shape = op.outputs[0], s.shape(op.outputs[1])
    before, now = s.row(y, shape, -1), s.row(y, shape)
    s.start(before)
    a = s.emit("dense", (x, op.inputs[1], *op.inputs[3:]), f"{y}.a")
    m = s.emit("dense", (before, op.inputs[2]), f"{y}.m")
    z = s.emit("add", (a, m), f"{y}.sum")
    return now, before, s.store("leaky_cell", (z, before), (now,), leak=_leak(op))[1]


def _leak(op: Op) -> float:
    return float(str(op.attrs["leak"]))


def _learns(program: Program, block: Block) -> bool:
    """Whether a block is a leaky layer that learns."""
    op = block.ops[-1]
    if op.kind != "leaky_rnn" or not block.params:
        return False
    for param in block.params:
        if param not in op.inputs:
            raise RuleError(f"{param} is before a leaky layer, where no step's error reaches it",
                            where=program.values[param].loc, do=f"Freeze {param}, or use mono-forward")  # fmt: skip
    return True


def _stacks(blocks: Sequence[Block], online: Sequence[Block]) -> list[list[Block]]:
    """The blocks, where those that learn online and read nothing but the states of the one before go together."""
    stacks = [[blocks[0]]]
    for one, other in pairwise(blocks):
        joins = one in online and other in online and other.ops[0].inputs[0] == one.ops[-1].outputs[0]
        if joins and len(other.ops) == 1:
            stacks[-1].append(other)
        else:
            stacks.append([other])
    return stacks


def _signal(b: Builder, task: Task, operands: tuple[str, str], share: str, name: str) -> list[str]:
    """Emit the share of the gradients of the task loss of M h by h and M, from the old M."""
    answer = b.emit1("dense", operands, f"{name}.answer")
    dense = b.ops[-1]
    start = len(b.ops)
    objective = task.emit(b, answer, f"{name}.objective")
    error = gradients(b, b.ops[start:], objective, [answer])[answer]
    shared = b.emit1("scaled", (error, share), f"{error}.share")
    found = spec("dense").vjp(b, dense, [shared])
    return [grad for grad in found if grad is not None]


def _gradient(s: Steps, param: str, source: str, delta: str, leak: float) -> str:
    """Append the trace of what a parameter multiplies, and its gradient. source: of a weight; "" of a bias."""
    if not source:
        trace = s.row(s.sequence(f"{param}.trace", (1, 1)), (1,))
        s.start(trace)
        s.store("bias_correction", (trace,), (trace,), beta=leak)
        return s.emit("scaled", (s.emit("bias_grad", (delta,), f"{param}.now"), trace), f"d_{param}")
    shape = s.shape(source)
    trace = s.row(s.sequence(f"{param}.trace", (1, *shape)), shape)
    s.start(trace)
    s.store("trace", (trace, source), (trace,), leak=leak)
    return s.emit("dense_dw", (delta, trace), f"d_{param}")
