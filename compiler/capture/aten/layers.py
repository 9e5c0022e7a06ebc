"""Layers with weights."""

from collections.abc import Sequence

from strop.compiler.capture.aten.signals import give, read, sizes
from strop.compiler.capture.call import Call, Handler

MOST_ROWS = 1 << 22
"""Of a table: up to here a float32 counts in halves, so that rounding an index cannot leave it."""


def _linear(call: Call) -> str:
    """Of samples, or of every step of a sequence (B,T,I): then each step is a row."""
    x, weights = call.activation(), call.weights("weight", "bias")
    if len(call.shape(x)) != 3:
        return call.emit("dense", [call.activation(rank=2), *weights])
    batch, steps, features = call.shape(x)
    y = call.emit("dense", [call.reshape(x, (batch * steps, features)), *weights])
    return call.reshape(y, (batch, steps, call.shape(y)[1]))


def _conv(call: Call) -> str:
    x, weights = read(call, "input"), call.weights("weight", "bias")
    if sizes(call, call.args["dilation"], 1) != (1, 1):
        raise call.refusal(f"has dilation {call.args['dilation']}", do="Use dilation=1 and a larger kernel or stride")
    stride, padding = sizes(call, call.args["stride"], 1), _padding(call, call.shape(weights[0])[2:])
    return give(call, call.emit("conv2d", [x, *weights], stride=stride, padding=padding, groups=call.args["groups"]))


def _padding(call: Call, kernel: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of zeros on each side of the image."""
    padding = call.args["padding"]
    if padding == "valid":
        return (0, 0)
    if padding == "same":
        if any(size % 2 == 0 for size in kernel):
            raise call.refusal(
                f"pads one side more than the other: 'same' with a kernel of {tuple(kernel)}",
                do="Use an odd kernel, or give the padding as numbers",
            )
        return sizes(call, [size // 2 for size in kernel], 0)
    return sizes(call, padding, 0)


def _embedding(call: Call) -> str:
    if call.args["padding_idx"] >= 0:
        raise call.refusal("has a row that does not learn", do="Leave padding_idx out")
    (table,) = call.weights("weight")
    if call.shape(table)[0] > MOST_ROWS:
        raise call.refusal(f"has {call.shape(table)[0]} rows", do=f"Use at most {MOST_ROWS}")
    return call.emit("embedding", [call.activation("indices"), table])


HANDLERS: dict[str, Handler] = {
    "linear": _linear,
    "conv2d": _conv,
    "conv1d": _conv,
    "embedding": _embedding,
}
