"""DFA and sDFA (Nokland 2016): dJ/da = strength B e, or B sign(e), with B as in DRTP.

    e = gradient of each sample's task loss at the output: softmax - y* for cross-entropy

Hidden layers hold it constant.
"""

import torch
from torch import Tensor

from strop.host.reference.drtp import Feedback, Signs


class DFA(Feedback):
    """s = e."""

    rule = "dfa"

    def directed(self, signs: Signs, scale: float, y: Tensor, output: Tensor) -> Tensor:
        """B s."""
        end = output.detach().requires_grad_()
        (error,) = torch.autograd.grad(self.task(end, y), end)
        return self.sent(error * len(output), y) @ self.tensor(signs).T * scale

    def sent(self, error: Tensor, y: Tensor) -> Tensor:
        """What of the error of each sample, (B,K), reaches hidden layers."""
        del y
        return error


class SDFA(DFA):
    """s = sign(e), where a class that is certain in float32 has no error: softmax is 1 there before 1 is taken off."""

    rule = "sdfa"

    def sent(self, error: Tensor, y: Tensor) -> Tensor:
        """Its signs."""
        if y.is_floating_point():
            return error.sign()
        wanted = torch.nn.functional.one_hot(y.long(), error.shape[1])
        return ((error + wanted).float() - wanted).sign().to(error.dtype)
