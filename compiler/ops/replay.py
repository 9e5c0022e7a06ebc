"""Samples that the board keeps: which to keep, which to show again, and the buffer they lie in.

Reservoir sampling, algorithm R (Vitter, "Random Sampling with a Reservoir", ACM Transactions on Mathematical Software
11(1), 1985): of all samples seen so far, each is in the buffer with the same probability. The random numbers are those
of `runtime/rng.h` at the number of samples seen, so board and twin keep the same samples.
"""

from collections.abc import Sequence

import numpy as np

from strop.compiler import rng as generator
from strop.compiler.dtypes import FLOAT32, INT8, INT32, UINT8
from strop.compiler.ir import TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, OpSpec, Te, Tensor, f32

END = 1 << 24
"""Samples that are counted, and that a float32 counts exactly; then the count goes on from BACK, and old ones fade."""

BACK = END // 2
"""The count after END."""

STEPS = 127.0
"""Codes on each side of zero in an int8 buffer."""


def i32(*shape: int) -> TensorType:
    """An int32 tensor type."""
    return TensorType(tuple(shape), INT32)


class Tally(OpSpec):
    """n (1) int32 -> n + by; from `end` on, and from what is negative, back to `back`.

    It comes first in a step, so that whoever reads n finds it in [by, end + by), whatever was written there.
    """

    kind = "tally"
    operands = ("n",)
    results = ("n",)
    overwrites = {0: 0}

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        (n,) = inputs
        following = n.astype(np.int64) + attrs["by"]
        return [np.where((n >= 0) & (n < attrs["end"]), following, attrs["back"]).astype(np.int32)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (n,) = inputs

        def element(i: Expr) -> Expr:
            inside = te.every(n[i] >= 0, n[i] < attrs["end"])
            return te.where(inside, n[i] + attrs["by"], attrs["back"])

        return [te.compute((1,), element, "n")]

    def cases(self) -> list[Case]:
        return [Case((i32(1),), {"by": by, "end": 9, "back": 4}) for by in (1, 2, 3, 5)]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        return [np.array([{1: 0, 2: 8, 3: 9, 5: -(2**31)}[case.attrs["by"]]], np.int32)]


class AbsMax(OpSpec):
    """x (B,...) -> peak (B): the largest magnitude of each sample."""

    kind = "abs_max"
    results = ("peak",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(inputs[0].shape[0])]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [np.abs(inputs[0]).reshape(len(inputs[0]), -1).max(1)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (x,), (batch, *rest) = inputs, types[0].shape
        axes = te.axes(*rest)

        def element(b: Expr) -> Expr:
            value = x[(b, *axes)]
            return te.max(te.where(value < te.const(0), te.const(0) - value, value), axes)

        return [te.compute((batch,), element, "peak")]

    def cases(self) -> list[Case]:
        return [Case((f32(1, 7),)), Case((f32(3, 2, 5, 3),))]


class ReplaySlot(OpSpec):
    """seen (1) int32 -> slot (rows) int32: where each new sample goes; from `slots` on, nowhere.

    seen: samples so far, the new rows included. Sample n, counted from 0, goes to slot n while that is free, then to
    slot floor(u (n + 1)), u in [0, 1) from the generator at (seed, tensor, n). attrs: rows, slots, seed, tensor.
    """

    kind = "replay_slot"
    operands = ("seen",)
    results = ("slot",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [i32(attrs["rows"])]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        n = inputs[0] - attrs["rows"] + np.arange(attrs["rows"])
        u = generator.uniform(attrs["seed"], attrs["tensor"], n)
        return [np.where(n < attrs["slots"], n, u * (n + 1).astype(np.float32)).astype(np.int32)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (seen,), rows = inputs, attrs["rows"]

        def element(r: Expr) -> Expr:
            n = seen[0] + (r - rows)
            u = te.uniform_hash(attrs["seed"], attrs["tensor"], n)
            return te.where(n < attrs["slots"], n, te.cast(u * te.cast(n + 1, FLOAT32), INT32))

        return [te.compute((rows,), element, "slot")]

    def cases(self) -> list[Case]:
        return [Case((i32(1),), {"rows": rows, "slots": 8, "seed": 3, "tensor": 99}) for rows in (1, 2, 3, 4, 5)]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """The first samples, the slots just full, some more, and the last that are counted."""
        return [np.array([{1: 1, 2: 9, 3: 8, 4: 40, 5: END + 4}[case.attrs["rows"]]], np.int32)]


class ReplayPick(OpSpec):
    """seen (1) int32 -> pick (rows) int32: filled slots, each equally likely, with replacement; -1 while none is.

    seen: samples so far, the `new` ones of this step included, which are not in the buffer yet. pick[r] = floor(u
    filled), u in [0, 1) from the generator at (seed, tensor, rows n + r) after n old samples. attrs: new, rows, slots,
    seed, tensor.
    """

    kind = "replay_pick"
    operands = ("seen",)
    results = ("pick",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [i32(attrs["rows"])]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        n, rows = inputs[0] - attrs["new"], attrs["rows"]
        filled = np.minimum(n, attrs["slots"]).astype(np.float32)
        u = generator.uniform(attrs["seed"], attrs["tensor"], n * rows + np.arange(rows))
        return [np.where(n > 0, u * filled, -1).astype(np.int32)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (seen,), rows, slots = inputs, attrs["rows"], attrs["slots"]

        def element(r: Expr) -> Expr:
            n = seen[0] - attrs["new"]
            filled = te.cast(te.where(n < slots, n, slots), FLOAT32)
            u = te.uniform_hash(attrs["seed"], attrs["tensor"], n * rows + r)
            return te.where(n > 0, te.cast(u * filled, INT32), -1)

        return [te.compute((rows,), element, "pick")]

    def cases(self) -> list[Case]:
        return [Case(case.inputs, {"new": min(case.attrs["rows"], 4), **case.attrs}) for case in ReplaySlot().cases()]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        return ReplaySlot().draw(rng, case)


class ReplayDraw(OpSpec):
    """new (B,...), kept (k,...), pick (m) int32[, peak (k)] -> rows (B+m,...): the new ones, then the picked ones.

    A pick below 0 repeats a new row instead, in turn. kept: of the dtype of `new`, or int8 codes q with the magnitude
    that 127 stands for, which give q peak / 127, or uint8 labels. attrs: classes, of labels, else 0: a kept label is
    clamped to [0, classes).
    """

    kind = "replay_draw"
    operands = ("new", "kept", "pick", "peak")
    results = ("rows",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        new, kept, pick = inputs[:3]
        if new.shape[1:] != kept.shape[1:]:
            raise ValueError(kept)
        return [TensorType((new.shape[0] + pick.shape[0], *new.shape[1:]), new.dtype)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        new, kept, pick, *peak = inputs
        old = kept[np.maximum(pick, 0)].astype(new.dtype)
        if peak:
            old *= _column(peak[0][np.maximum(pick, 0)] * new.dtype.type(1 / STEPS), old)
        if attrs["classes"]:
            old = np.clip(old, 0, attrs["classes"] - 1)
        repeated = new[np.arange(len(new), len(new) + len(pick)) % len(new)]
        return [np.concatenate([new, np.where(_column(pick, old) < 0, repeated, old)])]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        new, kept, pick, *peak = inputs
        batch, classes = types[0].shape[0], attrs["classes"]

        def old(at: Expr, index: Sequence[Expr]) -> Expr:
            value = kept[(at, *index)]
            if types[1].dtype is not types[0].dtype:
                value = te.cast(value, types[0].dtype)
            if peak:
                value = value * (peak[0][at] * te.const(1 / STEPS))
            return within(te, value, classes) if classes else value

        def element(r: Expr, *index: Expr) -> Expr:
            repeated = new[(r % batch, *index)]
            remembered = te.where(pick[r - batch] < 0, repeated, old(pick[r - batch], index))
            return te.where(r < batch, repeated, remembered)

        return [te.compute(self.infer(types, attrs)[0].shape, element, "rows")]

    def cases(self) -> list[Case]:
        plain, label = {"classes": 0}, {"classes": 5}
        return [
            Case((f32(1, 7), f32(4, 7), i32(1)), plain),
            Case((f32(2, 3, 2, 5), f32(6, 3, 2, 5), i32(3)), plain),
            Case((f32(2, 5), TensorType((4, 5), INT8), i32(3), f32(4)), plain),
            Case((i32(2), TensorType((4,), UINT8), i32(3)), label),
            Case((i32(1), i32(4), i32(2)), label),
        ]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """The last pick finds nothing; labels leave their range."""
        kept, rows = case.inputs[1], case.inputs[2].size
        inputs = [_random(rng, t) for t in case.inputs]
        inputs[2] = np.array([*rng.integers(0, kept.shape[0], rows - 1), -1], np.int32)
        return inputs


def _column(values: Array, rows: Array) -> Array:
    """One number a row, against the rows' elements."""
    return values.reshape(-1, *(1,) * (rows.ndim - 1))


def within(te: Te, label: Expr, classes: int) -> Expr:
    """A label that certainly is one."""
    return te.where(label < 0, 0, te.where(label < classes, label, classes - 1))


def _random(rng: np.random.Generator, type_: TensorType) -> Array:
    """Contents of any dtype."""
    if type_.dtype.is_float:
        return rng.standard_normal(type_.shape).astype(np.float32)
    low, high = (-128, 128) if type_.dtype is INT8 else (0, 256) if type_.dtype is UINT8 else (-9, 9)
    return rng.integers(low, high, type_.shape).astype(type_.dtype.numpy)


class ReplayStore(OpSpec):
    """kept (k,...), rows (B,...), slot (B) int32[, peak (B)] -> kept, with row b in slot b, in order.

    A slot outside [0, k) keeps nothing. Into int8, codes round(127 x / peak) to nearest, halves away from zero, so that
    |x - q peak / 127| <= peak / 254 but for rounding to float32, for any peak above 1e-36; NaN becomes -127.
    """

    kind = "replay_store"
    dtypes = ("float32",)
    operands = ("kept", "rows", "slot", "peak")
    results = ("kept",)
    overwrites = {0: 0}

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        if inputs[0].shape[1:] != inputs[1].shape[1:]:
            raise ValueError(inputs[0])
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        kept, rows, slot, *peak = inputs
        made, codes = kept.copy(), self._codes(rows, peak[0]) if peak else rows
        for row, at in zip(codes, slot, strict=True):
            if 0 <= at < len(kept):
                made[at] = row.astype(kept.dtype)
        return [made]

    def _codes(self, rows: Array, peak: Array) -> Array:
        with np.errstate(all="ignore"):
            scaled = rows * _column(rows.dtype.type(STEPS) / peak, rows)
        clamped = np.where(scaled > -STEPS, np.where(scaled < STEPS, scaled, STEPS), -STEPS)
        codes: Array = np.trunc(clamped + np.where(clamped < 0, -0.5, 0.5).astype(rows.dtype))
        return codes

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        _, *reads = inputs
        kept = types[0].dtype

        def element(reads: Sequence[Tensor], r: Expr, *index: Expr) -> Expr:
            value = reads[0][(r, *index)]
            if len(reads) == 3:
                return te.cast(self._code(te, value * (te.const(STEPS) / reads[2][r])), kept)
            return value if kept is types[1].dtype else te.cast(value, kept)

        return [te.scatter(types[0], reads, lambda reads, r: reads[1][r], element, "kept")]

    def _code(self, te: Te, scaled: Expr) -> Expr:
        """Half a step further from zero, which a conversion to int8 cuts off; in [-127.5, 127.5], whatever comes."""
        zero, end = te.const(0), te.const(STEPS)
        rounded = scaled + te.where(scaled < zero, te.const(-0.5), te.const(0.5))
        high = te.where(scaled < end, rounded, end)
        return te.where(scaled > te.const(-STEPS), high, te.const(-STEPS))

    def cases(self) -> list[Case]:
        int8 = TensorType((4, 3, 5), INT8)
        return [
            Case((f32(4, 7), f32(1, 7), i32(1))),
            Case((f32(6, 3, 2, 5), f32(3, 3, 2, 5), i32(3))),
            Case((int8, f32(4, 3, 5), i32(4), f32(4))),
            Case((TensorType((4,), UINT8), i32(3), i32(3))),
            Case((f32(5), f32(4), i32(4))),
        ]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """Of several slots, one is outside; of four, two are the same. One of several peaks is too small for a row."""
        inputs, slots = [_random(rng, t) for t in case.inputs], case.inputs[2].size
        kept = case.inputs[0].shape[0]
        inputs[2] = np.array(([0, kept, 1, 0] if slots > 1 else [kept - 1])[:slots], np.int32)
        if len(inputs) == 4:
            inputs[3] = AbsMax().reference([inputs[1]], {})[0] * np.array([1, 1, 0.5, 1], np.float32)
        return inputs
