"""Measure every net, rule and board, and write RESULTS.md, results.json and results.png beside this file.

    python benchmarks/results.py            # a few minutes
    python benchmarks/results.py --report   # only write RESULTS.md and results.png again, from results.json

Boards are emulated, so counts are exact and repeat; a test measures some of them again and fails when one has grown by
more than 1 %.
"""

import argparse
import json
import subprocess
import warnings
from functools import partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import pytorch
import torch
from cores import STORE, section
from cycles import layer_cycles
from goals import GOALS, M4F, MLPERF, RV32, SOFT
from measure import Case, empty_cache, row
from report import draw, markdown

from strop.host.device import connect
from strop.host.layers import layer_costs, nets
from strop.host.progress import Meter, Terminal

HERE = Path(__file__).parent
RULES = ("backprop", "tpsgd", "head-only")
BOARDS = {RV32: tuple(GOALS), M4F: tuple(GOALS), SOFT: ("mlp-64-32-10", "cnn-8x8")}
"""Nets by board; those with many steps of soft float would add minutes and no insight."""


def cases() -> list[Case]:
    """Everything that is measured, the rules of a net on a board in sequence."""
    return [Case(net, rule, board) for board, names in BOARDS.items() for net in names for rule in RULES]


def measure(terminal: Terminal) -> dict[str, Any]:
    """All figures, JSON-able."""
    with terminal.meter("measuring", len(cases()) + len(MLPERF)) as meter:
        groups = [list(group) for _, group in groupby(cases(), lambda case: (case.net, case.board))]
        rows = [found for group in groups for found in _rows(group, meter)]
        torch.set_num_threads(1)
        others = [_counted(pytorch.row(net), meter) for net in MLPERF]
    with terminal.meter("single layers", 2 * len(nets())) as meter:
        layers = [
            {"board": board, **cost.to_json()}
            for board in (RV32, M4F)
            for cost in layer_costs(board, partial(connect, profile=True), meter.advance)
        ]
    cycles = [cost.to_json() for cost in layer_cycles()]
    return {"versions": _versions(), "rows": rows, "layers": layers, "cycles": cycles, "pytorch": others}


def _rows(group: list[Case], meter: Meter) -> list[dict[str, Any]]:
    """The rows of one net on one board; the first, from an empty cache, in full."""
    with empty_cache():
        return [_counted(row(case, kernels=case is group[0]), meter) for case in group]


def _counted(found: dict[str, Any], meter: Meter) -> dict[str, Any]:
    meter.advance()
    return found


def _versions() -> dict[str, str]:
    names = ("strop", "apache-tvm", "ziglang", "torch")
    done = subprocess.run(["qemu-system-riscv32", "--version"], capture_output=True, text=True, check=True)
    return {**{name: version(name) for name in names}, "qemu": done.stdout.split()[3]}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="torch")
    store = HERE / "results.json"
    if not options.report:
        text = json.dumps(measure(Terminal()), indent=1) + "\n"
        store.write_text(text)
    write()


def write() -> None:
    """Write the page and the picture from what was measured, here and by `cores.py`."""
    results = json.loads((HERE / "results.json").read_text())
    cores = section(json.loads(STORE.read_text())) if STORE.exists() else []
    (HERE / "RESULTS.md").write_text(markdown(results, cores, (HERE / "notes.md").read_text()))
    draw(results, HERE / "results.png")


if __name__ == "__main__":
    main()
