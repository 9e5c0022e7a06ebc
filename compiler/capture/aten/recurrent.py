"""Recurrent layers. ATen gives all layers of a stack at once; in the Program each is an op of its own."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from torch.fx import Node

from strop.compiler.capture.call import Call, Handler, Weight
from strop.compiler.ir import Role


def _recurrent(kind: str, call: Call) -> str:
    """Emit torch's layers, of two weights and, if there are any, two biases."""
    _check(call)
    return _stack(call, kind, 4)


def _leaky(call: Call) -> str:
    """Emit leaky layers, which have one bias."""
    return _stack(call, "leaky_rnn", 3, leak=call.args["leak"])


def _stack(call: Call, kind: str, tensors: int, **attrs: float) -> str:
    """Emit the layers; bind the results, and the last steps that are taken of them. Returns every step (B,T,H).

    tensors: of a layer with biases.  attrs: of each layer.
    """
    x = call.activation()
    if len(call.shape(x)) != 3 or call.shape(x)[1] < 2:
        layout = "(batch, steps, features) with at least 2 steps"
        raise call.refusal(f"reads an input of shape {call.shape(x)}", do=f"Give it an input of shape {layout}")
    at, last = _swapped(call, x, f"{call.stem(kind)}.x"), []
    for number, weights in enumerate(_layers(call, tensors)):
        top = number == call.args["num_layers"] - 1
        stem = call.stem(kind) if top else f"{call.stem(kind)}.l{number}"
        at, state, *_ = call.reader.b.emit(kind, (at, *weights), stem, loc=call.loc, truncate=0, **attrs)
        last.append(state)
    steps = _swapped(call, at, f"{at}.steps")
    _bind(call, steps, last)
    return steps


def _bind(call: Call, steps: str, last: Sequence[str]) -> None:
    """Bind what the network takes of the results. steps: every state.  last: the last one of each layer."""
    for node, index in _results(call.node):
        if index == 0:
            _bind_places(call, node, 1, {call.shape(steps)[1] - 1: last[-1]})
        elif index == 1:
            _bind_states(call, node, last)
        elif node.users:
            raise call.refusal("gives its last cell state to the network", do="Use its last hidden state, h_n[-1]")


def _check(call: Call) -> None:
    """Refuse what the layers here cannot do."""
    if call.args["bidirectional"]:
        raise call.refusal("runs in both directions", do="Use bidirectional=False: the future is not known on a board")
    if not call.args["batch_first"]:
        raise call.refusal("has the steps in front of the batch", do="Use batch_first=True: (batch, steps, features)")
    if call.args["train"] and call.args["dropout"]:
        raise call.refusal("drops in eval mode too", do="Leave it to nn.Module.eval()")
    state = call.args["hx"]
    for node in state if isinstance(state, Sequence) else [state]:
        start = call.reader.bound.get(node)
        if not isinstance(start, Weight) or start.role is not Role.CONST or start.data.any():
            raise call.refusal("starts from a state of its own", do="Start from zeros: call it with its input alone")


def _layers(call: Call, tensors: int) -> Iterator[list[str]]:
    """Weights layer by layer: w_ih, w_hh and the biases, if there are any."""
    nodes = list(call.args["params"])
    each = len(nodes) // call.args["num_layers"]
    if each != (tensors if call.args["has_biases"] else 2):
        raise call.refusal("projects its state", do="Leave proj_size out")
    for first in range(0, len(nodes), each):
        yield [call.weight(node) for node in nodes[first : first + each]]


def _swapped(call: Call, value: str, name: str) -> str:
    """Steps of samples from samples of steps, and back: a copy only if there are several samples."""
    a, b, features = call.shape(value)
    if 1 not in (a, b):
        return call.reader.b.emit1("swap_axes", (value,), name, loc=call.loc)
    return call.reader.b.emit1("reshape", (value,), name, loc=call.loc, shape=(b, a, features))


def _results(node: Node) -> Iterator[tuple[Node, int]]:
    """The nodes that pick one of several results, and which."""
    for user in node.users:
        if user.target is operator.getitem:
            yield user, int(str(user.args[1]))


def _bind_states(call: Call, node: Node, last: Sequence[str]) -> None:
    """The last states of all layers (layers,B,H): one of them is picked, or there is but one."""
    whole = call.reshape(last[0], (1, *call.shape(last[0]))) if len(last) == 1 else last[-1]
    call.reader.bound[node] = whole
    _bind_places(call, node, 0, dict(enumerate(last)))
    if len(last) > 1 and any(user.users and user not in call.reader.bound for user in node.users):
        raise call.refusal(
            "gives the states of all its layers to the network", do="Use that of its last layer, h_n[-1]"
        )


def _bind_places(call: Call, node: Node, axis: int, values: Mapping[int, str]) -> None:
    """Bind nodes that select a place along an axis for which there is a value, through slices that take everything."""
    shape = node.meta["val"].shape
    for user in node.users:
        name, picked = str(user.target), user.args
        if name == "aten.select.int" and picked[1] in (axis, axis - len(shape)):
            place = int(str(picked[2])) % shape[axis]
            if place in values:
                call.reader.bound[user] = values[place]
        elif name == "aten.slice.Tensor" and user.meta["val"].shape == shape:
            _bind_places(call, user, axis, values)


def _zeros(call: Call) -> Weight:
    """Zeros made in a forward: where a recurrent layer starts."""
    return Weight(call.node.name, np.zeros(call.node.meta["val"].shape, np.float32), Role.CONST)


HANDLERS: dict[str, Handler] = {
    "zeros": _zeros,
    "new_zeros": _zeros,
    "rnn_tanh": partial(_recurrent, "rnn_tanh"),
    "rnn_relu": partial(_recurrent, "rnn_relu"),
    "gru": partial(_recurrent, "gru"),
    "lstm": partial(_recurrent, "lstm"),
    "leaky_rnn": _leaky,
}
