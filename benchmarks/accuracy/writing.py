"""ACCURACY.md: a table for each network, what is reached, adaptation, and memory against depth."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import tables
from plan import SEEDS, entries
from summary import Course, Line, find

Lines = Mapping[str, list[Line]]

HEAD = """# Accuracy

Written by `python benchmarks/accuracy/study.py`; the same figures are in `accuracy/accuracy.json`, every single run in
`accuracy/runs.jsonl`. Which rule to take: [docs/choosing-a-rule.md](../docs/choosing-a-rule.md).

Each network was trained through the twin, so by the C that runs on the board: one sample a step, float32, SGD without
momentum, a learning rate that falls linearly to 0, in {seeds} runs whose weights, random tensors, samples and order
differ. **Accuracy** is of test samples, mean ± standard deviation over the runs. Budgets are small: the figures
compare rules, they are not the best a network can reach. The jobs took {minutes:.0f} minutes one by one, beside other
work on the machine; they run two at a time.

Learning rate (and strength of tpSGD's targets) are chosen on validation samples; test samples choose nothing. Short
runs try rates from {least:g} to {most:g}, and favour high ones. So from their best, runs of full length go on to milder
settings, as long as validation gains by it: for images the mean of all runs, so that one which collapses counts; for
people each run by itself. **Rate** is the choice of the first run.

**Frozen + head** leaves all but the last layer as drawn and trains that one: a rule that is not above it earns nothing
by training the others, and is marked *not recommended here*. **PyTorch**: the rule's reference in PyTorch, float32,
started from the same weights and fed the first samples of the first run in the same order; accuracy on the board's
side / PyTorch's, and the share of test samples that both answer alike. **RAM** is all that a step needs on
`qemu-rv32imf` (parameters, state, activations, scratch, worst stack), **activations** the part of it that lives
between layers, **instructions** are retired ones a step, all at a constant learning rate.
"""

PEOPLE = """Every person is new in one of three splits by person. The network is trained on the others (a fifth of whom
only choose settings); a new person then labels up to 1, 5 or 20 windows of each class, at most half of what there is,
and the rule trains {passes} times on each. *New* is the accuracy on the new person's other windows, *old* on windows,
not trained on, of the people trained on: what is forgotten. Means over all people; of smartwatch activity, most of
which is of one class, the accuracy is the mean over classes.
"""


@dataclass(frozen=True)
class Claim:
    """A rule's accuracy beside backprop's: at most so many points below on these networks."""

    rows: tuple[str, ...]
    nets: tuple[str, ...]
    points: float


CLAIMS = (
    Claim(("mono-forward",), ("mlp-256", "mlp-128x3"), 0.5),
    Claim(("tpsgd-l2", "tpsgd-l1"), ("mlp-256", "conv", "rnn-1", "rnn-2", "activity-gru"), 5),
    Claim(("forward-forward",), ("mlp-256", "mlp-128x3"), 5),
)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose first columns are text."""
    rule = ["---" if i < left else "--:" for i in range(len(heads))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows)) + "\n"


def document(
    found: Lines, people: Mapping[str, list[Course]], depth: Sequence[Mapping[str, Any]], minutes: float
) -> str:
    """The whole file. minutes: that all jobs take, one at a time."""
    head = HEAD.format(seeds=len(SEEDS), minutes=minutes, least=tables.RATES[1], most=tables.RATES[-1])
    parts = [head, "![accuracy by rule](../docs/accuracy-by-rule.png)\n"]
    for net, lines in found.items():
        parts += [f"## {tables.NETS[net].title}\n", _budget(net), _accuracy(lines), *_absent(net, lines)]
    parts += ["## What is reached\n", *_reached(found)]
    if any(people.values()):
        parts += ["## A new person\n", "![adaptation](../docs/adaptation.png)\n"]
        parts.append(PEOPLE.format(passes=tables.PASSES))
        for net, ways in people.items():
            parts += [f"### {tables.NETS[net].title}\n", adaptation(ways)] if ways else []
    if depth:
        parts += ["## Memory against depth\n", "![memory](../docs/memory-by-depth.png)\n", DEPTH, memory(depth)]
    return "\n".join(parts)


def _budget(net: str) -> str:
    row, budget = tables.NETS[net], tables.NETS[net].budget
    what = "Up to " if row.data != "images" else ""
    clip = f" Each parameter's gradient is cut to norm {row.clip:g}." if row.clip else ""
    mean = " Accuracy is the mean over classes." if row.balanced else ""
    return f"{what}{budget.samples:,} training samples, {budget.epochs} epochs.{clip}{mean}\n"


def _accuracy(lines: Sequence[Line]) -> str:
    rows = [_row(line, lines) for line in lines if line.scores]
    heads = ("rule", "units", "rate", "accuracy, %", "above frozen", "PyTorch", "RAM, B", "activations, B")
    return table((*heads, "instructions"), rows, 3)


def _row(line: Line, lines: Sequence[Line]) -> tuple[str, ...]:
    frozen = find(list(lines), tables.BASELINE, line.entry.activation)
    above = line.mean - frozen.mean if frozen and frozen is not line else None
    mark = " *not recommended here*" if above is not None and above <= 0 else ""
    spread = f" ± {line.spread:.1f}" if np.isfinite(line.spread) else ""
    ram = line.cost["ram"] if line.cost else None
    return (
        f"{line.entry.table.title}{mark}", line.entry.activation, _rate(line), f"{line.mean:.1f}{spread}",
        "" if above is None else f"{above:+.1f}", _peer(line),
        _number(ram and ram["total"]), _number(ram and ram["activations"] + ram["scratch"]),
        _number(line.cost and line.cost["instructions"]),
    )  # fmt: skip


def _rate(line: Line) -> str:
    """The learning rate, and the strength of local targets beside it."""
    strength = dict(line.options).get("strength")
    return f"{line.lr:g}" + (f" × {strength:g}" if strength else "")


def _peer(line: Line) -> str:
    if not line.peer:
        return "–"
    return f"{100 * line.peer['ours']:.1f} / {100 * line.peer['theirs']:.1f}, {100 * line.peer['alike']:.1f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _absent(net: str, lines: Sequence[Line]) -> Iterator[str]:
    """A sentence for each rule without scores."""
    refused = dict.fromkeys((line.entry.table.title, line.reason) for line in lines if not line.scores)
    if refused:
        yield "\n".join(f"- {title}: – ({' '.join(reason.split())})" for title, reason in refused) + "\n"
    known = {line.entry.row for line in lines}
    missing = dict.fromkeys(entry.table.title for entry in entries(net) if entry.row not in known)
    if missing:
        yield f"Not measured: {', '.join(missing)}.\n"


def _reached(found: Lines) -> Iterator[str]:
    for claim in CLAIMS:
        heads = ("rule", "network", "backprop, %", "rule, %", "below", f"at most {claim.points:g}")
        if rows := list(_claimed(claim, found)):
            yield table(heads, rows, 2)
    yield "\n".join(_against_frozen(found)) + "\n"


def _claimed(claim: Claim, found: Lines) -> Iterator[tuple[str, ...]]:
    """Both at the activation that serves each best."""
    for row, net in ((row, net) for row in claim.rows for net in claim.nets):
        own, exact = (find(found.get(net, []), name) for name in (row, tables.BACKPROP))
        if own and exact:
            below = exact.mean - own.mean
            figures = (f"{exact.mean:.1f}", f"{own.mean:.1f}", f"{below:.2f}", "✓" if below <= claim.points else "✗")
            yield (tables.ROWS[row].title, tables.NETS[net].title, *figures)


def _against_frozen(found: Lines) -> Iterator[str]:
    for net, lines in found.items():
        frozen = {line.entry.activation: line for line in lines if line.entry.row == tables.BASELINE and line.scores}
        below = [
            line.name for line in lines if line.scores and line.entry.row != tables.BASELINE
            and line.entry.activation in frozen and line.mean <= frozen[line.entry.activation].mean
        ]  # fmt: skip
        if frozen:
            text = f"not above frozen + head: {', '.join(below)}" if below else "every rule is above frozen + head"
            yield f"- {tables.NETS[net].title}: {text}."


def adaptation(ways: Sequence[Course]) -> str:
    """Before and after, on new and old people."""
    rows = []
    for course in ways:
        for n in tables.LABELLED:
            pairs = ((course.before, course.after), (course.old_before, course.old_after))
            cells = [f"{first[n]:.1f} → {then[n]:.1f}" for first, then in pairs]
            gain = f"{course.after[n] - course.before[n]:+.1f}"
            rows.append((course.way.title, str(n), f"{course.windows[n]:.0f}", cells[0], gain, cells[1]))
    return table(("rule", "labelled, of each class", "windows in all", "new, %", "gained", "old, %"), rows)


DEPTH = """Bytes that a step needs beside the parameters, one sample, for networks of equal layers: fully connected of
64, and 3x3 convolutions of 8 maps on 12 x 12 pixels (`python benchmarks/accuracy/memory.py`). Activations first; a rule
that trains heads of its own has a second line with them.
"""


def memory(depth: Sequence[Mapping[str, Any]]) -> str:
    """Bytes by number of layers."""
    layers = sorted({row["layers"] for row in depth})
    rows = []
    for (kind, rule), group in groupby(depth, lambda row: (row["kind"], row["rule"])):
        held = {row["layers"]: (row["activations"], row["activations"] + row["state"]) for row in group}
        for name, which in ((rule, 0), (f"{rule} with its heads", 1)):
            if which == 0 or any(whole > part for part, whole in held.values()):
                rows.append((kind, name, *(_number(held[n][which] if n in held else None) for n in layers)))
    return table(("layers", "rule", *map(str, layers)), rows, 2)
