"""Memory against depth: what a training step needs beside the parameters, for networks of 2 to 32 equal layers.

    python benchmarks/accuracy/memory.py      # seconds; writes memory.json and docs/memory-by-depth.png

The figures are the planner's, one sample a step. A rule whose updates stay inside a layer needs the memory of one
layer, however many there are, and perhaps a trained head for each; backprop keeps what every layer made until the error
comes back.
"""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import plots
import tables
import torch
from torch import Tensor, nn
from writing import memory

import strop
from strop.compiler.rules import rule_class, rules
from strop.errors import RuleError
from strop.host.progress import Terminal

HERE = Path(__file__).parent
DEPTHS = (2, 4, 8, 16, 32)
NAMES = ("backprop", "blocks-2", "tpsgd-l2", "mono-forward", "fixed-m", "drtp", "dfa", "head-only")
"""Rows of the table of rules that are compared."""


def dense(layers: int) -> tuple[nn.Module, Tensor]:
    """So many fully connected layers, 64 to 64 with tanh, the last to 10."""
    hidden = [layer for _ in range(layers - 1) for layer in (nn.Linear(64, 64), nn.Tanh())]
    return nn.Sequential(*hidden, nn.Linear(64, 10)), torch.zeros(1, 64)


def conv(layers: int) -> tuple[nn.Module, Tensor]:
    """So many padded 3x3 convolutions of 8 maps on 12 x 12 pixels with tanh, and a linear layer."""
    hidden = [layer for _ in range(layers) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.Tanh())]
    return nn.Sequential(*hidden, nn.Flatten(), nn.Linear(8 * 144, 10)), torch.zeros(1, 8, 12, 12)


KINDS: dict[str, Callable[[int], tuple[nn.Module, Tensor]]] = {"fully connected": dense, "convolution": conv}


def measure(depths: Sequence[int], advance: Callable[[], None]) -> list[dict[str, Any]]:
    """Bytes by kind of layer, rule and depth; without the rules that strop has not, or that refuse."""
    found = []
    for kind, make in KINDS.items():
        for name in (name for name in NAMES if tables.ROWS[name].rule in rules()):
            row = tables.ROWS[name]
            for layers in depths:
                try:
                    held = _bytes(row, *make(layers))
                    found.append({"kind": kind, "rule": row.title, "layers": layers, **held})
                except RuleError:
                    pass
                advance()
    return found


def _bytes(row: tables.Row, model: nn.Module, example: Tensor) -> dict[str, int]:
    bundle = strop.build(model, example, rule=rule_class(row.rule)(**row.options), board="host")
    ram = bundle.report.ram
    return {"activations": ram.activations + ram.scratch, "state": ram.state}


def main() -> None:
    """Measure, print and write."""
    warnings.filterwarnings("ignore", module="torch")
    terminal = Terminal()
    with terminal.meter("memory", len(KINDS) * len(NAMES) * len(DEPTHS)) as meter:
        found = measure(DEPTHS, meter.advance)
    (HERE / "memory.json").write_text(json.dumps(found, indent=1) + "\n")
    plots.depth(found, HERE.parents[1] / "docs" / "memory-by-depth.png")
    terminal.out.print(memory(found), markup=False)


if __name__ == "__main__":
    main()
