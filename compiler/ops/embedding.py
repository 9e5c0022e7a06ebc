"""Look-up in a table by index. Inputs are float32, so an index is a whole number in a float."""

from collections.abc import Sequence

import numpy as np

from strop.compiler.dtypes import INT32
from strop.compiler.ir import Builder, Op, TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, Hints, OpSpec, Te, Tensor, f32


def _row(te: Te, x: Expr, rows: int) -> Expr:
    """The index that x stands for: clamped first, so that no input, NaN included, leads outside the table."""
    positive = te.where(x > te.const(0), x, te.const(0))
    clamped = te.where(positive < te.const(rows - 1), positive, te.const(rows - 1))
    return te.cast(clamped + te.const(0.5), INT32)


def _rows(x: Array, rows: int) -> Array:
    index: Array = np.floor(np.clip(x, 0, rows - 1) + x.dtype.type(0.5)).astype(np.int64)
    return index


class Embedding(OpSpec):
    """x (B,...) of whole numbers, table (N,D) -> y (B,...,D): row x of the table; x is clamped to it and rounded."""

    kind = "embedding"
    operands = ("x", "table")

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        _, width = inputs[1].shape
        return [TensorType((*inputs[0].shape, width), inputs[1].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        x, table = inputs
        return [table[_rows(x, len(table))]]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (x, table), rows = inputs, types[1].shape[0]
        return [te.compute(self.infer(types, attrs)[0].shape, lambda *i: table[_row(te, x[i[:-1]], rows), i[-1]], "y")]

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        assert grads[0] is not None
        x, table = op.inputs
        rows = b.values[table].shape[0]
        return [None, b.emit1("embedding_grad", (grads[0], x), f"d_{table}", loc=op.loc, rows=rows)]

    def cases(self) -> list[Case]:
        return [Case((f32(1, 5), f32(7, 3))), Case((f32(3, 4), f32(5, 6))), Case((f32(2, 3, 2), f32(4, 1)))]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """Whole numbers, some outside the table."""
        x, table = case.inputs
        return [
            rng.integers(-1, table.shape[0] + 1, x.shape).astype(np.float32),
            rng.standard_normal(table.shape).astype(np.float32),
        ]

    @property
    def differentiable(self) -> tuple[int, ...]:
        return (1,)


class EmbeddingGrad(OpSpec):
    """dy (B,...,D), x (B,...) -> dtable (N,D): each row the sum of dy where x means it, in order. attrs: rows, N."""

    kind = "embedding_grad"
    operands = ("dy", "x")
    results = ("dtable",)

    def hints(self, types: Sequence[TensorType], attrs: Attrs) -> Hints:
        return Hints(tile=(1,), slides=False)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [TensorType((attrs["rows"], inputs[0].shape[-1]), inputs[0].dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        dy, x = inputs
        dtable = np.zeros((attrs["rows"], dy.shape[-1]), dy.dtype)
        np.add.at(dtable, _rows(x, attrs["rows"]), dy)
        return [dtable]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (dy, x), places = inputs, te.axes(*types[1].shape)
        shape = (attrs["rows"], types[0].shape[-1])

        def element(n: Expr, d: Expr) -> Expr:
            here = _row(te, x[places], attrs["rows"]) == n
            return te.sum(te.where(here, dy[(*places, d)], te.const(0)), places)

        return [te.compute(shape, element, "dtable")]

    def cases(self) -> list[Case]:
        forward = Embedding()
        return [
            Case((forward.infer(c.inputs, {})[0], c.inputs[0]), {"rows": c.inputs[1].shape[0]}) for c in forward.cases()
        ]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        dy, x = case.inputs
        return [
            rng.standard_normal(dy.shape).astype(np.float32),
            rng.integers(-1, case.attrs["rows"] + 1, x.shape).astype(np.float32),
        ]
