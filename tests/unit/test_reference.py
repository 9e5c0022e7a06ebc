"""The PyTorch references against closed forms in numpy, against torch.optim, and against the compiler's Programs."""

from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from zlib import crc32

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from strop.compiler import rng as generator
from strop.compiler.capture import capture
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Program
from strop.compiler.optim import SGD, Adam, Optimizer
from strop.compiler.rules import (
    DFA,
    DRTP,
    SDFA,
    Backprop,
    Blocks,
    CaFo,
    FixedM,
    HeadOnly,
    MonoForward,
    Rule,
    Sparse,
    TpSGD,
)  # fmt: skip
from strop.errors import UsageError
from strop.host.reference import reference

OPTIMIZERS = {
    "sgd": SGD(lr=0.1, weight_decay=0.01),
    "momentum": SGD(lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": Adam(lr=0.01, weight_decay=0.02),
}


def mlp(activation: nn.Module) -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(7, 5), activation, nn.Linear(5, 3))


def batches(count: int, *shape: int, classes: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(3)
    return [(rng.standard_normal(shape), rng.integers(0, classes, shape[0])) for _ in range(count)]


def projection(name: str, units: int, classes: int, low: float, high: float, seed: int = 0) -> np.ndarray:
    """P (units, classes) of tpSGD."""
    index = np.arange(units)[:, None] * classes + np.arange(classes)
    signs = generator.sign(seed, crc32(f"{name}.target".encode()), index)
    return np.where(signs > 0, np.float32(high), np.float32(low)).astype(np.float64)


class Network:
    """x -> W1 x + b1 -> f -> W2 a + b2 -> softmax cross-entropy, with its gradients written out."""

    def __init__(self, model: nn.Module) -> None:
        tensors = [parameter.detach().numpy().astype(np.float64) for parameter in model.parameters()]
        self.w1, self.b1, self.w2, self.b2 = tensors

    def forward(self, x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """(loss, hidden activation for tanh, dL/dlogits)."""
        a = np.tanh(x @ self.w1.T + self.b1)
        z = a @ self.w2.T + self.b2
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        rows = np.arange(len(y))
        return -np.log(p[rows, y]).mean(), a, (p - np.eye(z.shape[1])[y]) / len(y)

    def update(self, lr: float, x: np.ndarray, a: np.ndarray, delta1: np.ndarray, delta2: np.ndarray) -> None:
        self.w1, self.b1 = self.w1 - lr * delta1.T @ x, self.b1 - lr * delta1.sum(0)
        self.w2, self.b2 = self.w2 - lr * delta2.T @ a, self.b2 - lr * delta2.sum(0)

    def parameters(self) -> dict[str, np.ndarray]:
        return {"0.weight": self.w1, "0.bias": self.b1, "2.weight": self.w2, "2.bias": self.b2}


def random(stream: str) -> np.ndarray:
    """(5, 3) of +-1 by a rule's own stream of seed 4."""
    return generator.sign(4, crc32(f"0.weight.{stream}".encode()), np.arange(15).reshape(5, 3)).astype(np.float64)


def readout_delta(m: np.ndarray, a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Mean of the cross-entropy of M a, by a."""
    e = np.exp(a @ m.T)
    return (e / e.sum(1, keepdims=True) - np.eye(3)[y]) @ m / len(y)


def activity_delta(rule: str, net: Network, a: np.ndarray, y: np.ndarray, delta2: np.ndarray) -> np.ndarray:
    """dJ/da of the hidden layer by the rule's equation."""
    feedback = random("feedback") * (2 / 5) ** 0.5
    error = a - projection("0.weight", 5, 3, -0.9, 0.9, seed=4)[:, y].T
    match rule:
        case "backprop":
            return delta2 @ net.w2
        case "l2" | "l1" | "huber":
            return {"l2": error, "l1": np.sign(error), "huber": np.clip(error, -0.5, 0.5)}[rule] / len(y)
        case "drtp":
            return feedback.astype(np.float32)[:, y].T / len(y)
        case "dfa":
            return delta2 @ feedback.T
        case "sdfa":
            return np.sign(delta2) @ feedback.T / len(y)
        case "fixed-m":
            return readout_delta(random("m").T / 5**0.5, a, y)
        case "sparse":
            return delta2 @ net.w2
    return np.zeros_like(a)


RULES = {
    "backprop": Backprop(),
    "head-only": HeadOnly(),
    "cafo": CaFo(),
    "l2": TpSGD(seed=4),
    "l1": TpSGD(objective="l1", seed=4),
    "huber": TpSGD(objective="huber", seed=4),
    "drtp": DRTP(seed=4),
    "dfa": DFA(seed=4),
    "sdfa": SDFA(seed=4),
    "fixed-m": FixedM(seed=4),
    "sparse": Sparse(("*",)),
}


@pytest.mark.parametrize("rule", RULES)
def test_two_layers_by_hand(rule):
    model = mlp(nn.Tanh())
    net, trainer = Network(model), reference(RULES[rule], model, "cross_entropy", SGD(lr=0.1))
    for x, y in batches(5, 4, 7):
        loss, a, delta2 = net.forward(x, y)
        net.update(0.1, x, a, activity_delta(rule, net, a, y, delta2) * (1 - a * a), delta2)
        assert trainer.step(x, y) == pytest.approx(loss, rel=1e-12)
        found = trainer.state()
        for name, expected in net.parameters().items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rule", [MonoForward(seed=4), Blocks(2, seed=4)], ids=str)
def test_a_head_learns_with_its_layer(rule):
    """Both from the old head, which starts uniform in +-1/sqrt(n)."""
    model = mlp(nn.Tanh())
    net, trainer = Network(model), reference(rule, model, "cross_entropy", SGD(lr=0.1))
    share = generator.uniform(4, crc32(b"0.weight.head"), np.arange(15).reshape(3, 5))
    head = ((2 * share - 1) * np.float32(5**-0.5)).astype(np.float64)
    for x, y in batches(5, 4, 7):
        loss, a, delta2 = net.forward(x, y)
        e = np.exp(a @ head.T)
        change = (e / e.sum(1, keepdims=True) - np.eye(3)[y]).T @ a / len(y)
        net.update(0.1, x, a, readout_delta(head, a, y) * (1 - a * a), delta2)
        head = head - 0.1 * change
        assert trainer.step(x, y) == pytest.approx(loss, rel=1e-12)
        for name, expected in {**net.parameters(), "0.weight.head": head}.items():
            np.testing.assert_allclose(trainer.state()[name], expected, rtol=1e-12, atol=1e-14)


ACTIVATIONS = {
    "relu": (nn.ReLU(), 0, 1, lambda z: np.maximum(z, 0), lambda a: a > 0),
    "relu6": (nn.ReLU6(), 0, 1, lambda z: np.clip(z, 0, 6), lambda a: (a > 0) & (a < 6)),
    "leaky-relu": (nn.LeakyReLU(0.5), -0.1, 1, lambda z: np.maximum(z, z / 2), lambda a: np.where(a > 0, 1, 0.5)),
    "sigmoid": (nn.Sigmoid(), 0.1, 0.9, lambda z: 1 / (1 + np.exp(-z)), lambda a: a * (1 - a)),
    "tanh": (nn.Tanh(), -0.9, 0.9, np.tanh, lambda a: 1 - a * a),
    "linear": (nn.Identity(), -0.9, 0.9, lambda z: z, np.ones_like),
}
"""layer, lowest and highest target, f(z), and f' by f's value."""


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_convolution_learns_its_channel_means(name):
    torch.manual_seed(5)
    activation, low, high, function, derivative = ACTIVATIONS[name]
    model = nn.Sequential(nn.Conv2d(2, 4, 3), activation, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    trainer = reference(TpSGD(), model, "cross_entropy", SGD(lr=0.1))
    ((x, y),) = batches(1, 1, 2, 6, 7)
    w, b = (tensor.detach().numpy().astype(np.float64) for tensor in model[0].parameters())
    patches = np.lib.stride_tricks.sliding_window_view(x[0], (3, 3), axis=(1, 2))
    z = np.einsum("ihwkl,oikl->ohw", patches, w) + b[:, None, None]
    a = function(z)
    windows = a[:, :4, :4].reshape(4, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(4, 4, 4)
    pooled, wins = windows.max(2), np.eye(4)[windows.argmax(2)]
    error = pooled.mean(1) - projection("0.weight", 4, 3, low, high)[:, y[0]]
    winners = np.zeros_like(a)
    winners[:, :4, :4] = wins.reshape(4, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(4, 4, 4)
    delta = error[:, None, None] / 4 * winners * derivative(a)
    trainer.step(x, y)
    np.testing.assert_allclose(trainer.state()["0.weight"], w - 0.1 * np.einsum("ohw,ihwkl->oikl", delta, patches))
    np.testing.assert_allclose(trainer.state()["0.bias"], b - 0.1 * delta.sum((1, 2)))


def test_a_real_label_is_projected():
    model = mlp(nn.Tanh())
    trainer = reference(TpSGD(), model, "mse", SGD(lr=0.1))
    x, y = np.random.default_rng(0).standard_normal((4, 7)), np.random.default_rng(1).random((4, 3))
    w, b = (tensor.detach().numpy().astype(np.float64) for tensor in model[0].parameters())
    a = np.tanh(x @ w.T + b)
    target = y @ (projection("0.weight", 5, 3, -1, 1) * 0.9).T
    delta = (a - target) * (1 - a * a) / len(x)
    trainer.step(x, y)
    np.testing.assert_allclose(trainer.state()["0.weight"], w - 0.1 * delta.T @ x, rtol=1e-12)


def torch_twin(model: nn.Module, name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    double = mlp(nn.Tanh()).double()
    double.load_state_dict(model.state_dict())
    kinds = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
        "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.02),
    }
    return double, kinds[name](double.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_those_of_torch(name):
    model = mlp(nn.Tanh())
    trainer = reference(Backprop(), model, "cross_entropy", OPTIMIZERS[name])
    twin, optimizer = torch_twin(model, name)
    for x, y in batches(20, 4, 7):
        optimizer.zero_grad()
        nn.functional.cross_entropy(twin(torch.tensor(x)), torch.tensor(y)).backward()
        optimizer.step()
        trainer.step(x, y)
    for key, parameter in twin.named_parameters():
        np.testing.assert_allclose(trainer.state()[key], parameter.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("steps", [0, 1, 40])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_from_a_state(name, steps):
    """Also from the float32 numbers of a board."""
    first, other = (reference(Backprop(), mlp(nn.Tanh()), "cross_entropy", OPTIMIZERS[name]) for _ in range(2))
    for x, y in batches(steps, 2, 7):
        first.step(x, y)
    other.load({key: value.astype(np.float32) for key, value in first.state().items()})
    first.load(other.state())
    for x, y in batches(5, 2, 7):
        assert first.step(x, y) == pytest.approx(other.step(x, y), rel=1e-12)
    for key, value in first.state().items():
        np.testing.assert_allclose(other.state()[key], value, rtol=1e-12, err_msg=key)


@pytest.mark.parametrize("steps", [1, 300, 3000, 30000])
def test_adam_finds_its_step_in_a_boards_float32(steps):
    trainer = reference(Backprop(), mlp(nn.Tanh()), "cross_entropy", Adam())
    c1, c2 = np.float32([0]), np.float32([0])
    for _ in range(steps):
        c1 = np.float32(0.9) * c1 + np.float32(1 - 0.9)
        c2 = np.float32(0.999) * c2 + np.float32(1 - 0.999)
    trainer.load({"adam.c1": c1, "adam.c2": c2})
    np.testing.assert_allclose(trainer.state()["adam.c1"], c1, rtol=1e-6)
    np.testing.assert_allclose(trainer.state()["adam.c2"], c2, rtol=1e-4)


class Branches(nn.Module):
    """Pooling, a residual sum and normalisation where a block must be cut with care."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.conv3 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 3 * 2, 3)
        for layer in (self.bn1, self.bn2):
            nn.init.normal_(layer.weight, 1, 0.2)
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(nn.functional.dropout(self.conv1(x), training=self.training)))
        y = self.conv2(x)
        y += self.conv3(x)
        y = nn.functional.leaky_relu(self.bn2(nn.functional.max_pool2d(y, 2)), 0.1, inplace=True)
        return self.fc(y.flatten(1))


def digits() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.Sigmoid(),
        nn.Flatten(), nn.Linear(5, 4), nn.ReLU6(), nn.Linear(4, 3),
    )  # fmt: skip


def pooled_classes() -> nn.Module:
    """What follows the last layer belongs to it, normalisation after pooling to the next one."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def signals() -> nn.Module:
    """Convolutions over time."""
    return nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.Tanh(), nn.MaxPool1d(2), nn.Conv1d(4, 5, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(30, 3)
    )


class Sequence(nn.Module):
    """Two recurrent layers, and functions right behind them that belong to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.fc, self.out = nn.GRU(6, 5, 2, batch_first=True), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.gru(x)
        return self.out(torch.sigmoid(self.fc(torch.tanh(steps[:, -1]))))


PROGRAMS = {
    "digits": (digits, (2, 6, 6)), "branches": (Branches, (2, 6, 5)), "pooled": (pooled_classes, (2, 7, 6)),
    "signals": (signals, (2, 16)), "sequence": (Sequence, (7, 6)),
}  # fmt: skip
SETTINGS = {
    "backprop": Backprop(),
    "frozen": Backprop(freeze=("*bias",)),
    "sparse": Sparse(("*bias*", "6.*")),
    "head-only": HeadOnly(),
    "l2": TpSGD(seed=7),
    "l1-frozen": TpSGD(objective="l1", freeze=("*weight*",)),
    "cosine": TpSGD("cosine", strength=0.5),
    "huber": TpSGD("huber", delta=0.3),
    "fixed-m": FixedM(grid=2, seed=7),
    "mono-forward": MonoForward(grid=3, seed=7),
    "heads-frozen": MonoForward(freeze=("0.*", "conv1.*", "bn1.*", "gru.*")),
    "blocks": Blocks(2),
    "cafo": CaFo(),
    "drtp": DRTP(strength=0.3, seed=7),
    "dfa": DFA(seed=7),
    "sdfa": SDFA(),
}
REFUSED = {
    **dict.fromkeys(("dfa", "sdfa"), ("branches", "pooled")),
    "drtp": ("branches", "pooled", "sequence"),
}
"""Networks that a rule does not train: convolutions without bounds; recurrent layers under a constant push."""
AGREEMENTS = [
    (model, rule) for model in PROGRAMS for rule in SETTINGS
    if model not in REFUSED.get(rule, ()) and not (rule == "sparse" and model not in ("digits", "signals"))
]  # fmt: skip


def exact_deviations(net: nn.Module) -> dict[str, np.ndarray]:
    """The constants of batch normalisation without their rounding to float32."""
    layers = [(name, layer) for name, layer in net.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    return {f"{name}.inv_std": (layer.running_var.double() + layer.eps).rsqrt().numpy() for name, layer in layers}


def matching(rule: Rule, net: nn.Module) -> Rule:
    """The rule without what it freezes in other networks."""
    names = [name for name, _ in net.named_parameters()]
    known = tuple(pattern for pattern in rule.freeze if any(fnmatchcase(name, pattern) for name in names))
    return replace(rule, freeze=known)


@cache
def captured(model: str) -> tuple[nn.Module, Program]:
    """A network with seeded weights, and its forward Program."""
    torch.manual_seed(6)
    make, sample = PROGRAMS[model]
    net = make()
    return net, capture(net, torch.zeros(1, *sample), batch=3)


def agree(model: str, rule: Rule, loss: str, optimizer: Optimizer) -> None:
    """Three steps and an answer of compiler and reference in float64."""
    (net, forward), sample = captured(model), PROGRAMS[model][1]
    rule = matching(rule, net)
    program = rule.apply(forward, loss, optimizer)
    interpreter, trainer = Interpreter(program), reference(rule, net, loss, optimizer)
    interpreter.memory.update(exact_deviations(net))
    for x, y in batches(3, 3, *sample):
        if loss != "cross_entropy":
            y = np.random.default_rng(int(y.sum())).random((3, 3))  # noqa: PLW2901
        assert interpreter.train_step(x, y) == pytest.approx(trainer.step(x, y), rel=1e-10)
    state = trainer.state()
    changed = [name for name, value in program.values.items() if value.role in ("param", "state")]
    for name in changed:
        np.testing.assert_allclose(interpreter.memory[name], state[name], 1e-9, 1e-12, err_msg=name)
    np.testing.assert_allclose(interpreter.infer(x), trainer.infer(x), rtol=1e-9)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("model", "rule"), AGREEMENTS)
def test_the_compiler_agrees(model, rule, optimizer):
    agree(model, SETTINGS[rule], "cross_entropy", OPTIMIZERS[optimizer])


@pytest.mark.parametrize("rule", [Backprop(), TpSGD(), FixedM(), MonoForward(), DRTP(), DFA()], ids=str)
@pytest.mark.parametrize("loss", ["mse", "l1", "huber", "bce"])
def test_the_compiler_agrees_on_other_tasks(loss, rule):
    agree("digits", rule, loss, SGD(lr=0.1))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_heads_come_with_the_tensors_of_a_board(optimizer):
    """And the optimizer's states of a head with them."""
    first, other = (reference(MonoForward(), mlp(nn.Tanh()), "cross_entropy", OPTIMIZERS[optimizer]) for _ in range(2))
    for x, y in batches(5, 2, 7):
        first.step(x, y)
    other.load(first.state())
    for x, y in batches(5, 2, 7):
        assert first.step(x, y) == other.step(x, y)
    assert "0.weight.head" in other.state()
    for name, value in first.state().items():
        np.testing.assert_array_equal(other.state()[name], value, err_msg=name)


def test_a_budgets_choice_is_what_the_board_trains():
    trainer = reference(Sparse(budget=100), mlp(nn.Tanh()), "cross_entropy", SGD(lr=0.1))
    before = trainer.state()
    trainer.load({"2.bias": before["2.bias"], "2.weight": before["2.weight"]})
    ((x, y),) = batches(1, 4, 7)
    trainer.step(x, y)
    after = trainer.state()
    assert {name for name in trainer.parameters if not np.array_equal(after[name], before[name])} == {
        "2.bias", "2.weight",
    }  # fmt: skip


def test_rules_and_optimizers_without_a_reference():
    class Other(Backprop):
        name = "other"

    class Lion:
        pass

    assert reference(Other(), mlp(nn.Tanh()), "cross_entropy", SGD()) is None
    assert reference(Backprop(), mlp(nn.Tanh()), "cross_entropy", Lion()) is None


def test_bad_arguments():
    with pytest.raises(UsageError, match="Did you mean 'mse'"):
        reference(Backprop(), mlp(nn.Tanh()), "mes", SGD())
    trainer = reference(Backprop(), mlp(nn.Tanh()), "mse", SGD())
    with pytest.raises(UsageError, match=r"Did you mean '0\.weight'"):
        trainer.load({"0.weigth": np.zeros((5, 7))})
    with pytest.raises(UsageError, match=r"\(5, 7\), not \(7, 5\)"):
        trainer.load({"0.weight": np.zeros((7, 5))})


def test_the_users_model_stays_and_its_copy_returns():
    model = mlp(nn.Tanh())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer = reference(Backprop(), model, "cross_entropy", SGD(lr=0.5))
    ((x, y),) = batches(1, 4, 7)
    trainer.step(x, y)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    model.load_state_dict(trainer.state_dict())
    with torch.no_grad():
        np.testing.assert_allclose(model(torch.tensor(x).float()), trainer.infer(x), rtol=1e-5)
