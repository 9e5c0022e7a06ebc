"""Boards on the desk: flashed by their tool, opened on their port, and trained; tool and board are stand-ins.

The tool writes down what it was called with; behind the port is the twin, which speaks the same frames as a board.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import strop
from strop.host.cli import run
from strop.host.desk import Desk
from strop.host.device import connect
from strop.host.firmware import twin_library
from strop.host.hardware_map import read_map
from strop.host.hil import Duts
from strop.host.zoo import load_model
from strop.targets.toolchain import cache_folder

pytest_plugins = ("pytester",)
CACHE = str(cache_folder())
BOARD = "nucleo-f446re"
MODEL = "mlp-64-32-10"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list[str]]]:
    """A desk with one board: `map.yml` in an empty folder, and an openocd on PATH; returns a reader of its calls."""
    _, module, example = load_model(MODEL)
    library = twin_library(strop.build(module, example, board=BOARD, name=MODEL))
    (tmp_path / "map.yml").write_text(f"- {{id: left, board: {BOARD}, probe: '066A', serial: 'twin:{library}'}}\n")
    record, tool = tmp_path / "calls", tmp_path / "bin" / "openocd"
    tool.parent.mkdir()
    tool.write_text(
        f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]), file=open({str(record)!r}, 'a'))\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    monkeypatch.setenv("STROP_CACHE", CACHE)  # pytester gives a project a home folder of its own
    monkeypatch.chdir(tmp_path)
    return lambda: [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command line on that desk; returns its JSON."""

    def call(*words: str, status: int = 0) -> Any:
        assert run([*words, "-b", BOARD, "--hardware-map", "map.yml", "--json"]) == status
        return json.loads(capsys.readouterr().out)

    return call


def flashed(calls: list[list[str]]) -> list[str]:
    """The programs that openocd has written, all to the one probe."""
    assert all(words[2:4] == ["-c", "adapter serial 066A"] for words in calls)
    return [words[-1].split("{")[1].split("}")[0] for words in calls]


def test_commands_flash_and_use_the_board_of_the_map(bench: Any, command: Callable[..., Any]) -> None:
    answer = command("flash", MODEL)
    assert answer["answers"] is True
    (program,) = flashed(bench())
    assert Path(program).read_bytes()[:4] == b"\x7fELF"
    trained = command("train", MODEL, "--steps", "20", "--run-dir", "run")
    assert (trained["board"], trained["steps"]) == (BOARD, 20)
    assert command("validate", MODEL, "--steps", "10", "--run-dir", "check")["bits_equal"] is True
    assert flashed(bench()) == [program] * 3
    assert command("monitor", "--seconds", "0.1")["steps"] == 0, "and this flashes nothing"
    command("reset", "--runner", "openocd")
    assert bench()[-1][-1] == "init; reset run; shutdown"
    assert command("train", MODEL, "--steps", "5", "--id", "right", status=1)["error"]["kind"] == "MissingBoardError"
    assert len(bench()) == 4


def test_a_board_that_runs_something_else_is_refused(bench: Any, command: Callable[..., Any]) -> None:
    error = command("flash", MODEL, "--lr", "0.5", status=1)["error"]
    assert error["kind"] == "SessionError"
    assert "model" in error["what"]
    assert len(bench()) == 1


def test_a_device_is_told_by_its_instance(bench: Any) -> None:
    _, module, example = load_model(MODEL)
    bundle = strop.build(module, example, board=BOARD, name=MODEL)
    (left,) = read_map(Path("map.yml"))
    with connect(bundle, instance=left) as device:
        assert device.steps == 0
        assert device.name == BOARD
    assert len(flashed(bench())) == 1


def test_a_test_may_leave_on_the_board_what_is_there(bench: Any, tmp_path: Path) -> None:
    _, module, example = load_model(MODEL)
    bundle = strop.build(module, example, board=BOARD, name=MODEL)
    (left,) = read_map(Path("map.yml"))
    for desk in (Desk(Path("map.yml"), autoflash=False), Desk(port=left.serial, autoflash=False)):
        with Duts(desk, BOARD, tmp_path / "log") as dut:
            assert dut(bundle).log == tmp_path / "log"
    assert bench() == []


def test_tests_run_on_the_board_of_the_map(bench: Any, pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makepyfile(f"""
        import pytest
        @pytest.mark.hil
        def test_it(firmware, dut, trainer, board):
            bundle = firmware({MODEL!r})
            with dut(bundle) as device:
                assert device.name == board.name == {BOARD!r}
                assert device.log.name == "strop.log"
                device.train_step([[0.5] * 64], [3])
            run = trainer(bundle, steps=20)
            assert run.device.steps == 20
            assert len(run.losses) == 20
    """)
    result = pytester.runpytest_subprocess("--hardware-map", str(tmp_path / "map.yml"))
    result.assert_outcomes(passed=1)
    assert len(flashed(bench())) == 2


@pytest.mark.boards("qemu-rv32imf", "qemu-cortex-m4f")
def test_an_emulated_board_learns_what_its_twin_learns(firmware: Any, trainer: Any, log_metric: Any) -> None:
    """The plugin in strop's own tests."""
    learnt = trainer(firmware(MODEL, rule="tpsgd", optimizer=strop.optim.SGD(lr=0.05)), steps=150)
    log_metric("accuracy", learnt.accuracy)
    assert learnt.accuracy > 0.2  # of ten classes
    assert len(learnt.losses) == 150
