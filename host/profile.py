"""Where a training step's instructions go: all from plain firmware, each kernel's from an instrumented one."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from strop.errors import UsageError
from strop.host.arrays import write_file
from strop.host.bounds import bounds
from strop.host.session import Session, StepResult

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle
    from strop.host.device import Device

Array = NDArray[Any]


@dataclass(frozen=True)
class KernelCost:
    """One kernel call of the training step. instructions: mean over the steps.  macs: multiply-accumulates.

    bound: the fewest instructions it can take (see `strop.host.bounds`), None for a core without an FPU.
    """

    name: str
    layer: str
    instructions: float
    macs: int
    bound: float | None

    @property
    def instructions_per_mac(self) -> float | None:
        """None for a kernel that multiplies nothing."""
        return self.instructions / self.macs if self.macs else None

    @property
    def ratio(self) -> float | None:
        """Instructions over their bound."""
        return self.instructions / self.bound if self.bound else None

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {**asdict(self), "instructions_per_mac": self.instructions_per_mac, "ratio": self.ratio}


@dataclass(frozen=True)
class Profile:
    """A training step's cost in instructions: mean, least and most over the steps, and by kernel."""

    instructions_per_step: float
    least: int
    most: int
    steps: int
    macs: int
    kernels: tuple[KernelCost, ...]

    @property
    def bound(self) -> float | None:
        """The sum of the kernels' bounds."""
        known = [kernel.bound for kernel in self.kernels if kernel.bound is not None]
        return sum(known) if known else None

    def to_json(self) -> dict[str, Any]:
        """The profile as `strop profile --json` prints it."""
        return {**asdict(self), "bound": self.bound, "kernels": [kernel.to_json() for kernel in self.kernels]}

    def draw(self, path: Path) -> None:
        """Write a PNG: a bar a kernel, in order of execution, and a mark at its bound."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 1 + 0.25 * len(self.kernels)), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(self.kernels))
        measured = axes.barh(places, [kernel.instructions for kernel in self.kernels], label="measured")
        labels = [f"{kernel.instructions_per_mac:.2f} a MAC" if kernel.macs else "" for kernel in self.kernels]
        axes.bar_label(measured, labels, padding=3, size=8)
        if self.bound is not None:
            least = [kernel.bound or 0 for kernel in self.kernels]
            axes.plot(least, places, "|", color="black", markersize=12, markeredgewidth=2, label="bound")
            axes.legend(frameon=False)
        axes.set_yticks(places, [kernel.name for kernel in self.kernels], size=8)
        axes.invert_yaxis()
        axes.margins(x=0.15, y=0.01)
        axes.set_xlabel("instructions a step")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(axis="x", alpha=0.3)
        picture = BytesIO()
        figure.savefig(picture, format="png", dpi=150)
        write_file(path, picture.getvalue())


def profile(
    bundle: "Bundle", x: Array, y: Array, open_device: Callable[[bool], "Device"],
    on_step: Callable[[float], None] = lambda _: None,
) -> Profile:  # fmt: skip
    """Train on the samples twice: with plain firmware and with counters around each kernel.

    x: (steps * batch, ...).  open_device: opens the board, instrumented if told so.  on_step: called with each loss.
    The counters themselves cost some instructions a kernel, so the kernels' sum says little; the step's figure is the
    plain firmware's. Raises UsageError for a board that counts nothing.
    """
    with open_device(False) as device:
        costs = step_costs(device, x, y, on_step)
    if not any(costs):
        raise UsageError(f"{bundle.board.name} counts no instructions", do="Profile on an emulated board, with --board")
    with open_device(True) as device:
        sums = kernel_sums(device, x, y, on_step)
    rows = zip(bundle.manifest["kernels"], sums, bounds(bundle), strict=True)
    kernels = tuple(
        KernelCost(row["name"], row["layer"], total / len(costs), row["macs"], least) for row, total, least in rows
    )
    mean = float(np.mean(costs))
    return Profile(mean, min(costs), max(costs), len(costs), sum(kernel.macs for kernel in kernels), kernels)


def step_costs(device: "Device", x: Array, y: Array, on_step: Callable[[float], None] = lambda _: None) -> list[int]:
    """Train on the samples; returns what each step cost, in the board's counter units.

    One step after the other: a window full of large samples would wait longer for a slow step than a port may be full.
    """
    costs: list[int] = []

    def count(result: StepResult) -> None:
        costs.append(result.cost)
        on_step(result.loss)

    for at in range(0, len(x), device.batch):
        device.train(x[at : at + device.batch], y[at : at + device.batch], on_step=count)
    return costs


def kernel_sums(device: "Device", x: Array, y: Array, on_step: Callable[[float], None] = lambda _: None) -> list[int]:
    """Train on the samples with firmware that counts kernels; returns the cost of each kernel over all steps."""
    step_costs(device, x, y, on_step)
    assert isinstance(device.backend, Session)
    return device.backend.profile()
