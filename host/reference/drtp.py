"""DRTP (Frenkel et al. 2021): dJ/da = strength B y* at every hidden layer; the output layer learns the task loss.

    a = the block's units (n), or its channel means
    B[j, c] = sqrt(2/n) with the sign of the generator at (seed, CRC-32 of "<weight's name>.feedback", j K + c)

For a label c, B y* is column c of B, in float32 values.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from strop.host.reference.blocks import Block
from strop.host.reference.local import Local, means

Signs = NDArray[np.float32]


class Feedback(Local):
    """Hidden blocks get an error from elsewhere, as the slope of <a, B s>."""

    def local(self, block: Block, y: Tensor, output: Tensor) -> Tensor:
        """The mean over the batch of <a, B s>."""
        a = means(block)
        signs = self.signs(f"{self.name(block)}.feedback", a.shape[1], output.shape[1])
        directions = self.directed(signs, (2 / a.shape[1]) ** 0.5, y, output)
        total: Tensor = (a * directions).sum() / len(a)
        return total * float(self.settings.strength)

    def directed(self, signs: Signs, scale: float, y: Tensor, output: Tensor) -> Tensor:
        """B s, (B,n), from the signs of B."""
        raise NotImplementedError


class DRTP(Feedback):
    """s = y*."""

    rule = "drtp"

    def directed(self, signs: Signs, scale: float, y: Tensor, output: Tensor) -> Tensor:
        """Columns of B, or its product with a real label."""
        if y.is_floating_point():
            return y @ self.tensor(signs).T * scale
        return self.tensor(signs * np.float32(scale))[:, y].T
