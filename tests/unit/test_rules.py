"""Learning rules against equations written by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import numpy as np
import pytest
from cases import NETWORKS, Array, Net, batches, compiled, mlp

from strop.compiler import rng as generator
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Builder, Program, Role
from strop.compiler.ops.base import f32
from strop.compiler.optim import SGD, Adam, Optimizer
from strop.compiler.passes.simplify import simplify
from strop.compiler.rules import (
    DFA,
    DRTP,
    SDFA,
    Backprop,
    Blocks,
    CaFo,
    FeTrIL,
    FixedM,
    HeadOnly,
    MonoForward,
    Pepita,
    Sparse,
    TpSGD,
    rule_class,
    rules,
)  # fmt: skip
from strop.compiler.rules.base import Block, Rule, Task, layerwise
from strop.compiler.rules.sparse import training_bytes
from strop.compiler.verify import verify
from strop.errors import RuleError

LR = 0.5


def step(p: Program, rule: Rule, loss: str, optimizer: Optimizer = SGD(lr=LR)) -> tuple[dict[str, Array], Array, Array]:  # noqa: B008
    """The change of every parameter and state after one step in float64, with the batch that made it."""
    trained = verify(rule.apply(p, loss, optimizer))
    interpreter = Interpreter(trained)
    before = {name: data.copy() for name, data in interpreter.memory.items()}
    ((x, y),) = batches(trained, 1, seed=3)
    interpreter.train_step(x, y)
    changed = [*p.of(Role.PARAM), *trained.of(Role.STATE)]
    changes = {v.name: interpreter.memory[v.name] - before[v.name] for v in changed}
    return changes, x.astype(np.float64), y


def weights(p: Program) -> dict[str, Array]:
    return {name: data.astype(np.float64) for name, data in p.initial.items()}


def targets(
    weight: str, units: int, labels: Array, low: float, high: float, *, seed: int = 0, classes: int = 4
) -> Array:
    """P[:, y]: one of two values by the generator's sign at (seed, the weight's name, unit x classes + label)."""
    key = generator.tensor_key(f"{weight}.target")
    index = np.arange(units)[None] * classes + labels[:, None]
    return np.where(generator.sign(seed, key, index) > 0, np.float32(high), np.float32(low)).astype(np.float64)


DELTAS: dict[str, Callable[[Array], Array]] = {"l2": lambda e: e, "l1": np.sign}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("strength", [1.0, 0.25])
@pytest.mark.parametrize("objective", DELTAS)
def test_tpsgd_hidden_dense_layer(objective: str, strength: float, batch: int) -> None:
    """delta = strength J'(a - t) * (1 - a^2); W -= lr delta^T x / B; b -= lr sum delta / B."""
    p = mlp(batch)
    changes, x, y = step(p, TpSGD(objective, strength), "cross_entropy")
    w = weights(p)
    a = np.tanh(x @ w["l0.weight"].T + w["l0.bias"])
    delta = strength * DELTAS[objective](a - targets("l0.weight", 5, y, -0.9, 0.9)) * (1 - a * a) / batch
    np.testing.assert_allclose(changes["l0.weight"], -LR * delta.T @ x, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(changes["l0.bias"], -LR * delta.sum(0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 3])
def test_tpsgd_output_layer_learns_the_task(batch: int) -> None:
    """delta = softmax - onehot, mean over the batch."""
    p = mlp(batch)
    changes, x, y = step(p, TpSGD(), "cross_entropy")
    w = weights(p)
    a = np.tanh(x @ w["l0.weight"].T + w["l0.bias"])
    z = np.exp(a @ w["l2.weight"].T + w["l2.bias"])
    delta = (z / z.sum(1, keepdims=True) - np.eye(4)[y]) / batch
    np.testing.assert_allclose(changes["l2.weight"], -LR * delta.T @ a, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(changes["l2.bias"], -LR * delta.sum(0), rtol=1e-9, atol=1e-12)


def test_tpsgd_targets_a_convolutions_channel_means() -> None:
    """J on m = mean over positions: delta[c] = (m - t)[c] / (H W) at every position where the ReLU is open."""
    p = Net(2, 5, 6).conv(3).act("relu").flatten().dense(4).program()
    changes, x, y = step(p, TpSGD(), "cross_entropy")
    w = weights(p)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    a = np.maximum(np.einsum("bihwkl,oikl->bohw", windows, w["l0.weight"]) + w["l0.bias"][:, None, None], 0)
    error = a.mean((2, 3)) - targets("l0.weight", 3, y, 0.0, 1.0)
    delta = error[:, :, None, None] / (a.shape[2] * a.shape[3]) * (a > 0)
    np.testing.assert_allclose(
        changes["l0.weight"], -LR * np.einsum("bohw,bihwkl->oikl", delta, windows), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(changes["l0.bias"], -LR * delta.sum((0, 2, 3)), rtol=1e-9, atol=1e-12)


def test_tpsgd_projects_a_real_label() -> None:
    """t = S y, S[j, k] = +-0.9 by the generator."""
    p = mlp(3)
    changes, x, y = step(p, TpSGD(), "mse")
    w = weights(p)
    a = np.tanh(x @ w["l0.weight"].T + w["l0.bias"])
    signs = generator.sign(0, generator.tensor_key("l0.weight.target"), np.arange(20).reshape(5, 4))
    delta = (a - y @ (signs.astype(np.float64) * 0.9).T) * (1 - a * a) / 3
    np.testing.assert_allclose(changes["l0.weight"], -LR * delta.T @ x, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_seed_names_the_targets(seed: int) -> None:
    p = mlp()
    changes, x, y = step(p, TpSGD(seed=seed), "cross_entropy")
    a = np.tanh(x @ weights(p)["l0.weight"].T + weights(p)["l0.bias"])
    delta = (a - targets("l0.weight", 5, y, -0.9, 0.9, seed=seed)) * (1 - a * a)
    np.testing.assert_allclose(changes["l0.bias"], -LR * delta.sum(0), rtol=1e-9, atol=1e-12)


# --- other local rules, by their equations -------------------------------------------------------------------------


def one_hot(y: Array, classes: int = 4) -> Array:
    return np.eye(classes)[y]


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def signs(stream: str, units: int = 5, classes: int = 4, seed: int = 0) -> Array:
    """(units, classes) of +-1: B without its scale, or the transpose of M."""
    index = np.arange(units * classes).reshape(units, classes)
    return generator.sign(seed, generator.tensor_key(stream), index).astype(np.float64)


def first_head(weight: str, classes: int, features: int, seed: int = 0) -> Array:
    """Uniform in +-1/sqrt(n), in float32."""
    key = generator.tensor_key(f"{weight}.head")
    share = generator.uniform(seed, key, np.arange(classes * features)).reshape(classes, features)
    return ((2 * share - 1) / np.sqrt(np.float32(features))).astype(np.float64)


def toward(a: Array, y: Array) -> Array:
    """The slope of 1 - cos(a, t): what of -t is across a, over the length of a."""
    t = targets("l0.weight", 5, y, -0.9, 0.9)
    u, v = (row / np.linalg.norm(row, axis=1, keepdims=True) for row in (a, t))
    return -(v - (u * v).sum(1, keepdims=True) * u) / np.linalg.norm(a, axis=1, keepdims=True)


B, M = np.sqrt(2 / 5) * signs("l0.weight.feedback"), signs("l0.weight.m").T / np.sqrt(5)
HEAD = first_head("l0.weight", 4, 5)

Slope = Callable[[Array, Array, Array], Array]
SLOPES: dict[str, tuple[Rule, Slope]] = {
    "tpsgd huber": (
        TpSGD("huber", delta=0.3), lambda a, y, e: np.clip(a - targets("l0.weight", 5, y, -0.9, 0.9), -0.3, 0.3),
    ),
    "tpsgd cosine": (TpSGD("cosine", strength=0.5), lambda a, y, e: 0.5 * toward(a, y)),
    "drtp": (DRTP(), lambda a, y, e: B[:, y].T),
    "weak drtp": (DRTP(strength=0.1), lambda a, y, e: 0.1 * B[:, y].T),
    "dfa": (DFA(), lambda a, y, e: e @ B.T),
    "sdfa": (SDFA(strength=0.3), lambda a, y, e: 0.3 * np.sign(e) @ B.T),
    "fixed-m": (FixedM(), lambda a, y, e: (softmax(a @ M.T) - one_hot(y)) @ M),
    "mono-forward": (MonoForward(), lambda a, y, e: (softmax(a @ HEAD.T) - one_hot(y)) @ HEAD),
    "cafo": (CaFo(), lambda a, y, e: np.zeros_like(a)),
}  # fmt: skip
"""dJ/da of one sample of a hidden layer l0, from activity, label and error at the output."""


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", SLOPES)
def test_a_hidden_and_the_last_layer_by_hand(name: str, batch: int) -> None:
    rule, slope = SLOPES[name]
    p = mlp(batch)
    changes, x, y = step(p, rule, "cross_entropy")
    w = weights(p)
    a = np.tanh(x @ w["l0.weight"].T + w["l0.bias"])
    error = softmax(a @ w["l2.weight"].T + w["l2.bias"]) - one_hot(y)
    delta = slope(a, y, error) * (1 - a * a) / batch
    tight = {"rtol": 1e-6, "atol": 1e-8}  # targets and pushes are float32, and lengths have an epsilon
    np.testing.assert_allclose(changes["l0.weight"], -LR * delta.T @ x, **tight)
    np.testing.assert_allclose(changes["l0.bias"], -LR * delta.sum(0), **tight)
    np.testing.assert_allclose(changes["l2.weight"], -LR * error.T @ a / batch, **tight)
    np.testing.assert_allclose(changes["l2.bias"], -LR * error.sum(0) / batch, **tight)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("rule", "start"), [(MonoForward(), HEAD), (CaFo(), np.zeros_like(HEAD))], ids=str)
def test_a_head_learns_beside_its_layer_from_the_old_one(rule: Rule, start: Array, batch: int) -> None:
    p = mlp(batch)
    changes, x, y = step(p, rule, "cross_entropy")
    a = np.tanh(x @ weights(p)["l0.weight"].T + weights(p)["l0.bias"])
    s = (softmax(a @ start.T) - one_hot(y)) / batch
    np.testing.assert_allclose(changes["l0.weight.head"], -LR * s.T @ a, rtol=1e-9, atol=1e-12)


def cells(image: int, grid: int) -> Array:
    """(grid, image): each cell's mean, from floor(i H / g) to ceil((i + 1) H / g)."""
    rows = np.zeros((grid, image))
    for i in range(grid):
        first, end = i * image // grid, -(-(i + 1) * image // grid)
        rows[i, first:end] = 1 / (end - first)
    return rows


@pytest.mark.parametrize("grid", [1, 2, 9])
def test_a_head_sees_the_means_of_cells(grid: int) -> None:
    """Of an image of 3 x 4: overlapping ones, and never more than there are places."""
    p = Net(2, 5, 6, batch=3).conv(3).act("tanh").flatten().dense(4).program()
    changes, x, y = step(p, FixedM(grid=grid), "cross_entropy")
    w = weights(p)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    a = np.tanh(np.einsum("bihwkl,oikl->bohw", windows, w["l0.weight"]) + w["l0.bias"][:, None, None])
    down, across = cells(3, min(grid, 3)), cells(4, min(grid, 4))
    seen = np.einsum("gh,kw,bohw->bogk", down, across, a).reshape(3, -1)
    m = signs("l0.weight.m", seen.shape[1]).T / np.sqrt(seen.shape[1])
    back = ((softmax(seen @ m.T) - one_hot(y)) @ m).reshape(3, 3, len(down), len(across)) / 3
    delta = np.einsum("gh,kw,bogk->bohw", down, across, back) * (1 - a * a)
    np.testing.assert_allclose(
        changes["l0.weight"], -LR * np.einsum("bohw,bihwkl->oikl", delta, windows), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("loss", "slope"),
    [
        ("mse", lambda z, y: 2 * (z - y) / 4), ("l1", lambda z, y: np.sign(z - y) / 4),
        ("huber", lambda z, y: np.clip(z - y, -1, 1) / 4), ("bce", lambda z, y: (1 / (1 + np.exp(-z)) - y) / 4),
    ],
)  # fmt: skip
def test_task_losses_are_means_over_all_elements(loss: str, slope: Callable[[Array, Array], Array], batch: int) -> None:
    p = mlp(batch)
    changes, x, y = step(p, Backprop(), loss)
    w = weights(p)
    a = np.tanh(x @ w["l0.weight"].T + w["l0.bias"])
    delta = slope(a @ w["l2.weight"].T + w["l2.bias"], y) / batch
    np.testing.assert_allclose(changes["l2.bias"], -LR * delta.sum(0), rtol=1e-7, atol=1e-9)
    hidden = delta @ w["l2.weight"] * (1 - a * a)
    np.testing.assert_allclose(changes["l0.weight"], -LR * hidden.T @ x, rtol=1e-7, atol=1e-9)


def deep(batch: int = 1) -> Program:
    """Four dense layers with tanh."""
    net = Net(7, batch=batch)
    for _ in range(3):
        net.dense(5).act("tanh")
    return net.dense(4).program()


@pytest.mark.parametrize("rule", [DFA(), SDFA()], ids=str)
def test_the_error_is_made_once_for_all_layers(rule: Rule) -> None:
    kinds = [op.kind for op in rule.apply(deep(), "cross_entropy", SGD()).train_step]
    assert kinds.count("cross_entropy_grad") == 1
    assert kinds.count("sign") == isinstance(rule, SDFA)
    assert kinds.count("random_projection") == 3
    frozen = type(rule)(freeze=("l6.*",)).apply(deep(), "cross_entropy", SGD())
    assert [op.kind for op in frozen.train_step].count("cross_entropy_grad") == 1


LOCAL: dict[str, Rule] = {
    "tpsgd": TpSGD(), "cosine": TpSGD("cosine"), "drtp": DRTP(), "fixed-m": FixedM(), "mono-forward": MonoForward(),
    "cafo": CaFo(),
}  # fmt: skip


@pytest.mark.parametrize("name", LOCAL)
def test_local_layers_do_not_see_what_is_behind_them(name: str) -> None:
    p = deep(3)
    other = p.with_(initial={**p.initial, "l6.weight": p.initial["l6.weight"] + np.float32(1)})
    ours, theirs = (step(q, LOCAL[name], "cross_entropy")[0] for q in (p, other))
    assert {n for n in ours if not np.array_equal(ours[n], theirs[n])} == {"l6.weight", "l6.bias"}


# --- blocks --------------------------------------------------------------------------------------------------------


def trained(p: Program, rule: Rule) -> dict[str, Array]:
    """Variables after three steps in float32."""
    interpreter = Interpreter(verify(rule.apply(p, "cross_entropy", SGD(lr=0.1, momentum=0.9))), np.float32)
    for x, y in batches(interpreter.program, 3):
        interpreter.train_step(x, y)
    return {v.name: interpreter.memory[v.name] for v in interpreter.program.of(Role.PARAM, Role.STATE)}


@pytest.mark.parametrize("network", NETWORKS)
def test_one_block_is_backprop_and_a_block_a_layer_is_mono_forward(network: str) -> None:
    p = NETWORKS[network](3)
    for n, same in ((1, Backprop()), (len(layerwise(p)), MonoForward())):
        ours, theirs = trained(p, Blocks(n)), trained(p, same)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(data, theirs[name]) for name, data in ours.items())


def test_errors_stay_in_their_block() -> None:
    """Of four layers in two blocks, the second one's weights matter to the first, the third's do not."""
    p = deep(3)
    ours = step(p, Blocks(2), "cross_entropy")[0]
    assert [name for name in ours if name.endswith("head")] == ["l2.weight.head"]
    for layer, matters in (("l2.weight", True), ("l4.weight", False)):
        other = p.with_(initial={**p.initial, layer: p.initial[layer] + np.float32(1)})
        theirs = step(other, Blocks(2), "cross_entropy")[0]
        assert np.array_equal(ours["l0.weight"], theirs["l0.weight"]) != matters


@pytest.mark.parametrize(("n", "sizes"), [(1, [4]), (2, [2, 2]), (3, [1, 1, 2]), (4, [1, 1, 1, 1])])
def test_blocks_are_as_equal_as_can_be(n: int, sizes: list[int]) -> None:
    assert [sum(op.kind == "dense" for op in block.ops) for block in Blocks(n).cut(deep())] == sizes


def test_cafo_answers_the_sum_of_its_heads_probabilities() -> None:
    p = CaFo().apply(deep(3), "cross_entropy", SGD(lr=0.1))
    interpreter = Interpreter(p)
    for x, y in batches(p, 5):
        interpreter.train_step(x, y)
    ((x, _),) = batches(p, 1, seed=9)
    a, total, memory = x.astype(np.float64), np.zeros((3, 4)), interpreter.memory
    for layer in ("l0", "l2", "l4"):
        a = np.tanh(a @ memory[f"{layer}.weight"].T + memory[f"{layer}.bias"])
        total += softmax(a @ memory[f"{layer}.weight.head"].T)
    total += softmax(a @ memory["l6.weight"].T + memory["l6.bias"])
    np.testing.assert_allclose(interpreter.infer(x), total, rtol=1e-9)


# --- tpSGD's cut ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("network", NETWORKS)
def test_tpsgd_passes_nothing_from_layer_to_layer(network: str, loss: str) -> None:
    """Other weights behind a layer do not change what the layer learns."""
    p = NETWORKS[network]()
    last = p.of(Role.PARAM)[-1].name
    other = p.with_(initial={**p.initial, last: p.initial[last] + np.float32(1)})
    ours, theirs = (step(q, TpSGD(), loss)[0] for q in (p, other))
    head = set(layerwise(p)[-1].params)
    for name, change in ours.items():
        assert (name in head) or np.array_equal(change, theirs[name]), name
        assert np.any(change), name
    changed = step(other, Backprop(), loss)[0]
    first = p.of(Role.PARAM)[0].name
    assert network == "mlp" or not np.array_equal(changed[first], step(p, Backprop(), loss)[0][first]) or last in head


def test_layers_end_behind_max_pools_and_before_means() -> None:
    blocks = [[op.kind for op in block.ops] for block in layerwise(NETWORKS["cnn"]())]
    assert blocks == [
        ["conv2d", "batch_norm", "relu", "max_pool2d_argmax"],
        ["conv2d", "leaky_relu"],
        ["avg_pool2d", "reshape", "dense"],
    ]
    apart = [[op.kind for op in block.ops] for block in layerwise(NETWORKS["cnn"](), pools=False)]
    assert apart[:2] == [["conv2d", "batch_norm", "relu"], ["max_pool2d_argmax", "conv2d", "leaky_relu"]]


# --- what stays fixed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_head_only_trains_the_last_layer(network: str) -> None:
    p = NETWORKS[network]()
    head = set(layerwise(p)[-1].params)
    changes = step(p, HeadOnly(), "cross_entropy")[0]
    assert {name for name, change in changes.items() if np.any(change)} == head
    trained = simplify(HeadOnly().apply(p, "cross_entropy", SGD()))
    assert {v.name for v in trained.of(Role.PARAM)} == head
    assert not {op.kind for op in trained.train_step} & {"conv2d_dw", "conv2d_dx", "dense_dx"}


@pytest.mark.parametrize("update", [("l2.weight",), ("*.bias",), ("l4.*", "l0.bias")])
def test_sparse_updates_the_chosen_as_backprop_does(update: tuple[str, ...]) -> None:
    p = deep(3)
    ours, theirs = (step(p, rule, "cross_entropy")[0] for rule in (Sparse(update), Backprop()))
    for name, change in ours.items():
        chosen = any(fnmatchcase(name, pattern) for pattern in update)
        np.testing.assert_array_equal(change, theirs[name] if chosen else np.zeros_like(change), err_msg=name)


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        (1, {"l6.bias"}), (20, {"l6.*", "l4.bias"}), (40, {"l6.*", "l4.*", "l2.bias"}),
        (60, {"l6.*", "l4.*", "l2.*", "l0.*"}), (1000, {"*"}),
    ],
)  # fmt: skip
def test_a_budget_pays_from_the_last_layer_back(budget: int, chosen: set[str]) -> None:
    """The last bias costs nothing, a weight the activities in front of it, what is deeper those on the way as well."""
    p = deep()
    trained = {v.name for v in Sparse(budget=budget).apply(p, "cross_entropy", SGD()).of(Role.PARAM)}
    assert trained == {v.name for v in p.of(Role.PARAM) if any(fnmatchcase(v.name, pattern) for pattern in chosen)}


@pytest.mark.parametrize("optimizer", [SGD(), Adam()], ids=str)
@pytest.mark.parametrize("budget", [300, 500, 900])
def test_what_a_budget_chooses_fits_it(budget: int, optimizer: Optimizer) -> None:
    p = deep()
    trained = Sparse(budget=budget).apply(p, "cross_entropy", optimizer)
    assert 0 < training_bytes(trained, len(p.infer)) <= budget
    states = sum(v.bytes for v in trained.of(Role.STATE))
    assert states == (8 + sum(2 * v.bytes for v in trained.of(Role.PARAM)) if optimizer == Adam() else 0)


@pytest.mark.parametrize("rule", [Backprop, TpSGD])
@pytest.mark.parametrize("freeze", [("l0.weight",), ("l0.*",), ("*.bias",), ("l2.weight", "l0.bias")])
def test_frozen_parameters_keep_their_bits_and_cost_no_op(rule: type[Rule], freeze: tuple[str, ...]) -> None:
    p = mlp()
    trained = compiled(p, rule(freeze=freeze), "cross_entropy", Adam())
    fixed = {v.name for v in trained.of(Role.CONST)}
    assert fixed == {v.name for v in p.of(Role.PARAM)} - {v.name for v in trained.of(Role.PARAM)} != set()
    assert not fixed & {name for op in trained.train_step for part in op.parts for name in part.outputs}
    assert not {f"d_{name}" for name in fixed} & set(trained.values)
    assert not {v.name for v in trained.of(Role.STATE)} & {f"{name}.m" for name in fixed}
    interpreter = Interpreter(trained, np.float32)
    for x, y in batches(trained, 3):
        interpreter.train_step(x, y)
    for name in p.initial:
        assert np.array_equal(interpreter.memory[name], p.initial[name]) == (name in fixed)


def test_unknown_freeze_pattern_names_the_nearest() -> None:
    with pytest.raises(RuleError, match=r"no parameter matches 'l0\.wieght' in the freeze list.*'l0\.weight'"):
        Backprop(freeze=("l0.wieght",)).apply(mlp(), "cross_entropy", SGD())


class Tied(Net):
    """Uses one weight in two layers."""

    def again(self) -> "Tied":
        self.at = self.b.emit1("dense", [self.at, "l0.weight", "l0.bias"], "again", loc="again")
        return self


def tied(*, last: bool = False) -> Program:
    net = Tied(5)
    net.dense(5).act("tanh")
    return net.again().program() if last else net.again().act("tanh").dense(3).program()


def image(act: str = "") -> Program:
    """A convolution, an activation if any, and a dense layer."""
    net = Net(2, 5, 6).conv(3)
    return (net.act(act) if act else net).flatten().dense(4).program()


@pytest.mark.parametrize("rule", [DRTP, DFA, SDFA])
def test_what_no_rule_trains_may_be_frozen(rule: type[Rule]) -> None:
    changes = step(image("relu"), rule(freeze=("l0.*",)), "cross_entropy")[0]
    assert {name for name, change in changes.items() if np.any(change)} == {"l3.weight", "l3.bias"}
    assert np.any(step(image("tanh"), rule(), "cross_entropy")[0]["l0.weight"])


def at_every_step(*, last: bool = False) -> Program:
    """A dense layer on each of 4 steps of 3 features, and behind it the last one, on all steps together or on each."""
    net = Net(4, 3, batch=2).view(8, 3).dense(5).act("tanh")
    return net.dense(6).view(2, 24).program() if last else net.view(2, 20).dense(4).program()


REFUSALS: dict[str, tuple[Callable[[], Any], str]] = {
    "everything frozen": (
        lambda: Backprop(freeze=("*",)).apply(mlp(), "mse", SGD()), "every parameter is frozen",
    ),
    "unknown loss": (lambda: Backprop().apply(mlp(), "msee", SGD()), "no loss is called 'msee'. Did you mean 'mse'"),
    "unknown rule": (lambda: rule_class("backprob"), "no rule is called 'backprob'. Did you mean 'backprop'"),
    "unknown objective": (lambda: TpSGD("l3"), "tpSGD has no objective 'l3'"),
    "no strength": (lambda: TpSGD(strength=0), "the strength of a local objective must be positive, not 0"),
    "an image as output": (
        lambda: Backprop().apply(Net(1, 4, 4).conv(2).program(), "mse", SGD()),
        "the network's output has shape (1, 2, 2, 2)",
    ),
    "no layer": (
        lambda: TpSGD().apply(Net(5).norm().program(), "mse", SGD()), "the network has no layer with weights",
    ),
    "tpsgd with a loss": (lambda: TpSGD("cross_entropy"), "Use the rule fixed-m"),
    "no delta": (lambda: TpSGD("huber", delta=0), "huber's delta must be positive, not 0"),
    "no push": (lambda: DRTP(strength=-1), "the strength of a local objective must be positive, not -1"),
    "no cells": (lambda: MonoForward(grid=0), "an image cannot be seen as 0 x 0 cells"),
    "no blocks": (lambda: Blocks(0), "a network cannot be cut into 0 blocks"),
    "too many blocks": (lambda: Blocks(3).apply(mlp(), "mse", SGD()), "2 layers cannot make 3 blocks. Give at most 2"),
    "drtp on a ReLU convolution": (
        lambda: DRTP().apply(image("relu"), "mse", SGD()), "a convolution behind relu collapses under the random",
    ),
    "dfa on a linear convolution": (
        lambda: DFA().apply(image(), "mse", SGD()), "a convolution without activation collapses",
    ),
    "cafo on a regression": (lambda: CaFo().apply(mlp(), "mse", SGD()), "CaFo adds up probabilities of classes"),
    "sparse about nothing": (Sparse, "sparse needs to know what to update"),
    "sparse about two things": (lambda: Sparse(("*",), 5), "sparse needs to know what to update"),
    "sparse about a stranger": (
        lambda: Sparse(("l0.wieght",)).apply(mlp(), "mse", SGD()), "no parameter matches 'l0.wieght' in the update",
    ),
    "a small budget": (
        lambda: Sparse(budget=7).apply(mlp(), "mse", Adam()),
        "no parameter can be trained with 7 bytes. Give at least 40",
    ),
    "a head that is shared": (
        lambda: HeadOnly().apply(tied(last=True), "mse", SGD()), "the last layer shares l0.weight with an earlier one",
    ),
    "two heads of one weight": (
        lambda: CaFo().apply(tied(), "cross_entropy", SGD()), "l0.weight serves two layers, and each would have a head",
    ),
    "a sigmoid in front of bce": (
        lambda: Backprop().apply(Net(5).dense(3).act("sigmoid").program(), "bce", SGD()),
        "the network ends in a sigmoid, which the bce loss applies itself",
    ),
    "a layer at every step": (
        lambda: MonoForward().apply(at_every_step(), "cross_entropy", SGD()),
        "the layer works at each of 4 steps, so a sample has 4 rows of activity for one label (l2 (tanh)). Take the",
    ),
    "a last layer at every step": (
        lambda: FeTrIL().apply(at_every_step(last=True), "cross_entropy", SGD()), "works at each of 4 steps",
    ),
    "two passes at every step": (
        lambda: Pepita().apply(at_every_step(), "cross_entropy", SGD()), "works at each of 4 steps",
    ),
    "logits at every step": (
        lambda: MonoForward().apply(Net(4, 3).view(4, 3).dense(5).view(1, 4, 5).program(), "cross_entropy", SGD()),
        "the network's output has shape (1, 4, 5). End the network with one row a sample",
    ),
    "a weight in two layers": (lambda: TpSGD().apply(tied(), "mse", SGD()), "l0.weight is shared by 2 blocks"),
}  # fmt: skip


@pytest.mark.parametrize(("act", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(act: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(RuleError) as error:
        act()
    assert sentence in str(error.value)


def test_a_layer_that_its_objective_cannot_see_is_refused() -> None:
    """The activation behind `l1` belongs to another branch, so `l1` would silently keep its weights."""
    net = Net(5).dense(5)
    first = net.at
    net.dense(5)
    second, net.at = net.at, first
    p = net.act("tanh").plus(second).dense(3).program()
    with pytest.raises(RuleError, match=r"l1\.\w+ has no part in"):
        TpSGD().apply(p, "mse", SGD())


def test_backprop_trains_a_tied_weight() -> None:
    changes = step(tied(), Backprop(), "mse")[0]
    assert np.any(changes["l0.weight"])


def test_rules_are_found_by_name() -> None:
    assert {"backprop", "tpsgd", "head-only"} <= set(rules())
    assert rule_class("tpsgd") is TpSGD


def test_a_rule_of_ones_own_needs_no_registration() -> None:
    """Two blocks: everything before the head learns to be small."""

    class Shrink(TpSGD):
        name: ClassVar[str] = "shrink"

        def emit_objective(self, b: Builder, block: Block, task: Task) -> str:
            del task
            like = b.values[block.output]
            zero = b.value(b.fresh("zero"), like.type, Role.CONST, data=np.zeros(like.shape))
            return b.emit1("l2", (block.output, zero), "small", strength=1.0)

    p = mlp()
    changes, x, _ = step(p, Shrink(), "cross_entropy")
    a = np.tanh(x @ weights(p)["l0.weight"].T + weights(p)["l0.bias"])
    np.testing.assert_allclose(changes["l0.bias"], -LR * (a * (1 - a * a))[0], rtol=1e-9)


@dataclass(frozen=True)
class OwnHead(Rule):
    """Every layer's own head, of ones at first, learns the task; the package knows nothing of it."""

    name = "own-head"

    def cut(self, program: Program) -> list[Block]:
        return layerwise(program)

    def emit_objective(self, b: Builder, block: Block, task: Task) -> str:
        shape = (b.values[task.output].shape[1], b.values[block.activity].shape[1])
        head = b.value(f"{block.weight}.mine", f32(*shape), Role.STATE, data=np.ones(shape))
        return task.emit(b, b.emit1("dense", (block.activity, head), "mine"), "mine.loss")


@pytest.mark.parametrize("board", ["host", "qemu-rv32imf", "qemu-cortex-m4f"])
def test_a_local_head_of_ones_own_is_trained_on_every_board(board: str) -> None:
    changes, x, y = step(mlp(), OwnHead(), "cross_entropy")
    a = np.tanh(x @ weights(mlp())["l0.weight"].T + weights(mlp())["l0.bias"])
    np.testing.assert_allclose(changes["l0.weight.mine"], -LR * (0.25 - one_hot(y)).T @ a, rtol=1e-9)
    p = compiled(mlp(), OwnHead(), "cross_entropy", Adam(), board=board)
    assert {"l0.weight.mine", "l0.weight.mine.m", "l0.weight.mine.v"} <= {v.name for v in p.of(Role.STATE)}
