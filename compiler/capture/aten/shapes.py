"""What moves, joins, cuts or renames elements, and arithmetic of two tensors."""

import operator
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch.fx import Node

from strop.compiler.capture.call import Call, Handler

MOST_PARTS = 8
"""Tensors that one op joins; more are joined in turns."""


def _reshape(call: Call) -> str:
    x, shape = call.activation("self"), tuple(call.node.meta["val"].shape)
    if not shape or shape[0] != call.reader.batch:
        raise call.refusal(
            f"turns {call.shape(x)} into {shape}, where samples are mixed", do="Keep the batch axis, as flatten(1) does"
        )
    return call.reshape(x, shape)


def _arithmetic(kind: str, noun: str, call: Call) -> str:
    if not isinstance(call.args["other"], Node) or call.args.get("alpha", 1) != 1:
        raise call.refusal(f"is no plain {noun} of two tensors", do="Put constants into a layer's weights or bias")
    a, b = call.activation("self"), call.activation("other")
    if call.shape(a) != call.shape(b):
        shapes = f"{call.shape(a)} and {call.shape(b)}"
        raise call.refusal(f"takes the {noun} of shapes {shapes}", do="Give it tensors of equal shape")
    return call.emit(kind, [a, b])


def _concat(call: Call) -> str:
    parts = _parts(call)
    return _joined(call, parts, _axis(call, call.shape(parts[0])))


def _stack(call: Call) -> str:
    parts = _parts(call)
    shape = call.shape(parts[0])
    axis = _axis(call, (*shape, 1))
    return _joined(call, [call.reshape(part, (*shape[:axis], 1, *shape[axis:])) for part in parts], axis)


def _parts(call: Call) -> list[str]:
    """The tensors to join."""
    parts = []
    for node in call.args["tensors"]:
        value = call.reader.bound.get(node)
        if not isinstance(value, str):
            raise call.refusal("joins a parameter or constant", do="Join what layers have computed")
        parts.append(value)
    return parts


def _joined(call: Call, parts: Sequence[str], axis: int) -> str:
    while len(parts) > 1:
        turns = [parts[i : i + MOST_PARTS] for i in range(0, len(parts), MOST_PARTS)]
        parts = [call.emit("concat", turn, axis=axis) if len(turn) > 1 else turn[0] for turn in turns]
    return parts[0]


def _axis(call: Call, shape: Sequence[int]) -> int:
    """The axis an op works along, not the batch's."""
    axis = int(call.args["dim"]) % len(shape)
    if axis == 0:
        raise call.refusal("joins or takes apart samples", do="Work along another axis than the batch's, dim=1 say")
    return axis


def _slice(call: Call) -> str:
    x = call.activation("self")
    shape = call.shape(x)
    axis, step = int(call.args["dim"]) % len(shape), call.args["step"]
    start, stop, _ = slice(call.args["start"], call.args["end"]).indices(shape[axis])
    if step != 1:
        raise call.refusal(f"takes every {step}th place", do="Take neighbouring places, or pool with a stride")
    return x if stop - start == shape[axis] else _cut(call, x, _axis(call, shape), start, stop - start)


def _narrow(call: Call) -> str:
    x = call.activation("self")
    axis = _axis(call, call.shape(x))
    return _cut(call, x, axis, int(call.args["start"]) % call.shape(x)[axis], int(call.args["length"]))


def _select(call: Call, index: int | None = None) -> str:
    x = call.activation("self")
    axis = _axis(call, shape := call.shape(x))
    index = int(call.args["index"]) % shape[axis] if index is None else index
    return call.reshape(_cut(call, x, axis, index, 1), (*shape[:axis], *shape[axis + 1 :]))


def _piece(call: Call, index: int = 0) -> str:
    """One of the pieces that `chunk` or `split` makes."""
    x = call.activation("self")
    axis = _axis(call, call.shape(x))
    sizes = [piece.shape[axis] for piece in call.node.meta["val"]]
    return _cut(call, x, axis, sum(sizes[:index]), sizes[index])


def _cut(call: Call, x: str, axis: int, start: int, size: int) -> str:
    return call.emit("slice", [x], axis=axis, start=start, size=size)


PIECES: dict[str, Callable[[Call, int], str]] = {
    "chunk": _piece, "split": _piece, "split_with_sizes": _piece,
    "unbind": _select,
}  # fmt: skip
"""Ops with several results: what the result of an index is. The first is bound to the op itself."""


def _result(call: Call) -> str:
    """One of several results of an op."""
    source, index = call.args["input"], call.args["index"]
    whole = Call(call.reader, source, call.position)
    if index and whole.op not in PIECES:
        raise call.refusal(f"reads result {index} of {whole.op}", do="Use its first result only")
    return PIECES[whole.op](whole, index) if index else call.activation("input")


def _identity(call: Call) -> str:
    return call.activation("input" if "input" in call.args else "self")


def _dropout(call: Call) -> str:
    if call.args["train"]:
        raise call.refusal("drops in eval mode too", do="Use the Dropout layer, or training=self.training")
    return _identity(call)


def _convert(call: Call) -> str:
    """To float32, or the conversion to whole numbers that an embedding's indices have in PyTorch."""
    result = call.node.meta["val"].dtype
    indices = all("aten.embedding." in str(user.target) for user in call.node.users)
    if result is not torch.float32 and not (indices and result in (torch.int64, torch.int32)):
        kind = str(result).removeprefix("torch.")
        advice = (
            "Compute in float32" if result.is_floating_point else "Convert right before the Embedding that reads it"
        )
        raise call.refusal(f"converts to {kind}", do=advice)
    return _identity(call)


HANDLERS: dict[str, Handler] = {
    "flatten": _reshape,
    "reshape": _reshape,
    "view": _reshape,
    "squeeze": _reshape,
    "unsqueeze": _reshape,
    "add": partial(_arithmetic, "add", "sum"),
    "sub": partial(_arithmetic, "sub", "difference"),
    "mul": partial(_arithmetic, "mul", "product"),
    "cat": _concat,
    "concat": _concat,
    "stack": _stack,
    "slice": _slice,
    "narrow": _narrow,
    "select": _select,
    "chunk": _piece,
    "split": _piece,
    "split_with_sizes": _piece,
    "unbind": partial(_select, index=0),
    operator.getitem.__name__: _result,
    "dropout": _dropout,
    "feature_dropout": _dropout,
    "contiguous": _identity,
    "clone": _identity,
    "alias": _identity,
    "to": _convert,
    "_to_copy": _convert,
}
