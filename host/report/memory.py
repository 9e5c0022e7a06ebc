"""Where the bytes go, as SVG and HTML: what RAM and flash are filled with, and the arena over a training step."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from strop.host.report.html import Html, join, tag, void

if TYPE_CHECKING:
    from strop.compiler.ir import Op
    from strop.compiler.plan import Buffer, Plan

WIDTH, PLOT, LEFT, TOP = 1120, 300, 96, 10
LABELLED, LETTERS, SLANTED = 34, 24, 142
"""Most ops whose names fit below the map, the longest name, and the height that it takes at 45 degrees."""
LETTER, ROW = 6.4, 15
"""Width and height of a letter of a name."""


def fill(title: str, parts: Mapping[str, int], room: int | None) -> Html:
    """A bar of parts in bytes, and a thin one of how full the room is; room: None where there is no end."""
    used = sum(parts.values())
    shown = [(name, size) for name, size in parts.items() if size]
    pieces = [
        tag("span", class_=f"part {name}", style=f"width:{_percent(size, used)}%", title=f"{name}: {size:,} B")
        for name, size in shown
    ]
    legend = [tag("li", tag("i", class_=f"part {name}"), name, tag("b", f"{size:,} B")) for name, size in shown]
    of, gauge = f"{used:,} B", None
    if room is not None:
        of += f" of {room:,} B, {_percent(used, room)} %"
        gauge = tag("div", tag("i", style=f"width:{min(_percent(used, room), 100)}%"), class_="gauge")
    head = tag("h3", title, tag("span", of, class_="muted"))
    bar = tag("div", *pieces, class_="bar")
    return tag("div", head, bar, gauge, tag("ul", *legend, class_="legend"), class_="fill")


def _percent(part: int, all_: int) -> float:
    return round(100 * part / max(all_, 1), 1)


def arena(plan: "Plan") -> Html:
    """The arena in a training step: ops from left to right, addresses upwards, one rectangle a buffer."""
    function = "train_step" if plan.arena["train_step"] else "infer"
    buffers, ops = plan.arena[function], plan.program.functions()[function]
    size, most = plan.peak(function)
    labelled = len(ops) <= LABELLED
    height = TOP + PLOT + (SLANTED if labelled else 30)
    across, up = (WIDTH - LEFT - 10) / max(len(ops), 1), PLOT / max(size, 1)
    layers = list(dict.fromkeys(_layer(plan, buffer) for buffer in buffers))
    hues = {layer: (i * 360 // max(len(layers), 1) + 205) % 360 for i, layer in enumerate(layers)}
    rectangles = [_buffer(b, ops, across, up, hues[_layer(plan, b)]) for b in buffers]
    below = list(_names(ops, across)) if labelled else []
    caption = f"{size:,} B at most, at {most}. {len(ops)} ops from left to right, addresses upwards, a colour a layer."
    picture = tag(
        "svg", tag("title", f"memory of {function}"), *_levels(size, up), *rectangles, *below,
        viewBox=f"0 0 {WIDTH} {height}", role="img", class_="arena",
    )  # fmt: skip
    return tag("figure", picture, tag("figcaption", caption))


def _layer(plan: "Plan", buffer: "Buffer") -> str:
    """The layer whose value a buffer holds first."""
    return plan.program.values[buffer.interval.names[0]].loc


def _levels(size: int, up: float) -> Iterator[Html]:
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = round(TOP + PLOT - share * size * up, 1)
        yield void("line", x1=LEFT, x2=WIDTH - 10, y1=y, y2=y, class_="grid")
        yield tag("text", f"{share * size:,.0f}", x=LEFT - 8, y=y + 4, text_anchor="end")


def _buffer(buffer: "Buffer", ops: Sequence["Op"], across: float, up: float, hue: int) -> Html:
    """One rectangle, named where the letters fit."""
    first, last = buffer.interval.first, min(buffer.interval.last, len(ops) - 1)
    x, width = LEFT + first * across, (last - first + 1) * across
    height = max((buffer.end - buffer.offset) * up, 0.8)
    y = TOP + PLOT - buffer.offset * up - height
    name = buffer.interval.names[0]
    tip = f"{', '.join(buffer.interval.names)}: {buffer.interval.bytes:,} B at {buffer.offset:,}, ops {first} to {last}"
    box = void(
        "rect", x=f"{x + 0.7:.1f}", y=f"{y:.1f}", width=f"{max(width - 1.4, 0.7):.1f}", height=f"{height:.1f}", rx=2,
        style=f"--hue:{hue}",
    )  # fmt: skip
    label = None
    if height >= ROW and (letters := int((width - 8) / LETTER)) >= 3:
        full = f"{name} · {buffer.interval.bytes:,} B"
        shown = full if len(full) <= letters else name if len(name) <= letters else name[: letters - 1] + "…"
        label = tag("text", shown, x=f"{x + width / 2:.1f}", y=f"{y + height / 2 + 4:.1f}", text_anchor="middle")
    return tag("g", tag("title", tip), box, label, class_="buffer")


def _names(ops: Sequence["Op"], across: float) -> Iterator[Html]:
    for i, op in enumerate(ops):
        kinds = "+".join(dict.fromkeys(part.kind for part in op.parts))
        text = f"{op.loc.split(' ')[0]}: {kinds}" if op.loc else kinds
        shown = text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
        x, y = f"{LEFT + (i + 0.6) * across:.1f}", TOP + PLOT + 14
        yield tag("text", tag("title", text), shown, x=x, y=y, text_anchor="end", transform=f"rotate(-45 {x} {y})")


def whole(*parts: Html) -> Html:
    """Bars beside each other, where the page is wide enough."""
    return tag("div", join(*parts), class_="columns")
