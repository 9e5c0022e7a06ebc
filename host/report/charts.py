"""Line charts as SVG inside a page: colours come from the page's style, so that they follow light and dark."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10

import numpy as np

from strop.host.report.html import Html, join, tag, void

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 14, 40
"""Margins around the plot."""

MOST_POINTS = 400
"""Of a line; more are averaged over equal stretches."""

SMOOTHING = 40
"""Stretches of a smoothed line."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One line of a chart. style: its class in the page's style.  dots: marks with the value as a tooltip."""

    points: Sequence[Point]
    style: str
    dots: bool = False


@dataclass(frozen=True)
class Axis:
    """From numbers to places on the page."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value lies; what is beyond the ends lies on them."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low or 1.0)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, about: int) -> list[float]:
        """Round numbers, some `about` of them."""
        raw = (self.high - self.low or 1.0) / about
        power = 10.0 ** floor(log10(raw))
        step = next((power * m for m in (1, 2, 2.5, 5) if power * m >= raw), power * 10)
        first = int(np.ceil(self.low / step - 1e-9))
        return [round(i * step, 12) for i in range(first, int(np.floor(self.high / step + 1e-9)) + 1)]


def averaged(values: Sequence[float], most: int = MOST_POINTS) -> list[Point]:
    """(step, mean) over equal stretches, at the middle of each; stretches without a number are left out."""
    parts = np.array_split(np.asarray(values, float), min(most, len(values)) or 1)
    ends, points = 0, []
    for part in parts:
        finite = part[np.isfinite(part)]
        if len(finite):
            points.append((ends + (len(part) + 1) / 2, float(finite.mean())))
        ends += len(part)
    return points


def losses(values: Sequence[float]) -> Html:
    """The loss of every step: as it is in the background, smoothed in front."""
    fine, smooth = averaged(values), averaged(values, SMOOTHING)
    if not fine:
        return nothing("no loss was a number")
    top = max(float(np.quantile([y for _, y in fine], 0.98)) * 1.1, max(y for _, y in smooth) * 1.05)
    low = min(0.0, *(y for _, y in smooth))
    return chart([Line(fine, "faint"), Line(smooth, "strong")], (0, len(values)), (low, top), "training loss")


def scores(points: Sequence[tuple[int, float]], *, percent: bool, name: str) -> Html:
    """A measure on held-out samples, wherever it was taken."""
    points = [(step, value) for step, value in points if isfinite(value)]
    if not points:
        return nothing("nothing was held out to measure on")
    values = [value for _, value in points]
    ends = (max(0.0, floor(min(values) * 10 - 0.5) / 10), 1.0) if percent else (0.0, max(values) * 1.1)
    show: Callable[[float], str] = (lambda v: f"{100 * v:g} %") if percent else number
    return chart([Line(points, "strong", dots=True)], (0, max(step for step, _ in points)), ends, name, show)


def nothing(why: str) -> Html:
    """In a chart's place."""
    return tag("p", why, class_="muted")


def number(value: float) -> str:
    """With as many digits as an axis needs."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def chart(
    lines: Sequence[Line], xs: tuple[float, float], ys: tuple[float, float], name: str,
    show: Callable[[float], str] = number,
) -> Html:  # fmt: skip
    """Lines against steps. xs, ys: what the axes reach over.  show: the text of a value."""
    x, y = Axis(*xs, LEFT, WIDTH - RIGHT), Axis(*ys, HEIGHT - BOTTOM, TOP)
    drawn = [part for line in lines for part in _line(line, x, y, show)]
    return tag(
        "svg", tag("title", name), *_grid(x, y, show), *drawn,
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", class_="chart",
    )  # fmt: skip


def _line(line: Line, x: Axis, y: Axis, show: Callable[[float], str]) -> Iterator[Html]:
    path = " ".join(f"{x(a)},{y(b)}" for a, b in line.points)
    if line.style == "strong" and len(line.points) > 1:
        ends = f"{x(line.points[-1][0])},{y.start} {x(line.points[0][0])},{y.start}"
        yield void("polygon", points=f"{path} {ends}", class_="area")
    yield void("polyline", points=path, class_=line.style)
    for a, b in line.points if line.dots else ():
        yield tag("circle", tag("title", f"step {a:,.0f}: {show(b)}"), cx=x(a), cy=y(b), r=3.5, class_="dot")


def _grid(x: Axis, y: Axis, show: Callable[[float], str]) -> Iterator[Html]:
    for value in y.ticks(5):
        yield void("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="grid")
        yield tag("text", show(value), x=x.start - 8, y=y(value) + 4, text_anchor="end")
    for value in x.ticks(6):
        yield tag("text", number(value), x=x(value), y=y.start + 18, text_anchor="middle")
    yield join(tag("text", "steps", x=(x.start + x.end) / 2, y=HEIGHT - 4, text_anchor="middle", class_="label"))
