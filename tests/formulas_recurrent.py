"""The mathematics of recurrent ops in PyTorch: formulas for the tests of ops, written from the cells' equations."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Attrs = Mapping[str, Any]
Formula = Callable[..., Any]
aten = torch.ops.aten


def chosen(errors: Tensor, a: Attrs) -> Tensor:
    """(S,B,blocks*H): the gates of a weight; of a GRU's state, the fourth instead of the third."""
    gates = (0, 1, 3) if a["reset"] else range(a["blocks"])
    return torch.cat([errors[:, gate] for gate in gates], -1)


def through_linear(errors: Tensor, other: Tensor, a: Attrs, which: str) -> Tensor:
    """The gradient of x W^T + b by PyTorch's own differentiation."""
    e = chosen(errors, a)
    width = other.shape[-1]
    x = other if which == "w" else torch.zeros(*e.shape[:2], width, dtype=e.dtype)
    w = other if which == "x" else torch.zeros(e.shape[2], width, dtype=e.dtype)
    b = torch.zeros(e.shape[2], dtype=e.dtype)
    leaves = {"x": x, "w": w, "b": b}
    leaves[which].requires_grad_()
    (gradient,) = torch.autograd.grad(F.linear(x, w, b), leaves[which], e)
    return gradient.flatten(0, 1) if which == "x" else gradient


def bare(function: Formula) -> Formula:
    """The formula of an op without attributes."""

    def formula(*operands: Tensor, a: Attrs) -> Any:
        del a
        return function(*operands)

    return formula


def gru_cell(a: Tensor, m: Tensor, h: Tensor) -> list[Tensor]:
    (a_r, a_z, a_n), (m_r, m_z, m_n) = a.chunk(3, 1), m.chunk(3, 1)
    r, z = (a_r + m_r).sigmoid(), (a_z + m_z).sigmoid()
    n = (a_n + r * m_n).tanh()
    return [r, z, m_n, n, (1 - z) * n + z * h]


def gru_cell_grad(z: Tensor, n: Tensor, inner: Tensor, r: Tensor, h: Tensor, dh: Tensor) -> list[Tensor]:
    """Back through h' = (1 - z) n + z h, then through the functions of the gates."""
    dn, dz = aten.tanh_backward(dh * (1 - z), n), aten.sigmoid_backward(dh * (h - n), z)
    return [dz, dn, aten.sigmoid_backward(dn * inner, r), dn * r, dh * z]


def lstm_cell(a: Tensor, m: Tensor, c: Tensor) -> list[Tensor]:
    """The slopes are those of i g towards the sums of its gates, by PyTorch's own differentiation."""
    i, f, g, o = (x.clone().requires_grad_() for x in (a + m).chunk(4, 1))
    product = i.sigmoid() * g.tanh()
    slope_i, slope_g = torch.autograd.grad(product.sum(), (i, g))
    cell = f.sigmoid() * c + product
    made = [o.sigmoid() * cell.tanh(), cell, slope_i, f.sigmoid(), slope_g, o.sigmoid(), i.sigmoid(), g.tanh()]
    return [each.detach() for each in made]


def lstm_cell_grad(
    dc: Tensor, slope_i: Tensor, f: Tensor, slope_g: Tensor, o: Tensor, c: Tensor, before: Tensor, dh: Tensor
) -> list[Tensor]:
    total, t = dc + aten.tanh_backward(dh * o, c.tanh()), c.tanh()
    df, do = aten.sigmoid_backward(total * before, f), aten.sigmoid_backward(dh * t, o)
    return [total * f, total * slope_i, df, total * slope_g, do, total, t]


def leaky_cell(z: Tensor, h: Tensor, a: Attrs) -> list[Tensor]:
    """From h toward c by 1 - leak."""
    return [torch.lerp(h, z.tanh(), 1 - a["leak"]), z.tanh()]


def leaky_cell_grad(c: Tensor, dh: Tensor, a: Attrs) -> list[Tensor]:
    return [aten.tanh_backward(dh * (1 - a["leak"]), c), dh * a["leak"]]


def leaky_rnn(x: Tensor, w_ih: Tensor, w_hh: Tensor, *b: Tensor, a: Attrs) -> list[Tensor]:
    y, c = [torch.zeros(x.shape[1], w_hh.shape[1], dtype=x.dtype)], []
    for sums in F.linear(x, w_ih, *b):
        h, squashed = leaky_cell(sums + y[-1] @ w_hh.T, y[-1], a)
        y.append(h)
        c.append(squashed[None])
    return [torch.stack(y[1:]), y[-1], torch.stack(c)]


def layer(name: str) -> Formula:
    """torch's function of one layer; what is kept for the way back, from the cell's formula at its states."""
    function = getattr(torch._VF, name)

    def formula(x: Tensor, w_ih: Tensor, w_hh: Tensor, *b: Tensor, a: Attrs) -> list[Tensor]:
        del a
        zero = torch.zeros(1, x.shape[1], w_hh.shape[1], dtype=x.dtype)
        start = [zero, zero] if name == "lstm" else zero
        y, last, *_ = function(x, start, [w_ih, w_hh, *b], bool(b), 1, 0.0, False, False, False)
        sums = F.linear(x, w_ih, *b[:1]), F.linear(torch.cat([zero, y[:-1]]), w_hh, *b[1:])
        return [y, last[0], *KEPT.get(name, lambda *_: [])(*sums, y)]

    return formula


def gru_kept(a: Tensor, m: Tensor, y: Tensor) -> list[Tensor]:
    rows = [gru_cell(*sums, y[0]) for sums in zip(a, m, strict=True)]
    return [torch.stack([torch.stack([inner, z, n, r]) for r, z, inner, n, _ in rows])]


def lstm_kept(a: Tensor, m: Tensor, y: Tensor) -> list[Tensor]:
    c, gates, cells = torch.zeros_like(y[0]), [], []
    for sums in zip(a, m, strict=True):
        _, c, *kept = lstm_cell(*sums, c)[:6]
        gates.append(torch.stack(kept))
        cells.append(c)
    return [torch.stack(gates), torch.stack(cells)]


KEPT: dict[str, Callable[[Tensor, Tensor, Tensor], list[Tensor]]] = {"gru": gru_kept, "lstm": lstm_kept}


def errors(back: Callable[..., Any]) -> Formula:
    """Back through time in blocks of `truncate` steps, counted from the last; whatever flows on is dropped between.

    back: (dh, dc, t, y, *kept) -> (errors of the gates, those that reach the state, what passes them, new dc).
    """

    def formula(dy: Tensor, w_hh: Tensor, y: Tensor, *kept: Tensor, a: Attrs) -> Tensor:
        steps = len(y)
        full = torch.zeros_like(y)
        full[steps - (len(dy) if dy.ndim == 3 else 1) :] = dy
        seen = len(dy) if dy.ndim == 3 else min(a["truncate"] or steps, steps)
        made = {}
        for block in torch.arange(steps - 1, steps - seen - 1, -1).split(a["truncate"] or seen):
            dh = dc = torch.zeros_like(y[0])
            for t in block.tolist():
                made[t], linked, passed, dc = back(dh + full[t], dc, t, y, *kept, a=a)
                dh = torch.cat(list(linked), 1) @ w_hh + passed
        return torch.stack([torch.stack(list(made[t])) for t in sorted(made)])

    return formula


def plain_back(slope: Callable[[Tensor, Tensor], Tensor]) -> Formula:
    def back(dh: Tensor, dc: Tensor, t: int, y: Tensor, a: Attrs) -> Any:
        del a
        error = [slope(dh, y[t])]
        return error, error, 0 * dh, dc

    return back


def leaky_back(dh: Tensor, dc: Tensor, t: int, y: Tensor, squashed: Tensor, a: Attrs) -> Any:
    del y
    error, passed = leaky_cell_grad(squashed[t, 0], dh, a)
    return [error], [error], passed, dc


def gru_back(dh: Tensor, dc: Tensor, t: int, y: Tensor, gates: Tensor, a: Attrs) -> Any:
    del a
    inner, z, n, r = gates[t]
    before = y[t - 1] if t else 0 * y[0]
    dz, dn, dr, dinner, passed = gru_cell_grad(z, n, inner, r, before, dh)
    return [dr, dz, dn, dinner], [dr, dz, dinner], passed, dc


def lstm_back(dh: Tensor, dc: Tensor, t: int, y: Tensor, gates: Tensor, cells: Tensor, a: Attrs) -> Any:
    del y, a
    before = cells[t - 1] if t else 0 * cells[0]
    dc, *made = lstm_cell_grad(dc, *gates[t], cells[t], before, dh)[:5]
    return made, made, 0 * dh, dc


RECURRENT: dict[str, Formula] = {
    "rows": lambda x, a: x[a["first"] :].flatten()[: torch.Size(a["shape"]).numel()].view(a["shape"]),
    "late": lambda x, a: F.pad(x, (0, 0) * (x.ndim - 1) + (a["steps"] - len(x), 0)),
    "swap_axes": lambda x, a: x.transpose(0, 1),
    "copy": lambda x, a: x.clone(),
    "zeros": lambda a: torch.zeros(a["shape"]),
    "gate_dw": lambda e, x, a: through_linear(e, x, a, "w"),
    "gate_dx": lambda e, w, a: through_linear(e, w, a, "x"),
    "gate_db": lambda e, a: through_linear(e, torch.zeros(*e.shape[::2], 1, dtype=e.dtype), a, "b"),
    "gru_cell": bare(gru_cell),
    "gru_cell_grad": bare(gru_cell_grad),
    "lstm_cell": bare(lstm_cell),
    "lstm_cell_grad": bare(lstm_cell_grad),
    "leaky_cell": leaky_cell,
    "leaky_cell_grad": leaky_cell_grad,
    "trace": lambda e, x, a: torch.lerp(x, e, a["leak"]),
    "leaky_rnn": leaky_rnn,
    "leaky_rnn_errors": errors(leaky_back),
    "rnn_tanh": layer("rnn_tanh"),
    "rnn_relu": layer("rnn_relu"),
    "gru": layer("gru"),
    "lstm": layer("lstm"),
    "rnn_tanh_errors": errors(plain_back(aten.tanh_backward)),
    "rnn_relu_errors": errors(plain_back(lambda dh, h: aten.threshold_backward(dh, h, 0))),
    "gru_errors": errors(gru_back),
    "lstm_errors": errors(lstm_back),
}
