"""Remove what nobody reads: frozen layers' gradients, the first layer's input gradient, indices at inference."""

from collections.abc import Sequence

from strop.compiler.ir import PERSISTENT, Op, Program
from strop.compiler.ops import spec


def simplify(program: Program) -> Program:
    """Return the Program without dead ops, outputs and values."""
    variables = {value.name for value in program.of(*PERSISTENT)}
    return program.with_(
        infer=_alive(program.infer, {program.output}),
        train_step=_alive(program.train_step, {program.loss} | variables) if program.train_step else (),
    ).pruned()


def _alive(ops: Sequence[Op], results: set[str]) -> tuple[Op, ...]:
    """The ops that a result depends on, walking backwards; ops shrink to their plain kind where that is enough."""
    needed, kept = set(results), []
    for op in reversed(ops):
        read = [name in needed for name in op.outputs]
        if not any(read):
            continue
        op = _shrunk(op, read)  # noqa: PLW2901
        kept.append(op)
        needed.update(op.inputs)
    return tuple(reversed(kept))


def _shrunk(op: Op, read: Sequence[bool]) -> Op:
    plain = spec(op.kind).plain
    if plain and not any(read[1:]):
        return Op(plain, op.inputs, op.outputs[:1], op.attrs, op.loc)
    return op
