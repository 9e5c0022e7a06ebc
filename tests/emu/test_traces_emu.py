"""Eligibility traces on a board: the bits of its twin, and PyTorch's numbers."""

import numpy as np
import pytest

import strop
from strop.compiler.optim import SGD
from strop.compiler.rules import Traces
from strop.host.reference import reference
from strop.host.validate import validate
from strop.host.zoo import load_model


@pytest.mark.parametrize("board", ["qemu-rv32imf", "qemu-cortex-m4f"])
def test_the_same_bits(board: str) -> None:
    name, model, example = load_model("leaky-row")
    bundle = strop.build(model, example, name=name, rule=Traces(), optimizer=SGD(momentum=0.5), board=board)
    rng = np.random.default_rng(0)
    x, y = rng.random((20, *example.shape[1:]), np.float32), rng.integers(0, 10, 20).astype(np.int32)
    with strop.connect(bundle, board=board) as device, bundle.twin() as twin:
        verdict = validate(device, twin, reference(Traces(), model, "cross_entropy", SGD(momentum=0.5)), x, y)
    assert verdict.bits_equal
    assert verdict.torch is not None
    assert verdict.torch.max_rel_error < 1e-5
