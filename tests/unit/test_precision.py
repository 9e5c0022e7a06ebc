"""Precision policies: what they say, what is refused and how, what the twin makes of them, what validate catches."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import strop
from strop.compiler.dtypes import BFLOAT16, DTYPES, FLOAT16, FLOAT32, DType
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Role
from strop.compiler.ops import spec
from strop.compiler.passes.narrow import REST, STEP
from strop.compiler.precision import Precision, precision, uniform
from strop.errors import LegalizeError, StropError, UsageError
from strop.host.arrays import real
from strop.host.cli import run
from strop.host.reference import reference
from strop.host.tolerance import known, rests, storage
from strop.host.validate import Verdict, validate
from strop.host.zoo import MODELS

Array = NDArray[Any]
NARROW = ("float16", "bfloat16")


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 4)
    )


def batches(count: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(2)
    return rng.standard_normal((count, 2, 6, 7)).astype(np.float32), rng.integers(0, 4, count).astype(np.int32)


def built(policy: Precision | str, **settings: Any) -> strop.Bundle:
    return strop.build(net(), torch.zeros(1, 2, 6, 7), dtype=policy, **settings)


# --- policies


def test_a_policy_says_what_differs() -> None:
    assert str(uniform("float16")) == "float16"
    assert str(Precision()) == "float32"
    assert str(uniform("bfloat16", rounding="carried")) == "bfloat16, rounding=carried"
    assert not Precision().narrows
    assert Precision(activations="float16").narrows


def test_bfloat16_rounds_by_chance_unless_a_policy_says_otherwise() -> None:
    kinds = {
        (dtype, rounding): {part.kind for op in built(uniform(dtype, rounding=rounding)).program.train_step
                            for part in op.parts if part.kind.startswith("sgd")}
        for dtype in NARROW for rounding in (None, "nearest", "carried")
    }  # fmt: skip
    assert kinds[("bfloat16", None)] == {"sgd_stochastic"}
    assert kinds[("float16", None)] == kinds[("bfloat16", "nearest")] == {"sgd"}
    assert kinds[("float16", "carried")] == {"sgd_carried"}


def test_the_last_pattern_that_fits_a_layer_wins() -> None:
    policy = precision(
        Precision(parameters="bfloat16", layers={"*": {"state": "float16"}, "0": {"parameters": "float32"}})
    )  # type: ignore[dict-item]
    assert policy.of("parameters", "0") is FLOAT32
    assert policy.of("parameters", "4") is BFLOAT16
    assert policy.of("state", "4") is FLOAT16
    assert policy.of("activations", "4") is FLOAT32


def test_errors_in_float16_rest_times_a_scale() -> None:
    assert uniform("float16", error_scale=1024).of("errors", "").exponent == 10
    assert uniform("float16", error_scale="dynamic").of("errors", "").dynamic
    assert uniform("bfloat16").of("errors", "") is BFLOAT16


def test_a_file_is_read_and_options_win(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('parameters = "bfloat16"\nrounding = "nearest"\n[layers."fc*"]\nactivations = "float16"\n')
    policy = precision(file, rounding="carried", error_scale=None)
    assert (policy.parameters, policy.rounding, policy.of("activations", "fc2")) == ("bfloat16", "carried", FLOAT16)


BAD = {
    'weights = "float16"': "weights",
    'parameters = "float8"': "parameters",
    'rounding = "up"': "rounding",
    "error_scale = 1000": "error_scale",
    "error_scale = 1": "error_scale",
    "error_scale = true": "error_scale",
    'error_scale = "often"': "error_scale",
    '[layers.fc1]\nparameter = "float16"': "layers.fc1.parameter",
    'layers = "float16"': "layers",
    "parameters = ": "cannot be read",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_file_is_refused_by_entry(text: str, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(text + "\n")
    with pytest.raises(UsageError) as caught:
        precision(tmp_path / "policy.toml")
    assert BAD[text] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wanted", ["float12", "half", "", "int8", "nowhere.toml", ".", "policy.yaml"])
def test_what_is_no_format_is_refused(wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        precision(wanted)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [("--dtype", "float12"), ("--dtype", "nowhere.toml"), ("--dtype", "float16", "--rounding", "up"),
     ("--dtype", "float16", "--error-scale", "3"), ("--dtype", "float16", "--error-scale", "never")],
    ids=" ".join,
)  # fmt: skip
def test_the_command_line_refuses_in_one_sentence(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(("analyze", "mlp-64-8-10", *words)) != 0
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert "error: " in printed.err


# --- what has no 16-bit kernel


REFUSED: dict[str, tuple[str, str, str]] = {
    "recurrent": ("gru-har", "backprop", r"scan .* float16 on host \(gru \(GRU\)\).*layers.\"gru\""),
    "plain recurrent": ("rnn-row", "backprop", r"scan .* float16 .*rnn \(RNN\)"),
    "FeTrIL": ("cnn-8x8", "fetril", r"class_mean .* float16 on host .*Build in float32"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_kernel_is_refused_by_name(case: str) -> None:
    model, rule, message = REFUSED[case]
    with pytest.raises(LegalizeError, match=message):
        strop.build(*MODELS[model](), rule=rule, dtype="float16")


class Words(nn.Module):
    """An embedding and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(11, 5), nn.Linear(20, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.table(x.long()).flatten(1))


def test_an_embedding_rests_in_16_bits() -> None:
    program = strop.build(Words(), torch.zeros(1, 4), dtype="float16").program
    assert program.values["table.weight"].dtype is FLOAT16


@pytest.mark.parametrize("model", ["gru-har", "rnn-row"])
def test_the_advice_helps(model: str) -> None:
    everything = dict.fromkeys(("parameters", "activations", "errors", "state"), "float32")
    policy = precision(uniform("float16"), layers={model[:3]: everything})
    program = strop.build(*MODELS[model](), dtype=policy).program
    assert {v.dtype for v in program.of(Role.PARAM) if not v.name.startswith(model[:3])} == {FLOAT16}
    assert {v.dtype for v in program.of(Role.PARAM) if v.name.startswith(model[:3])} == {FLOAT32}


# --- what is stored


@pytest.mark.parametrize("dtype", NARROW)
def test_the_callers_memory_and_single_numbers_stay_float32(dtype: str) -> None:
    bundle = built(dtype, optimizer=strop.optim.Adam(), loss="cross_entropy")
    program, row = bundle.program, DTYPES[dtype]
    assert {v.dtype for v in program.of(Role.PARAM)} == {row}
    assert {program.values[name].dtype for name in (program.output, program.loss, "x")} == {FLOAT32}
    assert {v.dtype for v in program.of(Role.STATE) if v.name.endswith(".m")} == {row}
    assert {v.dtype for v in program.of(Role.STATE) if v.name.endswith(".v")} == {FLOAT32}
    stored = [program.values[name] for op in program.train_step for name in op.outputs]
    wide = {v.name for v in stored if v.role is Role.ACT and v.dtype is FLOAT32 and v.type.size > 1}
    assert wide == {"6", "loss.exp"}  # logits, and what the loss notes of them


@pytest.mark.parametrize("model", ["mlp-784-128-10", "cnn-28x28", "ds-cnn"])
def test_half_the_memory(model: str) -> None:
    sizes = []
    for dtype in ("float32", "float16"):
        bundle = strop.build(*MODELS[model](), dtype=dtype)
        held = sum(v.type.bytes for v in bundle.program.of(Role.PARAM, Role.STATE))
        sizes.append(held + bundle.plan.sizes["arena"])
    assert sizes[1] / sizes[0] == pytest.approx(0.5, abs=0.015)


# --- the twin does what the Program says


OPTIMIZERS = {
    "sgd": strop.optim.SGD(lr=0.05, weight_decay=0.01),
    "momentum": strop.optim.SGD(lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": strop.optim.Adam(lr=0.01, weight_decay=0.01),
    "lion": strop.optim.Lion(lr=0.01, weight_decay=0.1),
    "paced": strop.optim.SGD(lr=0.05, momentum=0.5, warmup=3, accumulate=2, clip_norm=1.0),
}


def last_place(dtype: DType, largest: Array) -> Array:
    info = ml_dtypes.finfo(dtype.numpy)
    return np.maximum(np.abs(largest), float(info.smallest_normal)) * float(info.eps)


RUNS = [
    (optimizer, rounding, NARROW[i % 2])
    for i, (optimizer, rounding) in enumerate(product(OPTIMIZERS, ("nearest", "stochastic", "carried")))
]


@pytest.mark.parametrize(("optimizer", "rounding", "dtype"), RUNS)
def test_twenty_steps_of_every_optimizer_as_the_program_says(optimizer: str, rounding: str, dtype: str) -> None:
    """From the twin's tensors at each step: at most a last place apart, and hardly an element is."""
    bundle = built(uniform(dtype, rounding=rounding), optimizer=OPTIMIZERS[optimizer])
    values, apart, compared = bundle.program.values, 0, 0
    x, y = batches(20)
    with bundle.twin() as twin:
        program = Interpreter(bundle.program, np.float32)
        for i in range(20):
            program.memory.update({name: data.astype(kind(data)) for name, data in twin.tensors().items()})
            loss = program.train_step(x[i : i + 1], y[i : i + 1])
            assert twin.train_step(x[i : i + 1], y[i : i + 1]) == pytest.approx(loss, rel=1e-5)
            for name, data in twin.tensors().items():
                ours, theirs = data.astype(kind(data)), program.memory[name]
                allowed = np.float32(1e-6) * (1 + np.abs(theirs))
                if values[name].dtype.narrow:
                    allowed = last_place(values[name].dtype, theirs) + (
                        tail(program, name, dtype) if rounding == "carried" else 0
                    )
                    apart, compared = apart + int((ours != theirs).sum()), compared + data.size
                assert (np.abs(ours - theirs) <= allowed).all(), (i, name)
    assert apart <= 0.01 * compared


def total(tensors: dict[str, Array]) -> dict[str, Array]:
    """Parameters with what is carried of them."""
    left = rests(tensors)
    return {name: data.astype(np.float64) + left.get(name, 0.0) for name, data in known(tensors).items()}


def kind(data: Array) -> type[Any]:
    """What the interpreter computes it in."""
    return data.dtype.type if data.dtype.kind in "iu" else np.float32


def tail(program: Interpreter, name: str, dtype: str) -> Array | float:
    """A weight on the other side of a middle has its rest on the other side: a last place of the weight."""
    owner = name.removesuffix(REST)
    return last_place(DTYPES[dtype], program.memory[owner]) if owner != name else 0.0


@pytest.mark.parametrize("dtype", NARROW)
def test_what_is_carried_is_what_float32_would_be(dtype: str) -> None:
    """With parameters alone in 16 bits: w + rest follows float32's weights; nearest does not."""
    apart = {}
    x, y = batches(200)
    sgd = strop.optim.SGD(lr=1e-4)
    with built("float32", optimizer=sgd).twin() as twin:
        twin.train(x, y)
        exact = twin.tensors()
    for rounding in ("nearest", "carried"):
        with built(Precision(parameters=dtype, rounding=rounding), optimizer=sgd).twin() as twin:  # type: ignore[arg-type]
            before = total(twin.tensors())
            twin.train(x, y)
            after = total(twin.tensors())
        moved = {name: data - before[name] for name, data in after.items()}
        start = {name: real(net().state_dict()[name].numpy()) for name in moved}
        apart[rounding] = max(
            np.abs(moved[n] - (exact[n] - start[n])).max() / np.abs(exact[n] - start[n]).max() for n in moved
        )
    assert apart["carried"] < 0.1 < apart["nearest"]


def test_random_bits_are_new_at_every_step_and_in_every_tensor() -> None:
    bundle = built(uniform("bfloat16", rounding="stochastic"))
    keys = [op.attrs["tensor"] for top in bundle.program.train_step for op in top.parts if "tensor" in op.attrs]
    assert len(keys) == len(set(keys)) == 6
    x, y = batches(1)
    with bundle.twin() as twin:
        twin.train_step(x, y)
        first = twin.tensors()
        twin.reset()
        twin.load_tensors({STEP: np.array([5], np.int32)})
        twin.train_step(x, y)
        other = twin.tensors()
    assert other[STEP] == 6
    assert any((real(first[n]) != real(other[n])).any() for n in first if n != STEP)


# --- validate


def verdict(policy: Precision, steps: int = 20, optimizer: Any = None, rule: str = "backprop") -> Verdict:
    optimizer = optimizer or strop.optim.SGD(lr=0.05)
    bundle = built(policy, optimizer=optimizer, rule=rule)
    torch_side = reference(strop.rules.rule_class(rule)(), net(), "cross_entropy", optimizer)
    with bundle.twin() as board, bundle.twin() as pc:
        return validate(board, pc, torch_side, *batches(steps))


POLICIES: dict[str, Callable[[str], Precision]] = {
    "all nearest": lambda dtype: uniform(dtype, rounding="nearest"),
    "all stochastic": lambda dtype: uniform(dtype, rounding="stochastic"),
    "all carried": lambda dtype: uniform(dtype, rounding="carried"),
    "float32 parameters": lambda dtype: Precision(activations=dtype, errors=dtype),  # type: ignore[arg-type]
    "parameters alone": lambda dtype: Precision(parameters=dtype, rounding="carried"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(
    ("policy", "rule"),
    [*((policy, "backprop") for policy in POLICIES), ("all carried", "tpsgd"), ("all carried", "mono-forward")],
)
@pytest.mark.parametrize("dtype", NARROW)
def test_a_right_step_is_within_its_bound(dtype: str, policy: str, rule: str) -> None:
    found = verdict(POLICIES[policy](dtype), rule=rule)
    assert found.passed
    assert found.torch is not None
    assert found.torch.update_error <= {"float16": 2.0**-8, "bfloat16": 2.0**-5}[dtype]


@pytest.mark.parametrize("policy", ["all carried", "float32 parameters", "parameters alone"])
@pytest.mark.parametrize("dtype", NARROW)
def test_a_wrong_gradient_is_caught(dtype: str, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A derivative of tanh that is 1 everywhere."""
    monkeypatch.setattr(type(spec("tanh")), "vjp", lambda self, b, op, grads: [grads[0]])
    found = verdict(POLICIES[policy](dtype))
    assert found.bits_equal
    assert not found.passed


def test_a_gradient_that_is_two_percent_too_large_is_caught_in_float16() -> None:
    policy = POLICIES["float32 parameters"]("float16")
    bundle = built(policy, optimizer=strop.optim.SGD(lr=0.051))
    torch_side = reference(strop.rules.Backprop(), net(), "cross_entropy", strop.optim.SGD(lr=0.05))
    with bundle.twin() as board, bundle.twin() as pc:
        assert not validate(board, pc, torch_side, *batches(10)).passed


def test_float32_has_no_bound() -> None:
    found = verdict(Precision())
    assert found.torch is not None
    assert found.torch.update_bound is None
    assert found.torch.max_rel_error < 1e-6


@pytest.mark.parametrize("optimizer", [strop.optim.Adam(lr=0.01), strop.optim.Lion(lr=0.01)], ids=str)
def test_optimizers_that_divide_may_turn_a_sign(optimizer: Any) -> None:
    assert verdict(uniform("float16"), optimizer=optimizer).passed


@pytest.mark.parametrize(("dtype", "places"), [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_what_storage_may_change(dtype: str, places: float) -> None:
    sizes = {
        rounding: storage(built(uniform(dtype, rounding=rounding)).program, "4.weight", 1.0)
        for rounding in ("nearest", "stochastic", "carried")
    }
    assert sizes == {"nearest": places, "stochastic": 2 * places, "carried": places * places}


def test_a_reference_knows_nothing_of_rests() -> None:
    half = np.array([1, 2], ml_dtypes.bfloat16)
    tensors = {"a": half, "a.rest": half, "b": half, STEP: np.zeros(1, np.int32)}
    assert sorted(known(tensors)) == ["a", "b"]
    assert {name: data.tolist() for name, data in rests(tensors).items()} == {"a": [1, 2]}


def test_a_step_that_was_skipped_is_not_compared() -> None:
    x, y = batches(6)
    x[3] *= 1e9
    bundle = built(uniform("float16", error_scale="dynamic"), loss="cross_entropy")
    torch_side = reference(strop.rules.Backprop(), net(), "cross_entropy", strop.optim.SGD())
    with bundle.twin() as board, bundle.twin() as pc:
        found = validate(board, pc, torch_side, x, y)
    assert found.bits_equal


def test_errors_are_strop_errors() -> None:
    assert issubclass(LegalizeError, StropError)
