"""The arena as a picture: ops from left to right, addresses upwards, one rectangle a buffer."""

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import StrMethodFormatter

if TYPE_CHECKING:
    from strop.compiler.ir import Op
    from strop.compiler.plan import Buffer, Plan

PLOT_INCHES, MARGIN_INCHES = 4.5, 2.0
NARROWEST, WIDEST, INCHES_AN_OP = 8.0, 22.0, 0.55
NAME_POINTS, CHARACTER_POINTS = 7, 4.2
LABEL_CHARACTERS = 26
PALETTE = colormaps["Set3"]

Color = tuple[float, float, float, float]


def draw(plan: "Plan", path: Path) -> None:
    """Write the memory map of the train step, of inference without one, as PNG or SVG by the path's ending."""
    function = "train_step" if plan.arena["train_step"] else "infer"
    buffers, ops = plan.arena[function], plan.program.functions()[function]
    size, most = plan.peak(function)
    width = min(max(NARROWEST, INCHES_AN_OP * len(ops)), WIDEST)
    figure = Figure(figsize=(width + 1, PLOT_INCHES + MARGIN_INCHES), layout="constrained")
    axes = figure.subplots()
    axes.set_xlim(-0.5, max(len(ops), 1) - 0.5)
    axes.set_ylim(0, max(size, 4) * 1.04)
    scale = (72 * width / max(len(ops), 1), 72 * PLOT_INCHES / max(size, 1))
    for number, buffer in enumerate(buffers):
        _rectangle(axes, buffer, len(ops), scale, PALETTE(number % PALETTE.N))
    axes.axhline(size, color="black", linewidth=0.8, linestyle="--")
    letters = min(NAME_POINTS, 0.8 * scale[0])
    axes.set_xticks(
        range(len(ops)), [_label(op) for op in ops], rotation=55, ha="right", rotation_mode="anchor", size=letters
    )
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="x", linewidth=0.3)
    axes.set_axisbelow(True)
    axes.set_xlabel("ops, in order of execution")
    axes.set_ylabel("offset in the arena, bytes")
    axes.set_title(f"{plan.program.name}, {function}: {size:,} B, the most at {most}", size=10)
    figure.savefig(path, dpi=150, metadata={"Software": None} if path.suffix == ".png" else None)


def _rectangle(axes: Axes, buffer: "Buffer", ops: int, scale: tuple[float, float], color: Color) -> None:
    """A buffer's lifetime by its bytes; named and sized where the letters fit. scale: points an op and a byte."""
    first, last = buffer.interval.first, min(buffer.interval.last, ops - 1)
    width, height = last - first + 0.92, buffer.end - buffer.offset
    axes.add_patch(Rectangle((first - 0.46, buffer.offset), width, height, facecolor=color, edgecolor="black", lw=0.5))
    if height * scale[1] < NAME_POINTS + 2:
        return
    text = _clipped(buffer.interval.names[0], width * scale[0] / CHARACTER_POINTS)
    if height * scale[1] > 3 * NAME_POINTS:
        text += f"\n{buffer.interval.bytes:,} B"
    axes.text((first + last) / 2, buffer.offset + height / 2, text, ha="center", va="center", size=NAME_POINTS)


def _label(op: "Op") -> str:
    """The layer, then what is computed."""
    kinds = "+".join(dict.fromkeys(part.kind for part in op.parts))
    return _clipped(f"{op.loc.split(' ')[0]}: {kinds}" if op.loc else kinds, LABEL_CHARACTERS)


def _clipped(text: str, characters: float) -> str:
    return text if len(text) <= characters else text[: max(0, int(characters) - 1)] + "…"
