"""The instruction bound: the figures it promises, counted by hand, and that every op has one."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import NETWORKS, OP_CASES, Net, OpCase, compiled, stages
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.compiler.dtypes import UINT8
from strop.compiler.ir import Op, Program, TensorType
from strop.compiler.kernels import needs_code
from strop.compiler.ops.base import Case, f32
from strop.compiler.optim import SGD
from strop.compiler.rules import Backprop
from strop.host.bounds import bound, bounds
from strop.host.layers import LAYERS, nets, step_of
from strop.host.profile import KernelCost, Profile

IMAGE = (9, 7)


def of(kind: str, *types: TensorType, **attrs: Any) -> float:
    program = OpCase(kind, 0, Case(types, attrs)).program()
    return bound(program, program.train_step[0])


def convolution(x: TensorType, w: TensorType, padding: int = 0, stride: int = 1) -> dict[str, Any]:
    size = [(n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[2:], w.shape[2:], strict=True)]
    attrs = {"stride": (stride,) * 2, "padding": (padding,) * 2, "groups": 1}
    return {"dy": f32(x.shape[0], w.shape[0], *size), "attrs": attrs, "taps": taps(size, w.shape[2:], x, attrs)}


def taps(size: Sequence[int], kernel: Sequence[int], x: TensorType, attrs: dict[str, Any]) -> int:
    """Multiply-accumulates of one pair of channels that touch the image, counted one by one."""
    found = 0
    for h, v, k, m in np.ndindex(*size, *kernel):
        (sh, sw), (ph, pw) = attrs["stride"], attrs["padding"]
        found += 0 <= h * sh + k - ph < x.shape[2] and 0 <= v * sw + m - pw < x.shape[3]
    return found


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 32), (9, 5)])
def test_a_dense_layer_takes_two_a_weight(inputs: int, outputs: int) -> None:
    loads, adds, stores = inputs * outputs + inputs + outputs, outputs, outputs
    assert of("dense", f32(1, inputs), f32(outputs, inputs), f32(outputs)) == inputs * outputs + loads + adds + stores


def test_updates_take_three_and_with_the_input_gradient_four_a_weight() -> None:
    program = compiled(Net(700).dense(300).dense(500).program(), Backprop(), "mse", SGD(lr=0.1), board="qemu-rv32imf")
    found = {step_of(op): bound(program, op) for op in program.train_step if any("_dw" in p.kind for p in op.parts)}
    assert found["weight-gradient"] / (700 * 300) == pytest.approx(3, rel=0.01)
    assert found["input-gradient and weight-gradient"] / (300 * 500) == pytest.approx(4, rel=0.01)


@given(size=st.integers(2, 4), padding=st.integers(0, 2), stride=st.integers(1, 2))
@settings(max_examples=12, deadline=None)
def test_a_convolution_counts_what_lies_in_the_image(size: int, padding: int, stride: int) -> None:
    x, w = f32(1, 8, *IMAGE), f32(4, 8, size, size)
    c = convolution(x, w, padding, stride)
    products = 8 * 4 * c["taps"] * (1.375 if (size, stride) == (3, 1) else 1.5)
    assert of("conv2d", x, w, **c["attrs"]) == pytest.approx(products + c["dy"].size)
    assert of("conv2d_dx", c["dy"], w, **c["attrs"], image=IMAGE) == pytest.approx(products + x.size)
    kernel = {"kernel": (size, size)}
    assert of("conv2d_dw", c["dy"], x, **c["attrs"], **kernel) == pytest.approx(products + w.size)


def test_a_pooled_weight_gradient_takes_a_quarter() -> None:
    x, pool = f32(1, 3, 10, 10), {"pool_kernel": (2, 2), "pool_stride": (2, 2), "pool_padding": (0, 0)}
    attrs = {"stride": (1, 1), "padding": (0, 0), "groups": 1, "kernel": (3, 3)}
    full = of("conv2d_dw", f32(1, 8, 8, 8), x, **attrs)
    index = TensorType((1, 8, 4, 4), UINT8)
    spread = of("conv2d_dw_pooled", f32(1, 8, 4, 4), index, x, **attrs, **pool)
    stores = 8 * 3 * 9
    assert spread - stores - index.size == pytest.approx((full - stores) / 4)


def test_element_by_element() -> None:
    assert of("add", f32(1, 11), f32(1, 11)) == 11 * (2 + 1 + 1)
    assert of("relu", f32(1, 11)) == 11 * (1 + 1 + 1)
    assert of("sgd", f32(3, 5), f32(3, 5), lr=0.1, weight_decay=0.0) == 15 * (2 + 1 + 1), "a product and a sum: one fma"
    assert of("relu_grad", f32(1, 11), f32(1, 11)) == 11 * (2 + 2 + 1), "a comparison and a choice"


def test_what_is_written_twice_counts_once() -> None:
    differences, products = 11, 11  # (z - y) * (z - y), summed
    assert of("mse", f32(1, 11), f32(1, 11)) == 2 * 11 + differences + products + 1 + 1


def test_what_does_not_change_in_a_loop_is_counted_outside() -> None:
    channels, size = 3, 3 * 5 * 7
    loads, products, stores = size + 2 * channels, size + channels, size
    assert of("batch_norm_dx", f32(1, 3, 5, 7), f32(channels), f32(channels)) == loads + products + stores


PARTIAL = {"replay_store", "class_count", "class_mean"}
"""Ops that write a few rows of what they overwrite."""


@pytest.mark.parametrize("case", OP_CASES, ids=str)
def test_every_op_has_a_bound(case: OpCase) -> None:
    program = case.program(fma=True)
    op = program.train_step[0]
    if needs_code(op):
        stores = 0 if case.kind in PARTIAL else sum(type_.size for type_ in case.infer())
        assert stores <= bound(program, op) and isfinite(bound(program, op))


def separately(program: Program, op: Op) -> float:
    """The bounds of a fused op's parts, each with its results in memory."""
    return sum(bound(program, part) for part in op.parts)


@pytest.mark.parametrize("net", NETWORKS)
def test_fusing_never_costs(net: str) -> None:
    program = compiled(NETWORKS[net](), Backprop(), "cross_entropy", SGD(lr=0.1), board="qemu-rv32imf")
    fused = [op for op in program.train_step if op.body]
    assert fused
    for op in fused:
        assert bound(program, op) < separately(program, op)


@pytest.mark.parametrize(("board", "known"), [("qemu-rv32imf", True), ("qemu-rv32imac", False), ("host", False)])
def test_only_a_core_with_fma_has_bounds(board: str, known: bool) -> None:
    _, bundle = stages(NETWORKS["mlp"](), Backprop(), "cross_entropy", SGD(lr=0.1), board=board)
    found = bounds(bundle)
    assert len(found) == len(bundle.manifest["kernels"])
    assert all((least is not None) is known for least in found)


def test_layers_are_measured_with_and_without_one_in_front() -> None:
    assert len(nets()) == 2 * len(LAYERS)
    assert step_of(Op("dense", (), ())) == "forward"
    parts = (Op("dense_dx", (), ()), Op("dense_dw", (), ()), Op("sgd", (), ()))
    assert step_of(Op("fused", (), (), body=parts)) == "input-gradient and weight-gradient"
    assert step_of(Op("fused", (), (), body=parts[1:])) == "weight-gradient"


def test_a_profile_says_how_far_from_the_bound(tmp_path: Path) -> None:
    layer = KernelCost("layer0_dense", "0 (Linear)", 240.0, 100, 200.0)
    loss = KernelCost("cross_entropy", "", 30.0, 0, 10.0)
    found = Profile(270.0, 260, 280, 2, 100, (layer, loss))
    document = found.to_json()
    assert document["bound"] == 210
    assert [(k["instructions_per_mac"], k["ratio"]) for k in document["kernels"]] == [(2.4, 1.2), (None, 3.0)]
    found.draw(tmp_path / "kernels.png")
    assert (tmp_path / "kernels.png").read_bytes().startswith(b"\x89PNG")
