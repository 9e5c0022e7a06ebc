"""Checkpoints on an emulated board whose flash is a file: it is killed while it saves, and goes on to the same bits.

A case is a seed: `pytest tests/emu/test_store_emu.py -k "killed and 3"` does one of them again.
"""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import strop
from strop.compiler.bundle import Bundle
from strop.errors import DataError, SessionError, StropError
from strop.host.cli import run
from strop.host.device import Device, connect
from strop.host.firmware import elf
from strop.host.flash import runner_for
from strop.host.session import Session
from strop.host.store import emulating
from strop.host.zoo import MODELS

BOARD = "qemu-rv32imf"
KILLS = 4
"""In a case, one after the other."""


@cache
def bundle(board: str = BOARD) -> Bundle:
    model, example = MODELS["mlp-64-32-10"]()
    optimizer = strop.optim.SGD(lr=0.01, momentum=0.9)
    return strop.build(model, example, loss="cross_entropy", optimizer=optimizer, board=board, name="mlp-64-32-10")


def samples(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """The samples of these steps, always the same ones."""
    rng = np.random.default_rng(0)
    x, y = rng.random((400, 64)).astype(np.float32), rng.integers(0, 10, 400).astype(np.int32)
    return x[start:stop], y[start:stop]


@cache
def _twin_after(steps: int) -> dict[str, bytes]:
    twin = bundle().twin()
    if steps:
        twin.train(*samples(0, steps))
    return bits(twin)


def bits(device: Device) -> dict[str, bytes]:
    return {name: data.tobytes() for name, data in device.tensors().items()}


def session_of(device: Device) -> Session:
    assert isinstance(device.backend, Session)
    return device.backend


@pytest.fixture
def flash(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "flash.bin"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def emulator() -> int:
    """The QEMU that this process has started last."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(pid) for file in children for pid in file.read_text().split()]
    return max(pid for pid in pids if "qemu-system" in Path(f"/proc/{pid}/cmdline").read_text())


def save_seconds(file: Path) -> float:
    with connect(bundle(), store=file) as device:
        device.save()
        began = time.monotonic()
        device.save()
        return time.monotonic() - began


def save_and_kill(device: Device, seconds: float) -> None:
    def save() -> None:
        with suppress(StropError):  # it was killed first
            device.save()

    saving = threading.Thread(target=save)
    saving.start()
    time.sleep(seconds)
    os.kill(emulator(), signal.SIGKILL)
    saving.join()


@pytest.mark.parametrize("seed", range(5))
def test_a_board_killed_while_it_saves_has_the_old_or_the_new_state(tmp_path: Path, flash: Path, seed: int) -> None:
    chance = random.Random(seed)
    seconds = save_seconds(tmp_path / "other.bin")
    legal, erases = {0}, (0, 0)
    for attempt in range(KILLS + 1):
        where = f"seed {seed}, start {attempt}"
        with connect(bundle(), store=flash) as device:
            hello = session_of(device).hello()
            assert device.steps in legal, where
            assert bits(device) == _twin_after(device.steps), where
            assert hello.store is not None
            assert all(a <= b for a, b in zip(erases, hello.store.erases, strict=True)), where
            erases, before = hello.store.erases, device.steps
            after = before + chance.randint(1, 9)
            device.train(*samples(before, after))
            save_and_kill(device, chance.uniform(0, 1.2) * seconds)
            legal = {before, after}


def test_a_board_goes_on_from_its_file(flash: Path) -> None:
    with connect(bundle(), store=flash) as device:
        device.autosave(5)
        device.train(*samples(0, 12))
    with connect(bundle(), store=flash) as device:
        assert device.steps == 10
        device.train(*samples(10, 20))
        assert bits(device) == _twin_after(20)
        device.forget()
    with connect(bundle(), store=flash) as device:
        assert device.steps == 0
        assert bits(device) == _twin_after(0)


def test_without_a_file_an_emulated_board_forgets() -> None:
    with connect(bundle()) as device:
        device.save()
        device.load()
    with connect(bundle()) as device, pytest.raises(SessionError, match="no complete checkpoint"):
        device.load()


def test_a_board_without_a_store_says_so() -> None:
    with connect(bundle("qemu-cortex-m4f")) as device:
        assert session_of(device).hello().store is None
        with pytest.raises(SessionError, match="refuses SAVE: this board cannot do that"):
            device.save()
    with pytest.raises(StropError, match="no flash that a file could stand for"):
        connect(bundle("qemu-cortex-m4f"), store=Path("flash.bin"))


def test_a_file_of_another_size_is_refused(flash: Path) -> None:
    flash.write_bytes(bytes(1000))
    with pytest.raises(DataError, match="has 1000 bytes, checkpoints of this model take"):
        connect(bundle(), store=flash)


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def call(*words: str, status: int = 0) -> Any:
        assert run([*words, "--json"]) == status
        return json.loads(capsys.readouterr().out)

    train = ("train", "mlp-64-32-10", "-b", BOARD, "--steps", "25", "--autosave", "10", "--store", "flash.bin")
    assert call(*train)["steps"] == 25
    model, example = MODELS["mlp-64-32-10"]()
    trained = strop.build(model, example, board=BOARD, name="mlp-64-32-10")
    with runner_for(emulating(trained.board, Path("flash.bin"))).start(elf(trained)) as running:
        port = ("--port", running.endpoint)
        assert call("load", *port) == {"board": BOARD, "steps": 20, "erases": [1, 1]}
        call("reset", *port)
        assert call("save", *port) == {"board": BOARD, "steps": 0, "erases": [2, 1]}
        assert call("factory-reset", *port) == {"board": BOARD, "steps": 0, "erases": [3, 2]}
        assert "no complete checkpoint" in call("load", *port, status=1)["error"]["what"]
    assert "needs a board that runs already" in call("save", status=1)["error"]["what"]
