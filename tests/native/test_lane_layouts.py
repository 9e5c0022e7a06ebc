"""Lanes over the places of an image and over the terms of a sum, in whole training steps on this PC."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import KERNEL_INCLUDES, Array, CompiledCase, Library, Net, OpCase, batches, stages
from cbuild import RUNTIME, build_shared

from strop.compiler.dtypes import FLOAT16
from strop.compiler.ir import Program
from strop.compiler.ops.base import Case, f32
from strop.compiler.optim import SGD
from strop.compiler.rules import Backprop
from strop.compiler.schedules import Tiling

TILING = Tiling(lanes=16)


def windows(channels: int, rows: int, columns: int) -> Program:
    """A convolution of few channels, (rows - 1) / 2 by (columns - 1) / 2 windows, and a dense layer of many outputs."""
    return Net(2, rows, columns).conv(channels, 2).pool("max_pool2d_argmax").act("relu").flatten().dense(64).program()


def trained(program: Program, board: str, folder: Path) -> tuple[str, dict[str, Array], list[float]]:
    """The generated C, all parameters after three steps of a board's kernels on this PC, and the losses."""
    folder.mkdir()
    _, bundle = stages(program, Backprop(), "cross_entropy", SGD(lr=0.05), board=board)
    c = Library(bundle, folder, flags=["-Wno-psabi"])
    losses = [c.train_step(x, y) for x, y in batches(bundle.program, 3)]
    return bundle.files["strop_model.c"], {k: v.copy() for k, v in c.variables().items()}, losses


@pytest.mark.parametrize(("rows", "columns"), [(17, 19), (13, 25), (19, 21)], ids=str)
@pytest.mark.parametrize("board", ["qemu-rv32v", "qemu-rv32v256"])
def test_a_step_in_both_layouts_is_near_that_in_scalars(board: str, rows: int, columns: int, tmp_path: Path) -> None:
    text, vectors, losses = trained(windows(3, rows, columns), board, tmp_path / "vectors")
    _, scalars, expected = trained(windows(3, rows, columns), "qemu-rv32imf", tmp_path / "scalars")
    assert "_gather(x + " in text
    assert "_sum(" in text
    assert losses[0] == expected[0], "windows in a row keep the order of every sum"
    for name, values in scalars.items():
        np.testing.assert_allclose(vectors[name], values, rtol=1e-5, atol=1e-6)


def test_windows_that_leave_a_rest_stay_channels(tmp_path: Path) -> None:
    text, *_ = trained(windows(3, 12, 15), "qemu-rv32v", tmp_path / "rest")
    assert "_gather(" not in text.split("conv2d_dw_pooled")[0]


def partial(terms: Array, lanes: int, neighbours: int = 1) -> np.float32:
    """Terms added as lanes add them: each lane so many in every turn, one after the other, then all lanes."""
    sums = np.zeros(lanes, np.float32)
    for start in range(0, len(terms), lanes * neighbours):
        turn = terms[start : start + lanes * neighbours]
        for first in range(neighbours):
            added = turn[first::neighbours]
            sums[: len(added)] += added
    total = np.float32(0)
    for lane in sums:
        total += lane
    return total


def dense(rows: int, length: int, tiling: Tiling, **options: Any) -> tuple[str, Array, Array]:
    """The C of a dense layer, its products, and what it adds them up to.

    The products are exact whatever they rest in, and add up to zero: what comes of them is rounding, by their order.
    """
    case = OpCase("dense", 99, Case((f32(1, length), f32(rows, length))))
    kernel = CompiledCase(case, tiling, fma=True, **options)
    x, w = kernel.operands[0], kernel.operands[1]
    random = 2.0 ** np.random.default_rng(length).integers(-12, 15, length // 2)
    x[0] = np.concatenate([random, np.zeros(length % 2), -random[::-1]])
    w[:] = 1 + np.arange(rows)[:, None]
    source = KERNEL_INCLUDES + '#include "lanes.h"\n' + kernel.source("run")
    pointers = (ctypes.c_void_p * len(kernel.operands))(*(array.ctypes.data for array in kernel.operands))
    build_shared([source, RUNTIME / "numerics.c"], cc="gcc", flags=["-Wno-psabi"]).run(pointers)
    return kernel.kernel.body, x[0].astype(np.float32) * w.astype(np.float32), kernel.results[0][0]


@pytest.mark.parametrize("length", [37, 64, 169])
def test_terms_are_added_lane_by_lane(length: int) -> None:
    body, products, sums = dense(2, length, TILING)
    count = int(body.split("_sum(")[1].split(", ")[2].split(")")[0])
    assert sums.tolist() == [partial(row, count) for row in products]


@pytest.mark.parametrize(("rows", "turns"), [(3, [3]), (8, [4]), (10, [4, 2])], ids=str)
def test_products_of_neighbours_are_added_in_one_lane(rows: int, turns: list[int]) -> None:
    """As many sums as registers hold, in each turn and in the last one."""
    tiling = Tiling(lanes=16, halves=16, registers=8, at_once=4)
    body, products, sums = dense(rows, 88, tiling, dtype=FLOAT16, half="maps")
    loops = body.split("for (int r0")[1:]
    assert [loop.split("}")[0].count("_dot_f16(strop_x8_half(x + ") for loop in loops] == turns
    assert sums.tolist() == [np.float16(partial(row, 4, neighbours=2)) for row in products]
    assert sums.tolist() != [np.float16(partial(row, 8)) for row in products]
