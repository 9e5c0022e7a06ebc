"""Store values in the formats of a precision policy; kernels compute in float32 all the same.

Only what rests in memory between kernels changes its format: what a fused op keeps to itself is never rounded. Input,
output, loss and single numbers stay float32, and so does what an op notes for its gradient beside its first result,
and what it asks for (`OpSpec.precise`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from strop.compiler.dtypes import FLOAT32, INT32, DType
from strop.compiler.health import FIRST, SCALE
from strop.compiler.ir import Attr, Builder, Op, Program, Role, TensorType, Value, flatten
from strop.compiler.liveness import aliases
from strop.compiler.ops import spec
from strop.compiler.ops.optimizer import WEIGHT
from strop.compiler.passes.legalize import check_formats, layer
from strop.compiler.precision import Precision
from strop.compiler.rng import tensor_key
from strop.errors import LegalizeError

STEP = "rounding.step"
"""State: steps begun, (1) int32, where updates are rounded by chance."""

REST = ".rest"
"""Behind a parameter's name: the state that carries what rounding left of it."""


def narrow(program: Program, policy: Precision, board: str, seed: int, harts: int = 1) -> Program:
    """Return the Program with its values retyped. seed: of random rounding.  harts: that run it together.

    Raises LegalizeError naming an op that has no kernel for a format.
    """
    if not policy.narrows:
        return program
    kept = _precise(program) | _whole_layers(program, policy)
    formats = {name: dtype for name, dtype in _formats(program, policy) if name not in kept}
    values = dict(program.values)
    for name, dtype in formats.items():
        value = values[name]
        if value.dtype is FLOAT32 and value.type.size > 1:
            values[name] = replace(value, type=TensorType(value.shape, dtype))
    if any(value.dtype.dynamic for value in values.values()):
        if harts > 1:
            raise LegalizeError(f"on {board} the error scale cannot follow: its harts would disagree on what to skip",
                                do="Give a power of two with --error-scale")  # fmt: skip
        values[SCALE] = Value(SCALE, TensorType((3,), FLOAT32), Role.STATE)
        program = program.with_(initial={**program.initial, SCALE: np.array([FIRST, 1 / FIRST, 0], np.float32)})
    initial = {name: data.astype(values[name].dtype.numpy) for name, data in program.initial.items()}
    narrowed = program.with_(values=values, initial=initial)
    check_formats(narrowed, board)
    return _rounded(narrowed, policy, seed)


def _rounded(program: Program, policy: Precision, seed: int) -> Program:
    """The Program whose updates of narrow parameters round as the policy says."""
    b = Builder(program.values, program.initial)
    ops = tuple(_rewritten(b, op, policy, seed) for op in program.train_step)
    if STEP in b.values:
        count = Op("tally", (STEP,), (STEP,), {"by": 1, "end": 2**31 - 2, "back": 1})
        ops = (count, *ops)
    return program.with_(values=b.values, initial=b.initial, train_step=ops)


def _rewritten(b: Builder, op: Op, policy: Precision, seed: int) -> Op:
    if op.body:
        body = tuple(_rewritten(b, part, policy, seed) for part in op.body)
        more = [name for part in body for name in part.inputs if name == STEP or name.endswith(REST)]
        rests = [name for name in more if name != STEP]
        return replace(op, body=body, inputs=(*op.inputs, *dict.fromkeys(more)), outputs=(*op.outputs, *rests))
    weight = b.values[op.inputs[0]] if spec(op.kind).operands[:1] == (WEIGHT,) else None
    rounding = policy.rounds(weight.dtype) if weight and weight.dtype.narrow else "nearest"
    if weight is None or rounding == "nearest":
        return op
    attrs: dict[str, Attr] = {**op.attrs, "dtype": weight.dtype.name}
    if rounding == "stochastic":
        b.value(STEP, TensorType((1,), INT32), Role.STATE, data=np.zeros(1))
        attrs |= {"seed": seed, "tensor": tensor_key(f"{weight.name}.rounding")}
        return replace(op, kind=f"{op.kind}_stochastic", inputs=(STEP, *op.inputs), attrs=attrs)
    rest = b.value(f"{weight.name}{REST}", weight.type, Role.STATE, weight.loc, np.zeros(weight.shape))
    return replace(op, kind=f"{op.kind}_carried", inputs=(rest, *op.inputs), outputs=(*op.outputs, rest), attrs=attrs)


def _formats(program: Program, policy: Precision) -> Iterator[tuple[str, DType]]:
    """Every value that may be retyped, with its format."""
    for op in _primitives((*program.train_step, *program.infer)):
        for index, name in enumerate(op.inputs):
            if program.values[name].role in (Role.PARAM, Role.CONST) and _reads_weight(op, index):
                yield name, policy.of("parameters", name.rpartition(".")[0])
    for op in _primitives(program.train_step):
        if spec(op.kind).operands[:1] == (WEIGHT,):
            yield op.inputs[0], policy.of("parameters", op.inputs[0].rpartition(".")[0])
            for name in set(op.outputs) - {op.inputs[0]}:
                yield name, policy.of("state", op.inputs[0].rpartition(".")[0])
    forward = {name for op in flatten(program.infer) for name in op.outputs}
    for ops in program.functions().values():
        yield from _activations(program, ops, policy, forward)


def _primitives(ops: Iterable[Op]) -> Iterator[Op]:
    """Ops that have a specification of their own, those inside others included."""
    return (op for op in flatten(ops) if op.kind != "fused")


def _reads_weight(op: Op, index: int) -> bool:
    """Whether an operand of a layer is one of its parameters."""
    return spec(op.kind).weighted and index > 0


def _activations(
    program: Program, ops: tuple[Op, ...], policy: Precision, forward: set[str]
) -> Iterator[tuple[str, DType]]:
    """What passes from kernel to kernel. Names of one piece of memory have one format, that of its owner."""
    root = aliases(ops)
    made = {name: op for op in ops for name in op.outputs if program.values[name].role is Role.ACT}
    chosen: dict[str, DType] = {}
    for name, op in made.items():
        owner = root.get(name, name)
        if program.values[owner].role is not Role.ACT:
            continue
        role = "activations" if owner in forward else "errors"
        chosen.setdefault(owner, policy.of(role, layer(made[owner].loc if owner in made else op.loc)))
        yield name, chosen[owner]


def _whole_layers(program: Program, policy: Precision) -> set[str]:
    """What ops without 16-bit kernels work on, in layers that the policy keeps in float32, and what they are handed."""
    kept: set[str] = set()
    for op in _primitives((*program.train_step, *program.infer)):
        formats = {policy.of(role, layer(op.loc)) for role in ("activations", "errors")}
        if spec(op.kind).dtypes == (FLOAT32.name,) and formats == {FLOAT32}:
            kept |= {*op.inputs, *op.outputs}
    return kept


def _precise(program: Program) -> set[str]:
    """What stays float32: the caller's memory, results under any of their names, and what ops ask for."""
    kept = {program.output, program.loss}
    for ops in program.functions().values():
        for op in _primitives(ops):
            kind = spec(op.kind)
            named = zip((*kind.operands[: len(op.inputs)], *kind.results), (*op.inputs, *op.outputs), strict=False)
            kept |= {name for what, name in named if what in kind.precise}
            kept |= {name for name in op.outputs[1:] if program.values[name].role is Role.ACT}
    for ops in program.functions().values():
        root = aliases(ops)
        owners = {root.get(name, name) for name in kept}
        kept |= {name for name, owner in root.items() if owner in owners} | owners
    return kept
