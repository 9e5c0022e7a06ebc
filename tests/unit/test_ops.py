"""Every op against an independent formula, its own shapes, and its own gradient."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import OP_CASES, Array, CompiledCase, OpCase
from formulas_recurrent import RECURRENT
from torch import Tensor

from strop.compiler import rng as generator
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Builder, Program, Role
from strop.compiler.ops import register, spec, specs
from strop.compiler.ops.base import Elementwise, OpSpec
from strop.compiler.ops.normalize import STABLE
from strop.compiler.schedules import Tiling
from strop.compiler.verify import verify
from strop.errors import LowerError

Attrs = Mapping[str, Any]
Formula = Callable[..., Any]
aten = torch.ops.aten


def pull(function: Formula, at: Tensor, dy: Tensor) -> Tensor:
    """The gradient of <dy, function> at a point, by PyTorch's own differentiation."""
    at = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(at), at, dy)
    return gradient


def conv(attrs: Attrs) -> dict[str, Any]:
    return {key: attrs[key] for key in ("stride", "padding", "groups")}


def pool(attrs: Attrs) -> tuple[Any, ...]:
    return attrs["kernel"], attrs["stride"], attrs["padding"]


def image_index(index: Tensor, attrs: Attrs, width: int) -> Tensor:
    """Place in the window -> place in the image, as PyTorch counts."""
    (_, kw), (sh, sw), (ph, pw) = pool(attrs)
    rows, columns = torch.meshgrid(torch.arange(index.shape[2]), torch.arange(index.shape[3]), indexing="ij")
    index = index.to(torch.int64)
    place: Tensor = (rows * sh - ph + index // kw) * width + columns * sw - pw + index % kw
    return place


def max_pool(x: Tensor, a: Attrs) -> list[Tensor]:
    """y, and the index converted back to a place in the window."""
    y, flat = F.max_pool2d(x, *pool(a), return_indices=True)
    places = torch.stack(
        [image_index(torch.full(y.shape, k), a, x.shape[3]) for k in range(a["kernel"][0] * a["kernel"][1])]
    )
    return [y, (places == flat).to(torch.uint8).argmax(0)]


def max_pool_grad(dy: Tensor, index: Tensor, a: Attrs) -> Tensor:
    x = torch.zeros(*dy.shape[:2], *a["image"], dtype=dy.dtype)
    flat = image_index(index, a, a["image"][1])
    dx: Tensor = aten.max_pool2d_with_indices_backward(dy, x, *pool(a), [1, 1], False, flat)
    return dx


def image_weight(w: Tensor) -> Tensor:
    """A kernel without a height has a height of 1."""
    return w.reshape(*w.shape[:2], 1, -1) if w.ndim == 3 else w


def conv_dx(dy: Tensor, w: Tensor, a: Attrs) -> Tensor:
    x = torch.zeros(len(dy), w.shape[1] * a["groups"], *a["image"], dtype=dy.dtype)
    return pull(lambda x: F.conv2d(x, image_weight(w), **conv(a)), x, dy)


def conv_dw(dy: Tensor, x: Tensor, a: Attrs) -> Tensor:
    w = torch.zeros(dy.shape[1], x.shape[1] // a["groups"], *a["kernel"], dtype=dy.dtype)
    return pull(lambda w: F.conv2d(x, image_weight(w), **conv(a)), w, dy)


def conv_dw_pooled(dq: Tensor, index: Tensor, x: Tensor, a: Attrs) -> Tensor:
    """The weight gradient of the error that the pool's gradient spreads over the image."""
    names = ("kernel", "stride", "padding")
    kernel = image_weight(torch.zeros(1, 1, *a["kernel"], dtype=x.dtype))
    image = F.conv2d(x[:, :1], kernel, None, a["stride"], a["padding"]).shape[2:]
    return conv_dw(max_pool_grad(dq, index, {"image": image, **{n: a[f"pool_{n}"] for n in names}}), x, a)


def avg_pool_grad(dy: Tensor, a: Attrs) -> Tensor:
    return pull(lambda x: F.avg_pool2d(x, *pool(a)), torch.zeros(*dy.shape[:2], *a["image"], dtype=dy.dtype), dy)


def norm(x: Tensor, gain: Tensor, offset: Tensor, mean: Tensor, inv_std: Tensor) -> Tensor:
    return F.batch_norm(x, mean, inv_std**-2, gain * inv_std.sign(), offset, eps=0)


def normalize(x: Tensor, gain: Tensor, offset: Tensor, a: Attrs) -> Tensor:
    """Layer or group normalisation."""
    if "groups" in a:
        return F.group_norm(x, a["groups"], gain, offset, a["eps"])
    return F.layer_norm(x, gain.shape, gain, offset, a["eps"])


def normalize_parts(x: Tensor, gain: Tensor, offset: Tensor, a: Attrs) -> list[Tensor]:
    """The result, and the mean and the inverse deviation of each group."""
    lead = (len(x), a["groups"]) if "groups" in a else x.shape[: x.ndim - a["trailing"]]
    variance, mean = torch.var_mean(x.reshape(*lead, -1), -1, correction=0)
    return [normalize(x, gain, offset, a), mean, (variance + a["eps"]).rsqrt()]


def frozen(x: Tensor, gain: Tensor, mean: Tensor, inv_std: Tensor, a: Attrs) -> Tensor:
    """What group_norm and layer_norm compute from given statistics, without offset."""
    rows = (x.reshape(*mean.shape, -1) - mean[..., None]) * inv_std[..., None]
    return rows.reshape(x.shape) * (gain.view(-1, *(1,) * (x.ndim - 2)) if "groups" in a else gain)


def normalize_dx(dy: Tensor, x: Tensor, gain: Tensor, mean: Tensor, inv_std: Tensor, a: Attrs) -> list[Tensor]:
    """PyTorch's own gradient, which takes the statistics from x, and the two means that go into it."""
    g = frozen(dy, gain, torch.zeros_like(mean), torch.ones_like(mean), a).reshape(*mean.shape, -1)
    centred = x.reshape(g.shape) - mean[..., None]
    dx = pull(lambda x: normalize(x, gain, torch.zeros_like(gain), {"eps": STABLE, **a}), x, dy)
    return [dx, g.mean(-1), (g * centred).mean(-1) * inv_std.square()]


def normalize_dgain(dy: Tensor, x: Tensor, mean: Tensor, inv_std: Tensor, a: Attrs) -> Tensor:
    shape = x.shape[1:2] if "groups" in a else x.shape[x.ndim - a["trailing"] :]
    return pull(lambda gain: frozen(x, gain, mean, inv_std, a), torch.zeros(shape, dtype=x.dtype), dy)


def normalize_doffset(dy: Tensor, a: Attrs) -> Tensor:
    shape = dy.shape[1:2] if "groups" in a else dy.shape[dy.ndim - a["trailing"] :]
    offset = torch.zeros(shape, dtype=dy.dtype)
    return pull(lambda offset: normalize(dy, torch.ones_like(offset), offset, {"eps": 1, **a}), offset, dy)


def row_softmax(x: Tensor) -> list[Tensor]:
    return [x.softmax(-1), (x - x.amax(-1, keepdim=True)).exp()]


def row_log_softmax(x: Tensor) -> list[Tensor]:
    return [x.log_softmax(-1), (x - x.amax(-1, keepdim=True)).logsumexp(-1)]


def adaptive_pool_grad(dy: Tensor, a: Attrs) -> Tensor:
    x = torch.zeros(*dy.shape[:2], *a["image"], dtype=dy.dtype)
    return pull(lambda x: F.adaptive_avg_pool2d(x, tuple(dy.shape[2:])), x, dy)


def rows_of(x: Tensor, rows: int) -> Tensor:
    return x.clamp(0, rows - 1).round().long()


def embedding_grad(dy: Tensor, x: Tensor, a: Attrs) -> Tensor:
    table = torch.zeros(a["rows"], dy.shape[-1], dtype=dy.dtype)
    return pull(lambda table: F.embedding(rows_of(x, a["rows"]), table), table, dy)


def slice_grad(dy: Tensor, a: Attrs) -> Tensor:
    shape = (*dy.shape[: a["axis"]], a["size"], *dy.shape[a["axis"] + 1 :])
    x = torch.zeros(shape, dtype=dy.dtype)
    return pull(lambda x: x.narrow(a["axis"], a["start"], dy.shape[a["axis"]]), x, dy)


def softmax_parts(z: Tensor, y: Tensor, a: Attrs) -> list[Tensor]:
    del a
    top = z.max(1, keepdim=True).values
    margin = z.gather(1, y.long()[:, None]) - top
    return [F.cross_entropy(z, y.long())[None], (z - top).exp(), (z.logsumexp(1) - top[:, 0]).exp(), margin[:, 0]]


def half_square(a: Tensor, t: Tensor) -> Tensor:
    return F.mse_loss(a, t, reduction="sum") / (2 * len(a))


def distance(a: Tensor, t: Tensor) -> Tensor:
    return F.l1_loss(a, t, reduction="sum") / len(a)


def huber(a: Tensor, t: Tensor, delta: float) -> Tensor:
    return F.huber_loss(a, t, reduction="sum", delta=delta) / len(a)


def cosine_parts(z: Tensor, t: Tensor, a: Attrs) -> list[Tensor]:
    """By torch's cosine_similarity of rows with one more element each, which gives them a length."""
    more = 1e-4 * torch.eye(2, dtype=z.dtype)
    longer = [torch.cat([v, e.expand(len(v), -1)], 1) for v, e in zip((z, t), more, strict=True)]
    cos = F.cosine_similarity(*longer)
    dot = torch.linalg.vecdot(z, t)
    return [a["strength"] * (1 - cos).mean()[None], dot, *(1 / v.norm(dim=1) for v in longer)]


def mean_gradient(function: Formula, a: Tensor, t: Tensor) -> Tensor:
    return pull(lambda v: function(v, t), a, torch.ones((), dtype=a.dtype))


def projection(rows: int, columns: int, a: Attrs) -> Tensor:
    signs = [
        [float(generator.sign(a["seed"], a["tensor"], j * columns + c)) for c in range(columns)] for j in range(rows)
    ]
    return torch.tensor(signs, dtype=torch.float64)


def random_target(y: Tensor, a: Attrs) -> Tensor:
    signs = projection(a["units"], a["classes"], a)
    high, low = (float(np.float32(a[name])) for name in ("high", "low"))
    return torch.where(signs > 0, high, low)[:, y.long()].T


def paced(update: Formula, results: Sequence[int]) -> Formula:
    """An update whose rate may be an operand, and which leaves the variables, `results`, alone before the last phase.

    update: (operands, lr, attributes) -> new variables.
    """

    def formula(*operands: Tensor, a: Attrs) -> list[Tensor]:
        *inputs, phase = operands if "every" in a else (*operands, torch.tensor(1))
        *inputs, lr = inputs if "lr" not in a else (*inputs, torch.tensor(a["lr"], dtype=torch.float64))
        if phase.item() < a.get("every", 1):
            return [inputs[i] for i in results]
        new: list[Tensor] = update(*inputs, lr=lr.item(), a=a)
        return new

    return formula


def counted(update: Formula) -> Formula:
    """A count that stays before the last phase."""
    return lambda c, phase=None, *, a: c if phase is not None and phase.item() < a["every"] else update(c, a)


def sgd_step(w: Tensor, g: Tensor, lr: float, a: Attrs, velocity: Tensor | None = None) -> list[Tensor]:
    """One step of torch.optim.SGD from a given velocity; up the gradient at a negative rate."""
    w = torch.nn.Parameter(w.clone())
    momentum, decay = a.get("momentum", 0), a["weight_decay"]
    optimizer = torch.optim.SGD([w], abs(lr), momentum=momentum, weight_decay=decay, maximize=lr < 0)
    if velocity is not None:
        optimizer.state[w]["momentum_buffer"] = velocity = velocity.clone()
    w.grad = g.clone()
    optimizer.step()
    return [*([velocity] if velocity is not None else []), w.detach()]


def adam_step(w: Tensor, m: Tensor, v: Tensor, c1: Tensor, c2: Tensor, g: Tensor, lr: float, a: Attrs) -> list[Tensor]:
    g = g.add(w, alpha=a["weight_decay"])
    m, v = m.lerp(g, 1 - a["beta1"]), v.lerp(g.square(), 1 - a["beta2"])
    return [m, v, w.addcdiv(m / c1, (v / c2).sqrt() + a["eps"], value=-lr)]


def lion_step(w: Tensor, m: Tensor, g: Tensor, lr: float, a: Attrs) -> list[Tensor]:
    ahead = m.lerp(g, 1 - a["beta1"]).sign()
    return [w.mul(1 - lr * a["weight_decay"]).sub(ahead, alpha=lr), m.lerp(g, 1 - a["beta2"])]


def by_chance(update: Formula, weight: int) -> Formula:
    """An update whose weight becomes one of its neighbours in 16 bits.  weight: which result it is."""

    def formula(n: Tensor, *operands: Tensor, a: Attrs) -> list[Tensor]:
        new = list(update(*operands, a=a))
        bits = generator.rng(a["seed"] + int(n), a["tensor"], np.arange(new[weight].numel()))
        new[weight] = dithered(new[weight], torch.from_numpy(bits.astype(np.int64)).view(new[weight].shape), a["dtype"])
        return new

    return formula


def dithered(x: Tensor, random: Tensor, dtype: str) -> Tensor:
    """Up to a multiple of the last place, with the probability of what is left above the multiple below."""
    single, (digits, lowest) = x.float().double(), {"float16": (10, -14), "bfloat16": (7, -126)}[dtype]
    exponent = torch.frexp(single.abs()).exponent - 1
    last = torch.exp2(exponent.clamp(min=lowest) - digits)
    whole = torch.floor(single.abs() / last)
    left, fine = single.abs() / last - whole, 23 - digits
    up = torch.where(exponent < lowest, left > (random >> 8) / 2**24, left + (random >> 32 - fine) / 2**fine >= 1)
    return single.sign() * (whole + up) * last


def with_rest(update: Formula, weight: int) -> Formula:
    """An update of weight + rest, and what PyTorch's conversion to 16 bits leaves of it."""

    def formula(rest: Tensor, w: Tensor, *operands: Tensor, a: Attrs) -> list[Tensor]:
        new = list(update(w + rest, *operands, a=a))
        return [*new, new[weight] - new[weight].to(getattr(torch, a["dtype"])).double()]

    return formula


UPDATES = {
    "sgd": (paced(sgd_step, [0]), 0),
    "momentum": (paced(lambda w, v, g, lr, a: sgd_step(w, g, lr, a, v), [1, 0]), 1),
    "adam": (paced(adam_step, [1, 2, 0]), 2),
    "lion": (paced(lion_step, [0, 1]), 0),
}
"""Updates, and which of their results is the weight."""


def scheduled(make: Callable[[torch.optim.Optimizer, Attrs], torch.optim.lr_scheduler.LRScheduler]) -> Formula:
    """The rate that a scheduler of torch gives at a step, behind its LinearLR as warm-up."""

    def formula(step: Tensor, a: Attrs) -> Tensor:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], a["lr"])
        first = 1 / (a["warmup"] or 1)
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, first, total_iters=max(a["warmup"] - 1, 0))
        both = [warm, make(optimizer, a)] if a["warmup"] else [make(optimizer, a)]
        scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, both, [a["warmup"]][: len(both) - 1])
        for _ in range(int(step)):
            optimizer.step()
            scheduler.step()
        return torch.tensor([optimizer.param_groups[0]["lr"]], dtype=torch.float64)

    return formula


def decay(curve: Callable[[float], float]) -> Formula:
    """A rate that falls along a curve, by torch's LambdaLR, and the share of time that is left."""

    def passed(age: float, a: Attrs) -> float:
        return min(max(age / (a["steps"] - a["warmup"]), 0), 1)

    rates = scheduled(
        lambda o, a: torch.optim.lr_scheduler.LambdaLR(
            o, lambda age: a["final"] + (1 - a["final"]) * curve(passed(age, a))
        )
    )
    return lambda step, a: [rates(step, a), step.new_tensor([1 - passed(step.item() - a["warmup"], a)])]


def clipped_norm(total: Tensor, a: Attrs) -> Tensor:
    """What torch's clip_grad_norm_ multiplies a gradient by that has this sum of squares."""
    p = torch.nn.Parameter(torch.zeros_like(total))
    p.grad = total.sqrt()
    torch.nn.utils.clip_grad_norm_([p], a["limit"])
    return p.grad / total.sqrt()


def wrong_label(y: Tensor, seen: Tensor, a: Attrs) -> list[Tensor]:
    """The other classes in order, counted on from the right one; one is drawn for each sample."""
    first = {12345: 12345, 2**24 - 1: 2**24 - 1, -1: 0}[int(seen)]
    wrong = []
    for b, label in enumerate(y.tolist()):
        share = float(generator.uniform(a["seed"], a["tensor"], first + b))
        others = [(label + k) % a["classes"] for k in range(1, a["classes"])]
        wrong.append(others[int(share * len(others))])
    drawn = torch.tensor(wrong, dtype=torch.int32)
    return [drawn, (drawn - y) % a["classes"]]


def embed_label(x: Tensor, labels: Tensor | None = None, *, a: Attrs) -> Tensor:
    if labels is None:
        return torch.cat([torch.full((len(x), a["classes"]), 1 / a["classes"], dtype=x.dtype), x[:, a["classes"] :]], 1)
    rows = x.repeat(len(labels) // len(x), 1)
    return torch.cat([F.one_hot(labels.long(), a["classes"]), rows[:, a["classes"] :]], 1)


def unit_rms(x: Tensor, a: Attrs) -> list[Tensor]:
    scale = 1 / (x.norm(dim=1) / math.sqrt(x.shape[1]) + a["eps"])
    return [x * scale[:, None], scale]


def contrast(g: Tensor, activity: Tensor | None = None, *, a: Attrs) -> Tensor:
    """Logistic loss: the first half is of class 1."""
    positive = (torch.arange(len(g)) < len(g) // 2).to(g.dtype)
    spread = 0 if activity is None else a["peer"] * (activity.mean() - activity).square().mean()
    return (F.binary_cross_entropy_with_logits(g - a["threshold"], positive) + spread)[None]


def peer_activity(y: Tensor, before: Tensor, a: Attrs) -> Tensor:
    return torch.lerp(y[: len(y) // 2].mean(0), before, a["decay"])


def peer_activity_grad(da: Tensor, a: Attrs) -> Tensor:
    y = torch.zeros(a["rows"], len(da), dtype=da.dtype)
    return pull(lambda y: peer_activity(y, torch.zeros_like(da), a), y, da)


def modulate(x: Tensor, e: Tensor, a: Attrs) -> Tensor:
    classes = e.shape[1]
    rows = [
        [float(generator.uniform(a["seed"], a["tensor"], i * classes + k)) for k in range(classes)]
        for i in range(x[0].numel())
    ]
    matrix = (torch.tensor(rows, dtype=torch.float64) - 0.5) * (2 * a["scale"])
    return x + a["strength"] * F.linear(e, matrix).view_as(x)


def shares(a: Attrs, first: int, wholes: Sequence[int]) -> list[int]:
    """Integers below each whole, from 24 bits of the generator at numbers from `first` on; products in float32."""
    words = [int(generator.rng(a["seed"], a["tensor"], first + i)) >> 8 for i in range(len(wholes))]
    return [int(np.float32(word / 2**24) * np.float32(whole)) for word, whole in zip(words, wholes, strict=True)]


def replay_slot(seen: Tensor, a: Attrs) -> Tensor:
    """Sample t of the reservoir, counted from 1, goes to one of t places, of which the first are slots."""
    first = int(seen) - a["rows"] + 1
    among = range(first, first + a["rows"])
    places = shares(a, first - 1, among)
    return torch.tensor([t - 1 if t <= a["slots"] else place for t, place in zip(among, places, strict=True)])


def replay_pick(seen: Tensor, a: Attrs) -> Tensor:
    before = int(seen) - a["new"]
    picks = shares(a, before * a["rows"], [min(before, a["slots"])] * a["rows"])
    return torch.tensor(picks if before else [-1] * a["rows"])


def replay_draw(new: Tensor, kept: Tensor, pick: Tensor, peak: Tensor | None = None, *, a: Attrs) -> Tensor:
    rows = [*new]
    for j, slot in enumerate(pick.tolist()):
        if slot < 0:
            rows.append(new[(len(new) + j) % len(new)])
            continue
        row = kept[slot].to(new.dtype) if peak is None else kept[slot].to(new.dtype) / 127 * peak[slot]
        rows.append(row.clamp(0, a["classes"] - 1) if a["classes"] else row)
    return torch.stack(rows)


def replay_store(kept: Tensor, rows: Tensor, slot: Tensor, peak: Tensor | None = None, *, a: Attrs) -> Tensor:
    del a
    kept = kept.clone()
    for b, at in enumerate(slot.tolist()):
        if at in range(len(kept)):
            kept[at] = rows[b] if peak is None else (rows[b] / peak[b] * 127).clamp(-127, 127).round()
    return kept


def class_count(seen: Tensor, y: Tensor, a: Attrs) -> Tensor:
    del a
    real = y[(y >= 0) & (y < len(seen))].long()
    touched = torch.bincount(real, minlength=len(seen))
    return torch.where(touched > 0, (seen.clamp(0, 2**24) + touched).clamp(max=2**24 + 1), seen)


def class_nth(seen: Tensor, y: Tensor, a: Attrs) -> Tensor:
    """Counted back from the end of the batch."""
    del a
    left: dict[int, int] = {}
    nth = []
    for label in reversed(y.tolist()):
        nth.append(float(seen[min(max(label, 0), len(seen) - 1)]) - left.get(label, 0))
        left[label] = left.get(label, 0) + 1
    return torch.tensor(nth[::-1])


def class_mean(mean: Tensor, f: Tensor, y: Tensor, nth: Tensor, a: Attrs) -> Tensor:
    del a
    mean = mean.clone()
    for feature, label, n in zip(f, y.tolist(), nth, strict=True):
        if label in range(len(mean)):
            mean[label] = ((n - 1) * mean[label] + feature) / n
    return mean


def class_priority(seen: Tensor, y: Tensor, step: Tensor, a: Attrs) -> Tensor:
    k = len(seen)
    rows = torch.full((len(y), k), -1.0)
    for b, label in enumerate(y.tolist()):
        for c in seen.nonzero().flatten().tolist():
            rows[b, c] = float(generator.uniform(a["seed"], a["tensor"], (int(step) * len(y) + b) * k + c))
        rows[b, label] = -0.5
    return rows


def old_classes(seen: Tensor, y: Tensor, a: Attrs) -> Tensor:
    del a
    own = y.clamp(0, len(seen) - 1).tolist()
    others = [[c if seen[c] else n for c in range(len(seen)) if c != n] for n in own]
    return torch.tensor(others).T.flatten()


def pseudo_features(f: Tensor, y: Tensor, choice: Tensor, mean: Tensor, a: Attrs) -> list[Tensor]:
    del a
    own, chosen = y.clamp(0, len(mean) - 1).long(), choice.long()
    again = len(chosen) // len(f)
    centred = (f - mean[own]).repeat(again, 1)
    return [torch.cat([f, centred + mean[chosen]]), torch.cat([own, chosen])]


FORMULAS: dict[str, Formula] = {
    **RECURRENT,
    "dense": lambda x, w, b=None, *, a: F.linear(x, w, b),
    "dense_dx": lambda dy, w, a: pull(lambda x: F.linear(x, w), torch.zeros(len(dy), w.shape[1], dtype=dy.dtype), dy),
    "dense_dw": lambda dy, x, a: pull(
        lambda w: F.linear(a.get("scale", 1) * x, w), torch.zeros(dy.shape[1], x.shape[1], dtype=dy.dtype), dy
    ),
    "bias_grad": lambda dy, a: pull(
        lambda b: b.view(1, -1, *(1,) * (dy.ndim - 2)).expand_as(dy), torch.zeros(dy.shape[1], dtype=dy.dtype), dy
    ),
    "conv2d": lambda x, w, *b, a: F.conv2d(x, image_weight(w), *b, **conv(a)),
    "conv2d_dx": conv_dx,
    "conv2d_dw": conv_dw,
    "conv2d_dw_pooled": conv_dw_pooled,
    "reshape": lambda x, a: torch.reshape(x, a["shape"]),
    "add": lambda x, y, a: x + y,
    "sub": lambda x, y, a: torch.sub(x, y),
    "mul": lambda x, y, a: torch.mul(x, y),
    "negative": lambda x, a: x.neg(),
    "concat": lambda *parts, a: torch.cat(parts, a["axis"]),
    "slice": lambda x, a: x.narrow(a["axis"], a["start"], a["size"]),
    "slice_grad": slice_grad,
    "embedding": lambda x, table, a: F.embedding(rows_of(x, len(table)), table),
    "embedding_grad": embedding_grad,
    "softmax": lambda x, a: row_softmax(x),
    "softmax_grad": lambda dy, y, a: pull(lambda x: x.softmax(-1), y.log(), dy),
    "log_softmax": lambda x, a: row_log_softmax(x),
    "log_softmax_grad": lambda dy, y, a: aten._log_softmax_backward_data(dy, y, -1, y.dtype),
    "relu": lambda x, a: x.relu(),
    "relu_grad": lambda dy, y, a: pull(F.relu, y, dy),
    "leaky_relu": lambda x, a: F.leaky_relu(x, a["slope"]),
    "leaky_relu_grad": lambda dy, y, a: pull(lambda x: F.leaky_relu(x, a["slope"]), y, dy),
    "relu6": lambda x, a: F.relu6(x),
    "relu6_grad": lambda dy, y, a: pull(F.relu6, y, dy),
    "tanh": lambda x, a: x.tanh(),
    "tanh_grad": lambda dy, y, a: aten.tanh_backward(dy, y),
    "sigmoid": lambda x, a: x.sigmoid(),
    "sigmoid_grad": lambda dy, y, a: aten.sigmoid_backward(dy, y),
    "max_pool2d": lambda x, a: F.max_pool2d(x, *pool(a)),
    "max_pool2d_argmax": max_pool,
    "max_pool2d_grad": max_pool_grad,
    "avg_pool2d": lambda x, a: F.avg_pool2d(x, *pool(a)),
    "avg_pool2d_grad": avg_pool_grad,
    "adaptive_avg_pool2d": lambda x, a: F.adaptive_avg_pool2d(x, a["grid"]),
    "adaptive_avg_pool2d_grad": adaptive_pool_grad,
    "normalize": normalize_parts,
    "normalize_dx": normalize_dx,
    "normalize_dgain": normalize_dgain,
    "normalize_doffset": normalize_doffset,
    "batch_norm": lambda x, gain, offset, mean, s, a: norm(x, gain, offset, mean, s),
    "batch_norm_dx": lambda dy, gain, s, a: pull(lambda x: norm(x, gain, gain, gain, s), dy, dy),
    "batch_norm_dgain": lambda dy, x, mean, s, a: pull(lambda gain: norm(x, gain, mean, mean, s), mean, dy),
    "cross_entropy": softmax_parts,
    "cross_entropy_grad": lambda e, s, y, a: mean_gradient(F.cross_entropy, e.log(), y.long()),
    "mse": lambda z, y, a: F.mse_loss(z, y)[None],
    "mse_grad": lambda z, y, a: mean_gradient(F.mse_loss, z, y),
    "bce": lambda z, y, a: F.binary_cross_entropy_with_logits(z, y)[None],
    "bce_grad": lambda z, y, a: mean_gradient(F.binary_cross_entropy_with_logits, z, y),
    "l2": lambda z, t, a: a["strength"] * half_square(z, t)[None],
    "l2_grad": lambda z, t, a: a["strength"] * mean_gradient(half_square, z, t),
    "l1": lambda z, t, a: a["strength"] * distance(z, t)[None],
    "l1_grad": lambda z, t, a: a["strength"] * mean_gradient(distance, z, t),
    "huber": lambda z, t, a: a["strength"] * huber(z, t, a["delta"])[None],
    "huber_grad": lambda z, t, a: a["strength"] * mean_gradient(lambda z, t: huber(z, t, a["delta"]), z, t),
    "dot": lambda z, t, a: a["strength"] * torch.linalg.vecdot(z, t).mean()[None],
    "dot_grad": lambda t, a: a["strength"] * t / len(t),
    "cosine": cosine_parts,
    "cosine_grad": lambda z, t, c, i, j, a: pull(lambda z: cosine_parts(z, t, a)[0], z, torch.ones(1, dtype=z.dtype)),
    "sign": lambda x, a: x.sign(),
    "random_dense": lambda x, a: x @ projection(x.shape[1], a["units"], a) * a["scale"],
    "random_target": random_target,
    "random_projection": lambda y, a: y @ projection(a["units"], y.shape[1], a).T * a["scale"],
    **{kind: formula for kind, (formula, _) in UPDATES.items()},
    **{f"{kind}_stochastic": by_chance(*update) for kind, update in UPDATES.items()},
    **{f"{kind}_carried": with_rest(*update) for kind, update in UPDATES.items()},
    "bias_correction": counted(lambda c, a: 1 - a["beta"] * (1 - c)),
    "count": counted(lambda c, a: c + 1),
    "constant_rate": scheduled(lambda o, a: torch.optim.lr_scheduler.ConstantLR(o, 1)),
    "step_rate": scheduled(lambda o, a: torch.optim.lr_scheduler.StepLR(o, a["every"], a["factor"])),
    "linear_rate": decay(lambda p: 1 - p),
    "cosine_rate": decay(lambda p: (1 + math.cos(math.pi * p)) / 2),
    "phase": lambda phase, a: torch.tensor({2: [1.0], 3: [3.0], 4: [1.0], 5: [1.0]}[a["every"]]),
    "accumulate": lambda s, g, phase, a: s * (phase - 1) + g / a["every"],
    "clip_value": lambda g, a: g.clamp(-a["limit"], a["limit"]),
    "squares": lambda g, a: torch.linalg.vector_norm(g)[None] ** 2,
    "clip_factor": clipped_norm,
    "scaled": lambda g, factor, a: factor * g,
    "scale": lambda x, a: a["factor"] * x,
    "wrong_label": wrong_label,
    "embed_label": embed_label,
    "unit_rms": unit_rms,
    "goodness": lambda y, a: a["scale"] * torch.linalg.vecdot(y, y),
    "goodness_grad": lambda dg, y, a: pull(lambda y: a["scale"] * torch.linalg.vecdot(y, y), y, dg),
    "contrast": contrast,
    "contrast_grad": lambda g, a: pull(lambda g: contrast(g, a=a), g, torch.ones(1, dtype=g.dtype)),
    "peer_activity": peer_activity,
    "peer_activity_grad": peer_activity_grad,
    "peer_grad": lambda m, a: pull(lambda m: a["peer"] * m.var(correction=0), m, m.new_ones(())),
    "keep": lambda old, new, a: new,
    "modulate": modulate,
    "gap": lambda z, clean, moved, a: a["strength"] * (z * clean - z * moved).flatten(1).sum(1).mean()[None],
    "gap_grad": lambda clean, moved, a: a["strength"] * torch.sub(clean, moved),
    "tally": lambda n, a: torch.tensor({1: [1], 2: [10], 3: [4], 5: [4]}[a["by"]]),
    "abs_max": lambda x, a: torch.linalg.vector_norm(x.flatten(1), math.inf, dim=1),
    "replay_slot": replay_slot, "replay_pick": replay_pick, "replay_draw": replay_draw, "replay_store": replay_store,
    "class_count": class_count, "class_nth": class_nth, "class_mean": class_mean, "class_priority": class_priority,
    "choose_class": lambda p, a: [(p == p.amax(1, keepdim=True)).to(torch.uint8).argmax(1), p.amax(1)],
    "old_classes": old_classes, "pseudo_features": pseudo_features,
}  # fmt: skip


ROUNDED = {
    "cross_entropy_grad": 1e-7,
    "softmax_grad": 1e-6,
    "log_softmax_grad": 1e-6,
    "normalize_dx": 2e-6,
    "cosine_grad": 1e-7,
}
"""Absolute tolerance where drawn inputs depend on each other, exactly in float32 only: `sum` is the sum of `exp`."""


def wide(arrays: list[Array]) -> list[Array]:
    return [x.astype(np.float64) if x.dtype.kind == "f" else x for x in arrays]


def test_every_op_has_cases_and_a_formula() -> None:
    assert {case.kind for case in OP_CASES} == set(specs()) - {"scan"}  # a loop is its body
    assert set(FORMULAS) >= set(specs()) - {"scan"}


@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_reference_agrees_with_an_independent_formula(case: OpCase) -> None:
    inputs = wide(case.draw())
    expected = FORMULAS[case.kind](*map(torch.from_numpy, inputs), a=case.case.attrs)
    for ours, theirs in zip(
        spec(case.kind).reference(inputs, case.case.attrs),
        [expected] if isinstance(expected, Tensor) else expected,
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12, atol=ROUNDED.get(case.kind, 1e-13))


@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_inferred_types_are_the_references(case: OpCase) -> None:
    results = spec(case.kind).reference(case.draw(), case.case.attrs)
    assert [(r.shape, r.dtype) for r in results] == [(t.shape, np.dtype(t.dtype.numpy)) for t in case.infer()]


@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_names_cover_operands_and_results(case: OpCase) -> None:
    kind = spec(case.kind)
    assert len(case.case.inputs) <= len(kind.operands) == len(set(kind.operands))
    assert len(case.infer()) == len(kind.results) == len(set(kind.results))
    assert kind.overwrites or len(kind.suffixes) == len(kind.results)
    for output, source in kind.overwrites.items():
        assert case.infer()[output] == case.case.inputs[source]


@pytest.mark.parametrize("case", [c for c in OP_CASES if spec(c.kind).elementwise], ids=str)
def test_elementwise_ops_are(case: OpCase) -> None:
    kind, inputs = spec(case.kind), wide(case.draw())
    before = kind.reference(inputs, case.case.attrs)
    size = before[0].size
    for j in range(0, size, max(1, size // 11)):
        shaken = [x + np.where(np.arange(size) == j, 0.25, 0).reshape(x.shape) if x.size == size else x for x in inputs]
        for old, new in zip(before, kind.reference(shaken, case.case.attrs), strict=True):
            assert set(np.flatnonzero(old != new)) <= {j}


@pytest.mark.parametrize("kind", [k for k, op in specs().items() if type(op).vjp is not OpSpec.vjp])
def test_ops_with_a_gradient_say_of_what(kind: str) -> None:
    assert spec(kind).differentiable


@pytest.mark.parametrize("kind", [k for k, op in specs().items() if op.plain])
def test_the_plain_kind_computes_the_first_output(kind: str) -> None:
    for case in (c for c in OP_CASES if c.kind == kind):
        full, plain = (spec(k).reference(case.draw(), case.case.attrs) for k in (kind, spec(kind).plain))
        assert len(plain) == 1
        np.testing.assert_array_equal(full[0], plain[0])


def with_gradient(case: OpCase, seed: Array) -> tuple[Program, dict[int, str]]:
    """The op and its vjp for an incoming gradient; returns also the gradient's name by input. A loss needs none."""
    p = case.program()
    b = Builder(p.values, p.initial)
    b.ops.extend(p.train_step)
    (op,) = p.train_step
    incoming = b.value("seed", p.values[op.outputs[0]].type, Role.CONST, data=seed)
    grads = spec(case.kind).vjp(b, op, [incoming, *(None for _ in op.outputs[1:])])
    return verify(p.with_(values=b.values, initial=b.initial, train_step=tuple(b.ops))), {
        i: name for i, name in enumerate(grads) if name is not None
    }


@pytest.mark.parametrize("case", [c for c in OP_CASES if spec(c.kind).differentiable], ids=str)
def test_gradient_against_finite_differences(case: OpCase) -> None:
    """Of a random linear functional of the first output, in float64, for every element of every input."""
    shape, step = case.infer()[0].shape, 1e-5
    loss = shape == (1,) and case.case.inputs[0].shape != (1,)
    seed = np.ones(shape) if loss else np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    program, names = with_gradient(case, seed)
    values = Interpreter(program).run("train_step", {})
    inputs = wide(case.draw())
    wanted = [i for i in spec(case.kind).differentiable if i < len(inputs)]
    assert wanted == sorted(names)
    for i in wanted:
        slope = np.empty(inputs[i].shape)
        for j in np.ndindex(slope.shape):
            ends = []
            for sign in (1, -1):
                moved = [x.copy() if k == i else x for k, x in enumerate(inputs)]
                moved[i][j] += sign * step
                ends.append(float((spec(case.kind).reference(moved, case.case.attrs)[0] * seed).sum()))
            slope[j] = (ends[0] - ends[1]) / (2 * step)
        error = np.abs(slope - values[names[i]]).max() / max(np.abs(slope).max(), 1e-3)
        assert error <= 1e-6, f"input {i}: {error}"


def test_unknown_op_names_the_nearest() -> None:
    with pytest.raises(LowerError, match="'conv2d'"):
        spec("conv2s")


def test_a_kind_is_registered_once() -> None:
    class Impostor(Elementwise):
        kind = "relu"

    with pytest.raises(LowerError, match="'relu' is registered twice"):
        register(Impostor())


def test_a_label_is_compared_never_an_index() -> None:
    """So a label outside the classes cannot make generated code read other memory."""
    for case in (c for c in OP_CASES if c.kind in ("cross_entropy", "cross_entropy_grad")):
        assert not re.findall(r"\w\[[^]]*label[^]]*\[", CompiledCase(case, Tiling(), fma=False).kernel.body)
