"""Say what a core that computes in binary16 does in it, and let what it needs rest in that format.

An outer product's factors must both rest in binary16 to be multiplied there: a copy of the network's input is made of
it, once a step, and the error is multiplied by minus the learning rate before, once an output and not once a weight.
"""

from collections.abc import Iterable
from dataclasses import replace

from strop.compiler.dtypes import FLOAT16, FLOAT32
from strop.compiler.health import SCALE
from strop.compiler.ir import Builder, Op, Program, Role, TensorType
from strop.compiler.ops import spec
from strop.errors import LegalizeError


def halve(program: Program, sums: str, board: str, lanes: int) -> Program:
    """Return the Program with `half` set. sums: as the policy asks for.  lanes: of binary16 that a core computes with.

    Raises LegalizeError where it asks for what the core lacks.
    """
    wanted = sums == FLOAT16.name
    if wanted and not lanes:
        raise LegalizeError(
            f"{board} cannot sum in float16: its core has no instructions for it",
            do="Take sums = float32, or a board with vectors of float16, such as qemu-rv32v",
        )
    if not lanes or not any(v.dtype.base == FLOAT16.name for v in program.of(Role.PARAM)):
        return program
    program = program.with_(half="sums" if wanted else "maps")
    b = Builder(program.values, program.initial)
    train = _with_copy(b, program, _multiplied(b, program.train_step))
    return program.with_(train_step=train, infer=_with_copy(b, program, program.infer), values=b.values).pruned(SCALE)


def _multiplied(b: Builder, ops: Iterable[Op]) -> tuple[Op, ...]:
    """The ops with errors times the rate for plain updates by an outer product."""
    made: list[Op] = []
    for op in ops:
        scaled = {part.outputs[0]: part for part in op.parts if part.kind == "dense_dw" and "scale" in part.attrs}
        updates = [part for part in op.parts if part.kind == "sgd" and part.inputs[1] in scaled]
        for update in updates:
            product = scaled[update.inputs[1]]
            if b.values[update.inputs[0]].dtype is not FLOAT16 or b.values[product.inputs[0]].dtype is FLOAT32:
                continue
            op = _with_rate(b, made, op, product)  # noqa: PLW2901
        made.append(op)
    return tuple(made)


def _with_rate(b: Builder, before: list[Op], op: Op, product: Op) -> Op:
    error = product.inputs[0]
    step = b.value(b.fresh(f"{error}.step"), TensorType(b.values[error].shape, FLOAT16), Role.ACT, op.loc)
    before.append(Op("scale", (error,), (step,), {"factor": product.attrs["scale"]}, op.loc))
    attrs = {key: value for key, value in product.attrs.items() if key != "scale"}
    plain = replace(product, inputs=(step, *product.inputs[1:]), attrs=attrs)
    body = tuple(plain if part is product else part for part in op.body)
    read = {name for part in body for name in part.inputs}
    inputs = tuple(name for name in (*op.inputs, step) if name in read)
    return replace(op, inputs=inputs, body=body)


def _with_copy(b: Builder, program: Program, ops: tuple[Op, ...]) -> tuple[Op, ...]:
    """The ops with weights and errors in binary16 meeting a copy of the input in it."""
    x = program.only(Role.INPUT)
    readers = [
        op for op in ops
        if (program.half == "sums" or not _windows(b, op)) and any(_meets(b, part, x.name) for part in op.parts)
    ]  # fmt: skip
    if not readers or x.dtype is not FLOAT32:
        return ops
    name = f"{x.name}.half"
    if name not in b.values:
        b.value(name, TensorType(x.shape, FLOAT16), Role.ACT)
    copy = Op("copy", (x.name,), (name,))
    first = ops.index(readers[0])
    rest = tuple(_renamed(op, x.name, name) if op in readers else op for op in ops[first:])
    return (*ops[:first], copy, *rest)


def _windows(b: Builder, op: Op) -> bool:
    """Whether an op's kernel has places of an image for lanes: it then takes one weight at a time, widened once."""
    hints = (spec(part.kind).hints([b.values[n].type for n in part.inputs], part.attrs) for part in op.parts)
    return any(part.kind.endswith("_pooled") or hint.window for part, hint in zip(op.parts, hints, strict=True))


def _meets(b: Builder, op: Op, x: str) -> bool:
    """Whether an op multiplies the input with something in binary16."""
    if x not in op.inputs or not (spec(op.kind).weighted or "_dw" in op.kind):
        return False
    return any(b.values[name].dtype.base == FLOAT16.name for name in op.inputs if name != x)


def _renamed(op: Op, old: str, new: str) -> Op:
    inputs = tuple(new if name == old else name for name in op.inputs)
    return replace(op, inputs=inputs, body=tuple(_renamed(part, old, new) for part in op.body))
