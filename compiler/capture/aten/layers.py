"""Layers with weights, and what stays constant beside them."""

from collections.abc import Sequence

import numpy as np

from strop.compiler.capture.call import Call, Handler, Weight, pair


def _linear(call: Call) -> str:
    return call.emit("dense", [call.activation(rank=2), *call.weights("weight", "bias")])


def _conv2d(call: Call) -> str:
    x, weights = call.activation(rank=4), call.weights("weight", "bias")
    if pair(call.args["dilation"]) != (1, 1):
        raise call.refusal(f"has dilation {call.args['dilation']}", do="Use dilation=1 and a larger kernel or stride")
    padding = _padding(call, call.shape(weights[0])[2:])
    return call.emit(
        "conv2d", [x, *weights], stride=pair(call.args["stride"]), padding=padding, groups=call.args["groups"]
    )


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
        return (kernel[0] // 2, kernel[1] // 2)
    return pair(padding)


def _batch_norm(call: Call) -> str:
    x = call.activation()
    if call.args["running_var"] is None or call.args.get("training"):
        raise call.refusal("has no frozen statistics", do="Use track_running_stats=True")
    mean, variance = (call.reader.bound[call.args[name]] for name in ("running_mean", "running_var"))
    if not (isinstance(mean, Weight) and isinstance(variance, Weight)):
        raise call.refusal("computes its own statistics", do="Use a BatchNorm layer with running statistics")
    layer = variance.name.removesuffix("running_var")
    layer = f"{layer}." if layer == variance.name else layer
    inv_std = 1 / np.sqrt(variance.data.astype(np.float64) + call.args["eps"])
    one = np.ones(variance.data.shape)
    gain = call.weights("weight") or [call.constant(f"{layer}gain", one)]
    offset = call.weights("bias") or [call.constant(f"{layer}offset", 0 * one)]
    statistics = [call.reader.declare(mean, call.loc), call.constant(f"{layer}inv_std", inv_std)]
    return call.emit("batch_norm", [x, *gain, *offset, *statistics])


HANDLERS: dict[str, Handler] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
}
