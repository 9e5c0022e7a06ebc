"""Lanes of what a max-pool reads: channels, or the windows of an image in one row."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from strop.compiler.chalf import TERMS
from strop.compiler.lanes.vectors import (
    flat_index,
    follow_lanes,
    index_map,
    longest_lanes,
    room_beside,
    split_lanes,
    split_row,
    start_at_zero,
)
from strop.compiler.schedules import Stage, Tiling, extent_of, loops_of, part, registers
from strop.errors import LowerError


def windowed(sch: Any, producer: Stage, consumers: Sequence[Stage], tiling: Tiling) -> None:
    """A reduction over windows of another, in vectors of channels: a window's sums stay in registers until reduced."""
    pool, layer = sch.get_sblock(consumers[0].name), sch.get_sblock(producer.name)
    copies = registers(sch, pool, consumers[0])
    (batch, channels, *image), window = loops_of(sch, pool)
    sums = prod(extent_of(sch, loop) for loop in window)
    channels, lane = split_lanes(sch, channels, longest_lanes(tiling, sums + 1))
    width = extent_of(sch, lane)
    if sums > room_beside(width, tiling):
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
        follow_lanes(sch, stage, home, depth, 1, width)
    for block, first in ((layer, reduce[0]), (pool, window[0])):
        start_at_zero(sch, block, first, depth)


def positions(
    sch: Any, producer: Stage, consumers: Sequence[Stage], tiling: Tiling, *, alone: bool, half: bool
) -> None:
    """As `windowed`, in vectors of windows: the windows of an image are one row.

    alone: one sum at a time. Vectors beside it, what it is reduced to, an operand and its places are longer than those
    beside all sums of a window, if the row is. half: sums are of halves, and where they are long in float32 too.
    """
    pool, layer = sch.get_sblock(consumers[0].name), sch.get_sblock(producer.name)
    (_, channels, *image), window = ([extent_of(sch, loop) for loop in loops] for loops in loops_of(sch, pool))
    longest = longest_lanes(tiling, prod(window) + 1)
    if alone and prod(image) <= longest:
        raise LowerError("all sums of a window fit beside each other")
    if alone:
        longest = longest_lanes(tiling, 8 if half and prod(producer.terms) > TERMS else 4)
    whole = tuple(n * k for n, k in zip(image, window, strict=True)) == producer.shape[2:]
    if channels > longest or not whole:
        raise LowerError("no windows in a row")
    _in_a_row(sch, layer, producer, image, window)
    for stage in consumers:
        _in_a_row(sch, sch.get_sblock(stage.name), stage, image, ())
    flat = [replace(stage, shape=(*stage.shape[:2], prod(image))) for stage in consumers]
    copies = registers(sch, pool, flat[0])
    (batch, channel, place), windows = loops_of(sch, pool)
    place, lane = split_row(sch, place, longest, tiling)
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
        follow_lanes(sch, stage, place, 3, 2, extent_of(sch, lane))
    part(sch, place)
    start_at_zero(sch, layer, reduce[0], depth)
    start_at_zero(sch, pool, windows[0], 3)


def _in_a_row(sch: Any, block: Any, stage: Stage, image: Sequence[int], window: Sequence[int]) -> None:
    """Give a block, and what it computes, the axes (batch, channel, window of the image, place in the window)."""
    rank = len(stage.shape)

    def axes(*at: Any) -> list[Any]:
        places = [i % size for i, size in zip(at[2:rank], window, strict=False)]
        return [*at[:2], flat_index(at[2:rank], image, window), *places, *at[rank:]]

    sch.transform_block_layout(block, index_map(axes, len(sch.get_loops(block))))
    for index in range(len(stage.results)):
        sch.transform_layout(block, ("write", index), index_map(axes, rank))
