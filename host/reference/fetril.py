"""FeTrIL (arXiv 2211.13131): the last layer learns features f and pseudo-features f' of old classes.

    s[n] += 1;  mu[n] += (f - mu[n]) / s[n]            for each sample, of class n, in order
    f' = f - mu[n] + mu[c]
    one: c = the class with the largest u among those with s > 0 other than n; n if there is none;
         u = the generator at (seed, CRC-32 of "fetril.old", (t B + b) K + c) for sample b of step t = 1, 2, ...
    all: c = every class but n, once; n in place of one with s = 0
    loss = mean of the task loss over all (f, n) and (f', c)

A priority u has float32 values; all else is in the reference's dtype.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from strop.compiler.rng import uniform
from strop.host.reference.base import Reference

STATES = ("fetril.mean", "fetril.seen", "fetril.step")


class FeTrIL(Reference):
    """The last linear layer follows the task loss on features and pseudo-features; nothing before it learns."""

    rule = "fetril"

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.means: dict[str, Tensor] = {}

    def objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The task loss on all rows, twice."""
        with torch.no_grad(), _LastLinear() as first:
            self.model(x)
        labels: list[int] = []

        def rows(f: Tensor, classes: int) -> Tensor:
            made, numbers = self._rows(f.detach(), y.tolist(), classes)
            labels.extend(numbers)
            return made

        with _LastLinear(first.calls, rows):
            output = self.model(x)
        loss = self.task(output, torch.tensor(labels))
        return loss, loss

    def _rows(self, f: Tensor, y: list[int], classes: int) -> tuple[Tensor, list[int]]:
        """Features, then pseudo-features; and the classes of all. The means move first."""
        self._make(classes, f.shape[1])
        mean, seen = self.means["fetril.mean"], self.means["fetril.seen"]
        for feature, n in zip(f, y, strict=True):
            seen[n] += 1
            mean[n] += (feature - mean[n]) / seen[n]
        pairs = self._pairs(y, classes)
        made = [f[b] - mean[y[b]] + mean[c] for b, c in pairs]
        return torch.stack([*f, *made]), [*y, *(c for _, c in pairs)]

    def _make(self, classes: int, width: int) -> None:
        sizes = {"fetril.mean": (classes, width), "fetril.seen": (classes,), "fetril.step": (1,)}
        for name, size in sizes.items():
            self.means.setdefault(name, torch.zeros(size, dtype=self.dtype))

    def _pairs(self, y: list[int], classes: int) -> list[tuple[int, int]]:
        """(sample, class) of every pseudo-feature."""
        seen = self.means["fetril.seen"]
        if self.settings.old == "all":
            others = [[c for c in range(classes) if c != n] for n in y]
            return [(b, row[i] if seen[row[i]] else y[b]) for i in range(classes - 1) for b, row in enumerate(others)]
        self.means["fetril.step"] += 1
        first = int(self.means["fetril.step"]) * len(y)
        return [(b, self._one(n, (first + b) * classes, classes)) for b, n in enumerate(y)]

    def _one(self, n: int, index: int, classes: int) -> int:
        """The old class that a sample of class n stands for."""
        u = uniform(self.settings.seed, crc32(b"fetril.old"), index + np.arange(classes))
        old = [c for c in range(classes) if c != n and self.means["fetril.seen"][c]]
        return max(old, key=lambda c: (u[c], -c), default=n)

    def state(self) -> dict[str, NDArray[Any]]:
        """Parameters and optimizer states, and the means as far as they are known."""
        return {**super().state(), **{name: data.numpy().copy() for name, data in self.means.items()}}

    def load(self, tensors: Mapping[str, ArrayLike]) -> None:
        """Go on from these, the means included."""
        for name in set(STATES) & set(tensors):
            self.means[name] = torch.tensor(np.asarray(tensors[name]), dtype=self.dtype)
        super().load({name: data for name, data in tensors.items() if name not in STATES})


class _LastLinear(TorchFunctionMode):
    """Counts linear layers in a forward pass; gives the `number`-th, if asked to, other rows to work on.

    rows: (features, classes) -> rows.
    """

    def __init__(self, number: int = 0, rows: Callable[[Tensor, int], Tensor] | None = None) -> None:
        super().__init__()
        self.number, self.rows, self.calls = number, rows, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one call of the forward pass."""
        del types
        if func.__name__ == "linear":
            self.calls += 1
            if self.rows and self.calls == self.number:
                f, weight, *rest = args
                args = (self.rows(f, weight.shape[0]), weight, *rest)
        return func(*args, **(kwargs or {}))
