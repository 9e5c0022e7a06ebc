"""Training without a host: a board trains on samples of its own to the twin's bits, and monitor watches."""

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import strop
from strop.compiler.bundle import Bundle
from strop.errors import ToolchainError
from strop.host.cli import run
from strop.host.device import start
from strop.host.firmware import onboard_elf
from strop.host.monitor import Observation, watch
from strop.host.session import Session
from strop.host.transport import transport_for
from strop.host.zoo import load_model

STEPS, BAD = 60, 17
SAMPLE = f"""
#include "onboard.h"

/* Sample i is of class i % 10; number {BAD} has a label that is none. */
bool strop_sample(float *x, int32_t *y) {{
    static int32_t i;
    if (i == {STEPS}) {{
        return false;
    }}
    for (int32_t k = 0; k < 64; ++k) {{
        x[k] = (float)((k * 7 + i * 3) % 16) / 16.0f + (k % 10 == i % 10 ? 1.0f : 0.0f);
    }}
    y[0] = i == {BAD} ? 10 : i % 10;
    ++i;
    return true;
}}
"""


def samples() -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The same in numpy, without the one that is left out."""
    i, k = np.arange(STEPS)[:, None], np.arange(64)[None]
    x = ((k * 7 + i * 3) % 16).astype(np.float32) / np.float32(16) + (k % 10 == i % 10).astype(np.float32)
    y = (np.arange(STEPS) % 10).astype(np.int32)
    kept = np.arange(STEPS) != BAD
    return x.astype(np.float32)[kept], y[kept]


def bundle_for(board: str) -> Bundle:
    name, model, example = load_model("mlp-64-32-10")
    return strop.build(model, example, name=name, rule="tpsgd", optimizer=strop.optim.SGD(lr=0.05), board=board)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    (tmp_path / "sample.c").write_text(SAMPLE)
    return tmp_path / "sample.c"


@pytest.mark.parametrize("board", ["qemu-rv32imf", "qemu-cortex-m4f"])
def test_a_board_trains_by_itself_to_the_twins_bits(board: str, sample: Path) -> None:
    bundle, seen = bundle_for(board), Observation()
    with ExitStack() as resources:
        address = start(bundle.board, onboard_elf(bundle, sample, every=1), resources)
        port = transport_for(address)
        watch(port, seen, done=lambda: seen.settled, on_change=lambda: None, expect_hash=bundle.hash, timeout=20)
        with Session(transport_for(address), expect_hash=bundle.hash) as session:
            steps = session.steps
            tensors = [session.read_tensor(i) for i in range(len(bundle.manifest["tensors"]))]
    twin, (x, y) = bundle.twin(), samples()
    answers = [int(twin.infer(x[:1]).argmax() == y[0])]
    losses = []
    for i in range(len(x)):
        losses.append(twin.train_step(x[i : i + 1], y[i : i + 1]))
        if i + 1 < len(x):
            answers.append(int(twin.infer(x[i + 1 : i + 2]).argmax() == y[i + 1]))
    assert steps == seen.steps == STEPS - 1
    assert tensors == [data.tobytes() for data in twin.tensors().values()]
    assert len(seen.reports) > STEPS // 2, "a board does not wait for its watcher, but this one is soon there"
    for report in seen.reports:
        assert np.float32(report.loss) == np.float32(losses[report.steps - 1])
        assert (report.since, report.asked, report.right) == (1, 1, answers[report.steps - 1])
        assert report.cost > 1000
        assert report.stack_used
    assert any("its batch is left out" in line for line in seen.lines) or seen.reports[0].steps > BAD


def test_the_command_watches_to_the_end(sample: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = sample.with_name("plot.png")
    words = ["monitor", "mlp-64-32-10", "-b", "qemu-rv32imf", "--rule", "tpsgd", "--sample", str(sample), "--json"]
    assert run([*words, "--every", "5", "--plot", str(plot), "--timeout", "20"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["steps"] == STEPS - 1
    assert document["reports"][-1]["steps"] == 55, "the last four are not reported"
    assert document["board"] == "qemu-rv32imf"
    assert 0 < document["accuracy"] < 1
    assert {row["since"] for row in document["reports"]} == {5}
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_it_goes_on_from_its_checkpoint(sample: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["monitor", "mlp-64-32-10", "-b", "qemu-rv32imf", "--rule", "tpsgd", "--sample", str(sample), "--json"]
    words += ["--every", "10", "--autosave", "20", "--store", str(tmp_path / "flash"), "--timeout", "20"]
    steps = []
    for _ in range(2):
        assert run(words) == 0
        steps.append(json.loads(capsys.readouterr().out)["steps"])
    assert steps == [59, 99], "40 were saved"


def test_a_sample_that_does_not_compile(sample: Path) -> None:
    sample.write_text("int main(void) { return 1 }")
    with pytest.raises(ToolchainError, match=r"sample\.c"):
        onboard_elf(bundle_for("qemu-rv32imf"), sample)
