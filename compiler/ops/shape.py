"""Reshape (free: the same memory under another shape), element-wise arithmetic, joining and cutting."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from strop.compiler.ir import Builder, Op, TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Elementwise, Expr, OpSpec, Te, Tensor, f32


class Reshape(OpSpec):
    """The same elements in the same order under attrs["shape"]; no code, no copy."""

    kind = "reshape"
    free = True

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType(tuple(attrs["shape"]), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [inputs[0].reshape(attrs["shape"])]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        assert grads[0] is not None
        shape = b.values[op.inputs[0]].shape
        return [b.emit1("reshape", (grads[0],), f"d_{op.inputs[0]}", loc=op.loc, shape=shape)]

    def cases(self) -> list[Case]:
        return [Case((f32(2, 3, 5, 7),), {"shape": (2, 105)}), Case((f32(3, 10),), {"shape": (3, 5, 2)})]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


class Scale(Elementwise):
    """x times attrs["factor"]."""

    kind = "scale"
    linear = "x"

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [inputs[0] * inputs[0].dtype.type(attrs["factor"])]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        return values[0] * te.const(attrs["factor"])

    def cases(self) -> list[Case]:
        return [Case((f32(3, 7),), {"factor": 0.01})]


class Add(Elementwise):
    """a + b, equal shapes."""

    kind = "add"
    operands = ("a", "b")
    arity = 2

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [inputs[0] + inputs[1]]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        return values[0] + values[1]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        return [grads[0], grads[0]]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0, 1)

    def cases(self) -> list[Case]:
        return [Case((f32(1, 3, 5, 7),) * 2), Case((f32(3, 11),) * 2)]


class Sub(Elementwise):
    """a - b, equal shapes."""

    kind = "sub"
    operands = ("a", "b")
    arity = 2

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [inputs[0] - inputs[1]]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        return values[0] - values[1]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        assert grads[0] is not None
        return [grads[0], b.emit1("negative", (grads[0],), f"d_{op.inputs[1]}", loc=op.loc)]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0, 1)


class Negative(Elementwise):
    """-x."""

    kind = "negative"

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [-inputs[0]]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        return te.const(0) - values[0]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        assert grads[0] is not None
        return [b.emit1("negative", (grads[0],), f"d_{op.inputs[0]}", loc=op.loc)]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


class Mul(Elementwise):
    """a * b, equal shapes."""

    kind = "mul"
    operands = ("a", "b")
    arity = 2

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [inputs[0] * inputs[1]]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        return values[0] * values[1]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        dy, (x, y) = grads[0], op.inputs
        assert dy is not None
        return [b.emit1("mul", (dy, other), f"d_{name}", loc=op.loc) for name, other in ((x, y), (y, x))]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0, 1)


class Concat(OpSpec):
    """Up to eight tensors -> one, side by side along attrs["axis"]."""

    kind = "concat"
    operands = tuple("abcdefgh")

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        shape = list(inputs[0].shape)
        shape[attrs["axis"]] = sum(part.shape[attrs["axis"]] for part in inputs)
        return [TensorType(tuple(shape), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [np.concatenate(inputs, attrs["axis"])]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        axis = attrs["axis"]
        ends = list(accumulate(part.shape[axis] for part in types))

        def element(*i: Expr) -> Expr:
            value = None
            for part, end, size in reversed(list(zip(inputs, ends, (t.shape[axis] for t in types), strict=True))):
                own = part[_moved(i, axis, size - end)]
                value = own if value is None else te.where(i[axis] < end, own, value)
            return value

        return [te.compute(self.infer(types, attrs)[0].shape, element, "y")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        assert grads[0] is not None
        axis = op.attrs["axis"]
        sizes = [b.values[name].shape[axis] for name in op.inputs]  # type: ignore[index]
        return [
            b.emit1("slice", (grads[0],), f"d_{name}", loc=op.loc, axis=axis, start=sum(sizes[:i]), size=sizes[i])
            for i, name in enumerate(op.inputs)
        ]

    def cases(self) -> list[Case]:
        return [
            Case((f32(1, 3, 5), f32(1, 4, 5)), {"axis": 1}),
            Case((f32(2, 3), f32(2, 1), f32(2, 5)), {"axis": 1}),
            Case((f32(2, 3, 1, 2), f32(2, 3, 1, 5)), {"axis": 3}),
        ]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return tuple(range(len(self.operands)))


def _moved(index: Sequence[Expr], axis: int, by: int) -> tuple[Expr, ...]:
    """An index some way along an axis."""
    return tuple(i + by if n == axis and by else i for n, i in enumerate(index))


class Slice(OpSpec):
    """`size` places of x from `start` on along `axis`, not the batch's. attrs: axis, start, size."""

    kind = "slice"

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType(_resized(inputs[0].shape, attrs["axis"], attrs["size"]), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [inputs[0].take(range(attrs["start"], attrs["start"] + attrs["size"]), attrs["axis"])]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        shape = self.infer(types, attrs)[0].shape
        return [te.compute(shape, lambda *i: inputs[0][_moved(i, attrs["axis"], attrs["start"])], "y")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        assert grads[0] is not None
        axis, (x,) = op.attrs["axis"], op.inputs
        size = b.values[x].shape[axis]  # type: ignore[index]
        inputs, start = (grads[0],), op.attrs["start"]
        return [b.emit1("slice_grad", inputs, f"d_{x}", loc=op.loc, axis=axis, start=start, size=size)]

    def cases(self) -> list[Case]:
        return [Case((x,), {"axis": axis, "start": start, "size": size}) for x, axis, start, size in SLICES]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (0,)


def _resized(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


SLICES = (
    (f32(1, 7), 1, 2, 3),
    (f32(1, 24), 1, 10, 3),
    (f32(2, 5, 3), 1, 0, 2),
    (f32(2, 3, 4, 5), 3, 4, 1),
    (f32(3, 4), 1, 0, 4),
)
"""Pieces from the front, the middle and the end, and the whole: x, axis, start, size."""


class SliceGrad(OpSpec):
    """dy -> dx, `size` places along `axis`: dy from `start` on, zeros around it. attrs: axis, start, size."""

    kind = "slice_grad"
    operands = ("dy",)
    results = ("dx",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType(_resized(inputs[0].shape, attrs["axis"], attrs["size"]), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        (dy,), axis, start = inputs, attrs["axis"], attrs["start"]
        around = [(0, 0)] * dy.ndim
        around[axis] = (start, attrs["size"] - start - dy.shape[axis])
        return [np.pad(dy, around)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        axis, start, stop = attrs["axis"], attrs["start"], attrs["start"] + types[0].shape[attrs["axis"]]

        def element(*i: Expr) -> Expr:
            value = inputs[0][_moved(i, axis, -start)]
            if stop < attrs["size"]:
                value = te.where(i[axis] < stop, value, te.const(0))
            return te.where(i[axis] < start, te.const(0), value) if start else value

        return [te.compute(self.infer(types, attrs)[0].shape, element, "dx")]

    def cases(self) -> list[Case]:
        return [
            Case((f32(*_resized(x.shape, axis, size)),), {"axis": axis, "start": start, "size": x.shape[axis]})
            for x, axis, start, size in SLICES
        ]
