"""Learning rules against equations written by hand."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from cases import NETWORKS, Array, Net, batches, compiled, mlp

from strop.compiler import rng as generator
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Builder, Program, Role
from strop.compiler.optim import SGD, Adam, Optimizer
from strop.compiler.passes.simplify import simplify
from strop.compiler.rules import Backprop, HeadOnly, TpSGD, rule_class, rules
from strop.compiler.rules.base import Block, Rule, Task, layerwise
from strop.compiler.verify import verify
from strop.errors import RuleError

LR = 0.5


def step(p: Program, rule: Rule, loss: str, optimizer: Optimizer = SGD(lr=LR)) -> tuple[dict[str, Array], Array, Array]:  # noqa: B008
    """The change of every parameter after one step in float64, with the batch that made it."""
    trained = verify(rule.apply(p, loss, optimizer))
    interpreter = Interpreter(trained)
    before = {name: data.copy() for name, data in interpreter.memory.items()}
    ((x, y),) = batches(trained, 1, seed=3)
    interpreter.train_step(x, y)
    changes = {v.name: interpreter.memory[v.name] - before[v.name] for v in p.of(Role.PARAM)}
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


def test_layers_end_before_pooling_and_sums() -> None:
    blocks = [[op.kind for op in block.ops] for block in layerwise(NETWORKS["cnn"]())]
    assert blocks == [
        ["conv2d", "batch_norm", "relu"],
        ["max_pool2d_argmax", "conv2d", "leaky_relu"],
        ["avg_pool2d", "reshape", "dense"],
    ]


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


def tied() -> Program:
    net = Tied(5)
    net.dense(5).act("tanh")
    return net.again().act("tanh").dense(3).program()


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
