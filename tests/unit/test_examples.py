"""Every example runs as its first lines say."""

import json
import runpy
import sys
from importlib.util import module_from_spec, spec_from_file_location
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


def test_new_classes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With one setting and two methods, of which the one with a memory forgets less."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["new_classes.py"])
    found = spec_from_file_location("new_classes", EXAMPLES / "new_classes.py")
    assert found
    assert found.loader
    example = module_from_spec(found)
    monkeypatch.setitem(sys.modules, "new_classes", example)
    found.loader.exec_module(example)
    monkeypatch.setattr(example, "RATES", (0.05,))
    monkeypatch.setattr(example, "PASSES", (5,))
    monkeypatch.setattr(example, "METHODS", {"backprop": {}, "FeTrIL": {"rule": "fetril"}})
    example.main()
    _, *rows = capsys.readouterr().out.splitlines()
    old, new, _, longer = zip(*([float(word[:-1]) for word in row.split()[1:5]] for row in rows), strict=True)
    assert old[1] > 85
    assert old[0] < 80
    assert min(new) > 60
    assert longer[1] > longer[0] + 10
    assert (tmp_path / "new-classes.png").stat().st_size > 10_000


def test_every_example_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    assert all(file.name in listed for file in EXAMPLES.glob("*.py"))
