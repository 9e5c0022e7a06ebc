"""Exported libraries in programs for emulated boards: the examples train to the twin's figures, and inference has the
twin's answers."""

import time
from pathlib import Path

import numpy as np
import pytest
from exported import expected_lines, samples

import strop
from strop.compiler.bundle import Bundle
from strop.host.export import export, inference
from strop.host.export.formats import format_of
from strop.host.flash import runner_for
from strop.host.transport import transport_for
from strop.host.zoo import load_model
from strop.targets.board import load_board
from strop.targets.toolchain import build_elf

HERE = Path(__file__).parent / "example"
BOARDS = ("qemu-rv32imf", "qemu-cortex-m4f")


def bundle_for(board: str) -> Bundle:
    name, model, example = load_model("mlp-64-32-10")
    return strop.build(model, example, name=name, rule="tpsgd", optimizer=strop.optim.SGD(lr=0.05), board=board)


def lines_of(elf: Path, board: str, count: int) -> list[str]:
    """The first lines of a program that says one for each byte; one that comes too early may be lost."""
    with runner_for(load_board(board)).start(elf) as running:
        port, said, end = transport_for(running.endpoint), b"", time.monotonic() + 60
        port.open()
        while (done := said.count(b"\n")) < count and time.monotonic() < end:
            port.write(b"\n")
            until = time.monotonic() + 3
            while said.count(b"\n") == done and time.monotonic() < until:
                said += port.read(0.2)
        port.close()
    return said.decode().splitlines()[:count]


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("name", ["c", "cmake"])
def test_the_example_trains_and_saves(tmp_path: Path, board: str, name: str) -> None:
    bundle, folder, layout = bundle_for(board), tmp_path / "library", format_of(name)
    export(bundle, folder, format=name)
    example = folder / layout.example
    sources = [*(folder / layout.sources).glob("*.c"), example / "example.c", example / "sample.c", HERE / "main.c"]
    includes = [folder / layout.headers, folder / layout.sources, example]
    elf = build_elf(load_board(board), sources, includes, tmp_path / "example.elf")
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
