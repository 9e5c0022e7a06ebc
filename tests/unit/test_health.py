"""A run that goes wrong is told in words, once for each way."""

import math

import pytest

from strop.host.health import Watch
from strop.host.wire import Stats


def heard(losses: list[float], stats: Stats | None = None) -> list[str]:
    said: list[str] = []
    watch = Watch(said.append)
    for step, loss in enumerate(losses, 1):
        watch.step(step, loss)
    if stats:
        watch.stats(stats)
        watch.stats(stats)
    return said


def test_a_run_that_learns_is_left_in_peace() -> None:
    noisy = [2.3 * math.exp(-step / 100) * (1 + 0.9 * math.sin(step)) for step in range(500)]
    assert heard([*noisy, 2.5, *noisy[-50:]]) == []


@pytest.mark.parametrize(("loss", "word"), [(math.nan, "NaN"), (math.inf, "infinite"), (-math.inf, "infinite")])
def test_a_loss_that_is_no_number_is_said_once(loss: float, word: str) -> None:
    (sentence,) = heard([2.3, 2.2, loss, loss])
    assert f"step 3 is {word}" in sentence
    assert "checkpoint" in sentence


def test_a_loss_that_grows_is_said_before_it_is_lost() -> None:
    (sentence,) = heard([2.3 * 1.03**step for step in range(100)])
    assert "grown from 2.37 to" in sentence
    assert "--lr" in sentence


@pytest.mark.parametrize(
    ("saturated", "skipped", "word"), [(20, 0, "--error-scale"), (20, 20, "skipped in 20 of 1,000")]
)
def test_errors_that_leave_their_range(saturated: int, skipped: int, word: str) -> None:
    (sentence,) = heard([], Stats(1000, 0, 0, 0, 0, None, saturated=saturated, skipped=skipped))
    assert word in sentence
    assert heard([], Stats(10_000, 0, 0, 0, 0, None, saturated=saturated, skipped=skipped)) == []
