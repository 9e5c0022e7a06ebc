"""Models: the built-in networks by name, and a user's own from `file.py:callable`.

A built-in's weights are seeded: the same on every call, and drawing them leaves torch's global generator alone. The
three MLPerf Tiny networks have the layers and parameters of that benchmark's reference definitions: biases before
batch normalisation, its epsilon 1e-3. Their statistics are frozen (mean 0, variance 1), so He's initialisation it is.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from strop.errors import UsageError, nearest
from strop.host import userfile
from strop.nn import LeakyRNN

Maker = Callable[[], tuple[nn.Module, Tensor]]
"""Gives a model and an example input with a leading batch axis of 1."""


def load_model(spec: str) -> tuple[str, nn.Module, Tensor]:
    """Return (name, model, example) for a built-in's name or `file.py:callable`.

    The callable takes no argument and returns (nn.Module, torch.Tensor), the example with a leading batch axis.
    Raises UsageError for an unknown name, a file or callable that is missing, and for what the callable raises, with
    its file and line.
    """
    if spec in MODELS:
        return (spec, *MODELS[spec]())
    if spec.endswith((".onnx", ".tflite")):
        raise UsageError(
            f"{spec} is not a PyTorch model",
            do="This version reads PyTorch models: give file.py:callable, or the name of a built-in one",
        )
    if not userfile.is_userfile(spec):
        advice = "Give file.py:callable" if spec.endswith(".py") else nearest(spec, MODELS)
        raise UsageError(f"no model is called {spec!r}", do=advice)
    path, made = userfile.call(spec, "model")
    function = spec.rpartition(":")[2]
    match made:
        case (nn.Module() as model, Tensor() as example):
            return f"{path.stem}-{function}", model, example
    raise UsageError(f"{function} returns {_kind(made)}", where=str(path), do="Return (nn.Module, example tensor)")


def _kind(made: object) -> str:
    """The type of a value; of a tuple, the types in it."""
    if isinstance(made, tuple):
        return f"({', '.join(type(item).__name__ for item in made)})"
    return f"a {type(made).__name__}"


def _seeded(make: Callable[[], nn.Module], *sample: int) -> tuple[nn.Module, Tensor]:
    """A model with the same weights every time, in eval mode, and an example of one sample."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval(), torch.zeros(1, *sample)


def mlp(inputs: int, hidden: int, classes: int) -> nn.Module:
    """Two fully connected layers with a ReLU between."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def small_cnn(size: int) -> nn.Module:
    """3x3 convolution to 8 channels, ReLU, max-pool 2 and a linear layer, for images of 1 x size x size."""
    side = (size - 2) // 2
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * side * side, 10))


def wide_cnn() -> nn.Module:
    """Two 3x3 convolutions, to 8 and 16 channels, and a linear layer, for images of 3 x 18 x 18."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 14 * 14, 10)
    )


def digits_cnn() -> nn.Module:
    """A padded 3x3 convolution, max-pool 2 and a hidden layer, with tanh, for scikit-learn's 8 x 8 digits."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(8 * 4 * 4, 32), nn.Tanh(), nn.Linear(32, 10),
    )  # fmt: skip


def conv1d_har() -> nn.Module:
    """Activity from a wrist: two convolutions over 128 readings of 3 accelerations and 3 turning rates, 5 classes."""
    return nn.Sequential(
        nn.Conv1d(6, 8, 5, padding=2), nn.ReLU(), nn.MaxPool1d(4),
        nn.Conv1d(8, 16, 5, padding=2), nn.ReLU(), nn.MaxPool1d(4),
        nn.Flatten(), nn.Linear(16 * 8, 5),
    )  # fmt: skip


def _he(model: nn.Module) -> nn.Module:
    """He's initialisation with zero biases, which keeps activations in range where batch statistics are frozen."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return model


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity or, where the size changes, a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.bn1 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """x (B,I,H,W) -> (B,O,H/stride,W/stride)."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(self.shortcut(x) + y)


def resnet8() -> nn.Module:
    """MLPerf Tiny image classification: three residual stages of 16, 32 and 64 channels, for images of 3 x 32 x 32."""
    return _he(
        nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16, eps=1e-3), nn.ReLU(),
            Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2),
            nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10),
        )
    )  # fmt: skip


def ds_cnn() -> nn.Module:
    """MLPerf Tiny keyword spotting: four depthwise-separable blocks of 64 channels, for 1 x 49 x 10 coefficients.

    The reference pads the first convolution by 4 rows above and 5 below; here it is 5 and 5, with the same output.
    """
    layers: list[nn.Module] = [*_normalised(nn.Conv2d(1, 64, (10, 4), 2, padding=(5, 1))), nn.Dropout(0.2)]
    for _ in range(4):
        layers += _normalised(nn.Conv2d(64, 64, 3, padding=1, groups=64))
        layers += _normalised(nn.Conv2d(64, 64, 1))
    return _he(nn.Sequential(*layers, nn.Dropout(0.4), nn.AvgPool2d((25, 5)), nn.Flatten(), nn.Linear(64, 12)))


def _normalised(conv: nn.Conv2d) -> list[nn.Module]:
    return [conv, nn.BatchNorm2d(conv.out_channels, eps=1e-3), nn.ReLU()]


def fc_autoencoder() -> nn.Module:
    """MLPerf Tiny anomaly detection: 640 - 128 x 4 - 8 - 128 x 4 - 640; learns its own input under the mse loss."""
    sizes = [640, 128, 128, 128, 128, 8, 128, 128, 128, 128]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs, eps=1e-3), nn.ReLU()]
    return _he(nn.Sequential(*layers, nn.Linear(128, 640)))


class RowRnn(nn.Module):
    """Reads an image (B,1,28,28) row by row: 28 steps of 28 numbers, 64 tanh units, and a linear layer on the last.

    The weights of the state start as N(0, 1/H) times 0.9, so that signals neither die out nor grow over the steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rnn: nn.Module = nn.RNN(28, 64, batch_first=True)
        self.head = nn.Linear(64, 10)
        nn.init.normal_(self.rnn.get_parameter("weight_hh_l0"), std=0.9 / 64**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """x (B,1,28,28) -> (B,10)."""
        states, _ = self.rnn(x.squeeze(1))
        y: Tensor = self.head(states[:, -1])
        return y


class RowLeaky(RowRnn):
    """The same with 64 leaky units, which keep 0.9 of their state: for the rule `traces`."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = LeakyRNN(28, 64, leak=0.9)


class HarGru(nn.Module):
    """Activity from 128 readings of acceleration and rotation (B,128,6): 32 gated units, a linear layer on the last."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 32, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        """x (B,128,6) -> (B,5)."""
        states, _ = self.gru(x)
        y: Tensor = self.head(states[:, -1])
        return y


MODELS: dict[str, Maker] = {
    "mlp-64-32-10": partial(_seeded, partial(mlp, 64, 32, 10), 64),
    "mlp-64-16-10": partial(_seeded, partial(mlp, 64, 16, 10), 64),
    "mlp-64-8-10": partial(_seeded, partial(mlp, 64, 8, 10), 64),
    "mlp-784-128-10": partial(_seeded, partial(mlp, 784, 128, 10), 784),
    "cnn-8x8": partial(_seeded, partial(small_cnn, 8), 1, 8, 8),
    "cnn-28x28": partial(_seeded, partial(small_cnn, 28), 1, 28, 28),
    "cnn-3x18x18": partial(_seeded, wide_cnn, 3, 18, 18),
    "digits-cnn": partial(_seeded, digits_cnn, 1, 8, 8),
    "conv1d-har": partial(_seeded, conv1d_har, 6, 128),
    "rnn-row": partial(_seeded, RowRnn, 1, 28, 28),
    "leaky-row": partial(_seeded, RowLeaky, 1, 28, 28),
    "gru-har": partial(_seeded, HarGru, 128, 6),
    "resnet8": partial(_seeded, resnet8, 3, 32, 32),
    "ds-cnn": partial(_seeded, ds_cnn, 1, 49, 10),
    "fc-autoencoder": partial(_seeded, fc_autoencoder, 640),
}
"""The built-in models by name."""
