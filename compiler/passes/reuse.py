"""Let a result take over the memory of an input that dies with the op, where the op works element by element."""

from collections.abc import Sequence
from dataclasses import replace

from strop.compiler.ir import Op, Program, Role
from strop.compiler.liveness import aliases
from strop.compiler.ops import spec


def reuse(program: Program) -> Program:
    """Return the Program with `over` on each op of the train step whose result may overwrite an input."""
    ops = list(program.train_step)
    for index, op in enumerate(ops):
        victim = _victim(program, ops, index)
        if victim:
            ops[index] = replace(op, attrs={**op.attrs, "over": victim})
    return program.with_(train_step=tuple(ops))


def _victim(program: Program, ops: Sequence[Op], index: int) -> str | None:
    op, result = ops[index], ops[index].outputs[0]
    if program.values[result].role is not Role.ACT or result in program.results("train_step"):
        return None
    root = aliases(ops)
    for name in _elementwise_inputs(op):
        owner = root.get(name, name)
        alone = sum(root.get(n, n) == owner for n in dict.fromkeys(op.inputs)) == 1
        same = program.values[owner].bytes == program.values[result].bytes
        dies = not any(root.get(n, n) == owner for later in ops[index + 1 :] for n in later.inputs)
        if alone and same and dies and program.values[owner].role is Role.ACT:
            return name
    return None


def _elementwise_inputs(op: Op) -> Sequence[str]:
    """Inputs read only where the result is written, or before: all of a map, the layer's input of a sweep."""
    if op.kind == "scan":
        return ()
    if all(spec(part.kind).elementwise for part in op.parts):
        return op.inputs
    if op.parts[0].kind == "dense_dx" and any(part.kind == "dense_dw" for part in op.parts):
        return [part.inputs[1] for part in op.parts if part.kind == "dense_dw"]
    return ()
