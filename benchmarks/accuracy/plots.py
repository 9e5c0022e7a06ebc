"""The plots of the study."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import tables
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from summary import Course, Line

Lines = Mapping[str, list[Line]]
COLORS = {name: f"C{i}" if i < 10 else f"C{i - 10}" for i, name in enumerate(tables.ROWS)}


def by_rule(found: Lines, path: Path) -> None:
    """A panel a network: the mean accuracy of each rule with its runs, and the frozen baseline as a line."""
    nets = [net for net, lines in found.items() if any(line.scores for line in lines)]
    figure, panels = _panels(len(nets), 3.4)
    for axes, net in zip(panels, nets, strict=False):
        lines = sorted((line for line in found[net] if line.scores), key=lambda line: line.mean)
        places = np.arange(len(lines))
        axes.barh(places, [line.mean for line in lines], color=[COLORS[line.entry.row] for line in lines], alpha=0.6)
        for place, line in zip(places, lines, strict=True):
            axes.plot(line.scores, [place] * len(line.scores), "k.", markersize=3)
        frozen = max((line.mean for line in lines if line.entry.row == tables.BASELINE), default=np.nan)
        axes.axvline(frozen, color="0.3", linewidth=0.8, linestyle="--")
        axes.set_yticks(places, [line.name for line in lines], size=7)
        scores = [score for line in lines for score in line.scores]
        least = 0 if np.isnan(frozen) else frozen - 25  # a rule that failed does not squeeze the others
        axes.set_xlim(max(0, least, min(scores) - 5), min(100, max(scores) + 1))
        axes.set_title(tables.NETS[net].title, size=7)
    _save(figure, path)


def against_ram(found: Lines, path: Path) -> None:
    """A panel a network: accuracy against all RAM that a step needs; hollow with a rule's other activation."""
    nets = [net for net, lines in found.items() if any(line.cost for line in lines)]
    figure, panels = _panels(len(nets), 3.0)
    for axes, net in zip(panels, nets, strict=False):
        for i, line in enumerate(line for line in found[net] if line.cost and line.scores):
            kilobytes = line.cost["ram"]["total"] / 1024 if line.cost else np.nan
            usual, color = line.name == line.entry.table.title, COLORS[line.entry.row]
            axes.plot(kilobytes, line.mean, "o", color=color, mfc=color if usual else "none", markersize=4)
            side = {"xytext": (4, 1)} if i % 2 else {"xytext": (-4, 1), "ha": "right"}
            text = line.name if usual else ""
            axes.annotate(text, (kilobytes, line.mean), textcoords="offset points", size=6, **side)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.margins(x=0.35, y=0.1)
        axes.set_xlabel("RAM of a step, KB", size=8)
        axes.set_ylabel("accuracy, %", size=8)
        axes.set_title(tables.NETS[net].title, size=7)
    _save(figure, path)


def adaptation(people: Mapping[str, list[Course]], path: Path) -> None:
    """A panel a network: accuracy on the new person and, dashed, on the old people, by labelled windows."""
    nets = [net for net, ways in people.items() if ways]
    figure, panels = _panels(len(nets), 3.4)
    for axes, net in zip(panels, nets, strict=False):
        for i, course in enumerate(people[net]):
            places = range(len(tables.LABELLED) + 1)
            new = [course.before[tables.LABELLED[0]], *course.after.values()]
            old = [course.old_before[tables.LABELLED[0]], *course.old_after.values()]
            axes.plot(places, new, "o-", color=f"C{i}", markersize=3, label=course.way.title)
            axes.plot(places, old, "--", color=f"C{i}", linewidth=0.8)
        axes.set_xticks(places, ["0", *map(str, tables.LABELLED)])
        axes.set_xlabel("labelled windows of each class", size=8)
        axes.set_ylabel("accuracy, %: new person, old people dashed", size=8)
        axes.set_title(tables.NETS[net].title, size=7)
        axes.legend(frameon=False, fontsize=7)
    _save(figure, path)


def depth(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel a kind of layer: bytes beside the parameters against the number of layers, a line a rule."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    figure, panels = _panels(len(kinds), 3.6)
    for axes, kind in zip(panels, kinds, strict=False):
        for rule, group in groupby((row for row in rows if row["kind"] == kind), lambda row: row["rule"]):
            points = [(row["layers"], (row["activations"] + row["state"]) / 1024) for row in group]
            axes.plot(*np.transpose(points), "--" if rule == "DFA" else "o-", markersize=3, label=rule)
        depths = sorted({row["layers"] for row in rows})
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(depths, [str(each) for each in depths])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("layers", size=8)
        axes.set_ylabel("activations and local heads, KB", size=8)
        axes.set_title(kind, size=8)
        axes.legend(frameon=False, fontsize=7)
    _save(figure, path)


def _panels(number: int, height: float) -> tuple[Figure, list[Axes]]:
    """So many panels, three in a row at most; what is left over shows nothing."""
    columns = min(number, 3) or 1
    rows = -(-number // columns) or 1
    figure = Figure(figsize=(4 * columns, height * rows), layout="constrained")
    panels = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    for axes in panels[number:]:
        axes.set_axis_off()
    for axes in panels[:number]:
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=7)
    return figure, panels


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120, metadata={"Software": None})
