"""Learning on without forgetting: a buffer of samples on the board, from which every step trains again.

A Program whose step takes B new samples gets the step of the same network and rule for B + m samples, and a buffer
that gives the other m. Rules and optimizers know nothing of it: to them it is a larger batch.

    seen += B; pick m filled slots                     (the generator of `runtime/rng.h` at the number of samples seen)
    the step, on the B new samples and those in the m slots; its loss is the mean over all B + m
    each new sample into a slot, or nowhere            (reservoir sampling, see `ops.replay`)

While the buffer is empty, the m samples repeat the new ones.
"""

from dataclasses import dataclass, replace

import numpy as np

from strop.compiler.dtypes import DTYPES, INT8, INT32, UINT8, DType
from strop.compiler.ir import Builder, Op, Program, Role, TensorType, Value, flatten
from strop.compiler.ops.replay import BACK, END
from strop.compiler.rng import tensor_key
from strop.errors import RuleError, UsageError, nearest

X, PEAK, Y, SEEN = "replay.x", "replay.peak", "replay.y", "replay.seen"
"""States: samples, the magnitudes that int8 codes refer to, labels, and the number of samples seen."""

DTYPE_NAMES = ("float32", "int8")
"""How samples may be kept."""

LARGEST, MOST_DRAWN = 1 << 20, 64
"""Largest buffer, and most samples drawn a step: within them, the generator's indices stay below 2^31."""


@dataclass(frozen=True)
class Replay:
    """A buffer of `size` samples on the board, of which `batch` are drawn each step, with replacement.

    dtype: `float32`, or `int8` for a quarter of the memory: each sample is kept as codes -127 to 127 of its own largest
    magnitude, with an error of at most 1/254 of that. Labels take a byte each up to 256 classes. All of it is state:
    in RAM, read and written as tensors `replay.x`, `replay.peak` (of int8), `replay.y` and `replay.seen`, and part of
    checkpoints. Raises UsageError for numbers out of range.
    """

    size: int
    batch: int = 1
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for what, value, most in (("buffer", self.size, LARGEST), ("replayed batch", self.batch, MOST_DRAWN)):
            if not 1 <= value <= most:
                raise UsageError(f"a {what} of {value} samples is impossible", do=f"Give a number from 1 to {most}")
        if self.dtype not in DTYPE_NAMES:
            what = f"replayed samples cannot be kept as {self.dtype!r}"
            raise UsageError(what, do=nearest(self.dtype, DTYPE_NAMES))

    def apply(self, program: Program, wide: Program, seed: int) -> Program:
        """Return the Program with the train step of `wide`, fed from a buffer.

        wide: the same network, rule and optimizer for `batch` more samples a step.  seed: of the choice of samples.
        Raises RuleError for a rule whose variables depend on the batch.
        """
        _check_same(program, wide)
        names = _renamed(program, wide)
        b = Builder(_kept(program), program.initial)
        self._declare(b, program)
        x, y = self._draw(b, program, seed)
        names |= {wide.only(Role.INPUT).name: x, wide.only(Role.LABEL).name: y}
        for value in wide.of(Role.ACT, Role.SCRATCH):
            b.values[names[value.name]] = replace(value, name=names[value.name])
        b.ops.extend(_with_names(op, names) for op in wide.train_step)
        self._store(b, program, seed)
        return program.with_(
            values=b.values, initial=b.initial, train_step=tuple(b.ops), loss=names[wide.loss]
        ).pruned()  # fmt: skip

    def _declare(self, b: Builder, program: Program) -> None:
        """The buffer, empty. A format of whole bytes is followed by one of words, as addresses are aligned."""
        x, y = program.only(Role.INPUT), program.only(Role.LABEL)
        self._state(b, X, x.shape[1:], DTYPES[self.dtype])
        if self.dtype == INT8.name:
            self._state(b, PEAK, (), x.dtype)
        self._state(b, Y, y.shape[1:], UINT8 if 0 < _classes(program) <= 256 else y.dtype)
        b.value(SEEN, TensorType((1,), INT32), Role.STATE, data=np.zeros(1))

    def _state(self, b: Builder, name: str, shape: tuple[int, ...], dtype: DType) -> None:
        b.value(name, TensorType((self.size, *shape), dtype), Role.STATE, data=np.zeros((self.size, *shape)))

    def _draw(self, b: Builder, program: Program, seed: int) -> tuple[str, str]:
        """Emit the choice of slots; returns new and drawn samples, and their labels."""
        x, y = program.only(Role.INPUT).name, program.only(Role.LABEL).name
        b.update("tally", (SEEN,), (SEEN,), by=program.batch, end=END, back=BACK)
        pick = b.emit1(
            "replay_pick", (SEEN,), "replay.pick", new=program.batch, rows=self.batch, slots=self.size, seed=seed,
            tensor=tensor_key("replay.pick"),
        )  # fmt: skip
        peak = (PEAK,) if PEAK in b.values else ()
        rows = b.emit1("replay_draw", (x, X, pick, *peak), f"{x}.batch", classes=0)
        return rows, b.emit1("replay_draw", (y, Y, pick), f"{y}.batch", classes=_classes(program))

    def _store(self, b: Builder, program: Program, seed: int) -> None:
        """Emit the new samples' way into the buffer."""
        x, y = program.only(Role.INPUT).name, program.only(Role.LABEL).name
        slot = b.emit1(
            "replay_slot", (SEEN,), "replay.slot", rows=program.batch, slots=self.size, seed=seed,
            tensor=tensor_key("replay.slot"),
        )  # fmt: skip
        peak: tuple[str, ...] = ()
        if PEAK in b.values:
            peak = (b.emit1("abs_max", (x,), f"{x}.peak"),)
            b.update("replay_store", (PEAK, *peak, slot), (PEAK,))
        b.update("replay_store", (X, x, slot, *peak), (X,))
        b.update("replay_store", (Y, y, slot), (Y,))


def _classes(program: Program) -> int:
    """Number of classes; 0 for a regression."""
    return 0 if program.only(Role.LABEL).dtype.is_float else program.values[program.output].shape[-1]


def _check_same(program: Program, wide: Program) -> None:
    """Variables and constants must not depend on the batch: the two steps share them."""
    lasting = (Role.PARAM, Role.STATE, Role.CONST)
    for value in wide.of(*lasting):
        if program.values.get(value.name) != value:
            raise RuleError(
                f"{value.name} depends on the number of samples a step, so no sample can be added to it",
                do="Train without replay, or by another rule",
            )


def _kept(program: Program) -> dict[str, Value]:
    """All values but what only the train step computes."""
    computed = {name for op in flatten(program.infer) for name in (*op.outputs, *op.rows)}
    inner = (Role.ACT, Role.SCRATCH)
    return {name: value for name, value in program.values.items() if value.role not in inner or name in computed}


def _renamed(program: Program, wide: Program) -> dict[str, str]:
    """Names in `program` for what the step of `wide` computes: two values of one name differ in the batch."""
    given = {f"{value.name}.batch": value for value in program.of(Role.INPUT, Role.LABEL)}
    fresh, names = Builder({**_kept(program), **given}), {}
    for value in wide.of(Role.ACT, Role.SCRATCH):
        names[value.name] = fresh.fresh(f"{value.name}.batch" if value.name in fresh.values else value.name)
        fresh.values[names[value.name]] = value
    return names


def _with_names(op: Op, names: dict[str, str]) -> Op:
    inputs, outputs = (tuple(names.get(name, name) for name in row) for row in (op.inputs, op.outputs))
    rows = tuple(replace(row, name=names[row.name], sequence=names.get(row.sequence, row.sequence)).attr
                 for row in op.rows.values())  # fmt: skip
    attrs = {**op.attrs, "rows": rows} if rows else op.attrs
    body = tuple(_with_names(part, names) for part in op.body)
    return replace(op, inputs=inputs, outputs=outputs, attrs=attrs, body=body)
