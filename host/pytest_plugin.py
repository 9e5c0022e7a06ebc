"""pytest plugin: tests that run on emulated boards, and on hardware where a hardware map names some.

Installed with strop, it waits until a test asks for one of its fixtures: nothing of strop is imported before, and an
option or fixture that a project has defined itself stays the project's. docs/hardware-in-the-loop.md is its manual.
"""

import argparse
import logging
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from strop.host.desk import Desk
    from strop.host.hil import Duts, Firmware, Trainer
    from strop.targets.board import Board

DEFAULT = "qemu-rv32imf"
"""The board of a test that names none."""
METRIC = "strop.metric"
"""Key of a metric among the properties that pytest passes from a test to its report."""
TAKEN = (ValueError, argparse.ArgumentError)
"""What pytest raises for an option that another plugin, or the project, has defined."""

OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--board", {"action": "append", "metavar": "NAME[@ID]", "help": "board to test on; may be repeated"}),
    ("--hardware-map", {"type": Path, "help": "boards on this desk, a file that strop list --write-map wrote"}),
    ("--port", {"metavar": "ADDRESS", "help": "serial port of the one board that is tested"}),
    ("--skip-autoflash", {"action": "store_true", "help": "test what the boards run already"}),
    ("--metric-path", {"type": Path, "help": "file for what tests measured, JSON"}),
)
MARKERS = (
    "boards(*names): the boards that a test is for; others are skipped",
    "min_ram(bytes): RAM that a board must have",
    "hil: the test needs hardware, an emulator will not do",
)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, args: list[str], parser: pytest.Parser
) -> Generator[None, None, None]:
    """Add the options behind everybody else's, so that none of them clashes."""
    _forget_values(early_config, args)
    yield
    group = parser.getgroup("strop", "strop: hardware in the loop")
    for name, settings in OPTIONS:
        with suppress(*TAKEN):
            if name not in _defined(parser):
                group.addoption(name, dest=_dest(name), **settings)


def _defined(parser: pytest.Parser) -> set[str]:
    """Options there are. Before pytest 9, which raises one of TAKEN, only its own groups tell in time."""
    groups = [*getattr(parser, "_groups", ()), getattr(parser, "_anonymous", None)]
    return {name for group in groups if group for option in group.options for name in option.names()}


def _forget_values(config: pytest.Config, args: list[str]) -> None:
    """Keep the value behind `--board` from being taken for a file while the options are not yet known."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name, settings in OPTIONS:
        if settings.get("action") != "store_true":
            parser.add_argument(name, dest="values", action="append", default=[])
    with suppress(argparse.ArgumentError):
        values = parser.parse_known_args(args)[0].values
        places = config.known_args_namespace.file_or_dir
        places[:] = [place for place in places if place not in values or Path(place).is_dir()]


def _dest(name: str) -> str:
    return "strop_" + name.removeprefix("--").replace("-", "_")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; refuse a misspelt board or a folder that is not there before any test runs."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    _check(config)
    path = getattr(config.option, _dest("--metric-path"), None)
    if path and not hasattr(config, "workerinput"):
        if not path.absolute().parent.is_dir():
            raise pytest.UsageError(f"--metric-path: there is no folder {path.parent}")
        config.pluginmanager.register(_Metrics(path), "strop-metrics")


def _check(config: pytest.Config) -> None:
    """Read what the options name, where they are this plugin's own."""
    names = getattr(config.option, _dest("--board"), None) or ()
    map_path = getattr(config.option, _dest("--hardware-map"), None)
    if not names and not map_path:
        return
    from strop.errors import StropError
    from strop.host.hardware_map import read_map
    from strop.targets.board import load_board

    try:
        for name in names:
            load_board(name.partition("@")[0])
        if map_path:
            read_map(map_path)
    except StropError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a board on each board, unless the project has a fixture or parameter of that name."""
    if "strop_board" in metafunc.fixturenames:
        given = _given_boards(metafunc.config)
        marker = metafunc.definition.get_closest_marker("boards")
        chosen: list[Any] = given or [DEFAULT]
        if marker:
            chosen = [name if name.partition("@")[0] in marker.args else _not_for(name, marker) for name in given]
            chosen = chosen or list(marker.args)
        metafunc.parametrize("strop_board", chosen, indirect=True, scope="session")


def _given_boards(config: pytest.Config) -> list[str]:
    """Values of --board, one or several, or else the boards of the hardware map."""
    value = config.getoption("--board", default=None)
    if value:
        return [value] if isinstance(value, str) else list(value)
    return _desk(config).names if config.getoption("--hardware-map", default=None) else []


def _not_for(name: str, marker: pytest.Mark) -> Any:
    return pytest.param(name, marks=pytest.mark.skip(reason=f"the test is for {', '.join(marker.args)}"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose board is not there, or too small, before anything is built."""
    name = _board_of(item)
    if name is None:
        return
    from strop.errors import StropError

    hardware, ram = item.get_closest_marker("hil"), item.get_closest_marker("min_ram")
    try:
        reason = _desk(item.config).why_not(name, hardware=bool(hardware), ram=ram.args[0] if ram else 0)
    except StropError as error:
        pytest.fail(str(error), pytrace=False)
    if reason:
        pytest.skip(reason)


def _board_of(item: pytest.Item) -> str | None:
    params = getattr(getattr(item, "callspec", None), "params", {})
    name = params.get("strop_board")
    return None if name is None else str(name)


_DESK = pytest.StashKey["Desk"]()


def _desk(config: pytest.Config) -> "Desk":
    """The boards of this run, looked for once."""
    if _DESK not in config.stash:
        from strop.host.desk import Desk

        port, folder = (config.getoption(name, default=None) for name in ("--port", "--hardware-map"))
        skip = bool(config.getoption("--skip-autoflash", default=False))
        config.stash[_DESK] = Desk(Path(folder) if folder else None, port or "", autoflash=not skip)
    return config.stash[_DESK]


@pytest.fixture(scope="session")
def strop_board(request: pytest.FixtureRequest) -> str:
    """Name of the board, perhaps with an id behind an @."""
    return str(request.param)


@pytest.fixture(scope="session")
def board(strop_board: str) -> "Board":
    """The board that is tested: emulated, or on the desk. One run of the test for each --board."""
    from strop.host.desk import board_named

    return board_named(strop_board)


@pytest.fixture(scope="session")
def firmware(board: "Board", request: pytest.FixtureRequest) -> "Firmware":
    """`firmware(model, example=None, rule=…, …)`: a bundle for the board, built once however many tests want it."""
    from strop.host.hil import Firmware

    if "TORCH_TRACE" not in os.environ:  # nobody wants torch's trace of a capture, but pytest shows it at each failure
        logging.getLogger("torch.__trace").disabled = True
    return Firmware(board, _desk(request.config).bundles)


@pytest.fixture
def strop_log(tmp_path: Path) -> Iterator[Path]:
    """The file that takes what strop and the board say during a test."""
    path, logger = tmp_path / "strop.log", logging.getLogger("strop")
    handler, level = logging.FileHandler(path), logger.level
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield path
    logger.removeHandler(handler)
    logger.setLevel(level)
    handler.close()


@pytest.fixture
def dut(strop_board: str, strop_log: Path, request: pytest.FixtureRequest) -> Iterator["Duts"]:
    """`dut(bundle)`: a device that runs it, flashed or emulated, and closed when the test ends."""
    from strop.host.hil import Duts

    with Duts(_desk(request.config), strop_board, strop_log) as duts:
        yield duts


@pytest.fixture
def trainer(dut: "Duts") -> "Trainer":
    """`trainer(bundle, steps=200)`: trains device and twin alike; fails at the first step where a bit differs."""
    from strop.host.hil import Trainer

    return Trainer(dut)


@pytest.fixture
def log_metric(request: pytest.FixtureRequest) -> Callable[[str, float, str], None]:
    """`log_metric(name, value, unit)`: a figure for --metric-path, with the test and the board it comes from."""

    def log(name: str, value: float, unit: str = "") -> None:
        entry = {"test": request.node.nodeid, "board": _board_of(request.node), "name": name, "value": float(value)}
        request.node.user_properties.append((METRIC, {**entry, "unit": unit}))

    return log


class _Metrics:
    """Gathers metrics from the tests' reports, which also come from other processes, and writes them at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes: dict[str, str] = {}
        self._entries: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what a test measured once it is over, whatever came of it."""
        if report.when == "call" or report.outcome != "passed":
            self._outcomes[report.nodeid] = report.outcome
        if report.when == "teardown":
            outcome = self._outcomes.get(report.nodeid, report.outcome)
            measured: list[Any] = [entry for key, entry in report.user_properties if key == METRIC]
            self._entries += [{**entry, "outcome": outcome} for entry in measured]

    def pytest_sessionfinish(self) -> None:
        """Write the file, whole or not at all."""
        from strop.host.arrays import write_file
        from strop.host.runs import to_json

        write_file(self._path, (to_json({"metrics": self._entries}) + "\n").encode())
