"""Composite ops become the ops they stand for, and sequences keep only the rows that someone reads.

A layer's scan makes a row a step. Where only the last rows are read outside, as under truncation or in inference, the
sequence becomes a ring of so many rows, in which later steps overwrite earlier ones. Where the row before the first is
read, the sequence gets one more.
"""

from collections.abc import Sequence
from dataclasses import replace

from strop.compiler.ir import Builder, Op, Program, Role, TensorType
from strop.compiler.liveness import aliases
from strop.compiler.ops import spec
from strop.compiler.passes.fuse import join


def unroll(program: Program) -> Program:
    """Return the Program without composite ops."""
    b = Builder(program.values, program.initial)
    functions = {
        name: _settled(b, _narrowed(b, _expanded(b, ops), program.results(name)), program.results(name))
        for name, ops in program.functions().items()
    }
    wide = program.with_(values=b.values)
    return wide.with_(**{name: tuple(_joined(wide, op) for op in ops) for name, ops in functions.items()}).pruned()


def _expanded(b: Builder, ops: Sequence[Op]) -> list[Op]:
    b.ops = []
    for op in ops:
        if not op.body and spec(op.kind).composite:
            spec(op.kind).expand(b, op)
        else:
            b.ops.append(op)
    return b.ops


def _joined(program: Program, op: Op) -> Op:
    """A scan whose body's ops are fused where they may be."""
    return replace(op, body=join(program, op.body, set(op.rows))) if op.kind == "scan" else op


def _narrowed(b: Builder, ops: list[Op], results: Sequence[str]) -> list[Op]:
    """The ops with every sequence that a scan makes as long as its readers need it."""
    for scan in [op for op in ops if op.kind == "scan"]:
        made = [name for name in scan.outputs if any(row.sequence == name for row in scan.rows.values())]
        for name in made[1 if "over" in scan.attrs else 0 :]:
            ops = _fitted(b, ops, name, results)
    return ops


def _fitted(b: Builder, ops: list[Op], name: str, results: Sequence[str]) -> list[Op]:
    """The ops with one sequence fitted."""
    old = b.values[name]
    maker = next(op for op in ops if name in op.outputs)
    readers = [op for op in ops if name in op.inputs]
    shifts = [row.shift for row in maker.rows.values() if row.sequence == name]
    first = min(
        [*(_first_read(op, name) for op in readers), *(0 for result in results if result == name)], default=old.shape[0]
    )
    count = max(old.shape[0] - first, max(shifts) - min(shifts) + 1)
    first = old.shape[0] - count
    if first == 0:
        return ops
    new = b.value(b.fresh(f"{name}.rows"), TensorType((count, *old.shape[1:]), old.dtype), Role.ACT, old.loc)
    moved = [_moved(op, name, new, first) for op in ops]
    if any(name in op.inputs for op in moved) or name in results:
        at = ops.index(maker) + 1
        moved.insert(at, Op("rows", (new,), (name,), {"first": -first, "shape": old.shape}, old.loc))
    return moved


def _first_read(op: Op, name: str) -> int:
    """The first row of a sequence that an op reads; -1 is the state before the first step."""
    if op.kind == "rows":
        return int(str(op.attrs["first"]))
    if _by_row(op, name):
        return min(min(op.times) + row.shift for row in op.rows.values() if row.sequence == name)
    return 0


def _by_row(op: Op, name: str) -> bool:
    """Whether an op reads or makes a sequence row by row."""
    return any(row.sequence == name for row in op.rows.values()) and op.attrs.get("over") != name


def _moved(op: Op, name: str, new: str, first: int) -> Op:
    """The op with the sequence under its new name, if it works by rows: what was row `first` is the first one now."""
    if op.kind == "rows" and name in op.inputs:
        return _renamed(replace(op, attrs={**op.attrs, "first": int(str(op.attrs["first"])) - first}), name, new)
    if not _by_row(op, name):
        return op
    rows = [
        replace(row, sequence=new, shift=row.shift - first) if row.sequence == name else row for row in op.rows.values()
    ]
    return _renamed(replace(op, attrs={**op.attrs, "rows": tuple(row.attr for row in rows)}), name, new)


def _renamed(op: Op, old: str, new: str) -> Op:
    """The op with another value in place of one that it reads or makes."""
    inputs, outputs = (tuple(new if name == old else name for name in names) for names in (op.inputs, op.outputs))
    return replace(op, inputs=inputs, outputs=outputs)


def _settled(b: Builder, ops: list[Op], results: Sequence[str]) -> list[Op]:
    """The ops, where a result that is some rows of a longer sequence has been copied out of it."""
    root = aliases(ops)
    for result in results:
        if b.values[root.get(result, result)].bytes == b.values[result].bytes:
            continue
        row = b.value(b.fresh(f"{result}.row"), b.values[result].type, Role.ACT, b.values[result].loc)
        at = next(i for i, op in enumerate(ops) if result in op.outputs)
        copy = Op("copy", (row,), (result,), {}, b.values[result].loc)
        ops = [*ops[:at], _renamed(ops[at], result, row), copy, *ops[at + 1 :]]
    return ops
