"""Recurrent layers. ATen gives all layers of a stack at once; in the Program each is an op of its own."""

import operator
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from torch.fx import Node

from strop.compiler.capture.call import Call, Handler, Weight
from strop.compiler.ir import Role


def _recurrent(kind: str, call: Call) -> str:
    """Emit the layers; bind the results, and the last steps that are taken of them. Returns every step (B,T,H)."""
    _check(call)
    x = call.activation()
    if len(call.shape(x)) != 3 or call.shape(x)[1] < 2:
        layout = "(batch, steps, features) with at least 2 steps"
        raise call.refusal(f"reads an input of shape {call.shape(x)}", do=f"Give it an input of shape {layout}")
    at, last = _swapped(call, x), []
    for number, weights in enumerate(_layers(call)):
        top = number == call.args["num_layers"] - 1
        stem = call.stem(kind) if top else f"{call.stem(kind)}.l{number}"
        at, state, *_ = call.reader.b.emit(kind, (at, *weights), stem, loc=call.loc, truncate=0)
        last.append(state)
    steps = _swapped(call, at)
    for node, index in _results(call.node):
        if index == 0:
            _bind_last(call, node, 1, [None] * (call.shape(steps)[1] - 1) + last[-1:])
        elif index == 1:
            _bind_states(call, node, last)
        elif node.users:
            raise call.refusal("gives its last cell state to the network", do="Use its last hidden state, h_n[-1]")
    return steps


def _check(call: Call) -> None:
    """Refuse what the layers here cannot do."""
    if call.args["bidirectional"]:
        raise call.refusal("runs in both directions", do="Use bidirectional=False: the future is not known on a board")
    if not call.args["batch_first"]:
        raise call.refusal("has the steps in front of the batch", do="Use batch_first=True, and x (batch, steps, features)")
    if call.args["train"] and call.args["dropout"]:
        raise call.refusal("drops in eval mode too", do="Leave it to nn.Module.eval()")
    state = call.args["hx"]
    for node in state if isinstance(state, Sequence) else [state]:
        start = call.reader.bound.get(node)
        if not isinstance(start, Weight) or start.role is not Role.CONST or start.data.any():
            raise call.refusal("starts from a state of its own", do="Start from zeros: call it with its input alone")


def _layers(call: Call) -> Iterator[list[str]]:
    """Weights layer by layer: w_ih, w_hh and, if there are any, b_ih, b_hh."""
    nodes = list(call.args["params"])
    each = len(nodes) // call.args["num_layers"]
    if each != (4 if call.args["has_biases"] else 2):
        raise call.refusal("projects its state", do="Leave proj_size out")
    for first in range(0, len(nodes), each):
        yield [call.weight(node) for node in nodes[first : first + each]]


def _swapped(call: Call, value: str) -> str:
    """Steps of samples from samples of steps, and back: a copy only if there are several samples."""
    a, b, features = call.shape(value)
    if 1 in (a, b):
        return call.reshape(value, (b, a, features))
    return call.reader.b.emit1("swap_axes", (value,), f"{value}.swapped", loc=call.loc)


def _results(node: Node) -> Iterator[tuple[Node, int]]:
    """The nodes that pick one of several results, and which."""
    for user in node.users:
        if user.target is operator.getitem:
            yield user, int(str(user.args[1]))


def _bind_states(call: Call, node: Node, last: Sequence[str]) -> None:
    """The last states of all layers (layers,B,H): one of them is picked, or there is but one."""
    if len(last) == 1:
        call.reader.bound[node] = call.reshape(last[0], (1, *call.shape(last[0])))
    _bind_last(call, node, 0, last)
    if len(last) > 1 and any(user not in call.reader.bound for user in node.users):
        raise call.refusal("gives the states of all its layers to the network", do="Use that of its last layer, h_n[-1]")


def _bind_last(call: Call, node: Node, axis: int, values: Sequence[str | None]) -> None:
    """Bind nodes that select a place along an axis for which there is a value, through slices that take everything."""
    for user in node.users:
        name, picked = str(user.target), user.args
        if name == "aten.select.int" and picked[1] in (axis, axis - 3):
            value = values[int(str(picked[2]))]
            if value is not None:
                call.reader.bound[user] = value
        elif name == "aten.slice.Tensor" and user.meta["val"].shape == node.meta["val"].shape:
            _bind_last(call, user, axis, values)


def _zeros(call: Call) -> Weight:
    """Zeros made in a forward: where a recurrent layer starts."""
    import numpy as np

    return Weight(call.node.name, np.zeros(call.node.meta["val"].shape, np.float32), Role.CONST)


HANDLERS: dict[str, Handler] = {
    "zeros": _zeros,
    "rnn_tanh": partial(_recurrent, "rnn_tanh"),
    "rnn_relu": partial(_recurrent, "rnn_relu"),
    "gru": partial(_recurrent, "gru"),
    "lstm": partial(_recurrent, "lstm"),
}
