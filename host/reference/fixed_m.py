"""Fixed M: a hidden layer learns the task loss of M a, M fixed and random; the output layer the task loss.

    a = the block's units (n), or the means over a grid of its image, flattened
    M[k, j] = 1/sqrt(n) with the sign of the generator at (seed, CRC-32 of "<weight's name>.m", j K + k)

M is the same in every step.
"""

from torch import Tensor

from strop.host.reference.blocks import Block
from strop.host.reference.local import Local, cells


class FixedM(Local):
    """Every block but the last follows the task loss of its read-out."""

    rule = "fixed-m"

    def local(self, block: Block, y: Tensor, output: Tensor) -> Tensor:
        """The task loss of M a."""
        a = cells(block, self.settings.grid)
        signs = self.tensor(self.signs(f"{self.name(block)}.m", a.shape[1], output.shape[1]))
        return self.task(a @ signs * a.shape[1] ** -0.5, y)
