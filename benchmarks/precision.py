"""What 16-bit storage costs in accuracy and saves in memory: formats and roundings beside float32, by rule.

    python benchmarks/precision.py [--data FOLDER]

Every format starts from the same weights, sees the same samples in the same order and has the same learning rate. Runs
in the twin, whose bits are the boards'. Finished runs are lines of precision.jsonl and are not done again; PRECISION.md
and docs/bfloat16-stall.png are written from them. FOLDER holds MNIST as the accuracy study reads it; without it, only
scikit-learn's digits are trained.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import strop
from strop.compiler.ir import Role
from strop.compiler.precision import Precision, uniform
from strop.host.data import Signature, load_data
from strop.host.picture import Curve, learning_curves
from strop.host.progress import Terminal
from strop.host.zoo import MODELS

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "accuracy"))

import jobs  # noqa: E402
import samples  # noqa: E402
from ledger import Ledger  # noqa: E402

LEDGER, REPORT, PICTURE = HERE / "precision.jsonl", HERE / "PRECISION.md", HERE.parent / "docs" / "bfloat16-stall.png"
SEEDS = (0, 1, 2)
RULES = ("backprop", "tpsgd", "mono-forward")
STORED = (
    ("float32", "nearest"), ("float16", "nearest"), ("float16", "stochastic"), ("float16", "carried"),
    ("float16", "nearest, sums in float16"), ("bfloat16", "nearest"), ("bfloat16", "stochastic"),
    ("bfloat16", "carried"),
)  # fmt: skip
"""Formats with their roundings, float32 first."""
POINTS = 10
"""Measurements of accuracy in a run."""
MEMORY = ("mlp-784-128-10", "cnn-28x28", "ds-cnn")


@dataclass(frozen=True)
class Task:
    """A network on a data set. trained: samples of an epoch.  held: samples that accuracy is measured on."""

    title: str
    epochs: int
    lr: float
    trained: int = 0
    held: int = 0
    rules: tuple[str, ...] = RULES


TASKS = {
    "digits": Task("digits, digits-cnn", epochs=8, lr=0.02),
    "mnist": Task("MNIST, 784-128-10 with tanh", epochs=2, lr=0.01, trained=10_000, held=5_000),
    "mnist, slowly": Task(
        "MNIST as above, learning rate 1/30", epochs=2, lr=0.01 / 30, trained=10_000, held=5_000, rules=RULES[:1]
    ),
}


@dataclass(frozen=True)
class Job:
    """One training run."""

    task: str
    rule: str
    dtype: str
    rounding: str
    seed: int

    @property
    def policy(self) -> Precision:
        """Where everything rests."""
        rounding, _, sums = self.rounding.partition(", sums in ")
        settings = {"rounding": rounding, "sums": sums or "float32"}
        return uniform(self.dtype, **settings) if self.dtype != "float32" else uniform(self.dtype)

    @property
    def board(self) -> str:
        """Whose bits the twin has: this PC's own, or those of a core that computes in float16."""
        return "host" if self.policy.sums == "float32" else "qemu-rv32v"

    def run(self) -> dict[str, Any]:
        """Accuracy in percent after each part of the run, and the mean loss of each."""
        task = TASKS[self.task]
        torch.manual_seed(self.seed)
        model, example = network(self.task)
        bundle = strop.build(
            model, example, rule=self.rule, dtype=self.policy, optimizer=strop.optim.SGD(lr=task.lr), seed=self.seed,
            board=self.board,
        )  # fmt: skip
        (x, y), held = data(self.task, self.seed)
        order = np.concatenate([np.random.default_rng((self.seed, e)).permutation(len(x)) for e in range(task.epochs)])
        losses, scores, done = [], [], 0
        with bundle.twin() as twin:
            for part in np.array_split(order, POINTS):
                losses.append(float(twin.train(x[part], y[part]).mean()))
                done += len(part)
                scores.append((done, 100 * twin.evaluate(*held)))
        return {"losses": losses, "scores": scores}


def network(task: str) -> tuple[nn.Module, torch.Tensor]:
    """A fresh network and a sample."""
    if task == "digits":
        return MODELS["digits-cnn"]()
    return nn.Sequential(nn.Linear(784, 128), nn.Tanh(), nn.Linear(128, 10)), torch.zeros(1, 784)


@cache
def data(task: str, seed: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Samples to train on and to measure on."""
    if task == "digits":
        found = load_data("digits", Signature((1, 8, 8), (), 10, 1), seed=seed, split=0.2)
        return (found.x, found.y), (found.x_test, found.y_test)
    split = samples.load("images", jobs.data_folder(), seed)
    train, test = split.train[: TASKS[task].trained], split.test[: TASKS[task].held]
    return (train.x.reshape(-1, 784), train.y), (test.x.reshape(-1, 784), test.y)


def wanted() -> Iterator[Job]:
    """All runs, seed by seed."""
    for seed, (name, task), (dtype, rounding) in product(SEEDS, TASKS.items(), STORED):
        yield from (Job(name, rule, dtype, rounding, seed) for rule in task.rules)


def measure(ledger: Ledger) -> None:
    """Do what is not yet done; a data set that is not there is left out."""
    todo = [job for job in wanted() if ledger.get(job) is None]
    with Terminal().meter("precision", len(todo)) as meter:
        for job in todo:
            try:
                ledger.add(job, job.run())
            except samples.Missing as error:
                print(f"left out: {job.task}: {error} is not there", file=sys.stderr)
            meter.advance()


def accuracy(ledger: Ledger, task: str) -> Iterator[str]:
    """A table of a task: formats down, rules across, mean accuracy and its difference to float32 seed by seed."""
    yield f"\n## {TASKS[task].title}\n"
    rules = TASKS[task].rules
    yield f"| format | rounding | {' | '.join(rules)} |"
    yield "| --- | --- |" + " --: |" * len(rules)
    for dtype, rounding in STORED:
        cells = [cell(ledger, task, rule, dtype, rounding) for rule in rules]
        yield f"| {dtype} | {rounding if dtype != 'float32' else ''} | {' | '.join(cells)} |"


def cell(ledger: Ledger, task: str, rule: str, dtype: str, rounding: str) -> str:
    """Mean accuracy, and in 16 bits by how much it differs from float32's."""
    own = [last(ledger, Job(task, rule, dtype, rounding, seed)) for seed in SEEDS]
    float32 = [last(ledger, Job(task, rule, *STORED[0], seed)) for seed in SEEDS]
    if None in own or None in float32:
        return ""
    mean = float(np.mean(own))
    return f"{mean:.1f} %" if dtype == "float32" else f"{mean:.1f} % ({mean - float(np.mean(float32)):+.1f})"


def last(ledger: Ledger, job: Job) -> float | None:
    """Accuracy at the end."""
    found = ledger.get(job)
    return None if found is None else float(found["scores"][-1][1])


def memory() -> Iterator[str]:
    """Bytes of parameters and of activations, by network and format; the sample that the caller holds is not in it."""
    yield "\n## Memory of a step\n"
    yield "| network | float32 | float16 | share | float16, carried | share |"
    yield "| --- | --: | --: | --: | --: | --: |"
    for name in MEMORY:
        sizes = [size(name, policy) for policy in (uniform("float32"), uniform("float16"),
                                                   uniform("float16", rounding="carried"))]  # fmt: skip
        shares = [f"{each:,} B | {each / sizes[0]:.1%}" for each in sizes[1:]]
        yield f"| {name} | {sizes[0]:,} B | {' | '.join(shares)} |"


def size(name: str, policy: Precision) -> int:
    """Bytes of parameters, state and activations."""
    bundle = strop.build(*MODELS[name](), dtype=policy, name=name)
    held = sum(value.type.bytes for value in bundle.program.of(Role.PARAM, Role.STATE))
    return held + bundle.plan.sizes["arena"]


def draw(ledger: Ledger, path: Path) -> None:
    """Learning curves of bfloat16 beside float32's."""
    shown = [row for row in STORED if row[0] in ("float32", "bfloat16")]
    found = {row: ledger.get(Job("mnist, slowly", "backprop", *row, SEEDS[0])) for row in shown}
    curves = {}
    for (dtype, rounding), result in found.items():
        if result is None:
            return
        name = dtype if dtype == "float32" else f"{dtype}, {rounding}"
        steps, _ = np.transpose(result["scores"])
        losses = np.interp(np.arange(steps[0], steps[-1]), steps, result["losses"])
        losses = np.concatenate([np.full(int(steps[0]), np.nan), losses])  # each is the mean up to its place
        curves[name] = Curve(list(losses), [(step, score) for step, score in result["scores"]])
    learning_curves(path, curves, "accuracy in %")


HEAD = """# 16-bit storage

Written by `python benchmarks/precision.py`. Everything that a policy may store rests in the format: parameters,
activations, errors. Batch 1, SGD, the same learning rate, initial weights and samples for all formats; mean of three
seeds, and in parentheses the difference to float32. Sums in float16 are those of `qemu-rv32v`. docs/precision.md says
what to make of it.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    options = parser.parse_args(arguments)
    if options.data:
        os.environ[jobs.DATA] = str(options.data)
    ledger = Ledger(LEDGER)
    measure(ledger)
    lines = [HEAD.rstrip("\n"), *(line for task in TASKS for line in accuracy(ledger, task)), *memory()]
    REPORT.write_text("\n".join(lines) + "\n")
    draw(ledger, PICTURE)


if __name__ == "__main__":
    main()
