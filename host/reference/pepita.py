"""PEPITA (arXiv 2201.11665): hidden layers learn from what a second pass, with the error on its input, changes.

    pass 1 on x: h_l, output z          e = B dL/dz, a row a sample (softmax - onehot for cross-entropy)
    pass 2 on x + F e: h'_l, z'         F[i, k] = 0.05 sqrt(6 / n) (2 u - 1), u uniform by the generator at
                                        (seed, CRC-32 of "pepita.modulation", i K + k), n features of a sample
    hidden: dJ/dW_l = mean over samples, and over positions of an image, of (h_l - h'_l) h'_{l-1}^T
    last:   the gradient of the task loss of z'

Other parameters of hidden layers have no gradient. MEMPEPITA is the same mathematics.
"""

from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from strop.compiler.rng import uniform
from strop.host.reference.blocks import FOLLOWERS, POOLS, Block, LayerLocal


class Pepita(LayerLocal):
    """Every block but the last follows the difference of two passes."""

    rule = "pepita"
    followers = FOLLOWERS - POOLS

    def objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The task loss of the first pass, and a scalar with the gradients above."""
        with torch.no_grad():
            output, clean = self.run(x)
        output.requires_grad_()
        with torch.enable_grad():
            loss = self.task(output, y)
        (error,) = torch.autograd.grad(loss, output)
        again, moved = self.run(self._modulated(x, error * len(x)))
        parts = [_pull(*pair) for pair in zip(clean[:-1], moved[:-1], strict=True)]
        return loss, torch.stack([self.task(again, y), *parts]).sum()

    def _modulated(self, x: Tensor, error: Tensor) -> Tensor:
        features, classes = x[0].numel(), error.shape[1]
        index = np.arange(features * classes).reshape(features, classes)
        share = uniform(self.settings.seed, crc32(b"pepita.modulation"), index)
        matrix = torch.as_tensor(share, dtype=self.dtype) * 2 - 1
        moved: Tensor = x + (error @ matrix.T * 0.05 * (6 / features) ** 0.5).view_as(x)
        return moved


def _pull(clean: Block, moved: Block) -> Tensor:
    """A scalar whose gradient is that of a hidden layer's weight, and of nothing else."""
    assert moved.weight is not None and moved.layer is not None
    if not moved.weight.requires_grad:
        return torch.zeros((), dtype=moved.output.dtype)
    error = (clean.output - moved.output).detach() / len(moved.output) / moved.layer[0, 0].numel()
    (slope,) = torch.autograd.grad((moved.layer * error).sum(), moved.weight, retain_graph=True)
    return (moved.weight * slope).sum()


class MemPepita(Pepita):
    """The same: it differs in what is kept, not in what is computed."""

    rule = "mempepita"
