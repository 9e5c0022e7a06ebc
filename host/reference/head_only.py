"""Head-only training: the task loss reaches the last layer and nothing before it."""

from torch import Tensor

from strop.host.reference.blocks import LayerLocal


class HeadOnly(LayerLocal):
    """The last block follows the gradient of the task loss."""

    rule = "head-only"

    def objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The task loss, twice; the cut in front of the last block keeps it there."""
        loss = self.task(self.run(x)[0], y)
        return loss, loss
