"""What the measured figures are held against: targets, and what other libraries need for the same training step.

The peers were built from their sources with gcc 12.2 and counted with the same counters, on the same emulated cores, in
their best setting found (kernels and compiler flags tried). One step: forward, backward and update, batch 1, float32,
SGD without momentum, softmax cross-entropy, all layers trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

RV32, M4F, SOFT = "qemu-rv32imf", "qemu-cortex-m4f", "qemu-rv32imac"
AIFES, PULP = "AIfES 2.2", "PULP-TrainLib, 1 core"
KB = 1024


@dataclass(frozen=True)
class Peer:
    """Another library on a net. instructions: a step, by board.  ram: bytes, stack included.  text: bytes of flash."""

    name: str
    instructions: Mapping[str, int] = field(default_factory=dict)
    ram: int | None = None
    text: int | None = None


@dataclass(frozen=True)
class Goal:
    """What to reach on a net with backprop. instructions: a step, by board.  ram: bytes, stack included.

    text: bytes of code and read-only data of the exported library, without initial parameters.
    """

    instructions: Mapping[str, int] = field(default_factory=dict)
    ram: int | None = None
    text: int | None = None
    peer: Peer | None = None


GOALS = {
    "mlp-64-32-10": Goal(
        {RV32: 15_500, M4F: 17_000}, int(10.6 * KB), 4 * KB,
        Peer(AIFES, {RV32: 246_796, M4F: 246_590, SOFT: 1_931_391}, 37_696, 12_140),
    ),
    "mlp-784-128-10": Goal(
        {RV32: 620_000, M4F: 680_000}, 416 * KB, 4 * KB,
        Peer(AIFES, {RV32: 10_106_798, M4F: 10_105_215}, 1_622_656, 12_140),
    ),
    "cnn-8x8": Goal(
        {RV32: 17_000, M4F: 19_000}, int(5.2 * KB), 8 * KB,
        Peer(AIFES, {RV32: 530_898, M4F: 564_340}, 17_248, 23_072),
    ),
    "cnn-28x28": Goal(
        {RV32: 280_000, M4F: 310_000}, 68 * KB, 8 * KB,
        Peer(AIFES, {RV32: 8_478_762, M4F: 8_990_995}, 276_128, 23_072),
    ),
    "cnn-3x18x18": Goal(
        {RV32: 1_600_000, M4F: 1_750_000}, 190 * KB, 8 * KB,
        Peer(PULP, {RV32: 3_703_452}, 636_312, 67_484),
    ),
    "resnet8": Goal(),
    "ds-cnn": Goal(),
    "fc-autoencoder": Goal(),
}  # fmt: skip
"""By built-in model. Text of PULP-TrainLib: its larger figure, of a network with convolutions."""

MLPERF = ("resnet8", "ds-cnn", "fc-autoencoder")


@dataclass(frozen=True)
class LayerGoal:
    """Instructions a multiply-accumulate of one step of a layer: to reach, and PULP-TrainLib's best correct kernel."""

    reach: float
    peer: float


LAYER_GOALS = {
    ("fc 256-128", "forward"): LayerGoal(2.3, 3.41),
    ("fc 256-128", "weight-gradient"): LayerGoal(3.3, 4.60 + 7.0),
    ("conv 3x3 8-16, 16x16, padded", "forward"): LayerGoal(1.5, 3.44),
    ("conv 3x3 8-16, 16x16, padded", "weight-gradient"): LayerGoal(1.6, 12.24),
    ("conv 3x3 8-16, 16x16, padded", "input-gradient"): LayerGoal(1.7, 20.20),
    ("pointwise 32-64, 16x16", "forward"): LayerGoal(1.7, 1.96),
    ("pointwise 32-64, 16x16", "weight-gradient"): LayerGoal(1.7, 2.14),
    ("pointwise 32-64, 16x16", "input-gradient"): LayerGoal(1.7, 1.94),
    ("depthwise 3x3 32, 16x16, padded", "forward"): LayerGoal(3.0, 9.87),
    ("depthwise 3x3 32, 16x16, padded", "weight-gradient"): LayerGoal(3.0, 6.55),
    ("depthwise 3x3 32, 16x16, padded", "input-gradient"): LayerGoal(3.5, 15.92),
}
"""By (layer, step) of `strop profile layers`, on rv32imf. The peer's padded forward convolution goes through im2col."""

CYCLE_GOALS = {
    (layer, step): 0.65 if step == "forward" else 0.55
    for layer in ("conv 3x3 8-16, 16x16, padded", "pointwise 32-64, 16x16")
    for step in ("forward", "weight-gradient", "input-gradient")
}
"""Multiply-accumulates a cycle of convolutions that use an input for many outputs, on the core of `cycles.py`."""
