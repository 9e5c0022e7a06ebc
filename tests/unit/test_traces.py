"""Leaky layers that learn by eligibility traces: by hand, beside the reference, in C, and in memory without time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import Array, Library
from torch import Tensor, nn

from strop.compiler import rng as generator
from strop.compiler.bundle import Bundle
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Role, flatten
from strop.compiler.optim import SGD, Adam, Optimizer
from strop.compiler.pipeline import build
from strop.compiler.rules import Traces
from strop.errors import RuleError, UsageError
from strop.host.reference import reference
from strop.nn import LeakyRNN

WIDTH, HIDDEN, CLASSES, LEAK, LR = 3, 5, 4, 0.75, 0.4


class Leaky(nn.Module):
    """Leaky layers and a linear one on the last state; with `norm`, a normalisation of each step before them."""

    def __init__(self, layers: int = 1, *, norm: bool = False, **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.n = nn.LayerNorm(WIDTH) if norm else nn.Identity()
        self.r = LeakyRNN(WIDTH, HIDDEN, num_layers=layers, **{"leak": LEAK, **settings})
        self.f = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """x (B,T,3) -> (B,4)."""
        return self.f(self.r(self.n(x))[0][:, -1])


def trained(
    model: nn.Module, steps: int = 6, *, batch: int = 1, rule: Traces | None = None, loss: str = "cross_entropy",
    optimizer: Optimizer | None = None, **more: Any,
) -> Bundle:  # fmt: skip
    return build(
        model, torch.zeros(1, steps, WIDTH), rule=rule or Traces(), loss=loss, optimizer=optimizer or SGD(lr=LR),
        batch=batch, name="net", **more,
    )  # fmt: skip


def samples(count: int, batch: int, loss: str = "cross_entropy", steps: int = 6) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal((batch, steps, WIDTH)).astype(np.float32),
         rng.integers(0, CLASSES, batch).astype(np.int32) if loss == "cross_entropy"
         else rng.standard_normal((batch, CLASSES)).astype(np.float32))
        for _ in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("batch", [1, 3])
def test_one_sample_by_hand(batch: int) -> None:
    """Unnormalised traces: dW = (1 - leak) delta e^T, the mean over steps and samples, at every step."""
    model = Leaky()
    ours = Interpreter(trained(model, batch=batch, rule=Traces(strength=0.5)).program)
    ((x, y),) = samples(1, batch)
    ours.train_step(x, y)
    w, u, b = (p.detach().numpy().astype(np.float64) for p in model.r.parameters())
    share = generator.uniform(0, generator.tensor_key("r.weight_ih_l0.head"), np.arange(20)).reshape(4, 5)
    m = ((2 * share - 1) / np.sqrt(np.float32(5))).astype(np.float64)
    h, e_x, e_h, e_b = np.zeros((batch, 5)), 0.0, 0.0, 0.0
    for t in range(6):
        e_x, e_h, e_b = LEAK * e_x + x[:, t], LEAK * e_h + h, LEAK * e_b + 1
        c = np.tanh(x[:, t] @ w.T + h @ u.T + b)
        h = LEAK * h + (1 - LEAK) * c
        p = np.exp(h @ m.T)
        s = 0.5 / 6 * (p / p.sum(1, keepdims=True) - np.eye(4)[y]) / batch
        z = (1 - LEAK) * (s @ m) * (1 - c * c)
        w, u, b, m = w - LR * z.T @ e_x, u - LR * z.T @ e_h, b - LR * z.sum(0) * e_b, m - LR * s.T @ h
    names = ("r.weight_ih_l0", "r.weight_hh_l0", "r.bias_l0", "r.weight_ih_l0.head")
    for name, expected in zip(names, (w, u, b, m), strict=True):
        np.testing.assert_allclose(ours.memory[name], expected, rtol=1e-6, atol=1e-9, err_msg=name)


RUNS: dict[str, tuple[nn.Module, Traces, str, SGD]] = {
    "plain": (Leaky(), Traces(), "cross_entropy", SGD(lr=LR)),
    "two layers": (Leaky(2), Traces(strength=2.0), "cross_entropy", SGD(lr=LR)),
    "momentum": (Leaky(2), Traces(), "cross_entropy", SGD(lr=LR, momentum=0.9, weight_decay=0.01, warmup=3)),
    "clipped": (Leaky(bias=False), Traces(seed=3), "cross_entropy", SGD(lr=LR, clip_norm=0.01, clip_value=0.01)),
    "real labels": (Leaky(), Traces(), "mse", SGD(lr=0.1)),
    "partly frozen": (Leaky(2), Traces(freeze=("r.weight_hh_l0", "r.*_l1")), "cross_entropy", SGD(lr=LR)),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("run", RUNS)
def test_the_reference_agrees_over_a_run(run: str, batch: int) -> None:
    """Also when it goes on from the Program's variables in the middle."""
    model, rule, loss, optimizer = RUNS[run]
    program = trained(model, batch=batch, rule=rule, loss=loss, optimizer=optimizer).program
    ours = Interpreter(program)
    theirs, later = (reference(rule, model, loss, optimizer) for _ in range(2))
    variables = [value.name for value in program.of(Role.PARAM, Role.STATE)]
    for number, (x, y) in enumerate(samples(6, batch, loss)):
        if number == 3:
            theirs = later
            later.load({name: ours.memory[name] for name in variables})
        assert ours.train_step(x, y) == pytest.approx(theirs.step(x, y), rel=1e-6)
        np.testing.assert_allclose(ours.infer(x), theirs.infer(x), rtol=1e-6, atol=1e-8)
    for name in variables:
        np.testing.assert_allclose(ours.memory[name], theirs.state()[name], rtol=1e-5, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("layers", [1, 2])
def test_memory_does_not_grow_with_time(layers: int) -> None:
    """Neither of a step nor of inference; and it is the two states, and the traces of inputs, states and biases."""
    short, longer = (trained(Leaky(layers), steps).plan for steps in (8, 64))
    assert {f: short.peak(f)[0] for f in short.arena} == {f: longer.peak(f)[0] for f in longer.arena}
    traces = [value for value in longer.program.of(Role.ACT) if value.name.endswith(".trace")]
    inputs = WIDTH + (layers - 1) * HIDDEN
    assert sum(value.type.size for value in traces) == inputs + layers * (HIDDEN + 1)
    assert max(buffer.interval.bytes for buffer in longer.arena["train_step"]) == 4 * 2 * HIDDEN


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("run", RUNS)
def test_c_computes_what_the_program_says(run: str, batch: int, tmp_path: Path) -> None:
    model, rule, loss, optimizer = RUNS[run]
    bundle = trained(model, batch=batch, rule=rule, loss=loss, optimizer=optimizer)
    c, ours = Library(bundle, tmp_path), Interpreter(bundle.program)
    for x, y in samples(3, batch, loss):
        assert c.train_step(x, y) == pytest.approx(ours.train_step(x, y), rel=1e-5)
        np.testing.assert_allclose(c.infer(x), ours.infer(x), rtol=1e-4, atol=1e-5)
    for name, data in c.variables().items():
        np.testing.assert_allclose(data, ours.memory[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_frozen_layer_runs_without_traces() -> None:
    program = trained(Leaky(), rule=Traces(freeze=("r.*",))).program
    assert not [op for op in flatten(program.train_step) if op.kind == "trace"]
    assert {value.name for value in program.of(Role.PARAM, Role.STATE)} == {"f.weight", "f.bias"}


def test_samples_are_replayed() -> None:
    """With an empty buffer, a step is that on two samples of which one is the same."""
    ours = Interpreter(trained(Leaky(), replay=4).program)
    before = ours.memory["r.weight_hh_l0"].copy()
    for x, y in samples(4, 1):
        assert np.isfinite(ours.train_step(x, y))
    assert np.abs(ours.memory["r.weight_hh_l0"] - before).max() > 1e-6


def test_it_learns_what_was_at_the_beginning() -> None:
    """A pulse in one of three channels at the first of 12 steps; noise behind it."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 600).astype(np.int32)
    x = 0.1 * rng.standard_normal((600, 12, WIDTH)).astype(np.float32)
    x[np.arange(600), 0, y] += 3
    last = {}
    for frozen in ((), ("r.*",)):
        ours = Interpreter(trained(Leaky(), 12, rule=Traces(freeze=frozen), optimizer=SGD(lr=0.3)).program)
        last[frozen] = np.mean([ours.train_step(x[i : i + 1], y[i : i + 1]) for i in range(600)][-100:])
    assert last[()] < 0.3 * last["r.*",]


class Ends(nn.Module):
    """A leaky layer, and nothing behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.r = LeakyRNN(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """The last state."""
        return self.r(x)[1][-1]


class Plain(nn.Module):
    """No leaky layer."""

    def __init__(self) -> None:
        super().__init__()
        self.r, self.f = nn.GRU(WIDTH, HIDDEN, batch_first=True), nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """From the last state."""
        return self.f(self.r(x)[0][:, -1])


REFUSALS: dict[str, tuple[nn.Module, dict[str, Any], str]] = {
    "adam": (Leaky(), {"optimizer": Adam()}, "which only SGD can, without accumulation.*Use sgd or momentum"),
    "accumulation": (Leaky(), {"optimizer": SGD(accumulate=2)}, "which only SGD can, without accumulation"),
    "all gradients": (Leaky(), {"optimizer": SGD(clip_global_norm=1)}, "the norm of all gradients together"),
    "no leak": (Plain(), {}, "no leaky recurrent layer.*Use strop.nn.LeakyRNN, or the rule mono-forward"),
    "no end": (Ends(), {}, "ends in a leaky recurrent layer.*End the network with a Linear layer"),
    "before it": (Leaky(norm=True), {}, "n.weight is before a leaky layer.*Freeze n.weight"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case: str) -> None:
    model, settings, sentence = REFUSALS[case]
    with pytest.raises(RuleError, match=sentence):
        trained(model, **settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"leak": 1.0}, "leak must lie"), ({"num_layers": 0}, "num_layers must be"), ({"hidden_size": 0}, "hidden_size")],
)
def test_layers_out_of_range(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        LeakyRNN(**{"input_size": 3, "hidden_size": 5, **settings})
