"""Reverse mode over graphs: against PyTorch's, and where a gradient must not go."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import NETWORKS, Net, batches
from torch import Tensor

from strop.compiler.autodiff import gradients
from strop.compiler.dtypes import INT32
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Builder, Program, Role, TensorType
from strop.compiler.verify import verify


def differentiated(p: Program, wanted: set[str]) -> tuple[Program, dict[str, str]]:
    """The forward Program with a cross-entropy loss and its gradients as a train step."""
    b = Builder(p.values, p.initial)
    label = b.value("y", TensorType((p.batch,), INT32), Role.LABEL)
    b.ops.extend(p.infer)
    loss = b.emit1("cross_entropy", (p.output, label), "loss")
    found = gradients(b, list(b.ops), loss, wanted)
    return verify(p.with_(values=b.values, initial=b.initial, train_step=tuple(b.ops), loss=loss)), found


conv2d: Any = F.conv2d

FORWARD: dict[str, Callable[[Any, Any], Tensor]] = {
    "dense": lambda i, a: F.linear(*i),
    "conv2d": lambda i, a: conv2d(*i, stride=a["stride"], padding=a["padding"], groups=a["groups"]),
    "batch_norm": lambda i, a: F.batch_norm(i[0], i[3], i[4] ** -2, i[1], i[2], eps=0),
    "reshape": lambda i, a: i[0].reshape(a["shape"]),
    "add": lambda i, a: i[0] + i[1],
    "max_pool2d_argmax": lambda i, a: F.max_pool2d(i[0], a["kernel"], a["stride"], a["padding"]),
    "avg_pool2d": lambda i, a: F.avg_pool2d(i[0], a["kernel"], a["stride"], a["padding"]),
    "tanh": lambda i, a: i[0].tanh(), "sigmoid": lambda i, a: i[0].sigmoid(), "relu": lambda i, a: F.relu(i[0]),
    "relu6": lambda i, a: F.relu6(i[0]), "leaky_relu": lambda i, a: F.leaky_relu(i[0], a["slope"]),
}  # fmt: skip


def torch_gradients(p: Program, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    env = {name: torch.tensor(data, dtype=torch.float64) for name, data in p.initial.items()}
    env["x"] = x
    wanted = ["x", *(v.name for v in p.of(Role.PARAM))]
    for name in wanted:
        env[name].requires_grad_()
    for op in p.infer:
        env[op.outputs[0]] = FORWARD[op.kind]([env[name] for name in op.inputs], op.attrs)
    F.cross_entropy(env[p.output], y).backward()  # type: ignore[no-untyped-call]
    return {name: env[name].grad for name in wanted}  # type: ignore[misc]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks_against_pytorch(name: str, batch: int) -> None:
    p = NETWORKS[name](batch)
    p, found = differentiated(p, {"x", *(v.name for v in p.of(Role.PARAM))})
    ((x, y),) = batches(p, 1)
    ours = Interpreter(p).run("train_step", {"x": x, "y": y})
    theirs = torch_gradients(p, torch.tensor(x, dtype=torch.float64), torch.tensor(y).long())
    assert set(found) == set(theirs)
    for value, gradient in found.items():
        np.testing.assert_allclose(ours[gradient], theirs[value].numpy(), rtol=1e-10, atol=1e-12)


def test_what_the_objective_does_not_use_is_absent() -> None:
    net = Net(7).dense(5)
    unused = net.b.value("unused", net.b.values["x"].type, Role.PARAM, data=np.zeros((1, 7)))
    _, found = differentiated(net.program(), {unused, "l0.bias"})
    assert set(found) == {"l0.bias"}


def test_only_the_ops_given_carry_a_gradient() -> None:
    """What a block reads from outside is a constant: that is how layers are detached."""
    p = NETWORKS["mlp"]()
    b = Builder(p.values, p.initial)
    label = b.value("y", TensorType((1,), INT32), Role.LABEL)
    b.ops.extend(p.infer)
    loss = b.emit1("cross_entropy", (p.output, label), "loss")
    found = gradients(b, b.ops[-2:], loss, {"l0.weight", "l2.weight"})
    assert set(found) == {"l2.weight"}


def test_no_gradient_is_emitted_for_what_nobody_wants() -> None:
    p, _ = differentiated(NETWORKS["mlp"](), {"l2.bias"})
    assert "tanh_grad" not in {op.kind for op in p.train_step}


def test_ops_before_the_objective_only() -> None:
    """An op that runs after the objective has no part in it."""
    p = NETWORKS["mlp"]()
    b = Builder(p.values, p.initial)
    label = b.value("y", TensorType((1,), INT32), Role.LABEL)
    b.ops.extend(p.infer)
    loss = b.emit1("cross_entropy", (p.output, label), "loss")
    before = len(b.ops)
    b.emit1("relu", (p.output,), "later")
    found = gradients(b, b.ops[:], loss, {"l2.bias"})
    assert b.ops[before + 1].kind == "cross_entropy_grad"
    assert set(found) == {"l2.bias"}
