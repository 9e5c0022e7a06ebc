"""`strop tune` on emulated boards: faster or untouched, the same bits, and the figures it states are true."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import batches

from strop.compiler.bundle import Bundle
from strop.compiler.passes.tuned import read_schedules
from strop.compiler.pipeline import build
from strop.host import tune
from strop.host.cli import run
from strop.host.device import Device, connect, twin
from strop.host.zoo import load_model

FILE = "strop-schedules.json"
Strop = Callable[..., Any]


@pytest.fixture
def strop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Strop:
    """Run a command line in this process and in an empty folder, with a small space to search; returns its JSON."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune, "SPACE", {"rows": (2, 8), "accumulators": (8, 12)})

    def call(*words: str) -> Any:
        assert run([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


def learnt(device: Device, bundle: Bundle) -> tuple[list[float], dict[str, bytes]]:
    """Losses of a hundred steps, and the bits of all tensors behind them."""
    with device:
        losses = [device.train_step(x, y) for x, y in batches(bundle.program, 100)]
        return losses, {name: data.tobytes() for name, data in device.tensors().items()}


@pytest.mark.parametrize("board", ["qemu-rv32imf", "qemu-cortex-m4f"])
def test_faster_with_the_same_bits(strop: Strop, board: str) -> None:
    found = strop("tune", "digits-cnn", "-b", board, "--any-size")
    assert 2 <= found["builds"] <= 4
    assert found["instructions_after"] < found["instructions_before"]
    assert any(kernel["tiling"] for kernel in found["kernels"])
    assert all(kernel["after"] < kernel["before"] for kernel in found["kernels"] if kernel["tiling"])
    assert all(kernel["after"] == kernel["before"] for kernel in found["kernels"] if not kernel["tiling"])

    profiled = strop("profile", "digits-cnn", "-b", board, "--steps", "3", "--schedules", FILE)
    assert profiled["instructions_per_step"] == found["instructions_after"], "the file is what was measured"

    name, module, example = load_model("digits-cnn")
    plain = build(module, example, name=name, board=board)
    tuned = build(module, example, name=name, board=board, schedules=FILE)
    assert tuned.hash != plain.hash
    expected = learnt(twin(plain), plain)
    assert learnt(twin(tuned), tuned) == expected
    assert learnt(connect(tuned), tuned) == expected


def test_what_is_known_is_kept_or_bettered(strop: Strop) -> None:
    command = ("tune", "mlp-64-32-10", "-b", "qemu-rv32imf", "--any-size", "--budget")
    first = strop(*command, "3")
    assert first["builds"] <= 3
    assert first["instructions_after"] < first["instructions_before"]
    earlier = read_schedules(FILE)
    again = strop(*command, "1")
    assert again["instructions_before"] == first["instructions_before"]
    assert again["instructions_after"] == first["instructions_after"]
    assert read_schedules(FILE) == earlier
    strop("tune", "mlp-64-32-10", "-b", "qemu-rv32imac", "--budget", "1")
    both = read_schedules(FILE)
    assert sorted(both.schedules) == ["rv32imac", "rv32imf"]
    assert both.schedules["rv32imf"] == earlier.schedules["rv32imf"]
