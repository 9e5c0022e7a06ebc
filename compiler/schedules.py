"""How loops are arranged, in one place: register tiles, unrolling and fused epilogues, by what an ISA offers.

A kernel is a nest or a few: an anchor (the first stage that stays) sets the loops, what follows runs inside them
element by element. A reduction keeps a tile of accumulators in registers, each summing in the order of the expression,
so a schedule of scalars never changes a bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

from strop.compiler.harts import share_loops, share_maps
from strop.compiler.ops.base import Hints


@dataclass(frozen=True)
class Tiling:
    """What a core can hold and how far loops are unrolled.

    accumulators: floats kept in registers at once.  unroll: copies of an innermost loop.  rows: rows of a weight that a
    matrix-vector product walks side by side, each with an address register unless all lie within `reach` bytes of one.
    depth: copies of its inner loop at that many rows, and of the loop of a single sum.  band: columns of a weight
    updated side by side, each with its input in a register; 0 walks whole rows, as a core with vectors prefers.  turn:
    rows of the band in each turn of the loop.  lanes: floats in the longest vector of a kernel, 1 for scalars only.
    halves: lanes of a kernel that computes in binary16, 0 where the core does not.  registers, register: vector
    registers, and floats in each.  at_once: lanes of one vector instruction, at most.  harts: cores that share out each
    kernel, at most.  sums: vector registers of a sum for each of an operand; widened: of a float32 sum of binary16.
    panel: numbers of an operand in 16 bits that a kernel may widen beforehand, on the stack.  scalars: floats that stay
    in registers beside those of vectors while loops turn.  sweep: rows of a weight in each turn of a loop that reads
    and updates it in vectors, each with an address register.
    """

    accumulators: int = 8
    unroll: int = 4
    rows: int = 5
    reach: int = 1024
    depth: int = 8
    band: int = 16
    turn: int = 1
    lanes: int = 1
    halves: int = 0
    registers: int = 32
    register: int = 4
    at_once: int = 64
    harts: int = 1
    sums: int = 1
    widened: int = 2
    panel: int = 0
    scalars: int = 0
    sweep: int = 10

    @property
    def whole(self) -> bool:
        """Whether one instruction computes with the longest vector."""
        return self.at_once >= self.lanes

    def rows_of(self, length: int) -> int:
        """Rows of `length` floats to walk side by side."""
        return max(self.rows, min(8, self.reach // (4 * length)))


NO_HINTS = Hints()


@dataclass(frozen=True)
class Stage:
    """One step of an expression. name: its block in the schedule.

    shape: of its tensors.  reduces: whether it has reduction axes.  results: for each tensor it computes, whether that
    is a result of the kernel.  hints: of the op it belongs to.  reads: the steps it reads.
    kept: an element is computed once and held in a register, because a result and other steps are made of it.
    terms: extents of the axes of a sum or a maximum.  widens: it is an operand that rests in 16 bits.
    """

    name: str
    shape: tuple[int, ...]
    reduces: bool
    results: tuple[bool, ...] = (False,)
    hints: Hints = NO_HINTS
    reads: frozenset[str] = frozenset()
    kept: bool = False
    terms: tuple[int, ...] = ()
    widens: bool = False

    @property
    def result(self) -> bool:
        """Whether it computes a result."""
        return any(self.results)


def arrange(sch: Any, stages: Sequence[Stage], tiling: Tiling, *, outer: bool = False) -> None:
    """Schedule a kernel in place. sch: a TensorIR schedule with one block a stage, in order.

    outer: the kernel's map over a weight is the outer product of one sample.
    """
    runs = nests(sch, inline(sch, stages))
    if outer and len(runs) == 2 and runs[0][0].reduces:
        _sweep(sch, runs[0], runs[1], tiling)
        return
    if len(runs) == 2 and runs[1][0].hints.window:
        _windowed(sch, runs[0][0], runs[1], tiling)
        return
    for anchor, *followers in runs:
        if anchor.reduces:
            _reduction(sch, anchor, followers, tiling)
        elif outer and tiling.band:
            _columns(sch, anchor, followers, tiling)
        else:
            _map(sch, anchor, followers, tiling)
    if tiling.harts > 1:
        share_maps(sch, [anchor.name for anchor, *_ in runs if not anchor.reduces], tiling.harts)


def nests(sch: Any, stages: Sequence[Stage]) -> list[list[Stage]]:
    """Runs of stages whose elements lie inside the elements of the run's first, and are made of the run's alone.

    A map that reads nothing of the run joins the loops of the run's map: as a follower it would run whole in every
    turn, and what overwrites its input must run once.
    """
    runs: list[list[Stage]] = []
    made: set[str] = set()
    for stage in stages:
        first = runs[-1][0] if runs else stage
        inside = bool(runs) and stage.shape[: len(first.shape)] == first.shape
        if inside and stage.reads and stage.reads <= made:
            runs[-1].append(stage)
        elif runs and stage.shape == first.shape and not (first.reduces or stage.reduces or stage.reads & made):
            sch.merge(*(sch.get_loops(sch.get_sblock(each.name))[-1] for each in (first, stage)))
        else:
            runs.append([stage])
            made.clear()
        made.add(stage.name)
    return runs


def inline(sch: Any, stages: Sequence[Stage]) -> list[Stage]:
    """Substitute element-wise stages that are no result into what reads them; returns the others."""
    kept: list[Stage] = []
    through: dict[str, frozenset[str]] = {}
    for stage in stages:
        reads = frozenset[str]().union(*(through.get(name, {name}) for name in stage.reads))
        if stage.kept and not stage.reduces:
            sch.set_scope(sch.get_sblock(stage.name), 0, "local")
        if stage.reduces or stage.result or stage.kept:
            kept.append(replace(stage, reads=reads))
        else:
            sch.compute_inline(sch.get_sblock(stage.name))
            through[stage.name] = reads
    return kept


def _map(sch: Any, anchor: Stage, followers: Sequence[Stage], tiling: Tiling) -> None:
    """Element-wise: one nest over the elements, the innermost loop unrolled."""
    loops = sch.get_loops(sch.get_sblock(anchor.name))
    inner = loops[-1]
    factor = divisor(extent_of(sch, inner), tiling.unroll)
    if factor > 1:
        _, inner = sch.split(inner, [None, factor])
        sch.unroll(inner)
    for stage in followers:
        follow(sch, stage, inner, len(loops) + (factor > 1), 1)


def _columns(sch: Any, anchor: Stage, followers: Sequence[Stage], tiling: Tiling) -> None:
    """Element-wise over a weight (O,I): a band of columns at a time, a few rows in each turn of the loop."""
    _, rows, inner = _bands(sch, sch.get_sblock(anchor.name), tiling.band)
    _, turn = sch.split(rows, [None, divisor(extent_of(sch, rows), tiling.turn)])
    for loop in (turn, inner):
        sch.unroll(loop)
    for stage in followers:
        follow(sch, stage, inner, 4, 1)


def _bands(sch: Any, block: Any, width: int) -> tuple[Any, Any, Any]:
    """Loops of a block over (O,I) as band of columns, row, column in the band."""
    rows, columns = sch.get_loops(block)
    band, inner = sch.split(columns, [None, divisor(extent_of(sch, columns), width)])
    sch.reorder(band, rows, inner)
    return band, rows, inner


def _sweep(sch: Any, gradient: Sequence[Stage], update: Sequence[Stage], tiling: Tiling) -> None:
    """Input gradient and update in one pass over a weight: every weight is loaded once, used, updated, stored."""
    block, writer = sch.get_sblock(gradient[0].name), sch.get_sblock(update[0].name)
    copies = registers(sch, block, gradient[0])
    (batch, columns), (rows,) = loops_of(sch, block)
    width = max(1, tiling.accumulators * 3 // 5)  # a column holds a sum and a scaled input; few operands wait beside
    band, inner = sch.split(columns, [None, divisor(extent_of(sch, columns), width)])
    sch.reorder(batch, band, rows, inner)
    other_band, other_rows, other_inner = _bands(sch, writer, width)
    for stage in update[1:]:
        sch.reverse_compute_at(sch.get_sblock(stage.name), other_inner)
    sch.split(other_band, [1, None])
    sch.merge(rows, other_rows)
    batch, band, rows, inner = sch.get_loops(block)
    for loop in (inner, sch.get_loops(writer)[3]):
        sch.unroll(loop)
    for stage in [*copies, *gradient[1:]]:
        follow(sch, stage, band, 2, extent_of(sch, inner))
    fused, _ = share_loops(sch, [batch, band], tiling.harts)
    init = sch.decompose_reduction(block, rows)
    sch.unroll(sch.get_loops(init)[2 - fused])


def _windowed(sch: Any, producer: Stage, consumers: Sequence[Stage], tiling: Tiling) -> None:
    """A reduction over windows of another: the sums of a window live in registers until it is reduced."""
    pool, layer = sch.get_sblock(consumers[0].name), sch.get_sblock(producer.name)
    copies = registers(sch, pool, consumers[0])
    (batch, channels, *image), window = loops_of(sch, pool)
    room = max(1, tiling.accumulators // prod(extent_of(sch, loop) for loop in window))
    channels, inner = sch.split(channels, [None, divisor(extent_of(sch, channels), room)])
    sch.reorder(batch, channels, *image, *window, inner)
    home, depth = image[-1], 2 + len(image)
    sch.set_scope(layer, 0, "local")
    sch.compute_at(layer, home, preserve_unit_loops=True)
    own = sch.get_loops(layer)[depth:]
    tile, reduce = own[: len(producer.shape)], own[len(producer.shape) :]
    sch.reorder(*reduce, *tile)
    for loop in (reduce[-1], *tile, *window, inner):
        sch.unroll(loop)
    for stage in [*copies, *consumers[1:]]:
        follow(sch, stage, home, depth, extent_of(sch, inner))
    depth -= share_loops(sch, [batch, channels, *image], tiling.harts)[0]
    for block, first in ((layer, reduce[0]), (pool, window[0])):
        for loop in sch.get_loops(sch.decompose_reduction(block, first))[depth:]:
            sch.unroll(loop)


def _reduction(sch: Any, anchor: Stage, followers: Sequence[Stage], tiling: Tiling) -> None:
    """A tile of sums in registers; what follows reads them there."""
    block, parts = sch.get_sblock(anchor.name), partable(sch, [anchor, *followers])
    copies = registers(sch, block, anchor)
    spatial, reduce = loops_of(sch, block)
    slides = anchor.hints.slides and extent_of(sch, reduce[-1]) > 1
    room, turns = tiling.accumulators, tiling.unroll if anchor.hints.tile else tiling.depth
    if anchor.hints.dot:
        room = tiling.rows_of(extent_of(sch, reduce[-1]))
        turns = max(1, tiling.depth * tiling.rows // room)  # more rows, fewer copies: the code stays as long
    reduce, depth = unrolled_tail(sch, reduce, turns)
    outer, tile = _split_tile(sch, spatial, anchor.hints.tile, room, depth, slides=slides)
    sch.reorder(*outer, *reduce, *tile)
    for loop in tile:
        sch.unroll(loop)
    for stage in [*copies, *followers]:
        follow(sch, stage, outer[-1], len(outer), prod(extent_of(sch, loop) for loop in tile))
    fused, left = share_loops(sch, outer, tiling.harts)
    for loop in (*left[-1:], *(reduce[-2:-1] if depth > 1 else ())) if parts else ():
        part(sch, loop)
    init = sch.decompose_reduction(block, reduce[0])
    for loop in sch.get_loops(init)[len(outer) - fused :]:
        sch.unroll(loop)


def part(sch: Any, loop: Any) -> None:
    """Give the first and the last turns code of their own where they have conditions that hold in all others."""
    if extent_of(sch, loop) > 1:
        sch.annotate(loop, "pragma_loop_partition_hint", True)


def partable(sch: Any, stages: Sequence[Stage]) -> bool:
    """Whether the loops of stages may be parted: no stage reads an integer.

    Where a label decides, it would become the bound of a loop, whatever it is. Asked before anything is scheduled.
    """
    reads = [region for stage in stages for region in sch.get(sch.get_sblock(stage.name)).reads]
    return not any("int" in str(region.source.dtype) for region in reads)


def registers(sch: Any, block: Any, stage: Stage) -> list[Stage]:
    """Keep accumulators out of memory; a result is copied out when it is complete, by the stages returned."""
    copies = []
    for index, result in enumerate(stage.results):
        if result:
            copy = sch.get(sch.cache_write(block, index, "local"))
            copies.append(Stage(copy.name_hint, stage.shape, reduces=False, results=(True,)))
        else:
            sch.set_scope(block, index, "local")
    return copies


def follow(sch: Any, stage: Stage, home: Any, depth: int, tile: int) -> None:
    """Run a later stage inside the anchor's `depth` loops; its own loops over a tile of that size are unrolled."""
    block = sch.get_sblock(stage.name)
    copies = registers(sch, block, stage) if stage.reduces else []
    sch.reverse_compute_at(block, home)
    own = sch.get_loops(block)[depth:]
    if prod(extent_of(sch, loop) for loop in own) <= tile:
        for loop in own:
            sch.unroll(loop)
    for copy in copies:
        follow(sch, copy, home, depth, tile)
    if stage.reduces:
        _, reduce = loops_of(sch, block)
        sch.decompose_reduction(block, reduce[0])


def loops_of(sch: Any, block: Any) -> tuple[list[Any], list[Any]]:
    """Spatial and reduction loops of a block, outermost first."""
    spatial: list[Any] = []
    reduce: list[Any] = []
    realize, loops = sch.get(block), sch.get_loops(block)
    kinds = [int(var.iter_type) for var in realize.iter_vars]
    for loop, kind in zip(loops[-len(kinds) :], kinds, strict=True):
        (reduce if kind == REDUCTION_AXIS else spatial).append(loop)
    return spatial, reduce


REDUCTION_AXIS = 2
"""TensorIR's code of a commutative reduction."""


def _split_tile(
    sch: Any, spatial: list[Any], axes: Sequence[int], accumulators: int, depth: int, *, slides: bool
) -> tuple[list[Any], list[Any]]:
    """Split the tiled axes; returns outer loops and the tile's loops."""
    outer, tile = list(spatial), []
    extents = [extent_of(sch, spatial[axis]) for axis in axes]
    factors = tile_factors(extents, accumulators, depth, slides=slides)
    for axis, factor in zip(axes, factors, strict=True):
        if factor > 1:
            outer[axis], inner = sch.split(spatial[axis], [None, factor])
            tile.append(inner)
    return outer, tile


def tile_factors(extents: Sequence[int], accumulators: int, depth: int, *, slides: bool = True) -> tuple[int, ...]:
    """The tile of at most `accumulators` sums that loads least a multiply-add over `depth` unrolled steps.

    Along the last axis neighbours may slide over the same operand (tile + depth - 1 loads); else, and along the others,
    each has its own (tile * depth loads).
    """
    choices = product(*(_divisors(extent) for extent in extents))
    fitting = [tile for tile in choices if prod(tile) <= accumulators]

    def loads(tile: tuple[int, ...]) -> float:
        own = prod(tile[:-1]) * depth if len(tile) > 1 else depth
        last = tile[-1] + depth - 1 if slides else tile[-1] * depth
        return (own + last) / (prod(tile) * depth)

    return min(fitting, key=lambda tile: (loads(tile), tile)) if extents else ()


def _divisors(extent: int) -> list[int]:
    return [d for d in range(1, extent + 1) if extent % d == 0]


def unrolled_tail(sch: Any, reduce: list[Any], limit: int) -> tuple[list[Any], int]:
    """Unroll the innermost reduction loop of more than one turn, in full or by a divisor; returns the factor too."""
    while len(reduce) > 1 and extent_of(sch, reduce[-1]) == 1:
        reduce = reduce[:-1]
    *outer, last = reduce
    factor = divisor(extent_of(sch, last), limit)
    if factor == 1:
        return reduce, 1
    rest, inner = sch.split(last, [None, factor])
    sch.unroll(inner)
    return [*outer, rest, inner], factor


def divisor(extent: int, limit: int) -> int:
    """The largest divisor of `extent` that is at most `limit`."""
    return max(d for d in range(1, limit + 1) if extent % d == 0)


def extent_of(sch: Any, loop: Any) -> int:
    """Turns of a loop."""
    return int(sch.get(loop).extent)
