"""Data sets: read, checked sample by sample against what a model takes, split, and put in order.

A data set on the command line is `digits` (scikit-learn's 1797 handwritten digits of 8 x 8), a `.npz` with arrays `x`
and `y` (and, if the author has split it, `x_test` and `y_test`), or `file.py:callable` that returns those two or four.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.errors import DataError, nearest
from strop.host import userfile
from strop.host.arrays import read_npz

Array = NDArray[Any]
PARTS = ("x", "y", "x_test", "y_test")


@dataclass(frozen=True)
class Signature:
    """What a model takes. x, y: shapes of one sample.  classes: number of, 0 for a regression.  batch: of a step.

    indices: x holds whole numbers below this; 0 for any numbers.
    """

    x: tuple[int, ...]
    y: tuple[int, ...]
    classes: int
    batch: int
    indices: int = 0

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> "Signature":
        """Read it from a bundle's manifest."""
        x, y = (tuple(manifest[name]["shape"][1:]) for name in ("x", "y"))
        return cls(x, y, manifest["classes"], manifest["batch"], manifest["x"].get("indices", 0))


@dataclass(frozen=True)
class Dataset:
    """Samples that fit a model. x: float32 (n, ...).  y: int32 (n) classes, or float32 (n, ...) of a regression.

    x_test, y_test: held out, perhaps of length 0.  source: where it came from.
    """

    x: Array
    y: Array
    x_test: Array
    y_test: Array
    source: str

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with any bit of the training samples."""
        return sha256(self.x.tobytes() + self.y.tobytes()).hexdigest()[:16]

    @property
    def held_out(self) -> tuple[Array, Array]:
        """What accuracy is measured on: the test samples, or all if none were held out."""
        return (self.x_test, self.y_test) if len(self.x_test) else (self.x, self.y)


@dataclass(frozen=True)
class Order:
    """Which samples each step sees: every epoch a fresh permutation that depends on seed and epoch alone.

    A last batch that is not full is left out of the epoch; the next permutation brings its samples in.
    """

    samples: int
    batch: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the samples."""
        return self.samples // self.batch

    def indices(self, start: int, stop: int) -> NDArray[np.int64]:
        """Sample numbers of steps start to stop - 1, batch after batch: ((stop - start) * batch,)."""
        first, last = start // self.steps_per_epoch, -(-stop // self.steps_per_epoch)
        skipped = first * self.steps_per_epoch
        epochs = [self._epoch(epoch) for epoch in range(first, last)] or [np.empty(0, np.int64)]
        return np.concatenate(epochs)[(start - skipped) * self.batch : (stop - skipped) * self.batch]

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        shuffled = np.random.default_rng((self.seed, epoch)).permutation(self.samples)
        return shuffled[: self.steps_per_epoch * self.batch]


def load_data(spec: str, signature: Signature, *, seed: int = 0, split: float = 0.2) -> Dataset:
    """Read a data set and check every sample.

    seed: of the split.  split: share of the samples to hold out, in [0, 1), where the source has no test samples of
    its own.  Raises DataError with the file, the first offending sample and what to do.
    """
    parts = _read(spec, signature)
    x, y = _pair(parts, "", spec, signature)
    if len(x) < signature.batch:
        raise DataError(f"there are {len(x)} samples, fewer than a batch of {signature.batch}", where=spec,
                        do="Give more samples, or a smaller --batch")
    if "x_test" in parts:
        return Dataset(x, y, *_pair(parts, "_test", spec, signature), spec)
    return _split(x, y, split, seed, spec, signature)


def sample_data(signature: Signature, samples: int, seed: int = 0) -> Dataset:
    """Data to run a model on, whatever it takes: digits if they fit, else standard normal noise with random labels.

    Of a model that reads indices, random ones.
    """
    if prod(signature.x) == 64 and signature.classes == 10 and not signature.indices:
        return load_data("digits", signature, seed=seed)
    random = np.random.default_rng(seed)
    x = random.standard_normal((samples, *signature.x), np.float32)
    if signature.indices:
        x = random.integers(signature.indices, size=x.shape).astype(np.float32)
    y = random.integers(signature.classes, size=samples, dtype=np.int32) if signature.classes else \
        random.standard_normal((samples, *signature.y), np.float32)
    return Dataset(x, y, x[:0], y[:0], "noise")


def _read(spec: str, signature: Signature) -> dict[str, Array]:
    if spec == "digits":
        return _digits(signature)
    if userfile.is_userfile(spec):
        return _from_callable(spec)
    if spec.endswith(".npz"):
        return _from_npz(Path(spec))
    raise DataError(f"no data set is called {spec!r}", do=nearest(spec, ("digits", "file.npz", "file.py:callable")))


def _digits(signature: Signature) -> dict[str, Array]:
    """Pixels in [0, 1], as images or as rows of 64."""
    from sklearn.datasets import load_digits

    if prod(signature.x) != 64:
        raise DataError(f"a digit is an image of 8 x 8, the model takes {signature.x}", where="digits",
                        do="Give other data with --data, or a model such as digits-cnn")
    found = load_digits()
    return {"x": (found.data / 16).reshape(-1, *signature.x).astype(np.float32), "y": found.target}


def _from_npz(path: Path) -> dict[str, Array]:
    arrays = read_npz(path, "Write it with numpy.savez(file, x=x, y=y)")
    missing = [name for name in ("x", "y") if name not in arrays]
    if missing:
        raise DataError(f"the data file has no array {missing[0]!r}, only {', '.join(arrays) or 'none'}",
                        where=str(path), do="Write it with numpy.savez(file, x=x, y=y)")
    return {name: arrays[name] for name in PARTS if name in arrays}


def _from_callable(spec: str) -> dict[str, Array]:
    _, made = userfile.call(spec, "data")
    if not isinstance(made, tuple) or len(made) not in (2, 4):
        raise DataError(f"it returns {type(made).__name__}, not two or four arrays", where=spec,
                        do="Return (x, y) or (x, y, x_test, y_test)")
    return dict(zip(PARTS, (np.asarray(item) for item in made), strict=False))


def _pair(parts: Mapping[str, Array], suffix: str, spec: str, signature: Signature) -> tuple[Array, Array]:
    """Inputs and labels of one part, checked."""
    names = f"x{suffix}", f"y{suffix}"
    if names[1] not in parts:
        raise DataError(f"there is {names[0]} but no {names[1]}", where=spec, do="Give both or neither")
    x = _floats(parts[names[0]], signature.x, f"{spec}, {names[0]}")
    raw, where = parts[names[1]], f"{spec}, {names[1]}"
    if len(raw) != len(x) if raw.ndim else True:
        raise DataError(f"{names[0]} has {len(x)} samples, {names[1]} has shape {raw.shape}", where=spec,
                        do="Give one label for every sample")
    return x, _labels(raw, signature, where) if signature.classes else _targets(raw, signature, where)


def _floats(data: Array, shape: tuple[int, ...], where: str) -> Array:
    """Any real numbers as float32 (n, *shape), all finite."""
    if data.dtype.kind not in "fiu":
        raise DataError(f"its dtype is {data.dtype}, not a real number", where=where, do="Convert it to float32")
    if data.ndim == 0 or data.shape[1:] != shape:
        raise DataError(f"its shape is {data.shape}, the model takes {_rows(shape)}", where=where,
                        do=f"Try reshape{_rows(shape).replace('n', '-1', 1)}" if prod(data.shape[1:]) == prod(shape)
                        else "Give samples of the model's shape, or another model")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(data, np.float32)
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if bad.any():
        first = int(bad.argmax())
        worst = values[first][~np.isfinite(values[first])].flat[0]
        raise DataError(f"sample {first} holds {worst:g}, and {bad.sum() - 1} more have such values", where=where,
                        do="Repair or remove them: numpy.isfinite tells which")
    return values


def _labels(data: Array, signature: Signature, where: str) -> Array:
    """Class numbers as int32 (n,)."""
    if data.dtype.kind not in "iu":
        raise DataError(f"its dtype is {data.dtype}, a class is an integer", where=where,
                        do="Convert it to int32, or train a regression with --loss mse")
    if data.ndim != 1:
        raise DataError(f"its shape is {data.shape}, the model takes {_rows(())}", where=where,
                        do="Give one class number a sample; numpy.argmax(y, axis=1) undoes one-hot rows")
    bad = (data < 0) | (data >= signature.classes)
    if bad.any():
        first = int(bad.argmax())
        raise DataError(f"sample {first} has label {data[first]}, the model's classes are 0 to "
                        f"{signature.classes - 1}", where=where,
                        do="Repair the label, or give the network an output for every class")
    return data.astype(np.int32)


def _targets(data: Array, signature: Signature, where: str) -> Array:
    """Targets of a regression; class numbers become one-hot rows."""
    if data.dtype.kind in "iu" and data.ndim == 1 and len(signature.y) == 1:
        classes = signature.y[0]
        rows = _labels(data, Signature(signature.x, (), classes, signature.batch), where)
        return np.eye(classes, dtype=np.float32)[rows]
    return _floats(data, signature.y, where)


def _rows(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, ('n', *shape)))}{'' if shape else ','})"


def _split(x: Array, y: Array, split: float, seed: int, spec: str, signature: Signature) -> Dataset:
    """Hold out samples at random, the same share of each class where there are enough."""
    from sklearn.model_selection import train_test_split

    if not 0 <= split < 1:
        raise DataError(f"a share of {split:g} cannot be held out", do="Give --split a number from 0 to below 1")
    held = min(ceil(split * len(x)), len(x) - signature.batch)
    if not held:
        return Dataset(x, y, x[:0], y[:0], spec)
    strata = y if signature.classes and _enough(y, held) else None
    x, x_test, y, y_test = train_test_split(x, y, test_size=held, random_state=seed, stratify=strata)
    return Dataset(x, y, x_test, y_test, spec)


def _enough(labels: Array, held: int) -> bool:
    """Tell whether every class that occurs can be on both sides of the split."""
    _, counts = np.unique(labels, return_counts=True)
    return bool(counts.min() >= 2 and len(counts) <= min(held, len(labels) - held))
