"""Errors that rest in 16 bits times a scale: limits, what is skipped, and how a scale follows."""

import numpy as np
import pytest
import torch
from torch import nn

import strop
from strop.compiler.health import PATIENCE, SCALE, followed
from strop.compiler.interp import Interpreter
from strop.compiler.ir import PERSISTENT
from strop.compiler.precision import uniform
from strop.errors import LegalizeError

NETS = {
    "dense": (lambda: nn.Sequential(nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 5)), (9,)),
    "conv": (lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 5)),
             (2, 6, 7)),
}  # fmt: skip
HUGE = (3, 4, 11)
"""Steps whose labels are so far away that errors leave float16."""


def made(net: str, scale: int | str, rule: str = "backprop", board: str = "host") -> strop.Bundle:
    torch.manual_seed(3)
    make, shape = NETS[net]
    policy = uniform("float16", error_scale=scale)
    sgd = strop.optim.SGD(lr=3e-3)
    return strop.build(make(), torch.zeros(1, *shape), loss="mse", rule=rule, dtype=policy, optimizer=sgd, board=board)


def samples(net: str, steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(5)
    xs = rng.standard_normal((steps, 1, *NETS[net][1])).astype(np.float32)
    ys = rng.standard_normal((steps, 1, 5)).astype(np.float32)
    ys[[step for step in HUGE if step < steps]] *= 1e5
    return list(zip(xs, ys, strict=True))


@pytest.mark.parametrize("rule", ["backprop", "mono-forward", "tpsgd"])
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("scale", [1024, "dynamic"])
def test_the_twin_does_what_the_program_says(net: str, scale: int | str, rule: str) -> None:
    bundle = made(net, scale, rule)
    program = Interpreter(bundle.program, np.float32)
    with bundle.twin() as twin:
        for x, y in samples(net, 15):
            assert twin.train_step(x, y) == pytest.approx(program.train_step(x, y), rel=1e-5)
        for name, data in twin.tensors().items():
            np.testing.assert_allclose(data.astype(np.float64), program.memory[name], rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("net", NETS)
def test_a_scale_that_follows_skips_the_step(net: str) -> None:
    bundle, halved = made(net, "dynamic"), []
    with bundle.twin() as twin:
        for step, (x, y) in enumerate(samples(net, 15)):
            before = twin.tensors()
            twin.train_step(x, y)
            after = twin.tensors()
            learned = [name for name in before if name != SCALE and not np.array_equal(before[name], after[name])]
            halved += [step] if after[SCALE][0] == before[SCALE][0] / 2 else []
            assert bool(learned) == (step not in halved)
            assert all(np.isfinite(data.astype(np.float32)).all() for data in after.values())
        stats = twin.stats()
    assert set(HUGE) <= set(halved)
    assert len(halved) < 10
    assert (stats.saturated, stats.skipped) == (len(halved), len(halved))


@pytest.mark.parametrize("net", NETS)
def test_a_step_is_skipped_whole_though_its_first_errors_are_small_enough(net: str) -> None:
    make, shape = NETS[net]
    torch.manual_seed(3)
    module, x = make(), torch.randn(1, *shape)
    with torch.no_grad():
        module[-1].weight *= 1e4  # the error of what it reads is as many times larger
        y = module(x) + 1
    policy = uniform("float16", error_scale="dynamic")
    bundle = strop.build(module, x, loss="mse", dtype=policy, optimizer=strop.optim.SGD(lr=100.0))
    with bundle.twin() as twin:
        before = twin.tensors()
        twin.train_step(x.numpy(), y.numpy())
        after = twin.tensors()
        assert after[SCALE][0] == before[SCALE][0] / 2
        assert [name for name in before if not np.array_equal(before[name], after[name])] == [SCALE]


@pytest.mark.parametrize("rule", ["backprop", "blocks", "dfa", "mono-forward", "tpsgd"])
def test_updates_come_behind_all_errors(rule: str) -> None:
    program = made("dense", "dynamic", rule).program
    stores = [any(program.values[name].dtype.dynamic for name in op.outputs) for op in program.train_step]
    updates = [any(program.values[name].role in PERSISTENT for name in op.outputs) for op in program.train_step]
    assert any(stores) and any(updates)
    assert not any(stores[updates.index(True) :])


def test_a_fixed_scale_cuts_and_counts() -> None:
    bundle = made("dense", 1024)
    with bundle.twin() as twin:
        for x, y in samples("dense", 15):
            twin.train_step(x, y)
        stats = twin.stats()
        assert (stats.steps, stats.saturated, stats.skipped) == (15, len(HUGE), 0)
        assert all(np.isfinite(data.astype(np.float32)).all() for data in twin.tensors().values())


def test_losses_that_are_no_numbers_are_counted() -> None:
    bundle = strop.build(NETS["dense"][0](), torch.zeros(1, 9), loss="mse")
    with bundle.twin() as twin:
        for bad in (0, np.inf, np.nan, 0):
            twin.train_step(np.zeros((1, 9)), np.full((1, 5), bad))
        stats = twin.stats()
    assert (stats.nan, stats.inf) == (2, 1)


def test_how_a_scale_follows() -> None:
    scale = np.array([1024, 1 / 1024, 0], np.float32)
    for _ in range(PATIENCE - 1):
        scale = followed(scale, beyond=False)
    assert scale.tolist() == [1024, 1 / 1024, PATIENCE - 1]
    assert followed(scale, beyond=False).tolist() == [2048, 1 / 2048, 0]
    assert followed(scale, beyond=True).tolist() == [512, 1 / 512, 0]
    assert followed(np.array([1, 1, 0], np.float32), beyond=True).tolist() == [1, 1, 0]
    assert followed(np.array([2.0**24, 2.0**-24, PATIENCE], np.float32), beyond=False)[0] == 2.0**24


def test_harts_cannot_follow() -> None:
    with pytest.raises(LegalizeError, match="harts would disagree"):
        made("dense", "dynamic", board="qemu-rv32imf-smp")
