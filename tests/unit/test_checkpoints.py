"""Checkpoints of the twin as a user of the package sees them: `save`, `load`, `forget`, `autosave`, and a file."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import strop
from strop.compiler.bundle import Bundle
from strop.errors import DataError, SessionError
from strop.host.device import Device


@cache
def bundle() -> Bundle:
    """With momentum, so that a checkpoint without the optimizer's state would show."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    return strop.build(module, torch.zeros(1, 6), optimizer=strop.optim.SGD(lr=0.05, momentum=0.9))


def train(device: Device, start: int, stop: int) -> list[np.ndarray]:
    """Do these steps, on the same samples every time; returns all tensors."""
    rng = np.random.default_rng(0)
    x, y = rng.random((30, 6)).astype(np.float32), rng.integers(0, 3, 30)
    device.train(x[start:stop], y[start:stop])
    return list(device.tensors().values())


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def test_a_twin_goes_on_from_its_file(tmp_path: Path) -> None:
    straight = train(bundle().twin(), 0, 30)
    first = bundle().twin(store=tmp_path / "flash.bin")
    train(first, 0, 12)
    assert first.save() == 12
    train(first, 12, 14)
    second = bundle().twin(store=tmp_path / "flash.bin")
    assert second.steps == 12
    assert same(train(second, 12, 30), straight)
    assert second.steps == 30


def test_load_and_forget() -> None:
    device = bundle().twin()
    initial = list(device.tensors().values())
    with pytest.raises(SessionError, match="no complete checkpoint"):
        device.load()
    kept = train(device, 0, 5)
    device.save()
    train(device, 5, 9)
    assert device.load() == device.steps == 5
    assert same(list(device.tensors().values()), kept)
    device.forget()
    assert device.steps == 0
    assert same(list(device.tensors().values()), initial)
    with pytest.raises(SessionError, match="no complete checkpoint"):
        device.load()


def test_autosave(tmp_path: Path) -> None:
    device = bundle().twin(store=tmp_path / "flash.bin")
    device.autosave(4)
    train(device, 0, 10)
    assert bundle().twin(store=tmp_path / "flash.bin").steps == 8
    for wrong in (-1, 1 << 32):
        with pytest.raises(DataError, match="cannot save every"):
            device.autosave(wrong)


def test_a_twin_without_a_file_keeps_nothing_beyond_itself() -> None:
    device = bundle().twin()
    train(device, 0, 3)
    device.save()
    assert bundle().twin().steps == 0


def test_a_file_that_is_none() -> None:
    with pytest.raises(DataError, match="the file for checkpoints cannot be used"):
        bundle().twin(store="/nowhere/flash.bin")
