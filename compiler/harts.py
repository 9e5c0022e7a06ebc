"""How a kernel's work is shared out over the harts of a cluster: each computes outputs of its own, in the same order.

The outermost loops over outputs become one loop, marked as parallel, of which every hart runs a range. Whatever has no
such loop is done by hart 0. So no two harts write one address, and the bits do not depend on how many there are.
"""

from collections.abc import Sequence
from typing import Any

SPARE = 1.05
"""How much longer than the mean the busiest hart may be before more loops are shared out."""


def share_loops(sch: Any, loops: Sequence[Any], harts: int) -> tuple[int, Sequence[Any]]:
    """Mark the outer loops of a nest, all over outputs and each holding nothing but the next, in place.

    harts: the most that will run it.  Returns how many loops became one with another, and those that stay inside it.
    """
    choices = [(imbalance(turns, harts), count) for count, turns in _extents(sch, loops)]
    if harts == 1 or not choices or not may_share(sch, loops[0]):
        return 0, loops
    good = [choice for choice in choices if choice[0] <= SPARE]
    _, count = min(good, key=lambda choice: choice[1]) if good else min(choices)
    sch.parallel(sch.fuse(*loops[:count]) if count > 1 else loops[0])
    return count - 1, loops[count:]


def share_maps(sch: Any, names: Sequence[str], harts: int) -> None:
    """Mark the nests of all that are no reduction, and not yet marked, in place. names: of the blocks."""
    for name in names:
        loops = sch.get_loops(sch.get_sblock(name))
        share_loops(sch, loops[: _independent(sch, loops)], harts)


def _extents(sch: Any, loops: Sequence[Any]) -> list[tuple[int, int]]:
    """(count, turns) of the first loops together."""
    rows, turns = [], 1
    for count, loop in enumerate(loops, 1):
        turns *= int(sch.get(loop).extent)
        rows.append((count, turns))
    return rows


def imbalance(turns: int, harts: int) -> float:
    """What the busiest hart does, over the mean."""
    return -(-turns // harts) * harts / turns


def may_share(sch: Any, loop: Any) -> bool:
    """Whether no turn of a loop needs what another computes."""
    try:
        sch.copy().parallel(loop)
    except Exception:  # each reason has an error of its own
        return False
    return int(sch.get(loop).kind) == 0


def _independent(sch: Any, loops: Sequence[Any]) -> int:
    """How many of the outermost loops hold nothing but the next, run over outputs, and are not unrolled."""
    count = 0
    for loop, inner in zip(loops, [*loops[1:], None], strict=True):
        if not may_share(sch, loop):
            return count
        count += 1
        if inner is None or not sch.get(loop).body.same_as(sch.get(inner)):
            return count
    return count
