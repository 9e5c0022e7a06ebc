"""Layers in networks: they train as PyTorch's do, under every way to cut a network, and stay with their block."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import strop
from strop.compiler.capture import capture
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Role
from strop.compiler.optim import SGD
from strop.compiler.rules import Backprop, TpSGD
from strop.compiler.rules.base import Rule, layerwise
from strop.errors import RuleError
from strop.host.data import Signature, sample_data
from strop.host.reference import reference


class Branches(nn.Module):
    """Pieces of a layer that meet again as a product, a difference and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(8, 12), nn.Linear(4, 4), nn.Linear(8, 5), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        """x (B,8) -> (B,4)."""
        hidden = torch.relu(self.a(x))
        u, v, w = hidden.chunk(3, 1)
        gated = functional.softmax(self.b(u), -1) * v - torch.tanh(w)
        parts: Tensor = self.d(torch.cat([gated, hidden[:, 2:5], self.c(x)], 1))
        return parts


class Words(nn.Module):
    """The mean of embedded words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm, self.fc = nn.Embedding(11, 6), nn.LayerNorm(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """x (B,T) whole numbers -> (B,4)."""
        logits: Tensor = self.fc(torch.tanh(self.norm(self.words(x.long()).mean(1))))
        return logits


def norms() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.InstanceNorm2d(6, affine=True), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 4, 3), nn.GroupNorm(2, 4), nn.LeakyReLU(0.1), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(),
        nn.Linear(24, 9), nn.LayerNorm(9), nn.Tanh(), nn.Linear(9, 4),
    )  # fmt: skip


def signal() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 4, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(4, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.Sigmoid(),
        nn.AvgPool1d(3), nn.Conv1d(6, 3, 1), nn.Softmax(-1), nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "norms": (norms, (2, 9, 8)),
    "signal": (signal, (3, 24)),
    "branches": (Branches, (8,)),
    "words": (Words, (7,)),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    """The network with seeded weights, and an example."""
    make, sample = NETWORKS[name]
    torch.manual_seed(4)
    return make(), torch.zeros(1, *sample)


@pytest.mark.parametrize("rule", [Backprop(), TpSGD(seed=3)], ids=lambda rule: rule.name)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_trains_as_in_pytorch(network: str, rule: Rule) -> None:
    model, example = made(network)
    ours = Interpreter(rule.apply(capture(model, example, batch=3), "cross_entropy", SGD(lr=0.1)))
    theirs = reference(rule, model, "cross_entropy", SGD(lr=0.1))
    assert theirs is not None
    rng = np.random.default_rng(5)
    for _ in range(3):
        x = rng.integers(0, 11, (3, 7)) if network == "words" else rng.standard_normal((3, *example.shape[1:]))
        y = rng.integers(0, 4, 3)
        assert ours.train_step(x, y) == pytest.approx(theirs.step(x, y), rel=1e-9)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.memory[name], value, rtol=0, atol=1e-12, err_msg=name)


def test_what_belongs_to_a_layer_on_signals_stays_in_its_block() -> None:
    blocks = layerwise(capture(*made("signal")))
    kinds = [[op.kind for op in block.ops if op.kind != "reshape"] for block in blocks]
    assert kinds == [
        ["conv2d", "relu", "max_pool2d_argmax"],
        ["conv2d", "normalize", "sigmoid"],
        ["avg_pool2d", "conv2d", "softmax"],
        ["adaptive_avg_pool2d", "dense"],
    ]


def test_parameters_of_a_layer_on_signals_keep_their_shape() -> None:
    model, example = made("signal")
    shapes = {value.name: value.shape for value in capture(model, example).of(Role.PARAM)}
    assert shapes == {name: tuple(p.shape) for name, p in model.named_parameters()}


def test_a_fused_normalisation_keeps_its_statistics() -> None:
    """Else the kernel of inference would have nowhere to put them."""
    bundle = strop.build(*made("norms"))
    fused = [op for op in bundle.program.infer if op.kind == "fused" and op.body[0].kind == "normalize"]
    assert [op.body[0].loc for op in fused] == ["5 (GroupNorm)", "10 (LayerNorm)"]
    for op in fused:
        assert set(op.body[0].outputs[1:]) <= set(op.outputs)


def test_a_pool_on_signals_joins_the_layer_in_front() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(9, 4))
    first = strop.build(model, torch.zeros(1, 2, 8)).program.infer
    assert [part.kind for op in first for part in op.parts if part.kind != "reshape"][:3] == [
        "conv2d", "max_pool2d", "relu",
    ]  # fmt: skip
    assert len([op for op in first if op.kind != "reshape"]) == 2


def test_no_input_leads_outside_a_table() -> None:
    device = strop.build(*made("words")).twin()
    ends = {0: [float("nan"), -1.0, -3e38, float("-inf"), 0.4], 10: [11.0, 3e38, float("inf"), 9.6]}
    for row, inputs in ends.items():
        expected = device.infer(np.full((1, 7), row, np.float32))
        for number in inputs:
            assert np.array_equal(device.infer(np.full((1, 7), number, np.float32)), expected), number


def test_samples_for_a_table_are_its_rows() -> None:
    signature = Signature.of(strop.build(*made("words")).manifest)
    x = sample_data(signature, 100).x
    assert x.shape == (100, 7) and x.dtype == np.float32
    assert set(np.unique(x)) == set(range(11))


@pytest.mark.parametrize("last", [nn.Softmax(-1), nn.LogSoftmax(-1), nn.Sequential(nn.Softmax(-1), nn.Flatten())])
def test_a_softmax_before_the_loss_that_has_one_is_refused(last: nn.Module) -> None:
    program = capture(nn.Sequential(nn.Linear(3, 2), last), torch.zeros(1, 3))
    with pytest.raises(RuleError, match=r"softmax.*1(\.0)? \((Log)?Softmax\).*takes logits"):
        Backprop().apply(program, "cross_entropy", SGD())
    assert Backprop().apply(program, "mse", SGD()).train_step
