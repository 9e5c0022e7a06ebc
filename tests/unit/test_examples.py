"""Every example runs as its first lines say."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from strop.host.cli import run

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_train_on_board(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["train_on_board.py", "host"])
    runpy.run_path(str(EXAMPLES / "train_on_board.py"))
    _, board, torch = capsys.readouterr().out.splitlines()
    assert board.split()[-1] == torch.split()[-1]
    assert float(board.split()[-1].rstrip("%")) > 85


def test_vibration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    file = EXAMPLES / "vibration.py"
    words = ["train", f"{file}:network", "--data", f"{file}:samples", "--rule", "tpsgd", "--lr", "0.03", "--json"]
    assert run(words) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] > 0.9


def test_every_example_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    assert all(file.name in listed for file in EXAMPLES.glob("*.py"))
