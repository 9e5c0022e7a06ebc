"""The data sets of the study: images, and people, who are split by person.

Nothing is chosen on test samples: each data set has validation samples of its own, from other people where there are
people. Every person is new in exactly one of the `FOLDS` splits.
"""

import io
import tarfile
import wave
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FOLDS = 3
"""Splits of the people; split s is used with seed s."""
KEPT = 5
"""One of so many windows of the people trained on is kept for testing."""


@dataclass(frozen=True)
class Samples:
    """x: float32 (n, ...).  y: int32 (n)."""

    x: Array
    y: Array

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, which: Any) -> "Samples":
        return Samples(self.x[which], self.y[which])


@dataclass(frozen=True)
class Split:
    """What one seed sees. train, validation, test: disjoint, of different people where there are people.

    kept: of the people trained on, but not trained on.  rehearsal, newcomers: the people of validation and test, one by
    one. The last three are empty without people.
    """

    train: Samples
    validation: Samples
    test: Samples
    kept: Samples | None = None
    rehearsal: tuple[Samples, ...] = ()
    newcomers: tuple[Samples, ...] = ()


class Missing(Exception):
    """The files of a data set are not there."""


def load(name: str, folder: Path, seed: int) -> Split:
    """A data set by name, split for a seed. Raises Missing with the file that is not there."""
    return SETS[name](folder, seed)


def images(folder: Path, seed: int) -> Split:
    """MNIST, 28 x 28, mean 0, variance 1: 50,000 to train on in the seed's order, the last 10,000 for validation."""
    train, test = (_images(str(folder), part) for part in ("train", "test"))
    order = np.random.default_rng(seed).permutation(50_000)
    return Split(train[order], train[50_000:], test)


@cache
def _images(folder: str, part: str) -> Samples:
    arrays = np.load(_there(Path(folder) / "mnist" / f"mnist_{part}_from_png.npz"))
    x = (arrays["x"].astype(np.float32) / 255 - 0.1307) / 0.3081
    return Samples(x.reshape(-1, 1, 28, 28), arrays["y"].astype(np.int32))


def activity(folder: Path, seed: int) -> Split:
    """Smartwatch windows, 6 channels x 128 readings, scaled by the statistics of the people trained on; 5 classes."""
    x, y, person = _activity(str(folder))
    return by_person(Samples(x, y), person, seed)


@cache
def _activity(folder: str) -> tuple[Array, Array, Array]:
    arrays = np.load(_there(Path(folder) / "har" / "har_sw_win128.npz"))
    return np.ascontiguousarray(arrays["x"].transpose(0, 2, 1)), arrays["y"].astype(np.int32), arrays["subject"]


def digits(folder: Path, seed: int) -> Split:
    """Spoken digits: 20 mel bands x 32 frames, logarithmic, scaled as above; 6 speakers, 10 classes."""
    x, y, speaker = _digits(str(folder))
    return by_person(Samples(x, y), speaker, seed)


@cache
def _digits(folder: str) -> tuple[Array, Array, Array]:
    archive = _there(Path(folder) / "fsdd" / "fsdd_recordings.tar.gz")
    found = []
    with tarfile.open(archive) as files:
        for member in files:
            if member.name.endswith(".wav") and (stream := files.extractfile(member)):
                digit, speaker, number = Path(member.name).stem.split("_")
                found.append((speaker, int(digit), int(number), log_mel(*read_wave(stream.read()))))
    found.sort(key=lambda item: item[:3])  # digit by digit, so that one of KEPT of each is kept
    speakers, labels, _, features = zip(*found, strict=True)
    return np.stack(features), np.array(labels, np.int32), np.unique(speakers, return_inverse=True)[1]


def read_wave(data: bytes) -> tuple[Array, int]:
    """Samples in [-1, 1) of a 16-bit mono file, and their rate in Hz."""
    with wave.open(io.BytesIO(data)) as file:
        raw = file.readframes(file.getnframes())
        return np.frombuffer(raw, "<i2").astype(np.float64) / 32768, file.getframerate()


def log_mel(sound: Array, rate: int, bands: int = 20, frames: int = 32, window: int = 256) -> Array:
    """Logarithm of the energy in mel bands, float32 (bands, frames); the frames spread evenly over the recording."""
    sound = np.pad(sound, (0, max(0, window - len(sound))))
    starts = np.linspace(0, len(sound) - window, frames).astype(int)
    pieces = np.stack([sound[start : start + window] for start in starts]) * np.hanning(window)
    power = np.abs(np.fft.rfft(pieces)) ** 2
    return np.log(1e-6 + _mel_bands(rate, bands, window) @ power.T).astype(np.float32)


def _mel_bands(rate: int, bands: int, window: int) -> Array:
    """Triangles evenly spaced on the mel scale, (bands, bins)."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.fft.rfftfreq(window, 1 / rate)
    return np.clip(np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)), 0, None)


def by_person(samples: Samples, person: Array, seed: int) -> Split:
    """Split by person: a third is new, a fifth of the others (at least one) is for validation."""
    people = np.random.default_rng(0).permutation(np.unique(person))
    new = people[seed % FOLDS :: FOLDS]
    old = np.array([one for one in people if one not in new])
    checks, trained = old[: max(1, len(old) // 5)], old[max(1, len(old) // 5) :]
    own = np.flatnonzero(np.isin(person, trained))
    learnt, kept = own[np.arange(len(own)) % KEPT != 0], own[::KEPT]
    scaled = _scaled(samples, learnt)
    return Split(
        scaled[learnt], scaled[np.isin(person, checks)], scaled[np.isin(person, new)], scaled[kept],
        tuple(scaled[person == one] for one in checks), tuple(scaled[person == one] for one in new),
    )  # fmt: skip


def _scaled(samples: Samples, by: Array) -> Samples:
    """Every channel with mean 0 and variance 1 over the samples `by`."""
    axes = (0, *range(2, samples.x.ndim))
    mean, spread = (f(samples.x[by], axis=axes, keepdims=True) for f in (np.mean, np.std))
    return Samples(((samples.x - mean) / spread).astype(np.float32), samples.y)


def _there(path: Path) -> Path:
    if not path.exists():
        raise Missing(str(path))
    return path


SETS: dict[str, Callable[[Path, int], Split]] = {"images": images, "activity": activity, "digits": digits}
"""The data sets by name."""
