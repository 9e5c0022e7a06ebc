"""Lanes over the terms of a sum, each of which keeps a partial one."""

from collections.abc import Sequence
from math import prod
from typing import Any

from strop.compiler.chalf import TERMS
from strop.compiler.cvector import ROW
from strop.compiler.lanes.layout import lane_axis
from strop.compiler.lanes.vectors import (
    flat_index,
    index_map,
    lane_count,
    longest_lanes,
    split_lanes,
    split_row,
    split_tile,
    start_at_zero,
)
from strop.compiler.schedules import (
    Stage,
    Tiling,
    divisor,
    extent_of,
    follow,
    loops_of,
    part,
    partable,
    registers,
    tile_factors,
)
from strop.errors import LowerError


def few_outputs(stage: Stage, tiling: Tiling) -> bool:
    """Whether a sum has fewer outputs along the axis of its lanes than the longest vector, and enough terms for one.

    Where several instructions make a vector, any is too long for rows of a weight: neighbours in one cost less to load.
    """
    if not stage.terms or stage.hints.window:
        return False
    few = lane_count(stage.shape[lane_axis(stage.shape)], tiling.lanes) < tiling.lanes
    few |= stage.hints.dot and not tiling.whole
    return few and prod(_row(stage.terms)) >= tiling.lanes


def _row(terms: Sequence[int]) -> Sequence[int]:
    """The extents of those axes of a reduction whose terms become lanes: all but the first of several, the batch's."""
    return terms[len(terms) > 1 :]


def partial_sums(
    sch: Any, anchor: Stage, followers: Sequence[Stage], tiling: Tiling, *, half: bool, apart: bool
) -> None:
    """A tile of vectors of partial sums in registers, of the terms of the last loops; their sums are scalars.

    apart: those lie in a row on the stack, and what follows walks along it in lanes.
    Where the last vector is shorter TVM cannot start the sums before the loops: it does so in the first turn, which has
    code of its own then.
    """
    block, rank, parts = sch.get_sblock(anchor.name), len(anchor.shape), partable(sch, [anchor, *followers])
    terms = _terms_in_a_row(sch, block, anchor)
    extent = extent_of(sch, terms)
    pairs = _in_pairs(anchor, extent, tiling)
    if pairs:
        sums = _rows_of_pairs(anchor.shape[anchor.hints.tile[-1]], tiling, uneven=parts)
        lane = _split_pairs(sch, terms, tiling)
    else:
        sums, longest = _side_by_side(anchor, tiling)
        lane = _split_terms(sch, terms, longest, tiling, half=half)
    partial, copies = sch.rfactor(lane, rank), registers(sch, block, anchor)
    loops = sch.get_loops(partial)
    outer, turns, lane = loops[:rank], loops[rank:-1], loops[-1]
    if pairs:
        tile = [_split_off(sch, outer, anchor.hints.tile[-1], sums), turns.pop()]
    else:
        outer, tile = split_tile(sch, outer, anchor, -1, sums, 1)
    sch.reorder(*outer, *turns, *tile, lane)
    for loop in (*tile, *(outer[-1:] if written_out(anchor, tiling) else ())):
        sch.unroll(loop)
    part(sch, turns[-1])
    sch.vectorize(lane)
    sch.set_scope(partial, 0, "local")
    _sum_up(sch, block, [] if apart else [*copies, *followers], outer, sums)
    if apart:
        _apart(sch, block, anchor, followers, outer[0], tiling)
    if extent % extent_of(sch, lane) == 0:
        start_at_zero(sch, partial, turns[0], len(outer))


def _sum_up(sch: Any, block: Any, stages: Sequence[Stage], outer: Sequence[Any], sums: int) -> None:
    """Add the lanes of so many partial sums inside the outer loops, and run what follows."""
    sch.reverse_compute_at(block, outer[-1], preserve_unit_loops=True)
    lanes, *own = sch.get_loops(block)[len(outer) :]
    sch.reorder(*own, lanes)
    for loop in own:
        sch.unroll(loop)
    for stage in stages:
        follow(sch, stage, outer[-1], len(outer), sums)
    for loop in sch.get_loops(sch.decompose_reduction(block, lanes))[len(outer) :]:
        sch.unroll(loop)


def _terms_in_a_row(sch: Any, block: Any, anchor: Stage) -> Any:
    """The loop over those terms of a sum that become lanes."""
    row = _row(anchor.terms)
    if len(row) > 1:
        at = len(anchor.shape) + len(anchor.terms) - len(row)
        sch.transform_block_layout(block, index_map(lambda *i: [*i[:at], flat_index(i[at:], row)], at + len(row)))
    _, reduce = loops_of(sch, block)
    return reduce[-1]


def _split_terms(sch: Any, terms: Any, longest: int, tiling: Tiling, *, half: bool) -> Any:
    """Split a loop into vectors and lanes; returns that over lanes. half: see `split_row`."""
    turn, lane = split_row(sch, terms, longest, tiling, half=half)
    if half and extent_of(sch, turn) > TERMS:
        sch.split(turn, [None, divisor(extent_of(sch, turn), TERMS)])
    return lane


def _in_pairs(anchor: Stage, extent: int, tiling: Tiling) -> bool:
    """Whether a lane takes two terms at a time, products of neighbours in binary16.

    A sum in float32 is then in one register; else in two, as what one of binary16 is widened to.
    """
    return anchor.hints.dot and tiling.sums > 1 and not tiling.whole and extent % tiling.register == 0


PAIRED = 4
"""Registers beside sums of pairs: both halves of one operand, widened, another, and a half of that."""


def _rows_of_pairs(rows: int, tiling: Tiling, *, uneven: bool) -> int:
    """Sums of pairs in a tile, for the fewest turns. uneven: the last turn may have fewer."""
    counts = [n for n in range(1, tiling.registers - PAIRED + 1) if uneven or rows % n == 0]
    return min(counts, key=lambda n: (-(-rows // n), rows % n > 0, n))


def _split_pairs(sch: Any, terms: Any, tiling: Tiling) -> Any:
    """Split a loop into vectors, neighbours in a lane, and lanes; returns that over lanes."""
    _, lane, pair = sch.split(terms, [None, tiling.register // 2, 2])
    sch.reorder(pair, lane)
    return lane


def _split_off(sch: Any, loops: list[Any], axis: int, count: int) -> Any:
    """Split one of the loops in place; returns the loop of `count` turns. Fewer at the end have code of their own."""
    loops[axis], inner = sch.split(loops[axis], [None, count])
    part(sch, loops[axis])
    return inner


def _apart(sch: Any, block: Any, anchor: Stage, followers: Sequence[Stage], rows: Any, tiling: Tiling) -> None:
    """Keep sums in a row on the stack, all of them or those of each of the `rows`, for maps of it in lanes."""
    whole, each = prod(anchor.shape), prod(anchor.shape[1:])
    if anchor.result or not followers or not any(ROWS[0] <= count <= ROWS[1] for count in (whole, each)):
        raise LowerError("sums make no row")
    sch.set_scope(block, 0, ROW)
    for stage in followers:
        own = sch.get_sblock(stage.name)
        if whole > ROWS[1]:
            sch.reverse_compute_at(own, rows, preserve_unit_loops=True)
        _, lane = split_lanes(sch, sch.fuse(*sch.get_loops(own)[whole > ROWS[1] :]), longest_lanes(tiling, 4), tiling)
        sch.vectorize(lane)


ROWS = (8, 256)
"""Sums in a row, at least and at most: a shorter one costs more than scalars, a longer one too much stack."""

SHARED = 13
"""Instructions of a turn that do not depend on its sums: the loop, the other operand, and where its lanes lie."""

STRAIGHT = 4
"""As SHARED, where the first, one other and the last turn are all there are, and a row on the stack has the places."""


def _side_by_side(anchor: Stage, tiling: Tiling) -> tuple[int, int]:
    """(sums, lanes) of a tile of vectors of partial sums that cost fewest instructions a product.

    Each sum takes a product, and an operand of its own with its address.
    """

    def cost(sums: int) -> float:
        lanes = longest_lanes(tiling, tiling.sums * sums + 2)
        shared = STRAIGHT if _straight(anchor, lanes, tiling) else SHARED
        return (shared + 3 * sums) * -(-lanes // tiling.at_once) / (sums * lanes)

    most = max(1, (tiling.registers - 2) // tiling.sums)
    shares = [anchor.shape[axis] for axis in anchor.hints.tile]
    sizes = {prod(tile_factors(shares, fit, 1, slides=False)) for fit in range(1, most + 1)}
    sums = min(sorted(sizes), key=cost)
    return sums, longest_lanes(tiling, tiling.sums * sums + 2)


def _straight(anchor: Stage, lanes: int, tiling: Tiling) -> bool:
    """Whether the turns of a sum are written out, with vectors of one instruction."""
    few = anchor.hints.scattered and prod(_row(anchor.terms)) <= 3 * lanes
    return few and tiling.sums * lanes <= tiling.lanes


def written_out(anchor: Stage, tiling: Tiling) -> bool:
    """Whether the turns of a sum are written out: compilers would keep in registers what each of them loads."""
    return anchor.reduces and anchor.hints.scattered and _straight(anchor, _side_by_side(anchor, tiling)[1], tiling)
