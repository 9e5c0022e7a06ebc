"""Training against a device that fails, and the comparison of two devices, both without a compiler."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from strop.errors import StropError, TransportError
from strop.host import demo
from strop.host.data import Dataset, Order
from strop.host.progress import Meter, Terminal
from strop.host.runs import Interrupted, Run, to_json
from strop.host.session import StepResult
from strop.host.trainer import Checkpoint, Training
from strop.host.validate import Difference, relative_error, same_bits, validate
from strop.targets.board import load_board

MANIFEST = {"classes": 2, "tensors": [{"name": "w", "role": "param"}, {"name": "v", "role": "state"}]}


class Fake:
    """Adds up its samples; from step `wrong` on its sum is off, at step `dies` it raises `error`."""

    def __init__(self, *, wrong: int = -1, dies: int = -1, error: BaseException | None = None) -> None:
        self.bundle = SimpleNamespace(hash=b"\x01\x02", manifest=MANIFEST)
        self.name, self.batch, self.wrong, self.dies, self.error = "fake", 1, wrong, dies, error
        self.w, self.v = np.zeros(3, np.float32), np.zeros(1, np.float32)

    def train(self, xs: Any, ys: Any, *, on_step: Callable[[StepResult], None] | None = None) -> Any:
        losses = []
        for x, y in zip(xs, ys, strict=True):
            if int(self.v[0]) == self.dies and self.error:
                raise self.error
            self.w += x * (y + 1)
            self.w[1] += np.float32(int(self.v[0]) == self.wrong)
            self.v += 1
            losses.append(float(x.sum()))
            if on_step:
                on_step(StepResult(int(self.v[0]) - 1, losses[-1], 5))
        return np.array(losses, np.float32)

    def train_step(self, x: Any, y: Any) -> float:
        return float(self.train(x, y)[0])

    def tensors(self) -> dict[str, Any]:
        return {"w": self.w.copy(), "v": self.v.copy()}

    def load_tensors(self, tensors: Any) -> None:
        self.w, self.v = tensors["w"].copy(), tensors["v"].copy()

    def evaluate(self, *_: Any) -> float:
        return float(self.v[0]) / 100


def dataset(n: int = 20) -> Dataset:
    x = np.random.default_rng(0).random((n, 3), np.float32)
    y = np.arange(n, dtype=np.int32) % 2
    return Dataset(x, y, x[:2], y[:2], "here")


def meter() -> Meter:
    return Meter("", 0, lambda _: None, 10.0)


def training(device: Fake, folder: Path, every: int = 8) -> Training:
    data = dataset()
    return Training(device, data, Order(len(data.x), 1, 0), folder / "checkpoint.npz", every)  # type: ignore[arg-type]


@pytest.mark.parametrize("dies", [0, 3, 8, 9, 21])
def test_a_lost_board_leaves_the_last_checkpoint_and_resumes_to_the_same_bits(tmp_path: Path, dies: int) -> None:
    lost = training(Fake(dies=dies, error=TransportError("the board is gone", do="Look")), tmp_path)
    with pytest.raises(TransportError) as caught:
        lost.run(30, meter())
    assert f"stopped at step {dies}: the board is gone" in str(caught.value)
    assert f"--resume {tmp_path}" in str(caught.value)
    kept = dies // 8 * 8
    assert lost.checkpoint.exists() == bool(kept)
    assert (f"weights of step {kept} are in" in str(caught.value)) == bool(kept)

    resumed = training(Fake(), tmp_path)
    if kept:
        resumed.take_up(Checkpoint.load(resumed.checkpoint))
    resumed.run(30, meter())
    straight = training(Fake(), tmp_path / "..")
    straight.checkpoint = tmp_path / "other.npz"
    straight.run(30, meter())
    np.testing.assert_array_equal(resumed.device.tensors()["w"], straight.device.tensors()["w"])
    assert resumed.losses == straight.losses
    assert resumed.accuracy == straight.accuracy
    assert resumed.mean_cost == 5


def test_interrupt_says_where_it_stopped(tmp_path: Path) -> None:
    stopped = training(Fake(dies=12, error=KeyboardInterrupt()), tmp_path)
    with pytest.raises(Interrupted, match=r"stopped at step 12.*weights of step 8"):
        stopped.run(30, meter())


def test_a_failed_write_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = training(Fake(), tmp_path)
    run.run(8, meter())
    before = run.checkpoint.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StropError, match="No space left"):
        run.run(30, meter())
    assert run.checkpoint.read_bytes() == before


@pytest.mark.parametrize("wrong", [0, 1, 17, 39])
def test_the_first_different_step_is_found(wrong: int) -> None:
    data = dataset(40)
    verdict = validate(Fake(wrong=wrong), Fake(), None, data.x, data.y)  # type: ignore[arg-type]
    assert not verdict.bits_equal
    assert verdict.first_difference == Difference(wrong, "w")
    assert validate(Fake(), Fake(), None, data.x, data.y).bits_equal  # type: ignore[arg-type]


def test_same_bits() -> None:
    nan, other_nan = np.array([[0x7FC00000], [0xFFC00001]], np.uint32).view(np.float32)
    assert same_bits(nan, other_nan)
    assert not same_bits(np.float32([0.0]), np.float32([-0.0]))
    assert not same_bits(np.float32([1.0]), np.float64([1.0]))
    assert not same_bits(nan, np.float32([1.0]))


def test_relative_error() -> None:
    assert relative_error(np.float32([1, 2.5]), np.array([1, 2.0])) == 0.25
    assert np.isnan(relative_error(np.float32([1.0]), np.array([np.inf])))
    assert relative_error(np.zeros(2, np.float32), np.zeros(2)) == 0


def test_a_run_records_how_it_ended(tmp_path: Path) -> None:
    with pytest.raises(TransportError), Run("train", {"a": 1}, {}, tmp_path) as run:
        run.add(result={"loss": float("nan")})
        raise TransportError("gone", where="here", do="Look")
    text = (tmp_path / "report.json").read_text()
    assert '"status": "failed"' in text
    assert '"loss": null' in text, "JSON has no NaN"
    assert "gone" in text
    assert "gone" in (tmp_path / "log.txt").read_text()


def test_demo_on_this_computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "RECIPES", [replace(recipe, epochs=1) for recipe in demo.RECIPES])
    with Run("demo", {}, {}, tmp_path) as run:
        results = demo.run_demo(load_board("host"), run, Terminal(json=True), toolchain="zig", timeout=5)
    assert [result.rule for result in results] == ["tpsgd", "backprop"]
    for result in results:
        assert result.bits_equal
        assert result.board_accuracy == result.twin_accuracy > 0.5
        assert abs(result.torch_accuracy - result.twin_accuracy) <= 0.01
        assert result.ram_bytes > 0
    assert (tmp_path / "learning-curve.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(Interrupted), Run("train", {}, {}, tmp_path):
        raise Interrupted("stopped")
    assert '"status": "interrupted"' in (tmp_path / "report.json").read_text()


def test_json_without_nan() -> None:
    text = to_json({"a": [1.0, float("inf")], "b": (float("nan"),)})
    assert json.loads(text) == {"a": [1.0, None], "b": [None]}
