"""Optimizers against torch.optim and equations written by hand, with schedules, clipping and accumulation."""

import ctypes
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import KERNEL_INCLUDES, Array, CompiledCase, Library, Net, OpCase, batches, compiled, mlp, stages
from cbuild import RUNTIME, build_shared
from torch import Tensor, nn
from torch.optim import lr_scheduler

from strop.compiler.capture import capture
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Program, Role
from strop.compiler.ops import spec
from strop.compiler.ops.base import Case, f32
from strop.compiler.optim import SGD, Adam, Constant, Cosine, Linear, Lion, Optimizer, Schedule, StepDecay
from strop.compiler.plan import place
from strop.compiler.rules import Backprop, HeadOnly, MonoForward, TpSGD
from strop.compiler.schedules import Tiling
from strop.errors import UsageError
from strop.host.cli.choices import optimizer_of
from strop.host.cli.options import Build
from strop.host.reference import reference
from strop.host.validate import Errors

Torch = torch.optim.Optimizer


class HandLion(Torch):
    """Lion as its authors' algorithm 2 reads."""

    def step(self, closure: Any = None) -> None:
        del closure
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].get("m", torch.zeros_like(p))
                p.data -= group["lr"] * (torch.sign(0.9 * m + 0.1 * p.grad) + 0.5 * p.data)
                self.state[p]["m"] = 0.99 * m + 0.01 * p.grad


BASES: dict[str, tuple[Optimizer, Callable[[Any], Torch]]] = {
    "sgd": (SGD(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "decay": (SGD(lr=0.1, weight_decay=0.05), lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.05)),
    "momentum": (
        SGD(lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    ),
    "adam": (Adam(lr=0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
    "adam with decay": (
        Adam(lr=0.01, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
    ),
    "lion": (Lion(lr=0.003, weight_decay=0.5), lambda p: HandLion(p, {"lr": 0.003})),
}
"""Settings, and the same in torch."""


def warm(optimizer: Torch, warmup: int, then: lr_scheduler.LRScheduler) -> lr_scheduler.LRScheduler:
    rise = lr_scheduler.LinearLR(optimizer, 1 / warmup, total_iters=warmup - 1)
    return lr_scheduler.SequentialLR(optimizer, [rise, then], [warmup])


EXTRAS: dict[str, tuple[dict[str, Any], Callable[[Torch], Any]]] = {
    "nothing": ({}, lambda o: None),
    "step": ({"schedule": StepDecay(7, 0.5)}, lambda o: lr_scheduler.StepLR(o, 7, 0.5)),
    "linear": ({"schedule": Linear(15, 0.2)}, lambda o: lr_scheduler.LinearLR(o, 1, 0.2, 15)),
    "cosine": ({"schedule": Cosine(30)}, lambda o: lr_scheduler.CosineAnnealingLR(o, 30)),
    "warm": ({"warmup": 5}, lambda o: lr_scheduler.LinearLR(o, 0.2, total_iters=4)),
    "warm cosine": (
        {"schedule": Cosine(34), "warmup": 4},
        lambda o: warm(o, 4, lr_scheduler.CosineAnnealingLR(o, 30)),
    ),
    "warm step": ({"schedule": StepDecay(5), "warmup": 3}, lambda o: warm(o, 3, lr_scheduler.StepLR(o, 5, 0.1))),
    "value": ({"clip_value": 0.05}, lambda o: None),
    "norm": ({"clip_norm": 0.2}, lambda o: None),
    "all norms": ({"clip_global_norm": 0.3}, lambda o: None),
    "both norms of means": ({"clip_norm": 0.2, "clip_global_norm": 0.25, "accumulate": 2}, lambda o: None),
    "mean": ({"accumulate": 3}, lambda o: None),
    "all": (
        {"schedule": Cosine(9), "warmup": 2, "clip_value": 0.05, "clip_norm": 0.1, "accumulate": 3},
        lambda o: warm(o, 2, lr_scheduler.CosineAnnealingLR(o, 7)),
    ),
}
"""Shared settings, and torch's scheduler for them."""

STEPS = 24


def torch_training(p: Program, settings: Optimizer, optimizer: Torch, scheduler: Any, params: dict[str, Tensor]) -> Any:
    """Train dense-tanh-dense as a user of torch would, and give each loss."""
    n = settings.accumulate
    for number, (x, y) in enumerate(batches(p, STEPS), 1):
        hidden = torch.tanh(nn.functional.linear(torch.tensor(x).double(), params["l0.weight"], params["l0.bias"]))
        output = nn.functional.linear(hidden, params["l2.weight"], params["l2.bias"])
        loss = nn.functional.cross_entropy(output, torch.tensor(y).long())
        (loss / n).backward()  # type: ignore[no-untyped-call]
        if number % n == 0:
            for parameter in params.values():
                if settings.clip_value:
                    nn.utils.clip_grad_value_(parameter, settings.clip_value)
                if settings.clip_norm:
                    nn.utils.clip_grad_norm_(parameter, settings.clip_norm)
            if settings.clip_global_norm:
                nn.utils.clip_grad_norm_(list(params.values()), settings.clip_global_norm)
            optimizer.step()
            optimizer.zero_grad()
            if scheduler:
                scheduler.step()
        yield x, y, loss.item()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("base", BASES)
def test_as_torch(base: str, extra: str, batch: int) -> None:
    settings = replace(BASES[base][0], **EXTRAS[extra][0])
    p = Backprop().apply(mlp(batch), "cross_entropy", settings)
    interpreter = Interpreter(p)
    # optim.lr is a float32 constant of the Program where it neither changes nor is a literal
    interpreter.memory.update({name: np.array([settings.lr]) for name in ("optim.lr",) if name in interpreter.memory})
    params = {v.name: nn.Parameter(torch.tensor(p.initial[v.name]).double()) for v in p.of(Role.PARAM)}
    optimizer = BASES[base][1](list(params.values()))
    for x, y, loss in torch_training(p, settings, optimizer, EXTRAS[extra][1](optimizer), dict(params)):
        assert interpreter.train_step(x, y) == pytest.approx(loss, rel=1e-9)
    for name, tensor in params.items():
        np.testing.assert_allclose(interpreter.memory[name], tensor.detach().numpy(), rtol=1e-9, atol=1e-11)


# --- the references of `strop validate` --------------------------------------------------------------------------


def network() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 4))


def samples(count: int) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(4)
    return [(rng.standard_normal((2, 1, 6, 6)), rng.integers(0, 4, 2)) for _ in range(count)]


RULES = {"backprop": Backprop(), "tpsgd": TpSGD(), "mono-forward": MonoForward(), "head-only": HeadOnly()}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("extra", ["nothing", "step", "warm cosine", "value", "norm", "all norms", "mean", "all"])
@pytest.mark.parametrize("base", ["momentum", "adam", "lion"])
def test_the_reference_agrees(base: str, extra: str, rule: str) -> None:
    """Also when both go on from the reference's state, in the middle of an accumulation."""
    settings = replace(BASES[base][0], **EXTRAS[extra][0])
    program = RULES[rule].apply(capture(network(), torch.zeros(1, 1, 6, 6), batch=2), "cross_entropy", settings)
    interpreter = Interpreter(program)
    trainers = [reference(RULES[rule], network(), "cross_entropy", settings) for _ in range(2)]
    interpreter.memory.update({name: np.array([settings.lr]) for name in ("optim.lr",) if name in interpreter.memory})
    variables = [v.name for v in program.of(Role.PARAM, Role.STATE)]
    for number, (x, y) in enumerate(samples(11)):
        if number == 7:
            trainers.pop(0)
            trainers[0].load({name: interpreter.memory[name] for name in variables})  # type: ignore[union-attr]
        loss = trainers[0].step(x, y)  # type: ignore[union-attr]
        assert interpreter.train_step(x, y) == pytest.approx(loss, rel=1e-9)
    state = trainers[0].state()  # type: ignore[union-attr]
    for name in variables:
        np.testing.assert_allclose(interpreter.memory[name], state[name], 1e-8, 1e-11, err_msg=name)


def test_a_schedule_without_an_equation_has_no_reference() -> None:
    class Other(Schedule):
        kind = "constant_rate"

    assert reference(Backprop(), network(), "cross_entropy", SGD(schedule=Other())) is None


def test_a_sign_that_rounding_decides_counts_as_a_jump() -> None:
    """An element whose mixed momentum is rounding's is held to w - lr, w or w + lr; others to the reference."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    trainer = reference(Backprop(), model, "mse", Lion(lr=0.25))
    assert trainer is not None
    before = trainer.state()["0.weight"]
    x, y = np.array([[1.0, 1e-9]]), np.array([[9.0, -9.0]])
    trainer.step(x, y)
    result = trainer.state()["0.weight"]
    np.testing.assert_allclose(result, before + 0.25 * np.array([[1, 1], [-1, -1]]))
    other_sides = before + 0.25 * np.array([[1, 0], [-1, 1]])
    np.testing.assert_allclose(trainer.decided("0.weight", other_sides), other_sides)
    np.testing.assert_array_equal(trainer.decided("0.weight", before - 1)[:, 0], result[:, 0])
    nowhere = before + 0.25 * np.array([[1, 0.3], [-1, 1]])
    errors = Errors()
    errors.see("0.weight", nowhere, trainer.decided("0.weight", nowhere))
    assert errors.max_rel_error > 0.01


# --- what a feature costs ----------------------------------------------------------------------------------------


def state_bytes(optimizer: Optimizer) -> int:
    p = compiled(mlp(), Backprop(), "cross_entropy", optimizer)
    return sum(v.bytes for v in p.of(Role.STATE))


def test_what_is_off_needs_no_state() -> None:
    params = sum(v.bytes for v in mlp().of(Role.PARAM))
    assert state_bytes(SGD()) == 0
    assert state_bytes(SGD(clip_value=1, clip_norm=1)) == 0
    assert state_bytes(SGD(schedule=Cosine(9))) == 4
    assert state_bytes(SGD(warmup=2)) == 4
    assert state_bytes(SGD(accumulate=2)) == params + 4
    assert state_bytes(Lion()) == state_bytes(SGD(momentum=0.5)) == params
    assert state_bytes(Adam(schedule=Constant())) == 2 * params + 8
    assert state_bytes(Adam(accumulate=2, schedule=Linear(9))) == 3 * params + 16


def test_a_constant_rate_is_a_literal_and_leaves_no_trace() -> None:
    p = compiled(mlp(), Backprop(), "cross_entropy", SGD(lr=0.0625))
    assert not [name for name in p.values if name.startswith("optim.") or "gradient" in name]
    assert str(SGD()) == "SGD(lr=0.01, weight_decay=0.0, momentum=0.0)"
    assert str(SGD(accumulate=2)) == "SGD(lr=0.01, weight_decay=0.0, momentum=0.0, accumulate=2)"


@pytest.mark.parametrize(
    ("extra", "stored"),
    [({}, False), ({"clip_value": 0.1}, False), ({"warmup": 3}, False), ({"clip_norm": 0.1}, True),
     ({"clip_norm": 0.1, "accumulate": 2}, False)],
)  # fmt: skip
@pytest.mark.parametrize("batch", [1, 2])
def test_only_a_norm_stores_a_gradient(extra: dict[str, Any], stored: bool, batch: int) -> None:
    """And none if its sum is stored already."""
    program = Net(40, batch=batch).dense(30).act("tanh").dense(4).program()
    plan = place(compiled(program, Backprop(), "cross_entropy", SGD(**extra)))
    largest = max(buffer.interval.bytes for buffer in plan.arena["train_step"])
    assert (largest == 4 * 30 * 40) is stored


@pytest.mark.parametrize(("accumulate", "stored"), [(1, True), (2, False)])
def test_the_norm_of_all_stores_all_gradients(accumulate: int, stored: bool) -> None:
    """At the same time; and none if their sums are stored already. No update comes before the norm."""
    program = compiled(
        Net(40).dense(30).act("tanh").dense(4).program(), Backprop(), "cross_entropy",
        SGD(clip_global_norm=1, accumulate=accumulate),
    )  # fmt: skip
    params = sum(value.bytes for value in program.of(Role.PARAM))
    peak = place(program).peak("train_step")[0]
    assert (peak > params) if stored else (peak < params / 4)
    writes = [{program.values[name].role for name in op.outputs} for op in program.train_step]
    norm = next(i for i, op in enumerate(program.train_step) if "optim.factor" in op.outputs)
    assert not any(Role.PARAM in roles for roles in writes[:norm])


# --- generated code ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", ["qemu-rv32imf", "qemu-rv32imac"])
@pytest.mark.parametrize(("base", "extra", "batch"), [("sgd", "warm step", 1), ("lion", "all", 1), ("adam", "all", 3)])
def test_the_code_computes_what_the_rule_says(base: str, extra: str, batch: int, board: str, tmp_path: Path) -> None:
    """Every step within 1e-6 of float64 from the same variables."""
    settings = replace(BASES[base][0], **EXTRAS[extra][0])
    seen, bundle = stages(mlp(batch), Backprop(), "cross_entropy", settings, board=board)
    exact, library = Interpreter(seen["rule"]), Library(bundle, tmp_path)
    variables = library.variables()
    for x, y in batches(bundle.program, 12):
        exact.memory.update({name: view.astype(np.float64) for name, view in variables.items()})
        assert library.train_step(x, y) == pytest.approx(exact.train_step(x, y), rel=1e-6)
        for name, view in variables.items():
            np.testing.assert_allclose(view, exact.memory[name], rtol=2e-6, atol=2e-7, err_msg=name)


SETTINGS: dict[str, dict[str, Any]] = {
    "constant_rate": {"warmup": 700},
    "linear_rate": {"warmup": 37, "steps": 3000, "final": 0.1},
    "cosine_rate": {"warmup": 0, "steps": 3000, "final": 0.0},
    "step_rate": {"warmup": 5, "every": 100, "factor": 0.7},
}


@pytest.mark.parametrize("fma", [False, True])
@pytest.mark.parametrize("kind", SETTINGS)
def test_rates_keep_their_bound_at_every_step(kind: str, fma: bool) -> None:
    """The stated relative errors, against the reference in float64; lr to the bit after the warm-up."""
    lr, settings = float(np.float32(0.3)), SETTINGS[kind]
    attrs = {"lr": lr, **settings, **{k: float(np.float32(v)) for k, v in settings.items() if isinstance(v, float)}}
    case = CompiledCase(OpCase(kind, 0, Case((f32(1),), attrs)), Tiling(), fma=fma)
    library = build_shared([KERNEL_INCLUDES + case.source("rate"), RUNTIME / "numerics.c"])
    for t in [*range(3002), 1 << 24]:
        case.operands[0][:] = t
        library.rate((ctypes.c_void_p * 3)(*(operand.ctypes.data for operand in case.operands)))
        exact = float(spec(kind).reference([np.array([float(t)])], attrs)[0][0])
        turns = (t - 5) // 100 * abs(math.log(0.7)) if kind == "step_rate" else 1
        if exact > 1e-37:
            assert abs(case.results[0][0] - exact) <= 2.0**-22 * (1 + turns) * exact, t
        if t == attrs["warmup"]:
            assert case.results[0][0] == np.float32(lr)


# --- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: SGD(lr=0), "lr"), (lambda: SGD(lr=float("nan")), "lr"), (lambda: SGD(momentum=1.0), "momentum"),
        (lambda: SGD(weight_decay=-0.1), "weight_decay"), (lambda: Adam(lr=-1), "lr"), (lambda: Adam(beta1=1), "beta1"),
        (lambda: Adam(beta2=float("inf")), "beta2"), (lambda: Adam(eps=0), "eps"), (lambda: Lion(lr=0), "lr"),
        (lambda: Lion(beta2=1.0), "beta2"), (lambda: Lion(weight_decay=-1), "weight_decay"),
        (lambda: Lion(weight_decay=float("inf")), "weight_decay"), (lambda: SGD(warmup=-1), "warmup"),
        (lambda: SGD(warmup=2.5), "warmup"), (lambda: SGD(clip_value=0), "clip_value"),
        (lambda: SGD(clip_norm=float("nan")), "clip_norm"), (lambda: SGD(clip_global_norm=0), "clip_global_norm"),
        (lambda: Adam(accumulate=0), "accumulate"),
        (lambda: Adam(accumulate=1 << 25), "accumulate"), (lambda: Cosine(0), "steps"), (lambda: Linear(2.5), "steps"),
        (lambda: Cosine(5, final=1.5), "final"), (lambda: StepDecay(0), "every"), (lambda: StepDecay(3, 0), "factor"),
        (lambda: StepDecay(3, 1.5), "factor"),
    ],
)  # fmt: skip
def test_settings_outside_their_range_are_refused(make: Callable[[], Any], word: str) -> None:
    with pytest.raises(UsageError, match=f"^{word} must"):
        make()


def test_a_schedule_outlasts_its_warmup() -> None:
    with pytest.raises(UsageError, match="5 steps ends before its warm-up of 5"):
        SGD(schedule=Cosine(5), warmup=5)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, SGD()),
        ({"optimizer": "lion", "weight_decay": 2.0}, Lion(weight_decay=2.0)),
        ({"optimizer": "adam", "accumulate": 4, "clip_norm": 1.0}, Adam(accumulate=4, clip_norm=1.0)),
        ({"optimizer": "momentum", "clip_value": 2.0, "warmup": 3}, SGD(momentum=0.9, clip_value=2.0, warmup=3)),
        ({"schedule": "cosine", "schedule_steps": 9}, SGD(schedule=Cosine(9))),
        ({"schedule": "linear", "schedule_steps": 9, "schedule_final": 0.5}, SGD(schedule=Linear(9, 0.5))),
        ({"schedule": "step", "schedule_steps": 9}, SGD(schedule=StepDecay(9, 0.1))),
        ({"schedule": "step", "schedule_steps": 9, "schedule_final": 0.5}, SGD(schedule=StepDecay(9, 0.5))),
    ],
)
def test_options_of_the_command_line(options: dict[str, Any], settings: Optimizer) -> None:
    assert optimizer_of(Build(**options)) == settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "loin"}, "'lion'"),
        ({"schedule": "cosin"}, "'cosine'"),
        ({"schedule": "cosine"}, "--schedule-steps"),
        ({"schedule_steps": 9}, "Choose a --schedule"),
        ({"schedule_final": 0.0}, "Choose a --schedule"),
        ({"accumulate": -1}, "accumulate must"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        optimizer_of(Build(**options))
