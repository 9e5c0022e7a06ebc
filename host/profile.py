"""Where a training step's instructions go: all from plain firmware, each kernel's from an instrumented one."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from strop.errors import UsageError
from strop.host.session import Session, StepResult

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle
    from strop.host.device import Device

Array = NDArray[Any]


@dataclass(frozen=True)
class KernelCost:
    """One kernel call of the training step. instructions: mean over the steps.  macs: multiply-accumulates."""

    name: str
    layer: str
    instructions: float
    macs: int


@dataclass(frozen=True)
class Profile:
    """A training step's cost in instructions: mean, least and most over the steps, and by kernel."""

    instructions_per_step: float
    least: int
    most: int
    steps: int
    macs: int
    kernels: tuple[KernelCost, ...]

    def named_costs(self) -> dict[str, float]:
        """Instructions of each kernel, by a name that tells calls of the same kernel apart."""
        return {f"{i} {kernel.name}": kernel.instructions for i, kernel in enumerate(self.kernels)}

    def to_json(self) -> dict[str, Any]:
        """The profile as `strop profile --json` prints it."""
        return asdict(self)


def profile(
    bundle: "Bundle", x: Array, y: Array, open_device: Callable[[bool], "Device"],
    on_step: Callable[[float], None] = lambda _: None,
) -> Profile:  # fmt: skip
    """Train on the samples twice: with plain firmware and with counters around each kernel.

    x: (steps * batch, ...).  open_device: opens the board, instrumented if told so.  on_step: called with each loss.
    The counters themselves cost some instructions a kernel, so the kernels' sum says little; the step's figure is the
    plain firmware's. Raises UsageError for a board that counts nothing.
    """
    costs: list[int] = []

    def count(result: StepResult) -> None:
        costs.append(result.cost)
        on_step(result.loss)

    with open_device(False) as device:
        device.train(x, y, on_step=count)
    if not any(costs):
        raise UsageError(f"{bundle.board.name} counts no instructions", do="Profile on an emulated board, with --board")
    with open_device(True) as device:
        device.train(x, y, on_step=lambda result: on_step(result.loss))
        assert isinstance(device.backend, Session)
        sums = device.backend.profile()
    rows = bundle.manifest["kernels"]
    kernels = tuple(
        KernelCost(row["name"], row["layer"], total / len(costs), row["macs"])
        for row, total in zip(rows, sums, strict=True)
    )
    mean = float(np.mean(costs))
    return Profile(mean, min(costs), max(costs), len(costs), sum(kernel.macs for kernel in kernels), kernels)
