"""Lanes and harts: which axis is taken, how much of it, and that what cannot be shared out is not."""

import pytest
import torch
from cases import OP_CASES, CompiledCase, OpCase
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from strop.compiler.dtypes import BFLOAT16, INT32, UINT8
from strop.compiler.harts import imbalance
from strop.compiler.ir import TensorType
from strop.compiler.lanes.layout import Lanes, lane_axis
from strop.compiler.lanes.vectors import lane_count
from strop.compiler.lanes.weights import abreast
from strop.compiler.ops.base import Case, f32
from strop.compiler.pipeline import build
from strop.compiler.precision import uniform
from strop.compiler.schedules import Tiling
from strop.host.zoo import MODELS

CONV = {"stride": (1, 1), "padding": (1, 1), "groups": 1}


def kernel(kind: str, *shapes: tuple[int, ...], attrs: dict[str, object] | None = None, **tiling: int) -> str:
    """The C of an op's kernel."""
    case = OpCase(kind, 0, Case(tuple(f32(*shape) for shape in shapes), attrs or {}))
    return CompiledCase(case, Tiling(**tiling), fma=True).kernel.body


@given(st.integers(1, 3000), st.sampled_from([8, 16, 32, 64]))
def test_vectors_cover_an_axis(extent: int, most: int) -> None:
    count = lane_count(extent, most)
    assert extent % count == 0
    assert count <= most
    assert count == extent or extent > most


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((7,), 0), ((1, 10), 1), ((1, 64, 25, 5), 1), ((64, 64, 1, 1), 1), ((64, 1, 3, 3), 0), ((8, 2, 3, 3), 0)],
)
def test_channels_are_lanes(shape: tuple[int, ...], axis: int) -> None:
    assert lane_axis(shape) == axis
    assert lane_axis(shape, Lanes.LAST) == len(shape) - 1


def test_a_dense_layer_takes_a_vector_of_rows() -> None:
    body = kernel("dense", (1, 40), (64, 40), lanes=32)
    assert body.count("for (int") == 1
    assert "strop_x32_load(w + r0_0 * 8 + 1280, 40, 32)" in body  # the second 32 rows, one behind the other


def test_lanes_are_channels_so_padding_is_the_same_for_all() -> None:
    body = kernel("conv2d", (1, 3, 8, 8), (16, 3, 3, 3), attrs=CONV, lanes=32)
    assert "strop_x16_fma_fvv(x[" in body
    assert "strop_x16_load(w + r0 * 9 + r1 * 3, 27, 16)" in body
    assert "pick" not in body


@pytest.mark.parametrize("room", [0, 3, 24])
def test_scalars_that_all_turns_share_are_read_before_the_loop(room: int) -> None:
    body = kernel("dense_dx", (1, 5), (5, 192), lanes=32, scalars=room)
    before, loop = body.split("for (int", 1)
    assert before.count("const float dy_") == min(room, 5)
    assert loop.count("dy[") == 3 * (5 - min(room, 5))  # for three vectors side by side


def test_few_terms_are_written_out_for_each_edge_of_an_image() -> None:
    body = kernel("conv2d", (1, 16, 7, 5), (16, 1, 3, 3), attrs=CONV | {"groups": 16}, lanes=16)
    assert body.count("for (int") == 1, "a loop over the rows between the first and the last"
    assert body.count("_fma(") == (2 + 3 + 2) * (2 + 3 + 3 + 3 + 2)


HELIUM = {"lanes": 16, "registers": 8, "at_once": 4}


@pytest.mark.parametrize(("columns", "lanes", "sums"), [(5, 4, 5), (3, 8, 3), (11, 16, 1)])
def test_few_registers_hold_long_vectors_or_many(columns: int, lanes: int, sums: int) -> None:
    body = kernel("conv2d", (1, 3, 11, columns), (16, 3, 1, 1), attrs=CONV | {"padding": (0, 0)}, **HELIUM)
    assert body.count(f"_fill(0.0f, {lanes})") == sums


def test_two_vectors_a_product_leave_room_for_fewer_sums() -> None:
    attrs = CONV | {"groups": 16, "kernel": (3, 3)}
    body = kernel("conv2d_dw", (1, 16, 7, 5), (1, 16, 7, 5), attrs=attrs, **HELIUM)
    assert body.count("_fill(0.0f, 4)") == 3  # of eight registers; of vectors of eight lanes there is room for one


@pytest.mark.parametrize(("tiling", "lanes", "beside"), [(Tiling(lanes=32), 28, 2), (Tiling(**HELIUM), 4, 7)])
def test_inputs_of_an_update_wait_in_the_registers_beside_a_weight(tiling: Tiling, lanes: int, beside: int) -> None:
    assert abreast(784, tiling) == (lanes, beside)


@pytest.mark.parametrize("turn", [1, 4])
def test_an_update_takes_as_many_rows_at_a_time_as_the_core_has_addresses_for(turn: int) -> None:
    body = kernel("dense_dw", (1, 8), (1, 96), turn=turn, **HELIUM)
    assert body.count("_store(dw + ") == turn * abreast(96, Tiling(**HELIUM))[1]


@pytest.mark.parametrize(
    ("image", "padding", "size"), [((7, 5), 0, 16 * 5 + 1), ((5, 5), 1, 16 * 25 + 1), ((9, 9), 1, 0)]
)
def test_what_all_lanes_share_is_widened_beforehand(image: tuple[int, int], padding: int, size: int) -> None:
    """A tile of pixels; all of a padded image, unless it is too large."""
    types = (f32(1, 16, *image), f32(24, 16, 2 * padding + 1, 2 * padding + 1))
    case = OpCase("conv2d", 0, Case(types, CONV | {"padding": (padding, padding)}))
    body = CompiledCase(case, Tiling(**HELIUM, panel=512), fma=True, dtype=BFLOAT16).kernel.body
    assert f"float x_wide_panel[{size}];" in body if size else "_panel" not in body


def test_what_the_loops_of_a_map_do_not_change_is_computed_before_them() -> None:
    body = kernel("batch_norm", (1, 24, 5, 5), *[(24,)] * 4, lanes=8)
    around, _, within = body.rpartition("for (int")
    assert "strop_x8_mul(" in around
    assert "strop_x8_mul(" not in within
    assert "strop_x8_fma(" in within


def test_what_has_no_vector_form_stays_scalar() -> None:
    assert "strop_x" not in kernel("tanh", (1, 64), lanes=32)
    assert kernel("tanh", (1, 64), lanes=32) == kernel("tanh", (1, 64))


def test_fewer_outputs_than_a_vector_stay_scalar() -> None:
    assert "strop_x" not in kernel("dense", (1, 20), (2, 20), lanes=32)


def test_terms_are_lanes_where_outputs_are_few() -> None:
    body = kernel("dense", (1, 40), (2, 40), lanes=32)
    assert body.count("_fma(strop_x32_load(x + r0_0 * 20, 1, 20), strop_x32_load(w + ") == 2
    assert body.count("strop_x32_sum(") == 2


def test_the_last_vector_of_a_row_may_be_shorter() -> None:
    body = kernel("dense", (1, 70), (1, 70), lanes=32)
    assert "strop_x32_first(strop_x32_fma(strop_x32_load(x + 64, 1, 6)" in body
    assert body.count("_sum(") == 1


POOLED = {
    "stride": (1, 1), "padding": (0, 0), "groups": 1, "kernel": (3, 3),
    "pool_kernel": (2, 2), "pool_stride": (2, 2), "pool_padding": (0, 0),
}  # fmt: skip


def pooled(channels: int, rows: int, columns: int, **tiling: int) -> str:
    """The C of the gradient of a 3x3 kernel behind a max-pool of so many windows."""
    shape, image = (1, channels, rows, columns), (1, 1, 2 * rows + 2, 2 * columns + 2)
    types = (f32(*shape), TensorType(shape, UINT8), f32(*image))
    return CompiledCase(OpCase("conv2d_dw_pooled", 0, Case(types, POOLED)), Tiling(**tiling), fma=True).kernel.body


@pytest.mark.parametrize(("rows", "loops"), [(7, 0), (13, 1)])
def test_places_of_maxima_are_found_once_for_all_taps(rows: int, loops: int) -> None:
    body = pooled(3, rows, 13, lanes=32)
    channel, taps = body.split("for (int ax2", 1)
    assert "places32_u8(index" in channel
    assert channel.count("for (int") == 1 + loops, "of channels, and of vectors if they are many"
    assert "places32_u8(" not in taps
    assert "_gather(x + " in taps
    assert ("strop_address(places" in taps) == (not loops)


@pytest.mark.parametrize(
    ("batch", "outputs", "row"), [(1, 10, 10), (3, 10, 30), (30, 10, 10), (1, 7, 0), (1, 257, 0)], ids=str
)
def test_what_follows_a_row_of_sums_has_lanes_over_them(batch: int, outputs: int, row: int) -> None:
    """All sums are one row, if they are few enough, or those of each sample are, if they are not too few."""
    body = kernel("dense", (batch, 40), (outputs, 40), (outputs,), lanes=32)
    assert ("_row" in body) == (f"float sum_row[{row}];" in body) == bool(row)
    assert ("_load(sum_row" in body) == bool(row)


def test_an_index_that_one_lane_has_is_compared_in_lanes() -> None:
    types = (f32(1, 10), f32(1), TensorType((1,), INT32))
    body = CompiledCase(OpCase("cross_entropy_grad", 0, Case(types)), Tiling(lanes=16), fma=True).kernel.body
    assert "strop_x16_pick_lane(label[0], 1.0f, strop_x16_fill(0.0f, 10), 10)" in body


@given(st.integers(1, 500), st.integers(1, 8))
def test_the_busiest_hart(turns: int, harts: int) -> None:
    ranges = [turns * (hart + 1) // harts - turns * hart // harts for hart in range(harts)]
    assert sum(ranges) == turns
    assert max(ranges) * harts / turns == pytest.approx(imbalance(turns, harts))


def test_outer_loops_are_shared_out_until_the_load_is_even() -> None:
    body = kernel("conv2d", (1, 3, 8, 8), (12, 3, 3, 3), attrs=CONV, harts=8)
    first = body.splitlines()[0]
    turns = int(first.split("= ")[1].split(" *")[0])
    assert first.strip().startswith("for (int b_o_0_h")  # channels alone would leave two harts idle
    assert imbalance(turns, 8) == 1


def test_a_sum_of_everything_is_left_to_one() -> None:
    lines = kernel("mse", (1, 7), (1, 7), harts=8).splitlines()
    assert lines[0] == "    if (hart == 0) {"
    assert lines[-1] == "    (void)harts;"


def test_all_wait_between_the_loops_of_a_kernel() -> None:
    bodies = [CompiledCase(case, Tiling(harts=8), fma=True).kernel.body for case in OP_CASES if case.kind == "adam"]
    assert all(body.count("strop_team_barrier") == body.count("\n    for (") for body in bodies)


def test_a_core_alone_has_kernels_without_harts() -> None:
    assert "hart" not in kernel("dense", (1, 40), (64, 40))


def built(model: str, dtype: str = "float32", board: str = "qemu-cortex-m55") -> str:
    """The C of a model, for Helium if nothing else is said."""
    module, example = MODELS[model]()
    return build(module, example, name=model, board=board, dtype=dtype).files["strop_model.c"]


def sweep(model: str, dtype: str = "float32") -> str:
    """The kernel of a dense layer's input gradient and update."""
    return built(model, dtype).split("dense_dx_relu_grad_dense_dw_sgd(")[1].split("\n}\n")[0]


@pytest.mark.parametrize(("dtype", "fixed"), [("float32", "f32x4 fixed_3"), ("float16", "f16x8 fixed_2")])
def test_a_sweep_has_its_inputs_before_the_loop_over_rows(dtype: str, fixed: str) -> None:
    before, loop = sweep("cnn-28x28", dtype).split("for (int r0", 1)
    assert f"const strop_{fixed} = " in before
    assert "fnma" not in loop, "no vector times a float is subtracted: it would be negated in a register of its own"
    assert "(y " not in loop.split("}")[0]


def test_what_vectors_share_in_a_sweep_is_widened_once() -> None:
    assert "float dy_wide_panel[11];" in sweep("mlp-64-32-10", "float16")
    assert "panel" not in sweep("mlp-64-32-10")


def test_a_weight_of_a_sweep_is_widened_in_its_products() -> None:
    rows = sweep("mlp-64-32-10", "float16")
    assert "_load_f16(w" not in rows
    assert "_fma_wide_fvv(read.first, read_2, " in rows


def test_a_pool_compares_once_for_a_maximum_and_its_place() -> None:
    pool = built("cnn-28x28").split("max_pool2d_argmax_relu(")[1].split("\n}\n")[0]
    assert pool.count("_raise(&") == 4
    assert "pick" not in pool


def test_one_sum_at_a_time_leaves_room_for_the_longest_vectors() -> None:
    pool = built("cnn-28x28", board="qemu-rv32v").split("max_pool2d_argmax_relu(")[1].split("\n}\n")[0]
    assert "strop_f32x32_labels y2_v1;" in pool
    assert "sum0" not in pool
    whole, tail = pool.split("strop_x32_store_labels(index")[:2]
    assert whole.count("x = strop_address(x);") == tail.count("x = strop_address(x);") == 4


def test_a_maximum_of_sums_too_long_for_halves_is_in_float32() -> None:
    module = nn.Sequential(nn.Conv2d(4, 6, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(486, 10))
    precision = uniform("float16", sums="float16")
    bundle = build(module, torch.zeros(1, 4, 20, 20), board="qemu-rv32v", dtype=precision)
    pool = bundle.files["strop_model.c"].split("max_pool2d_argmax_relu(")[1].split("\n}\n")[0]
    assert "strop_f32x32_labels y2_v1;" in pool
    assert "sum = strop_x32_add_f16(sum, sum_part, 27);" in pool


def test_registers_that_a_shorter_band_leaves_are_not_declared() -> None:
    text = sweep("cnn-28x28")
    assert "strop_f32x4 dx_2_0, dx_2_1, dx_2_2;" in text  # 1352 columns are 112 bands of twelve
    assert "strop_f32x4 dx_3_0, dx_3_1;" in text  # and eight


def test_a_weight_that_every_window_reads_is_widened_once() -> None:
    text = built("cnn-28x28", "float16")
    assert text.count("strop_x8_store(w_wide_panel + ") == 2  # in training and in inference
    assert text.count("load_f16(w + ") == 3  # and in the update of it
    assert "strop_x4_load(w_wide_panel + ax5 * 24 + i1_0 * 4 + 8, 1, 4)" in text  # channels lie side by side
