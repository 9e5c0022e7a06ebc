"""Recurrent layers: against PyTorch through time, cut and whole, in layer-local rules, in few bytes and little code."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import Library, stages
from torch import Tensor, nn

from strop.compiler.bundle import Bundle
from strop.compiler.capture import capture
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Op, Program, flatten
from strop.compiler.optim import SGD
from strop.compiler.pipeline import build
from strop.compiler.rules import Backprop, HeadOnly, Rule, TpSGD
from strop.compiler.verify import verify
from strop.errors import CaptureError, RuleError, VerifyError
from strop.host.reference import reference
from strop.nn import LeakyRNN

STEPS, WIDTH, HIDDEN = 7, 3, 5
KINDS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "tanh": (nn.RNN, {}),
    "relu": (nn.RNN, {"nonlinearity": "relu", "bias": False}),
    "gru": (nn.GRU, {}),
    "lstm": (nn.LSTM, {}),
    "leaky": (LeakyRNN, {"leak": 0.75}),
}


FIRST: tuple[dict[str, Any], ...] = ({}, {"batch_first": True})
"""What torch's own layers have to be told."""


class Net(nn.Module):
    """A stack of recurrent layers and a linear layer. use: of its results, see `forward`."""

    def __init__(self, kind: str, use: str = "last", layers: int = 1, **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        make, own = KINDS[kind]
        self.use = use
        self.r = make(WIDTH, HIDDEN, num_layers=layers, **{**FIRST[make is not LeakyRNN], **own, **settings})
        self.f = nn.Linear(HIDDEN * (STEPS if use == "flatten" else 1), 4)

    def forward(self, x: Tensor) -> Tensor:
        """x (B,7,3) -> (B,4)."""
        steps, state = self.r(x)
        state = state[0] if isinstance(state, tuple) else state
        match self.use:
            case "last":
                return self.f(steps[:, -1, :])
            case "state":
                return self.f(state[-1])
            case "every":
                return self.f(steps).mean(1)
            case "mean":
                return self.f(steps.mean(1))
            case "flatten":
                return self.f(steps.flatten(1))
            case "both":
                return self.f(steps.mean(1) + state[-1])
            case "bare":
                return state[-1]
        raise AssertionError(self.use)


def samples(count: int, batch: int, steps: int = STEPS) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal((batch, steps, WIDTH)).astype(np.float32), rng.integers(0, 4, batch).astype(np.int32))
        for _ in range(count)
    ]


def trained(model: nn.Module, rule: Rule, batch: int = 1) -> Bundle:
    """The bundle for the PC."""
    return build(model, torch.zeros(1, STEPS, WIDTH), rule=rule, optimizer=SGD(lr=0.3), batch=batch, name="net")


def same_steps(model: nn.Module, rule: Rule, batch: int = 1) -> Bundle:
    """Train the final Program in float64 and torch on the same samples: equal losses, parameters and answers."""
    bundle = trained(model, rule, batch)
    ours, theirs = Interpreter(bundle.program), reference(rule, model, "cross_entropy", SGD(lr=0.3))
    assert theirs is not None
    for x, y in samples(3, batch):
        assert ours.train_step(x, y) == pytest.approx(theirs.step(x, y), rel=1e-9)
    expected = theirs.state()
    for value in bundle.manifest["tensors"]:
        np.testing.assert_allclose(ours.memory[value["name"]], expected[value["name"]], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(ours.infer(x), theirs.infer(x), rtol=1e-6, atol=1e-8)
    return bundle


@pytest.mark.parametrize("use", ["last", "state", "every", "mean", "flatten", "both", "bare"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_use_trains_as_in_torch(kind: str, use: str) -> None:
    same_steps(Net(kind, use), Backprop())


@pytest.mark.parametrize("use", ["last", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_stacks_and_batches_train_as_in_torch(kind: str, use: str) -> None:
    same_steps(Net(kind, use, layers=2), Backprop(), batch=3)


@pytest.mark.parametrize("truncate", [1, 3, STEPS, 50])
@pytest.mark.parametrize(("use", "layers"), [("last", 1), ("last", 2), ("mean", 2), ("both", 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_truncated_errors_go_back_as_far_as_in_torch(kind: str, use: str, layers: int, truncate: int) -> None:
    same_steps(Net(kind, use, layers), Backprop(truncate=truncate))


@pytest.mark.parametrize("use", ["last", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_truncates(kind: str, use: str) -> None:
    """Against torch's own layer: equal if nothing is cut, and not if something is."""
    (x, y), *_ = samples(1, 2)
    state = {}
    for truncate in (0, STEPS, 2):
        trainer = reference(Backprop(truncate=truncate), Net(kind, use), "cross_entropy", SGD(lr=0.3))
        assert trainer is not None
        trainer.step(x, y)
        state[truncate] = trainer.state()["r.weight_ih_l0"]
    np.testing.assert_allclose(state[STEPS], state[0], rtol=1e-12)
    assert np.abs(state[2] - state[0]).max() > 1e-5


@pytest.mark.parametrize("rule", [TpSGD(), TpSGD(objective="l1", truncate=3), HeadOnly()], ids=str)
@pytest.mark.parametrize("use", ["last", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_learn_by_themselves_as_in_torch(kind: str, use: str, rule: Rule) -> None:
    same_steps(Net(kind, use, layers=2), rule, batch=2)


def test_a_local_rule_sends_nothing_to_the_layer_below() -> None:
    rule, (x, y) = TpSGD(), samples(1, 1)[0]
    model = Net("gru", layers=2)
    free = trained(model, rule)
    model.r.weight_ih_l1.requires_grad_(False)
    model.r.weight_hh_l1.requires_grad_(False)
    frozen = trained(model, rule)
    states = []
    for bundle in (free, frozen):
        ours = Interpreter(bundle.program)
        ours.train_step(x, y)
        states.append(ours.memory)
    assert not np.array_equal(states[0]["r.weight_ih_l1"], states[1]["r.weight_ih_l1"])
    np.testing.assert_array_equal(states[0]["r.weight_ih_l0"], states[1]["r.weight_ih_l0"])


def test_frozen_weights_cost_no_gradient() -> None:
    bundle = same_steps(Net("lstm"), Backprop(freeze=("r.weight_ih_l0", "r.bias_ih_l0")))
    written = {name for op in bundle.program.train_step for name in op.outputs}
    assert "r.weight_hh_l0" in written
    assert not any("weight_ih_l0" in name for name in written)
    assert [op.kind for op in flatten(bundle.program.train_step)].count("gate_dw") == 1


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("use", "truncate"), [("last", 0), ("both", 3), ("every", 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_c_computes_what_the_program_says(kind: str, use: str, truncate: int, batch: int, tmp_path: Path) -> None:
    bundle = trained(Net(kind, use, layers=2), Backprop(truncate=truncate), batch)
    c, ours = Library(bundle, tmp_path), Interpreter(bundle.program)
    for x, y in samples(3, batch):
        assert c.train_step(x, y) == pytest.approx(ours.train_step(x, y), rel=1e-5)
        np.testing.assert_allclose(c.infer(x), ours.infer(x), rtol=1e-4, atol=1e-5)
    for name, data in c.variables().items():
        np.testing.assert_allclose(data, ours.memory[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_computes_the_same(kind: str) -> None:
    """A layer as one op, and as the scan that stands for it."""
    p = capture(Net(kind, "both", layers=2), torch.zeros(1, STEPS, WIDTH))
    seen, _ = stages(p, Backprop(truncate=2), "cross_entropy", SGD())
    (x, y), *_ = samples(1, 1)
    losses, weights = [], []
    for stage in ("fuse", "unroll"):
        ours = Interpreter(seen[stage])
        losses.append(ours.train_step(x, y))
        weights.append(ours.memory["r.weight_hh_l0"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    np.testing.assert_allclose(*weights, rtol=1e-12)


def long(kind: str, steps: int, rule: Rule, use: str = "last") -> Bundle:
    return build(Net(kind, use), torch.zeros(1, steps, WIDTH), rule=rule, name="net")


@pytest.mark.parametrize("kind", KINDS)
def test_code_does_not_grow_with_time(kind: str) -> None:
    short, longer = (long(kind, steps, Backprop()) for steps in (7, 70))
    assert len(short.manifest["kernels"]) == len(longer.manifest["kernels"])
    assert longer.files["strop_model.c"].count("for (int t = ") == 3
    lines = [bundle.files["strop_model.c"].count("\n") for bundle in (short, longer)]
    assert abs(lines[0] - lines[1]) < 0.2 * lines[0]


@pytest.mark.parametrize("kind", KINDS)
def test_inference_and_truncated_training_need_memory_for_few_steps(kind: str) -> None:
    """What is kept does not grow with the sequence, which the caller holds."""
    peaks = [
        [long(kind, steps, Backprop(truncate=4)).plan.peak(name)[0] for name in ("infer", "train_step")]
        for steps in (10, 100)
    ]
    assert peaks[0] == peaks[1]
    assert long(kind, 100, Backprop()).plan.peak("train_step")[0] > 5 * peaks[1][1]


def test_whole_sequences_are_kept_once() -> None:
    """States and four gates a step; errors take over the gates' memory."""
    floats = {"tanh": 2, "gru": 5, "lstm": 6, "leaky": 2}
    for kind, each in floats.items():
        peak = long(kind, 100, Backprop()).plan.peak("train_step")[0]
        assert 4 * HIDDEN * each * 100 <= peak < 4 * HIDDEN * (each * 100 + 20)


def test_multiply_accumulates_of_all_turns_are_counted() -> None:
    h, i, rows = HIDDEN, WIDTH, 3 * HIDDEN
    bundle = trained(Net("gru"), Backprop())
    counted = sum(row["macs"] for row in bundle.manifest["kernels"] if row["layer"].startswith("r"))
    forward, back = STEPS * rows * (i + h), STEPS * rows * h
    assert counted == forward + back + rows * (STEPS * i + (STEPS - 1) * h)


REFUSED: dict[str, tuple[nn.Module, tuple[int, ...], list[str]]] = {
    "both directions": (Net("gru", bidirectional=True, use="bare"), (STEPS, WIDTH), ["r (GRU)", "bidirectional=False"]),
    "steps first": (Net("tanh", batch_first=False, use="bare"), (STEPS, WIDTH), ["batch_first=True"]),
    "projection": (Net("lstm", proj_size=2, use="bare"), (STEPS, WIDTH), ["proj_size"]),
    "one step": (Net("gru"), (1, WIDTH), ["at least 2 steps"]),
}  # fmt: skip


class States(nn.Module):
    """Uses what is not the last state. what: see `forward`."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.r = nn.LSTM(WIDTH, HIDDEN, num_layers=2, batch_first=True)
        self.start = nn.Parameter(torch.zeros(2, 1, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        """A state of one kind or another."""
        start = (self.start, self.start) if self.what == "start" else None
        _, (h, c) = self.r(x, start)
        return {"cell": c[-1], "all": h.flatten(1), "start": h[-1]}[self.what]


REFUSED |= {
    "cell": (States("cell"), (STEPS, WIDTH), ["cell state", "h_n[-1]"]),
    "all layers": (States("all"), (STEPS, WIDTH), ["all its layers", "h_n[-1]"]),
    "own start": (States("start"), (STEPS, WIDTH), ["starts from a state", "zeros"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_says_what_to_do(case: str) -> None:
    model, sample, words = REFUSED[case]
    with pytest.raises(CaptureError) as caught:
        capture(model, torch.zeros(1, *sample))
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_dropout_between_layers_passes_in_eval_mode() -> None:
    same_steps(Net("gru", layers=2, dropout=0.5), Backprop())


def test_zeros_may_be_given_as_the_start() -> None:
    class Explicit(Net):
        def forward(self, x: Tensor) -> Tensor:
            steps, _ = self.r(x, x.new_zeros(1, x.shape[0], HIDDEN))
            return self.f(steps[:, -1])

    same_steps(Explicit("gru"), Backprop())


def test_a_negative_truncation_is_refused() -> None:
    with pytest.raises(RuleError, match="-1 steps"):
        trained(Net("gru"), Backprop(truncate=-1))


def scanning(bundle: Bundle) -> tuple[Program, int]:
    """A Program and the place of its first scan in the train step."""
    ops = bundle.program.train_step
    return bundle.program, next(i for i, op in enumerate(ops) if op.kind == "scan")


def broken(op: Op, how: str) -> Op:
    """The scan with a defect."""
    first, *rest = op.rows.values()
    made = [row.attr for row in op.rows.values() if row.sequence not in op.inputs]
    match how:
        case "sequence not listed":
            return replace(op, outputs=op.outputs[1:])
        case "read before":
            return replace(op, inputs=(*op.inputs, "loss"))
        case "leaves its row":
            return replace(op, attrs={**op.attrs, "rows": (replace(first, start=1).attr, *(row.attr for row in rest))})
        case "reads what it does not list":
            return replace(op, inputs=op.inputs[:-1])
        case "no row":
            return replace(op, attrs={**op.attrs, "rows": tuple(made)})
    raise AssertionError(how)


@pytest.mark.parametrize(
    "how", ["sequence not listed", "read before", "leaves its row", "reads what it does not list", "no row"]
)
def test_verify_refuses_a_broken_scan(how: str) -> None:
    program, at = scanning(trained(Net("gru"), Backprop()))
    verify(program)
    ops = list(program.train_step)
    ops[at] = broken(ops[at], how)
    with pytest.raises(VerifyError):
        verify(program.with_(train_step=tuple(ops)))
