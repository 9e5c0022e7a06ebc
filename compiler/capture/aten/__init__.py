"""What each ATen op becomes, one file a family: a file's `HANDLERS` maps the op's name to a function."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from strop.compiler.capture.call import Handler


@cache
def handlers() -> dict[str, Handler]:
    """All handlers by the ATen op's name."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return {name: handler for module in modules for name, handler in module.HANDLERS.items()}


LAYERS = (
    "Linear, Conv1d, Conv2d, RNN, GRU, LSTM, strop.nn.LeakyRNN, Embedding, ReLU, LeakyReLU, ReLU6, Tanh, Sigmoid, "
    "Softmax, LogSoftmax, MaxPool1d, MaxPool2d, AvgPool1d, AvgPool2d, AdaptiveAvgPool1d, AdaptiveAvgPool2d, mean, "
    "BatchNorm1d, BatchNorm2d, LayerNorm, GroupNorm, InstanceNorm, Dropout, Flatten and reshape, cat, stack, slices, "
    "chunk and split, the sum, difference and product of two branches"
)
"""What capture reads, as told to the user."""

INSTEAD = {
    "gelu": "Use ReLU or Tanh instead",
    "silu": "Use ReLU6 or Tanh instead",
    "elu": "Use LeakyReLU or Tanh instead",
    "hardswish": "Use ReLU6 instead",
    "pad": "Use the padding of Conv2d or of the pooling layer instead",
    "matmul": "Use Linear instead",
    "detach": "Remove it, and name the layers that shall not learn in the rule's freeze list",
    "wrap_with_set_grad_enabled": "Remove it, and name the layers that shall not learn in the rule's freeze list",
}
"""Advice for what is often met and not supported, by ATen op or by layer."""
