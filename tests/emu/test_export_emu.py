"""Exported libraries in programs for emulated boards: the examples train to the twin's figures, and inference has the
twin's answers."""

from pathlib import Path

import numpy as np
import pytest
from exported import bundle_for, expected_lines, lines_of, samples

from strop.errors import ToolchainError
from strop.host.export import export, inference
from strop.host.export.formats import format_of
from strop.targets.board import load_board
from strop.targets.toolchain import build_elf, find_toolchain

HERE = Path(__file__).parent / "example"
BOARDS = ("qemu-rv32imf", "qemu-cortex-m4f")


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("compiler", ["gcc", "clang", "zig"])
@pytest.mark.parametrize("name", ["c", "cmake"])
def test_the_example_trains_and_saves(tmp_path: Path, board: str, name: str, compiler: str) -> None:
    try:
        find_toolchain(compiler, load_board(board).core)
    except ToolchainError as missing:
        pytest.skip(str(missing))
    bundle, folder, layout = bundle_for(board), tmp_path / "library", format_of(name)
    export(bundle, folder, format=name)
    example = folder / layout.example
    sources = [*(folder / layout.sources).glob("*.c"), example / "example.c", example / "sample.c", HERE / "main.c"]
    includes = [folder / layout.headers, folder / layout.sources, example]
    elf = build_elf(load_board(board), sources, includes, tmp_path / "example.elf", toolchain=compiler)
    assert lines_of(elf, board, 4) == expected_lines(bundle, 3)


@pytest.mark.parametrize("board", BOARDS)
def test_inference_alone_says_what_the_twin_says(tmp_path: Path, board: str) -> None:
    bundle = bundle_for(board)
    x, y = samples(200)
    device = bundle.twin()
    device.train(x, y)
    alone = inference(bundle, device.tensors())
    export(alone, tmp_path / "library")
    example = tmp_path / "library" / "example"
    (tmp_path / "flash.h").write_text("/* nothing is kept */\n#include <stdint.h>\n")
    main = (HERE / "main.c").read_text()
    cut = main[: main.index("enum {")] + main[main.index("static void say") :]
    (tmp_path / "main.c").write_text(cut)
    own = [example / "example.c", example / "sample.c", tmp_path / "main.c"]
    sources = [*(tmp_path / "library").glob("*.c"), *own]
    elf = build_elf(load_board(board), sources, [tmp_path / "library", example, tmp_path], tmp_path / "a.elf")
    answers = device.infer(x[:10]).argmax(axis=1)
    assert lines_of(elf, board, 11)[1:] == [f"class {answer}, made as {i}" for i, answer in enumerate(answers)]
    assert np.all(answers == y[:10]), "it was trained"
