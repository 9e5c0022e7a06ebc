"""The Program: its text is its identity, and it cannot be changed in place."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from cases import NETWORKS, compiled, mlp

from strop.compiler.dtypes import INT32
from strop.compiler.ir import Builder, Op, Program, Role, TensorType, flatten
from strop.compiler.ops.base import f32
from strop.compiler.optim import SGD
from strop.compiler.rules import Backprop

TEXT = """\
program mlp {fma=False}
  input x: float32[1,7]
  param l0.weight: float32[5,7] = 4dd8
  param l0.bias: float32[5] = d4ee
  act l0: float32[1,5]
  act l1: float32[1,5]
  param l2.weight: float32[4,5] = 8aee
  param l2.bias: float32[4] = e5ac
  act l2: float32[1,4]

train_step ->  {
}

infer -> l2 {
  l0 = dense(x, l0.weight, l0.bias)
  l1 = tanh(l0)
  l2 = dense(l1, l2.weight, l2.bias)
}
"""


def without_digests(text: str) -> list[str]:
    return [line.split(" = ")[0] if line.startswith("  param") else line for line in text.splitlines()]


def test_text_shows_every_value_and_op_on_a_line() -> None:
    assert without_digests(mlp().text) == without_digests(TEXT)


def test_a_fused_op_shows_its_body() -> None:
    text = compiled(mlp(), Backprop(), "cross_entropy", SGD()).text
    assert (
        "  l1 = fused(x, l0.weight, l0.bias) {\n    l0 = dense(x, l0.weight, l0.bias)\n    l1 = tanh(l0)\n  }\n" in text
    )


def other_attribute(p: Program) -> Program:
    ops = [replace(op, attrs={**op.attrs, "lr": 0.25}) if op.kind == "sgd" else op for op in p.train_step]
    return p.with_(train_step=tuple(ops))


CHANGES: dict[str, Callable[[Program], Program]] = {
    "an attribute": other_attribute,
    "one bit of a weight": lambda p: p.with_(
        initial={**p.initial, "l0.bias": np.nextafter(p.initial["l0.bias"], np.float32(9))}
    ),
    "rounding": lambda p: p.with_(fma=True),
    "order": lambda p: p.with_(train_step=(*p.train_step[:-2], p.train_step[-1], p.train_step[-2])),
    "a role": lambda p: p.with_(values={**p.values, "l0.bias": replace(p.values["l0.bias"], role=Role.CONST)}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_hash_names_everything_that_changes_a_result(change: Callable[[Program], Program]) -> None:
    p = Backprop().apply(mlp(), "cross_entropy", SGD(lr=0.5))
    assert len(p.hash) == 16
    assert p.hash == Backprop().apply(mlp(), "cross_entropy", SGD(lr=0.5)).hash
    assert change(p).hash != p.hash


def test_nothing_can_be_changed_in_place() -> None:
    p = mlp()
    with pytest.raises(FrozenInstanceError):
        p.output = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        p.values["x"] = p.values["l0"]  # type: ignore[index]
    with pytest.raises(TypeError):
        p.infer[0].attrs["lr"] = 1  # type: ignore[index]


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_is_the_inputs_leading_axis(name: str) -> None:
    assert NETWORKS[name](3).batch == 3


def test_pruned_drops_what_no_op_mentions_but_not_the_interface() -> None:
    p = (
        Backprop()
        .apply(mlp(), "cross_entropy", SGD())
        .with_(train_step=(), loss="", infer=mlp().infer[:1], output="l0")
    )
    assert set(p.pruned().values) == {"x", "y", "l0", "l0.weight", "l0.bias"}
    assert set(p.pruned().initial) == {"l0.weight", "l0.bias"}


def test_attributes_compare_in_any_order() -> None:
    assert Op("sgd", ("w", "g"), ("w",), {"lr": 1.0, "weight_decay": 0.0}) == Op(
        "sgd", ("w", "g"), ("w",), {"weight_decay": 0.0, "lr": 1.0}
    )


def test_flatten_goes_into_fused_ops() -> None:
    p = compiled(mlp(), Backprop(), "cross_entropy", SGD())
    assert {"fused", "dense", "tanh", "sgd"} <= {op.kind for op in flatten(p.train_step)}


def test_builder_gives_fresh_names_and_inferred_types() -> None:
    b = Builder({})
    b.value("x", f32(2, 3), Role.INPUT)
    assert [b.emit1("relu", ["x"], "y") for _ in range(3)] == ["y", "y.2", "y.3"]
    assert b.values["y.3"].type == f32(2, 3)


def test_sizes() -> None:
    assert (TensorType((3, 5), INT32).size, TensorType((3, 5), INT32).bytes) == (15, 60)
