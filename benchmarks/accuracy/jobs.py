"""The jobs of the study: may a rule train a network, how well does it, what does a step cost, does PyTorch agree."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import networks
import numpy as np
import samples
import tables
import torch
from ledger import FAILED
from numpy.typing import NDArray
from torch import nn

import strop
from strop.compiler.bundle import Bundle
from strop.compiler.rules import Rule, rule_class
from strop.host.data import Order
from strop.host.device import Device, connect
from strop.host.footprint import report
from strop.host.profile import step_costs
from strop.host.reference import Reference, reference

Array = NDArray[Any]
Result = dict[str, Any]

BOARD = "qemu-rv32imf"
"""Where memory and instructions are counted."""
COUNTED = 4
"""Steps whose instructions are averaged."""
DATA = "STROP_STUDY_DATA"
"""Environment variable with the folder of the data sets, so that worker processes know it too."""


def data_folder() -> Path:
    """Where the data sets are."""
    return Path(os.environ.get(DATA, Path(__file__).parents[3] / "shared" / "data"))


@lru_cache(2)
def split(data: str, folder: Path, seed: int) -> samples.Split:
    """A data set split for a seed, kept for the next job."""
    return samples.load(data, folder, seed)


@dataclass(frozen=True)
class Setting:
    """A rule with its settings on a network."""

    net: str
    activation: str
    rule: str
    options: tables.Settings

    @property
    def row(self) -> tables.Net:
        """The network's line in the table."""
        return tables.NETS[self.net]

    def learning_rule(self, seed: int) -> Rule:
        """The rule; raises RuleError for one that does not exist."""
        return rule_class(self.rule)(**dict(self.options), seed=seed)

    def model(self, seed: int) -> nn.Module:
        """The network, untrained."""
        return networks.seeded(self.row.make, self.activation, seed)

    def build(
        self, lr: float, seed: int, *, steps: int = 0, model: nn.Module | None = None, board: str = "host"
    ) -> Bundle:
        """Compile it, for one sample a step."""
        example = torch.from_numpy(self.row.view(self.data(seed).train.x[:1]))
        rule, optimizer = self.learning_rule(seed), self.optimizer(lr, steps)
        return strop.build(model or self.model(seed), example, rule=rule, optimizer=optimizer, board=board)

    def optimizer(self, lr: float, steps: int = 0) -> strop.optim.SGD:
        """SGD without momentum; the rate falls linearly to 0 over the steps, or stays if there are none."""
        schedule = strop.optim.Linear(steps=steps) if steps else strop.optim.Constant()
        return strop.optim.SGD(lr=lr, clip_norm=self.row.clip, schedule=schedule)

    def data(self, seed: int) -> samples.Split:
        """The network's data, split for a seed."""
        return split(self.row.data, data_folder(), seed)

    def score(self, device: Device | Reference, held: samples.Samples) -> float:
        """Accuracy of a device or a reference, balanced if the network's table says so."""
        outputs = device.infer(self.row.view(held.x))
        return score(np.asarray(outputs).argmax(1), held.y, balanced=self.row.balanced)


def score(answers: Array, labels: Array, *, balanced: bool) -> float:
    """Share of right answers in [0, 1]; balanced: the mean of it over the classes that occur."""
    right = answers == labels
    if not balanced:
        return float(right.mean())
    return float(np.mean([right[labels == each].mean() for each in np.unique(labels)]))


def teach(device: Device, net: tables.Net, lesson: samples.Samples, epochs: int, seed: int) -> float:
    """Train on all samples, in a fresh order every epoch; returns the mean loss of the last epoch."""
    order, x, loss = Order(len(lesson), 1, seed), np.ascontiguousarray(net.view(lesson.x)), np.nan
    for epoch in range(epochs):
        which = order.indices(epoch * len(lesson), (epoch + 1) * len(lesson))
        loss = float(device.train(x[which], lesson.y[which]).mean())
    return loss


@dataclass(frozen=True)
class Check(Setting):
    """Does strop let the rule train the network?"""

    def run(self) -> Result:
        """Nothing, or the reason as an error."""
        self.build(0.01, 0)
        return {}


@dataclass(frozen=True)
class Training(Setting):
    """One run through the twin. parts: `validation`, `test`, what is scored."""

    lr: float
    seed: int
    samples: int
    epochs: int
    parts: tuple[str, ...]

    def run(self) -> Result:
        """The score of each part, and the last epoch's mean loss."""
        data, budget = self.data(self.seed), self.row.budget
        held = {part: getattr(data, part)[: getattr(budget, part)] for part in self.parts}
        lesson = data.train[: self.samples]
        with self.build(self.lr, self.seed, steps=len(lesson) * self.epochs).twin() as twin:
            loss = teach(twin, self.row, lesson, self.epochs, self.seed)
            return {"loss": loss, **{part: self.score(twin, those) for part, those in held.items()}}


@dataclass(frozen=True)
class Cost(Setting):
    """What a step costs on the board."""

    def run(self) -> Result:
        """RAM by kind, flash by kind (bytes), and instructions a step."""
        bundle, data = self.build(0.01, 0, board=BOARD), self.data(0).train[:COUNTED]
        with connect(bundle, timeout=120) as device:
            instructions = float(np.mean(step_costs(device, self.row.view(data.x), data.y)))
        found = report(bundle).to_json()
        return {"instructions": instructions, "ram": found["ram"], "flash": found["flash"]}


@dataclass(frozen=True)
class Peer(Setting):
    """PyTorch's run of the same rule on the same samples in the same order, in float32."""

    lr: float
    seed: int
    samples: int

    def run(self) -> Result:
        """Both scores on test samples, and the share of test samples that both answer alike."""
        torch.set_num_threads(1)
        data = self.data(self.seed)
        lesson = data.train[: self.samples]
        peer = self._reference(len(lesson))
        if peer is None:
            return {FAILED: f"{self.rule} has no reference in PyTorch"}
        held = data.test[: self.row.budget.test]
        with self.build(self.lr, self.seed, steps=len(lesson)).twin() as twin:
            peer.load(twin.tensors())  # tells it too what a byte budget chose
            teach(twin, self.row, lesson, 1, self.seed)
            x = np.ascontiguousarray(self.row.view(lesson.x))
            for i in Order(len(lesson), 1, self.seed).indices(0, len(lesson)):
                peer.step(x[i : i + 1], lesson.y[i : i + 1])
            answers = [np.asarray(one.infer(self.row.view(held.x))).argmax(1) for one in (twin, peer)]
        ours, theirs = (score(each, held.y, balanced=self.row.balanced) for each in answers)
        return {"ours": ours, "theirs": theirs, "alike": float((answers[0] == answers[1]).mean())}

    def _reference(self, steps: int) -> Reference | None:
        rule, optimizer = self.learning_rule(self.seed), self.optimizer(self.lr, steps)
        return reference(rule, self.model(self.seed), "cross_entropy", optimizer, dtype=torch.float32)


@dataclass(frozen=True)
class Adapting(Setting):
    """People who were not in the training set come one by one, each to a model fresh from training.

    lr, samples, epochs: of the training on the old people.  by, by_options, lrs: the rule that adapts and the learning
    rates to try, on the people of the validation part; one serves all numbers of windows.  labelled: windows of each
    class a person gives.
    """

    lr: float
    seed: int
    samples: int
    epochs: int
    by: str
    by_options: tables.Settings
    lrs: tuple[float, ...]
    labelled: tuple[int, ...]
    passes: int

    def run(self) -> Result:
        """The rate, and for each number of labelled windows: scores before and after, on new people and on the old."""
        model, heads = self._trained()
        tried = {lr: self._adapted(model, heads, lr, self.data(self.seed).rehearsal) for lr in self.lrs}
        best = max(self.lrs, key=lambda lr: sum(scores["after"] for scores in tried[lr].values()))
        found = self._adapted(model, heads, best, self.data(self.seed).newcomers)
        return {"lr": best, **{str(n): scores for n, scores in found.items()}}

    def _trained(self) -> tuple[nn.Module, Mapping[str, Array]]:
        """The model after training on the old people, and what the rule trained beside it."""
        model, lesson = self.model(self.seed), self.data(self.seed).train[: self.samples]
        with self.build(self.lr, self.seed, steps=len(lesson) * self.epochs).twin() as twin:
            teach(twin, self.row, lesson, self.epochs, self.seed)
            model.load_state_dict(twin.state_dict())
            own = model.state_dict()
            return model, {name: data for name, data in twin.tensors().items() if name not in own}

    def _adapted(
        self, model: nn.Module, heads: Mapping[str, Array], lr: float, people: tuple[samples.Samples, ...]
    ) -> dict[int, dict[str, float]]:
        """Mean over people of the scores, by number of labelled windows."""
        way = Setting(self.net, self.activation, self.by, self.by_options)
        kept = self.data(self.seed).kept
        assert kept is not None
        found: dict[int, list[tuple[float, ...]]] = {n: [] for n in self.labelled}
        with way.build(lr, self.seed, model=model).twin() as twin:
            known = {row["name"] for row in twin.bundle.manifest["tensors"]}
            heads = {name: data for name, data in heads.items() if name in known}
            old = self.score(twin, kept)
            for person, n in ((person, n) for person in people for n in self.labelled):
                twin.reset()
                twin.load_tensors(heads)
                lesson, rest = lessons(person, n, max(self.labelled))
                before = self.score(twin, rest)
                teach(twin, self.row, lesson, self.passes, self.seed)
                found[n].append((before, self.score(twin, rest), old, self.score(twin, kept), len(lesson)))
        names = ("before", "after", "old_before", "old_after", "windows")
        return {n: dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True)) for n, rows in found.items()}


def lessons(person: samples.Samples, n: int, most: int) -> tuple[samples.Samples, samples.Samples]:
    """The first n windows of each class, at most half of it, and those that no n up to `most` would take."""
    own = [np.flatnonzero(person.y == each) for each in np.unique(person.y)]
    taken = np.concatenate([each[: min(n, len(each) // 2)] for each in own])
    rest = np.concatenate([each[min(most, len(each) // 2) :] for each in own])
    return person[np.sort(taken)], person[np.sort(rest)]


def has_option(rule: str, option: str) -> bool:
    """Tell whether a rule has a setting."""
    return option in {each.name for each in fields(rule_class(rule))}
