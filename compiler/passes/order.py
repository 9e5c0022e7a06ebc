"""Order ops so that memory peaks low: an update runs as soon as its error is complete, so activations die early.

Three candidates, of which the lowest peak wins: the given order; one update after the other, each with what it still
needs, the nearest first (a local rule then holds one layer at a time); and a greedy list schedule, which takes among
the ops that are ready the one that leaves the fewest live bytes. The given order breaks ties. Where a step may have to
be skipped for a large error, updates wait for all errors instead.
"""

from collections.abc import Sequence

from strop.compiler.health import SCALE
from strop.compiler.ir import PERSISTENT, Op, Program, Role
from strop.compiler.liveness import live_bytes


def order(program: Program) -> Program:
    """Return the Program with the train step reordered; results are the same bits in any order.

    Under an error scale that follows, updates come last: none is made in a step one of whose errors is too large.
    """
    results = program.results("train_step")
    orders = (_updates_last,) if SCALE in program.values else (_given, _eager, _greedy)
    candidates = [make(program, program.train_step) for make in orders]
    best = min(candidates, key=lambda ops: max(live_bytes(program, ops, results), default=0))
    return program.with_(train_step=best)


def dependencies(program: Program, ops: Sequence[Op]) -> list[set[int]]:
    """For each op the earlier ops it must follow: what it reads, and readers of the variables it overwrites."""
    writer: dict[str, int] = {}
    readers: dict[str, set[int]] = {}
    before: list[set[int]] = []
    for index, op in enumerate(ops):
        needs = {writer[name] for name in op.inputs if name in writer}
        for name in op.outputs:
            if program.values[name].role in PERSISTENT:
                needs |= readers.get(name, set())
            writer[name] = index
        for name in op.inputs:
            readers.setdefault(name, set()).add(index)
        before.append(needs - {index})
    return before


def _given(_program: Program, ops: Sequence[Op]) -> tuple[Op, ...]:
    return tuple(ops)


def _eager(program: Program, ops: Sequence[Op]) -> tuple[Op, ...]:
    ancestors: list[set[int]] = []
    for index, needs in enumerate(dependencies(program, ops)):
        ancestors.append({index}.union(*(ancestors[need] for need in needs)))
    goals = {i for i, op in enumerate(ops) if _updates(program, op)}
    done: dict[int, None] = {}
    while goals:
        nearest = min(goals, key=lambda i: (len(ancestors[i] - done.keys()), i))
        done.update(dict.fromkeys(sorted(ancestors[nearest] - done.keys())))
        goals.discard(nearest)
    return tuple(ops[i] for i in [*done, *(i for i in range(len(ops)) if i not in done)])


def _updates_last(program: Program, ops: Sequence[Op]) -> tuple[Op, ...]:
    """The given order, but for updates, and what reads their results."""
    late: set[int] = set()
    for index, needs in enumerate(dependencies(program, ops)):
        if needs & late or _updates(program, ops[index]):
            late.add(index)
    return tuple(ops[i] for i in sorted(range(len(ops)), key=lambda i: (i in late, i)))


def _updates(program: Program, op: Op) -> bool:
    return any(program.values[name].role in PERSISTENT for name in op.outputs)


def _greedy(program: Program, ops: Sequence[Op]) -> tuple[Op, ...]:
    before = dependencies(program, ops)
    uses = {name: {i for i, op in enumerate(ops) if name in op.inputs} for op in ops for name in op.inputs}
    done: dict[int, None] = {}
    while len(done) < len(ops):
        ready = [i for i in range(len(ops)) if i not in done and before[i] <= done.keys()]
        chosen = min(ready, key=lambda i: (_growth(program, ops[i], uses, done.keys() | {i}), i))
        done[chosen] = None
    return tuple(ops[i] for i in done)


def _growth(program: Program, op: Op, uses: dict[str, set[int]], done: set[int]) -> int:
    """Bytes that running the op adds to the live set, less those it frees."""
    added = sum(program.values[name].bytes for name in op.outputs if not _fixed(program, name) and uses.get(name))
    freed = {name for name in op.inputs if not _fixed(program, name) and uses[name] <= done}
    return added - sum(program.values[name].bytes for name in freed)


def _fixed(program: Program, name: str) -> bool:
    """Whether the value's memory is taken for good, or the caller's."""
    return program.values[name].role not in (Role.ACT, Role.SCRATCH)
