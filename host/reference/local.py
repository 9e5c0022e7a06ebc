"""What references of local rules share: an objective a block, features of a block, and trained heads."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from strop.compiler.rng import sign, uniform
from strop.host.reference.blocks import Block, LayerLocal
from strop.host.reference.optimizers import torch_optimizer

HEAD = ".head"
"""Behind the name of a layer's weight, the name of its head."""


class Local(LayerLocal):
    """The last block follows the task loss, every other one an objective of its own."""

    def objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The task loss, and its sum with every local objective."""
        output, blocks = self.run(x)
        loss = self.task(output, y)
        parts = [self.local(block, y, output) for block in blocks[:-1] if self.learns(block)]
        return loss, torch.stack([loss, *parts]).sum()

    def learns(self, block: Block) -> bool:
        """Whether a block has an objective: if anything in it is trained."""
        return block.output.requires_grad

    @abstractmethod
    def local(self, block: Block, y: Tensor, output: Tensor) -> Tensor:
        """The objective of a hidden block. output: the network's."""

    def name(self, block: Block) -> str:
        """The weight that names a block's random tensors."""
        return next(name for name, parameter in self.parameters.items() if parameter is block.weight)

    def signs(self, stream: str, rows: int, columns: int) -> NDArray[np.float32]:
        """(rows, columns) of +-1 by the generator at (seed, CRC-32 of the stream's name, row x columns + column)."""
        index = np.arange(rows * columns).reshape(rows, columns)
        return sign(self.settings.seed, crc32(stream.encode()), index)

    def tensor(self, data: NDArray[Any]) -> Tensor:
        """In the reference's dtype."""
        return torch.as_tensor(data, dtype=self.dtype)


def means(block: Block) -> Tensor:
    """(B,n): units, or channel means."""
    return block.output.flatten(2).mean(2) if block.output.ndim > 2 else block.output


def cells(block: Block, grid: int) -> Tensor:
    """(B,n): units, or means over a grid of at most grid cells along each axis of the image."""
    a = block.output
    if a.ndim == 2:
        return a
    shape = [min(grid, size) for size in a.shape[2:]]
    pool = functional.adaptive_avg_pool2d if a.ndim == 4 else functional.adaptive_avg_pool1d
    pooled: Tensor = pool(a, shape)  # type: ignore[arg-type]
    return pooled.flatten(1)


class Headed(Local):
    """Blocks may have a linear head, made when it is first needed or loaded."""

    def head(self, block: Block, features: int, classes: int) -> nn.Parameter:
        """M (classes, features), uniform in +-1/sqrt(features) at first: float32 by the generator, row by row."""
        name = f"{self.name(block)}{HEAD}"
        if name not in self.parameters:
            self._adopt(name, self.initial(name, classes, features))
        return self.parameters[name]

    def initial(self, name: str, classes: int, features: int) -> NDArray[np.float32]:
        """First values of a head."""
        index = np.arange(classes * features).reshape(classes, features)
        share = uniform(self.settings.seed, crc32(name.encode()), index)
        first: NDArray[np.float32] = (2 * share - 1) * np.float32(features**-0.5)
        return first

    def _adopt(self, name: str, data: NDArray[Any]) -> None:
        """Make a parameter that the optimizer, which goes on from where it is, trains with the others."""
        self.parameters[name] = nn.Parameter(self.tensor(data).clone())
        old = self.optimizer
        new = torch_optimizer(old.settings, {**old.parameters, name: self.parameters[name]})
        assert new is not None
        for state, value in old.state().items():
            new.load(state, value)
        self.optimizer = new

    def load(self, tensors: Mapping[str, ArrayLike]) -> None:
        """Go on from these tensors; heads among them that are not known yet become so."""
        for name, data in tensors.items():
            if name.endswith(HEAD) and name.removesuffix(HEAD) in self.parameters and name not in self.parameters:
                self._adopt(name, np.asarray(data))
        super().load(tensors)
