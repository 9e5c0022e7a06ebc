"""PyTorch modules become forward Programs, through the ATen graph of `torch.export`.

Names a user meets again in memory maps, weights and errors:

* A parameter or buffer keeps its `state_dict` name; a tensor with two names (tied weights) has the first of them.
* An activation is called after the layer that computes it ("conv1", "features.0"), or, for a function called inside a
  `forward`, after the enclosing module and the op ("block1.add", "relu"; "relu.2" for the second one).
* What frozen batch normalisation needs besides its buffers is called after the layer ("bn1.inv_std").
"""

import inspect
import logging
import sysconfig
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node

from strop.compiler.capture.aten import INSTEAD, LAYERS, handlers
from strop.compiler.capture.call import RESERVED, Call, Weight
from strop.compiler.dtypes import FLOAT32
from strop.compiler.ir import Builder, Op, Program, Role, TensorType
from strop.errors import CaptureError, VerifyError


def capture(model: nn.Module, example: Tensor, *, name: str = "model", batch: int = 1) -> Program:
    """Return the forward Program of `model` for steps of `batch` samples.

    example: float32, with a leading batch axis of any length >= 1; only its other axes matter.  The model is read as
    in `eval()`: dropout passes, batch normalisation uses its running statistics; its training flags are restored.
    A parameter with `requires_grad=False` becomes a constant.

    Raises CaptureError for a model that is not float32, whose shapes or control flow depend on data, that takes or
    gives anything but one tensor, or that has a layer outside `aten.LAYERS`; the error names the layer and its place.
    """
    x = _sample(example, batch)
    _check_tensors(model)
    with _evaluating(model):
        _check_run(model, x)
        exported = _export(model, x)
    _check_pure(exported)
    return Reader(model, exported, x).program(name)


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


class Reader:
    """Walks the graph; `bound` holds what each node stands for: the name of an activation, or a weight."""

    def __init__(self, model: nn.Module, exported: torch.export.ExportedProgram, x: Tensor) -> None:
        self.exported = exported
        self.batch = x.shape[0]
        self.b = Builder({})
        self.b.value("x", TensorType(tuple(x.shape), FLOAT32), Role.INPUT)
        self.bound: dict[Node, str | Weight] = {}
        tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        self.first_name = {name: next(n for n, t in tensors if t is tensor) for name, tensor in tensors}
        self.tensors: Mapping[str, Any] = {**exported.constants, **dict(tensors)}

    def program(self, name: str) -> Program:
        """Read all nodes; keep what the output depends on."""
        calls = [node for node in self.exported.graph.nodes if node.op == "call_function" and node.users]
        self._bind_placeholders()
        for position, node in enumerate(calls, 1):
            if node not in self.bound:  # as a part of a result read before
                self.bound[node] = _read(Call(self, node, f"op {position} of {len(calls)}"))
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

    def _weight(self, target: str) -> Weight:
        tensor, name = self.tensors[target], self.first_name.get(target, target)
        trained = isinstance(tensor, nn.Parameter) and tensor.requires_grad
        return Weight(name, tensor.detach().cpu().numpy(), Role.PARAM if trained else Role.CONST)

    def declare(self, weight: Weight, loc: str) -> str:
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


def _read(call: Call) -> str | Weight:
    """Append the call's ops; return the name of its result, or a tensor that it makes."""
    call.check_static()
    if call.op not in handlers():
        advice = INSTEAD.get(call.op.lstrip("_")) or INSTEAD.get(call.module)
        raise call.refusal("is not supported", do=". ".join(filter(None, [advice, f"Supported are {LAYERS}"])))
    result = handlers()[call.op](call)
    expected = call.node.meta["val"]
    shape = tuple((expected[0] if isinstance(expected, tuple | list) else expected).shape)
    if isinstance(result, str) and call.shape(result) != shape:
        raise VerifyError(f"{result!r} is captured as {call.shape(result)}, not {shape}", where=call.place)
    return result
