"""Lanes over outputs: maps, and sums that each keep their order."""

from collections.abc import Sequence
from math import prod
from typing import Any

from strop.compiler.chalf import TERMS
from strop.compiler.lanes.layout import Lanes, lane_axis
from strop.compiler.lanes.panel import own_operands, widen_beforehand
from strop.compiler.lanes.vectors import (
    FEW,
    follow_lanes,
    lane_count,
    longest_lanes,
    room_beside,
    split_lanes,
    split_tile,
    start_at_zero,
)
from strop.compiler.schedules import (
    Stage,
    Tiling,
    divisor,
    extent_of,
    loops_of,
    part,
    partable,
    registers,
    tile_factors,
    unrolled_tail,
)


def handful(sch: Any, run: Sequence[Stage], tiling: Tiling, lanes: Lanes) -> None:
    """What begins with a handful of sums: each stage keeps its own loops, and maps of more numbers get lanes."""
    for stage in run:
        if not stage.reduces and prod(stage.shape) >= FEW:
            map_lanes(sch, stage, tiling, lanes)
        elif stage.reduces:
            block = sch.get_sblock(stage.name)
            registers(sch, block, stage)
            _, reduce = loops_of(sch, block)
            sch.decompose_reduction(block, reduce[0])


def map_lanes(sch: Any, stage: Stage, tiling: Tiling, lanes: Lanes) -> None:
    """Element by element, in a nest of its own."""
    if stage.reduces:
        reduction(sch, stage, [], tiling, lane_axis(stage.shape, lanes))
        return
    loops = sch.get_loops(sch.get_sblock(stage.name))
    rank = len(loops)
    if lanes is Lanes.ALL:
        inner = sch.fuse(*loops) if rank > 1 else loops[-1]
    elif lanes is Lanes.IMAGE and rank > 2:
        inner = sch.fuse(*loops[2:]) if rank > 3 else loops[2]
    elif lanes is Lanes.CHANNELS and rank > 2:
        inner = loops[1]
    else:
        inner = loops[-1]
    outer, lane = split_lanes(sch, inner, longest_lanes(tiling, 4), tiling)
    if lanes is Lanes.CHANNELS and rank > 2:
        sch.reorder(outer, *loops[2:], lane)
    sch.vectorize(lane)


def reduction(
    sch: Any, anchor: Stage, followers: Sequence[Stage], tiling: Tiling, axis: int, *, half: bool = False,
    panel: Stage | None = None,
) -> None:
    """A tile of vectors of sums in registers; what follows reads them there."""
    block, parts = sch.get_sblock(anchor.name), partable(sch, [anchor, *followers])
    own = max(1, len(own_operands(sch, block, axis)))
    copies = registers(sch, block, anchor)
    spatial, reduce = loops_of(sch, block)
    spatial[axis], lane = split_lanes(sch, spatial[axis], _best(sch, spatial, anchor, axis, tiling, own, panel))
    width = extent_of(sch, lane)
    reduce, depth = unrolled_tail(sch, reduce, _short_depth(sch, reduce) if half else tiling.depth)
    if half:
        reduce = _short(sch, block, reduce)
    outer, tile = split_tile(sch, spatial, anchor, axis, room_beside(width, tiling, own), depth)
    if panel:
        outer.append(outer.pop(axis))
    sch.reorder(*outer, *reduce, *tile, lane)
    if panel:
        widen_beforehand(sch, panel, outer, tiling)
    for loop in tile:
        sch.unroll(loop)
    if parts:
        _part(sch, anchor, outer, reduce, depth)
    for stage in [*copies, *followers]:
        follow_lanes(sch, stage, outer[-1], len(outer), axis, width)
    sch.vectorize(lane)
    start_at_zero(sch, block, reduce[0], len(outer))


def _part(sch: Any, anchor: Stage, outer: Sequence[Any], reduce: Sequence[Any], depth: int) -> None:
    """Code of its own for the edges of an image. depth: copies of the last loop of a sum.

    Where the terms are few they are written out, for each edge and corner those that are there.
    """
    if len(anchor.shape) > 3 and prod(anchor.terms) <= TAPS:
        for loop in reduce[:-1]:
            sch.unroll(loop)
        parted = outer[-2:]
    else:
        parted = [outer[-1], *(reduce[-2:-1] if depth > 1 else ())]
    for loop in parted:
        part(sch, loop)


TAPS = 9
"""Terms of a sum that are few."""


def _short_depth(sch: Any, reduce: Sequence[Any]) -> int:
    """How far to unroll the innermost loop so that sums in halves, whole turns of it, get most terms."""
    extent = next((n for loop in reversed(reduce) if (n := extent_of(sch, loop)) > 1), 1)
    depths = [depth for depth in range(1, TERMS + 1) if extent % depth == 0]
    return max(depths, key=lambda depth: (depth * divisor(extent // depth, TERMS // depth), depth))


def _short(sch: Any, block: Any, reduce: list[Any]) -> list[Any]:
    """Split the loop that has more turns than one sum in halves may have terms, as the last; unroll what is inside.

    Not where a term may lie in the padding: a loop that stays has its bounds by that.
    """
    terms, at = 1, len(reduce)
    while at and terms * extent_of(sch, reduce[at - 1]) <= TERMS:
        at, terms = at - 1, terms * extent_of(sch, reduce[at - 1])
    turns = divisor(extent_of(sch, reduce[at - 1]), TERMS // terms) if at else 1
    if turns > 1:
        reduce = [*reduce[: at - 1], *sch.split(reduce[at - 1], [None, turns]), *reduce[at:]]
    if "if_then_else" not in str(sch.get(block)):
        for loop in reduce[at:-1]:
            sch.unroll(loop)
    return reduce


def _best(
    sch: Any, spatial: Sequence[Any], anchor: Stage, axis: int, tiling: Tiling, own: int, panel: Stage | None
) -> int:
    """Lanes of a reduction with the fewest instructions a product: the longer, the fewer vectors are side by side.

    own: operands that are vectors; another is a scalar, of a panel two at once.
    """
    shares = [extent_of(sch, spatial[a]) for a in anchor.hints.tile if a != axis]

    def cost(lanes: int) -> float:
        instructions = -(-lanes // tiling.at_once)
        tile = prod(tile_factors(shares, room_beside(lanes, tiling, own), 1, slides=False))
        other = 2 * instructions if own > 1 else 0.5 if panel else 1
        return (2 * instructions + tile * (other + instructions)) / (tile * lanes)  # an operand and its address

    extent, longest = extent_of(sch, spatial[axis]), longest_lanes(tiling, 1 + own)
    lengths = {lane_count(extent, most) for most in range(tiling.register, longest + 1)}
    return min(sorted(lengths, reverse=True), key=cost)
