"""Pseudo-features: samples of old classes made from a new one, in the space of the features before the last layer.

FeTrIL (Petit et al., "FeTrIL: Feature Translation for Exemplar-Free Class-Incremental Learning", WACV 2023, arXiv
2211.13131): a feature f of class n, moved by the difference of two class means, stands for one of class c,

    f' = f - mean[n] + mean[c]

so that K means of D numbers are all that is kept of the old classes.
"""

from collections.abc import Sequence

import numpy as np

from strop.compiler import rng as generator
from strop.compiler.dtypes import FLOAT32, INT32, UINT8
from strop.compiler.ir import TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, OpSpec, Te, Tensor, f32
from strop.compiler.ops.replay import i32, within

MOST = 1 << 24
"""Samples of a class that are counted. From then on a mean moves by 1/MOST of each new one."""


def u8(*shape: int) -> TensorType:
    """A uint8 tensor type."""
    return TensorType(tuple(shape), UINT8)


class ClassCount(OpSpec):
    """seen (K) int32, y (B) int32 -> seen, one more for each sample of a class, between 1 and MOST + 1 there.

    A label outside [0, K) counts nowhere.
    """

    kind = "class_count"
    operands = ("seen", "label")
    results = ("seen",)
    overwrites = {0: 0}

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        seen, y = inputs[0].copy(), inputs[1]
        for label in y[(y >= 0) & (y < len(seen))]:
            seen[label] = np.clip(seen[label], 0, MOST) + 1
        return [seen]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        seen, y = inputs

        def element(reads: Sequence[Tensor], b: Expr) -> Expr:
            y, seen = reads
            return within(te, seen[y[b]], MOST + 1) + 1

        return [te.scatter(types[0], [y, seen], lambda reads, b: reads[0][b], element, "seen")]

    def cases(self) -> list[Case]:
        return [Case((i32(5), i32(1))), Case((i32(5), i32(7)))]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """Of several labels some are equal and two are no class; a count is past the end, another negative."""
        labels = np.array([1, 2, 1, 3, 5, 0, -1][: case.inputs[1].size], np.int32)
        return [np.array([0, 7, MOST + 3, -9, 2], np.int32), labels]


class ClassNth(OpSpec):
    """seen (K) int32, y (B) int32 -> nth (B): which sample of its class each is, 1 for the first.

    seen: counts that include the batch, as `class_count` leaves them. A label outside [0, K) is the nearest class.
    """

    kind = "class_nth"
    operands = ("seen", "label")
    results = ("nth",)
    precise = frozenset({"nth"})  # a count

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(*inputs[1].shape)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        seen, y = inputs
        later = np.triu(y[:, None] == y, 1).sum(1)
        return [(seen[np.clip(y, 0, len(seen) - 1)] - later).astype(np.float32)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (seen, y), (classes,), (batch,) = inputs, types[0].shape, types[1].shape
        if batch == 1:
            return [te.compute((1,), lambda b: te.cast(seen[within(te, y[b], classes)], FLOAT32), "nth")]
        (k,) = te.axes(batch)
        same = te.compute((batch,), lambda b: te.sum(te.where(te.every(k > b, y[k] == y[b]), 1, 0), [k]), "later")
        return [te.compute((batch,), lambda b: te.cast(seen[within(te, y[b], classes)] - same[b], FLOAT32), "nth")]

    def cases(self) -> list[Case]:
        return ClassCount().cases()

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        seen, y = ClassCount().draw(rng, case)
        return [*ClassCount().reference([seen, y], {}), y]


class ClassMean(OpSpec):
    """mean (K,D), f (B,D), y (B) int32, nth (B) -> mean, of each sample's class, += (f - mean) / nth, in order.

    That is the mean of a class's features so far. A label outside [0, K) changes nothing.
    """

    kind = "class_mean"
    dtypes = ("float32",)
    operands = ("mean", "f", "label", "nth")
    results = ("mean",)
    overwrites = {0: 0}

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [inputs[0]]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        mean, (f, y, nth) = inputs[0].copy(), inputs[1:]
        for feature, label, n in zip(f, y, nth, strict=True):
            if 0 <= label < len(mean):
                mean[label] += (feature - mean[label]) / n
        return [mean]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        mean, *rest = inputs

        def element(reads: Sequence[Tensor], b: Expr, d: Expr) -> Expr:
            f, y, nth, mean = reads
            return mean[y[b], d] + (f[b, d] - mean[y[b], d]) / nth[b]

        return [te.scatter(types[0], [*rest, mean], lambda reads, b: reads[1][b], element, "mean")]

    def cases(self) -> list[Case]:
        return [Case((f32(5, 7), f32(b, 7), i32(b), f32(b))) for b in (1, 4)]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """Two samples of one class, and a label that is no class."""
        means, features = (rng.standard_normal(t.shape).astype(np.float32) for t in case.inputs[:2])
        labels, nth = np.array([1, 2, 1, 5], np.int32), np.array([2, 1, 3, 4], np.float32)
        return [means, features, labels[: len(features)], nth[: len(features)]]


class ClassPriority(OpSpec):
    """seen (K) int32, y (B) int32, step (1) int32 -> priority (B,K): who comes first as the old class of a sample.

    A class with samples so far: a number in [0, 1) from the generator at (seed, tensor, (step B + b) K + c); y itself:
    -1/2; a class without samples: -1. step: as `tally` leaves it. attrs: seed, tensor.
    """

    kind = "class_priority"
    operands = ("seen", "label", "step")
    results = ("priority",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [f32(inputs[1].shape[0], inputs[0].shape[0])]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        seen, y, step = inputs
        sample, classes = np.arange(len(y))[:, None], np.arange(len(seen))
        u = generator.uniform(attrs["seed"], attrs["tensor"], (step * len(y) + sample) * len(seen) + classes)
        old = np.where(seen > 0, u, np.float32(-1))
        return [np.where(classes == y[:, None], np.float32(-0.5), old)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (seen, y, step), (classes,), (batch,) = inputs, types[0].shape, types[1].shape

        def element(b: Expr, c: Expr) -> Expr:
            index = (step[0] * batch + b) * classes + c
            old = te.where(seen[c] > 0, te.uniform_hash(attrs["seed"], attrs["tensor"], index), te.const(-1))
            return te.where(y[b] == c, te.const(-0.5), old)

        return [te.compute((batch, classes), element, "priority")]

    def cases(self) -> list[Case]:
        attrs = {"seed": 3, "tensor": 99}
        return [Case((i32(classes), i32(batch), i32(1)), attrs) for classes, batch in ((5, 1), (4, 3))]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """Some old classes."""
        (classes,), (batch,) = case.inputs[0].shape, case.inputs[1].shape
        seen = np.array([3, 0, 1, 2, 0][:classes], np.int32)
        return [seen, rng.integers(0, classes, batch, np.int32), np.array([5], np.int32)]


class ChooseClass(OpSpec):
    """priority (B,K) -> choice (B) uint8, its priority (B): the highest, and of equal ones the first. K <= 256."""

    kind = "choose_class"
    operands = ("priority",)
    results = ("choice", "highest")
    suffixes = ("", ".priority")

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        rows = inputs[0].shape[0]
        return [u8(rows), f32(rows)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        return [inputs[0].argmax(1).astype(np.uint8), inputs[0].max(1)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (priority,), (batch, classes) = inputs, types[0].shape
        (c,) = te.axes(classes)
        highest, choice = te.compute_argmax((batch,), lambda b: (priority[b, c], c), [c], "highest")
        return [choice, highest]

    def cases(self) -> list[Case]:
        return [Case((f32(1, 5),)), Case((f32(3, 11),))]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """With equal ones."""
        return [rng.integers(-2, 2, case.inputs[0].shape).astype(np.float32)]


class OldClasses(OpSpec):
    """seen (K) int32, y (B) int32 -> choice ((K-1) B) uint8: every class but y; y itself for one without samples.

    Choice r is of sample b = r mod B: the r // B-th of the classes that are not its own, in order. K <= 256.
    """

    kind = "old_classes"
    operands = ("seen", "label")
    results = ("choice",)

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        return [u8((inputs[0].shape[0] - 1) * inputs[1].shape[0])]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        seen, y = inputs[0], np.clip(inputs[1], 0, len(inputs[0]) - 1)
        nth = np.arange(len(seen) - 1)[:, None]
        other = nth + (nth >= y)
        return [np.where(seen[other] > 0, other, y).astype(np.uint8).ravel()]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (seen, y), (classes,), (batch,) = inputs, types[0].shape, types[1].shape

        def element(r: Expr) -> Expr:
            own, nth = within(te, y[r % batch], classes), r // batch
            other = te.where(nth < own, nth, nth + 1)
            return te.cast(te.where(seen[other] > 0, other, own), UINT8)

        return [te.compute(((classes - 1) * batch,), element, "choice")]

    def cases(self) -> list[Case]:
        return [Case((i32(5), i32(1))), Case((i32(4), i32(3)))]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """The last of several labels is no class."""
        seen = np.array([3, 0, 1, 2, 0][: case.inputs[0].size], np.int32)
        return [seen, np.array([2, 0, 9][: case.inputs[1].size], np.int32)]


class PseudoFeatures(OpSpec):
    """f (B,D), y (B) int32, choice (R) uint8, mean (K,D) -> rows (B+R,D), label (B+R) int32: real, then pseudo ones.

    Row B + r is of class c = choice[r] < K and of sample b = r mod B: f[b] - mean[y] + mean[c], or f[b] itself if c
    is y. A label outside [0, K) is clamped.
    """

    kind = "pseudo_features"
    operands = ("f", "label", "choice", "mean")
    results = ("rows", "labels")
    suffixes = ("", ".label")

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        (batch, width), (made,) = inputs[0].shape, inputs[2].shape
        return [f32(batch + made, width), i32(batch + made)]

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        f, y, choice, mean = inputs
        own = np.clip(y, 0, len(mean) - 1)
        sample, other = np.arange(len(choice)) % len(f), choice.astype(np.int32)
        moved = f[sample] - mean[own[sample]] + mean[other]
        rows = np.where((own[sample] == other)[:, None], f[sample], moved)
        return [np.concatenate([f, rows]), np.concatenate([own, other])]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        (f, y, choice, mean), (batch, width) = inputs, types[0].shape
        rows, classes = batch + types[2].shape[0], types[3].shape[0]

        def label(r: Expr) -> Expr:
            return te.where(r < batch, own(r), te.cast(choice[r - batch], INT32))

        def own(r: Expr) -> Expr:
            return within(te, y[r % batch], classes)

        def element(r: Expr, d: Expr) -> Expr:
            feature = f[r % batch, d]
            return te.where(label(r) == own(r), feature, feature - mean[own(r), d] + mean[label(r), d])

        return [te.compute((rows, width), element, "rows"), te.compute((rows,), label, "labels")]

    def cases(self) -> list[Case]:
        return [Case((f32(b, 7), i32(b), u8(r), f32(5, 7))) for b, r in ((1, 1), (3, 3), (2, 8))]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """One of several labels is no class."""
        f, y, choice, mean = case.inputs
        features, means = (rng.standard_normal(t.shape).astype(np.float32) for t in (f, mean))
        choices = rng.integers(0, mean.shape[0], choice.shape).astype(np.uint8)
        return [features, np.array([2, 7, 0][: y.size], np.int32), choices, means]
