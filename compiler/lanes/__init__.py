"""How loops are laid over the lanes of a vector unit: over outputs, so that each keeps the order of its sum.

The lanes of a reduction are the channels of an image, or the last axis of a matrix: neither padding nor a stride
then differs between lanes. Loads and stores may have any distance between lanes. Two layouts are for what has too few
channels: lanes over the positions of an image, all of its rows in one, and lanes over the terms of a sum, each of which
keeps a partial one; those are added in the order of the lanes.

`layout` names the layouts. A file arranges each kind of kernel: `outputs`, `weights`, `windows`, `terms`; `vectors`
splits their loops by what registers hold, `panel` widens operands beforehand.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

from strop.compiler.lanes.layout import Lanes, lane_axis, of_terms
from strop.compiler.lanes.outputs import handful, map_lanes, reduction
from strop.compiler.lanes.panel import fill_by_channels, paneled
from strop.compiler.lanes.terms import few_outputs, partial_sums
from strop.compiler.lanes.vectors import FEW, lane_count
from strop.compiler.lanes.weights import sweep, update_columns
from strop.compiler.lanes.windows import positions, windowed
from strop.compiler.schedules import Stage, Tiling, inline, nests


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


def arrange_lanes(
    sch: Any, stages: Sequence[Stage], tiling: Tiling, lanes: Lanes, *, outer: bool = False, half: bool = False
) -> None:
    """Schedule a kernel in place, with loops over lanes marked as vectorized; see `schedules.arrange`.

    half: sums of halves may be in halves, a few terms at a time.

    Raises LowerError where no axis has enough outputs.
    """
    image = not (outer or any(stage.hints.window for stage in stages))  # else sums in halves need none
    panel = paneled(sch, stages, tiling, lanes, outer=outer) if image or not half else None
    runs = nests(sch, inline(sch, [stage for stage in stages if stage is not panel]))
    if outer and len(runs) == 2 and runs[0][0].reduces:
        sweep(sch, runs[0], runs[1], tiling, panel)
        return
    if len(runs) == 2 and runs[1][0].hints.window and runs[0][0].reduces:
        if lanes in (Lanes.POSITIONS, Lanes.ONE_SUM):
            positions(sch, runs[0][0], runs[1], tiling, alone=lanes is Lanes.ONE_SUM, half=half)
        else:
            windowed(sch, runs[0][0], runs[1], tiling)
        if panel:
            fill_by_channels(sch, panel, tiling)
        return
    for anchor, *followers in runs:
        if of_terms(lanes) and few_outputs(anchor, tiling):
            partial_sums(sch, anchor, followers, tiling, half=half, apart=lanes is Lanes.SUMS)
        elif prod(anchor.shape) < FEW:
            handful(sch, [anchor, *followers], tiling, lanes)
        elif anchor.reduces:
            axis = lane_axis(anchor.shape, lanes)
            reduction(sch, anchor, followers, tiling, axis, half=half, panel=panel)
        elif outer and len(anchor.shape) == 2:
            update_columns(sch, anchor, followers, tiling)
        else:
            for stage in (anchor, *followers):
                map_lanes(sch, stage, tiling, lanes)
