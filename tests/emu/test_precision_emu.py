"""16-bit storage on emulated boards: with and without instructions that convert, the bits of the twin.

Conversions over all of both formats are in tests/native/test_numerics.py.
"""

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import strop
from strop.compiler.precision import Precision, uniform
from strop.host.device import connect, twin
from strop.host.reference import reference
from strop.host.validate import validate
from strop.targets.board import load_board

STEPS = 25
ADAM, MOMENTUM, LION = (
    strop.optim.Adam(lr=0.005, weight_decay=0.01), strop.optim.SGD(lr=0.02, momentum=0.9), strop.optim.Lion(lr=0.002),
)  # fmt: skip
MIXED = Precision(
    activations="float16", errors="bfloat16", parameters="bfloat16", rounding="carried",
    layers={"4": {"parameters": "float32"}},  # type: ignore[dict-item]
)  # fmt: skip

CASES: list[tuple[str, Precision, str, Any]] = [
    ("qemu-rv32imf", uniform("bfloat16", rounding="stochastic"), "backprop", MOMENTUM),
    ("qemu-rv32imf", uniform("float16", rounding="carried"), "tpsgd", MOMENTUM),
    ("qemu-rv32imac", uniform("float16", rounding="stochastic"), "backprop", ADAM),
    ("qemu-rv32imac", uniform("bfloat16", rounding="nearest"), "mono-forward", MOMENTUM),
    ("qemu-cortex-m4f", uniform("float16", rounding="nearest", error_scale="dynamic"), "mono-forward", LION),
    ("qemu-cortex-m4f", MIXED, "backprop", MOMENTUM),
    ("qemu-cortex-m7", uniform("float16", rounding="carried"), "backprop", ADAM),
    ("qemu-rv32imf-zfh", uniform("float16", rounding="stochastic"), "tpsgd", MOMENTUM),
    ("qemu-rv32v", uniform("float16", rounding="nearest"), "backprop", MOMENTUM),
    ("qemu-rv32imf-smp", uniform("bfloat16", rounding="stochastic"), "backprop", MOMENTUM),
]


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 4)
    )


@pytest.mark.parametrize(("board", "policy", "rule", "optimizer"), CASES)
def test_the_bits_of_the_twin(board: str, policy: Precision, rule: str, optimizer: Any) -> None:
    emulator = load_board(board).emulator
    if emulator is None or shutil.which(emulator.binary) is None:
        pytest.skip("the emulator is not installed")
    rng = np.random.default_rng(2)
    x = rng.standard_normal((STEPS, 2, 6, 7)).astype(np.float32)
    y = rng.integers(0, 4, STEPS).astype(np.int32)
    bundle = strop.build(
        net(), torch.zeros(1, 2, 6, 7), rule=rule, dtype=policy, optimizer=optimizer, board=load_board(board)
    )
    torch_side = reference(strop.rules.rule_class(rule)(), net(), "cross_entropy", optimizer)
    with connect(bundle) as device, twin(bundle) as pc:
        verdict = validate(device, pc, torch_side, x, y)
    assert verdict.bits_equal
    assert verdict.passed
