"""CaFo (arXiv 2303.09728) with random blocks: linear heads learn, on layers that keep their weights.

    a_l = the block's units, or the means over a grid of its image, flattened
    head l minimises the task loss of W_l a_l, W_l = 0 at first; prediction = sum over heads of softmax(W_l a_l)

The last layer is the last head.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from strop.host.reference.blocks import Block
from strop.host.reference.local import Headed, cells


class CaFo(Headed):
    """Only heads learn."""

    rule = "cafo"

    def learns(self, block: Block) -> bool:
        """Every block has a head."""
        return True

    def initial(self, name: str, classes: int, features: int) -> NDArray[np.float32]:
        """Zeros."""
        return np.zeros((classes, features), np.float32)

    def local(self, block: Block, y: Tensor, output: Tensor) -> Tensor:
        """The task loss of a head."""
        return self.task(self._answer(block, output.shape[1]), y)

    def _answer(self, block: Block, classes: int) -> Tensor:
        a = cells(block, self.settings.grid).detach()
        return a @ self.head(block, a.shape[1], classes).T

    def infer(self, x: ArrayLike) -> NDArray[Any]:
        """Summed probabilities of a batch."""
        with torch.no_grad():
            output, blocks = self.run(torch.as_tensor(x, dtype=self.dtype))
            answers = [output, *(self._answer(block, output.shape[1]) for block in blocks[:-1])]
            return np.asarray(torch.stack(answers).softmax(2).sum(0))
