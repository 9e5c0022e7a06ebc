"""Finding boards: by USB ids and serial numbers, in a hardware map, and never simply the first."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from strop.errors import UsageError
from strop.host import instances
from strop.host.cli import run
from strop.host.hardware_map import UNKNOWN, read_map, write_map
from strop.host.instances import Instance, MissingBoardError, choose, devices, instance_for, usb_id_of
from strop.host.transport import transport_for
from strop.targets.board import load_board

NUCLEO = load_board("nucleo-f446re")
STLINK = (0x0483, 0x374B)


def port(device: str, ids: tuple[int, int] | tuple[None, None] = (None, None), serial: str = "", **more: Any) -> Any:
    vid, pid = ids
    facts = {"description": "n/a", "interface": None, "location": None, **more}
    return SimpleNamespace(device=device, vid=vid, pid=pid, serial_number=serial, **facts)


Plug = Callable[..., None]


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plug:
    """Pretend that these ports, and these USB devices (vid, pid, serial), are all that is plugged in."""
    tree = tmp_path / "sysfs"
    tree.mkdir()
    monkeypatch.setattr(instances, "SYSFS", tree)
    monkeypatch.setattr(instances, "_comports", list)

    def make(*ports: Any, usb: tuple[tuple[int, int, str], ...] = ()) -> None:
        monkeypatch.setattr(instances, "_comports", lambda: list(ports))
        for number, (vid, pid, serial) in enumerate(usb):
            folder = tree / f"1-{number}"
            folder.mkdir(exist_ok=True)
            for name, text in {"idVendor": f"{vid:04x}", "idProduct": f"{pid:04x}", "serial": serial}.items():
                (folder / name).write_text(text + "\n")

    return make


@pytest.mark.usefixtures("plug")
def test_nothing_is_plugged_in() -> None:
    assert devices() == []
    with pytest.raises(MissingBoardError, match="no board nucleo-f446re is plugged in"):
        instance_for(NUCLEO)
    assert instance_for(load_board("qemu-rv32imf")) is None
    assert instance_for(load_board("host")) is None


def test_ports_and_probes_are_found_once_each(plug: Plug) -> None:
    plug(
        port("/dev/ttyS0"), port("/dev/ttyACM0", STLINK, "066A"), port("/dev/ttyUSB9", (0x1A86, 0x7523)),
        usb=((*STLINK, "066A"), (0x0483, 0x3744, "VL1"), (0x05AC, 0x0001, "keyboard")),
    )  # fmt: skip
    found = {device.port or device.serial_number: device for device in devices()}
    assert list(found) == ["/dev/ttyACM0", "/dev/ttyS0", "/dev/ttyUSB9", "VL1"]
    assert {"nucleo-f446re", "nucleo-h743zi"} <= set(found["/dev/ttyACM0"].boards)
    assert found["VL1"].boards == ("stm32vldiscovery",)
    assert found["/dev/ttyUSB9"].boards == found["/dev/ttyS0"].boards == ()
    assert usb_id_of("066A") == "0483:374b"
    assert usb_id_of("keyboard") == "05ac:0001"
    assert usb_id_of("nothing") == ""


def test_one_line_of_several_is_told_by_its_place_or_name(plug: Plug) -> None:
    ftdi = (0x0403, 0x6010)
    plug(
        port("/dev/ttyUSB0", ftdi, "HF1", location="1-2:1.0", description="USB Dual RS232-HS"),
        port("/dev/ttyUSB1", ftdi, "HF1", location="1-2:1.1", description="USB Dual RS232-HS"),
    )
    hifive = load_board("hifive1")
    assert [device.port for device in devices([hifive]) if device.boards] == ["/dev/ttyUSB1"]
    found = instance_for(hifive, wanted="HF1")
    assert found
    assert found.serial == "/dev/ttyUSB1"


def test_two_of_a_kind_are_listed_not_guessed_between(plug: Plug) -> None:
    plug(port("/dev/ttyACM0", STLINK, "066A"), port("/dev/ttyACM1", STLINK, "066B"))
    with pytest.raises(UsageError) as error:
        instance_for(NUCLEO)
    assert "066A (/dev/ttyACM0, probe 066A)" in error.value.what
    assert "066B (/dev/ttyACM1, probe 066B)" in error.value.what
    assert "--id" in error.value.do
    for wanted in ("066B", "/dev/ttyACM1"):
        found = instance_for(NUCLEO, wanted=wanted)
        assert found
        assert (found.serial, found.probe) == ("/dev/ttyACM1", "066B")
    with pytest.raises(MissingBoardError, match="with id 066C"):
        instance_for(NUCLEO, wanted="066C")


def test_an_emulated_board_is_hardware_only_where_somebody_says_so(plug: Plug) -> None:
    board = load_board("netduinoplus2")
    plug(port("/dev/ttyUSB3", (0x1A86, 0x7523), "adapter"), usb=((0x0483, 0x3748, "stlink"),))
    assert instance_for(board) is None
    with pytest.raises(MissingBoardError, match="no board netduinoplus2") as error:
        instance_for(board, hardware=True)
    assert "--id" in error.value.do, "it has no probe of its own"
    found = instance_for(board, wanted="stlink")
    assert found == Instance("netduinoplus2", "stlink", "", "stlink")
    found = instance_for(board, wanted="/dev/ttyUSB3")
    assert found
    assert found.serial == "/dev/ttyUSB3"


def test_a_map_is_written_merged_and_read(plug: Plug, tmp_path: Path) -> None:
    path = tmp_path / "map.yml"
    plug(port("/dev/ttyACM0", (0x0D28, 0x0204), "9904"), port("/dev/ttyACM1", STLINK, "0669"), port("/dev/ttyS0"))
    write_map(path, devices())
    first, second = read_map(path)
    assert first == Instance("microbit", "9904", "/dev/ttyACM0", "9904", first.baud)
    assert first.baud == load_board("microbit").uart.baud  # type: ignore[union-attr]
    assert (second.board, second.id, second.connected) == (UNKNOWN, "0669", True)
    assert "'9904'" in path.read_text(), "a serial number of digits stays a text"

    text = path.read_text().replace("board: unknown", "board: nucleo-h743zi").replace("id: 0669", "id: bench-left")
    path.write_text(text + "- {id: rack, board: hifive1, serial: 'socket://rack:4000'}\n")
    plug(port("/dev/ttyACM5", STLINK, "0669"), port("/dev/ttyACM6", STLINK, "066B"))
    microbit, bench, rack, new = write_map(path, devices(), "nucleo-f446re")
    assert read_map(path) == [microbit, bench, rack, new]
    assert not microbit.connected
    assert (bench.board, bench.id, bench.serial) == ("nucleo-h743zi", "bench-left", "/dev/ttyACM5")
    assert bench.connected
    assert rack == Instance("hifive1", "rack", "socket://rack:4000")
    assert (new.board, new.id) == ("nucleo-f446re", "066B")
    assert write_map(path, devices(), "nucleo-f446re") == [microbit, bench, rack, new], "again changes nothing"


def test_a_map_chooses_by_board_and_id(plug: Plug, tmp_path: Path) -> None:
    path = tmp_path / "map.yml"
    path.write_text(
        "- {id: left, board: nucleo-f446re, probe: A1, serial: /dev/ttyACM4}\n"
        "- {id: right, board: nucleo-f446re, probe: B2, baud: 230400}\n"
        "- {id: broken, board: netduinoplus2, probe: C3, connected: false}\n"
    )
    plug(port("/dev/ttyACM4", STLINK, "B2"), port("/dev/ttyACM9", STLINK, "A1"))
    left = instance_for(NUCLEO, hardware_map=path, wanted="left")
    assert left
    assert left.serial == "/dev/ttyACM9", "its port has moved, and the old one is another board's"
    with pytest.raises(UsageError, match=r"2 boards nucleo-f446re: left \(/dev/ttyACM4, probe A1\), right \("):
        instance_for(NUCLEO, hardware_map=path)
    for wanted in ("right", "B2"):
        found = instance_for(NUCLEO, hardware_map=path, wanted=wanted)
        assert found
        assert found.address(NUCLEO) == "/dev/ttyACM4@230400", "the port is where its probe is plugged in now"
    assert instance_for(load_board("netduinoplus2"), hardware_map=path) is None, "emulated: it is not connected"
    with pytest.raises(MissingBoardError, match="no connected board microbit") as error:
        instance_for(load_board("microbit"), hardware_map=path, hardware=True)
    assert str(path) in error.value.where
    assert choose([], "nucleo-f446re") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- board: [", "not YAML: line 1: .*write-map"),
        ("- {board: microbit}\n- {board: microbitt}", "entry 2.*Did you mean 'microbit'"),
        ("board: microbit", "list of entries"),
        ("- serial: /dev/ttyACM0", "entry 1.*"),
        ("- {board: microbit}\n- {board: microbit, sreial: x}", "entry 2.*Did you mean 'serial'"),
        ("- {board: microbit, probe: 000123}", 'probe: "'),
        ("- {board: microbit, baud: fast}", "baud: 'fast'"),
        ("- {board: microbit, baud: -1}", "baud: -1"),
        ("- {board: microbit, connected: maybe}", "connected: 'maybe'"),
        ("- {board: microbit, id: a}\n- {board: hifive1, id: a}", "two entries have the id a"),
    ],
)
def test_a_wrong_map_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "map.yml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        read_map(path)
    assert str(path) in str(error.value)
    assert re.search(message, str(error.value)), str(error.value)


def test_an_empty_or_missing_map(tmp_path: Path) -> None:
    (tmp_path / "map.yml").write_text("")
    assert read_map(tmp_path / "map.yml") == []
    with pytest.raises(UsageError, match="strop list --write-map"):
        read_map(tmp_path / "no.yml")
    with pytest.raises(UsageError, match="cannot be written"):
        write_map(tmp_path / "no" / "map.yml", [])


@pytest.mark.parametrize(
    ("address", "device", "baud"),
    [
        ("/dev/ttyACM0", "/dev/ttyACM0", 115200),
        ("/dev/ttyUSB0@921600", "/dev/ttyUSB0", 921600),
        ("COM3@9600", "COM3", 9600),
        ("/dev/odd@name", "/dev/odd@name", 115200),
        ("socket://me@host:4000", "socket://me@host:4000", 115200),
    ],
)
def test_an_address_may_hold_a_rate(address: str, device: str, baud: int) -> None:
    transport: Any = transport_for(address)
    assert (transport.name, transport._baud) == (device, baud)


def test_the_command_line(plug: Plug, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "map.yml")
    plug(port("/dev/ttyACM0", STLINK, "066A", description="STM32 STLink"))

    def strop(*words: str, status: int = 0) -> Any:
        assert run([*words, "--json"]) == status
        return json.loads(capsys.readouterr().out)

    (found,) = strop("list", "--write-map", path)["ports"]
    assert (found["port"], found["serial_number"], found["usb_id"]) == ("/dev/ttyACM0", "066A", "0483:374b")
    assert "nucleo-f446re" in found["boards"]
    assert run(["list", "--write-map", path]) == 0
    assert "write the board of 066A, several fit" in capsys.readouterr().out
    error = strop("eval", "mlp-64-32-10", "-b", "nucleo-f446re", "--hardware-map", path, status=1)["error"]
    assert "no connected board nucleo-f446re" in error["what"]
    error = strop("monitor", "-b", "nucleo-f446re", "--id", "066B", status=1)["error"]
    assert "no board nucleo-f446re with id 066B is plugged in" in error["what"]


@pytest.mark.usefixtures("plug")
def test_flash_prints_the_command_to_paste(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["flash", "mlp-64-32-10", "-b", "nucleo-f446re", "--dry-run", "--no-progress", "-q"]
    assert run([*words, "--runner", "pyocd", "--id", "066A", "--erase"]) == 0
    erase, load = capsys.readouterr().out.splitlines()
    assert erase.split()[1:] == ["erase", "--no-wait", "--target", "stm32f446retx", "--uid", "066A", "--chip"]
    assert load.split()[1:-1] == ["load", "--no-wait", "--target", "stm32f446retx", "--uid", "066A"]
    assert Path(load.split()[-1]).is_file()
    assert run([*words, "--runner", "picotool", "--json"]) == 1
    assert "openocd, pyocd" in json.loads(capsys.readouterr().out)["error"]["do"]
    (tmp_path / "map.yml").write_text("- {id: left, board: nucleo-f446re, serial: /dev/ttyACM4}\n")
    assert run([*words, "--hardware-map", "map.yml", "--id", "right"]) == 1
    assert "no connected board nucleo-f446re with id right" in capsys.readouterr().err
    assert run([word for word in words if word != "--dry-run"]) == 1
    assert "no board nucleo-f446re is plugged in" in capsys.readouterr().err
