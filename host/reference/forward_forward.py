"""Forward-Forward (Hinton, arXiv 2212.13345): layers tell samples with right labels from those with wrong ones.

    rows = x with K features overwritten: right rows by onehot(y), wrong rows by onehot(w), neutral ones by 1/K each
    w = (y + 1 + floor((K - 1) u)) mod K, u of the t-th sample by the generator at (seed, CRC-32 of
                                         "forward_forward.wrong", t)
    a_l = relu(W_l n(a_{l-1}) + b_l)     n(a) = a / (sqrt(mean a^2) + 1e-8), constant for the layer behind it
    g_l = sum, mean or 8 times the mean of a_l^2        theta = the number of units of a sum, else 2, if not set
    J_l = mean over rows of log(1 + exp(-+(g_l - theta))), - for right rows, + for wrong ones
          + peer * mean over units of (mean r - r)^2, r = 0.9 r + 0.1 mean of a_l over right rows, 0.5 at first
    head: task loss of W n(a) + b on the last a of neutral rows

Sums are in the reference's dtype; u (K - 1) is a product in float32.
"""

from collections.abc import Mapping
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from strop.compiler.rng import uniform
from strop.host.reference.blocks import LayerLocal

SEEN = "forward_forward.seen"


def unit(a: Tensor) -> Tensor:
    """Rows of mean square 1, that carry no gradient."""
    rows: Tensor = a / (a.square().mean(1, keepdim=True).sqrt() + 1e-8)
    return rows.detach()


def labelled(x: Tensor, shares: Tensor) -> Tensor:
    """The samples with what is given for each class, (B,K), in place of their first features."""
    return torch.cat([shares, x.flatten(1)[:, shares.shape[1] :]], 1)


class ForwardForward(LayerLocal):
    """Hidden layers follow J, the last one the task loss or nothing."""

    rule = "forward-forward"

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.seen = 0
        weights = {name: weight for name, weight in self.parameters.items() if weight.ndim == 2}
        self.activity = {
            f"{name}.activity": torch.full(w.shape[:1], 0.5, dtype=self.dtype) for name, w in weights.items()
        }

    def objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The head's task loss, or the sum of J over trained layers; and the sum of all."""
        layers = self._layers(x)
        classes = layers[-1][1].shape[0]
        right, wrong = (functional.one_hot(label, classes).to(self.dtype) for label in (y, self._wrong(y, classes)))
        rows = torch.cat([labelled(x, right), labelled(x, wrong)])
        parts = []
        for name, weight, bias in layers[:-1]:
            rows = functional.linear(unit(rows), weight, bias).relu()
            if weight.requires_grad or (bias is not None and bias.requires_grad):
                parts.append(self._contrast(name, rows))
        self.seen += len(y)
        total = torch.stack(parts).sum() if parts else torch.zeros((), dtype=self.dtype)
        if self.settings.prediction == "labels":
            return total, total
        loss = self.task(self._logits(x, classes), y)
        return loss, loss + total

    def _layers(self, x: Tensor) -> list[tuple[str, Tensor, Tensor | None]]:
        """Weight's name, weight and bias of the layers in the order that the model calls them."""
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        found = [(names[id(block.weight)], block.weight) for block in self.run(x)[1] if block.weight is not None]
        return [(name, weight, self.parameters.get(f"{name.removesuffix('weight')}bias")) for name, weight in found]

    def _wrong(self, y: Tensor, classes: int) -> Tensor:
        share = uniform(self.settings.seed, crc32(b"forward_forward.wrong"), self.seen + np.arange(len(y)))
        away = 1 + np.floor(share * np.float32(classes - 1)).astype(np.int64)
        return (y + torch.as_tensor(away)) % classes

    def _goodness(self, a: Tensor) -> Tensor:
        squares = a.square()
        kinds = {"sum": squares.sum(1), "mean": squares.mean(1), "sharp": 8 * squares.mean(1)}
        return kinds[self.settings.goodness]

    def _contrast(self, name: str, a: Tensor) -> Tensor:
        """J of a layer; its running activity moves on."""
        usual = a.shape[1] if self.settings.goodness == "sum" else 2
        above = self._goodness(a) - (usual if self.settings.threshold is None else self.settings.threshold)
        half = len(a) // 2
        surprise = functional.softplus(torch.cat([-above[:half], above[half:]])).mean()
        if not self.settings.peer:
            return surprise
        running = 0.9 * self.activity[f"{name}.activity"] + 0.1 * a[:half].mean(0)
        self.activity[f"{name}.activity"] = running.detach()
        return surprise + float(self.settings.peer) * (running.mean() - running).square().mean()

    def _hidden(self, x: Tensor, shares: Tensor) -> list[Tensor]:
        """Activities of the hidden layers."""
        activities, rows = [], labelled(x, shares)
        for _, weight, bias in self._layers(x)[:-1]:
            rows = functional.linear(unit(rows), weight, bias).relu()
            activities.append(rows)
        return activities

    def _logits(self, x: Tensor, classes: int) -> Tensor:
        _, weight, bias = self._layers(x)[-1]
        neutral = torch.full((len(x), classes), 1 / classes, dtype=self.dtype)
        return functional.linear(unit(self._hidden(x, neutral)[-1]), weight, bias)

    def infer(self, x: ArrayLike) -> NDArray[Any]:
        """Logits of the head, or the goodness of every label."""
        inputs = torch.as_tensor(x, dtype=self.dtype)
        with torch.no_grad():
            classes = self._layers(inputs)[-1][1].shape[0]
            if self.settings.prediction == "head":
                return np.asarray(self._logits(inputs, classes))
            columns = []
            for label in torch.eye(classes, dtype=self.dtype):
                first, *rest = self._hidden(inputs, label.expand(len(inputs), -1))
                columns.append(torch.stack([self._goodness(a) for a in rest or [first]]).sum(0))
            return np.asarray(torch.stack(columns, 1))

    def state(self) -> dict[str, NDArray[Any]]:
        """A copy of all parameters and states."""
        activity = {name: data.numpy().copy() for name, data in self.activity.items()}
        return {**super().state(), SEEN: np.array([float(self.seen)]), **activity}

    def load(self, tensors: Mapping[str, ArrayLike]) -> None:
        """Go on from these tensors; raises UsageError for a name or shape that does not belong here."""
        own = {name: np.asarray(data) for name, data in tensors.items() if name in (SEEN, *self.activity)}
        super().load({name: data for name, data in tensors.items() if name not in own})
        for name, data in own.items():
            if name == SEEN:
                self.seen = int(data.item())
            else:
                self.activity[name] = torch.as_tensor(data, dtype=self.dtype)
