"""The executable specification of the IR; run after every pass. A violation is a defect of the pass, never the user."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from strop.compiler.ir import PERSISTENT, Op, Program, Role, TensorType, flatten
from strop.compiler.liveness import aliases
from strop.compiler.ops import spec, specs
from strop.errors import VerifyError

GIVEN = PERSISTENT | {Role.INPUT, Role.LABEL, Role.CONST}
"""Roles that hold a value before a function starts."""


def verify(program: Program, stage: str = "") -> Program:
    """Return the Program if it is well-formed; raise VerifyError naming the op and the stage otherwise."""
    try:
        _values(program)
        for name, ops in program.functions().items():
            if ops:
                _function(program, name, ops)
    except _Broken as broken:
        raise VerifyError(str(broken), where=f"after {stage}" if stage else program.name) from None
    return program


class _Broken(Exception):
    """A rule of the IR that does not hold."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise _Broken(message)


def _values(program: Program) -> None:
    for name, value in program.values.items():
        _require(name == value.name, f"value {value.name!r} is filed under {name!r}")
        _require(all(size > 0 for size in value.shape), f"{name} has an empty shape {value.shape}")
        if value.role in PERSISTENT | {Role.CONST}:
            _require(name in program.initial, f"{name} has no initial contents")
            data = program.initial[name]
            _require(data.shape == value.shape, f"{name} is {value.shape}, its contents are {data.shape}")
            _require(
                data.dtype == np.dtype(value.dtype.numpy), f"{name} is {value.dtype.name}, its contents {data.dtype}"
            )
    _require(program.output in program.values, f"the output {program.output!r} is not a value")


def _function(program: Program, function: str, ops: Sequence[Op]) -> None:
    training = function == "train_step"
    defined = {value.name for value in program.of(*(GIVEN if training else GIVEN - {Role.LABEL}))}
    overwritten: set[str] = set()
    for op in flatten(ops):
        _require(bool(op.body) or op.kind in specs(), f"no op is called {op.kind!r}")
    root = aliases(ops)
    for op in ops:
        _signature(op)
        if op.kind == "scan":
            _scan(program, op, defined, overwritten)
        else:
            for part in op.parts:
                _operation(program, part, defined, overwritten)
        defined -= _hidden(op) | _taken(op, defined, root)
    _require(training or not overwritten, f"infer overwrites {sorted(overwritten)}")
    for name in program.results(function):
        _require(name in defined, f"the result {name!r} is never computed")


def _scan(program: Program, op: Op, defined: set[str], overwritten: set[str]) -> None:
    """A scan reads what it lists, its rows lie in their sequences, and a turn writes nothing else that is outside."""
    variables = {name for name in op.outputs if program.values[name].role in PERSISTENT}
    for name in op.outputs:
        _require(name not in (overwritten if name in variables else defined), f"{name!r} is computed twice")
    _require(set(op.inputs) <= defined, f"a scan reads {sorted(set(op.inputs) - defined)} before it is computed")
    for row in op.rows.values():
        _require(row.sequence in (*op.inputs, *op.outputs), f"{row.name!r} is a row of {row.sequence!r}, not listed")
        sequence, end = program.values[row.sequence], row.start + program.values[row.name].type.size
        _require(end * sequence.shape[0] <= sequence.type.size, f"{row.name!r} leaves its row of {row.sequence!r}")
    known, written = set(op.inputs) | set(op.rows), set[str]()
    for part in op.body:
        _signature(part)
        for inner in part.parts:
            _operation(program, inner, known, written, op.rows)
        _require(not _hidden(part) & set(op.rows), f"{part.kind} hides a row that it writes")
        known -= _hidden(part)
    sequences = {op.rows[name].sequence for part in op.body for name in part.outputs if name in op.rows}
    sequences |= {name for name in written if name not in op.rows}
    _require(sequences <= set(op.outputs), f"a scan writes {sorted(sequences)}, but lists {sorted(op.outputs)}")
    _require(variables <= written, f"a scan lists {sorted(variables - written)}, but does not write it")
    overwritten |= variables
    defined |= set(op.outputs)


def _operation(
    program: Program, op: Op, defined: set[str], overwritten: set[str], rows: Collection[str] = ()
) -> None:
    """One op's operands, types and results. rows: step values, which it may overwrite."""
    for name in op.inputs:
        _require(name in program.values, f"{op.kind} reads {name!r}, which is not a value")
        _require(name in defined, f"{op.kind} reads {name!r} before it is computed")
    _types(program, op)
    variables = {output: op.inputs[source] for output, source in spec(op.kind).overwrites.items()}
    for index, name in enumerate(op.outputs):
        if index in variables:
            _require(name == variables[index], f"{op.kind} must write {variables[index]!r} in place, not {name!r}")
            variable = name in rows or program.values[name].role in PERSISTENT
            _require(variable, f"{op.kind} overwrites {name!r}, which is no variable")
            _require(name not in overwritten, f"{name!r} is overwritten twice")
            overwritten.add(name)
        else:
            _require(name not in defined or name in rows, f"{name!r} is computed twice")
            _require(program.values[name].role in (Role.ACT, Role.SCRATCH), f"{op.kind} writes {name!r}")
        defined.add(name)


def _types(program: Program, op: Op) -> None:
    types = [program.values[name].type for name in op.inputs]
    try:
        expected = spec(op.kind).infer(types, op.attrs)
    except (ValueError, IndexError, KeyError, TypeError):
        raise _Broken(f"{op.kind} -> {', '.join(op.outputs)} cannot take {_list(types)}") from None
    actual = [program.values[name].type for name in op.outputs if name in program.values]
    agree = len(expected) == len(actual) and all(map(_holds, actual, expected))
    _require(agree, f"{op.kind} -> {', '.join(op.outputs)} gives {_list(expected)}, not {_list(actual)}")


def _holds(actual: TensorType, expected: TensorType) -> bool:
    """Whether a value of a type may hold a result: real numbers rest in any format of real numbers."""
    same = actual.dtype == expected.dtype or (actual.dtype.is_float and expected.dtype.is_float)
    return same and actual.shape == expected.shape


def _list(types: Sequence[object]) -> str:
    return ", ".join(map(str, types))


def _signature(op: Op) -> None:
    """A fused op reads what its body reads from outside, and writes no less than what others read from it."""
    if op.kind != "fused":
        return
    inner: set[str] = set()
    outside: set[str] = set()
    for part in op.body:
        outside |= {name for name in part.inputs if name not in inner}
        inner |= set(part.outputs)
    _require(outside == set(op.inputs), f"fused {op.outputs} reads {sorted(outside)} but lists {sorted(op.inputs)}")
    _require(set(op.outputs) <= inner, f"fused {op.outputs} does not compute all it lists")


def _taken(op: Op, defined: set[str], root: Mapping[str, str]) -> set[str]:
    """Names of the memory that the op's result took over: nobody may read them any more."""
    if "over" not in op.attrs:
        return set()
    owner = root[op.outputs[0]]
    return {name for name in defined if root.get(name, name) == owner} - {op.outputs[0]}


def _hidden(op: Op) -> set[str]:
    """What an op with a body computes and keeps to itself."""
    return {name for part in op.body for name in part.outputs} - set(op.outputs)
