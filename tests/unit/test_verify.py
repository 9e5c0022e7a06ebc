"""One broken Program for every rule of the IR: refused, with the sentence that says which rule."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import NETWORKS, mlp

from strop.compiler.ir import Attr, Op, Program, Role, Value
from strop.compiler.ops.base import f32
from strop.compiler.optim import SGD
from strop.compiler.rules import Backprop
from strop.compiler.verify import verify
from strop.errors import VerifyError


def trained() -> Program:
    return Backprop().apply(mlp(), "cross_entropy", SGD())


def values(p: Program, **changes: Any) -> Program:
    """The Program with one value ("weight" is `l0.weight`) changed."""
    name = changes.pop("name_", "l0.weight")
    return p.with_(values={**p.values, name: replace(p.values[name], **changes)})


def contents(p: Program, data: Any) -> Program:
    return p.with_(initial={**p.initial, "l0.weight": data})


def act(p: Program, name: str, *shape: int, role: Role = Role.ACT) -> Program:
    return p.with_(values={**p.values, name: Value(name, f32(*shape), role)})


def train(p: Program, *ops: Op) -> Program:
    return p.with_(train_step=(*p.train_step, *ops))


def infer(p: Program, ops: Sequence[Op]) -> Program:
    return p.with_(infer=tuple(ops))


def relu(source: str, to: str) -> Op:
    return Op("relu", (source,), (to,))


def sgd(weight: str, grad: str, to: str) -> Op:
    return Op("sgd", (weight, grad), (to,), {"lr": 0.1, "weight_decay": 0.0})


def fused(inputs: Sequence[str], outputs: Sequence[str]) -> Program:
    """`relu(relu(l0))` as one op with the given signature."""
    p = act(act(trained(), "a", 1, 5), "b", 1, 5)
    return train(p, Op("fused", tuple(inputs), tuple(outputs), body=(relu("l0", "a"), relu("a", "b"))))


TARGET: dict[str, Attr] = {"units": 5, "classes": 4, "seed": 0, "tensor": 0, "low": 0.0, "high": 1.0}

BROKEN: dict[str, tuple[Callable[[], Program], str]] = {
    "name": (lambda: values(trained(), name="other"), "value 'other' is filed under 'l0.weight'"),
    "shape": (lambda: act(trained(), "a", 0, 3), "a has an empty shape (0, 3)"),
    "no contents": (lambda: trained().with_(initial={}), "l0.weight has no initial contents"),
    "contents' shape": (
        lambda: contents(trained(), np.zeros(3, np.float32)),
        "l0.weight is (5, 7), its contents are (3,)",
    ),
    "contents' dtype": (
        lambda: contents(trained(), np.zeros((5, 7))),
        "l0.weight is float32, its contents float64",
    ),
    "output": (lambda: trained().with_(output="nowhere"), "the output 'nowhere' is not a value"),
    "unknown op": (
        lambda: train(act(trained(), "a", 1, 5), Op("rleu", ("l0",), ("a",))),
        "no op is called 'rleu'",
    ),
    "reads no value": (lambda: train(trained(), relu("nowhere", "l0")), "relu reads 'nowhere', which is not a value"),
    "reads too early": (
        lambda: infer(trained(), trained().infer[::-1]),
        "dense reads 'l1' before it is computed",
    ),
    "infer reads the label": (
        lambda: infer(act(trained(), "t", 1, 5), [*trained().infer, Op("random_target", ("y",), ("t",), TARGET)]),
        "random_target reads 'y' before it is computed",
    ),
    "infer overwrites": (
        lambda: infer(trained(), [*trained().infer, sgd("l0.bias", "l0.bias", "l0.bias")]),
        "infer overwrites ['l0.bias']",
    ),
    "other type": (
        lambda: train(act(trained(), "a", 5, 1), relu("l0", "a")),
        "relu -> a gives float32[1,5], not float32[5,1]",
    ),
    "other number of results": (
        lambda: train(act(trained(), "a", 1, 5), Op("relu", ("l0",), ("a", "a"))),
        "relu -> a, a gives float32[1,5], not",
    ),
    "wrong operands": (
        lambda: train(act(trained(), "a", 1, 5), Op("dense", ("l0",), ("a",))),
        "dense -> a cannot take float32[1,5]",
    ),
    "not in place": (
        lambda: train(trained(), sgd("l0.bias", "l0.bias", "l2.bias")),
        "sgd -> l2.bias gives float32[5], not float32[4]",
    ),
    "not in place, same type": (
        lambda: train(values(trained(), name_="l2.bias", type=f32(4)), sgd("l2.bias", "l2.bias", "d_l2.bias")),
        "sgd must write 'l2.bias' in place, not 'd_l2.bias'",
    ),
    "overwrites an activation": (
        lambda: train(trained(), sgd("d_l0.bias", "l0.bias", "d_l0.bias")),
        "sgd overwrites 'd_l0.bias', which is no variable",
    ),
    "overwritten twice": (
        lambda: train(trained(), sgd("l0.bias", "l0.bias", "l0.bias")),
        "'l0.bias' is overwritten twice",
    ),
    "computed twice": (lambda: train(trained(), relu("l0", "l1")), "'l1' is computed twice"),
    "reads what was taken over": (
        lambda: train(
            act(act(trained(), "a", 1, 5), "b", 1, 5), replace(relu("l0", "a"), attrs={"over": "l0"}), relu("l0", "b")
        ),
        "relu reads 'l0' before it is computed",
    ),
    "writes an input": (
        lambda: train(act(trained(), "a", 1, 5, role=Role.INPUT), relu("l0", "a")),
        "'a' is computed twice",
    ),
    "no result": (lambda: trained().with_(loss="nowhere"), "the result 'nowhere' is never computed"),
    "fused reads more": (lambda: fused(("l0", "x"), ("b",)), "fused ('b',) reads ['l0'] but lists ['l0', 'x']"),
    "fused reads less": (lambda: fused((), ("b",)), "fused ('b',) reads ['l0'] but lists []"),
    "fused computes less": (lambda: fused(("l0",), ("b", "l1")), "fused ('b', 'l1') does not compute all it lists"),
    "fused hides": (
        lambda: train(act(fused(("l0",), ("b",)), "c", 1, 5), relu("a", "c")),
        "relu reads 'a' before it is computed",
    ),
}


@pytest.mark.parametrize(("make", "sentence"), BROKEN.values(), ids=BROKEN)
def test_refused(make: Callable[[], Program], sentence: str) -> None:
    with pytest.raises(VerifyError) as error:
        verify(make(), "some pass")
    assert sentence in error.value.what
    assert "(after some pass)" in str(error.value)


def test_scratch_may_be_written() -> None:
    verify(train(act(trained(), "a", 1, 5, role=Role.SCRATCH), relu("l0", "a")))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("batch", [1, 3])
def test_sound_programs_pass(name: str, batch: int) -> None:
    p = NETWORKS[name](batch)
    assert verify(p) is p


def test_reading_a_variable_after_its_update_is_sound() -> None:
    p = trained()
    verify(train(act(p, "a", 5), relu("l0.bias", "a")))


def test_a_program_without_stage_is_named() -> None:
    with pytest.raises(VerifyError, match=r"\(mlp\)"):
        verify(mlp().with_(output="nowhere"))
