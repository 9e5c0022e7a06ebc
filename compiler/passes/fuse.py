"""Join ops into one kernel where a value between them need not exist: it is read once, element by element.

* an element-wise op joins the op that computes its input: activation into layer, activation gradient into input
  gradient, parameter update into weight gradient (so that no gradient is ever stored);
* element-wise ops join each other, and a layer whose windows a max-pool reduces;
* a dense layer's input gradient and its update, at batch 1, become one pass over the weights.

The meaning does not change: a fused op is its body.
"""

from collections import Counter
from collections.abc import Sequence

from strop.compiler.ir import PERSISTENT, Op, Program
from strop.compiler.ops import spec


def fuse(program: Program, *, sweeps: bool = True) -> Program:
    """Return the Program with both functions fused. sweeps: whether an update may run before all errors are known."""
    functions = {name: join(program, ops, set(program.results(name))) for name, ops in program.functions().items()}
    if program.batch == 1 and sweeps:
        functions["train_step"] = _sweeps(program, functions["train_step"])
    return program.with_(**functions).pruned()


def join(program: Program, ops: Sequence[Op], results: set[str]) -> tuple[Op, ...]:
    """Return the ops of a function, or of a scan's body, with those joined that may be. results: must be outputs."""
    reads = Counter(name for op in ops for name in set(op.inputs))
    groups: list[list[Op]] = []
    owner: dict[str, int] = {}
    for op in ops:
        home = _home(program, op, reads, owner, groups, results)
        if home is None:
            groups.append([op])
            home = len(groups) - 1
        else:
            groups.append(groups[home] + [op])
            groups[home] = []
            home = len(groups) - 1
        owner.update({name: home for member in groups[home] for name in member.outputs})
    return tuple(_joined(group, reads, results) for group in groups if group)


def _home(
    program: Program, op: Op, reads: Counter[str], owner: dict[str, int], groups: list[list[Op]], results: set[str]
) -> int | None:
    """The group that computes an input this op alone reads, if the op may run inside its loops."""
    for name in op.inputs:
        private = reads[name] == 1 and name not in results and _follows(program, op, name)
        if name in owner and private and _joins(program, groups[owner[name]], op, name, owner):
            return owner[name]
    return None


def _follows(program: Program, op: Op, name: str) -> bool:
    """Whether the op can consume the input where it is made: element by element, or window by window."""
    kind = spec(op.kind)
    same = program.values[name].type == program.values[op.outputs[0]].type
    return (kind.elementwise and same) or _windowed(program, op)


def _joins(program: Program, group: Sequence[Op], op: Op, link: str, owner: dict[str, int]) -> bool:
    """Whether the group ends in `link`, needs no order against what was run since, and writes no other shape."""
    last = group[-1]
    kind = spec(last.kind)
    if last.outputs[0] != link or kind.free or kind.overwrites or kind.composite:
        return False
    if _windowed(program, op) and group[0].kind != "conv2d":
        return False
    written = {name for member in group for name in member.outputs}
    since = [name for name, index in owner.items() if index > owner[link] and name not in written]
    moved = {name for member in group for name in member.inputs}
    return not any(program.values[name].role in PERSISTENT and name in since for name in moved)


def _windowed(program: Program, op: Op) -> bool:
    """Whether the op reduces windows of its own."""
    return spec(op.kind).hints([program.values[name].type for name in op.inputs], op.attrs).window


def _joined(group: Sequence[Op], reads: Counter[str], results: set[str]) -> Op:
    if len(group) == 1:
        return group[0]
    inner = [name for op in group for name in op.outputs]
    counts = Counter(name for op in group for name in set(op.inputs))
    inputs = dict.fromkeys(
        name for i, op in enumerate(group) for name in op.inputs if not any(name in p.outputs for p in group[:i])
    )
    overwritten = {op.outputs[i] for op in group for i in spec(op.kind).overwrites}
    working = {op.outputs[i] for op in group for i in spec(op.kind).working}
    outputs = tuple(n for n in inner if n in results or n in overwritten | working or counts[n] < reads[n])
    return Op("fused", tuple(inputs), outputs, {}, group[0].loc, tuple(group))


def _sweeps(program: Program, ops: Sequence[Op]) -> tuple[Op, ...]:
    """Join each dense layer's input gradient of one row with the update that overwrites the weight it reads."""
    joined = list(ops)
    for gradient in [op for op in ops if op.parts[0].kind == "dense_dx"]:
        if program.values[gradient.parts[0].inputs[0]].shape[0] != 1:
            continue
        weight = gradient.parts[0].inputs[1]
        update = next((op for op in joined if op.parts[0].kind == "dense_dw" and weight in op.outputs), None)
        if update and _adjoining(joined, gradient, update, weight):
            joined[joined.index(gradient)] = _both(gradient, update)
            joined.remove(update)
    return tuple(joined)


def _adjoining(ops: Sequence[Op], gradient: Op, update: Op, weight: str) -> bool:
    """Whether the update can move up to the gradient: nothing between them reads or makes what it touches."""
    between = ops[ops.index(gradient) + 1 : ops.index(update)]
    touched = set(update.inputs) | set(update.outputs)
    same_error = gradient.parts[0].inputs[0] == update.parts[0].inputs[0]
    return same_error and not any(weight in op.inputs or touched & set(op.outputs) for op in between)


def _both(gradient: Op, update: Op) -> Op:
    inputs = dict.fromkeys((*gradient.inputs, *update.inputs))
    outputs, body = (*gradient.outputs, *update.outputs), (*gradient.parts, *update.parts)
    return Op("fused", tuple(inputs), outputs, {}, gradient.loc, body)
