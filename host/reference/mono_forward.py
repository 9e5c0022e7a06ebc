"""Mono-Forward (arXiv 2501.09238): a hidden layer learns the task loss of M a, and so does its head M.

    a = the block's units, or the means over a grid of its image, flattened

Gradients of both are taken at the old M.
"""

from torch import Tensor

from strop.host.reference.blocks import Block
from strop.host.reference.local import Headed, cells


class MonoForward(Headed):
    """Every block and its head follow the task loss of the head."""

    rule = "mono-forward"

    def local(self, block: Block, y: Tensor, output: Tensor) -> Tensor:
        """The task loss of M a."""
        a = cells(block, self.settings.grid)
        return self.task(a @ self.head(block, a.shape[1], output.shape[1]).T, y)
