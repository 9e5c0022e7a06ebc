"""The twin's promise, tried: the same samples through board, twin and a PyTorch reference.

Board and twin must agree in every bit: of each step's loss, and of all tensors at each checkpoint. The reference works
in float64 and other sums, so at every step it is set to the twin's parameters and optimizer state, and both do that one
step: what remains is the rounding of a single step. Where tensors rest in 16 bits, that is a bound to be kept.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from strop.errors import DataError
from strop.host.arrays import real
from strop.host.tolerance import known, rests, skipped, storage, update_bound

if TYPE_CHECKING:
    from strop.host.device import Device
    from strop.host.reference import Reference

Array = NDArray[Any]
Tensors = Mapping[str, Array]

CHECKPOINTS = 10
"""Comparisons of all tensors in a run."""


@dataclass(frozen=True)
class Difference:
    """Where two devices part. step: counted from 0.  tensor: by name, or `loss`."""

    step: int
    tensor: str


@dataclass
class Errors:
    """The largest relative errors of a single step against the reference, and the tensor that had it.

    A tensor's error is its largest deviation over its largest element; a loss's is over the loss, or over 1 if the loss
    is smaller: it is a difference of terms of that size.  Where an update jumps, as the sign in Lion does, and rounding
    decides the side, ours is compared with the side that it is on; jumps: elements where that was not the reference's.
    Where tensors rest in 16 bits, update_error is what storing a parameter does not explain, over the tensor's largest
    update, of the median step: rounding may turn a ReLU now and then.  update_bound: what it may be; None in float32.
    """

    max_rel_error: float = 0.0
    loss_max_rel_error: float = 0.0
    worst_tensor: str = ""
    jumps: int = 0
    update_bound: float | None = None
    updates: dict[str, list[float]] = field(default_factory=dict, repr=False)

    def see(self, name: str, ours: Array, reference: Array) -> None:
        """Take in a tensor after a step."""
        error = relative_error(ours, reference)
        if not error <= self.max_rel_error:
            self.max_rel_error, self.worst_tensor = error, name

    def see_update(self, name: str, ours: Array, reference: Array, before: Array, stored: float) -> None:
        """Take in an update of a tensor.  stored: what storing it may change."""
        error = float(np.abs(ours - reference).max(initial=0.0)) - stored
        largest = float(np.abs(reference - before).max(initial=0.0))
        if np.isfinite(reference).all():
            self.updates.setdefault(name, []).append(error / largest if error > 0 and largest else max(error, 0.0))

    @property
    def update_error(self) -> float:
        """The worst tensor's."""
        return max((float(np.median(errors)) for errors in self.updates.values()), default=0.0)

    @property
    def within(self) -> bool:
        """Whether no update is further away than 16-bit storage explains."""
        return self.update_bound is None or self.update_error <= self.update_bound

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        figures = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "updates"}
        return figures if self.update_bound is None else {**figures, "update_error": self.update_error}

    def see_loss(self, ours: float, reference: float) -> None:
        """Take in a loss."""
        error = abs(ours - reference) / max(abs(reference), 1.0)
        if not error <= self.loss_max_rel_error:
            self.loss_max_rel_error = error


@dataclass(frozen=True)
class Verdict:
    """What came out. steps: compared.  torch: None for a rule without reference."""

    bits_equal: bool
    steps: int
    first_difference: Difference | None
    torch: Errors | None

    @property
    def passed(self) -> bool:
        """Whether board and twin agree, and the reference as far as it has a bound."""
        return self.bits_equal and (self.torch is None or self.torch.within)

    def to_json(self) -> dict[str, Any]:
        """The verdict as `strop validate --json` prints it."""
        return {**asdict(self), "torch": self.torch and self.torch.to_json()}


def validate(
    board: "Device", twin: "Device", reference: "Reference | None", x: Array, y: Array,
    on_step: Callable[[float], None] = lambda _: None,
) -> Verdict:  # fmt: skip
    """Train board and twin, both with initial parameters, on the same samples, and compare.

    x: (steps * batch, ...).  on_step: called with the loss after each of the twin's steps.
    """
    steps = len(x) // board.batch
    errors = Errors(update_bound=update_bound(twin.bundle.program, reference)) if reference else None
    ends = np.unique(np.linspace(0, steps, min(CHECKPOINTS, steps) + 1).astype(int))
    for start, stop in pairwise(ends):
        piece = slice(start * board.batch, stop * board.batch)
        before = twin.tensors()
        expected = _twin_steps(twin, reference, errors, x[piece], y[piece], on_step)
        losses = board.train(x[piece], y[piece])
        if not same_bits(losses, expected) or unequal(board.tensors(), twin.tensors()):
            found = first_difference(board, twin, before, x[piece], y[piece])
            return Verdict(False, steps, Difference(int(start) + found.step, found.tensor), errors)
    return Verdict(True, steps, None, errors)


def _twin_steps(
    twin: "Device", reference: "Reference | None", errors: Errors | None, x: Array, y: Array,
    on_step: Callable[[float], None],
) -> NDArray[np.float32]:  # fmt: skip
    """Train the twin step by step, each beside the reference; returns the losses."""
    losses = []
    before = twin.tensors()
    for at in range(0, len(x), twin.batch):
        sample, label = x[at : at + twin.batch], y[at : at + twin.batch]
        losses.append(twin.train_step(sample, label))
        after = twin.tensors()
        if reference and errors and not skipped(before, after):
            reference.load(known(before))
            errors.see_loss(losses[-1], reference.step(sample, label))
            _compare(twin, reference, errors, before, after)
        before = after
        on_step(losses[-1])
    return np.array(losses, np.float32)


def _compare(twin: "Device", reference: "Reference", errors: Errors, before: Tensors, after: Tensors) -> None:
    """Hold what the twin has learnt in a step against the reference."""
    program, expected, carried, left = twin.bundle.program, reference.state(), rests(before), rests(after)
    for name in _learned(twin):
        ours = real(after[name])
        if name in carried:
            ours = ours.astype(np.float64) + left[name] - carried[name]
        decided = reference.decided(name, ours)
        errors.jumps += int(np.count_nonzero(np.abs(decided - expected[name]) > 0))
        errors.see(name, ours, decided)
        if errors.update_bound is not None:
            largest = float(np.abs(decided).max(initial=0.0))
            errors.see_update(name, ours, decided, real(before[name]), storage(program, name, largest))


def _learned(twin: "Device") -> Iterator[str]:
    """Parameters and local heads, which are states."""
    for row in twin.bundle.manifest["tensors"]:
        if row["role"] == "param" or row["name"].endswith(".head"):
            yield row["name"]


def first_difference(board: "Device", twin: "Device", start: Tensors, x: Array, y: Array) -> Difference:
    """Find the first step after which two devices differ that start from the same tensors, by bisection.

    Leaves both where they part. Raises DataError when they agree this time.
    """
    equal, unequal_after = 0, len(x) // board.batch
    while unequal_after - equal > 1:
        middle = (equal + unequal_after) // 2
        if _parting(board, twin, start, x[: middle * board.batch], y[: middle * board.batch]):
            unequal_after = middle
        else:
            equal = middle
    end = unequal_after * board.batch
    tensor = _parting(board, twin, start, x[:end], y[:end])
    if not tensor:
        raise DataError(
            "board and twin differed once, and agree on the same samples again",
            where=board.name,
            do="Look for something that is not reset: an uninitialised variable, a loose cable",
        )
    return Difference(unequal_after - 1, tensor)


def _parting(board: "Device", twin: "Device", start: Tensors, x: Array, y: Array) -> str:
    """Train both from the same tensors; returns what differs first: a tensor, `loss`, or nothing."""
    for device in (board, twin):
        device.load_tensors(start)
    losses = [device.train(x, y) for device in (board, twin)]
    return unequal(board.tensors(), twin.tensors()) or ("" if same_bits(*losses) else "loss")


def unequal(one: Tensors, other: Tensors) -> str:
    """The first tensor whose bits differ, or an empty string."""
    return next((name for name, data in one.items() if not same_bits(data, other[name])), "")


def same_bits(one: Array, other: Array) -> bool:
    """Tell whether two arrays hold the same bits; any NaN is as good as another."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    word = np.dtype(f"u{one.dtype.itemsize}")
    same = np.ascontiguousarray(one).view(word) == np.ascontiguousarray(other).view(word)
    both_nan = np.isnan(real(one)) & np.isnan(real(other))
    return bool((same | both_nan).all())


def relative_error(ours: Array, reference: Array) -> float:
    """Largest deviation over the largest element of the reference; NaN or infinity where only one of them has it."""
    if not np.isfinite(reference).all():
        return 0.0 if same_bits(ours, reference.astype(ours.dtype)) else float("nan")
    scale = float(np.abs(reference).max(initial=0.0))
    deviation = float(np.abs(ours - reference).max(initial=0.0))
    return deviation / scale if scale else deviation
