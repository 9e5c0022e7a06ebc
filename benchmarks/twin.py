"""The twin beside PyTorch: time of one training step at batch 1, measured in turns in one run.

    python benchmarks/twin.py [--json] [NET ...]

Backpropagation with SGD, float32, one thread. PyTorch runs eagerly, as a researcher's loop does.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import strop
from strop.host.zoo import MODELS

NETS = ("mlp-64-32-10", "mlp-784-128-10", "cnn-8x8", "cnn-28x28", "cnn-3x18x18", "digits-cnn")
ROUNDS, LR = 5, 0.01


def measure(name: str) -> dict[str, float | str]:
    """Median microseconds a step of both, over rounds in turn."""
    model, example = MODELS[name]()
    rng = np.random.default_rng(0)
    x = rng.random((400, *example.shape[1:])).astype(np.float32)
    y = rng.integers(0, 10, 400)
    bundle = strop.build(model, example, optimizer=strop.optim.SGD(lr=LR), board="host", name=name)
    with bundle.twin() as twin:
        pairs = [
            (_time(lambda: twin.train(x, y), 400), _time(_torch_loop(model, x[:40], y[:40]), 40)) for _ in range(ROUNDS)
        ]
    ours, theirs = (float(np.median(column)) for column in zip(*pairs, strict=True))
    return {"net": name, "twin_us": ours, "torch_us": theirs, "ratio": theirs / ours}


def _time(run: Callable[[], object], steps: int) -> float:
    """Microseconds a step."""
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) / steps * 1e6


def _torch_loop(model: nn.Module, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    samples: list[tuple[Tensor, Tensor]] = [
        (torch.from_numpy(a[None]), torch.tensor([int(b)])) for a, b in zip(x, y, strict=True)
    ]

    def train() -> None:
        for a, b in samples:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(a), b).backward()
            optimizer.step()

    return train


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=NETS, help="names of built-in models")
    parser.add_argument("--json", action="store_true", help="one JSON document, nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(name) for name in options.nets]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(
        "net", "twin, µs a step", "PyTorch, µs a step", "ratio", title="one training step at batch 1, one thread"
    )
    for row in rows:
        table.add_row(str(row["net"]), f"{row['twin_us']:.1f}", f"{row['torch_us']:.1f}", f"{row['ratio']:.0f}x")
    Console().print(table)


if __name__ == "__main__":
    main()
