"""The C of every op's cases: right within a stated bound, and the same bits for every tiling and compiler.

All kernels go into one library a compiler and format that numbers rest in: cases x tilings x (fused multiply-add or
not). In 16 bits, the bound is that of float32 and half of a last place, for the one rounding when a result is stored.
"""

import ctypes
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cases import KERNEL_INCLUDES, Array, CompiledCase, OpCase, coded, rests
from cbuild import RUNTIME, build_shared, has_compiler
from magnitudes_recurrent import RECURRENT

from strop.compiler.dtypes import BFLOAT16, FLOAT16, FLOAT32, DType
from strop.compiler.ops import spec
from strop.compiler.schedules import Tiling
from strop.host.arrays import real

TILINGS = (Tiling(8, 4), Tiling(1, 1), Tiling(3, 5))
COMPILERS = [cc for cc in ("zig", "gcc") if has_compiler(cc)]
CASES = coded()
UNIT = 2.0**-24
"""Largest relative error of one rounding to float32."""


NARROW = {dtype: [case for case in CASES if rests(case, dtype)] for dtype in (FLOAT16, BFLOAT16)}
RESTING = [pytest.param(dtype, case, id=f"{dtype.name}-{case}") for dtype, cases in NARROW.items() for case in cases]


FUSED = {FLOAT32: (False, True), FLOAT16: (True,), BFLOAT16: (True,)}
"""Whether multiply-adds are fused; what happens at a store does not depend on it."""


def name(case: OpCase, tiling: Tiling, fma: bool) -> str:
    return f"{case}_{tiling.accumulators}_{tiling.unroll}{'_fma' if fma else ''}"


@cache
def library(cc: str, dtype: DType = FLOAT32) -> ctypes.CDLL:
    """Every kernel; warnings are errors."""
    kernels = [
        CompiledCase(case, tiling, fma=fma, dtype=dtype).source(name(case, tiling, fma))
        for case in NARROW.get(dtype, CASES) for tiling in TILINGS for fma in FUSED[dtype]
    ]  # fmt: skip
    return build_shared([KERNEL_INCLUDES + "\n".join(kernels), RUNTIME / "numerics.c"], cc=cc)


def run(case: OpCase, tiling: Tiling, fma: bool, cc: str, dtype: DType = FLOAT32) -> list[Array]:
    """The outputs of one kernel."""
    compiled = CompiledCase(case, tiling, fma=fma, dtype=dtype)
    pointers = [array.ctypes.data for array in compiled.operands]
    library(cc, dtype)[name(case, tiling, fma)]((ctypes.c_void_p * len(pointers))(*pointers))
    return compiled.results


@pytest.mark.parametrize("fma", [False, True], ids=["two-roundings", "fma"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_within_the_bound(case: OpCase, fma: bool) -> None:
    """|C - exact| <= (n + 8) u M: n terms a sum, u = 2^-24, M = what the terms add up to without their signs."""
    inputs = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in case.draw()]
    exact = spec(case.kind).reference(inputs, case.case.attrs)
    for got, want, size in zip(run(case, TILINGS[0], fma, COMPILERS[0]), exact, magnitude(case, inputs), strict=True):
        if got.dtype.kind != "f":
            np.testing.assert_array_equal(got, want)
        else:
            assert np.all(np.abs(got - want) <= (terms(case) + 8) * UNIT * size)


@pytest.mark.parametrize("fma", [False, True], ids=["two-roundings", "fma"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_bits_for_every_tiling_and_compiler(case: OpCase, fma: bool) -> None:
    runs = [run(case, tiling, fma, cc) for tiling in TILINGS for cc in COMPILERS]
    for other in runs[1:]:
        assert [r.tobytes() for r in other] == [r.tobytes() for r in runs[0]]


@pytest.mark.parametrize(("dtype", "case"), RESTING)
def test_what_rests_in_16_bits_is_rounded_once(dtype: DType, case: OpCase) -> None:
    """On inputs that 16 bits hold: float32's bound, and half of a last place where the result rests in 16 bits."""
    resting_types = CompiledCase(case, TILINGS[0], fma=True, dtype=dtype).spec.types
    inputs = [real(x.astype(type_.dtype.numpy)) for x, type_ in zip(case.draw(), resting_types, strict=False)]
    inputs = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in inputs]
    exact = spec(case.kind).reference(inputs, case.case.attrs)
    results = run(case, TILINGS[0], True, COMPILERS[0], dtype)
    for got, want, size in zip(results, exact, magnitude(case, inputs), strict=True):
        if real(got).dtype.kind != "f":
            np.testing.assert_array_equal(got, want)
        else:
            allowed = (terms(case) + 8) * UNIT * size + (half_place(dtype, want) if got.dtype == dtype.numpy else 0)
            assert np.all(np.abs(got.astype(np.float64) - want) <= allowed)


def half_place(dtype: DType, x: Array) -> Array:
    """Half of the distance of neighbours around numbers."""
    info = ml_dtypes.finfo(dtype.numpy)
    return np.maximum(np.abs(x), float(info.smallest_normal)) * float(info.eps) / 2


@pytest.mark.parametrize(("dtype", "case"), RESTING)
def test_same_bits_in_16_bits_for_every_tiling_and_compiler(dtype: DType, case: OpCase) -> None:
    runs = [run(case, tiling, True, cc, dtype) for tiling in TILINGS for cc in COMPILERS]
    for other in runs[1:]:
        assert [r.tobytes() for r in other] == [r.tobytes() for r in runs[0]]


def terms(case: OpCase) -> int:
    """Terms of the longest sum."""
    inputs, outputs = case.case.inputs, case.infer()
    macs = spec(case.kind).macs(inputs, outputs, case.case.attrs)
    return -(-(macs or max((t.size for t in inputs), default=1)) // min(t.size for t in outputs))


def magnitude(case: OpCase, inputs: list[Array]) -> list[Array]:
    """What an output's terms add up to without their signs: the reference on absolute values where it has no minus."""
    absolute = [np.abs(x) if x.dtype.kind == "f" else x for x in inputs]
    special = MAGNITUDES.get(case.kind)
    return special(*absolute, a=case.case.attrs) if special else spec(case.kind).reference(absolute, case.case.attrs)


def plus(kind: str) -> Callable[..., list[Array]]:
    """The reference with the second operand's sign turned, for ops that subtract it."""
    return lambda x, y, *rest, a: spec(kind).reference([x, -y, *rest], a)


def batch_norm(x: Array, gain: Array, offset: Array, mean: Array, inv_std: Array, a: Mapping[str, Any]) -> list[Array]:
    return spec("batch_norm").reference([x, gain, offset, -mean, inv_std], a)


def normalize(x: Array, gain: Array, offset: Array, a: Mapping[str, Any]) -> list[Array]:
    """x - mean does not cancel, and its relative error is the deviation's; absolute values deviate less than signed."""
    y, mean, inv_std = spec("normalize").reference([x, gain, offset], a)
    widest = 1 + 2 * x.max() * inv_std.max()
    return [widest * (gain.max() * widest + offset.max()) * np.ones_like(y), mean, widest * inv_std]


def normalize_dx(dy: Array, x: Array, gain: Array, mean: Array, inv_std: Array, a: Mapping[str, Any]) -> list[Array]:
    """Each of the three terms at its largest."""
    del a
    g, centred = dy.max() * gain.max(), x.max() + mean.max()
    slope = g * centred * inv_std**2
    return [inv_std.max() * (2 * g + centred * slope.max()) * np.ones_like(x), g * np.ones_like(mean), slope]


def cross_entropy(z: Array, y: Array, a: Mapping[str, Any]) -> list[Array]:
    """exp magnifies an absolute error of its argument, at most twice the largest logit, into a relative one."""
    del y, a
    widest = 1 + 2 * z.max(1, keepdims=True)
    e = widest * np.ones_like(z)
    return [np.array([2 * z.shape[1] * widest.max()]), e, e.sum(1), widest[:, 0]]


def cosine(x: Array, t: Array, a: Mapping[str, Any]) -> list[Array]:
    """1 - cos is at most 2, and its terms no larger than that together."""
    _, *rows = spec("cosine").reference([x, t], a)
    return [np.array([2 * a["strength"]]), *rows]


LR = 0.3
"""The largest rate that a case has."""


def sgd(w: Array, g: Array, *_: Array, a: Mapping[str, Any]) -> list[Array]:
    return [w + abs(a.get("lr", LR)) * (g + a["weight_decay"] * w)]


def momentum(w: Array, v: Array, g: Array, *_: Array, a: Mapping[str, Any]) -> list[Array]:
    v = a["momentum"] * v + g + a["weight_decay"] * w
    return [v, w + a.get("lr", LR) * v]


def adam(w: Array, m: Array, v: Array, c1: Array, c2: Array, g: Array, *_: Array, a: Mapping[str, Any]) -> list[Array]:
    ungated = {name: value for name, value in a.items() if name != "every"}
    m, v, _ = spec("adam").reference([w, m, v, c1, c2, g], {**ungated, "lr": LR})
    return [m, 2 * v, w + a.get("lr", LR) * (m / c1) / (np.sqrt(v / c2) / 2 + a["eps"])]


def lion(w: Array, m: Array, g: Array, *_: Array, a: Mapping[str, Any]) -> list[Array]:
    return [w + a.get("lr", LR) * (1 + a["weight_decay"] * w), a["beta2"] * m + (1 - a["beta2"]) * g]


def contrast(g: Array, *activity: Array, a: Mapping[str, Any]) -> list[Array]:
    """softplus is at most its argument and log 2."""
    spread = a["peer"] * np.square(activity[0] + activity[0].mean()).mean() if activity else 0
    return [np.array([g.max() + a["threshold"] + 1 + spread])]


def by_chance(update: Callable[..., list[Array]], weight: int) -> Callable[..., list[Array]]:
    """Rounding by chance moves the weight by less than a last place, whichever side an error of the rest leads to.

    Which side it is, and how likely, is what the conversions' own tests are for.
    """

    def magnitudes(n: Array, *operands: Array, a: Mapping[str, Any]) -> list[Array]:
        del n
        sizes = update(*operands, a=a)
        sizes[weight] = sizes[weight] * LAST_PLACE[a["dtype"]]
        return sizes

    return magnitudes


def with_rest(update: Callable[..., list[Array]], weight: int) -> Callable[..., list[Array]]:
    """What is left of a weight, likewise."""

    def magnitudes(rest: Array, w: Array, *operands: Array, a: Mapping[str, Any]) -> list[Array]:
        sizes = update(w + rest, *operands, a=a)
        return [*sizes, sizes[weight] * LAST_PLACE[a["dtype"]]]

    return magnitudes


LAST_PLACE = {"float16": 2**11, "bfloat16": 2**14}
"""A last place in 16 bits over (n + 8) u, at least, with n = 0."""
UPDATES = {"sgd": (sgd, 0), "momentum": (momentum, 1), "adam": (adam, 2), "lion": (lion, 0)}
"""Updates, and which of their results is the weight."""


MAGNITUDES: dict[str, Callable[..., list[Array]]] = {
    **RECURRENT,
    "tanh_grad": lambda dy, y, a: [dy * (1 + y * y)],
    "sigmoid_grad": lambda dy, y, a: [dy * y * (1 + y)],
    "sigmoid": lambda x, a: [np.ones_like(x)],
    "leaky_relu": lambda x, a: [x],
    "leaky_relu_grad": lambda dy, y, a: [dy],
    "batch_norm": batch_norm,
    "normalize": normalize, "normalize_dx": normalize_dx,
    "normalize_dgain": lambda dy, x, mean, s, a: spec("normalize_dgain").reference([dy, x, -mean, s], a),
    "sub": plus("sub"), "negative": lambda x, a: [x],
    "softmax": lambda x, a: [(1 + 2 * x.max()) * np.ones_like(x)] * 2,
    "softmax_grad": lambda dy, y, a: [y * (dy + (dy * y).sum(-1, keepdims=True))],
    "log_softmax": lambda x, a: [4 * x.max() * np.ones_like(x), x.shape[-1] * np.ones(x.shape[:-1])],
    "log_softmax_grad": lambda dy, y, a: [dy + np.exp(-y) * (1 + y) * dy.sum(-1, keepdims=True)],
    "batch_norm_dgain": lambda dy, x, mean, s, a: spec("batch_norm_dgain").reference([dy, x, -mean, s], a),
    "cross_entropy": cross_entropy,
    "cross_entropy_grad": lambda e, s, y, a: [(e / s[:, None] + (np.arange(e.shape[1]) == y[:, None])) / len(y)],
    "mse": plus("mse"), "mse_grad": plus("mse_grad"), "l2": plus("l2"), "l2_grad": plus("l2_grad"), "l1": plus("l1"),
    "l1_grad": lambda x, t, a: [np.ones_like(x)],
    "huber": lambda x, t, a: [np.array([2 * a["delta"] * a["strength"] * (x + t).sum()])],
    "huber_grad": lambda x, t, a: [(x + t) * a["strength"]],
    "cosine": cosine, "cosine_grad": lambda x, t, *rows, a: spec("cosine_grad").reference([x, -t, *rows], a),
    "bce": lambda z, y, a: spec("mse").reference([np.sqrt(1 + z + z * y), 0 * y], a),
    "bce_grad": lambda z, y, a: [(1 + y) / y.size],
    "random_dense": lambda x, a: [np.repeat(x.sum(1, keepdims=True), a["units"], 1) * a["scale"]],
    "random_target": lambda y, a: [np.ones((len(y), a["units"]))],
    "random_projection": lambda y, a: [np.repeat(y.sum(1, keepdims=True), a["units"], 1) * a["scale"]],
    **{kind: size for kind, (size, _) in UPDATES.items()},
    **{f"{kind}_stochastic": by_chance(*update) for kind, update in UPDATES.items()},
    **{f"{kind}_carried": with_rest(*update) for kind, update in UPDATES.items()},
    "accumulate": lambda s, g, phase, a: [s + g / a["every"]],
    "contrast": contrast, "contrast_grad": lambda g, a: [(1 + a["threshold"] + g) / len(g)],
    "peer_grad": lambda m, a: [2 * a["peer"] / len(m) * (m + m.mean())],
    "modulate": lambda x, e, a: [x + a["scale"] * a["strength"] * e.sum(1).max()],
    "gap": lambda z, clean, moved, a: spec("gap").reference([z, clean, -moved], a), "gap_grad": plus("gap_grad"),
    "replay_draw": lambda new, kept, *rest, a: spec("replay_draw").reference([new, np.abs(kept * 1.0), *rest], a),
    "class_mean": lambda mean, f, y, nth, a: spec("class_mean").reference([mean, f + 2 * mean.max(), y, nth], a),
    "class_priority": lambda seen, y, step, a: [np.ones((len(y), len(seen)))],
    "pseudo_features": lambda f, y, choice, mean, a: [
        f.max() + 2 * mean.max() * np.ones((len(y) + len(choice), 1)), None,
    ],
}  # fmt: skip
