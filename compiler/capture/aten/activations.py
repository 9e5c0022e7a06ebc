"""Activations, element by element or row by row."""

from functools import partial

from strop.compiler.capture.aten.signals import follow
from strop.compiler.capture.call import Call, Handler


def _activation(kind: str, call: Call) -> str:
    return follow(call, kind, call.activation("self"))


def _hardtanh(call: Call) -> str:
    limits = (call.args["min_val"], call.args["max_val"])
    if limits != (0, 6):
        raise call.refusal(f"clips to {limits}", do="Clip to (0, 6), as ReLU6 does, or use Tanh")
    return _activation("relu6", call)


def _leaky_relu(call: Call) -> str:
    slope = float(call.args["negative_slope"])
    if not 0 < slope < float("inf"):
        raise call.refusal(f"has a slope of {slope}", do="Use a positive slope, or ReLU")
    return follow(call, "leaky_relu", call.activation("self"), slope=slope)


def _softmax(kind: str, call: Call) -> str:
    x = call.activation("self")
    last = len(call.shape(x)) - 1
    if call.args["dim"] not in (-1, last):
        raise call.refusal(f"works along axis {call.args['dim']} of {call.shape(x)}", do="Use the last axis, dim=-1")
    return follow(call, kind, x)


HANDLERS: dict[str, Handler] = {
    "relu": partial(_activation, "relu"),
    "relu6": partial(_activation, "relu6"),
    "hardtanh": _hardtanh,
    "leaky_relu": _leaky_relu,
    "tanh": partial(_activation, "tanh"),
    "sigmoid": partial(_activation, "sigmoid"),
    "softmax": partial(_softmax, "softmax"),
    "log_softmax": partial(_softmax, "log_softmax"),
}
