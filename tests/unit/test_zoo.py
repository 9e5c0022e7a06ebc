"""Built-in models have the published layers and the same weights every time; a user's file fails with a sentence."""

import pytest
import torch
from torch import nn

from strop.compiler.capture import capture
from strop.compiler.ir import Role
from strop.errors import UsageError
from strop.host.zoo import MODELS, load_model

PARAMETER_BYTES = {
    "mlp-64-32-10": 9_640,
    "mlp-784-128-10": 407_080,
    "cnn-8x8": 3_240,
    "cnn-28x28": 54_440,
    "cnn-3x18x18": 131_048,
    "digits-cnn": 4 * (80 + 4_128 + 330),
    "conv1d-har": 4 * (248 + 656 + 645),
    "rnn-row": 4 * (64 * (28 + 64 + 2) + 650),
    "leaky-row": 4 * (64 * (28 + 64 + 1) + 650),
    "gru-har": 4 * (3 * 32 * (6 + 32 + 2) + 165),
}

PUBLISHED_COUNTS = {"resnet8": 78_666, "ds-cnn": 24_908, "fc-autoencoder": 269_992}
"""Parameters of the MLPerf Tiny reference models, running statistics included."""

SHAPES = {
    "resnet8": [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3 + [(10,)],
    "ds-cnn": [(64, 25, 5)] * 9 + [(12,)],
    "fc-autoencoder": [(size,) for size in (128, 128, 128, 128, 8, 128, 128, 128, 128, 640)],
}
"""Outputs of all layers with weights, as in the benchmark's graphs."""


@pytest.mark.parametrize("name", PARAMETER_BYTES)
def test_parameters_take_the_stated_bytes(name):
    _, model, example = load_model(name)
    assert sum(value.bytes for value in capture(model, example).of(Role.PARAM)) == PARAMETER_BYTES[name]


@pytest.mark.parametrize("name", PUBLISHED_COUNTS)
def test_benchmark_models_have_the_published_layers(name):
    _, model, example = load_model(name)
    assert sum(t.numel() for t in model.state_dict().values() if t.is_floating_point()) == PUBLISHED_COUNTS[name]
    program = capture(model, example, batch=2)
    layers = [program.values[op.outputs[0]] for op in program.infer if op.kind in ("conv2d", "dense")]
    assert [value.shape[1:] for value in layers] == SHAPES[name]


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_seeded_and_signals_stay_in_range(name):
    _, model, example = load_model(name)
    torch.rand(1)
    before = torch.random.get_rng_state()
    _, again, _ = load_model(name)
    assert torch.equal(torch.random.get_rng_state(), before)
    pairs = zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    with torch.no_grad():
        y = model(torch.randn(16, *example.shape[1:], generator=torch.Generator().manual_seed(0)))
    assert not model.training
    assert 0.03 < y.std(0).mean() < 30


def written(folder, text: str) -> str:
    (folder / "neighbour.py").write_text("SIZE = 3\n")
    (folder / "net.py").write_text(text)
    return f"{folder / 'net.py'}:make"


GOOD = """\
from __future__ import annotations
from dataclasses import dataclass
import torch
from neighbour import SIZE

@dataclass
class Settings:
    size: int = SIZE

def make():
    return torch.nn.Linear(Settings().size, 2), torch.zeros(1, 3)
"""


def test_a_users_file(tmp_path):
    name, model, example = load_model(written(tmp_path, GOOD))
    assert name == "net-make"
    assert isinstance(model, nn.Linear) and example.shape == (1, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import torch\ndef make():\n    return torch.zeros(1, 3) @ torch.zeros(4, 1)\n", ["net.py:3", "RuntimeError"]),
        ("def make(:\n", ["net.py:1", "SyntaxError"]),
        ("import nothing_here\n", ["net.py:1", "nothing_here"]),
        ("raise SystemExit(3)\n", ["net.py:1", "SystemExit"]),
        ("def other(): pass\n", ["no callable 'make'"]),
        ("def make(): return 3\n", ["make returns a int", "(nn.Module, example tensor)"]),
        ("def make(): return 3, None\n", ["make returns (int, NoneType)"]),
    ],
)
def test_a_users_file_that_fails(tmp_path, text, words):
    with pytest.raises(UsageError) as caught:
        load_model(written(tmp_path, text))
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("resnet9", ["Did you mean 'resnet8'?", "digits-cnn"]),
        ("missing.py:make", ["missing.py does not exist"]),
        ("net.py", ["file.py:callable"]),
        ("net.onnx", ["This version reads PyTorch models"]),
        ("a/b.tflite", ["This version reads PyTorch models"]),
        ("", ["Known: "]),
    ],
)
def test_an_unknown_model(spec, words):
    with pytest.raises(UsageError) as caught:
        load_model(spec)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
