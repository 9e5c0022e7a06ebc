"""`strop rules`: every rule, every setting, and how to give it."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from strop.compiler.rules import rules
from strop.host.cli.command import run

OWN = '''
from dataclasses import dataclass, field
from strop.compiler.rules import MonoForward

@dataclass(frozen=True)
class Mine(MonoForward):
    """Mine alone. More of it."""
    name = "mine"
    width: int = field(default=3, kw_only=True)
'''


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert run(("rules", *words, "--json")) == 0
    return json.loads(capsys.readouterr().out)


def test_all_rules_with_every_setting_explained(capsys: pytest.CaptureFixture[str]) -> None:
    found = {rule["name"]: rule for rule in answer(capsys)["rules"]}
    assert set(found) == set(rules())
    for name, kind in rules().items():
        assert {setting["name"] for setting in found[name]["settings"]} == {field.name for field in fields(kind)}
        assert all(setting["what"] and setting["values"] for setting in found[name]["settings"]), name
        assert found[name]["what"]


@pytest.mark.parametrize("name", rules())
def test_an_option_that_is_shown_is_taken(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its default, given as it is shown, reaches the rule: nothing complains about the option."""
    for setting in answer(capsys, name)["settings"]:
        if setting["default"] in (None, []) or (name, setting["name"]) == ("sparse", "budget"):
            continue
        option = setting["option"].replace("…", str(setting["default"])).split(" ")
        words = option if "=" in option[-1] else [*option, str(setting["default"])]
        run(("analyze", "nothing.py:model", "--rule", name, *words))
        assert "nothing.py" in capsys.readouterr().err, (name, words)


def test_people_read_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(("rules", "tpsgd")) == 0
    shown = capsys.readouterr().out
    for word in ("arXiv 2208.08503", "--objective", "l2, l1, cosine, huber", "--set delta=…", "0.5", "refuses"):
        assert word in shown


def test_a_rule_of_a_users_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    found = answer(capsys, f"{tmp_path / 'own.py'}:Mine")
    assert (found["name"], found["what"]) == ("mine", "Mine alone")
    (width,) = (setting for setting in found["settings"] if setting["name"] == "width")
    assert "int" in width.pop("values")
    assert width == {"name": "width", "option": "--set width=…", "default": 3, "what": ""}


def test_a_wrong_name_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(("rules", "pepit")) != 0
    assert "Did you mean 'pepita'" in capsys.readouterr().err
