"""Passes keep the meaning: every stage of the pipeline computes what the stage before it did, bit by bit."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from cases import NETWORKS, Array, Net, batches, compiled, mlp, stages
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strop.compiler.dtypes import DType
from strop.compiler.interp import Interpreter
from strop.compiler.ir import PERSISTENT, Op, Program, Role, TensorType, flatten
from strop.compiler.liveness import live_bytes
from strop.compiler.ops import spec
from strop.compiler.optim import SGD, Adam, Optimizer
from strop.compiler.passes.fuse import fuse
from strop.compiler.passes.legalize import legalize
from strop.compiler.passes.order import dependencies, order
from strop.compiler.passes.simplify import simplify
from strop.compiler.rules import Backprop, HeadOnly, TpSGD
from strop.compiler.rules.base import Rule
from strop.errors import LegalizeError

ROUNDING = {"hoist", "pooling"}
"""Passes that regroup a sum or a product: equal in exact arithmetic, and to rounding here."""

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": SGD(lr=0.25),
    "decay": SGD(lr=0.25, weight_decay=0.125),
    "momentum": SGD(momentum=0.5),
    "adam": Adam(lr=0.125),
}
RULES = {"backprop": Backprop(), "tpsgd": TpSGD(), "tpsgd-l1": TpSGD("l1"), "head-only": HeadOnly()}


def trace(program: Program, dtype: type[np.floating[Any]], steps: int = 2) -> list[Array]:
    """Losses, outputs and all variables of a few steps and inferences."""
    interpreter, seen = Interpreter(program, dtype), []
    for x, y in batches(program, steps):
        seen += [interpreter.infer(x), np.array(interpreter.train_step(x, y), dtype)]
        seen += [interpreter.memory[value.name].copy() for value in program.of(*PERSISTENT)]
    return seen


def same(name: str, before: Sequence[Array], after: Sequence[Array]) -> None:
    for a, b in zip(before, after, strict=True):
        if name in ROUNDING:
            scale = np.finfo(a.dtype).eps * max(1.0, float(np.abs(a).max()))
            np.testing.assert_allclose(b, a, rtol=64 * np.finfo(a.dtype).eps, atol=64 * scale, err_msg=name)
        else:
            np.testing.assert_array_equal(b, a, err_msg=name)


def check_every_stage(program: Program, rule: Rule, loss: str, optimizer: Optimizer) -> None:
    seen, _ = stages(program, rule, loss, optimizer)
    names = list(seen)[1:]
    for dtype in (np.float32, np.float64):
        traces = {name: trace(seen[name], dtype) for name in names}
        for before, after in pairwise(names):
            same(after, traces[before], traces[after])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_stage_keeps_the_meaning(network: str, optimizer: str, rule: str, batch: int) -> None:
    loss = "mse" if batch == 3 else "cross_entropy"
    check_every_stage(NETWORKS[network](batch), RULES[rule], loss, OPTIMIZERS[optimizer])


ACTIVATIONS = ("relu", "leaky_relu", "relu6", "tanh", "sigmoid")


@st.composite
def networks(draw: st.DrawFn) -> Program:
    """A random small network: convolutions, normalisation, activations, pools and sums, then dense layers."""
    net = Net(draw(st.integers(1, 3)), 8, 7, batch=draw(st.sampled_from([1, 2])), seed=draw(st.integers(0, 9)))
    for _ in range(draw(st.integers(0, 3))):
        net.conv(2 * draw(st.integers(1, 2)), draw(st.sampled_from([1, 3])), padding=1, bias=draw(st.booleans()))
        before = net.at
        for step in draw(st.lists(st.sampled_from(["norm", "act", "skip", "pool", "twice"]), max_size=3)):
            if step == "norm":
                net.norm()
            elif step == "act":
                net.act(draw(st.sampled_from(ACTIVATIONS)))
            elif step == "pool" and net.shape[-1] >= 3:
                net.pool(draw(st.sampled_from(["max_pool2d_argmax", "avg_pool2d"])), 2, draw(st.integers(1, 2)))
                before = net.at
            elif step == "skip":
                net.plus(before)
            elif step == "twice":
                net.plus(net.at)
    net.flatten()
    for _ in range(draw(st.integers(0, 2))):
        net.dense(draw(st.integers(1, 5)), bias=draw(st.booleans())).act(draw(st.sampled_from(ACTIVATIONS)))
    return net.dense(draw(st.integers(2, 4))).program()


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    networks(),
    st.sampled_from(sorted(RULES)),
    st.sampled_from(sorted(OPTIMIZERS)),
    st.sampled_from(["cross_entropy", "mse"]),
)
def test_random_networks_keep_their_meaning(program: Program, rule: str, optimizer: str, loss: str) -> None:
    check_every_stage(program, RULES[rule], loss, OPTIMIZERS[optimizer])


# --- legalize ---------------------------------------------------------------------------------------------------


def test_legalize_refuses_a_dtype_by_the_layers_name() -> None:
    half = DType("float8", "uint8_t", 8, "float32", np.float16)
    p = mlp()
    values = {**p.values, "l1": type(p.values["l1"])("l1", TensorType((1, 5), half), Role.ACT, "l1 (tanh)")}
    with pytest.raises(
        LegalizeError, match=r"has no kernel for float8 on board \(l1 \(tanh\)\)\. Keep the layer in float32"
    ):
        legalize(p.with_(values=values), fma=False, board="board")


@pytest.mark.parametrize("fma", [False, True])
def test_legalize_sets_the_rounding(fma: bool) -> None:
    assert legalize(mlp(), fma=fma, board="board").fma is fma


# --- simplify ---------------------------------------------------------------------------------------------------


def test_the_first_layers_input_gradient_costs_nothing() -> None:
    kinds = [op.kind for op in simplify(Backprop().apply(NETWORKS["cnn"](), "mse", SGD())).train_step]
    assert Counter(kinds)["conv2d_dx"] == 1 == Counter(kinds)["conv2d"] - 1


def test_inference_needs_no_indices() -> None:
    p = simplify(Backprop().apply(NETWORKS["cnn"](), "mse", SGD()))
    assert "max_pool2d" in {op.kind for op in p.infer}
    assert "max_pool2d_argmax" in {op.kind for op in p.train_step}


def test_a_frozen_layer_costs_no_op_behind_the_forward_pass() -> None:
    p = simplify(Backprop(freeze=("l0.*",)).apply(NETWORKS["cnn"](), "mse", SGD()))
    backward = {"conv2d_dw", "sgd", "bias_grad", "conv2d_dx"}
    assert not {op.kind for op in p.train_step if op.loc.startswith("l0 ")} & backward


def test_everything_left_is_read() -> None:
    for rule in RULES.values():
        p = simplify(rule.apply(NETWORKS["residual"](), "mse", SGD()))
        read = {name for op in p.train_step for name in op.inputs} | {p.loss}
        for op in p.train_step:
            assert any(name in read or p.values[name].role in PERSISTENT for name in op.outputs)


# --- fuse -------------------------------------------------------------------------------------------------------


def fused_kinds(program: Program, rule: Rule = RULES["backprop"]) -> set[tuple[str, ...]]:
    final = compiled(program, rule, "cross_entropy", SGD())
    return {tuple(part.kind for part in op.parts) for op in final.train_step if op.body}


def test_no_gradient_of_a_parameter_is_stored_at_batch_1() -> None:
    for make in NETWORKS.values():
        p = compiled(make(), Backprop(), "cross_entropy", SGD())
        shapes = {value.shape for value in p.of(Role.PARAM) if len(value.shape) > 1}
        planned = {name for op in p.train_step for name in op.outputs if p.values[name].role is Role.ACT}
        assert not {name for name in planned if p.values[name].shape in shapes}


def test_activation_joins_its_layer() -> None:
    assert ("dense", "tanh") in fused_kinds(mlp())


def test_a_value_that_others_read_is_kept() -> None:
    """The sigmoid of `residual` feeds a convolution and a sum: it may join, but must still be written."""
    p = compiled(NETWORKS["residual"](), Backprop(), "cross_entropy", SGD())
    joined = next(op for op in p.train_step if op.parts[-1].kind == "sigmoid")
    assert "l1" in joined.outputs


def test_a_variable_is_not_read_after_its_update_by_accident() -> None:
    """An op that reads `w` before an update in the text must not be moved behind it by joining a later op."""
    b = Net(4).dense(4).b
    b.update("sgd", ("l0.bias", "l0.bias"), ("l0.bias",), lr=0.5, weight_decay=0.0)
    late = b.emit1("relu", ("l0",), "late")
    p = Program("p", b.values, (), late, train_step=tuple(b.ops), loss=late, initial=b.initial)
    results = [Interpreter(each).run("train_step", {"x": np.ones((1, 4))}) for each in (p, fuse(p))]
    assert results[0][late].tobytes() == results[1][late].tobytes()


# --- order ------------------------------------------------------------------------------------------------------


def writer_of_each_read(ops: Sequence[Op]) -> dict[tuple[str, str], str]:
    """(op, value it reads) -> the op that wrote it last: what an order must not change."""
    last: dict[str, str] = {}
    reads = {}
    for op in ops:
        for part in op.parts:
            reads.update({(str(part), name): last.get(name, "start") for name in part.inputs})
            last.update(dict.fromkeys(part.outputs, str(part)))
    return reads


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(networks(), st.sampled_from(sorted(RULES)), st.sampled_from(sorted(OPTIMIZERS)))
def test_order_is_a_permutation_that_every_reader_survives(program: Program, rule: str, optimizer: str) -> None:
    before = fuse(simplify(RULES[rule].apply(program, "mse", OPTIMIZERS[optimizer])))
    after = order(before)
    assert Counter(map(str, before.train_step)) == Counter(map(str, after.train_step))
    assert writer_of_each_read(before.train_step) == writer_of_each_read(after.train_step)
    peaks = [max(live_bytes(p, p.train_step, p.results("train_step"))) for p in (before, after)]
    assert peaks[1] <= peaks[0]


def test_order_lets_activations_die_early() -> None:
    """tpSGD holds one layer's activations where backpropagation holds all."""
    net = Net(40)
    for _ in range(6):
        net.dense(40).act("tanh")
    program = net.dense(4).program()
    peaks = {}
    for name in ("backprop", "tpsgd"):
        p = compiled(program, RULES[name], "cross_entropy", SGD())
        peaks[name] = max(live_bytes(p, p.train_step, p.results("train_step")))
    assert peaks["tpsgd"] <= 3 * 160 < 6 * 160 <= peaks["backprop"]


def test_an_overwrite_waits_for_its_readers() -> None:
    p = Backprop().apply(mlp(), "cross_entropy", SGD())
    before = dependencies(p, p.train_step)
    index = {op.outputs[0]: i for i, op in enumerate(p.train_step)}
    assert index["d_l1"] in before[index["l2.weight"]]


# --- the other passes -------------------------------------------------------------------------------------------


def test_pooling_activates_the_largest_only() -> None:
    program = Net(1, 8, 8).conv(2).act("tanh").pool("max_pool2d_argmax").flatten().dense(3).program()
    p = compiled(program, Backprop(), "cross_entropy", SGD())
    kinds = [op.kind for op in flatten(p.train_step) if not op.body]
    assert kinds.index("max_pool2d_argmax") < kinds.index("tanh")
    assert "max_pool2d_grad" not in kinds


def test_reuse_takes_memory_over_from_what_dies_only() -> None:
    for make in NETWORKS.values():
        p = compiled(make(), Backprop(), "cross_entropy", SGD())
        for i, op in enumerate(p.train_step):
            if "over" in op.attrs:
                victim = op.attrs["over"]
                assert victim in op.inputs
                assert not any(victim in later.inputs for later in p.train_step[i + 1 :])
                assert all(spec(part.kind).elementwise for part in op.parts) or op.parts[0].kind == "dense_dx"
