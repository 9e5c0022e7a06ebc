"""Backpropagation, by autograd."""

from contextlib import nullcontext

from torch import Tensor

from strop.host.reference.base import Reference
from strop.host.reference.recurrent import Truncated


class Backprop(Reference):
    """Every parameter follows the gradient of the task loss."""

    rule = "backprop"

    def objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The task loss, twice."""
        with Truncated(self.settings.truncate) if self.settings.truncate else nullcontext():
            loss = self.task(self.model(x), y)
        return loss, loss
