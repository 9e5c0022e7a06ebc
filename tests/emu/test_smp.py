"""A cluster of harts: the bits of the twin, however many there are and in whatever order they run."""

import numpy as np
import pytest
import torch
from torch import nn

import strop
from strop.targets.board import Board, load_board

TURNS, FREE = 1, 0


def board(harts: int, turns: int = TURNS) -> Board:
    """The cluster with so many harts."""
    whole = load_board("qemu-rv32imf-smp")
    assert whole.emulator is not None
    assert whole.emulator.args[-2:] == ("-smp", "8")
    emulator = whole.emulator.model_copy(update={"args": (*whole.emulator.args[:-1], str(harts))})
    return whole.model_copy(update={"emulator": emulator, "constants": {"harts": harts, "team_turns": turns}})


def network() -> nn.Module:
    """A convolution with a pool, a padded and a strided one, and dense layers: every way of sharing out."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1, groups=4), nn.Tanh(),
        nn.Conv2d(12, 16, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(144, 24), nn.ReLU(), nn.Linear(24, 5),
    )  # fmt: skip


def trained(chosen: Board) -> tuple[dict[str, bytes], dict[str, bytes], int]:
    """State on the board and in the twin after three steps and an inference, and what a step cost."""
    bundle = strop.build(network(), torch.zeros(1, 2, 18, 18), board=chosen)
    rng = np.random.default_rng(0)
    xs, ys = rng.standard_normal((3, 1, 2, 18, 18)).astype(np.float32), rng.integers(0, 5, (3, 1)).astype(np.int32)
    states, costs = [], []
    for device in (strop.connect(bundle), bundle.twin()):
        with device:
            for x, y in zip(xs, ys, strict=True):
                device.train(x, y, on_step=lambda result: costs.append(result.cost))
            state = {name: tensor.numpy().tobytes() for name, tensor in device.state_dict().items()}
            states.append({**state, "output": np.asarray(device.infer(xs[0])).tobytes()})
    return states[0], states[1], costs[0]


@pytest.mark.parametrize("turns", [TURNS, FREE], ids=["turns", "free"])
@pytest.mark.parametrize("harts", [2, 3, 8])
def test_the_bits_are_the_twins(harts: int, turns: int) -> None:
    board_state, twin_state, _ = trained(board(harts, turns))
    assert board_state == twin_state


def test_eight_harts_have_an_eighth_to_do_each() -> None:
    one_state, _, one = trained(board(1))
    all_state, _, eight = trained(board(8))
    assert one_state == all_state
    assert one > 5 * eight
