"""Reshape (free: the same memory under another shape) and element-wise sums."""

from collections.abc import Sequence

from strop.compiler.ir import Builder, Op, TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Elementwise, Expr, OpSpec, Te, f32


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
