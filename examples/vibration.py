"""A network and data of your own: a vibration sensor that learns the machine it is mounted on.

    strop train examples/vibration.py:network --data examples/vibration.py:samples -b qemu-cortex-m4f
    strop analyze examples/vibration.py:network -b qemu-cortex-m4f
    strop export examples/vibration.py:network --out vibration-c
"""

import numpy as np
import torch
from torch import nn

SAMPLES, RATE = 64, 1000.0
"""Acceleration values in a window, and their number a second."""


def network() -> tuple[nn.Module, torch.Tensor]:
    """One window of acceleration -> healthy, unbalanced, or a worn bearing."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(SAMPLES, 24), nn.Tanh(), nn.Linear(24, 3)), torch.zeros(1, SAMPLES)


def samples() -> tuple[np.ndarray, np.ndarray]:
    """Windows (n, SAMPLES) and their classes (n). Put your recordings here."""
    random = np.random.default_rng(0)
    labels = random.integers(3, size=1200)
    time = np.arange(SAMPLES) / RATE
    turning = 0.3 * np.sin(2 * np.pi * (50 * time + random.random((len(labels), 1))))
    unbalance = np.where(labels == 1, 3.0, 1.0)[:, None] * turning
    knocks = (labels == 2)[:, None] * (random.random((len(labels), SAMPLES)) < 0.15) * 1.5
    noise = 0.1 * random.standard_normal((len(labels), SAMPLES))
    spectrum = np.abs(np.fft.fft(unbalance + knocks + noise, axis=1)) / 8
    return spectrum.astype(np.float32), labels
