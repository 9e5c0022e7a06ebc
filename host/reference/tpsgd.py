"""tpSGD (arXiv 2208.08503): a hidden layer learns J(a, P y*), P fixed and random; the output layer the task loss.

    a = mean over the image of the block's output (convolution), or the output itself (fully connected)
    P[j, c] = high or low, by the sign of the generator at (seed, CRC-32 of "<weight's name>.target", j K + c)
    t = column c of P for a label c;  t = scale S y, S[j, k] the same signs, for a real label y in R^K
    J = strength/2 |a - t|^2 (l2) or strength |a - t|_1 (l1), summed over units, mean over the batch

P has float32 values; all else is in the reference's dtype.
"""

from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from strop.compiler.rng import sign
from strop.host.reference.blocks import Block, LayerLocal

REACH = {
    "sigmoid": (0.1, 0.9),
    "relu": (0.0, 1.0),
    "relu6": (0.0, 1.0),
    "hardtanh": (0.0, 1.0),
    "leaky_relu": (-0.1, 1.0),
}
"""Low and high target by the last function of a block; (-0.9, 0.9) for any other."""


class TpSGD(LayerLocal):
    """Every block but the last follows the gradient of its own J."""

    rule = "tpsgd"

    def objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The task loss, and its sum with every J."""
        output, blocks = self.run(x)
        loss = self.task(output, y)
        local = [self._distance(block, y, output.shape[1]) for block in blocks[:-1]]
        return loss, torch.stack([loss, *local]).sum()

    def _distance(self, block: Block, y: Tensor, classes: int) -> Tensor:
        a = block.output.flatten(2).mean(2) if block.output.ndim > 2 else block.output
        error = a - self._target(block, y, a.shape[1], classes)
        share = error.abs() if self.settings.objective == "l1" else error.square() / 2
        total: Tensor = share.sum() / len(error)
        return total * float(self.settings.strength)

    def _target(self, block: Block, y: Tensor, units: int, classes: int) -> Tensor:
        name = next(name for name, parameter in self.parameters.items() if parameter is block.weight)
        signs = sign(self.settings.seed, crc32(f"{name}.target".encode()), np.arange(units * classes))
        signs = signs.reshape(units, classes)
        low, high = (np.float32(value) for value in REACH.get(block.last, (-0.9, 0.9)))
        if y.is_floating_point():
            return y @ torch.as_tensor(signs * high, dtype=self.dtype).T
        return torch.as_tensor(np.where(signs > 0, high, low), dtype=self.dtype)[:, y].T
