"""A sensor learns new classes after it ships, from a few samples, and should not forget the old ones.

    python examples/new_classes.py                      # on this computer's twin
    python examples/new_classes.py --board qemu-rv32imf # the same bits, on an emulated microcontroller
    python examples/new_classes.py --seeds 3            # other splits and weights, and the mean of all

PyTorch trains a network on the digits 0 to 7. Every method then sees those samples once more, as in a factory,
and learns 8 and 9 from 20 samples each. Each gets the learning rate and the number of passes that are best for it
on validation samples, which a device in the field does not have: so the last column shows what becomes of it if it goes
on four times as long. All figures are of test samples, which nothing was chosen by. Draws new-classes.png.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import strop
from strop.host.zoo import digits_cnn

OLD, SHOTS = 8, 20
"""Number of classes at the factory, and samples of each later one."""

METHODS = {
    "backprop": {},
    "last layer only": {"rule": "head-only"},
    "replay 32": {"replay": 32},
    "replay 32, int8": {"replay": strop.Replay(32, dtype="int8")},
    "FeTrIL": {"rule": "fetril"},
}
"""What `strop.build` is given."""

RATES, PASSES = (0.002, 0.01, 0.05), (2, 5, 20)
"""Learning rates and passes over the new samples, of which each method has its best."""

LONGER = 4
"""How many times as many passes the last column has."""


@dataclass(frozen=True)
class Digits:
    """Samples (n,1,8,8) and labels (n): to learn from, to choose settings by, and to report."""

    learn: tuple[np.ndarray, np.ndarray]
    validate: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def digits(seed: int) -> Digits:
    """scikit-learn's handwritten digits in three parts."""
    found = load_digits()
    x, y = (found.images / 16).astype(np.float32)[:, None], found.target.astype(np.int32)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.3, stratify=y, random_state=seed)
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.2, stratify=y, random_state=seed)
    return Digits((x, y), (x_val, y_val), (x_test, y_test))


def factory(data: Digits, seed: int) -> nn.Module:
    """A network that PyTorch has trained on the old classes."""
    torch.manual_seed(seed)
    model = digits_cnn()
    x, y = (torch.from_numpy(part[data.learn[1] < OLD]) for part in data.learn)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(30):
        for chosen in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[chosen]), y[chosen].long()).backward()
            optimizer.step()
    return model


def learning(device: strop.Device, data: Digits, seed: int) -> Iterator[int]:
    """Train on the old samples once, then on the new ones; gives the number of passes over these after each."""
    (x, y), random = data.learn, np.random.default_rng(seed)
    old = random.permutation(np.flatnonzero(y < OLD))
    new = np.concatenate([np.flatnonzero(y == c)[:SHOTS] for c in range(OLD, 10)])
    device.train(x[old], y[old])
    for done in range(1, LONGER * max(PASSES) + 1):
        order = random.permutation(new)
        device.train(x[order], y[order])
        yield done


def accuracies(device: strop.Device, x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Share of old, of new and of all samples recognised."""
    return device.evaluate(x[y < OLD], y[y < OLD]), device.evaluate(x[y >= OLD], y[y >= OLD]), device.evaluate(x, y)


def build(model: nn.Module, lr: float, board: str, seed: int, given: dict) -> strop.Bundle:
    """One method for a board."""
    optimizer = strop.optim.SGD(lr=lr)
    example = torch.zeros(1, 1, 8, 8)
    return strop.build(model, example, optimizer=optimizer, board=board, seed=seed, name="digits", **given)


def best(model: nn.Module, data: Digits, seed: int, given: dict) -> tuple[float, int]:
    """The learning rate and passes that recognise most validation samples, by the twin."""
    scores = {}
    for lr in RATES:
        with build(model, lr, "host", seed, given).twin() as twin:
            for done in learning(twin, data, seed):
                if done in PASSES:
                    scores[lr, done] = accuracies(twin, *data.validate)[2]
                if done == max(PASSES):
                    break
    return max(scores, key=scores.__getitem__)


def trial(model: nn.Module, data: Digits, board: str, seed: int, given: dict) -> tuple[float, ...]:
    """Accuracies on test samples, the last when trained longer; RAM in bytes, learning rate and passes."""
    lr, passes = best(model, data, seed, given)
    bundle, stops = build(model, lr, board, seed, given), {}
    with bundle.twin() if board == "host" else strop.connect(bundle) as device:
        for done in learning(device, data, seed):
            if done in (passes, LONGER * passes):
                stops[done] = accuracies(device, *data.test)
            if done == LONGER * passes:
                break
    return *stops[passes], stops[LONGER * passes][2], bundle.report.ram.total, lr, passes


def draw(rows: dict[str, np.ndarray]) -> None:
    """The accuracies of every method, side by side."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    places = np.arange(len(rows))
    labels = ("digits 0-7", "8 and 9, of 20 samples each", "all", f"all, trained {LONGER} times as long")
    for column, label in enumerate(labels):
        bars = axes.bar(places + 0.2 * column - 0.3, [100 * row[column] for row in rows.values()], 0.2, label=label)
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(places, list(rows))
    axes.set_ylabel("test samples recognised (%)")
    axes.set_ylim(0, 125)
    axes.legend(loc="upper center", ncols=4, frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig("new-classes.png", dpi=120)


def main() -> None:
    """Print the table, a row a method, and draw the picture."""
    parser = argparse.ArgumentParser(description="Learn new classes without forgetting the old ones.")
    parser.add_argument("--board", default="host")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    data = [digits(seed) for seed in range(options.seeds)]
    models = [factory(each, seed) for seed, each in enumerate(data)]
    print(f"{'':<16}  {'0-7':>6}  {'8, 9':>6}  {'all':>6}  {f'{LONGER}x long':>7}  {'RAM':>8}  lr, passes")
    rows = {}
    for name, given in METHODS.items():
        runs = [trial(m, d, options.board, seed, given) for seed, (m, d) in enumerate(zip(models, data, strict=True))]
        rows[name] = np.mean([run[:5] for run in runs], axis=0)
        old, new, both, longer, ram = rows[name]
        chosen = "; ".join(f"{lr}, {passes}" for *_, lr, passes in runs)
        shares = "  ".join(f"{share:>6.1%}" for share in (old, new, both))
        print(f"{name:<16}  {shares}  {longer:>7.1%}  {ram:>6,.0f} B  {chosen}", flush=True)
    draw(rows)


if __name__ == "__main__":
    main()
