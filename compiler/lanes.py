"""How loops are laid over the lanes of a vector unit: over outputs, so that each keeps the order of its sum.

The lanes of a reduction are the channels of an image, or the last axis of a matrix: neither padding nor a stride
then differs between lanes. Loads and stores may have any distance between lanes. Two layouts are for what has too few
channels: lanes over the positions of an image, all of its rows in one, and lanes over the terms of a sum, each of which
keeps a partial one; those are added in the order of the lanes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum, auto
from inspect import Parameter, Signature
from itertools import zip_longest
from math import prod
from re import findall
from typing import Any

from strop.compiler.chalf import FEWEST, TERMS
from strop.compiler.cvector import PANEL, ROW
from strop.compiler.schedules import (
    Stage,
    Tiling,
    divisor,
    extent_of,
    follow,
    inline,
    loops_of,
    nests,
    part,
    partable,
    registers,
    tile_factors,
    unrolled_tail,
)
from strop.errors import LowerError


class Lanes(Enum):
    """Which axes of a map become lanes."""

    NONE = auto()
    ALL = auto()
    IMAGE = auto()
    LAST = auto()
    CHANNELS = auto()
    TERMS = auto()
    SUMS = auto()
    """Terms, and what follows the sums has lanes over them."""
    POSITIONS = auto()
    ONE_SUM = auto()
    """Positions, one sum of each window at a time."""


def ways(shape: Sequence[int], stages: Sequence[Stage], tiling: Tiling) -> list[Lanes]:
    """Ways to lay lanes over a kernel whose first result has that shape, the best first.

    Of maps the longest vectors; what reads a vector a channel, say, cannot take ALL. Before them what reductions of few
    outputs may take.
    """
    axes = {Lanes.ALL: shape, Lanes.IMAGE: shape[2:], Lanes.LAST: shape[-1:], Lanes.CHANNELS: shape[1:2]}
    longest = sorted(axes, key=lambda way: -lane_count(prod(axes[way]), tiling.lanes))
    if any(stage.hints.window for stage in stages):
        return [*([Lanes.ONE_SUM] if tiling.whole else []), Lanes.POSITIONS, *longest]
    return [*([Lanes.SUMS, Lanes.TERMS] if any(few_outputs(stage, tiling) for stage in stages) else []), *longest]


def of_terms(lanes: Lanes) -> bool:
    """Whether lanes are terms of a sum."""
    return lanes in (Lanes.TERMS, Lanes.SUMS)


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


FEW = 3
"""Fewer outputs than this along an axis are no vector."""


def arrange_lanes(
    sch: Any, stages: Sequence[Stage], tiling: Tiling, lanes: Lanes, *, outer: bool = False, half: bool = False
) -> None:
    """Schedule a kernel in place, with loops over lanes marked as vectorized; see `schedules.arrange`.

    half: sums of halves may be in halves, a few terms at a time.

    Raises LowerError where no axis has enough outputs.
    """
    image = not (outer or any(stage.hints.window for stage in stages))  # else sums in halves need none
    panel = _paneled(sch, stages, tiling, lanes, outer=outer) if image or not half else None
    runs = nests(sch, inline(sch, [stage for stage in stages if stage is not panel]))
    if outer and len(runs) == 2 and runs[0][0].reduces:
        _sweep(sch, runs[0], runs[1], tiling, panel)
        return
    if len(runs) == 2 and runs[1][0].hints.window and runs[0][0].reduces:
        if lanes in (Lanes.POSITIONS, Lanes.ONE_SUM):
            _positions(sch, runs[0][0], runs[1], tiling, alone=lanes is Lanes.ONE_SUM, half=half)
        else:
            _windowed(sch, runs[0][0], runs[1], tiling)
        if panel:
            _fill_by_channels(sch, panel, tiling)
        return
    for anchor, *followers in runs:
        if of_terms(lanes) and few_outputs(anchor, tiling):
            _terms(sch, anchor, followers, tiling, half=half, apart=lanes is Lanes.SUMS)
        elif prod(anchor.shape) < FEW:
            _few(sch, [anchor, *followers], tiling, lanes)
        elif anchor.reduces:
            axis = lane_axis(anchor.shape, lanes)
            _reduction(sch, anchor, followers, tiling, axis, half=half, panel=panel)
        elif outer and len(anchor.shape) == 2:
            _columns(sch, anchor, followers, tiling)
        else:
            for stage in (anchor, *followers):
                _map(sch, stage, tiling, lanes)


def _paneled(sch: Any, stages: Sequence[Stage], tiling: Tiling, lanes: Lanes, *, outer: bool) -> Stage | None:
    """The operand that is widened beforehand: of an image's sum, or of a sweep's, what all lanes share.

    Of sums of windows it is their weight, which every window reads.
    """
    sums = [stage for stage in stages if stage.reduces]
    windows = len(sums) == 2 and sums[1].hints.window and lanes not in (Lanes.POSITIONS, Lanes.ONE_SUM)
    if not tiling.panel or of_terms(lanes) or not (windows or len(sums) == 1):
        return None
    if not outer and (len(sums[0].shape) < 3 or prod(sums[0].shape) < FEW):
        return None
    block = sch.get_sblock(sums[0].name)
    own = _own(sch, block, lane_axis(sums[0].shape, lanes))
    read = [stage for stage in stages if stage.widens and stage.name in sums[0].reads]
    found = [stage for stage in read if (stage.name in own) == windows]
    whole = outer or windows or "if_then_else" in str(sch.get(block))  # padding lies in it
    return found[0] if len(found) == 1 and not (whole and prod(found[0].shape) > tiling.panel) else None


def _own(sch: Any, block: Any, axis: int) -> list[str]:
    """Names of the operands that are others for each output along an axis."""
    realized = sch.get(block)
    var = str(realized.iter_vars[axis].var)
    places = {str(read.source.name): [str(each.min) for each in read.region] for read in realized.reads}
    return [name for name, place in places.items() if var in findall(r"\w+", " ".join(place))]


def _few(sch: Any, run: Sequence[Stage], tiling: Tiling, lanes: Lanes) -> None:
    """What begins with a handful of sums: each stage keeps its own loops, and maps of more numbers get lanes."""
    for stage in run:
        if not stage.reduces and prod(stage.shape) >= FEW:
            _map(sch, stage, tiling, lanes)
        elif stage.reduces:
            block = sch.get_sblock(stage.name)
            registers(sch, block, stage)
            _, reduce = loops_of(sch, block)
            sch.decompose_reduction(block, reduce[0])


def lane_axis(shape: Sequence[int], lanes: Lanes = Lanes.ALL) -> int:
    """The axis of a reduction's outputs whose neighbours become lanes: channels of an image, rows of a weight."""
    if len(shape) <= 2 or lanes is Lanes.LAST:
        return len(shape) - 1
    return 1 if shape[1] >= min(FEW, shape[0]) else 0


def lane_count(extent: int, most: int) -> int:
    """Lanes of a vector along an axis: as many as divide it."""
    return divisor(extent, most)


def _whole_lanes(extent: int, most: int, tiling: Tiling) -> int:
    """Of the numbers of lanes that divide an axis, the cheapest a lane: those that fill no register go one by one."""
    counts = {lane_count(extent, n) for n in range(min(FEW, extent), most + 1)}
    return min(sorted(counts, reverse=True), key=lambda n: (sum(divmod(n, tiling.at_once)) + 1) / n)


def _split_lanes(sch: Any, loop: Any, most: int, tiling: Tiling | None = None) -> tuple[Any, Any]:
    """Split a loop into vectors and lanes. tiling: of a core whose vectors may be shorter, if they cost less so."""
    extent = extent_of(sch, loop)
    count = _whole_lanes(extent, most, tiling) if tiling else lane_count(extent, most)
    if count < min(FEW, extent) or count == 1:
        raise LowerError(f"an axis of {extent} has no vectors")
    outer, lane = sch.split(loop, [None, count])
    return outer, lane


def _map(sch: Any, stage: Stage, tiling: Tiling, lanes: Lanes) -> None:
    """Element by element, in a nest of its own."""
    if stage.reduces:
        _reduction(sch, stage, [], tiling, lane_axis(stage.shape, lanes))
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
    outer, lane = _split_lanes(sch, inner, _longest(tiling, 4), tiling)
    if lanes is Lanes.CHANNELS and rank > 2:
        sch.reorder(outer, *loops[2:], lane)
    sch.vectorize(lane)


def _columns(sch: Any, anchor: Stage, followers: Sequence[Stage], tiling: Tiling) -> None:
    """A weight (O,I) updated by an outer product: a few vectors of columns at a time, down the rows."""
    block = sch.get_sblock(anchor.name)
    rows, columns = sch.get_loops(block)
    rounds = str(sch.get(block).writes[0].source.dtype) == "bfloat16"  # by several instructions, on several registers
    count, beside = abreast(extent_of(sch, columns), tiling, 4 if rounds else 1)
    band, lane = _split_lanes(sch, columns, count)
    band, pair = sch.split(band, [None, beside])
    rows, turn = sch.split(rows, [None, divisor(extent_of(sch, rows), tiling.turn)])
    sch.reorder(band, rows, turn, pair, lane)
    for loop in (turn, pair):
        sch.unroll(loop)
    sch.vectorize(lane)
    for stage in followers:
        _map(sch, stage, tiling, Lanes.LAST)


def abreast(extent: int, tiling: Tiling, others: int = 1) -> tuple[int, int]:
    """Lanes of vectors and how many side by side: fewest instructions a column, inputs in registers beside others."""

    def beside(lanes: int) -> int:
        groups = tiling.registers // -(-lanes // tiling.register)
        return divisor(extent // lanes, max(1, groups - min(others, groups // 2)))

    def cost(pair: tuple[int, int]) -> tuple[float, int]:
        lanes, count = pair
        return (3 * count * -(-lanes // tiling.at_once) + 2) / (count * lanes), -lanes

    lengths = {_whole_lanes(extent, most, tiling) for most in range(FEW, _longest(tiling, 2) + 1)}
    return min(((lanes, beside(lanes)) for lanes in lengths), key=cost)


def _sweep(sch: Any, gradient: Sequence[Stage], update: Sequence[Stage], tiling: Tiling, panel: Stage | None) -> None:
    """Input gradient and update in one pass over a weight: every weight is loaded once, used, updated, stored."""
    block, writer = sch.get_sblock(gradient[0].name), sch.get_sblock(update[0].name)
    copies = registers(sch, block, gradient[0])
    (batch, columns), (rows,) = loops_of(sch, block)
    band, beside, lane = _bands(sch, columns, tiling)
    sch.reorder(batch, band, rows, beside, lane)
    other_rows, other_columns = sch.get_loops(writer)
    other_band, other_beside, other_lane = _bands(sch, other_columns, tiling)
    sch.reorder(other_band, other_rows, other_beside, other_lane)
    for stage in update[1:]:
        sch.reverse_compute_at(sch.get_sblock(stage.name), other_lane)
    sch.split(other_band, [1, None])
    sch.merge(beside, other_beside)
    batch, band, rows, beside, lane = sch.get_loops(block)
    rows, turn = sch.split(rows, [None, divisor(extent_of(sch, rows), tiling.sweep)])
    part(sch, band)
    for loop in (turn, beside):
        sch.unroll(loop)
    for stage in [*copies, *gradient[1:]]:
        _follow(sch, stage, band, 2, 1, extent_of(sch, lane))
    for loop in (lane, sch.get_loops(writer)[-1]):
        sch.vectorize(loop)
    _zeros(sch, block, rows, 2)
    if panel:
        sch.compute_at(sch.get_sblock(panel.name), batch, index=0)
        _fill(sch, panel, sch.get_loops(sch.get_sblock(panel.name))[-1], tiling)


def _bands(sch: Any, columns: Any, tiling: Tiling) -> tuple[Any, Any, Any]:
    """Split columns into bands, vectors of one instruction side by side, and lanes.

    Registers hold a sum and an input for each vector, and two operands.
    """
    longest = tiling.register * max(1, (tiling.registers - 2) // (tiling.sums + 1))
    if tiling.whole:
        longest = min(tiling.lanes, longest)
    band, lane = _split_row(sch, columns, longest, tiling)
    beside, lane = sch.split(lane, [None, min(tiling.at_once, extent_of(sch, lane))])
    return band, beside, lane


def _reduction(
    sch: Any, anchor: Stage, followers: Sequence[Stage], tiling: Tiling, axis: int, *, half: bool = False,
    panel: Stage | None = None,
) -> None:
    """A tile of vectors of sums in registers; what follows reads them there."""
    block, parts = sch.get_sblock(anchor.name), partable(sch, [anchor, *followers])
    own = max(1, len(_own(sch, block, axis)))
    copies = registers(sch, block, anchor)
    spatial, reduce = loops_of(sch, block)
    spatial[axis], lane = _split_lanes(sch, spatial[axis], _best(sch, spatial, anchor, axis, tiling, own, panel))
    width = extent_of(sch, lane)
    reduce, depth = unrolled_tail(sch, reduce, _short_depth(sch, reduce) if half else tiling.depth)
    if half:
        reduce = _short(sch, block, reduce)
    outer, tile = _tile(sch, spatial, anchor, axis, _room(width, tiling, own), depth)
    if panel:
        outer.append(outer.pop(axis))
    sch.reorder(*outer, *reduce, *tile, lane)
    if panel:
        _widen_beforehand(sch, panel, outer, tiling)
    for loop in tile:
        sch.unroll(loop)
    if parts:
        _part(sch, anchor, outer, reduce, depth)
    for stage in [*copies, *followers]:
        _follow(sch, stage, outer[-1], len(outer), axis, width)
    sch.vectorize(lane)
    _zeros(sch, block, reduce[0], len(outer))


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


def _widen_beforehand(sch: Any, panel: Stage, outer: Sequence[Any], tiling: Tiling) -> None:
    """Widen what all turns of the last loop read of an operand, in a row on the stack, before that loop.

    Where it is read, as without a panel, if there is one turn, or it is too large, or makes no vectors.
    """
    block, most = sch.get_sblock(panel.name), _longest(tiling, 4)
    whole = prod(panel.shape) <= tiling.panel
    if not whole:
        sch.compute_at(block, outer[-2], preserve_unit_loops=True)
    own = sch.get_loops(block)[0 if whole else len(outer) - 1 :]
    extents = [extent_of(sch, loop) for loop in own]
    first = next((i for i, extent in enumerate(extents) if extent > 1), 0)
    if extents[first + 1 :] == list(panel.shape[first + 1 :]):
        loop = sch.fuse(*own[first:])  # they lie in a row
    else:
        loop = own.pop(max(range(len(own)), key=extents.__getitem__))
        sch.reorder(*own, loop)
    shared = extent_of(sch, outer[-1]) > 1 and prod(extents) <= tiling.panel
    if not shared or _whole_lanes(extent_of(sch, loop), most, tiling) < FEW:
        sch.compute_inline(block)
        return
    _fill(sch, panel, loop, tiling)


def _fill(sch: Any, panel: Stage, loop: Any, tiling: Tiling) -> None:
    """Widen an operand in a row on the stack, by vectors along a loop."""
    sch.set_scope(sch.get_sblock(panel.name), 0, PANEL)
    _, lane = _split_lanes(sch, loop, _longest(tiling, 4), tiling)
    sch.vectorize(lane)


def _fill_by_channels(sch: Any, panel: Stage, tiling: Tiling) -> None:
    """Widen the weight of windows, (O,I,...) in memory, as (I,...,O): the lanes of a vector are neighbours there."""
    block = sch.get_sblock(panel.name)
    sch.transform_layout(block, ("write", 0), _index_map(lambda o, *taps: [*taps, o], len(panel.shape)))
    channels, *taps = sch.get_loops(block)
    sch.reorder(sch.fuse(*taps), channels)
    _fill(sch, panel, channels, tiling)


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


def _windowed(sch: Any, producer: Stage, consumers: Sequence[Stage], tiling: Tiling) -> None:
    """A reduction over windows of another, in vectors of channels: a window's sums stay in registers until reduced."""
    pool, layer = sch.get_sblock(consumers[0].name), sch.get_sblock(producer.name)
    copies = registers(sch, pool, consumers[0])
    (batch, channels, *image), window = loops_of(sch, pool)
    sums = prod(extent_of(sch, loop) for loop in window)
    channels, lane = _split_lanes(sch, channels, _longest(tiling, sums + 1))
    width = extent_of(sch, lane)
    if sums > _room(width, tiling):
        raise LowerError("the sums of a window do not fit into the vector registers")
    sch.reorder(batch, channels, *image, *window, lane)
    home, depth = image[-1], 2 + len(image)
    sch.set_scope(layer, 0, "local")
    sch.compute_at(layer, home, preserve_unit_loops=True)
    own = sch.get_loops(layer)[depth:]
    tile, reduce = own[: len(producer.shape)], own[len(producer.shape) :]
    sch.reorder(*reduce, tile[0], *tile[2:], tile[1])
    for loop in (reduce[-1], tile[0], *tile[2:], *window):
        sch.unroll(loop)
    for loop in (tile[1], lane):
        sch.vectorize(loop)
    for stage in [*copies, *consumers[1:]]:
        _follow(sch, stage, home, depth, 1, width)
    for block, first in ((layer, reduce[0]), (pool, window[0])):
        _zeros(sch, block, first, depth)


def _positions(
    sch: Any, producer: Stage, consumers: Sequence[Stage], tiling: Tiling, *, alone: bool, half: bool
) -> None:
    """As `_windowed`, in vectors of windows: the windows of an image are one row.

    alone: one sum at a time. Vectors beside it, what it is reduced to, an operand and its places are longer than those
    beside all sums of a window, if the row is. half: sums are of halves, and where they are long in float32 too.
    """
    pool, layer = sch.get_sblock(consumers[0].name), sch.get_sblock(producer.name)
    (_, channels, *image), window = ([extent_of(sch, loop) for loop in loops] for loops in loops_of(sch, pool))
    longest = _longest(tiling, prod(window) + 1)
    if alone and prod(image) <= longest:
        raise LowerError("all sums of a window fit beside each other")
    if alone:
        longest = _longest(tiling, 8 if half and prod(producer.terms) > TERMS else 4)
    whole = tuple(n * k for n, k in zip(image, window, strict=True)) == producer.shape[2:]
    if channels > longest or not whole:
        raise LowerError("no windows in a row")
    _in_a_row(sch, layer, producer, image, window)
    for stage in consumers:
        _in_a_row(sch, sch.get_sblock(stage.name), stage, image, ())
    flat = [replace(stage, shape=(*stage.shape[:2], prod(image))) for stage in consumers]
    copies = registers(sch, pool, flat[0])
    (batch, channel, place), windows = loops_of(sch, pool)
    place, lane = _split_row(sch, place, longest, tiling)
    sch.reorder(batch, channel, place, *windows, lane)
    sch.set_scope(layer, 0, "local")
    home, depth = (windows[-1], 3 + len(windows)) if alone else (place, 3)
    sch.compute_at(layer, home, preserve_unit_loops=True)
    _, _, own, *tile = sch.get_loops(layer)[depth:]
    tile, reduce = tile[: len(window)], tile[len(window) :]
    sch.reorder(*reduce, *tile, own)
    for loop in (*tile, *reduce[-len(window) :], *windows):
        sch.unroll(loop)
    for loop in (own, lane):
        sch.vectorize(loop)
    for stage in [*copies, *flat[1:]]:
        _follow(sch, stage, place, 3, 2, extent_of(sch, lane))
    part(sch, place)
    _zeros(sch, layer, reduce[0], depth)
    _zeros(sch, pool, windows[0], 3)


def _in_a_row(sch: Any, block: Any, stage: Stage, image: Sequence[int], window: Sequence[int]) -> None:
    """Give a block, and what it computes, the axes (batch, channel, window of the image, place in the window)."""
    rank = len(stage.shape)

    def axes(*at: Any) -> list[Any]:
        places = [i % size for i, size in zip(at[2:rank], window, strict=False)]
        return [*at[:2], _flat(at[2:rank], image, window), *places, *at[rank:]]

    sch.transform_block_layout(block, _index_map(axes, len(sch.get_loops(block))))
    for index in range(len(stage.results)):
        sch.transform_layout(block, ("write", index), _index_map(axes, rank))


def _index_map(axes: Callable[..., list[Any]], rank: int) -> Callable[..., list[Any]]:
    """The function with a parameter an axis, which is how TVM knows their number."""

    def of_rank(*at: Any) -> list[Any]:
        return axes(*at)

    names = (f"i{axis}" for axis in range(rank))
    vars(of_rank)["__signature__"] = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names])
    return of_rank


def _flat(at: Sequence[Any], image: Sequence[int], window: Sequence[int] = ()) -> Any:
    """The number of a place in an image, row by row; of its window, if there are any, in an image of windows."""
    number: Any = 0
    for i, extent, size in zip_longest(at, image, window):
        number = number * extent + (i // size if size else i)
    return number


def _split_row(sch: Any, loop: Any, longest: int, tiling: Tiling, *, half: bool = False) -> tuple[Any, Any]:
    """Split a loop into vectors and lanes, of which the last vector may have fewer if that makes them longer.

    A core that needs several instructions for a vector has none for part of a register. half: the vectors are sums of
    halves, which are widened every few turns.
    """
    extent = extent_of(sch, loop)
    counts = range(tiling.register, longest + 1, tiling.register) if tiling.at_once < longest else range(1, longest + 1)

    def cost(count: int) -> float:
        whole, rest = divmod(extent, count)
        if half and -(-extent // count) > TERMS and (rest or divisor(whole, TERMS) < FEWEST):
            return float(extent)
        return (whole + (TAIL if rest else 0)) * (1 + -(-count // tiling.at_once))

    outer, lane = sch.split(loop, [None, min(reversed(counts), key=cost)])
    return outer, lane


TAIL = 2.5
"""Turns that a shorter vector at the end costs as much as: it has code of its own."""


def _terms(sch: Any, anchor: Stage, followers: Sequence[Stage], tiling: Tiling, *, half: bool, apart: bool) -> None:
    """A tile of vectors of partial sums in registers, of the terms of the last loops; their sums are scalars.

    apart: those lie in a row on the stack, and what follows walks along it in lanes.
    Where the last vector is shorter TVM cannot start the sums before the loops: it does so in the first turn, which has
    code of its own then.
    """
    block, rank, parts = sch.get_sblock(anchor.name), len(anchor.shape), partable(sch, [anchor, *followers])
    _, terms = _terms_in_a_row(sch, block, anchor)
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
        outer, tile = _tile(sch, outer, anchor, -1, sums, 1)
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
        _zeros(sch, partial, turns[0], len(outer))


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


def _terms_in_a_row(sch: Any, block: Any, anchor: Stage) -> tuple[list[Any], Any]:
    """The loops over outputs of a sum, and the one over those of its terms that become lanes."""
    spatial, reduce = loops_of(sch, block)
    row = _row(anchor.terms)
    if len(row) > 1:
        at = len(spatial) + len(reduce) - len(row)
        sch.transform_block_layout(block, _index_map(lambda *i: [*i[:at], _flat(i[at:], row)], at + len(row)))
        spatial, reduce = loops_of(sch, block)
    return spatial, reduce[-1]


def _split_terms(sch: Any, terms: Any, longest: int, tiling: Tiling, *, half: bool) -> Any:
    """Split a loop into vectors and lanes; returns that over lanes. half: see `_split_row`."""
    turn, lane = _split_row(sch, terms, longest, tiling, half=half)
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
        _, lane = _split_lanes(sch, sch.fuse(*sch.get_loops(own)[whole > ROWS[1] :]), _longest(tiling, 4), tiling)
        sch.vectorize(lane)


ROWS = (8, 256)
"""Sums in a row, at least and at most: a shorter one costs more than scalars, a longer one too much stack."""


def _zeros(sch: Any, block: Any, first: Any, depth: int) -> None:
    """Start sums in vectors before their first loop, inside `depth` others."""
    *tile, lane = sch.get_loops(sch.decompose_reduction(block, first))[depth:]
    for loop in tile:
        sch.unroll(loop)
    sch.vectorize(lane)


SHARED = 13
"""Instructions of a turn that do not depend on its sums: the loop, the other operand, and where its lanes lie."""

STRAIGHT = 4
"""As SHARED, where the first, one other and the last turn are all there are, and a row on the stack has the places."""


def _side_by_side(anchor: Stage, tiling: Tiling) -> tuple[int, int]:
    """(sums, lanes) of a tile of vectors of partial sums that cost fewest instructions a product.

    Each sum takes a product, and an operand of its own with its address.
    """

    def cost(sums: int) -> float:
        lanes = _longest(tiling, tiling.sums * sums + 2)
        shared = STRAIGHT if _straight(anchor, lanes, tiling) else SHARED
        return (shared + 3 * sums) * -(-lanes // tiling.at_once) / (sums * lanes)

    most = max(1, (tiling.registers - 2) // tiling.sums)
    shares = [anchor.shape[axis] for axis in anchor.hints.tile]
    sizes = {prod(tile_factors(shares, fit, 1, slides=False)) for fit in range(1, most + 1)}
    sums = min(sorted(sizes), key=cost)
    return sums, _longest(tiling, tiling.sums * sums + 2)


def _straight(anchor: Stage, lanes: int, tiling: Tiling) -> bool:
    """Whether the turns of a sum are written out, with vectors of one instruction."""
    few = anchor.hints.scattered and prod(_row(anchor.terms)) <= 3 * lanes
    return few and tiling.sums * lanes <= tiling.lanes


def written_out(anchor: Stage, tiling: Tiling) -> bool:
    """Whether the turns of a sum are written out: compilers would keep in registers what each of them loads."""
    return anchor.reduces and anchor.hints.scattered and _straight(anchor, _side_by_side(anchor, tiling)[1], tiling)


def _best(
    sch: Any, spatial: Sequence[Any], anchor: Stage, axis: int, tiling: Tiling, own: int, panel: Stage | None
) -> int:
    """Lanes of a reduction with the fewest instructions a product: the longer, the fewer vectors are side by side.

    own: operands that are vectors; another is a scalar, of a panel two at once.
    """
    shares = [extent_of(sch, spatial[a]) for a in anchor.hints.tile if a != axis]

    def cost(lanes: int) -> float:
        instructions = -(-lanes // tiling.at_once)
        tile = prod(tile_factors(shares, _room(lanes, tiling, own), 1, slides=False))
        other = 2 * instructions if own > 1 else 0.5 if panel else 1
        return (2 * instructions + tile * (other + instructions)) / (tile * lanes)  # an operand and its address

    extent, longest = extent_of(sch, spatial[axis]), _longest(tiling, 1 + own)
    lengths = {lane_count(extent, most) for most in range(tiling.register, longest + 1)}
    return min(sorted(lengths, reverse=True), key=cost)


def _longest(tiling: Tiling, vectors: int) -> int:
    """Lanes of the longest vectors of which so many fit into the registers."""
    fit = tiling.registers * tiling.register // vectors
    return max(tiling.register, min(tiling.lanes, 1 << fit.bit_length() - 1))


def _room(width: int, tiling: Tiling, operands: int = 1) -> int:
    """Vectors of sums that fit beside operands."""
    whole = 1 << (width - 1).bit_length()
    return max(1, tiling.registers * tiling.register // max(tiling.register, whole) - operands)


def _tile(sch: Any, spatial: list[Any], anchor: Stage, axis: int, room: int, depth: int) -> tuple[list[Any], list[Any]]:
    """Split the axes along which vectors share operands; along the lanes' own axis if there is no other."""
    axes = [a for a in anchor.hints.tile if a != axis] or [axis]
    factors = tile_factors([extent_of(sch, spatial[a]) for a in axes], room, depth, slides=False)
    outer, tile = list(spatial), []
    for a, factor in zip(axes, factors, strict=True):
        if factor > 1:
            outer[a], inner = sch.split(spatial[a], [None, factor])
            tile.append(inner)
    return outer, tile


def _follow(sch: Any, stage: Stage, home: Any, depth: int, axis: int, width: int) -> None:
    """Run a later stage inside the anchor's `depth` loops, by the same lanes."""
    if stage.reduces:
        raise LowerError("a reduction follows another")
    block = sch.get_sblock(stage.name)
    sch.reverse_compute_at(block, home, preserve_unit_loops=True)
    own = sch.get_loops(block)[depth:]
    if len(own) != len(stage.shape) or extent_of(sch, own[axis]) % width:
        raise LowerError("lanes of a stage are not its anchor's")
    own[axis], lane = sch.split(own[axis], [None, width])
    sch.reorder(*own, lane)
    for loop in own:
        if extent_of(sch, loop) > 1:
            sch.unroll(loop)
    sch.vectorize(lane)
