"""Normalisation: by running statistics that are frozen, or by each sample's own."""

from collections.abc import Sequence

import numpy as np

from strop.compiler.capture.aten.signals import follow
from strop.compiler.capture.call import Call, Handler, Weight
from strop.compiler.ir import Attr


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
    return follow(call, "batch_norm", x, [*gain, *offset, *statistics])


def _layer_norm(call: Call) -> str:
    x, shape = call.activation(), tuple(call.args["normalized_shape"])
    if len(shape) == len(call.shape(x)):
        raise call.refusal("normalises over the batch", do="Leave the batch axis out of normalized_shape")
    operands = _gain_and_offset(call, shape)
    if len(shape) > 1:
        return call.emit("normalize", [x, *operands], trailing=len(shape), eps=call.args["eps"])
    return follow(call, "normalize", x, operands, trailing=1, eps=call.args["eps"])


def _group_norm(call: Call) -> str:
    return _by_groups(call, call.activation(), call.args["num_groups"])


def _instance_norm(call: Call) -> str:
    x = call.activation()
    if not call.args["use_input_stats"]:
        raise call.refusal("keeps running statistics", do="Use BatchNorm, or track_running_stats=False")
    return _by_groups(call, x, call.shape(x)[1])


def _by_groups(call: Call, x: str, groups: int) -> str:
    attrs: dict[str, Attr] = {"groups": groups, "eps": call.args["eps"]}
    return follow(call, "normalize", x, _gain_and_offset(call, call.shape(x)[1:2]), **attrs)


def _gain_and_offset(call: Call, shape: Sequence[int]) -> list[str]:
    """The layer's, or 1 and 0."""
    found = []
    for name, default, value in (("weight", "gain", 1), ("bias", "offset", 0)):
        constant = call.reader.b.fresh(f"{call.path}.{default}".lstrip("."))
        found += call.weights(name) or [call.constant(constant, np.full(shape, value))]
    return found


HANDLERS: dict[str, Handler] = {
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
}
