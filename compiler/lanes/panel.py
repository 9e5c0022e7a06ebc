"""Panels: what is widened before the loops that read it, in a row on the stack."""

from collections.abc import Sequence
from math import prod
from re import findall
from typing import Any

from strop.compiler.cvector import PANEL
from strop.compiler.lanes.layout import Lanes, lane_axis, of_terms
from strop.compiler.lanes.vectors import FEW, index_map, longest_lanes, split_lanes, whole_lanes
from strop.compiler.schedules import Stage, Tiling, extent_of


def paneled(sch: Any, stages: Sequence[Stage], tiling: Tiling, lanes: Lanes, *, outer: bool) -> Stage | None:
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
    own = own_operands(sch, block, lane_axis(sums[0].shape, lanes))
    read = [stage for stage in stages if stage.widens and stage.name in sums[0].reads]
    found = [stage for stage in read if (stage.name in own) == windows]
    whole = outer or windows or "if_then_else" in str(sch.get(block))  # padding lies in it
    return found[0] if len(found) == 1 and not (whole and prod(found[0].shape) > tiling.panel) else None


def own_operands(sch: Any, block: Any, axis: int) -> list[str]:
    """Names of the operands that are others for each output along an axis."""
    realized = sch.get(block)
    var = str(realized.iter_vars[axis].var)
    places = {str(read.source.name): [str(each.min) for each in read.region] for read in realized.reads}
    return [name for name, place in places.items() if var in findall(r"\w+", " ".join(place))]


def widen_beforehand(sch: Any, panel: Stage, outer: Sequence[Any], tiling: Tiling) -> None:
    """Widen what all turns of the last loop read of an operand, in a row on the stack, before that loop.

    Where it is read, as without a panel, if there is one turn, or it is too large, or makes no vectors.
    """
    block, most = sch.get_sblock(panel.name), longest_lanes(tiling, 4)
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
    if not shared or whole_lanes(extent_of(sch, loop), most, tiling) < FEW:
        sch.compute_inline(block)
        return
    fill_panel(sch, panel, loop, tiling)


def fill_panel(sch: Any, panel: Stage, loop: Any, tiling: Tiling) -> None:
    """Widen an operand in a row on the stack, by vectors along a loop."""
    sch.set_scope(sch.get_sblock(panel.name), 0, PANEL)
    _, lane = split_lanes(sch, loop, longest_lanes(tiling, 4), tiling)
    sch.vectorize(lane)


def fill_by_channels(sch: Any, panel: Stage, tiling: Tiling) -> None:
    """Widen the weight of windows, (O,I,...) in memory, as (I,...,O): the lanes of a vector are neighbours there."""
    block = sch.get_sblock(panel.name)
    sch.transform_layout(block, ("write", 0), index_map(lambda o, *taps: [*taps, o], len(panel.shape)))
    channels, *taps = sch.get_loops(block)
    sch.reorder(sch.fuse(*taps), channels)
    fill_panel(sch, panel, channels, tiling)
