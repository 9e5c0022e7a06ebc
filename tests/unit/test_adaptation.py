"""Replay buffer and FeTrIL: the reservoir's statistics, steps by hand, what is stored, and the float64 references."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

import strop
from strop.compiler.adaptation import Replay
from strop.compiler.capture.torch import capture
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Op, Program, Role
from strop.compiler.ops import spec
from strop.compiler.ops.replay import BACK, END
from strop.compiler.optim import SGD, Adam
from strop.compiler.rules import Backprop, FeTrIL, HeadOnly, Rule, TpSGD, rules
from strop.compiler.verify import verify
from strop.errors import RuleError, StropError, UsageError
from strop.host.cli import run
from strop.host.reference import reference
from strop.host.validate import unequal

Array = NDArray[Any]


def net(*sizes: int) -> nn.Module:
    """Dense layers with tanh between them, the same weights every time."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def samples(count: int, width: int = 6, classes: int = 4, seed: int = 0) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    return random.standard_normal((count, width)).astype(np.float32), random.integers(0, classes, count, np.int32)


def replayed(model: nn.Module, example: torch.Tensor, rule: Rule, replay: Replay, batch: int = 1) -> Program:
    """The Program before the passes."""
    narrow, wide = (
        rule.apply(capture(model, example, batch=rows), "cross_entropy", SGD(lr=0.1))
        for rows in (batch, batch + replay.batch)
    )
    return verify(replay.apply(narrow, wide, rule.seed))


# The reservoir


def kept(seed: int, seen: int, slots: int) -> list[int]:
    """The samples in the buffer after so many, by algorithm R on the op's own slots."""
    attrs = {"rows": seen, "slots": slots, "seed": seed, "tensor": 99}
    (slot,) = spec("replay_slot").reference([np.array([seen], np.int32)], attrs)
    buffer = [-1] * slots
    for sample, at in enumerate(slot):
        if at < slots:
            buffer[at] = sample
    return buffer


def test_every_sample_is_kept_with_the_same_probability() -> None:
    """Of 4000 buffers of 8 among 40: a share of 0.2 each, within 5 standard deviations of that estimate."""
    trials, seen, slots = 4000, 40, 8
    count = np.bincount([s for seed in range(trials) for s in kept(seed, seen, slots)], minlength=seen)
    assert np.abs(count / trials - slots / seen).max() < 5 * np.sqrt(0.2 * 0.8 / trials)


def test_pairs_are_kept_as_often_as_chance_has_it() -> None:
    """A sample's neighbours in time do not keep it company: 8/40 * 7/39 for the first and the last pair."""
    trials, chance = 4000, 8 / 40 * 7 / 39
    buffers = [set(kept(seed, 40, 8)) for seed in range(trials)]
    for pair in ({0, 1}, {38, 39}, {0, 39}):
        share = sum(pair <= buffer for buffer in buffers) / trials
        assert abs(share - chance) < 5 * np.sqrt(chance / trials)


def test_every_filled_slot_is_drawn_as_often() -> None:
    attrs = {"new": 1, "rows": 64, "slots": 10, "seed": 5, "tensor": 7}
    for filled in (3, 10):
        picks = np.concatenate([
            spec("replay_pick").reference([np.array([n + 1], np.int32)], attrs)[0]
            for n in (range(filled, filled + 1) if filled < 10 else range(10, 110))
        ])  # fmt: skip
        share = np.bincount(picks, minlength=10) / len(picks)
        assert set(picks) <= set(range(filled))
        assert np.abs(share[:filled] - 1 / filled).max() < 5 * np.sqrt(1 / filled / len(picks))


@given(seen=st.integers(-(2**31), 2**31 - 1), new=st.integers(1, 9), rows=st.integers(1, 64), seed=st.integers(0, 99))
@settings(deadline=None)
def test_whatever_is_written_as_the_count_no_slot_is_outside(seen: int, new: int, rows: int, seed: int) -> None:
    attrs = {"rows": rows, "slots": 7, "seed": seed, "tensor": 3}
    (after,) = spec("tally").reference([np.array([seen], np.int32)], {"by": new, "end": END, "back": BACK})
    assert new <= after[0] < END + new
    assert int(after[0]) * rows < 2**31
    (pick,) = spec("replay_pick").reference([after], {**attrs, "new": new})
    (slot,) = spec("replay_slot").reference([after], {**attrs, "rows": new})
    assert pick.min() >= -1
    assert pick.max() < 7
    assert slot.min() >= 0


# A step


def test_the_first_step_repeats_the_new_sample() -> None:
    """Twice the same sample is, in the mean, that sample."""
    model, (x, y) = net(6, 5, 4), samples(1)
    plain, again = (strop.build(model, torch.zeros(1, 6), optimizer=SGD(lr=0.1), replay=k) for k in (0, 3))
    with plain.twin() as one, again.twin() as two:
        assert one.train_step(x, y) == pytest.approx(two.train_step(x, y), rel=1e-6)
        after = two.tensors()
        for name, data in one.tensors().items():
            np.testing.assert_allclose(after[name], data, rtol=1e-5, atol=1e-7)


def test_a_step_is_that_of_a_larger_batch() -> None:
    """In every bit: the second step on the new sample and the one that the buffer holds."""
    model, (x, y) = net(6, 5, 4), samples(2)
    small = strop.build(model, torch.zeros(1, 6), optimizer=SGD(lr=0.1), replay=3)
    large = strop.build(model, torch.zeros(1, 6), optimizer=SGD(lr=0.1), batch=2)
    with small.twin() as one, large.twin() as two:
        one.train_step(x[:1], y[:1])
        two.load_tensors({name: data for name, data in one.tensors().items() if not name.startswith("replay")})
        assert one.train_step(x[1:], y[1:]) == two.train_step(x[::-1], y[::-1])
        assert not unequal(two.tensors(), one.tensors())


def test_a_sample_is_not_drawn_in_the_step_that_brings_it() -> None:
    """A buffer of one, which the first sample fills, gives the second step the first sample."""
    model, (x, y) = net(6, 4), samples(2)
    bundle = strop.build(model, torch.zeros(1, 6), replay=1)
    values = Interpreter(bundle.program).run("train_step", {"x": x[:1], "y": y[:1]})
    second = Interpreter(bundle.program)
    second.memory.update({name: values[name] for name in second.memory})
    rows = second.run("train_step", {"x": x[1:], "y": y[1:]})
    np.testing.assert_array_equal(rows["x.batch"], x[::-1])
    np.testing.assert_array_equal(rows["y.batch"], y[::-1])


NEEDS = {"sparse": {"update": ("0.weight", "2.weight")}}
"""Settings of rules that cannot do without."""


@pytest.mark.parametrize("name", sorted(set(rules()) - {"traces"}))  # which needs time, and has a test of its own
def test_every_rule_replays(name: str) -> None:
    """It trains, and answers as without a buffer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 4))
    rule, (x, y) = rules()[name](**NEEDS.get(name, {})), samples(6)
    program = replayed(model, torch.zeros(1, 6), rule, Replay(4, 2))
    trained, before = Interpreter(program), Interpreter(program).infer(x[:1])
    plain = rule.apply(capture(model, torch.zeros(1, 6)), "cross_entropy", SGD(lr=0.1))
    np.testing.assert_array_equal(before, Interpreter(plain).infer(x[:1]))
    losses = [trained.train_step(x[i : i + 1], y[i : i + 1]) for i in range(6)]
    assert np.isfinite(losses).all()
    assert not np.array_equal(trained.infer(x[:1]), before)


def test_a_regression_replays_its_labels() -> None:
    x, _ = samples(3)
    bundle = strop.build(net(6, 4), torch.zeros(1, 6), loss="mse", replay=2)
    with bundle.twin() as device:
        device.train(x[:2], x[:2, :4])
        np.testing.assert_array_equal(device.tensors()["replay.y"], x[:2, :4])


# What is stored


def test_int8_is_within_half_a_step_of_every_sample() -> None:
    """|x - q peak/127| <= peak/254, over forty orders of magnitude."""
    x, y = samples(9, width=50)
    x *= (10.0 ** np.array([-35, -20, -3, -1, 0, 1, 5, 20, 38]) / np.abs(x).max(1)).astype(np.float32)[:, None]
    bundle = strop.build(net(50, 4), torch.zeros(1, 50), optimizer=SGD(lr=1e-30), replay=Replay(9, dtype="int8"))
    with bundle.twin() as device:
        device.train(x, y)
        state = {name: data.astype(np.float64) for name, data in device.tensors().items()}
    peak = state["replay.peak"][:, None]
    np.testing.assert_array_equal(peak[:, 0], np.abs(x).max(1))
    error = np.abs(x - state["replay.x"] * peak / 127)
    assert (error <= peak / 254 * (1 + 1e-5)).all()
    assert error.max(1)[4] > peak[4, 0] / 300


def test_int8_keeps_zeros_and_survives_what_is_no_number() -> None:
    x, y = samples(3)
    x[0], x[1, :3] = 0, [np.nan, np.inf, -np.inf]
    bundle = strop.build(net(6, 4), torch.zeros(1, 6), rule="head-only", replay=Replay(3, dtype="int8"))
    with bundle.twin() as device:
        device.train(x, y)
        state = device.tensors()
    assert not (state["replay.x"][0] * state["replay.peak"][0]).any()
    assert state["replay.x"].min() >= -127
    assert abs(state["replay.x"][2]).max() == 127


def test_kept_labels_that_are_none_become_the_nearest() -> None:
    x, y = samples(1)
    bundle = strop.build(net(6, 4), torch.zeros(1, 6), replay=1)
    with bundle.twin() as device:
        device.load_tensors({"replay.seen": [1], "replay.y": [255]})
        loss = device.train_step(x, y)
    logits = net(6, 4)(torch.stack([torch.from_numpy(x[0]), torch.zeros(6)]))
    assert loss == pytest.approx(functional.cross_entropy(logits, torch.tensor([y[0], 3])).item(), rel=1e-5)


@pytest.mark.parametrize(("dtype", "bytes_a_sample"), [("float32", 24 + 1), ("int8", 6 + 4 + 1)])
def test_the_report_counts_the_buffer(dtype: str, bytes_a_sample: int) -> None:
    plain, more = (strop.build(net(6, 4), torch.zeros(1, 6), replay=r) for r in (0, Replay(20, dtype=dtype)))
    assert more.report.ram.state - plain.report.ram.state == 20 * bytes_a_sample + 4
    assert more.report.ram.total >= plain.report.ram.total + 20 * bytes_a_sample + 4


@pytest.mark.parametrize("size", [3, 4, 5])
def test_addresses_are_those_of_the_struct(size: int) -> None:
    """Tensors of odd sizes do not overlap: what one step writes is what the table reads."""
    x, y = samples(size, width=5)
    bundle = strop.build(net(5, 4), torch.zeros(1, 5), replay=Replay(size, dtype="int8"))
    with bundle.twin() as device:
        device.train(x, y)
        state = device.tensors()
    np.testing.assert_array_equal(state["replay.y"], y)
    np.testing.assert_array_equal(state["replay.peak"], np.abs(x).max(1))
    assert state["replay.seen"] == size


def test_equal_arguments_give_equal_bytes() -> None:
    def made(seed: int) -> strop.Bundle:
        return strop.build(net(6, 4), torch.zeros(1, 6), replay=Replay(5, 2, "int8"), seed=seed)

    one, two, other = made(0), made(0), made(1)
    assert one.program.text == two.program.text != other.program.text
    assert one.files == two.files != other.files
    assert one.manifest == two.manifest
    assert one.manifest["replay"] == "Replay(size=5, batch=2, dtype='int8')"


@pytest.mark.parametrize("given", [{"replay": Replay(4, dtype="int8")}, {"rule": "fetril"}], ids=["replay", "fetril"])
def test_memory_moves_from_device_to_device(given: dict[str, Any]) -> None:
    """A device that was given another's tensors goes on to the same bits; one that was given the weights does not."""
    (x, y), bundle = samples(16), strop.build(net(6, 5, 4), torch.zeros(1, 6), optimizer=SGD(lr=0.1), **given)
    with bundle.twin() as first, bundle.twin() as second, bundle.twin() as third:
        first.train(x[:10], y[:10])
        second.load_tensors(first.tensors())
        third.load_tensors({name: data.numpy() for name, data in first.state_dict().items()})
        for device in (first, second, third):
            device.train(x[10:], y[10:])
        assert not unequal(first.tensors(), second.tensors())
        assert unequal(first.tensors(), third.tensors())


def test_pushed_weights_leave_the_buffer_alone() -> None:
    (x, y), bundle = samples(4), strop.build(net(6, 4), torch.zeros(1, 6), replay=4)
    with bundle.twin() as device:
        device.train(x, y)
        before = device.tensors()
        device.load_tensors({name: 0 * data.numpy() for name, data in device.state_dict().items()})
        for name in ("replay.x", "replay.y", "replay.seen"):
            np.testing.assert_array_equal(device.tensors()[name], before[name])


def test_reset_empties_the_buffer() -> None:
    (x, y), bundle = samples(4), strop.build(net(6, 4), torch.zeros(1, 6), replay=Replay(3, dtype="int8"))
    with bundle.twin() as device:
        device.train(x, y)
        device.reset()
        assert not any(data.any() for name, data in device.tensors().items() if name.startswith("replay"))


# FeTrIL


def head_step(model: nn.Module, rows: torch.Tensor, labels: list[int], lr: float) -> tuple[float, torch.Tensor]:
    """Loss and last weight after a gradient step of the last layer alone."""
    last = model[-1]
    assert isinstance(last, nn.Linear)
    loss = functional.cross_entropy(last(rows), torch.tensor(labels))
    (slope,) = torch.autograd.grad(loss, last.weight)
    return loss.item(), last.weight.detach() - lr * slope


def test_a_new_class_brings_an_old_mean() -> None:
    """Class 1 first: no old class, so its feature twice. Then class 3: its first feature is its mean, f' = mean 1."""
    model, (x, _) = net(6, 5, 4), samples(2)
    features = model[:-1](torch.from_numpy(x)).detach()
    bundle = strop.build(model, torch.zeros(1, 6), rule="fetril", optimizer=SGD(lr=0.1))
    with bundle.twin() as device:
        for i, (rows, labels) in enumerate([(features[[0, 0]], [1, 1]), (features[[1, 0]], [3, 1])]):
            expected, weight = head_step(model, rows, labels, 0.1)
            assert device.train_step(x[i : i + 1], [labels[0]]) == pytest.approx(expected, rel=1e-5)
            np.testing.assert_allclose(device.tensors()["2.weight"], weight, rtol=1e-4, atol=1e-6)
            model.load_state_dict(device.state_dict())
        state = device.tensors()
    np.testing.assert_allclose(state["fetril.mean"][[1, 3]], features, rtol=1e-5, atol=1e-6)
    assert not state["fetril.mean"][[0, 2]].any()
    np.testing.assert_array_equal(state["fetril.seen"], [0, 1, 0, 1])


def test_pseudo_features_by_hand() -> None:
    f, mean = np.array([[5.0, 1.0]]), np.array([[1.0, 0.0], [4.0, 4.0], [0.0, -2.0]])
    rows, labels = spec("pseudo_features").reference([f, np.array([1]), np.array([0, 2], np.uint8), mean], {})
    np.testing.assert_array_equal(rows, [[5, 1], [2, -3], [1, -5]])
    np.testing.assert_array_equal(labels, [1, 0, 2])


@pytest.mark.parametrize("batch", [1, 5])
def test_means_are_means(batch: int) -> None:
    model, (x, y) = net(6, 5, 4), samples(40)
    program = FeTrIL().apply(capture(model, torch.zeros(1, 6), batch=batch), "cross_entropy", SGD(lr=0.1))
    board = Interpreter(program)
    for at in range(0, 40, batch):
        board.train_step(x[at : at + batch], y[at : at + batch])
    features = model[:-1](torch.from_numpy(x)).detach().numpy()
    for c in range(4):
        np.testing.assert_allclose(board.memory["fetril.mean"][c], features[y == c].mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(board.memory["fetril.seen"], np.bincount(y, minlength=4))


def test_every_old_class_comes_as_often() -> None:
    seen, y, chosen = np.array([3, 0, 1, 9, 2], np.int32), np.array([3], np.int32), []
    for step in range(1, 3001):
        (priority,) = spec("class_priority").reference([seen, y, np.array([step], np.int32)], {"seed": 1, "tensor": 2})
        chosen.append(int(spec("choose_class").reference([priority], {})[0][0]))
    share = np.bincount(chosen, minlength=5) / len(chosen)
    assert not share[[1, 3]].any()
    assert np.abs(share[[0, 2, 4]] - 1 / 3).max() < 5 * np.sqrt(2 / 9 / len(chosen))


def test_only_the_last_layer_moves_and_the_rest_is_in_flash() -> None:
    bundle = strop.build(net(6, 5, 4), torch.zeros(1, 6), rule="fetril")
    assert [value.name for value in bundle.program.of(Role.PARAM)] == ["2.weight", "2.bias"]
    assert bundle.report.ram.state == 4 * (4 * 5 + 4 + 1)


# Against the float64 references


@pytest.mark.parametrize(
    ("rule", "replay", "batch"),
    [
        (Backprop(), Replay(4), 1), (Backprop(seed=7), Replay(4, 3, "int8"), 2), (TpSGD(), Replay(5, 2), 1),
        (HeadOnly(), Replay(3), 1), (FeTrIL(), None, 1), (FeTrIL(seed=3), None, 3), (FeTrIL(old="all"), None, 1),
        (FeTrIL(old="all"), None, 2), (FeTrIL(), Replay(4), 1),
    ],
    ids=str,
)  # fmt: skip
def test_every_tensor_after_every_step(rule: Rule, replay: Replay | None, batch: int) -> None:
    """Of the Program in float64, which goes its own way for 30 steps: weights, optimizer, buffer and means."""
    model, (x, y) = net(6, 7, 4), samples(30 * batch)
    bundle = strop.build(model, torch.zeros(1, 6), rule=rule, optimizer=Adam(lr=0.01), batch=batch, replay=replay or 0)
    board, peer = Interpreter(bundle.program), reference(rule, model, "cross_entropy", Adam(lr=0.01), replay=replay)
    assert peer
    for at in range(0, len(x), batch):
        piece = slice(at, at + batch)
        assert board.train_step(x[piece], y[piece]) == pytest.approx(peer.step(x[piece], y[piece]), rel=1e-6)
        state = peer.state()
        for value in bundle.program.of(Role.PARAM, Role.STATE):
            ours = board.memory[value.name]
            np.testing.assert_allclose(ours, state[value.name], rtol=1e-5, atol=1e-7, err_msg=value.name)


def test_a_reference_takes_up_a_buffer() -> None:
    model, (x, y) = net(6, 4), samples(12)
    one, two = (reference(Backprop(), model, "cross_entropy", SGD(), replay=Replay(4)) for _ in range(2))
    assert one
    assert two
    for i in range(8):
        one.step(x[i : i + 1], y[i : i + 1])
    two.load(one.state())
    for i in range(8, 12):
        assert one.step(x[i : i + 1], y[i : i + 1]) == two.step(x[i : i + 1], y[i : i + 1])
    np.testing.assert_array_equal(one.infer(x), two.infer(x))


# Errors


class Around(nn.Module):
    """The input passes the last layer by."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (B,6) -> (B,6)."""
        return torch.as_tensor(self.last(torch.tanh(self.first(x))) + x)


def refusals() -> Iterator[tuple[dict[str, Any], str]]:
    flat, image = {"model": net(6, 4), "example_input": torch.zeros(1, 6)}, torch.zeros(1, 1, 4, 4)
    pooled = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AvgPool2d(2), nn.Flatten())
    yield {**flat, "replay": -3}, "a buffer of -3 samples is impossible"
    yield {**flat, "rule": "fetril", "loss": "mse"}, "FeTrIL learns classes"
    yield {"model": pooled, "example_input": image, "rule": "fetril"}, "fully connected last layer"
    yield {"model": Around(), "example_input": torch.zeros(1, 6), "rule": "fetril"}, "passes the last layer by"
    yield {"model": net(6, 300), "example_input": torch.zeros(1, 6), "rule": "fetril"}, "2 to 256 classes, not 300"


@pytest.mark.parametrize(("given", "what"), list(refusals()), ids=lambda v: v if isinstance(v, str) else "")
def test_what_cannot_be_is_refused(given: dict[str, Any], what: str) -> None:
    with pytest.raises(StropError, match=what):
        strop.build(**given)


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ((0,), (1 << 20) + 1, (4, 0), (4, 65)):
        with pytest.raises(UsageError, match="impossible"):
            Replay(*(wrong if isinstance(wrong, tuple) else (wrong,)))
    with pytest.raises(UsageError, match="'int9'") as error:
        Replay(4, dtype="int9")
    assert "int8" in str(error.value)
    with pytest.raises(RuleError, match="'on'"):
        FeTrIL(old="on")


def test_a_rule_whose_memory_depends_on_the_batch_is_refused() -> None:
    class Hoarder(Backprop):
        name = "hoarder"

        def apply(self, program: Program, loss: str, optimizer: Any) -> Program:
            made = super().apply(program, loss, optimizer)
            values = {
                n: v if n != "0.weight" else v.__class__(n, program.only(Role.INPUT).type, v.role, v.loc)
                for n, v in made.values.items()
            }
            return made.with_(values=values)

    with pytest.raises(RuleError, match=r"0\.weight depends on the number of samples"):
        replayed(net(6, 4), torch.zeros(1, 6), Hoarder(), Replay(2))


def test_a_wide_label_range_is_kept_whole() -> None:
    """More than 256 classes do not fit a byte."""
    x, _ = samples(1)
    with strop.build(net(6, 300), torch.zeros(1, 6), replay=1).twin() as device:
        device.train_step(x, [299])
        assert device.tensors()["replay.y"].tolist() == [299]


def test_names_of_the_step_do_not_meet_those_of_inference() -> None:
    program = replayed(net(6, 5, 4), torch.zeros(1, 6), Backprop(), Replay(2))
    inferred = {name for op in program.infer for name in op.outputs}
    computed = {name for op in program.train_step for name in op.outputs}
    assert not inferred & computed
    assert {program.values[name].shape[0] for name in inferred} == {1}
    assert all(isinstance(op, Op) for op in program.train_step)


# The command line


def test_validate_compares_with_the_reference(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["validate", "mlp-64-32-10", "--steps", "12", "--replay", "4", "--replay-dtype", "int8"]
    words += ["--replay-batch", "2"]
    assert run([*words, "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["bits_equal"]
    assert 0 < verdict["torch"]["max_rel_error"] < 1e-5


def test_settings_of_no_buffer_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["analyze", "mlp-64-32-10", "--replay-dtype", "int8"]) != 0
    assert "--replay" in capsys.readouterr().err
