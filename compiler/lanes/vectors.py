"""Splitting loops into vectors and lanes, by what the registers of a core hold."""

from collections.abc import Callable, Sequence
from inspect import Parameter, Signature
from itertools import zip_longest
from typing import Any

from strop.compiler.chalf import FEWEST, TERMS
from strop.compiler.schedules import Stage, Tiling, divisor, extent_of, tile_factors
from strop.errors import LowerError

FEW = 3
"""Fewer outputs than this along an axis are no vector."""


def lane_count(extent: int, most: int) -> int:
    """Lanes of a vector along an axis: as many as divide it."""
    return divisor(extent, most)


def whole_lanes(extent: int, most: int, tiling: Tiling) -> int:
    """Of the numbers of lanes that divide an axis, the cheapest a lane: those that fill no register go one by one."""
    counts = {lane_count(extent, n) for n in range(min(FEW, extent), most + 1)}
    return min(sorted(counts, reverse=True), key=lambda n: (sum(divmod(n, tiling.at_once)) + 1) / n)


def split_lanes(sch: Any, loop: Any, most: int, tiling: Tiling | None = None) -> tuple[Any, Any]:
    """Split a loop into vectors and lanes. tiling: of a core whose vectors may be shorter, if they cost less so."""
    extent = extent_of(sch, loop)
    count = whole_lanes(extent, most, tiling) if tiling else lane_count(extent, most)
    if count < min(FEW, extent) or count == 1:
        raise LowerError(f"an axis of {extent} has no vectors")
    outer, lane = sch.split(loop, [None, count])
    return outer, lane


def index_map(axes: Callable[..., list[Any]], rank: int) -> Callable[..., list[Any]]:
    """The function with a parameter an axis, which is how TVM knows their number."""

    def of_rank(*at: Any) -> list[Any]:
        return axes(*at)

    names = (f"i{axis}" for axis in range(rank))
    vars(of_rank)["__signature__"] = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names])
    return of_rank


def flat_index(at: Sequence[Any], image: Sequence[int], window: Sequence[int] = ()) -> Any:
    """The number of a place in an image, row by row; of its window, if there are any, in an image of windows."""
    number: Any = 0
    for i, extent, size in zip_longest(at, image, window):
        number = number * extent + (i // size if size else i)
    return number


def split_row(sch: Any, loop: Any, longest: int, tiling: Tiling, *, half: bool = False) -> tuple[Any, Any]:
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


def start_at_zero(sch: Any, block: Any, first: Any, depth: int) -> None:
    """Start sums in vectors before their first loop, inside `depth` others."""
    *tile, lane = sch.get_loops(sch.decompose_reduction(block, first))[depth:]
    for loop in tile:
        sch.unroll(loop)
    sch.vectorize(lane)


def longest_lanes(tiling: Tiling, vectors: int) -> int:
    """Lanes of the longest vectors of which so many fit into the registers."""
    fit = tiling.registers * tiling.register // vectors
    return max(tiling.register, min(tiling.lanes, 1 << fit.bit_length() - 1))


def room_beside(width: int, tiling: Tiling, operands: int = 1) -> int:
    """Vectors of sums that fit beside operands."""
    whole = 1 << (width - 1).bit_length()
    return max(1, tiling.registers * tiling.register // max(tiling.register, whole) - operands)


def split_tile(
    sch: Any, spatial: list[Any], anchor: Stage, axis: int, room: int, depth: int
) -> tuple[list[Any], list[Any]]:
    """Split the axes along which vectors share operands; along the lanes' own axis if there is no other."""
    axes = [a for a in anchor.hints.tile if a != axis] or [axis]
    factors = tile_factors([extent_of(sch, spatial[a]) for a in axes], room, depth, slides=False)
    outer, tile = list(spatial), []
    for a, factor in zip(axes, factors, strict=True):
        if factor > 1:
            outer[a], inner = sch.split(spatial[a], [None, factor])
            tile.append(inner)
    return outer, tile


def follow_lanes(sch: Any, stage: Stage, home: Any, depth: int, axis: int, width: int) -> None:
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
