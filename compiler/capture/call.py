"""One call of the ATen graph on its way into the Program: what handlers see of it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Node

from strop.compiler.ir import Attr, Role
from strop.errors import CaptureError

if TYPE_CHECKING:
    from strop.compiler.capture.torch import Reader

RESERVED = ("x", "y")
"""Names of the Program's input and label."""


@dataclass(frozen=True)
class Weight:
    """A tensor of the model, not yet a value of the Program."""

    name: str
    data: NDArray[np.float32]
    role: Role


class Call:
    """One node of the graph on its way into the Program."""

    def __init__(self, reader: "Reader", node: Node, position: str) -> None:
        self.reader, self.node, self.position = reader, node, position
        stack = list((node.meta.get("nn_module_stack") or {"": ("", "forward")}).values())
        self.path, self.module = stack[-1][0], str(stack[-1][1]).rsplit(".", 1)[-1]
        self.is_layer = str(stack[-1][1]).startswith(("torch.nn.", "strop.nn."))
        self.op = _aten_name(node)
        self.args = _arguments(node)

    def check_static(self) -> None:
        """Raise CaptureError for a result whose shape depends on data."""
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
        return [self.weight(self.args[name]) for name in names if self.args[name] is not None]

    def weight(self, node: Node) -> str:
        """The value of a tensor of the model."""
        found = self.reader.bound.get(node)
        if not isinstance(found, Weight):
            raise self.refusal("computes its own weights", do="Use a parameter or buffer of the model as it is")
        return self.reader.declare(found, self.loc)

    def constant(self, name: str, data: NDArray[Any]) -> str:
        """A constant that the layer implies."""
        return self.reader.declare(Weight(name, data.astype(np.float32), Role.CONST), self.loc)

    def emit(self, kind: str, inputs: Sequence[str], **attrs: Attr) -> str:
        """Append an op; returns its first output."""
        return self.reader.b.emit1(kind, inputs, self.stem(kind), loc=self.loc, **attrs)

    def stem(self, kind: str) -> str:
        """The name of what an op computes: after the layer, or after the enclosing module and the op."""
        function = kind.removesuffix("_argmax")
        stem = (self.path if self.is_layer else f"{self.path}.{function}".lstrip(".")) or function
        return f"{stem}.out" if stem in RESERVED else stem

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


Handler = Callable[[Call], str | Weight]
"""Appends the ops of a call; returns the name of its (first) result, or a tensor that it makes."""


def pair(numbers: int | Sequence[int]) -> tuple[int, int]:
    """(h, w) from a number, or from a list of one or two."""
    first, *rest = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    return (first, rest[0] if rest else first)
