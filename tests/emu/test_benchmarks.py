"""A committed figure that has grown: instructions, RAM and flash are counted again, exactly, for the small nets."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from measure import Case, costs  # noqa: E402 - a folder of scripts, not a package

ROWS = json.loads((BENCHMARKS / "results.json").read_text())["rows"]
NETS = ("mlp-64-32-10", "mlp-784-128-10", "cnn-8x8", "cnn-28x28", "cnn-3x18x18")
BOARDS = ("qemu-rv32imf", "qemu-cortex-m4f")
GROWTH = 1.01


def figures(row: dict[str, Any]) -> dict[str, float]:
    return {
        "instructions": row["instructions"],
        "RAM": row["ram"]["total"],
        "text": row["flash"]["code"] + row["flash"]["rodata"],
    }


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("net", NETS)
def test_no_committed_figure_has_grown(net: str, board: str) -> None:
    (committed,) = [r for r in ROWS if (r["net"], r["rule"], r["board"]) == (net, "backprop", board)]
    before, now = figures(committed), figures(costs(Case(net, "backprop", board)))
    grown = {name: (before[name], now[name]) for name in now if now[name] > GROWTH * before[name]}
    assert not grown, "run benchmarks/results.py and say in the commit why the figures have grown"
