"""Every optimizer with all that goes around it: board and twin keep the same bits, PyTorch agrees."""

import numpy as np
import pytest

import strop
from strop.compiler.optim import SGD, Adam, Cosine, Linear, Lion, Optimizer, StepDecay
from strop.compiler.rules import Backprop, TpSGD
from strop.compiler.rules.base import Rule
from strop.host.reference import reference
from strop.host.validate import validate
from strop.host.zoo import load_model

RUNS: list[tuple[str, Rule, Optimizer]] = [
    ("qemu-rv32imf", Backprop(), Lion(lr=1e-3, schedule=Cosine(30), warmup=5)),
    ("qemu-rv32imac", TpSGD(), Adam(schedule=Linear(9, 0.1), clip_norm=0.1, accumulate=4)),
    ("qemu-cortex-m4f", TpSGD(), SGD(momentum=0.9, schedule=StepDecay(4), clip_value=0.01, accumulate=3)),
]


@pytest.mark.parametrize(("board", "rule", "optimizer"), RUNS, ids=[board for board, *_ in RUNS])
def test_the_same_bits(board: str, rule: Rule, optimizer: Optimizer) -> None:
    name, model, example = load_model("digits-cnn")
    bundle = strop.build(model, example, name=name, rule=rule, optimizer=optimizer, board=board)
    rng = np.random.default_rng(0)
    x, y = rng.random((40, *example.shape[1:]), np.float32), rng.integers(0, 10, 40).astype(np.int32)
    with strop.connect(bundle, board=board) as device, bundle.twin() as twin:
        verdict = validate(device, twin, reference(rule, model, "cross_entropy", optimizer), x, y)
    assert verdict.bits_equal
    assert verdict.torch is not None
    assert verdict.torch.max_rel_error < 1e-6
