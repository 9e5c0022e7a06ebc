"""What moves, joins or renames elements."""

import operator

import torch
from torch.fx import Node

from strop.compiler.capture.call import Call, Handler


def _reshape(call: Call) -> str:
    x, shape = call.activation("self"), tuple(call.node.meta["val"].shape)
    if not shape or shape[0] != call.reader.batch:
        raise call.refusal(
            f"turns {call.shape(x)} into {shape}, where samples are mixed", do="Keep the batch axis, as flatten(1) does"
        )
    return call.reshape(x, shape)


def _add(call: Call) -> str:
    if not isinstance(call.args["other"], Node) or call.args["alpha"] != 1:
        raise call.refusal("is no plain sum of two tensors", do="Put constants into a layer's weights or bias")
    a, b = call.activation("self"), call.activation("other")
    if call.shape(a) != call.shape(b):
        raise call.refusal(f"adds shapes {call.shape(a)} and {call.shape(b)}", do="Add tensors of equal shape")
    return call.emit("add", [a, b])


def _identity(call: Call) -> str:
    return call.activation("input" if "input" in call.args else "self")


def _dropout(call: Call) -> str:
    if call.args["train"]:
        raise call.refusal("drops in eval mode too", do="Use the Dropout layer, or training=self.training")
    return _identity(call)


def _convert(call: Call) -> str:
    result = call.node.meta["val"].dtype
    if result is not torch.float32:
        raise call.refusal(f"converts to {str(result).removeprefix('torch.')}", do="Compute in float32")
    return _identity(call)


HANDLERS: dict[str, Handler] = {
    "flatten": _reshape,
    "reshape": _reshape,
    "view": _reshape,
    "squeeze": _reshape,
    "unsqueeze": _reshape,
    "add": _add,
    operator.getitem.__name__: _identity,  # the normalised tensor, first of three results
    "dropout": _dropout,
    "feature_dropout": _dropout,
    "contiguous": _identity,
    "clone": _identity,
    "to": _convert,
}
