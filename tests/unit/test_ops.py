"""Every op against an independent formula, its own shapes, and its own gradient."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import OP_CASES, Array, CompiledCase, OpCase
from torch import Tensor

from strop.compiler import rng as generator
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Builder, Program, Role
from strop.compiler.ops import register, spec, specs
from strop.compiler.ops.base import Elementwise, OpSpec
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


def conv_dx(dy: Tensor, w: Tensor, a: Attrs) -> Tensor:
    x = torch.zeros(len(dy), w.shape[1] * a["groups"], *a["image"], dtype=dy.dtype)
    return pull(lambda x: F.conv2d(x, w, **conv(a)), x, dy)


def conv_dw(dy: Tensor, x: Tensor, a: Attrs) -> Tensor:
    w = torch.zeros(dy.shape[1], x.shape[1] // a["groups"], *a["kernel"], dtype=dy.dtype)
    return pull(lambda w: F.conv2d(x, w, **conv(a)), w, dy)


def conv_dw_pooled(dq: Tensor, index: Tensor, x: Tensor, a: Attrs) -> Tensor:
    """The weight gradient of the error that the pool's gradient spreads over the image."""
    names = ("kernel", "stride", "padding")
    image = F.conv2d(x[:, :1], torch.zeros(1, 1, *a["kernel"], dtype=x.dtype), None, a["stride"], a["padding"]).shape[
        2:
    ]
    return conv_dw(max_pool_grad(dq, index, {"image": image, **{n: a[f"pool_{n}"] for n in names}}), x, a)


def avg_pool_grad(dy: Tensor, a: Attrs) -> Tensor:
    return pull(lambda x: F.avg_pool2d(x, *pool(a)), torch.zeros(*dy.shape[:2], *a["image"], dtype=dy.dtype), dy)


def norm(x: Tensor, gain: Tensor, offset: Tensor, mean: Tensor, inv_std: Tensor) -> Tensor:
    return F.batch_norm(x, mean, inv_std**-2, gain * inv_std.sign(), offset, eps=0)


def softmax_parts(z: Tensor, y: Tensor, a: Attrs) -> list[Tensor]:
    del a
    top = z.max(1, keepdim=True).values
    margin = z.gather(1, y.long()[:, None]) - top
    return [F.cross_entropy(z, y.long())[None], (z - top).exp(), (z.logsumexp(1) - top[:, 0]).exp(), margin[:, 0]]


def half_square(a: Tensor, t: Tensor) -> Tensor:
    return F.mse_loss(a, t, reduction="sum") / (2 * len(a))


def distance(a: Tensor, t: Tensor) -> Tensor:
    return F.l1_loss(a, t, reduction="sum") / len(a)


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


def sgd_step(w: Tensor, g: Tensor, a: Attrs, velocity: Tensor | None = None) -> list[Tensor]:
    """One step of torch.optim.SGD from a given velocity."""
    w = torch.nn.Parameter(w.clone())
    optimizer = torch.optim.SGD([w], a["lr"], momentum=a.get("momentum", 0), weight_decay=a["weight_decay"])
    if velocity is not None:
        optimizer.state[w]["momentum_buffer"] = velocity = velocity.clone()
    w.grad = g.clone()
    optimizer.step()
    return [*([velocity] if velocity is not None else []), w.detach()]


def adam_step(w: Tensor, m: Tensor, v: Tensor, c1: Tensor, c2: Tensor, g: Tensor, a: Attrs) -> list[Tensor]:
    g = g.add(w, alpha=a["weight_decay"])
    m, v = m.lerp(g, 1 - a["beta1"]), v.lerp(g.square(), 1 - a["beta2"])
    return [m, v, w.addcdiv(m / c1, (v / c2).sqrt() + a["eps"], value=-a["lr"])]


FORMULAS: dict[str, Formula] = {
    "dense": lambda x, w, b=None, *, a: F.linear(x, w, b),
    "dense_dx": lambda dy, w, a: pull(lambda x: F.linear(x, w), torch.zeros(len(dy), w.shape[1], dtype=dy.dtype), dy),
    "dense_dw": lambda dy, x, a: pull(
        lambda w: F.linear(a.get("scale", 1) * x, w), torch.zeros(dy.shape[1], x.shape[1], dtype=dy.dtype), dy
    ),
    "bias_grad": lambda dy, a: pull(
        lambda b: b.view(1, -1, *(1,) * (dy.ndim - 2)).expand_as(dy), torch.zeros(dy.shape[1], dtype=dy.dtype), dy
    ),
    "conv2d": lambda x, w, *b, a: F.conv2d(x, w, *b, **conv(a)),
    "conv2d_dx": conv_dx,
    "conv2d_dw": conv_dw,
    "conv2d_dw_pooled": conv_dw_pooled,
    "reshape": lambda x, a: torch.reshape(x, a["shape"]),
    "add": lambda x, y, a: x + y,
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
    "batch_norm": lambda x, gain, offset, mean, s, a: norm(x, gain, offset, mean, s),
    "batch_norm_dx": lambda dy, gain, s, a: pull(lambda x: norm(x, gain, gain, gain, s), dy, dy),
    "batch_norm_dgain": lambda dy, x, mean, s, a: pull(lambda gain: norm(x, gain, mean, mean, s), mean, dy),
    "cross_entropy": softmax_parts,
    "cross_entropy_grad": lambda e, s, y, a: mean_gradient(F.cross_entropy, e.log(), y.long()),
    "mse": lambda z, y, a: F.mse_loss(z, y)[None],
    "mse_grad": lambda z, y, a: mean_gradient(F.mse_loss, z, y),
    "l2": lambda z, t, a: a["strength"] * half_square(z, t)[None],
    "l2_grad": lambda z, t, a: a["strength"] * mean_gradient(half_square, z, t),
    "l1": lambda z, t, a: a["strength"] * distance(z, t)[None],
    "l1_grad": lambda z, t, a: a["strength"] * mean_gradient(distance, z, t),
    "random_target": random_target,
    "random_projection": lambda y, a: y @ projection(a["units"], y.shape[1], a).T * a["scale"],
    "sgd": sgd_step,
    "momentum": lambda w, v, g, a: sgd_step(w, g, a, v),
    "adam": adam_step,
    "bias_correction": lambda c, a: 1 - a["beta"] * (1 - c),
}  # fmt: skip


ROUNDED = {"cross_entropy_grad": 1e-7}
"""Absolute tolerance where drawn inputs depend on each other, exactly in float32 only: `sum` is the sum of `exp`."""


def wide(arrays: list[Array]) -> list[Array]:
    return [x.astype(np.float64) if x.dtype.kind == "f" else x for x in arrays]


def test_every_op_has_cases_and_a_formula() -> None:
    assert {case.kind for case in OP_CASES} == set(specs())
    assert set(FORMULAS) >= set(specs())


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
