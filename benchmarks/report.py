"""The table and the plot, made from what was measured."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from goals import CYCLE_GOALS, GOALS, LAYER_GOALS, M4F, MLPERF, RV32, SOFT
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

Results = Mapping[str, Any]
Row = Mapping[str, Any]

HEAD = """# Benchmarks

Written by `python benchmarks/results.py`; the same figures are in `results.json`. strop {strop}, kernels by TVM
{apache-tvm}, compiled by zig cc {ziglang} at `-O2`, counted on QEMU {qemu}.

**One training step**: forward, backward and update, batch 1, float32, SGD without momentum, softmax cross-entropy
(`fc-autoencoder`: mean squared error on its own input), all layers trained unless the rule says otherwise.
**Instructions** are retired ones: `minstret` on `qemu-rv32imf` and `qemu-rv32imac`, a timer under `-icount` on
`qemu-cortex-m4f`. They are the mean over 20 steps (MLPerf Tiny's nets: 2) on uniform noise from a seeded generator, and
repeat exactly. **RAM** is all a step needs: parameters, activations, scratch and the worst stack, without the caller's
sample. **Text** is code and read-only data of the exported library, without initial parameters. **Bound** is the least
a scalar core could do with the same arithmetic (`host/bounds.py` says how it is counted).

Peers: AIfES 2.2 and PULP-TrainLib on one core, built from their sources with gcc 12.2 and measured with the same
counters, each in the best setting found.
"""

SHORT = {RV32: "rv32imf", M4F: "Cortex-M4F", SOFT: "rv32imac"}


def markdown(results: Results, cores: Sequence[str], notes: str) -> str:
    """RESULTS.md. cores: the part on formats and cores.  notes: on what falls short; both are put in as they are."""
    sections = [
        HEAD.format(**results["versions"]),
        "![instructions a step](results.png)\n",
        "## Instructions a step, backprop\n", _instructions(results),
        "## Memory, backprop\n", MEMORY_TEXT, _memory(results),
        "## Single layers\n", LAYERS_TEXT, _layers(results),
        "## Cycles on a single-issue core\n", CYCLES_TEXT, _cycles(results),
        *cores,
        "## Every rule and board\n", _everything(results),
        "## Beside PyTorch\n", PYTORCH_TEXT, _pytorch(results),
        "## Kernels\n", KERNELS_TEXT, _kernels(results),
        notes.rstrip(),
    ]  # fmt: skip
    return "\n".join(sections) + "\n"


MEMORY_TEXT = """The text on rv32imac includes the compiler's soft-float library. Peers were measured on rv32imf.
"""

LAYERS_TEXT = """Instructions a multiply-accumulate, each layer in a net of its own (`strop profile layers`). The
weight gradient includes its SGD update. Taps that fall into the padding count as multiply-accumulates, here and for the
peer; the bound leaves them out.
"""

CYCLES_TEXT = """Computed by `benchmarks/cycles.py` from the instructions that QEMU executes for a training step on
`qemu-rv32imf`, for a core in order of the class of PULP's RI5CY with its FPU: every instruction takes one cycle, memory
answers in one; an instruction that reads what the one before it loads waits one more; a taken branch and a jump take
three. Cycles a multiply-accumulate, in parts, and their inverse.
"""

PYTORCH_TEXT = """Bytes that one backprop step needs. PyTorch: parameters, gradients, and the tensors that autograd
saves between forward and backward (eager mode; temporary buffers and the interpreter not counted). Milliseconds are of
one thread of the PC that wrote this table.
"""

KERNELS_TEXT = """Backprop on rv32imf, kernels of at least 2 % of a step; every kernel on every board is in
`results.json`. A call of the runtime, such as an exponential, counts as one instruction in the bound.
"""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A Markdown table; the columns after the first `words` are numbers."""
    rule = ["---"] * words + ["---:"] * (len(heads) - words)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [heads, rule, *rows])


def _of(results: Results, *, rule: str = "backprop") -> Iterator[Row]:
    yield from (row for row in results["rows"] if row["rule"] == rule)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _ratio(value: float, other: float | None, digits: int = 2) -> str:
    return "" if not other else f"{value / other:.{digits}f}"


def _goal(value: float, goal: float | None, text: str = "") -> str:
    """The goal, and whether it is met."""
    return "" if goal is None else f"{text or _number(goal)} {'✓' if value <= goal else '✗'}"


def _instructions(results: Results) -> str:
    rows = []
    for row in _of(results):
        goal, board = GOALS[row["net"]], row["board"]
        peer = goal.peer.instructions.get(board) if goal.peer else None
        name = f"{_number(peer)} ({goal.peer.name})" if goal.peer and peer else ""
        own = row["instructions"]
        cells = (_number(own), _goal(own, goal.instructions.get(board)), _number(row["bound"]))
        shares = (_ratio(own, row["bound"]), name, _ratio(peer or 0, peer and own, 1))
        rows.append((row["net"], SHORT[board], *cells, *shares))
    heads = ("net", "core", "instructions", "reach", "bound", "of bound", "peer", "times fewer")
    return _table(heads, rows, 2)


def _memory(results: Results) -> str:
    rows = []
    for row in _of(results):
        goal, ram = GOALS[row["net"]], row["ram"]
        text, peer = row["flash"]["code"] + row["flash"]["rodata"], goal.peer if row["board"] == RV32 else None
        limit = goal.text if row["board"] in goal.instructions else None
        parts = (_number(ram["params"]), _number(ram["activations"] + ram["scratch"]), _number(ram["stack"]))
        own = (_number(ram["total"]), _goal(ram["total"], goal.ram), _number(peer.ram if peer else None))
        code = (_number(text), _goal(text, limit), _number(peer.text if peer else None))
        rows.append((row["net"], SHORT[row["board"]], *parts, *own, *code))
    heads = ("net", "core", "parameters", "activations", "stack", "RAM, B", "reach", "peer", "text, B", "reach", "peer")
    return _table(heads, rows, 2)


def _layers(results: Results) -> str:
    rows = []
    for cost in results["layers"]:
        each, goal = cost["instructions_per_mac"], LAYER_GOALS.get((cost["layer"], cost["step"]))
        if cost["board"] != RV32:
            continue
        other = next(c for c in results["layers"] if c["board"] == M4F and _same(c, cost))["instructions_per_mac"]
        beside = (_goal(each, goal.reach, f"{goal.reach:.1f}"), f"{goal.peer:.2f}") if goal else ("", "")
        least = f"{cost['bound'] / cost['macs']:.2f}"
        rows.append((cost["layer"], cost["step"], f"{each:.2f}", beside[0], least, beside[1], f"{other:.2f}"))
    return _table(("layer", "step", "rv32imf", "reach", "bound", "PULP-TrainLib", "Cortex-M4F"), rows, 2)


def _cycles(results: Results) -> str:
    rows = []
    for cost in results["cycles"]:
        parts = (f"{cost[name] / cost['macs']:.2f}" for name in ("instructions", "stalls", "taken", "cycles"))
        goal = CYCLE_GOALS.get((cost["layer"], cost["step"]))
        met = "" if goal is None else f"{goal:.2f} {'✓' if cost['macs_per_cycle'] >= goal else '✗'}"
        rows.append((cost["layer"], cost["step"], *parts, f"{cost['macs_per_cycle']:.2f}", met))
    heads = ("layer", "step", "instructions", "behind loads", "branches", "cycles", "MAC a cycle", "reach")
    return _table(heads, rows, 2)


def _same(one: Row, other: Row) -> bool:
    return (one["layer"], one["step"]) == (other["layer"], other["step"])


def _everything(results: Results) -> str:
    rows = []
    for row in results["rows"]:
        seconds = "" if "build_seconds" not in row else f"{row['build_seconds']:.1f}"
        text = row["flash"]["code"] + row["flash"]["rodata"]
        figures = (row["instructions"], row["ram"]["total"], text, row["flash"]["params"])
        rows.append((row["net"], SHORT[row["board"]], row["rule"], *map(_number, figures), seconds))
    heads = ("net", "core", "rule", "instructions", "RAM, B", "text, B", "initial parameters, B", "cold build, s")
    return _table(heads, rows, 3)


def _pytorch(results: Results) -> str:
    rows = []
    for other in results["pytorch"]:
        ours = next(row for row in _of(results) if (row["net"], row["board"]) == (other["net"], RV32))["ram"]
        total = other["params"] + other["gradients"] + other["saved"]
        theirs = (other["params"], other["gradients"], other["saved"], total, ours["total"])
        shares = (_ratio(total, ours["total"], 1), f"{other['milliseconds']:.1f}")
        rows.append((other["net"], *map(_number, theirs), *shares))
    heads = ("net", "parameters", "gradients", "saved", "PyTorch, B", "strop, B", "ratio", "PyTorch, ms")
    return _table(heads, rows)


def _kernels(results: Results) -> str:
    rows = []
    for row in _of(results):
        large = [k for k in row.get("kernels", ()) if k["instructions"] >= 0.02 * row["instructions"]]
        for k in large if row["board"] == RV32 and row["net"] not in MLPERF else ():
            each = "" if k["instructions_per_mac"] is None else f"{k['instructions_per_mac']:.2f}"
            figures = (_number(k["instructions"]), each, _number(k["bound"]), f"{k['ratio']:.2f}")
            rows.append((row["net"], f"`{k['name']}`", *figures))
    return _table(("net", "kernel", "instructions", "a MAC", "bound", "of bound"), rows, 2)


def draw(results: Results, path: Path) -> None:
    """Write a PNG: instructions a step of strop, the bound, the reach and the peer, a panel a core."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, board in zip(panels, (RV32, M4F), strict=True):
        rows = [row for row in _of(results) if row["board"] == board]
        places = np.arange(len(rows))
        goals = [GOALS[row["net"]] for row in rows]
        peers = [goal.peer.instructions.get(board, np.nan) if goal.peer else np.nan for goal in goals]
        axes.bar(places, peers, 0.7, color="0.85", label="peer, best setting")
        axes.bar(places, [row["instructions"] for row in rows], 0.4, label="strop")
        for label, values, mark in (
            ("reach", [goal.instructions.get(board, np.nan) for goal in goals], "tab:orange"),
            ("bound", [row["bound"] for row in rows], "black"),
        ):
            axes.plot(places, values, "_", color=mark, markersize=18, markeredgewidth=2, label=label)
        axes.set_title(SHORT[board], size=10)
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_xticks(places, [row["net"] for row in rows], rotation=35, ha="right", size=8)
        axes.grid(axis="y", alpha=0.3)
    panels[0].set_ylabel("instructions a training step, backprop")
    panels[0].legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=130, metadata={"Software": None})
