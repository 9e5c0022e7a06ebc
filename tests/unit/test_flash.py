"""Flash tools: the commands strop gives them, read by the tools' own parsers where installed, and by fakes."""

import json
import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from strop.errors import FlashError
from strop.host.flash import Ability, runner_for, runner_names, tool
from strop.host.flash.images import binary, contents, intel_hex, uf2
from strop.host.flash.uf2 import drives
from strop.host.instances import Instance
from strop.targets.board import Board, board_names, load_board
from strop.targets.board import Runner as Entry

FLASH, PARTS = 0x1000_0000, [(0x1000_0000, bytes(range(200)) * 3), (0x1000_0404, b"data that moves to RAM")]
TOOLS = ("openocd", "pyocd", "probe-rs", "esptool", "picotool", "uf2", "west", "jlink")
ENTRY = {
    "openocd": {"interface": "stlink", "target": "stm32f4x"}, "pyocd": {"target": "nrf52840"},
    "probe-rs": {"chip": "nRF52840_xxAA"}, "esptool": {"chip": "esp32c3", "base": "0x0", "format": "bin"},
    "picotool": {}, "uf2": {"target": "rp2350-arm-s"}, "west": {"config": "zephyr/build", "interface": "openocd"},
    "jlink": {"device": "nRF52840_xxAA"},
}  # fmt: skip
PROBE = "1366:1015:000683759358"


def elf_of(parts: list[tuple[int, bytes]], virtual: int = 0x2000_0000) -> bytes:
    """A 32-bit RISC-V program by hand (System V ABI): a header, program headers, and what they load."""
    at = 52 + 32 * len(parts)
    heads, body = b"", b""
    for address, data in parts:
        heads += struct.pack("<8I", 1, at + len(body), virtual, address, len(data), len(data) + 64, 5, 4)
        body += data
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    header = struct.pack("<HHIIIIIHHHHHH", 2, 243, 1, FLASH, 52, 0, 0, 52, 32, len(parts), 40, 0, 0)
    return ident + header + heads + body


@pytest.fixture
def elf(tmp_path: Path) -> Path:
    path = tmp_path / "a folder" / "program.elf"  # with a space: commands are to be pasted into a shell
    path.parent.mkdir()
    path.write_bytes(elf_of(PARTS))
    return path


def board_with(name: str, **fields: str) -> Board:
    """A board of which nothing but its flash tool is of interest."""
    entry = Entry(name=name, **(fields or ENTRY[name]))
    return load_board("qemu-rv32imf").model_copy(update={"runners": (entry,), "emulator": None})


def on_desk(board: Board, **more: Any) -> Instance:
    return Instance(board.name, "left", "/dev/ttyACM7", PROBE, **more)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a program on PATH that writes its arguments down; returns a reader of them."""
    record, folder = tmp_path / "called.jsonl", tmp_path / "bin"
    folder.mkdir()

    def make(name: str, says: str = "", status: int = 0) -> Any:
        script = f"""#!{sys.executable}
import json, sys
with open({str(record)!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
print({says!r})
sys.exit({status})
"""
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return lambda: [json.loads(line) for line in record.read_text().splitlines()]

    return make


def test_contents_lie_where_they_are_loaded_not_where_they_run(elf: Path) -> None:
    assert contents(elf) == PARTS
    start, image = binary(PARTS)
    assert start == FLASH
    assert image[:600] == PARTS[0][1]
    assert image[600:0x404] == b"\xff" * (0x404 - 600)
    assert image[0x404:] == PARTS[1][1]


def test_constants_behind_another_bus_go_to_the_same_flash(elf: Path) -> None:
    board = load_board("esp32-c3")
    assert board.flash
    assert board.data_bus is not None
    elf.write_bytes(elf_of([(board.flash.origin, b"code"), (board.data_bus + 64, b"constants")]))
    assert contents(elf, board) == [(board.flash.origin, b"code"), (board.flash.origin + 64, b"constants")]
    assert binary(contents(elf, board))[1] == b"code".ljust(64, b"\xff") + b"constants"


@pytest.mark.parametrize("content", [b"no program", b"", elf_of([])])
def test_what_is_no_program_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.elf").write_bytes(content)
    for path in (tmp_path / "x.elf", tmp_path / "missing.elf"):
        with pytest.raises(FlashError):
            contents(path)


def test_parts_in_different_memories_make_no_plain_binary() -> None:
    with pytest.raises(FlashError, match="too far apart"):
        binary([(0x0800_0000, b"code"), (0x2000_0000, b"data")])


def test_intel_hex_reads_back() -> None:
    """By the format's own rules: every record sums to 0, and the upper half of an address holds until the next."""
    parts = [(0x0800_FFF8, bytes(range(40))), *PARTS]
    memory: dict[int, int] = {}
    upper = 0
    for line in intel_hex(parts).splitlines():
        record = bytes.fromhex(line.removeprefix(":"))
        length, low, kind, data = record[0], int.from_bytes(record[1:3], "big"), record[3], record[4:-1]
        assert sum(record) & 0xFF == 0
        assert length == len(data)
        if kind == 4:
            upper = int.from_bytes(data, "big") << 16
        elif kind == 0:
            assert low + length <= 1 << 16, "no record crosses into the next 64 KB"
            memory.update({upper + low + i: byte for i, byte in enumerate(data)})
    assert kind == 1, "the last record ends the file"
    assert memory == {address + i: byte for address, data in parts for i, byte in enumerate(data)}


def test_uf2_is_what_its_specification_says() -> None:
    image = uf2(PARTS, 0xE48BFF59)
    assert len(image) % 512 == 0
    count, memory = len(image) // 512, {}
    for number in range(count):
        block = image[number * 512 : (number + 1) * 512]
        first, second, flags, address, size, index, total, family = struct.unpack("<8I", block[:32])
        assert (first, second, block[508:]) == (0x0A324655, 0x9E5D5157, bytes.fromhex("306fb10a"))
        assert (flags, size, index, total, family) == (0x2000, 256, number, count, 0xE48BFF59)
        assert address % 256 == 0
        memory.update({address + i: byte for i, byte in enumerate(block[32 : 32 + size])})
    for address, data in PARTS:
        assert bytes(memory[address + i] for i in range(len(data))) == data
    assert memory[0x1000_0403] == 0xFF


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_is_called_as_the_dry_run_says(
    name: str, elf: Path, fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    board = board_with(name)
    monkeypatch.setattr("strop.host.flash.uf2.MOUNTS", tmp_path / "mounts")
    (tmp_path / "INFO_UF2.TXT").touch()
    (tmp_path / "mounts").write_text(f"/dev/sda1 {tmp_path} vfat rw 0 0\n")
    opened = runner_for(board, name, on_desk(board))
    called = fake(type(opened).binary)
    promised = opened.commands(elf)
    assert all(str(elf.parent) in shlex.join(promised[0]) for _ in promised)
    opened.start(elf)
    assert called() == [command[1:] for command in promised]
    assert set(opened.abilities) >= {Ability.FLASH, Ability.DRY_RUN}


@pytest.mark.parametrize("name", TOOLS)
def test_the_probe_is_chosen_where_the_tool_can(name: str, elf: Path) -> None:
    board = board_with(name)
    runner = runner_for(board, name, on_desk(board))
    serial = PROBE.rpartition(":")[2]
    chosen = {"esptool": "/dev/ttyACM7", "probe-rs": PROBE}.get(name, f" {serial}")
    for command in runner.commands(elf):
        words = shlex.join(command)
        assert (chosen in words.replace("'", "")) == (Ability.ID in runner.abilities)
        assert chosen not in shlex.join(runner_for(board, name).commands(elf)[-1])


@pytest.mark.parametrize("name", TOOLS)
def test_abilities_are_what_it_does(name: str, elf: Path, fake: Any) -> None:
    board = board_with(name)
    runner: Any = runner_for(board, name, on_desk(board))
    called = fake(type(runner).binary)
    if Ability.RESET in runner.abilities:
        runner.reset()
        assert len(called()) == 1
    else:
        with pytest.raises(FlashError, match="cannot reset"):
            runner.reset()
    if Ability.ERASE in runner.abilities:
        assert len(runner.commands(elf, erase=True)) == len(runner.commands(elf)) + 1
    else:
        with pytest.raises(FlashError, match="cannot erase"):
            runner.commands(elf, erase=True)


@pytest.mark.parametrize("name", sorted(set(TOOLS) - {"uf2"}))
def test_a_missing_tool_says_how_to_get_it(name: str, elf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "found", lambda _: "")
    with pytest.raises(FlashError) as error:
        runner_for(board_with(name), name).start(elf)
    assert "is not installed" in error.value.what
    assert any(word in error.value.do for word in ("apt-get install", "pip install", "https://"))


def test_a_failing_tool_is_quoted(elf: Path, fake: Any) -> None:
    called = fake("openocd", "Info : clock speed 2000 kHz\nError: open failed\n", 1)
    with pytest.raises(FlashError, match=r"openocd failed: .*Error: open failed"):
        runner_for(board_with("openocd"), "openocd").start(elf)
    assert len(called()) == 1, "nothing more is tried"


def test_a_tool_that_hangs_is_ended(elf: Path, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("openocd")
    (tmp_path / "bin" / "openocd").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(tool, "TOOL_SECONDS", 0.2)
    with pytest.raises(FlashError, match="did not end"):
        runner_for(board_with("openocd"), "openocd").start(elf)


def test_the_first_tool_that_is_installed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    board = load_board("nucleo-f446re")
    names = runner_names(board)
    assert names[0] == board.runners[0].name
    for installed in names:
        monkeypatch.setattr("strop.host.flash.found", lambda binary, one=installed: one[:5] == binary.lower()[:5])
        assert runner_for(board, instance=on_desk(board)).name == installed
    assert runner_for(board, instance=on_desk(board, runner="pyocd")).name == "pyocd"
    monkeypatch.setattr("strop.host.flash.found", lambda _: "")
    assert runner_for(board, instance=on_desk(board)).name == names[0]
    with pytest.raises(FlashError, match="'pyocdd' does not serve"):
        runner_for(board, "pyocdd")


def test_a_board_on_the_desk_is_never_emulated() -> None:
    board = load_board("netduinoplus2")
    assert runner_for(board).name == "qemu"
    assert runner_for(board, instance=on_desk(board)).name != "qemu"
    with pytest.raises(FlashError, match="nothing can bring a program onto"):
        runner_for(load_board("qemu-rv32imf"), instance=Instance("qemu-rv32imf"))


def test_two_drives_are_not_guessed_between(elf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    monkeypatch.setattr("strop.host.flash.uf2.MOUNTS", mounts)
    runner = runner_for(board_with("uf2"), "uf2")
    mounts.write_text("")
    with pytest.raises(FlashError, match="no drive"):
        runner.start(elf)
    for name in ("one drive", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "INFO_UF2.TXT").touch()
    mounts.write_text("".join(f"/dev/sda {tmp_path}/{n} vfat rw 0 0\n" for n in ("one\\040drive", "two", "none")))
    assert [drive.name for drive in drives()] == ["one drive", "two"]
    with pytest.raises(FlashError, match=r"2 UF2 drives: .*one drive, .*two"):
        runner.commands(elf)


def test_a_board_without_a_port_names_the_way_out(elf: Path, fake: Any) -> None:
    fake("openocd")
    board = board_with("openocd")
    running = runner_for(board, "openocd", Instance(board.name, probe=PROBE)).start(elf)
    with pytest.raises(FlashError, match=r"serial port .* is not known.*hardware map"):
        _ = running.endpoint


def test_the_port_is_opened_at_the_boards_rate_once_it_is_back(
    elf: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake("openocd")
    board = board_with("openocd")
    monkeypatch.setattr(tool, "PORT_SECONDS", 0.1)
    gone = runner_for(board, "openocd", Instance(board.name, serial="/dev/ttyGone")).start(elf)
    with pytest.raises(FlashError, match="did not come back"):
        _ = gone.endpoint
    assert board.uart
    here = runner_for(board, "openocd", Instance(board.name, serial="/dev/null")).start(elf)
    assert here.endpoint == f"/dev/null@{board.uart.baud}"
    assert Instance(board.name, serial="/dev/null", baud=921600).address(board) == "/dev/null@921600"
    assert Instance(board.name, serial="socket://a:1").address(board) == "socket://a:1"


def test_what_a_tool_cannot_do_without_is_named(elf: Path) -> None:
    with pytest.raises(FlashError, match="pyocd needs to know the target") as error:
        runner_for(board_with("pyocd", chip="nRF"), "pyocd").commands(elf)
    assert error.value.where.endswith(".toml")


@pytest.mark.parametrize("name", [name for name in board_names() if load_board(name).runners])
def test_every_boards_tools_have_what_they_need(name: str, elf: Path) -> None:
    board = load_board(name)
    known = set(runner_names(board)) - {"qemu"}
    assert known == {entry.name for entry in board.runners}, "each entry names a runner"
    for entry in known:
        for command in runner_for(board, entry, on_desk(board)).commands(elf, erase=False):
            assert all(isinstance(word, str) and word for word in command)


REFUSALS = {  # what a tool says of a command that it has understood, with no board plugged in
    "openocd": ("open failed", "no j-link device found", "unable to find", "unable to open", "no device found"),
    "pyocd": ("no available debug probe", "no connected debug probe", "matching unique id"),
    "esptool": ("could not open", "no such file or directory: '/dev/ttyacm7'", "port is busy or doesn't exist"),
}


UNKNOWN_CHIP = re.compile("can't find (?:target|board)/(?:rp2350|esp32c3)[^ ]*")
"""What an OpenOCD says that is older than the chip, as Debian 12's is."""

OWN_TOOLS = [
    (name, entry.name)
    for name in board_names() for entry in load_board(name).runners if entry.name in REFUSALS
]  # fmt: skip


def refused_for_want_of_a_board(runner: Any, command: list[str], folder: Path) -> None:
    """The tool gets as far as looking for its probe: a misspelt option, file or chip would end it before."""
    if not tool.found(runner.binary):
        pytest.skip(f"{runner.binary} is not installed: {runner.get}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder)
    said = " ".join((done.stdout + done.stderr).lower().split())
    if runner.name == "openocd" and (old := UNKNOWN_CHIP.search(said)):
        pytest.skip(f"this OpenOCD is older than the chip: {old[0]}")
    assert done.returncode
    assert any(words in said for words in REFUSALS[runner.name]), said


@pytest.mark.parametrize("act", ["flash", "erase", "reset"])
@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_the_tools_own_parser_reads_it(name: str, act: str, elf: Path) -> None:
    board = board_with(name)
    runner: Any = runner_for(board, name, on_desk(board))
    elf.write_bytes(elf_of([(FLASH, bytes(64))]))
    command = {"flash": runner.flashing(elf)[-1], "erase": runner.erasing()[0], "reset": runner.resetting()[0]}[act]
    refused_for_want_of_a_board(runner, command, elf.parent)


@pytest.mark.parametrize(("name", "runner"), OWN_TOOLS)
def test_the_tool_knows_the_board_by_its_own_entry(name: str, runner: str, elf: Path) -> None:
    board = load_board(name)
    opened: Any = runner_for(board, runner, Instance(name, "left", "/dev/ttyACM7"))
    assert board.flash
    elf.write_bytes(elf_of([(board.flash.origin, bytes(64))]))
    refused_for_want_of_a_board(opened, opened.flashing(elf)[-1], elf.parent)


@pytest.mark.parametrize("name", [name for name, runner in OWN_TOOLS if runner == "pyocd"])
def test_pyocd_knows_the_target_or_a_pack_brings_it(name: str) -> None:
    """A target of the tool's own by its name; those of packs are Keil's names of the chips, in small letters."""
    if not (pyocd := tool.found("pyocd")):
        pytest.skip("pyocd is not installed")
    said = subprocess.run([pyocd, "list", "--targets"], capture_output=True, text=True, timeout=60, check=True).stdout
    known = {line.split()[0] for line in said.splitlines() if line.strip()}
    chip = next(entry.target for entry in load_board(name).runners if entry.name == "pyocd")
    assert chip in known | PACKED


PACKED = {"stm32f405rgtx", "stm32f446retx", "stm32f100rb"}


def test_esptool_makes_its_image_of_our_program(elf: Path) -> None:
    board = board_with("esptool", chip="esp32c3")
    runner: Any = runner_for(board, "esptool", on_desk(board))
    if not tool.found("esptool"):
        pytest.skip(runner.get)
    data = struct.pack("<64I", *range(64))
    sections = b"\0.text\0.shstrtab\0".ljust(32, b"\0")
    program = bytearray(elf_of([(0x4038_0000, data + sections)], virtual=0x4038_0000))
    at = len(program)
    program[32:36] = struct.pack("<I", at)  # e_shoff
    program[46:52] = struct.pack("<HHH", 40, 3, 2)
    code = len(program) - len(data) - len(sections)
    program += bytes(40)
    program += struct.pack("<10I", 1, 1, 6, 0x4038_0000, code, len(data), 0, 0, 4, 0)
    program += struct.pack("<10I", 7, 3, 0, 0, code + len(data), len(sections), 0, 0, 1, 0)
    elf.write_bytes(program)
    made = subprocess.run(runner.commands(elf)[0], capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    image = elf.with_suffix(".bin").read_bytes()
    assert image[0] == 0xE9, "an image for the boot ROM"
    assert data in image
