"""Recurrent layers step by step, from their equations, so that an error can be cut in time and between layers.

With x the input of a step, h the state before it, a = W_ih x + b_ih, m = W_hh h + b_hh and gates in PyTorch's order

    plain   h' = f(a + m)
    GRU     r, z = sigmoid(a + m);  n = tanh(a + r m);  h' = (1 - z) n + z h
    LSTM    i, f, o = sigmoid(a + m), g = tanh(a + m);  c' = f c + i g;  h' = o tanh(c')
    leaky   h' = leak h + (1 - leak) tanh(a + m), with b_ih alone

Truncated backpropagation through time detaches the state before the last k steps, before the k steps before, and so on.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Cell = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(a, m, h, c) -> (h', c')."""


def _plain(function: Callable[[Tensor], Tensor]) -> Cell:
    return lambda a, m, h, c: (function(a + m), c)


def _gru(a: Tensor, m: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    (a_r, a_z, a_n), (m_r, m_z, m_n) = a.chunk(3, 1), m.chunk(3, 1)
    r, z = (a_r + m_r).sigmoid(), (a_z + m_z).sigmoid()
    return (1 - z) * (a_n + r * m_n).tanh() + z * h, c


def _lstm(a: Tensor, m: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    del h
    i, f, g, o = (a + m).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _leaky(leak: float) -> Cell:
    return lambda a, m, h, c: (leak * h + (1 - leak) * (a + m).tanh(), c)


CELLS: dict[str, Callable[[float], Cell]] = {
    "rnn_tanh": lambda _: _plain(torch.tanh), "rnn_relu": lambda _: _plain(torch.relu), "gru": lambda _: _gru,
    "lstm": lambda _: _lstm, "leaky_rnn": _leaky,
}  # fmt: skip
"""Cells, from a leak, by the name of the function for a whole stack of layers."""


def states(
    name: str, x: Tensor, weights: Sequence[Tensor], truncate: int = 0, leak: float = 0
) -> tuple[Tensor, Tensor]:
    """Every state (B,T,H) of one layer, and its last cell (B,H; zeros where there is none). x: (B,T,I).

    weights: w_ih, w_hh and, if there are any, b_ih and b_hh.  truncate: steps that an error goes back; 0 for all.
    """
    w_ih, w_hh, *biases = weights
    b_ih, b_hh = (*biases, *(torch.zeros((), dtype=x.dtype),) * 2)[:2]
    cell = CELLS[name](leak)
    h = c = torch.zeros(len(x), w_hh.shape[1], dtype=x.dtype)
    made = []
    for t, x_t in enumerate(x.unbind(1)):
        if truncate and (x.shape[1] - t) % truncate == 0:
            h, c = h.detach(), c.detach()
        h, c = cell(x_t @ w_ih.T + b_ih, h @ w_hh.T + b_hh, h, c)
        made.append(h)
    return torch.stack(made, 1), c


def stacked(args: Sequence[Any]) -> Iterator[list[Tensor]]:
    """The weights of each layer, from the arguments of torch's function."""
    weights, layers = list(args[2]), int(args[4])
    each = len(weights) // layers
    return (weights[i * each : (i + 1) * each] for i in range(layers))


def leak_of(name: str, args: Sequence[Any]) -> float:
    """The leak among the arguments of the function, if it has one."""
    return float(args[1]) if name == "leaky_rnn" else 0.0


def results(name: str, steps: Tensor, last: Sequence[Tensor], cells: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What torch's function returns. last, cells: of each layer."""
    return (steps, torch.stack(list(last)), *([torch.stack(list(cells))] if name == "lstm" else []))


class Truncated(TorchFunctionMode):
    """Runs recurrent layers step by step, with truncation."""

    def __init__(self, truncate: int) -> None:
        super().__init__()
        self.truncate = truncate

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one call of the forward pass."""
        del types
        if func.__name__ not in CELLS:
            return func(*args, **(kwargs or {}))
        steps, last, cells = args[0], [], []
        for weights in stacked(args):
            steps, cell = states(func.__name__, steps, weights, self.truncate, leak_of(func.__name__, args))
            last.append(steps[:, -1])
            cells.append(cell)
        return results(func.__name__, steps, last, cells)
