"""Traces: leaky recurrent layers learn at each of T steps from traces of their inputs, other layers as in Mono-Forward.

    h = leak h_ + (1 - leak) c,  c = tanh(W x + U h_ + b)        s = strength / T times the task loss's gradient at M h
    dz = (1 - leak) (M^T s) (1 - c^2)                            e_x = leak e_x + x;  e_h and e_b of h_ and 1 likewise
    gradients: dz e_x^T, dz e_h^T, the sum of dz e_b, s h^T      all move, from the old M, before the next step

h_ is the state before the step. What a sample's label is, it is at every step.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from strop.host.reference.blocks import Block
from strop.host.reference.mono_forward import MonoForward


class Traces(MonoForward):
    """Leaky layers learn while the forward pass runs."""

    rule = "traces"
    label: Tensor
    classes = 0

    def objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The task loss after the last step, and the objective of everything else."""
        self.label, self.classes = y, self.classes or self.infer(x).shape[1]
        return super().objective(x, y)

    def states(self, name: str, x: Tensor, weights: Sequence[Tensor], leak: float) -> tuple[Tensor, Tensor]:
        """Run a recurrent layer; a leaky one learns."""
        if name != "leaky_rnn" or not any(weight.requires_grad for weight in weights):
            return super().states(name, x, weights, leak)
        w, u, *b = weights
        head = self.head(Block(x, name, w), len(w), self.classes)
        h = torch.zeros(len(x), len(w), dtype=self.dtype)
        traces = [torch.zeros_like(x[:, 0]), torch.zeros_like(h), torch.zeros(len(x), 1, dtype=self.dtype)]
        made, one = [], torch.ones_like(traces[2])
        for x_t in x.detach().unbind(1):
            traces = [leak * e + now for e, now in zip(traces, (x_t, h, one), strict=True)]
            with torch.no_grad():
                c = torch.tanh(nn.functional.linear(x_t, w, *b) + h @ u.T)
                h = leak * h + (1 - leak) * c
            s = self._signal(h, head) * self.settings.strength / x.shape[1]
            dz = (1 - leak) * (s @ head.detach()) * (1 - c * c)
            self._move([*weights, head], [*(dz.T @ e for e in traces[: len(weights)]), s.T @ h])
            made.append(h)
        return torch.stack(made, 1), torch.zeros_like(h)

    def _signal(self, h: Tensor, head: Tensor) -> Tensor:
        """The gradient of the task loss at what the head answers."""
        answer = (h @ head.detach().T).requires_grad_()
        (s,) = torch.autograd.grad(self.task(answer, self.label), answer)
        return s

    def _move(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """One update of these parameters; they have no gradient before or after it."""
        learning = [(p, g) for p, g in zip(parameters, gradients, strict=True) if p.requires_grad]
        for parameter, gradient in learning:
            parameter.grad = gradient.reshape(parameter.shape)
        self.optimizer.move()
        for parameter, _ in learning:
            parameter.grad = None
