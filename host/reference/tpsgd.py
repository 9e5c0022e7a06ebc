"""tpSGD (arXiv 2208.08503): a hidden layer learns J(a, P y*), P fixed and random; the output layer the task loss.

    a = mean over the image of the block's output (convolution), or the output itself (fully connected)
    P[j, c] = high or low, by the sign of the generator at (seed, CRC-32 of "<weight's name>.target", j K + c)
    t = column c of P for a label c;  t = scale S y, S[j, k] the same signs, for a real label y in R^K
    l2:     J = strength/2 |a - t|^2         l1:    J = strength |a - t|_1
    cosine: J = strength (1 - cos(a, t))     huber: J = strength sum h(a - t), h(d) = d^2/2 up to delta, then straight

J is the mean over the batch; in cos, 1e-8 is added to squared lengths. t of a class has float32 values; all else is in
the reference's dtype.
"""

import numpy as np
from torch import Tensor
from torch.nn import functional

from strop.host.reference.blocks import Block
from strop.host.reference.local import Local, means

REACH = {
    "sigmoid": (0.1, 0.9),
    "relu": (0.0, 1.0),
    "relu6": (0.0, 1.0),
    "hardtanh": (0.0, 1.0),
    "leaky_relu": (-0.1, 1.0),
    "rnn_relu": (0.0, 1.0),
}
"""Low and high target by the last function of a block; (-0.9, 0.9) for any other."""


class TpSGD(Local):
    """Every block but the last follows the gradient of its own J."""

    rule = "tpsgd"

    def local(self, block: Block, y: Tensor, output: Tensor) -> Tensor:
        """J of a block."""
        a = means(block)
        t = self._target(block, y, a.shape[1], output.shape[1])
        return self._share(a, t) / len(a) * float(self.settings.strength)

    def _share(self, a: Tensor, t: Tensor) -> Tensor:
        """J without its strength, summed over the batch."""
        match self.settings.objective:
            case "l1":
                return (a - t).abs().sum()
            case "huber":
                return functional.huber_loss(a, t, reduction="sum", delta=self.settings.delta)
            case "cosine":
                lengths = [(v.square().sum(1) + 1e-8).sqrt() for v in (a, t)]
                return (1 - (a * t).sum(1) / (lengths[0] * lengths[1])).sum()
        return (a - t).square().sum() / 2

    def _target(self, block: Block, y: Tensor, units: int, classes: int) -> Tensor:
        signs = self.signs(f"{self.name(block)}.target", units, classes)
        low, high = REACH.get(block.last, (-0.9, 0.9))
        if y.is_floating_point():
            return y @ self.tensor(signs).T * high
        return self.tensor(np.where(signs > 0, np.float32(high), np.float32(low)))[:, y].T
