"""Training on a device with checkpoints: what was pulled last stays on disk, and a run goes on to the same bits."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from strop.errors import DataError, StropError, UsageError
from strop.host.arrays import read_npz, real, write_npz
from strop.host.data import Dataset, Order
from strop.host.health import Watch
from strop.host.progress import Meter
from strop.host.runs import Interrupted

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle
    from strop.host.device import Device

Array = NDArray[Any]
log = logging.getLogger("strop")

TENSOR = "tensor/"
"""Prefix of a tensor's name in a checkpoint file."""


@dataclass(frozen=True)
class Checkpoint:
    """A training run after `step` steps.

    tensors: parameters and optimizer state, bit for bit.  losses: of every step so far.  accuracy: (step, accuracy)
    wherever it was measured.  identity: see the function of that name.
    """

    step: int
    tensors: Mapping[str, Array]
    losses: NDArray[np.float32]
    accuracy: Array
    identity: str

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        tensors = {f"{TENSOR}{name}": real(data) for name, data in self.tensors.items()}
        facts = {name: np.asarray(getattr(self, name)) for name in ("step", "losses", "accuracy", "identity")}
        write_npz(path, {**tensors, **facts})

    def check(self, identity: str) -> None:
        """Raise UsageError for a run of another model, data set, seed or batch."""
        names = ("model, rule or optimizer", "data", "seed", "batch")
        pairs = zip(names, self.identity.split(), identity.split(), strict=False)
        changed = " and ".join(name for name, old, new in pairs if old != new)
        if changed:
            raise UsageError(f"the run to resume has another {changed}", do="Give the options it was started with")

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read a file. Raises DataError for one that is missing or damaged."""
        arrays = read_npz(path, "Give the folder of a run that reached a checkpoint")
        try:
            return cls(
                int(arrays["step"]),
                {name.removeprefix(TENSOR): data for name, data in arrays.items() if name.startswith(TENSOR)},
                arrays["losses"], arrays["accuracy"], str(arrays["identity"]),
            )  # fmt: skip
        except KeyError as error:
            raise DataError(f"the file has no {error}", where=str(path), do="Give a checkpoint.npz of a run") from None


def identity(bundle: "Bundle", data: Dataset, order: Order) -> str:
    """What must be the same for a run to go on: model hash, samples, seed and batch."""
    return f"{bundle.hash.hex()} {data.fingerprint} {order.seed} {order.batch}"


@dataclass
class Training:
    """A run on its way. Make one, perhaps `take_up` a checkpoint, then `run`.

    checkpoint: the file to keep up to date.  every: steps between two checkpoints.  measures: whether
    each also measures accuracy on what is held out.  watch: warns of numbers that go wrong.
    """

    device: "Device"
    data: Dataset
    order: Order
    checkpoint: Path
    every: int
    measures: bool = True
    watch: Watch | None = None
    start: int = 0
    """Step this process began with."""
    step: int = 0
    losses: list[float] = field(default_factory=list)
    accuracy: list[tuple[int, float]] = field(default_factory=list)
    saved: int = 0
    """Step of the last checkpoint."""
    cost: int = 0
    """What the steps of this process cost, in the board's counter units."""

    @property
    def mean_cost(self) -> float:
        """Counter units a step: instructions on the emulated boards, 0 on the twin."""
        return self.cost / max(self.step - self.start, 1)

    def take_up(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        checkpoint.check(identity(self.device.bundle, self.data, self.order))
        self.device.load_tensors(checkpoint.tensors)
        self.start = self.step = self.saved = checkpoint.step
        self.losses = checkpoint.losses.tolist()
        self.accuracy = [(int(step), float(value)) for step, value in checkpoint.accuracy]

    def run(self, stop: int, meter: Meter) -> None:
        """Train up to step `stop`, with a checkpoint every `every` steps and at the end.

        Raises what the device raises, with the step it reached and how to resume, and Interrupted for Ctrl-C.
        """
        while self.step < stop:
            until = min((self.step // self.every + 1) * self.every, stop)
            try:
                self._train(until, meter)
                self._save(meter)
            except KeyboardInterrupt:
                raise Interrupted(f"stopped at step {self.step}", where=self._kept(), do=self._resume()) from None
            except StropError as error:
                raise self._explained(error) from error

    def _train(self, stop: int, meter: Meter) -> None:
        """Stream the samples up to a step, piece by piece so that memory stays small."""
        while self.step < stop:
            end = min(stop, self.step + max(1, 4096 // self.order.batch))
            chosen = self.order.indices(self.step, end)

            def count(result: Any) -> None:
                self.step += 1
                self.cost += result.cost
                self.losses.append(result.loss)
                if self.watch:
                    self.watch.step(self.step, result.loss)
                meter.advance(result.loss)

            self.device.train(self.data.x[chosen], self.data.y[chosen], on_step=count)

    def _save(self, meter: Meter) -> None:
        """Pull the tensors and write the checkpoint; then measure, and write it with the accuracy."""
        tensors = self.device.tensors()
        self._write(tensors)
        self.saved = self.step
        if self.watch:
            self.watch.stats(self.device.stats())
        if self.measures and len(self.data.x_test):
            self.accuracy.append((self.step, self.device.evaluate(self.data.x_test, self.data.y_test)))
            meter.accuracy = self.accuracy[-1][1] if self.device.bundle.manifest["classes"] else None
            self._write(tensors)
        log.info("step %d: checkpoint, %s", self.step, meter.status)

    def _write(self, tensors: Mapping[str, Array]) -> None:
        losses, accuracy = np.array(self.losses, np.float32), np.array(self.accuracy, float).reshape(-1, 2)
        who = identity(self.device.bundle, self.data, self.order)
        Checkpoint(self.step, tensors, losses, accuracy, who).save(self.checkpoint)

    def _explained(self, error: StropError) -> StropError:
        """The same kind of error, with where the run stands."""
        error.what = f"training stopped at step {self.step}: {error.what}"
        error.where = "; ".join(part for part in (error.where, self._kept()) if part)
        error.do = f"{error.do.rstrip('.')}. {self._resume()}" if error.do else self._resume()
        return error

    def _kept(self) -> str:
        kept = f"the weights of step {self.saved} are in {self.checkpoint}"
        return kept if self.saved else "no checkpoint was reached"

    def _resume(self) -> str:
        return f"Go on with: strop train --resume {self.checkpoint.parent}"
