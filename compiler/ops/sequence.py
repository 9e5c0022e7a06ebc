"""Sequences: tensors (T,...) whose first axis is time, and their rows."""

from collections.abc import Sequence
from math import prod

import numpy as np

from strop.compiler.dtypes import FLOAT32
from strop.compiler.ir import Builder, Op, TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Elementwise, Expr, OpSpec, Te, Tensor, f32


class Rows(OpSpec):
    """Elements of x from row attrs["first"] on, as many as attrs["shape"] has: the same memory, no code, no copy."""

    kind = "rows"
    free = True

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        shape, rows = tuple(attrs["shape"]), inputs[0].shape[0] - attrs["first"]
        if attrs["first"] < 0 or prod(shape) > rows * (inputs[0].size // inputs[0].shape[0]):
            raise ValueError(f"{inputs[0]} has no {shape} behind row {attrs['first']}")
        return [TensorType(shape, inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [inputs[0][attrs["first"] :].ravel()[: prod(attrs["shape"])].reshape(attrs["shape"])]

    def cases(self) -> list[Case]:
        return [
            Case((f32(7, 3, 5),), {"first": 2, "shape": (4, 15)}),
            Case((f32(5, 3),), {"first": 4, "shape": (1, 3)}),
        ]


class Late(OpSpec):
    """The gradient of the last rows alone: attrs["steps"] rows, zeros, and then x."""

    kind = "late"

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType((attrs["steps"], *inputs[0].shape[1:]), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        (x,) = inputs
        missing = attrs["steps"] - len(x)
        return [np.concatenate([np.zeros((missing, *x.shape[1:]), x.dtype), x])]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (x,), (rows, *row) = inputs, types[0].shape
        missing = attrs["steps"] - rows
        return [
            te.compute(
                (attrs["steps"], *row), lambda t, *i: te.where(t >= missing, x[(t - missing, *i)], te.const(0)), "y"
            )
        ]

    def cases(self) -> list[Case]:
        return [Case((f32(3, 2, 5),), {"steps": 7}), Case((f32(1, 1, 3),), {"steps": 4})]


class SwapAxes(OpSpec):
    """x (A,B,...) -> y (B,A,...): samples of steps become steps of samples, and back."""

    kind = "swap_axes"

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        a, b, *rest = inputs[0].shape
        return [TensorType((b, a, *rest), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [np.ascontiguousarray(inputs[0].swapaxes(0, 1))]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (x,), (a, b, *rest) = inputs, types[0].shape
        return [te.compute((b, a, *rest), lambda i, j, *k: x[(j, i, *k)], "y")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        assert grads[0] is not None
        return [b.emit1("swap_axes", (grads[0],), f"d_{op.inputs[0]}", loc=op.loc)]

    def cases(self) -> list[Case]:
        return [Case((f32(3, 7, 5),)), Case((f32(2, 3),))]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


class Copy(Elementwise):
    """The same elements in memory of their own."""

    kind = "copy"

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [inputs[0].copy()]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        return values[0]


class Zeros(OpSpec):
    """attrs["shape"] zeros."""

    kind = "zeros"
    operands = ()

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType(tuple(attrs["shape"]), FLOAT32)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [np.zeros(attrs["shape"], np.float32)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        return [te.compute(tuple(attrs["shape"]), lambda *i: te.const(0), "y")]

    def cases(self) -> list[Case]:
        return [Case((), {"shape": (3, 7)}), Case((), {"shape": (1, 1, 5)})]
