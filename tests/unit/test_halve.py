"""Arithmetic in binary16 in the Program: who gets it, who is refused, and what it costs beside the kernels."""

import numpy as np
import pytest
import torch
from torch import nn

import strop
from strop.compiler.health import SCALE
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Op, Program, flatten
from strop.compiler.precision import Precision, uniform
from strop.errors import LegalizeError
from strop.host.device import twin
from strop.host.reference import reference
from strop.host.validate import validate

VECTORS = "qemu-rv32v"


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(70, 33), nn.ReLU(), nn.Linear(33, 5))


def built(policy: Precision | str, board: str = VECTORS) -> strop.Bundle:
    return strop.build(net(), torch.zeros(1, 70), dtype=policy, board=board)


def kinds(ops: tuple[Op, ...]) -> list[str]:
    return [op.kind for op in flatten(ops)]


def test_a_core_without_such_instructions_is_refused_by_name() -> None:
    with pytest.raises(LegalizeError, match="qemu-rv32imf-zfh cannot sum in float16"):
        built(uniform("float16", sums="float16"), "qemu-rv32imf-zfh")


@pytest.mark.parametrize("policy", ["float32", "bfloat16"])
def test_other_formats_are_left_alone(policy: str) -> None:
    program = built(policy).program
    assert program.half == ""
    assert "copy" not in kinds(program.train_step)


@pytest.mark.parametrize(("sums", "half"), [("float32", "maps"), ("float16", "sums")])
def test_the_text_says_what_is_computed_in_halves(sums: str, half: str) -> None:
    program = built(uniform("float16", sums=sums)).program
    assert f"half={half}" in program.text.splitlines()[0]


def test_the_input_is_copied_once_and_read_as_halves_alone() -> None:
    program = built("float16").program
    for ops in program.functions().values():
        readers = [op.kind for op in ops if "x" in op.inputs]
        assert readers == ["copy"]
    assert program.values["x.half"].dtype.name == "float16"


@pytest.mark.parametrize(("decay", "folded"), [(0.0, True), (0.25, False)])
def test_a_constant_rate_takes_the_scale_of_a_gradient_that_nobody_stores(decay: float, folded: bool) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Flatten(), nn.Linear(8 * 25, 3))
    rate = strop.optim.SGD(lr=0.5, weight_decay=decay)
    bundle = strop.build(model, torch.zeros(1, 4, 5, 5), optimizer=rate, dtype="float16", board=VECTORS)
    update = bundle.files["strop_model.c"].split("_conv2d_dw_sgd(")[1].split("\n}")[0]
    assert ("fnma_fvv(0.00048828125f, " in update) == folded
    assert ("0.0009765625f" in update) != folded


def updates(program: Program) -> list[Op]:
    return [op for op in flatten(program.train_step) if op.kind == "dense_dw"]


def test_an_update_multiplies_the_error_by_the_rate_once_an_output() -> None:
    program = built("float16").program
    assert kinds(program.train_step).count("scale") == 2
    for op in updates(program):
        assert "scale" not in op.attrs
        assert program.values[op.inputs[0]].dtype.name == "float16", "as it is: not times a power of two"


@pytest.mark.parametrize("sums", ["float32", "float16"])
def test_a_scale_that_follows_stays_in_memory(sums: str) -> None:
    """No op mentions it: kernels read it where they store errors."""
    bundle = built(uniform("float16", error_scale="dynamic", sums=sums))
    assert SCALE in bundle.program.values
    rng = np.random.default_rng(4)
    with twin(bundle) as device:
        device.train_step(rng.standard_normal((1, 70)).astype(np.float32), np.array([3], np.int32))
        scale, inverse, steps = device.tensors()[SCALE]
    assert (scale * inverse, steps) == (1, 1)


def test_an_update_that_rounds_otherwise_keeps_its_rate() -> None:
    assert "scale" not in kinds(built(uniform("float16", rounding="carried")).program.train_step)


def test_a_step_is_what_it_is_without() -> None:
    """But for what float16 rounds: the interpreter, which rounds nothing, finds the same parameters."""
    rng = np.random.default_rng(3)
    batch = {"x": rng.standard_normal((1, 70)).astype(np.float32), "y": np.array([2], np.int32)}
    found = []
    for board in (VECTORS, "qemu-rv32imf"):
        interpreter = Interpreter(built("float16", board).program)
        interpreter.run("train_step", batch)
        found.append(interpreter.memory)
    for name, data in found[1].items():
        np.testing.assert_allclose(found[0][name], data, atol=1e-4)


@pytest.mark.parametrize("rule", ["backprop", "tpsgd", "mono-forward"])
def test_sums_in_float16_stay_near_pytorch(rule: str) -> None:
    bundle = strop.build(
        net(), torch.zeros(1, 70), rule=rule, dtype=uniform("float16", sums="float16"), board=VECTORS
    )
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((30, 1, 70)).astype(np.float32), rng.integers(0, 5, (30, 1)).astype(np.int32)
    torch_side = reference(strop.rules.rule_class(rule)(), net(), "cross_entropy", strop.optim.SGD())
    with twin(bundle) as a, twin(bundle) as b:
        assert validate(a, b, torch_side, x[:, 0], y[:, 0]).passed
