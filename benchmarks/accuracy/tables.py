"""What is studied: networks with their budgets, learning rules with their settings, ways to adapt. A row is a line."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import networks
from numpy.typing import NDArray

Array = NDArray[Any]
Settings = tuple[tuple[str, Any], ...]
"""Options of a rule by name, in the order of the alphabet."""


@dataclass(frozen=True)
class Budget:
    """Samples a run sees. samples: different ones.  epochs: over them.  tuning, tuning_epochs: in a short run.

    validation, test: the most samples that a setting and a result are measured on.  peer: to compare with PyTorch on.
    """

    samples: int
    epochs: int
    tuning: int
    validation: int = 2_000
    test: int = 10_000
    peer: int = 2_000
    tuning_epochs: int = 1


@dataclass(frozen=True)
class Net:
    """A network and its data. view: makes a batch of the data set's samples the network's input.

    activations: those it is built with; one that has none of its own to choose has one.  balanced: the score is the
    mean over classes of the share found, for data in which one class is most of it.  clip: largest norm of a gradient.
    """

    title: str
    data: str
    make: networks.Make
    budget: Budget
    view: Callable[[Array], Array] = lambda x: x
    activations: tuple[str, ...] = ("tanh", "relu")
    balanced: bool = False
    clip: float | None = None


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


def _rows(x: Array) -> Array:
    return x[:, 0]


def _steps(x: Array) -> Array:
    """READINGS at a time, so that a recurrent layer has a sequence it can learn from in few epochs."""
    return x.transpose(0, 2, 1).reshape(len(x), -1, networks.READINGS * x.shape[1])


NETS = {
    "mlp-256": Net(
        "784-256-10, MNIST", "images", networks.mlp(784, 256, 10), Budget(12_000, 2, 2_000), _flat,
    ),
    "mlp-128x3": Net(
        "784-128-128-128-10, MNIST", "images", networks.mlp(784, 128, 128, 128, 10), Budget(12_000, 2, 2_000), _flat,
    ),
    "conv": Net("conv 8c5-p-16c3-p-10, MNIST", "images", networks.conv, Budget(8_000, 3, 2_000)),
    "vgg": Net(
        "six 3x3 convolutions in pairs, MNIST", "images", networks.vgg, Budget(1_500, 2, 1_000, 1_000, 2_000, 1_000),
    ),
    "rnn-1": Net(
        "28 rows of 28 pixels, one recurrent layer of 64, MNIST", "images", networks.rows(1), Budget(10_000, 3, 2_000),
        _rows, ("tanh",), clip=1.0,
    ),
    "rnn-2": Net(
        "28 rows of 28 pixels, two recurrent layers of 64, MNIST", "images", networks.rows(2), Budget(10_000, 2, 2_000),
        _rows, ("tanh",), clip=1.0,
    ),
    "activity-conv": Net(
        "two convolutions on smartwatch activity", "activity", networks.activity_conv, Budget(2_000, 12, 2_000),
        balanced=True,
    ),
    "activity-gru": Net(
        "GRU of 32 on smartwatch activity, four readings a step", "activity", networks.activity_gru,
        Budget(2_000, 12, 2_000, tuning_epochs=3), _steps, ("tanh",), balanced=True, clip=1.0,
    ),
    "digits-conv": Net(
        "two convolutions on spoken digits", "digits", networks.digits_conv, Budget(2_000, 10, 2_000),
    ),
}  # fmt: skip
"""The networks by name. Training is on one sample a step, as a board with little memory does it."""


@dataclass(frozen=True)
class Row:
    """A learning rule with its settings.

    rule: name in strop.  options: fixed settings.  lrs, strengths: a grid that a choice is made from; strength is an
    option of rules with local targets.  activations: those of a network that the rule is studied with; the first is
    the one meant for it.
    """

    title: str
    rule: str
    lrs: tuple[float, ...]
    activations: tuple[str, ...] = ("tanh",)
    options: Mapping[str, Any] = field(default_factory=dict)
    strengths: tuple[float, ...] = ()

    def variants(self) -> Iterator[tuple[float, Settings]]:
        """Every learning rate with every setting of the rule, but the mildest: short runs favour the others."""
        for strength, lr in product(_but_mildest(self.strengths) or (None,), _but_mildest(self.lrs)):
            yield lr, self._with(strength)

    def milder(self, lr: float, options: Settings) -> Iterator[tuple[float, Settings]]:
        """The next lower rate, and every lower strength: where gradients are cut, several may do the same."""
        strength = dict(options).get("strength", 0)
        if lower := [each for each in self.lrs if each < lr]:
            yield max(lower), options
        yield from ((lr, self._with(each)) for each in self.strengths if each < strength)

    def _with(self, strength: float | None) -> Settings:
        tried = {} if strength is None else {"strength": strength}
        return tuple(sorted({**self.options, **tried}.items()))

    def on(self, net: Net) -> tuple[str, ...]:
        """The activations it is studied with on a network."""
        return tuple(name for name in self.activations if name in net.activations) or net.activations[:1]


def _but_mildest(grid: tuple[float, ...]) -> tuple[float, ...]:
    return grid[1:] or grid


BASELINE, BACKPROP = "head-only", "backprop"
"""The rows every other is compared with: frozen random layers with a trained head, and the exact gradient."""

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Learning rates to choose from."""
STRENGTHS = (0.005, 0.02, 0.1, 0.5)
"""Strengths of local targets to choose from with each: the ratio of a hidden layer's rate to the last one's."""

ROWS = {
    BACKPROP: Row("backprop", "backprop", RATES, ("relu", "tanh")),
    BASELINE: Row("frozen + head", "head-only", RATES, ("relu", "tanh")),
    "mono-forward": Row("Mono-Forward", "mono-forward", RATES, ("relu", "tanh")),
    "fixed-m": Row("fixed M", "fixed-m", RATES),
    "tpsgd-l2": Row("tpSGD, l2", "tpsgd", RATES, options={"objective": "l2"}, strengths=STRENGTHS),
    "tpsgd-l1": Row("tpSGD, l1", "tpsgd", RATES, options={"objective": "l1"}, strengths=STRENGTHS),
    "drtp": Row("DRTP", "drtp", RATES),
    "dfa": Row("DFA", "dfa", RATES),
    "sdfa": Row("sDFA", "sdfa", RATES),
    "blocks-2": Row("2 blocks", "blocks", RATES, ("relu",), {"n": 2}),
    "cafo": Row("CaFo", "cafo", RATES, ("relu",)),
    "forward-forward": Row("Forward-Forward", "forward-forward", RATES, ("relu",)),
    "ff-labels": Row("Forward-Forward, by labels", "forward-forward", RATES, ("relu",), {"prediction": "labels"}),
    "pepita": Row("PEPITA", "pepita", RATES, ("tanh",)),
    "sparse": Row("sparse", "sparse", RATES, ("relu",), {"budget": 4096}),
}  # fmt: skip
"""The learning rules by name of the row."""


@dataclass(frozen=True)
class Way:
    """A way to adapt to a new person. before, by: rows that train on the old people, and on the new one."""

    title: str
    before: str
    by: str
    lrs: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1)


WAYS = (
    Way("head only", BACKPROP, BASELINE),
    Way("backprop", BACKPROP, BACKPROP),
    Way("sparse", BACKPROP, "sparse"),
    Way("Mono-Forward", "mono-forward", "mono-forward"),
    Way("fixed M", "fixed-m", "fixed-m"),
    Way("tpSGD, l2", "tpsgd-l2", "tpsgd-l2"),
)
LABELLED = (1, 5, 20)
"""Labelled windows of each class that a new person gives; at most half of what there is of a class."""
PASSES = 10
"""Times that each labelled window is trained on."""
