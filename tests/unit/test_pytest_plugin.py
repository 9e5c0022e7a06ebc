"""The pytest plugin in projects of its users: it leaves others alone, chooses boards, skips with reasons, and tells."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import strop
from strop.host.device import Device, twin
from strop.host.hil import Trainer
from strop.host.zoo import load_model
from strop.targets.board import load_board
from strop.targets.toolchain import cache_folder

pytest_plugins = ("pytester",)
BOARD = "qemu-rv32imf"
CACHE = str(cache_folder())
GUIDE = Path(__file__).parents[2] / "docs" / "hardware-in-the-loop.md"


@pytest.fixture(autouse=True)
def _builds_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pytester gives its projects a home folder of their own; what strop has built before may be used there."""
    monkeypatch.setenv("STROP_CACHE", CACHE)


def run(pytester: pytest.Pytester, *words: str, **outcomes: int) -> pytest.RunResult:
    result = pytester.runpytest("-p", "no:randomly", "-rs", *words)
    result.assert_outcomes(**outcomes)
    return result


def test_who_does_not_use_it_does_not_notice(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys
        def test_nothing_is_imported():
            loaded = {"torch", "tvm", "numpy", "yaml", "strop.host.desk", "strop.targets.board"} & set(sys.modules)
            assert not loaded
            assert "strop.host.pytest_plugin" in sys.modules
    """)
    result = pytester.runpytest_subprocess("-p", "no:hypothesispytest", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


def test_a_project_keeps_its_own_options_and_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
        import pytest
        def pytest_addoption(parser):
            parser.addoption("--board", default="mine")
            parser.addoption("--port", action="store_true")
        @pytest.fixture
        def board(request):
            return request.config.getoption("--board")
    """)
    pytester.makepyfile("""
        import pytest
        def test_fixture(board, pytestconfig):
            assert board == "yours"
            assert pytestconfig.getoption("--port") is True
        @pytest.mark.parametrize("dut", [1, 2])
        def test_parameter(dut):
            assert dut in (1, 2)
    """)
    run(pytester, "--board", "yours", "--port", passed=3)


def test_a_boards_name_is_not_taken_for_a_file(pytester: pytest.Pytester) -> None:
    """With testpaths, pytest reads options of a conftest there only if no other path is given."""
    pytester.makeini("[pytest]\ntestpaths = inner\n")
    (pytester.path / "inner").mkdir()
    (pytester.path / "inner" / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--own')\n"
    )
    (pytester.path / "inner" / "test_it.py").write_text("def test_it(board): assert board.isa == 'rv32imf'\n")
    run(pytester, "--board", BOARD, "--own=value", passed=1)


def test_each_board_is_a_run_of_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(board): assert board.ram.length")
    result = run(pytester, "-v", "-p", "strop", "--board", BOARD, "--board", "netduinoplus2", passed=2)
    result.stdout.fnmatch_lines([f"*test_it?{BOARD}?*", "*test_it?netduinoplus2?*"])
    run(pytester, passed=1).stdout.no_fnmatch_line("*netduino*")


def test_what_cannot_run_is_skipped_with_a_reason(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makepyfile("""
        import pytest
        def test_any(board): pass
        @pytest.mark.boards("qemu-rv32imf")
        def test_one(board): pass
        @pytest.mark.min_ram(1 << 20)
        def test_large(board): pass
        @pytest.mark.hil
        def test_hardware(board): pass
    """)
    strict = ("--strict-markers", "--board", BOARD, "--board", "microbit", "--board", "nucleo-f446re")
    result = run(pytester, *strict, passed=4, skipped=8)
    text = result.stdout.str()
    for reason in (
        "nucleo-f446re is not emulated, and there is no --hardware-map",
        "the test is for qemu-rv32imf",
        "microbit has 16,384 bytes of RAM, the test needs 1,048,576",
        f"{BOARD} is needed as hardware, and there is no --hardware-map",
    ):
        assert reason in text, reason
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    result = run(pytester, "--board", BOARD, "-k", "any", skipped=1, deselected=3)
    result.stdout.fnmatch_lines(["*qemu-system-riscv32 is not installed: sudo apt-get install*"])


def test_a_marker_names_the_boards_where_no_option_does(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest
        @pytest.mark.boards("microbit", "hifive1")
        def test_it(board): assert board.name in ("microbit", "hifive1")
    """)
    run(pytester, passed=2)


def test_a_hardware_map_brings_its_boards(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest
        @pytest.mark.hil
        def test_it(board): assert board.name in ("nucleo-f446re", "microbit")
    """)
    path = pytester.path / "map.yml"
    path.write_text("- {board: nucleo-f446re, id: a}\n- {board: microbit, id: m}\n- {board: unknown, id: u}\n")
    run(pytester, "--hardware-map", "map.yml", passed=2)
    more = "- {board: nucleo-f446re, id: b}\n- {board: microbit, id: x, connected: false}\n"
    path.write_text(path.read_text() + more)
    result = run(pytester, "-v", "--hardware-map", "map.yml", passed=3)
    result.stdout.fnmatch_lines(["*nucleo-f446re@a*", "*nucleo-f446re@b*"])
    result = run(pytester, "--hardware-map", "map.yml", "--board", "nucleo-f446re", errors=1)
    result.stdout.fnmatch_lines(["*2 boards nucleo-f446re: a, b. Choose one with --board nucleo-f446re@ID.*"])
    run(pytester, "--hardware-map", "map.yml", "--board", "nucleo-f446re@b", passed=1)
    run(pytester, "--hardware-map", "map.yml", "--board", "hifive1", skipped=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--board", "qemu-rv32im"), "Did you mean 'qemu-rv32im"),
        (("--hardware-map", "none.yml"), "hardware map cannot be read"),
        (("--metric-path", "no/where.json"), "there is no folder no"),
    ],
)
def test_wrong_options_end_it_at_once(pytester: pytest.Pytester, words: tuple[str, ...], message: str) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess(*words)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in result.stderr.str()


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_metrics_are_written_whole_at_the_end(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    pytester.makepyfile("""
        def test_good(log_metric, board): log_metric("accuracy", 0.5)
        def test_bad(log_metric):
            log_metric("rate", 7, "steps/s")
            log_metric("broken", float("nan"))
            assert False
    """)
    run(pytester, "--metric-path", "m.json", *workers, passed=1, failed=1)
    rows = json.loads((pytester.path / "m.json").read_text())["metrics"]
    found = {row["name"]: (row["test"].partition("::")[2], row["board"], row["value"], row["unit"], row["outcome"])
             for row in rows}  # fmt: skip
    assert found == {
        "accuracy": (f"test_good[{BOARD}]", BOARD, 0.5, "", "passed"),
        "rate": ("test_bad", None, 7.0, "steps/s", "failed"),
        "broken": ("test_bad", None, None, "", "failed"),
    }


def test_one_is_built_once(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest, torch
        SEEN = []
        def net():
            torch.manual_seed(1)
            return torch.nn.Linear(4, 3)
        @pytest.mark.parametrize("again", [0, 1])
        def test_it(firmware, again):
            SEEN.append(firmware(net(), torch.zeros(1, 4)))
            assert all(bundle is SEEN[0] for bundle in SEEN)
        def test_others(firmware):
            model = net()
            with torch.no_grad():
                model.weight[0, 0] += 1
            others = [firmware(model, torch.zeros(1, 4)), firmware(net(), torch.zeros(1, 4), batch=2)]
            assert not {id(bundle) for bundle in others} & {id(bundle) for bundle in SEEN}
            assert others[0].hash != others[1].hash
    """)
    result = pytester.runpytest_subprocess("--board", "host")  # torch cannot be imported twice in one process
    result.assert_outcomes(passed=3)


def test_it_is_found_without_an_entry_point() -> None:
    manager: Any = pytest.PytestPluginManager()
    manager.import_plugin("strop")
    assert manager.get_plugin("strop.host.pytest_plugin")


class Faulty(Device):
    """Changes a bit of a tensor whenever it trains on a certain sample."""

    marked: np.ndarray

    def train(self, xs: Any, ys: Any, **more: Any) -> Any:
        losses = super().train(xs, ys, **more)
        if (np.asarray(xs) == self.marked).all(axis=1).any():
            bias = self.tensors()["2.bias"]
            bias[3] = np.nextafter(bias[3], np.float32(9))
            self.load_tensors({"2.bias": bias})
        return losses


def test_a_difference_names_step_tensor_and_log(tmp_path: Path) -> None:
    _, module, example = load_model("mlp-64-32-10")
    bundle = strop.build(module, example)
    good = twin(bundle)
    device = Faulty(bundle, twin(bundle).backend, "bench")
    device.log = tmp_path / "strop.log"
    random = np.random.default_rng(0)
    x, y = random.random((40, 64), np.float32), random.integers(10, size=40, dtype=np.int32)
    device.marked = x[7]
    with pytest.raises(AssertionError) as error:
        strop.assert_same_bits(device, good, x, y)
    said = str(error.value)
    assert "bench and its twin differ after step 7, first in tensor 2.bias of layer 2: element (3,) is" in said
    assert re.search(r"is -?0\.\d{1,10}, not -?0\.\d{1,10}; 1 of 10 differ; log: .*strop\.log$", said)

    device.marked = np.full(64, 9, np.float32)
    device.reset()
    good.reset()
    strop.assert_same_bits(device, good)
    strop.assert_same_bits(device, good, x, y)
    good.load_tensors({"0.bias": good.tensors()["0.bias"] + 1})
    with pytest.raises(AssertionError, match=r"after step 39, first in tensor 0\.bias of layer 0.*32 of 32 differ"):
        strop.assert_same_bits(device, good)

    device.marked = x[3]
    with pytest.raises(AssertionError, match="after step"):
        Trainer(lambda _: _reset(device))(bundle, (x, y), steps=60)


def _reset(device: Device) -> Device:
    device.reset()
    return device


def test_a_failure_shows_no_trace_of_torch(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from torch import nn, zeros

        def test_it(firmware):
            firmware(nn.Linear(4, 2), zeros(1, 4), rule="backprop")
            assert False, "on purpose"
    """)
    result = pytester.runpytest_subprocess("-p", "strop")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*on purpose*"])
    result.stdout.no_fnmatch_line("*torch.__trace*")


def test_the_ten_lines_of_the_guide(pytester: pytest.Pytester) -> None:
    code = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    pytester.makepyfile(test_guide=code)
    words = ("-p", "strop", "--board", BOARD, "--metric-path", "metrics.json")
    result = pytester.runpytest_subprocess(*words)
    result.assert_outcomes(passed=1)
    (metric,) = json.loads((pytester.path / "metrics.json").read_text())["metrics"]
    assert metric["board"] == load_board(BOARD).name
    assert 0.7 < metric["value"] <= 1
