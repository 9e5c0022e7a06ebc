"""Layers that strop trains and torch does not have, as modules for networks of `torch.nn`."""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from strop.errors import UsageError

_LIBRARY = torch.library.Library("strop", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "leaky_rnn(Tensor input, float leak, Tensor[] params, bool has_biases, int num_layers) -> (Tensor, Tensor)"
)


def _leaky_rnn(
    x: Tensor, leak: float, params: Sequence[Tensor], has_biases: bool, num_layers: int
) -> tuple[Tensor, Tensor]:
    """All layers of a stack, step by step; one op in an exported graph."""
    each, last = 3 if has_biases else 2, []
    for layer in range(num_layers):
        w_ih, w_hh, *bias = params[layer * each : (layer + 1) * each]
        h, states = x.new_zeros(x.shape[0], w_hh.shape[0]), []
        for x_t in functional.linear(x, w_ih, *bias).unbind(1):
            h = leak * h + (1 - leak) * torch.tanh(x_t + h @ w_hh.T)
            states.append(h)
        x = torch.stack(states, 1)
        last.append(h)
    return x, torch.stack(last)


_LIBRARY.impl("leaky_rnn", _leaky_rnn, "CompositeImplicitAutograd")  # type: ignore[no-untyped-call]


class LeakyRNN(nn.Module):
    """Leaky recurrent layers: h' = leak h + (1 - leak) tanh(W_ih x + W_hh h + b), from h = 0 (Jaeger et al. 2007).

    input_size, hidden_size: features of a step, and units.  leak: in (0, 1), the share of its state that a unit keeps;
    about 1 - 1 / (steps that matter).  num_layers: layers, each on the states of the one before.  bias: whether there
    is b, one for both products.  Parameters are called as in torch.nn.RNN (`weight_ih_l0`, `weight_hh_l0`), and
    `bias_l0`; all start uniform in +-1/sqrt(hidden_size).

    Any rule trains it back through time, as torch.nn.RNN; the rule `traces` does so in memory that does not grow with
    the length of the sequence.  Raises UsageError for a size or a leak out of range.
    """

    def __init__(
        self, input_size: int, hidden_size: int, *, leak: float = 0.9, num_layers: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if size < 1:
                raise UsageError(f"{name} must be at least 1, not {size}")
        if not 0 < leak < 1:
            raise UsageError(f"leak must lie between 0 and 1, not at {leak}", do="Use torch.nn.RNN for no leak")
        self.leak, self.num_layers, self.bias = float(leak), num_layers, bias
        for layer in range(num_layers):
            width, h = hidden_size if layer else input_size, hidden_size
            shapes = {"weight_ih": (h, width), "weight_hh": (h, h), **({"bias": (h,)} if bias else {})}
            for name, shape in shapes.items():
                start = torch.empty(shape).uniform_(-1 / sqrt(h), 1 / sqrt(h))
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(start))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (batch, steps, features) -> every state (batch, steps, units), and the last ones (layers, batch, units)."""
        states: tuple[Tensor, Tensor] = torch.ops.strop.leaky_rnn(
            x, self.leak, list(self.parameters()), self.bias, self.num_layers
        )
        return states

    def extra_repr(self) -> str:
        """Settings, as torch prints them."""
        hidden, width = self.get_parameter("weight_ih_l0").shape
        return f"{width}, {hidden}, leak={self.leak}, num_layers={self.num_layers}, bias={self.bias}"
