"""What a schedule keeps out of the loops of a padded convolution: tests for the image's edge."""

from collections.abc import Sequence

import pytest

from strop.compiler import ops
from strop.compiler.dtypes import INT32
from strop.compiler.ir import Builder, Program, Role, TensorType
from strop.compiler.kernels import kernel_spec, lowered
from strop.compiler.ops.base import Attrs, Expr, OpSpec, Te, Tensor, f32
from strop.compiler.schedules import Tiling

ATTRS = {"stride": (1, 1), "padding": (1, 1), "groups": 1}
X, W, Y = f32(1, 3, 8, 24), f32(4, 3, 3, 3), f32(1, 4, 8, 24)
CASES = {
    "conv2d": ((X, W), ATTRS),
    "conv2d_dx": ((Y, W), {**ATTRS, "image": (8, 24)}),
    "conv2d_dw": ((Y, X), {**ATTRS, "kernel": (3, 3)}),
}


def code(kind: str, inputs: tuple[TensorType, ...], attrs: dict[str, object]) -> str:
    b = Builder({})
    names = [b.value(f"i{i}", type_, Role.INPUT) for i, type_ in enumerate(inputs)]
    outputs = b.emit(kind, names, "o", **attrs)
    program = Program("test", b.values, tuple(b.ops), outputs[0], initial=b.initial, fma=True)
    return lowered(kernel_spec(program, b.ops[0], Tiling(accumulators=16, unroll=8))).body


@pytest.mark.parametrize("kind", CASES)
def test_no_turn_of_a_loop_asks_where_the_image_ends(kind: str) -> None:
    body = code(kind, *CASES[kind])
    assert "if (" not in body
    assert any("?" in line for line in body.splitlines() if "for (" in line), "rows end where the image does"
    assert all("?" not in line for line in body.splitlines() if "strop_fmaf" in line)


def test_strides_keep_their_conditions() -> None:
    """A tap that only some turns have cannot bound a loop."""
    body = code("conv2d_dx", (f32(1, 4, 4, 12), W), {**ATTRS, "stride": (2, 2), "image": (8, 24)})
    assert "if (" in body


class SumOfLabel(OpSpec):
    """x (N), label (1) -> y (K): the sum of x at the label's place, zeros elsewhere."""

    kind = "sum_of_label"
    operands = ("x", "label")

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(attrs["classes"])]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (x, label), (j,) = inputs, te.axes(types[0].size)

        def element(c: Expr) -> Expr:
            return te.sum(te.where(label[0] == c, x[j], te.const(0)), [j])

        return [te.compute((attrs["classes"],), element, "y")]


@pytest.mark.parametrize(("length", "classes"), [(5, 7), (11, 6), (40, 16)])
def test_no_label_bounds_a_loop(length: int, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a label is, the loop that looks for it ends where its array does."""
    monkeypatch.setitem(ops._registered, SumOfLabel.kind, SumOfLabel())
    body = code("sum_of_label", (f32(length), TensorType((1,), INT32)), {"classes": classes})
    loops = [line for line in body.splitlines() if "for (" in line]
    assert loops
    assert not any("label" in line for line in loops)
