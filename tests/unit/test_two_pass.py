"""Forward-Forward and PEPITA: one step against equations written by hand, references, predictions, memory, refusals."""

from collections.abc import Callable
from zlib import crc32

import numpy as np
import pytest
import torch
from cases import Array, Net, batches, compiled, mlp
from torch import nn

from strop.compiler import rng as generator
from strop.compiler.capture import capture
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Program, Role
from strop.compiler.optim import SGD, Adam
from strop.compiler.pipeline import build
from strop.compiler.rules import ForwardForward, MemPepita, Pepita, Rule
from strop.compiler.verify import verify
from strop.errors import RuleError
from strop.host.reference import reference

LR = 0.5


class Step:
    """A rule's first step in float64: what it was given, what every value became, and how parameters changed."""

    def __init__(self, p: Program, rule: Rule, loss: str = "cross_entropy") -> None:
        self.program = verify(rule.apply(p, loss, SGD(lr=LR)))
        interpreter = Interpreter(self.program)
        self.w = {name: data.copy() for name, data in interpreter.memory.items()}
        ((x, self.y),) = batches(self.program, 1, seed=3)
        self.x = x.astype(np.float64)
        self.after = interpreter.run("train_step", {"x": self.x, "y": self.y})
        self.loss = float(self.after[self.program.loss][0])

    def slope(self, name: str) -> Array:
        """The gradient that the parameter followed."""
        return (self.w[name] - self.after[name]) / LR


def deep(batch: int = 1) -> Program:
    """Dense 9-6-5-4 with ReLU."""
    return Net(9, batch=batch).dense(6).act("relu").dense(5).act("relu").dense(4).program("deep")


def unit(a: Array) -> Array:
    return a / (np.sqrt((a * a).mean(1, keepdims=True)) + 1e-8)


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def wrong(y: Array, classes: int, seed: int = 0, seen: int = 0) -> Array:
    share = generator.uniform(seed, crc32(b"forward_forward.wrong"), seen + np.arange(len(y)))
    return (y + 1 + np.floor(share * np.float32(classes - 1)).astype(int)) % classes


def marked(x: Array, marks: Array) -> Array:
    rows = x.copy()
    rows[:, : marks.shape[1]] = marks
    return rows


# --- Forward-Forward ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", [0.0, 0.3])
@pytest.mark.parametrize(("goodness", "threshold"), [("sum", None), ("mean", None), ("sharp", None), ("mean", 0.3)])
@pytest.mark.parametrize("batch", [1, 3])
def test_forward_forward_hidden_layers(batch: int, goodness: str, threshold: float | None, peer: float) -> None:
    """dJ/dy = (sigmoid(g - theta) - right) dg/dy / 2B, where y > 0, with the input normalised and held constant."""
    s = Step(deep(batch), ForwardForward(goodness, threshold, peer=peer, seed=5))
    hot = np.eye(4)
    a = np.concatenate([marked(s.x, hot[s.y]), marked(s.x, hot[wrong(s.y, 4, seed=5)])])
    right = np.arange(2 * batch) < batch
    for name, units in (("l0", 6), ("l2", 5)):
        xh = unit(a)
        a = np.maximum(xh @ s.w[f"{name}.weight"].T + s.w[f"{name}.bias"], 0)
        share = {"sum": 1, "mean": 1 / units, "sharp": 8 / units}[goodness]
        theta = threshold or {"sum": units}.get(goodness, 2)
        dg = (sigmoid((a * a).sum(1) * share - theta) - right) / (2 * batch)
        dy = 2 * share * dg[:, None] * a
        running = 0.9 * 0.5 + 0.1 * a[:batch].mean(0)
        dy += right[:, None] * peer * 2 / units * (running - running.mean()) * 0.1 / batch
        dz = dy * (a > 0)
        np.testing.assert_allclose(s.slope(f"{name}.weight"), dz.T @ xh, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(s.slope(f"{name}.bias"), dz.sum(0), rtol=1e-9, atol=1e-12)
        if peer:
            np.testing.assert_allclose(s.after[f"{name}.weight.activity"], running, rtol=1e-12)


@pytest.mark.parametrize("batch", [1, 3])
def test_forward_forward_head_learns_the_task_on_neutral_rows(batch: int) -> None:
    s = Step(deep(batch), ForwardForward())
    a = marked(s.x, np.full((batch, 4), 0.25))
    for name in ("l0", "l2"):
        a = np.maximum(unit(a) @ s.w[f"{name}.weight"].T + s.w[f"{name}.bias"], 0)
    p = softmax(unit(a) @ s.w["l4.weight"].T + s.w["l4.bias"])
    delta = (p - np.eye(4)[s.y]) / batch
    np.testing.assert_allclose(s.slope("l4.weight"), delta.T @ unit(a), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(s.slope("l4.bias"), delta.sum(0), rtol=1e-9, atol=1e-12)
    assert s.loss == pytest.approx(-np.log(p[np.arange(batch), s.y]).mean(), rel=1e-9)


def test_forward_forward_by_labels_leaves_the_head_alone() -> None:
    s = Step(deep(3), ForwardForward("sum", prediction="labels"))
    assert {v.name for v in s.program.of(Role.PARAM)} == {"l0.weight", "l0.bias", "l2.weight", "l2.bias"}
    a, total = np.concatenate([marked(s.x, np.eye(4)[y]) for y in (s.y, wrong(s.y, 4))]), 0.0
    for name, units in (("l0", 6), ("l2", 5)):
        a = np.maximum(unit(a) @ s.w[f"{name}.weight"].T + s.w[f"{name}.bias"], 0)
        above = (a * a).sum(1) - units
        total += np.log1p(np.exp(np.concatenate([-above[:3], above[3:]]))).mean()
    assert s.loss == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize(("layers", "counted"), [(1, (0,)), (2, (1,)), (3, (1, 2))])
@pytest.mark.parametrize("goodness", ["sum", "mean", "sharp"])
def test_forward_forward_answers_with_the_goodness_of_each_label(
    layers: int, counted: tuple[int, ...], goodness: str
) -> None:
    """Of all hidden layers but the first; eleven classes are more than one op joins."""
    net = Net(13, batch=2)
    for units in (6, 5, 7)[:layers]:
        net = net.dense(units).act("relu")
    rule = ForwardForward(goodness, prediction="labels")
    p = verify(rule.apply(net.dense(11).program(), "cross_entropy", SGD()))
    x = np.random.default_rng(0).standard_normal((2, 13))
    w, expected = Interpreter(p).memory, np.zeros((2, 11))
    for label in range(11):
        a = marked(x, np.tile(np.eye(11)[label], (2, 1)))
        for layer in range(layers):
            a = np.maximum(unit(a) @ w[f"l{2 * layer}.weight"].T + w[f"l{2 * layer}.bias"], 0)
            total = (a * a).sum(1) * {"sum": 1, "mean": 1 / a.shape[1], "sharp": 8 / a.shape[1]}[goodness]
            expected[:, label] += total * (layer in counted)
    np.testing.assert_allclose(Interpreter(p).infer(x), expected, rtol=1e-12)


def test_wrong_labels_are_wrong_spread_and_new_in_every_step() -> None:
    p = verify(ForwardForward(seed=2).apply(deep(3), "cross_entropy", SGD()))
    interpreter, drawn = Interpreter(p, np.float32), []
    for x, y in batches(p, 400):
        drawn.append(interpreter.run("train_step", {"x": x, "y": y})["wrong"] - y)
    away = np.concatenate(drawn) % 4
    assert interpreter.memory["forward_forward.seen"] == 1200
    np.testing.assert_array_equal(np.bincount(away, minlength=4) > 320, [False, True, True, True])
    np.testing.assert_array_equal(away[:9], wrong(np.zeros(9, int), 4, seed=2))


def test_no_error_passes_between_forward_forward_layers() -> None:
    """Other weights behind a layer do not change what it learns."""
    p = deep(2)
    other = p.with_(initial={**p.initial, "l2.weight": p.initial["l2.weight"] + np.float32(1)})
    ours, theirs = Step(p, ForwardForward()), Step(other, ForwardForward())
    np.testing.assert_array_equal(ours.slope("l0.weight"), theirs.slope("l0.weight"))
    assert not np.array_equal(ours.slope("l2.weight"), theirs.slope("l2.weight"))


# --- PEPITA ------------------------------------------------------------------------------------------------------


def modulation(features: int, classes: int, seed: int = 0) -> Array:
    """F (n,K): uniform in +-0.05 sqrt(6 / n)."""
    index = np.arange(features * classes).reshape(features, classes)
    share = generator.uniform(seed, crc32(b"pepita.modulation"), index).astype(np.float64)
    return (2 * share - 1) * 0.05 * np.sqrt(6 / features)


RULES = [Pepita, MemPepita]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch", [1, 3])
def test_pepita_dense_layers(batch: int, rule: type[Pepita]) -> None:
    s = Step(deep(batch), rule(seed=5))
    w = s.w

    def forward(x: Array) -> list[Array]:
        first = np.maximum(x @ w["l0.weight"].T + w["l0.bias"], 0)
        second = np.maximum(first @ w["l2.weight"].T + w["l2.bias"], 0)
        return [x, first, second, second @ w["l4.weight"].T + w["l4.bias"]]

    clean = forward(s.x)
    e = softmax(clean[3]) - np.eye(4)[s.y]
    moved = forward(s.x + e @ modulation(9, 4, seed=5).T)
    for layer, name in ((1, "l0"), (2, "l2")):
        expected = (clean[layer] - moved[layer]).T @ moved[layer - 1] / batch
        np.testing.assert_allclose(s.slope(f"{name}.weight"), expected, rtol=1e-9, atol=1e-12)
        assert not np.any(s.slope(f"{name}.bias"))
        assert np.any(expected)
    delta = (softmax(moved[3]) - np.eye(4)[s.y]) / batch
    np.testing.assert_allclose(s.slope("l4.weight"), delta.T @ moved[2], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(s.slope("l4.bias"), delta.sum(0), rtol=1e-9, atol=1e-12)
    assert s.loss == pytest.approx(-np.log(softmax(clean[3])[np.arange(batch), s.y]).mean(), rel=1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch", [1, 2])
def test_pepita_convolutions_average_over_positions(batch: int, rule: type[Pepita]) -> None:
    net = Net(2, 5, 6, batch=batch).conv(3).norm().act("tanh").pool("max_pool2d_argmax", 2, 1)
    s = Step(net.flatten().dense(4).program(), rule())
    w = s.w

    def forward(x: Array) -> tuple[Array, Array, Array, Array]:
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
        z = np.einsum("bihwkl,oikl->bohw", windows, w["l0.weight"]) + w["l0.bias"][:, None, None]
        gain, offset, mean, scale = (w[f"l1.{name}"][:, None, None] for name in ("weight", "bias", "mean", "inv_std"))
        h = np.tanh((z - mean) * scale * gain + offset)
        pooled = np.lib.stride_tricks.sliding_window_view(h, (2, 2), axis=(2, 3)).max((4, 5)).reshape(len(x), -1)
        return windows, h, pooled, pooled @ w["l5.weight"].T + w["l5.bias"]

    _, h, _, z = forward(s.x)
    e = softmax(z) - np.eye(4)[s.y]
    windows, moved, pooled, z = forward(s.x + (e @ modulation(60, 4).T).reshape(s.x.shape))
    expected = np.einsum("bohw,bihwkl->oikl", h - moved, windows) / (batch * 12)
    np.testing.assert_allclose(s.slope("l0.weight"), expected, rtol=1e-9, atol=1e-12)
    delta = (softmax(z) - np.eye(4)[s.y]) / batch
    np.testing.assert_allclose(s.slope("l5.weight"), delta.T @ pooled, rtol=1e-9, atol=1e-12)
    assert {v.name for v in s.program.of(Role.PARAM)} == {"l0.weight", "l5.weight", "l5.bias"}


def test_pepita_injects_the_error_of_a_regression() -> None:
    """e = 2 (z - y) / K, each sample's gradient of the mean over its outputs."""
    s = Step(Net(9, batch=3).dense(4).program(), Pepita(), "mse")
    w, b = s.w["l0.weight"], s.w["l0.bias"]
    e = 2 * (s.x @ w.T + b - s.y) / 4
    x = s.x + e @ modulation(9, 4).T
    delta = 2 * (x @ w.T + b - s.y) / 12
    np.testing.assert_allclose(s.slope("l0.weight"), delta.T @ x, rtol=1e-9, atol=1e-12)


def tower(layers: int, batch: int = 1) -> Program:
    """Equal convolutions on an image that is far larger than anything else."""
    net = Net(2, 12, 12, batch=batch)
    for _ in range(layers):
        net = net.conv(2, padding=1).act("relu")
    return net.pool("avg_pool2d", 6, 6).flatten().dense(4).program("tower")


def test_mempepita_needs_no_more_memory_for_more_layers() -> None:
    def arena(rule: Rule, layers: int) -> int:
        model = nn.Sequential(
            *(part for _ in range(layers) for part in (nn.Conv2d(2, 2, 3, padding=1), nn.ReLU())),
            nn.AvgPool2d(6), nn.Flatten(), nn.Linear(8, 4),
        )  # fmt: skip
        bundle = build(model, torch.zeros(1, 2, 12, 12), rule=rule)
        return int(bundle.plan.peak("train_step")[0])

    image = 2 * 12 * 12 * 4
    assert arena(MemPepita(), 6) == arena(MemPepita(), 3) < 5 * image
    assert arena(Pepita(), 6) == arena(Pepita(), 3) + 3 * image


def test_mempepita_is_pepita_to_the_bit() -> None:
    programs = [compiled(tower(3, 2), rule(seed=1), "cross_entropy", Adam()) for rule in RULES]
    interpreters = [Interpreter(p, np.float32) for p in programs]
    for x, y in batches(programs[0], 4):
        losses = [interpreter.train_step(x, y) for interpreter in interpreters]
        assert losses[0] == losses[1]
    for name in (v.name for v in programs[0].of(Role.PARAM)):
        assert interpreters[0].memory[name].tobytes() == interpreters[1].memory[name].tobytes()


# --- references --------------------------------------------------------------------------------------------------


class Pictures(nn.Module):
    """Convolutions, normalisation, in-place activations and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn, self.conv2 = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4, eps=0), nn.Conv2d(4, 5, 3)
        self.fc = nn.Linear(5 * 2 * 1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu(self.bn(self.conv1(x)), inplace=True)
        x = nn.functional.max_pool2d(torch.tanh(self.conv2(x)), 2)
        out: torch.Tensor = self.fc(x.flatten(1))
        return out


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense": (dense, (1, 6, 5)), "pictures": (Pictures, (2, 6, 5)),
}  # fmt: skip
SETTINGS = {
    "ff": ("dense", ForwardForward(seed=4)),
    "ff-sum": ("dense", ForwardForward("sum")),
    "ff-mean-peer": ("dense", ForwardForward("mean", 1.5, peer=0.5)),
    "ff-labels": ("dense", ForwardForward(prediction="labels", peer=0.03)),
    "ff-frozen": ("dense", ForwardForward(freeze=("1.*", "*.bias"))),
    "pepita": ("dense", Pepita(seed=4)),
    "mempepita": ("pictures", MemPepita()),
    "pepita-frozen": ("pictures", Pepita(freeze=("conv2.weight", "fc.bias"))),
}


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1, momentum=0.5), Adam(lr=0.01)], ids=["momentum", "adam"])
@pytest.mark.parametrize("case", SETTINGS)
def test_the_compiler_agrees(case: str, optimizer: SGD | Adam) -> None:
    model, rule = SETTINGS[case]
    torch.manual_seed(6)
    make, sample = MODELS[model]
    net = make()
    program = rule.apply(capture(net, torch.zeros(1, *sample), batch=4), "cross_entropy", optimizer)
    interpreter, trainer = Interpreter(program), reference(rule, net, "cross_entropy", optimizer)
    assert trainer is not None
    rng = np.random.default_rng(3)
    for step in range(3):
        x, y = rng.standard_normal((4, *sample)), rng.integers(0, 3, 4)
        assert interpreter.train_step(x, y) == pytest.approx(trainer.step(x, y), rel=1e-9), step
    state = trainer.state()
    for name in (v.name for v in program.of(Role.PARAM, Role.STATE)):
        np.testing.assert_allclose(interpreter.memory[name], state[name], 1e-7, 1e-11, err_msg=name)
    np.testing.assert_allclose(interpreter.infer(x), trainer.infer(x), rtol=1e-7)
    trainer.load({name: interpreter.memory[name].astype(np.float32) for name in state if name in interpreter.memory})


# --- refusals ----------------------------------------------------------------------------------------------------


def refused(rule: Rule, p: Program, loss: str = "cross_entropy") -> Callable[[], object]:
    return lambda: rule.apply(p, loss, SGD())


REFUSALS: dict[str, tuple[Callable[[], object], str]] = {
    "goodness": (lambda: ForwardForward("max"), "Forward-Forward has no goodness 'max'"),
    "prediction": (lambda: ForwardForward(prediction="heads"), "no prediction 'heads'. Did you mean 'head'"),
    "threshold": (lambda: ForwardForward(threshold=0), "threshold of Forward-Forward must be positive, not 0"),
    "peer": (lambda: ForwardForward(peer=-1), "strength of peer normalisation is at least 0, not -1"),
    "tanh": (refused(ForwardForward(), mlp()), "needs a ReLU behind each hidden layer, and finds tanh"),
    "no activation": (
        refused(ForwardForward(), Net(9).dense(5).dense(4).program()), "needs a ReLU behind each hidden layer",
    ),
    "a convolution": (
        refused(ForwardForward(), Net(1, 5, 5).conv(2).act("relu").flatten().dense(4).program()),
        "trains fully connected layers, not conv2d",
    ),
    "no hidden layer": (refused(ForwardForward(), Net(9).dense(4).program()), "needs hidden layers with ReLU"),
    "no linear end": (
        refused(ForwardForward(), Net(9).dense(5).act("relu").dense(4).act("relu").program()),
        "needs hidden layers with ReLU and a linear layer",
    ),
    "a regression": (refused(ForwardForward(), deep(), "mse"), "learns from right and wrong classes"),
    "few features": (
        refused(ForwardForward(), Net(4).dense(5).act("relu").dense(4).program()),
        "the 4 classes' labels would overwrite all 4 features of a sample",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("act", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(act: Callable[[], object], sentence: str) -> None:
    with pytest.raises(RuleError) as error:
        act()
    assert sentence in str(error.value)


def test_pepita_refuses_recurrent_layers() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc = nn.RNN(3, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.fc(self.rnn(x)[0][:, -1])
            return out

    with pytest.raises(RuleError, match="which says nothing about rnn"):
        build(Last(), torch.zeros(1, 5, 3), rule=Pepita())
