"""What the finished jobs say: a line for each rule on each network, and for each way to adapt."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import plan
import tables
from ledger import Job, Ledger, Result

Json = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A rule on a network, in points (0 to 100). lr, options: as chosen for the first seed.

    cost, peer: None if not measured.  reason: why there are no scores.
    """

    entry: plan.Entry
    scores: tuple[float, ...]
    lr: float | None = None
    options: tables.Settings = ()
    cost: Result | None = None
    peer: Result | None = None
    reason: str = ""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.scores)) if self.scores else np.nan

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds (of a sample)."""
        return float(np.std(self.scores, ddof=1)) if len(self.scores) > 1 else np.nan

    @property
    def name(self) -> str:
        """The rule, and its activation where it is not the one meant for it."""
        usual = self.entry.table.on(tables.NETS[self.entry.net])[0]
        return self.entry.table.title + ("" if self.entry.activation == usual else f", {self.entry.activation}")

    def to_json(self) -> Json:
        """All of it."""
        entry = {"net": self.entry.net, "row": self.entry.row, "activation": self.entry.activation}
        found = {"scores": self.scores, "lr": self.lr, "options": dict(self.options), "cost": self.cost}
        return {**entry, **found, "peer": self.peer, "reason": self.reason}


def lines(ledger: Ledger, net: str) -> list[Line]:
    """Every rule that was tried on a network."""
    found = [_line(ledger, entry) for entry in plan.entries(net)]
    return [line for line in found if line.scores or line.reason]


def _line(ledger: Ledger, entry: plan.Entry) -> Line:
    runs = [job for seed in plan.SEEDS if (job := entry.training(ledger, seed))]
    scores = tuple(100 * found["test"] for job in runs if (found := ledger.get(job)))
    reasons = [ledger.reason(job) for job in (entry.check(), *_tried(entry), *runs)]
    if not scores:
        return Line(entry, (), reason=next((reason for reason in reasons if reason), ""))
    cost, peer = (ledger.get(job) if job else None for job in (entry.cost(ledger), entry.peer(ledger)))
    return Line(entry, scores, runs[0].lr, runs[0].options, cost, peer)


def _tried(entry: plan.Entry) -> Iterator[Job]:
    return (entry.short(each, 0) for each in entry.settings())


def find(all_lines: list[Line], row: str, activation: str = "") -> Line | None:
    """The line of a rule that was trained: with the given activation, or with the better one."""
    own = [line for line in all_lines if line.scores and line.entry.row == row]
    fitting = [line for line in own if activation in ("", line.entry.activation)]
    return max(fitting, key=lambda line: line.mean, default=None)


@dataclass(frozen=True)
class Course:
    """A way to adapt, by number of labelled windows of each class, in points, mean over the splits of the people."""

    net: str
    way: tables.Way
    before: dict[int, float]
    after: dict[int, float]
    old_before: dict[int, float]
    old_after: dict[int, float]
    windows: dict[int, float]
    splits: int

    def to_json(self) -> Json:
        """All of it."""
        numbers = {name: getattr(self, name) for name in (*KEYS, "windows")}
        return {"net": self.net, "way": self.way.title, "splits": self.splits, **numbers}


KEYS = ("before", "after", "old_before", "old_after")


def courses(ledger: Ledger, net: str) -> list[Course]:
    """Every way that was tried on a network."""
    return [found for way in tables.WAYS if (found := _course(ledger, net, way))]


def _course(ledger: Ledger, net: str, way: tables.Way) -> Course | None:
    jobs = [job for seed in plan.SEEDS if (job := plan.adapting(ledger, net, way, seed))]
    found = [result for job in jobs if (result := ledger.get(job))]
    if not found:
        return None

    def mean(name: str, scale: float = 100) -> dict[int, float]:
        return {n: scale * float(np.mean([each[str(n)][name] for each in found])) for n in tables.LABELLED}

    return Course(net, way, *(mean(name) for name in KEYS), mean("windows", 1), len(found))
