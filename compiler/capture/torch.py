"""PyTorch modules become forward Programs, through the ATen graph of `torch.export`.

Names a user meets again in memory maps, weights and errors:

* A parameter or buffer keeps its `state_dict` name; a tensor with two names (tied weights) has the first of them.
* An activation is called after the layer that computes it ("conv1", "features.0"), or, for a function called inside a
  `forward`, after the enclosing module and the op ("block1.add", "relu"; "relu.2" for the second one).
* What frozen batch normalisation needs besides its buffers is called after the layer ("bn1.inv_std").
"""

import inspect
import logging
import operator
import re
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node

from strop.compiler.dtypes import FLOAT32
from strop.compiler.ir import Attr, Builder, Op, Program, Role, TensorType
from strop.errors import CaptureError, VerifyError

LAYERS = (
    "Linear, Conv2d, ReLU, LeakyReLU, ReLU6, Tanh, Sigmoid, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, BatchNorm1d, "
    "BatchNorm2d, Dropout, Flatten and reshape, and the sum of two branches"
)
"""What capture reads, as told to the user."""

INSTEAD = {
    "softmax": "Remove it: the cross_entropy loss takes logits",
    "log_softmax": "Remove it: the cross_entropy loss takes logits",
    "gelu": "Use ReLU or Tanh instead",
    "silu": "Use ReLU6 or Tanh instead",
    "elu": "Use LeakyReLU or Tanh instead",
    "hardswish": "Use ReLU6 instead",
    "layer_norm": "Use BatchNorm1d instead",
    "group_norm": "Use BatchNorm2d instead",
    "conv1d": "Use Conv2d with a kernel of (1, k) on images of height 1 instead",
    "max_pool1d": "Use MaxPool2d with a kernel of (1, k) on images of height 1 instead",
    "avg_pool1d": "Use AvgPool2d with a kernel of (1, k) on images of height 1 instead",
    "pad": "Use the padding of Conv2d or of the pooling layer instead",
    "LSTM": "Use Conv2d over a window of samples instead",
    "GRU": "Use Conv2d over a window of samples instead",
    "matmul": "Use Linear instead",
    "detach": "Remove it, and name the layers that shall not learn in the rule's freeze list",
    "wrap_with_set_grad_enabled": "Remove it, and name the layers that shall not learn in the rule's freeze list",
}
"""Advice for what is often met and not supported, by ATen op or by layer."""

RESERVED = ("x", "y")
"""Names of the Program's input and label."""


def capture(model: nn.Module, example: Tensor, *, name: str = "model", batch: int = 1) -> Program:
    """Return the forward Program of `model` for steps of `batch` samples.

    example: float32, with a leading batch axis of any length >= 1; only its other axes matter.  The model is read as
    in `eval()`: dropout passes, batch normalisation uses its running statistics; its training flags are restored.
    A parameter with `requires_grad=False` becomes a constant.

    Raises CaptureError for a model that is not float32, whose shapes or control flow depend on data, that takes or
    gives anything but one tensor, or that has a layer outside `LAYERS`; the error names the layer and its place.
    """
    x = _sample(example, batch)
    _check_tensors(model)
    with _evaluating(model):
        _check_run(model, x)
        exported = _export(model, x)
    _check_pure(exported)
    return _Reader(model, exported, x).program(name)


def _sample(example: Tensor, batch: int) -> Tensor:
    """The example resized to `batch` samples."""
    if batch < 1:
        raise CaptureError(f"the batch size is {batch}", do="Give a batch size of at least 1")
    if not isinstance(example, Tensor):
        raise CaptureError(f"the example input is a {type(example).__name__}", do="Give one torch.Tensor")
    if example.dtype is not torch.float32:
        raise CaptureError(f"the example input is {_dtype(example)}", do="Give float32, as with example.float()")
    if example.ndim < 2 or not example.numel():
        raise CaptureError(
            f"the example input has shape {tuple(example.shape)}",
            do="Give at least one sample behind a leading batch axis, as with example.unsqueeze(0)",
        )
    return example.detach()[:1].cpu().repeat(batch, *(1,) * (example.ndim - 1))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _check_tensors(model: nn.Module) -> None:
    """Refuse parameters and buffers that are not finite float32."""
    if not isinstance(model, nn.Module):
        raise CaptureError(f"the model is a {type(model).__name__}", do="Give a torch.nn.Module")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        where = f"tensor {name!r}"
        if tensor.is_meta or nn.parameter.is_lazy(tensor):
            raise CaptureError("a tensor of the model has no data", where=where, do="Load or initialise it first")
        if not tensor.is_floating_point():
            continue
        if tensor.dtype is not torch.float32:
            raise CaptureError(
                f"the model has {_dtype(tensor)} weights", where=where, do="Convert it with model.float()"
            )
        if not torch.isfinite(tensor).all():
            raise CaptureError("the model has a weight that is NaN or infinite", where=where, do="Initialise it again")


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode, and back."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's warnings, prints and pages of log away from the user."""
    nowhere = StringIO()
    with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


def _check_run(model: nn.Module, x: Tensor) -> None:
    """Run the model once, so that its own errors are told apart from those of tracing."""
    try:
        inspect.signature(model.forward).bind(x)
    except TypeError as error:
        raise CaptureError(
            f"the model's forward does not take one tensor: {error}", do="Give it one input without a default"
        ) from error
    try:
        with torch.no_grad(), _tracking(model) as active:
            y = model(x)
    except Exception as error:
        raise CaptureError(
            f"the model fails on an example of shape {tuple(x.shape)}: {_first_line(error)}",
            where=", ".join(filter(None, [*active[-1:], _user_frame(error)])),
            do="Check the example's shape; its first axis is the batch",
        ) from error
    if not isinstance(y, Tensor):
        raise CaptureError(f"the model returns a {type(y).__name__}", do="Return one tensor from forward")


@contextmanager
def _tracking(model: nn.Module) -> Iterator[list[str]]:
    """The stack of layers that are running, left as it was when one of them fails."""
    active: list[str] = []

    def enter(layer: nn.Module, _: Any) -> None:
        active.append(f"{names[layer]} ({type(layer).__name__})")

    def leave(*_: Any) -> None:
        active.pop()

    names = {layer: name for name, layer in model.named_modules() if name}
    with ExitStack() as hooks:
        for layer in names:
            hooks.enter_context(layer.register_forward_pre_hook(enter))
            hooks.enter_context(layer.register_forward_hook(leave))
        yield active


def _export(model: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    """The model's ATen graph, without in-place ops."""
    try:
        with _quiet():
            exported = torch.export.export(model, (x,), strict=False)
            if any(_mutates(node) for node in exported.graph.nodes):
                exported = exported.run_decompositions({})
    except Exception as error:
        data = "data-dependent" in str(error)
        what = "the model's control flow depends on its data" if data else f"torch.export fails: {_first_line(error)}"
        advice = "Write a forward that does the same for every input"
        raise CaptureError(what, where=_user_frame(error), do=advice) from error
    return exported


def _check_pure(exported: torch.export.ExportedProgram) -> None:
    """Refuse a model that keeps anything from one call to the next."""
    for spec in exported.graph_signature.output_specs:
        if spec.kind is OutputKind.BUFFER_MUTATION:
            where, advice = f"tensor {spec.target!r}", "Write a forward without side effects"
            raise CaptureError("the model changes its own buffer", where=where, do=advice)


def _mutates(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_LIBRARIES = (str(Path(torch.__file__).parent), sysconfig.get_path("stdlib"), __file__, "<")


def _user_frame(error: Exception) -> str:
    """The innermost line of the user's own code that an error went through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_LIBRARIES)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


@dataclass(frozen=True)
class _Weight:
    """A tensor of the model, not yet a value of the Program."""

    name: str
    data: NDArray[np.float32]
    role: Role


class _Reader:
    """Walks the graph; `bound` holds what each node stands for: the name of an activation, or a weight."""

    def __init__(self, model: nn.Module, exported: torch.export.ExportedProgram, x: Tensor) -> None:
        self.exported = exported
        self.batch = x.shape[0]
        self.b = Builder({})
        self.b.value("x", TensorType(tuple(x.shape), FLOAT32), Role.INPUT)
        self.bound: dict[Node, str | _Weight] = {}
        tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        self.first_name = {name: next(n for n, t in tensors if t is tensor) for name, tensor in tensors}
        self.tensors: Mapping[str, Any] = {**exported.constants, **dict(tensors)}

    def program(self, name: str) -> Program:
        """Read all nodes; keep what the output depends on."""
        calls = [node for node in self.exported.graph.nodes if node.op == "call_function" and node.users]
        self._bind_placeholders()
        for position, node in enumerate(calls, 1):
            call = _Call(self, node, f"op {position} of {len(calls)}")
            self.bound[node] = call.read()
        output = self._output()
        ops = _live(self.b.ops, output)
        if not ops:
            raise CaptureError("the model returns its input", do=f"Give it layers; supported are {LAYERS}")
        return Program(name, self.b.values, infer=ops, output=output, initial=self.b.initial).pruned()

    def _bind_placeholders(self) -> None:
        specs = {spec.arg.name: spec for spec in self.exported.graph_signature.input_specs}
        for node in self.exported.graph.nodes:
            if node.op == "placeholder":
                spec = specs[node.name]
                self.bound[node] = "x" if spec.kind is InputKind.USER_INPUT else self._weight(str(spec.target))

    def _weight(self, target: str) -> _Weight:
        tensor, name = self.tensors[target], self.first_name.get(target, target)
        trained = isinstance(tensor, nn.Parameter) and tensor.requires_grad
        return _Weight(name, tensor.detach().cpu().numpy(), Role.PARAM if trained else Role.CONST)

    def declare(self, weight: _Weight, loc: str) -> str:
        """The value of a weight, made where it is first read."""
        if weight.name in RESERVED:
            raise CaptureError(
                f"the model has a tensor called {weight.name!r}, as the Program's input or label is", do="Rename it"
            )
        if weight.name not in self.b.values:
            type_ = TensorType(weight.data.shape, FLOAT32)
            self.b.value(weight.name, type_, weight.role, loc, weight.data.copy())
        return weight.name

    def _output(self) -> str:
        results = next(node for node in self.exported.graph.nodes if node.op == "output").args[0]
        kinds = [spec.kind for spec in self.exported.graph_signature.output_specs]
        value = self.bound.get(results[kinds.index(OutputKind.USER_OUTPUT)])
        if not isinstance(value, str):
            raise CaptureError("the model's output does not depend on its input", do="Return the result of the layers")
        return value


def _live(ops: Sequence[Op], output: str) -> tuple[Op, ...]:
    """The ops that the output depends on."""
    needed, kept = {output}, []
    for op in reversed(ops):
        if needed.intersection(op.outputs):
            needed.update(op.inputs)
            kept.append(op)
    return tuple(reversed(kept))


class _Call:
    """One node of the graph on its way into the Program."""

    def __init__(self, reader: _Reader, node: Node, position: str) -> None:
        self.reader, self.node, self.position = reader, node, position
        stack = list((node.meta.get("nn_module_stack") or {"": ("", "forward")}).values())
        self.path, self.module = stack[-1][0], str(stack[-1][1]).rsplit(".", 1)[-1]
        self.is_layer = str(stack[-1][1]).startswith("torch.nn.")
        self.op = _aten_name(node)
        self.args = _arguments(node)

    def read(self) -> str:
        """Append this call's ops; return the name of its result."""
        self._check_static()
        if self.op not in HANDLERS:
            advice = INSTEAD.get(self.op.lstrip("_")) or INSTEAD.get(self.module)
            raise self.refusal("is not supported", do=". ".join(filter(None, [advice, f"Supported are {LAYERS}"])))
        result = HANDLERS[self.op](self)
        expected = self.node.meta["val"]
        shape = tuple((expected[0] if isinstance(expected, tuple | list) else expected).shape)
        if self.shape(result) != shape:
            raise VerifyError(f"{result!r} is captured as {self.shape(result)}, not {shape}", where=self.place)
        return result

    def _check_static(self) -> None:
        result = self.node.meta.get("val")
        if isinstance(result, torch.SymInt) or any(isinstance(n, torch.SymInt) for n in getattr(result, "shape", ())):
            raise self.refusal("has a shape that depends on data", do="Use layers whose output shape is fixed")

    @property
    def loc(self) -> str:
        """The layer as its user knows it: "conv1 (Conv2d)", "relu in block1 (Block)"."""
        module = f"{self.path} ({self.module})" if self.path else self.module
        return module if self.is_layer else f"{self.op.strip('_')} in {module}"

    @property
    def place(self) -> str:
        """The op and its position; for what is no layer of torch's own, the line of the user's file instead."""
        lines = re.findall(r'File "(.+)", line (\d+)', self.node.meta.get("stack_trace") or "")
        if self.is_layer or not lines:
            return f"{self.op.strip('_')}, {self.position}"
        return f"{self.position}, {':'.join(lines[-1])}"

    def refusal(self, why: str, do: str) -> CaptureError:
        """An error that names this layer, to be raised."""
        return CaptureError(f"{self.loc} {why}", where=self.place, do=do)

    def shape(self, value: str) -> tuple[int, ...]:
        """Shape of a value."""
        return self.reader.b.values[value].shape

    def activation(self, name: str = "input", rank: int = 0) -> str:
        """The value of an operand that must be computed from the input and, unless 0, have so many axes."""
        value = self.reader.bound.get(self.args[name]) if isinstance(self.args[name], Node) else self.args[name]
        if not isinstance(value, str):
            raise self.refusal(
                "computes with a parameter or constant", do="Use parameters only as weights and biases of layers"
            )
        if rank and len(self.shape(value)) != rank:
            layout = {2: "(batch, features)", 4: "(batch, channels, height, width)"}[rank]
            raise self.refusal(f"reads an input of shape {self.shape(value)}", do=f"Give it an input of shape {layout}")
        return value

    def weights(self, *names: str) -> list[str]:
        """The values of the operands that are there, all of them tensors of the model."""
        found = [self.reader.bound.get(self.args[name]) for name in names if self.args[name] is not None]
        for weight in found:
            if not isinstance(weight, _Weight):
                raise self.refusal("computes its own weights", do="Use a parameter or buffer of the model as it is")
        return [self.reader.declare(weight, self.loc) for weight in found if isinstance(weight, _Weight)]

    def constant(self, name: str, data: NDArray[Any]) -> str:
        """A constant that the layer implies."""
        return self.reader.declare(_Weight(name, data.astype(np.float32), Role.CONST), self.loc)

    def emit(self, kind: str, inputs: Sequence[str], **attrs: Attr) -> str:
        """Append an op; its first output is named after the layer, or after the enclosing module and the op."""
        function = kind.removesuffix("_argmax")
        stem = (self.path if self.is_layer else f"{self.path}.{function}".lstrip(".")) or function
        stem = f"{stem}.out" if stem in RESERVED else stem
        return self.reader.b.emit1(kind, inputs, stem, loc=self.loc, **attrs)

    def reshape(self, value: str, shape: tuple[int, ...]) -> str:
        """The same elements under another shape, whatever shapes they had in between."""
        sources = {op.outputs[0]: op.inputs[0] for op in self.reader.b.ops if op.kind == "reshape"}
        while self.shape(value) != shape and value in sources:
            value = sources[value]
        return value if self.shape(value) == shape else self.emit("reshape", [value], shape=shape)


def _aten_name(node: Node) -> str:
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target._schema.name).rpartition("::")[2]
    return getattr(node.target, "__name__", str(node.target))


def _arguments(node: Node) -> dict[str, Any]:
    """Arguments by the names of the op's schema, defaults filled in."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return dict(zip(("input", "index"), node.args, strict=False))
    names = [(argument.name, argument.default_value) for argument in node.target._schema.arguments]
    given = dict(zip((name for name, _ in names), node.args, strict=False))
    return {**dict(names), **given, **node.kwargs}


Handler = Callable[[_Call], str]


def _pair(numbers: int | Sequence[int]) -> tuple[int, int]:
    """(h, w) from a number, or from a list of one or two."""
    first, *rest = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    return (first, rest[0] if rest else first)


def _linear(call: _Call) -> str:
    return call.emit("dense", [call.activation(rank=2), *call.weights("weight", "bias")])


def _conv2d(call: _Call) -> str:
    x, weights = call.activation(rank=4), call.weights("weight", "bias")
    if _pair(call.args["dilation"]) != (1, 1):
        raise call.refusal(f"has dilation {call.args['dilation']}", do="Use dilation=1 and a larger kernel or stride")
    padding = _padding(call, call.shape(weights[0])[2:])
    return call.emit(
        "conv2d", [x, *weights], stride=_pair(call.args["stride"]), padding=padding, groups=call.args["groups"]
    )


def _padding(call: _Call, kernel: Sequence[int]) -> tuple[int, int]:
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
    return _pair(padding)


def _activation(kind: str, call: _Call) -> str:
    return call.emit(kind, [call.activation("self")])


def _hardtanh(call: _Call) -> str:
    limits = (call.args["min_val"], call.args["max_val"])
    if limits != (0, 6):
        raise call.refusal(f"clips to {limits}", do="Clip to (0, 6), as ReLU6 does, or use Tanh")
    return _activation("relu6", call)


def _leaky_relu(call: _Call) -> str:
    slope = float(call.args["negative_slope"])
    if not 0 < slope < float("inf"):
        raise call.refusal(f"has a slope of {slope}", do="Use a positive slope, or ReLU")
    return call.emit("leaky_relu", [call.activation("self")], slope=slope)


def _max_pool2d(call: _Call) -> str:
    kernel = _pair(call.args["kernel_size"])
    if _pair(call.args["dilation"]) != (1, 1):
        raise call.refusal(f"has dilation {call.args['dilation']}", do="Use dilation=1")
    if kernel[0] * kernel[1] > 256:
        raise call.refusal(f"has a window of {kernel}", do="Use windows of at most 256 elements")
    return _pool("max_pool2d_argmax", call, kernel)


def _avg_pool2d(call: _Call) -> str:
    if call.args["divisor_override"] is not None:
        raise call.refusal("has a divisor of its own", do="Leave divisor_override out")
    if not call.args["count_include_pad"] and any(_pair(call.args["padding"])):
        raise call.refusal("does not count its padding", do="Use count_include_pad=True or padding=0")
    return _pool("avg_pool2d", call, _pair(call.args["kernel_size"]))


def _pool(kind: str, call: _Call, kernel: tuple[int, int]) -> str:
    if call.args["ceil_mode"]:
        raise call.refusal("has ceil_mode=True", do="Use ceil_mode=False, and padding where windows must not be lost")
    stride, padding = _pair(call.args["stride"] or kernel), _pair(call.args["padding"])
    return call.emit(kind, [call.activation("self", rank=4)], kernel=kernel, stride=stride, padding=padding)


def _adaptive_avg_pool2d(call: _Call) -> str:
    x = call.activation("self", rank=4)
    image, grid = call.shape(x)[2:], _pair(call.args["output_size"])
    if any(size % cells for size, cells in zip(image, grid, strict=True)):
        raise call.refusal(f"divides {image} into {grid} unequal windows", do="Use a grid that divides the image")
    kernel = (image[0] // grid[0], image[1] // grid[1])
    return call.emit("avg_pool2d", [x], kernel=kernel, stride=kernel, padding=(0, 0))


def _mean(call: _Call) -> str:
    x = call.activation("self", rank=4)
    axes = {axis % 4 for axis in call.args["dim"] or range(4)}
    if axes != {2, 3}:
        raise call.refusal(f"takes the mean over axes {sorted(axes)}", do="Take it over both axes of the image, (2, 3)")
    image = call.shape(x)[2:]
    mean = call.emit("avg_pool2d", [x], kernel=image, stride=image, padding=(0, 0))
    return mean if call.args["keepdim"] else call.reshape(mean, call.shape(x)[:2])


def _reshape(call: _Call) -> str:
    x, shape = call.activation("self"), tuple(call.node.meta["val"].shape)
    if not shape or shape[0] != call.reader.batch:
        raise call.refusal(
            f"turns {call.shape(x)} into {shape}, where samples are mixed", do="Keep the batch axis, as flatten(1) does"
        )
    return call.reshape(x, shape)


def _add(call: _Call) -> str:
    if not isinstance(call.args["other"], Node) or call.args["alpha"] != 1:
        raise call.refusal("is no plain sum of two tensors", do="Put constants into a layer's weights or bias")
    a, b = call.activation("self"), call.activation("other")
    if call.shape(a) != call.shape(b):
        raise call.refusal(f"adds shapes {call.shape(a)} and {call.shape(b)}", do="Add tensors of equal shape")
    return call.emit("add", [a, b])


def _batch_norm(call: _Call) -> str:
    x = call.activation()
    if call.args["running_var"] is None or call.args.get("training"):
        raise call.refusal("has no frozen statistics", do="Use track_running_stats=True")
    mean, variance = (call.reader.bound[call.args[name]] for name in ("running_mean", "running_var"))
    if not (isinstance(mean, _Weight) and isinstance(variance, _Weight)):
        raise call.refusal("computes its own statistics", do="Use a BatchNorm layer with running statistics")
    layer = variance.name.removesuffix("running_var")
    layer = f"{layer}." if layer == variance.name else layer
    inv_std = 1 / np.sqrt(variance.data.astype(np.float64) + call.args["eps"])
    one = np.ones(variance.data.shape)
    gain = call.weights("weight") or [call.constant(f"{layer}gain", one)]
    offset = call.weights("bias") or [call.constant(f"{layer}offset", 0 * one)]
    statistics = [call.reader.declare(mean, call.loc), call.constant(f"{layer}inv_std", inv_std)]
    return call.emit("batch_norm", [x, *gain, *offset, *statistics])


def _identity(call: _Call) -> str:
    return call.activation("input" if "input" in call.args else "self")


def _dropout(call: _Call) -> str:
    if call.args["train"]:
        raise call.refusal("drops in eval mode too", do="Use the Dropout layer, or training=self.training")
    return _identity(call)


def _convert(call: _Call) -> str:
    result = call.node.meta["val"].dtype
    if result is not torch.float32:
        raise call.refusal(f"converts to {str(result).removeprefix('torch.')}", do="Compute in float32")
    return _identity(call)


HANDLERS: dict[str, Handler] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "relu": partial(_activation, "relu"),
    "relu6": partial(_activation, "relu6"),
    "hardtanh": _hardtanh,
    "leaky_relu": _leaky_relu,
    "tanh": partial(_activation, "tanh"),
    "sigmoid": partial(_activation, "sigmoid"),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "mean": _mean,
    "flatten": _reshape,
    "reshape": _reshape,
    "view": _reshape,
    "squeeze": _reshape,
    "unsqueeze": _reshape,
    "add": _add,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    operator.getitem.__name__: _identity,  # the normalised tensor, first of three results
    "dropout": _dropout,
    "feature_dropout": _dropout,
    "contiguous": _identity,
    "clone": _identity,
    "to": _convert,
}
"""The ATen ops that capture reads, with what each becomes."""
