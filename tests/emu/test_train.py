"""Whole commands against emulated boards: one that dies, one that falls silent, one that is left running."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strop.host.cli import run
from strop.targets.board import load_board

BOARD = "qemu-rv32imf"
TRAIN = (
    "train", "mlp-64-32-10", "--rule", "tpsgd", "--optimizer", "momentum", "--checkpoint-every", "40",
    "--split", "0.02",
)  # fmt: skip


Strop = Callable[..., Any]


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    heeds = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # in the background a shell has it ignored
    program = f"import signal, sys; {heeds}; from strop.host.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, *words], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.fixture
def strop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Strop:
    """Run a command line in this process and in an empty folder; returns its JSON."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str, status: int = 0) -> Any:
        assert run([*words, "--json"]) == status
        return json.loads(capsys.readouterr().out)

    return call


def emulators(process: "subprocess.Popen[str]") -> list[int]:
    """The QEMU processes a command has started."""
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    pids = [int(pid) for file in children for pid in file.read_text().split()]
    return [pid for pid in pids if "qemu-system" in Path(f"/proc/{pid}/cmdline").read_text()]


def wait_for(condition: Callable[[], Any], seconds: float = 90) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)
    return found


def weights(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "weights.npz") as archive:
        return dict(archive)


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, data in first.items():
        np.testing.assert_array_equal(data.view(np.uint32), second[name].view(np.uint32), err_msg=name)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_a_board_that_dies_or_falls_silent(strop: Strop, tmp_path: Path, blow: signal.Signals) -> None:
    running = start(tmp_path, *TRAIN, "-b", BOARD, "--steps", "5000", "--run-dir", "run", "--timeout", "2", "--json")
    wait_for((tmp_path / "run" / "checkpoint.npz").exists)
    (emulator,) = emulators(running)
    os.kill(emulator, blow)
    struck = time.monotonic()
    error = json.loads(running.communicate(timeout=60)[0])["error"]
    assert running.returncode == 1
    assert time.monotonic() - struck < 30  # seconds, also on a machine with other work
    assert not Path(f"/proc/{emulator}").exists(), "no emulator is left behind"

    assert error["kind"] == "BoardLostError"
    assert "training stopped at step" in error["what"]
    assert "--resume run" in error["do"]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["status"] == "failed"
    with np.load(tmp_path / "run" / "checkpoint.npz") as checkpoint:
        kept = int(checkpoint["step"])
    assert f"the weights of step {kept} are in" in error["where"]

    until = str(kept + 130)
    resumed = strop("train", "--resume", "run", "--steps", until)
    straight = strop(*TRAIN, "--steps", until, "--run-dir", "straight")
    assert resumed["board"] == BOARD
    assert resumed["steps"] == straight["steps"] == kept + 130
    assert resumed["loss"] == straight["loss"]
    assert_same_weights(tmp_path / "run", tmp_path / "straight")


def test_validate_and_profile(strop: Strop) -> None:
    verdict = strop("validate", "cnn-8x8", "-b", "qemu-cortex-m4f", "--steps", "20")
    assert verdict["bits_equal"] is True
    assert verdict["torch"]["max_rel_error"] < 1e-4
    one, two = (strop("profile", "cnn-8x8", "-b", BOARD, "--steps", "5") for _ in range(2))
    assert one == two, "instruction counts repeat"
    assert 0 < one["instructions_per_step"] < 200_000
    assert all(kernel["name"] and kernel["instructions"] > 0 and kernel["macs"] >= 0 for kernel in one["kernels"])


def test_a_model_too_large_for_its_board(strop: Strop, capsys: pytest.CaptureFixture[str]) -> None:
    Path("large.py").write_text("import torch\ndef net(): return torch.nn.Linear(2000, 300), torch.zeros(1, 2000)\n")
    large = ("large.py:net", "-b", BOARD)
    report = strop("analyze", *large, status=1)
    assert report["fits"] is False
    assert report["ram"]["total"] > report["firmware"]["ram_available"] == load_board(BOARD).memory[1].length
    assert run(["analyze", *large]) == 1
    assert "does NOT fit" in capsys.readouterr().out
    assert strop("build", *large, status=1)["error"]["kind"] == "PlanError"


def test_a_board_left_running(strop: Strop, tmp_path: Path) -> None:
    running = start(tmp_path, "run", "mlp-64-32-10", "-b", BOARD, "--lr", "0.05")
    assert running.stdout
    lines = [running.stdout.readline() for _ in range(3)]
    port = next(line.split()[1] for line in lines if line.startswith("port"))
    options = ("mlp-64-32-10", "-b", BOARD, "--lr", "0.05", "-p", port)
    trained = strop("train", *options, "--steps", "60", "--run-dir", "trained")
    assert strop("monitor", "-p", port, "--seconds", "0.5")["steps"] == 60
    assert strop("eval", *options)["accuracy"] == trained["accuracy"]
    strop("weights", "pull", *options, "-o", "weights.npz")
    assert_same_weights(tmp_path, tmp_path / "trained")
    strop("reset", "-p", port)
    assert strop("monitor", "-p", port, "--seconds", "0.1")["steps"] == 0
    other = strop("train", "mlp-64-32-10", "-b", BOARD, "--lr", "0.07", "-p", port, status=1)
    assert "the board runs model" in other["error"]["what"]
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 130
    assert err.strip().splitlines()[-1] == "error: interrupted."
