"""The accuracy study: who decides about whom, and a study in small from the first job to the last table."""

import io
import sys
import tarfile
import wave
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "accuracy"))

import jobs
import networks
import plan
import samples
import study
import summary
import tables
from ledger import FAILED, Ledger
from samples import Samples, Split

from strop.host.progress import Terminal


def blobs(count: int, seed: int, turn: int = 0) -> Samples:
    """Three classes around three corners of eight dimensions; turned, each where another one was."""
    rng = np.random.default_rng(seed)
    y = np.arange(count, dtype=np.int32) % 3
    centres = 3 * np.roll(np.eye(3, 8), turn, axis=0)
    return Samples((centres[y] + rng.standard_normal((count, 8))).astype(np.float32), y)


def toy(_: Path, seed: int) -> Split:
    """Blobs, and two people whose blobs are turned."""
    newcomers = tuple(blobs(60, 10 * seed + i, turn=1) for i in (7, 8))
    return Split(blobs(120, seed), blobs(60, 5), blobs(60, 6), blobs(60, 9), newcomers, newcomers)


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """A table of one network and three rules, of which one refuses it, on data that needs no file."""
    net = tables.Net("blobs", "toy", networks.mlp(8, 6, 3), tables.Budget(120, 2, 60, 60, 60, 30))
    rows = {name: tables.ROWS[name] for name in ("backprop", "head-only")}
    rows = {name: replace(row, lrs=(0.003, 0.05), activations=("tanh",)) for name, row in rows.items()}
    rows["odd"] = tables.Row("odd", "tpsgd", (0.01,), options={"objective": "l3"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "NETS", {"blobs": net})
        patch.setattr(tables, "ROWS", rows)
        patch.setattr(tables, "WAYS", (tables.Way("backprop", "backprop", "backprop", (0.01, 0.05)),))
        patch.setitem(samples.SETS, "toy", toy)
        patch.setattr(plan, "SEEDS", (0, 1))
        patch.setattr(jobs.Cost, "run", lambda self: {"instructions": 7.0, "ram": RAM, "flash": {}})
        yield


@pytest.fixture(scope="module")
def runs(small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    """What the whole study of that table left behind."""
    path = tmp_path_factory.mktemp("study") / "runs.jsonl"
    study.study(Ledger(path), "", 1, QUIET)
    return path


RAM = {"params": 100, "state": 0, "activations": 20, "scratch": 3, "stack": 5, "total": 128}
QUIET = Terminal(progress=False)


def test_a_study_measures_each_job_once(runs: Path, tmp_path: Path) -> None:
    lines = runs.read_text().splitlines()
    copy = tmp_path / "runs.jsonl"
    copy.write_text(runs.read_text())
    study.study(Ledger(copy), "", 1, QUIET)
    fresh = copy.read_text().splitlines()[len(lines) :]
    assert [FAILED in line for line in fresh] == [True], "only what was refused is tried again"


def test_a_study_writes_tables_and_plots(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "benchmarks" / "accuracy").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    study.write(Ledger(runs), tmp_path)
    text = (tmp_path / "benchmarks" / "ACCURACY.md").read_text()
    assert "| backprop | tanh |" in text
    assert "- odd: – (tpSGD has no objective 'l3'" in text
    assert "| backprop | 5 | 15 |" in text, "five windows of each of three classes"
    pictures = {path.name for path in (tmp_path / "docs").iterdir()}
    assert pictures == {"accuracy-by-rule.png", "accuracy-against-ram.png", "adaptation.png"}


def test_what_is_trained_learns_and_agrees_with_pytorch(runs: Path) -> None:
    ledger = Ledger(runs)
    lines = summary.lines(ledger, "blobs")
    exact = summary.find(lines, "backprop")
    assert exact is not None
    assert exact.mean > 80
    assert exact.peer is not None
    assert exact.peer["alike"] == 1
    (course,) = summary.courses(ledger, "blobs")
    assert course.after[20] > course.before[20] + 2
    assert course.windows == {1: 3, 5: 15, 20: 30}, "at most half of a class is labelled"


@pytest.mark.usefixtures("small")
def test_only_validation_samples_choose_a_setting(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "runs.jsonl")
    entry = plan.Entry("blobs", "backprop", "tanh")
    high, low = ((lr, jobs.Setting("blobs", "tanh", "backprop", ())) for lr in (0.05, 0.003))
    assert entry.settings() == [high]
    ledger.add(entry.short(high, 0), {"validation": 0.6})
    assert entry.walk(ledger, 0) == [high]
    ledger.add(entry.full(high, 0), {"validation": 0.6, "test": 0.9})
    assert entry.walk(ledger, 0) == [high, low], "a milder setting is tried"
    assert entry.training(ledger, 0) == entry.full(high, 0)
    ledger.add(entry.full(low, 0), {"validation": 0.7, "test": 0.1})
    assert entry.training(ledger, 0) == entry.full(low, 0)


@pytest.mark.usefixtures("small")
def test_runs_on_images_decide_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tables.NETS, "blobs", replace(tables.NETS["blobs"], data="images"))
    ledger = Ledger(tmp_path / "runs.jsonl")
    entry = plan.Entry("blobs", "backprop", "tanh")
    high, low = ((lr, jobs.Setting("blobs", "tanh", "backprop", ())) for lr in (0.05, 0.003))
    ledger.add(entry.short(high, 0), {"validation": 0.9})
    scores = {0: (0.9, 0.8), 1: (0.1, 0.8)}
    for seed, (first, _) in scores.items():
        ledger.add(entry.full(high, seed), {"validation": first})
    assert entry.training(ledger, 1) == entry.full(high, 1)
    for seed, (_, second) in scores.items():
        ledger.add(entry.full(low, seed), {"validation": second})
    assert entry.training(ledger, 0) == entry.full(low, 0), "one that collapses once is not taken"


@pytest.mark.usefixtures("small")
def test_a_net_without_data_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(jobs.DATA, str(tmp_path))
    monkeypatch.setitem(samples.SETS, "toy", samples.images)
    jobs.split.cache_clear()
    study.study(Ledger(tmp_path / "runs.jsonl"), "", 1, QUIET)
    assert "blobs is left out: there is no" in capsys.readouterr().err
    assert not (tmp_path / "runs.jsonl").exists()


def people(count: int = 7, windows: int = 20) -> tuple[Samples, Any]:
    """Samples whose value is their number, and whose they are."""
    numbers = np.arange(count * windows, dtype=np.float32)
    return Samples(numbers.reshape(-1, 1, 1), (numbers % 2).astype(np.int32)), np.repeat(np.arange(count), windows)


def test_everybody_is_new_once_and_nobody_on_two_sides() -> None:
    own, person = people()
    scales = [samples.by_person(own, person, seed) for seed in range(samples.FOLDS)]
    sizes = [len(each) for split in scales for each in split.newcomers]
    assert sizes == [20] * 7
    for split in scales:
        parts = [split.train, split.validation, split.test, split.kept]
        values = [set(np.round(part.x.ravel(), 5)) for part in parts if part is not None]
        assert sum(map(len, values)) == len(set.union(*values)) == len(own)


def test_lessons_leave_half_of_a_class_and_the_same_rest() -> None:
    y = np.array([0] * 10 + [1] * 3, np.int32)
    person = Samples(np.arange(13, dtype=np.float32)[:, None], y)
    few, rest = jobs.lessons(person, 1, 20)
    many, same = jobs.lessons(person, 20, 20)
    assert few.x.ravel().tolist() == [0, 10]
    assert many.x.ravel().tolist() == [0, 1, 2, 3, 4, 10]
    assert rest.x.ravel().tolist() == same.x.ravel().tolist() == [5, 6, 7, 8, 9, 11, 12]


def test_a_balanced_score_counts_classes_alike() -> None:
    labels = np.array([0, 0, 0, 1])
    assert jobs.score(np.zeros(4), labels, balanced=False) == pytest.approx(0.75)
    assert jobs.score(np.zeros(4), labels, balanced=True) == pytest.approx(0.5)


def test_a_tone_is_loudest_in_its_mel_band() -> None:
    rate, bands = 8000, 20
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), bands + 2) / 2595) - 1)
    for band in (3, 9, 17):
        tone = np.sin(2 * np.pi * edges[band + 1] * np.arange(4000) / rate)
        found = samples.log_mel(tone, rate)
        assert found.shape == (bands, 32)
        assert (found.argmax(0) == band).all()


def recordings(path: Path) -> None:
    """An archive of three speakers who say every digit five times, as noise."""
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w:gz") as files:
        for speaker, digit, number in product("abc", range(10), range(5)):
            sound = io.BytesIO()
            with wave.open(sound, "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes(rng.integers(-9999, 9999, 400).astype("<i2").tobytes())
            entry = tarfile.TarInfo(f"recordings/{digit}_{speaker}_{number}.wav")
            entry.size = len(sound.getvalue())
            files.addfile(entry, io.BytesIO(sound.getvalue()))


def test_every_digit_is_trained_and_kept(tmp_path: Path) -> None:
    (tmp_path / "fsdd").mkdir()
    recordings(tmp_path / "fsdd" / "fsdd_recordings.tar.gz")
    split = samples.digits(tmp_path, 0)
    assert split.kept is not None
    counts = {name: np.bincount(part.y).tolist() for name, part in (("train", split.train), ("kept", split.kept))}
    assert counts == {"train": [4] * 10, "kept": [1] * 10}
    assert split.train.x.shape == (40, 20, 32)
