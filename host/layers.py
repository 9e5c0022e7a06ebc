"""Instructions a multiply-accumulate of single layers, each in a net of its own: what schedules are judged by."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from strop.compiler.ir import Op
from strop.compiler.kernels import kernel_runs
from strop.host.bounds import bounds
from strop.host.profile import kernel_sums

if TYPE_CHECKING:
    from torch import nn

    from strop.compiler.bundle import Bundle
    from strop.host.device import Device
    from strop.targets.board import Board

STEPS = 3
"""Training steps that are averaged; all but the paths of a loss cost the same in each."""


@dataclass(frozen=True)
class Layer:
    """A layer to measure. make: the layer alone.  sample: its input's shape, without the batch."""

    name: str
    make: Callable[[], "nn.Module"]
    sample: tuple[int, ...]


def _dense() -> "nn.Module":
    from torch import nn

    return nn.Linear(256, 128, bias=False)


def _conv(inputs: int, outputs: int, kernel: int, groups: int = 1) -> "nn.Module":
    from torch import nn

    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)


LAYERS = (
    Layer("fc 256-128", _dense, (256,)),
    Layer("conv 3x3 8-16, 16x16, padded", partial(_conv, 8, 16, 3), (8, 16, 16)),
    Layer("pointwise 32-64, 16x16", partial(_conv, 32, 64, 1), (32, 16, 16)),
    Layer("depthwise 3x3 32, 16x16, padded", partial(_conv, 32, 32, 3, 32), (32, 16, 16)),
)
"""Without biases."""


@dataclass(frozen=True)
class LayerCost:
    """What one step of a layer costs. step: forward, weight-gradient (with its SGD update), input-gradient, or both
    gradients where one pass makes both.  instructions, macs: of one sample.  bound: see `strop.host.bounds`.
    """

    layer: str
    step: str
    instructions_per_mac: float
    instructions: float
    macs: int
    bound: float | None

    def to_json(self) -> dict[str, Any]:
        """As `strop profile layers --json` prints it."""
        return asdict(self)


def layer_costs(
    board: "Board | str",
    open_device: Callable[["Bundle"], "Device"],
    on_net: Callable[[], None] = lambda: None,
) -> list[LayerCost]:
    """Measure every step of every layer of LAYERS on a board. float32, batch 1, SGD.

    open_device: opens the board with a counter around each kernel.  on_net: called after each of the `nets()`.
    """
    costs: dict[tuple[str, str], LayerCost] = {}
    for layer, front in nets():
        bundle = layer_bundle(layer, front, board)
        for cost in _measured(layer, bundle, open_device(bundle)):
            costs.setdefault((cost.layer, cost.step), cost)
        on_net()
    return sorted(costs.values(), key=lambda cost: [layer.name for layer in LAYERS].index(cost.layer))


def nets() -> list[tuple[Layer, bool]]:
    """(layer, whether another is in front of it): first layers have no input gradient, others perhaps no own update."""
    return [(layer, front) for layer in LAYERS for front in (False, True)]


def layer_bundle(layer: Layer, front: bool, board: "Board | str") -> "Bundle":
    """Compile a layer, perhaps with another in front of it; its loss is over the flattened output."""
    import torch
    from torch import nn

    from strop.compiler.pipeline import build

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before = [_scale(layer)] if front else []
        net = nn.Sequential(*before, layer.make(), nn.Flatten())
    return build(net, torch.zeros(1, *layer.sample), board=board, name=layer.name)


def _scale(layer: Layer) -> "nn.Module":
    """The cheapest layer with weights that keeps the shape."""
    from torch import nn

    size = layer.sample[0]
    return nn.Conv2d(size, size, 1, groups=size) if len(layer.sample) == 3 else nn.Linear(size, size)


def _measured(layer: Layer, bundle: "Bundle", device: "Device") -> list[LayerCost]:
    """The costs of the layer's kernels in a net."""
    with device:
        sums = kernel_sums(device, *_samples(bundle))
    ops = [op for op, _ in kernel_runs(bundle.program.train_step)]
    rows = zip(ops, bundle.manifest["kernels"], sums, bounds(bundle), strict=True)
    return [
        LayerCost(layer.name, step, total / STEPS / row["macs"], total / STEPS, row["macs"], least)
        for op, row, total, least in rows
        if row["macs"] and is_last_layer(bundle, row["layer"]) and (step := step_of(op))
    ]


def _samples(bundle: "Bundle") -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((STEPS, *bundle.manifest["x"]["shape"][1:])).astype(np.float32)
    return x, np.zeros(STEPS, np.int32)


def is_last_layer(bundle: "Bundle", layer: str) -> bool:
    """Whether a kernel's layer is the one that a net of `nets` was made for."""
    return layer == max(str(row["layer"]) for row in bundle.manifest["kernels"] if row["macs"])


def step_of(op: Op) -> str:
    """What a kernel computes of a layer: its parts tell."""
    kinds = {part.kind.rpartition("_")[2] for part in op.parts}
    names = [name for kind, name in (("dx", "input-gradient"), ("dw", "weight-gradient")) if kind in kinds]
    return " and ".join(names) or "forward"
