"""The worst stack that `analyze` states, against the paint that training leaves on an emulated board."""

import numpy as np
import pytest

import strop
from strop.host.firmware import elf
from strop.host.zoo import MODELS
from strop.targets.elf import measure


@pytest.mark.parametrize("board", ["qemu-rv32imf", "qemu-rv32imac", "qemu-cortex-m4f", "qemu-cortex-m55"])
@pytest.mark.parametrize(("net", "optimizer"), [("digits-cnn", strop.optim.SGD()), ("cnn-8x8", strop.optim.Adam())])
def test_never_more_than_stated(board: str, net: str, optimizer: strop.optim.Optimizer) -> None:
    model, example = MODELS[net]()
    bundle = strop.build(model, example, optimizer=optimizer, board=board, name=net)
    stated = measure(elf(bundle), bundle.board).stack
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, *example.shape[1:])).astype(np.float32)
    with strop.connect(bundle) as device:
        device.train(x, rng.integers(0, 10, 20))
        device.infer(x)
        device.tensors()
        used = device.backend.stats().stack_used
    assert 0 < used <= stated < 3 * used
