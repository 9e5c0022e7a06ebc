"""Pictures a run leaves behind: learning curves and kernel costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from strop.host.arrays import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 120
"""Most points of a curve: losses are averaged down to so many."""


@dataclass(frozen=True)
class Curve:
    """One training run. losses: of every step.  scores: (step, score) on held-out samples, perhaps none."""

    losses: Sequence[float]
    scores: Sequence[tuple[int, float]]


def learning_curves(path: Path, curves: Mapping[str, Curve], score: str = "accuracy") -> None:
    """Draw the losses of runs by name, and their scores on held-out samples, against steps. Writes a PNG."""
    figure = _figure(4.5)
    losses, scores = figure.subplots(1, 2)
    for name, curve in curves.items():
        losses.plot(*_averaged(curve.losses), label=name)
        if curve.scores:
            scores.plot(*np.transpose(curve.scores), "o-", markersize=3, label=name)
    for axes, title in ((losses, "training loss"), (scores, f"{score} on held-out samples")):
        axes.set_xlabel("steps")
        axes.set_title(title, size=10)
        axes.grid(alpha=0.3)
    losses.legend(frameon=False)
    _save(figure, path)


def kernel_costs(path: Path, costs: Mapping[str, float], unit: str) -> None:
    """Draw the cost of each kernel as a bar, in order of execution. Writes a PNG."""
    figure = _figure(1 + 0.25 * len(costs))
    axes = figure.subplots()
    axes.barh(list(costs), list(costs.values()))
    axes.invert_yaxis()
    axes.set_xlabel(f"{unit} a step")
    axes.set_axisbelow(True)
    axes.grid(axis="x", alpha=0.3)
    _save(figure, path)


def _averaged(losses: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and losses, averaged over equal stretches."""
    parts = np.array_split(np.asarray(losses, float), min(POINTS, len(losses)) or 1)
    ends = np.cumsum([len(part) for part in parts])
    return ends, np.array([part.mean() if len(part) else np.nan for part in parts])


def _figure(height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(9, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_file(path, buffer.getvalue())
