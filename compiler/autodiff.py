"""One reverse-mode pass over ops; every learning rule uses it inside its blocks."""

from collections.abc import Iterable, Sequence

from strop.compiler.ir import Builder, Op
from strop.compiler.ops import spec


def gradients(b: Builder, ops: Sequence[Op], objective: str, wanted: Iterable[str]) -> dict[str, str]:
    """Emit the gradient of `objective` with respect to the wanted values, through `ops` only.

    ops: in order of execution; whatever they read but do not define is held constant (that is how a block is
    detached).  Returns the gradient's value by wanted value; a value that the objective does not depend on is absent.
    """
    wanted = set(wanted)
    needed = _depends_on(ops, wanted)
    found: dict[str, str] = {}
    seeded = False
    for op in reversed(ops):
        if objective in op.outputs:
            seeded = True
        elif not any(name in found for name in op.outputs):
            continue
        if not seeded or not any(name in needed for name in op.inputs):
            continue
        grads = spec(op.kind).vjp(b, op, [found.get(name) for name in op.outputs])
        for name, grad in zip(op.inputs, grads, strict=True):
            if grad is not None and name in needed:
                found[name] = _accumulate(b, name, found.get(name), grad)
    return {name: found[name] for name in found if name in wanted}


def _accumulate(b: Builder, name: str, old: str | None, new: str) -> str:
    return new if old is None else b.emit1("add", (old, new), f"d_{name}")


def _depends_on(ops: Iterable[Op], sources: set[str]) -> set[str]:
    """The sources and everything computed from them."""
    reached = set(sources)
    for op in ops:
        if reached.intersection(op.inputs):
            reached.update(op.outputs)
    return reached
