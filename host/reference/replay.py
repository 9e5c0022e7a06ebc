"""A replay buffer around any reference: reservoir sampling (algorithm R, Vitter 1985), and what is drawn again.

    sample n (from 0): into slot n while n < k, then into slot floor(u (n + 1)) if that is < k, else nowhere;
                       u = the generator at (seed, CRC-32 of "replay.slot", n)
    step after n samples: its draw j < m is slot floor(v min(n, k)), v = the generator at ("replay.pick", m n + j);
                       while n = 0, draw j is the new sample j mod B
    the inner reference's step on the B new samples and the m draws
    int8: p = max |x|, q = round(127 x / p), and q p / 127 comes back

u (n + 1) and v min(n, k) are products in float32; all else is in float64. The count that follows 2^24 is not here.
"""

from collections.abc import Mapping
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from strop.compiler.adaptation import Replay
from strop.compiler.rng import uniform
from strop.host.reference.base import Reference

Array = NDArray[Any]

PREFIX = "replay."
"""Of the names of the buffer's tensors: x, peak (for int8), y and seen."""


class Replayed(Reference):
    """A reference whose steps train on the new samples and on some of a buffer.

    inner: trains, and has the parameters.  seed: of the generator.
    """

    def __init__(self, inner: Reference, replay: Replay, seed: int) -> None:
        self.inner, self.replay, self.seed = inner, replay, seed
        self.buffer: dict[str, Array] = {f"{PREFIX}seen": np.zeros(1, np.int64)}

    def objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The inner one's."""
        return self.inner.objective(x, y)

    def step(self, x: ArrayLike, y: ArrayLike) -> float:
        """Train on the new samples and the drawn ones; returns the mean loss of them all."""
        new, labels = np.asarray(x, np.float64), np.asarray(y)
        self._make(new, labels)
        loss = self.inner.step(*self._drawn(new, labels))
        for sample, label in zip(new, labels, strict=True):
            self._keep(sample, label)
        return loss

    def _make(self, x: Array, y: Array) -> None:
        """An empty buffer, of the shape of the first samples."""
        shapes = {"x": x.shape[1:], "y": y.shape[1:], **({"peak": ()} if self.replay.dtype == "int8" else {})}
        for name, shape in shapes.items():
            self.buffer.setdefault(f"{PREFIX}{name}", np.zeros((self.replay.size, *shape)))

    def _share(self, stream: str, index: int, whole: int) -> int:
        """A number below `whole`, each equally likely."""
        u = uniform(self.seed, crc32(f"{PREFIX}{stream}".encode()), index)
        return int(np.float32(u) * np.float32(whole))

    def _drawn(self, x: Array, y: Array) -> tuple[Array, Array]:
        """New samples and labels, then the drawn ones."""
        seen, m = int(self.buffer["replay.seen"][0]), self.replay.batch
        if not seen:
            again = [j % len(x) for j in range(m)]
            return np.concatenate([x, x[again]]), np.concatenate([y, y[again]])
        slots = [self._share("pick", m * seen + j, min(seen, self.replay.size)) for j in range(m)]
        old = self.buffer["replay.x"][slots].astype(np.float64)
        if self.replay.dtype == "int8":
            peak = self.buffer["replay.peak"][slots].astype(np.float64)
            old *= peak.reshape(-1, *(1,) * (old.ndim - 1)) / 127
        return np.concatenate([x, old]), np.concatenate([y, self.buffer["replay.y"][slots].astype(y.dtype)])

    def _keep(self, sample: Array, label: Array) -> None:
        """Algorithm R for one sample."""
        n = int(self.buffer["replay.seen"][0])
        self.buffer["replay.seen"][0] = n + 1
        slot = n if n < self.replay.size else self._share("slot", n, n + 1)
        if slot >= self.replay.size:
            return
        if self.replay.dtype == "int8":
            peak = np.abs(sample).max()
            self.buffer["replay.peak"][slot] = peak
            sample = np.round(127 * sample / peak) if peak else np.zeros_like(sample)
        self.buffer["replay.x"][slot], self.buffer["replay.y"][slot] = sample, label

    def infer(self, x: ArrayLike) -> Array:
        """The inner one's."""
        return self.inner.infer(x)

    def state_dict(self) -> dict[str, Tensor]:
        """The inner one's."""
        return self.inner.state_dict()

    def state(self) -> dict[str, Array]:
        """The inner one's, and the buffer; before the first step, of the buffer just the count."""
        return {**self.inner.state(), **{name: data.copy() for name, data in self.buffer.items()}}

    def decided(self, name: str, ours: ArrayLike) -> Array:
        """The inner one's."""
        return self.inner.decided(name, ours)

    def load(self, tensors: Mapping[str, ArrayLike]) -> None:
        """Go on from these parameters, optimizer states and buffers."""
        ours = {name: np.array(data) for name, data in tensors.items() if name.startswith(PREFIX)}
        for name, data in ours.items():
            self.buffer[name] = data.astype(np.float64 if data.dtype.kind == "f" else np.int64)
        self.inner.load({name: data for name, data in tensors.items() if name not in ours})
