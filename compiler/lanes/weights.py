"""Lanes over the columns of a weight: its update, and its gradient and update in one pass."""

from collections.abc import Sequence
from typing import Any

from strop.compiler.lanes.layout import Lanes
from strop.compiler.lanes.outputs import map_lanes
from strop.compiler.lanes.panel import fill_panel
from strop.compiler.lanes.vectors import (
    FEW,
    follow_lanes,
    longest_lanes,
    split_lanes,
    split_row,
    start_at_zero,
    whole_lanes,
)
from strop.compiler.schedules import Stage, Tiling, divisor, extent_of, loops_of, part, registers


def update_columns(sch: Any, anchor: Stage, followers: Sequence[Stage], tiling: Tiling) -> None:
    """A weight (O,I) updated by an outer product: a few vectors of columns at a time, down the rows."""
    block = sch.get_sblock(anchor.name)
    rows, columns = sch.get_loops(block)
    rounds = str(sch.get(block).writes[0].source.dtype) == "bfloat16"  # by several instructions, on several registers
    count, beside = abreast(extent_of(sch, columns), tiling, 4 if rounds else 1)
    band, lane = split_lanes(sch, columns, count)
    band, pair = sch.split(band, [None, beside])
    rows, turn = sch.split(rows, [None, divisor(extent_of(sch, rows), tiling.turn)])
    sch.reorder(band, rows, turn, pair, lane)
    for loop in (turn, pair):
        sch.unroll(loop)
    sch.vectorize(lane)
    for stage in followers:
        map_lanes(sch, stage, tiling, Lanes.LAST)


def abreast(extent: int, tiling: Tiling, others: int = 1) -> tuple[int, int]:
    """Lanes of vectors and how many side by side: fewest instructions a column, inputs in registers beside others."""

    def beside(lanes: int) -> int:
        groups = tiling.registers // -(-lanes // tiling.register)
        return divisor(extent // lanes, max(1, groups - min(others, groups // 2)))

    def cost(pair: tuple[int, int]) -> tuple[float, int]:
        lanes, count = pair
        return (3 * count * -(-lanes // tiling.at_once) + 2) / (count * lanes), -lanes

    lengths = {whole_lanes(extent, most, tiling) for most in range(FEW, longest_lanes(tiling, 2) + 1)}
    return min(((lanes, beside(lanes)) for lanes in lengths), key=cost)


def sweep(sch: Any, gradient: Sequence[Stage], update: Sequence[Stage], tiling: Tiling, panel: Stage | None) -> None:
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
        follow_lanes(sch, stage, band, 2, 1, extent_of(sch, lane))
    for loop in (lane, sch.get_loops(writer)[-1]):
        sch.vectorize(loop)
    start_at_zero(sch, block, rows, 2)
    if panel:
        sch.compute_at(sch.get_sblock(panel.name), batch, index=0)
        fill_panel(sch, panel, sch.get_loops(sch.get_sblock(panel.name))[-1], tiling)


def _bands(sch: Any, columns: Any, tiling: Tiling) -> tuple[Any, Any, Any]:
    """Split columns into bands, vectors of one instruction side by side, and lanes.

    Registers hold a sum and an input for each vector, and two operands.
    """
    longest = tiling.register * max(1, (tiling.registers - 2) // (tiling.sums + 1))
    if tiling.whole:
        longest = min(tiling.lanes, longest)
    band, lane = split_row(sch, columns, longest, tiling)
    beside, lane = sch.split(lane, [None, min(tiling.at_once, extent_of(sch, lane))])
    return band, beside, lane
