"""What a schedule keeps out of the loops of a padded convolution: tests for the image's edge."""

import pytest

from strop.compiler.ir import Builder, Program, Role, TensorType
from strop.compiler.kernels import kernel_spec, lowered
from strop.compiler.ops.base import f32
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
