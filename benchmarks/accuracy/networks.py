"""The networks of the study, drawn afresh for every seed."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}
"""Functions between layers, by the name used in tables."""

Make = Callable[[type[nn.Module]], nn.Module]
"""Gives a fresh network with the given function between its layers."""


def seeded(make: Make, activation: str, seed: int) -> nn.Module:
    """A network whose weights depend on the seed alone, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(ACTIVATIONS[activation]).eval()


def mlp(*sizes: int) -> Make:
    """Fully connected layers of these sizes; the first is the input's."""

    def make(activation: type[nn.Module]) -> nn.Module:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), activation()]
        return nn.Sequential(*layers[:-1])

    return make


def conv(activation: type[nn.Module]) -> nn.Module:
    """8 maps of 5x5, pool 2, 16 maps of 3x3, pool 2, linear; for 28 x 28 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5), activation(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), activation(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * 5 * 5, 10),
    )  # fmt: skip


def vgg(activation: type[nn.Module]) -> nn.Module:
    """Three pairs of padded 3x3 convolutions to 8, 16 and 32 maps, a pool 2 after each pair, linear; He's weights."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 8), (8, 16), (16, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), activation()]
        layers += [nn.Conv2d(outputs, outputs, 3, padding=1), activation(), nn.MaxPool2d(2)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="tanh" if activation is nn.Tanh else "relu")
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 3 * 3, 10))


class LastStep(nn.Module):
    """A recurrent layer, and a linear layer on its last step. Input (B, steps, features)."""

    def __init__(self, cell: nn.RNNBase, classes: int) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(cell.hidden_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, steps, features) -> (B, classes)."""
        steps, _ = self.cell(x)
        return self.head(steps[:, -1])


def rows(layers: int) -> Make:
    """An image row by row: tanh recurrence of 64 units, hidden weights N(0, 1/64) * 0.9 so that it remembers."""

    def make(activation: type[nn.Module]) -> nn.Module:
        cell = nn.RNN(28, 64, layers, batch_first=True, nonlinearity="tanh" if activation is nn.Tanh else "relu")
        for name, weight in cell.named_parameters():
            if name.startswith("weight_hh"):
                nn.init.normal_(weight, std=0.9 / 8)
        return LastStep(cell, 10)

    return make


def activity_conv(activation: type[nn.Module]) -> nn.Module:
    """Two convolutions over 128 readings of 6 channels, pool 4 after each, linear to 5 classes."""
    return nn.Sequential(
        nn.Conv1d(6, 8, 5, padding=2), activation(), nn.MaxPool1d(4),
        nn.Conv1d(8, 16, 5, padding=2), activation(), nn.MaxPool1d(4), nn.Flatten(), nn.Linear(16 * 8, 5),
    )  # fmt: skip


READINGS = 4
"""Readings of a smartwatch that a recurrent layer gets in a step."""


def activity_gru(activation: type[nn.Module]) -> nn.Module:
    """A GRU of 32 units over 32 steps of 4 readings of 6 channels, linear to 5 classes; its functions are its own."""
    del activation
    return LastStep(nn.GRU(READINGS * 6, 32, batch_first=True), 5)


def digits_conv(activation: type[nn.Module]) -> nn.Module:
    """Two convolutions over 32 frames of 20 mel bands, pool 2 after each, linear to 10 classes."""
    return nn.Sequential(
        nn.Conv1d(20, 16, 5, padding=2), activation(), nn.MaxPool1d(2),
        nn.Conv1d(16, 24, 5, padding=2), activation(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(24 * 8, 10),
    )  # fmt: skip
