"""Move reshapes behind element-wise ops, which do not care about shape and then meet the op that made their input."""

from collections.abc import Sequence
from dataclasses import replace

from strop.compiler.ir import Op, Program, Role, TensorType, Value
from strop.compiler.ops import spec


def flatten(program: Program) -> Program:
    """Return the Program with element-wise ops of the train step working in the shape their input was made in."""
    values, ops = dict(program.values), list(program.train_step)
    for op in program.train_step:
        if spec(op.kind).elementwise and not spec(op.kind).overwrites:
            _move(values, ops, op)
    return program.with_(values=values, train_step=tuple(ops))


def _move(values: dict[str, Value], ops: list[Op], op: Op) -> None:
    """`y = f(reshape(a), b)` becomes `y' = f(a, b'); y = reshape(y')`, if b exists in the shape of a."""
    source = {r.outputs[0]: r.inputs[0] for r in ops if r.kind == "reshape"}
    if op.inputs[0] not in source or len(op.outputs) != 1:
        return
    shape = values[source[op.inputs[0]]].type
    inputs = [_in_shape(values, ops[: ops.index(op)], name, shape) for name in op.inputs]
    (result,) = op.outputs
    if None in inputs:
        return
    flat = f"{result}.flat"
    values[flat] = Value(flat, shape, Role.ACT, op.loc)
    at = ops.index(op)
    moved = replace(op, inputs=tuple(name for name in inputs if name), outputs=(flat,))
    ops[at : at + 1] = [moved, Op("reshape", (flat,), (result,), {"shape": values[result].shape}, op.loc)]


def _in_shape(values: dict[str, Value], ops: Sequence[Op], name: str, type_: TensorType) -> str | None:
    """The same memory as `name` under another type, where some reshape before has made it so."""
    for op in ops:
        if op.kind == "reshape":
            for one, other in ((op.inputs[0], op.outputs[0]), (op.outputs[0], op.inputs[0])):
                if one == name and values[other].type == type_:
                    return other
    return None
