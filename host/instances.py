"""Boards on this desk: which are plugged in, and which one of them is meant. Never simply the first."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from strop.errors import UsageError
from strop.host.transport.serial import at_baud
from strop.targets.board import Board, load_board
from strop.targets.board import board_names as all_boards

SYSFS = Path("/sys/bus/usb/devices")
"""Linux: one folder a USB device, also for probes that have no serial port."""


class MissingBoardError(UsageError):
    """A board that is needed and not there."""


@dataclass(frozen=True)
class Instance:
    """One board that somebody owns.

    board: the name of its description.  id: its name on this desk; a probe's serial number unless given.
    serial: its port, any address of a transport.  probe: serial number of the probe or USB bridge.
    baud: of the port; 0 for the board's own.  runner: the flash tool to use; the board's first if not given.
    connected: whether it can be used now.
    """

    board: str
    id: str = ""
    serial: str = ""
    probe: str = ""
    baud: int = 0
    runner: str = ""
    connected: bool = True

    def address(self, board: Board) -> str:
        """Its port with the rate to open it at; empty where the port is not known."""
        return at_baud(self.serial, self.baud or (board.uart.baud if board.uart else 0))

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.serial, f"probe {self.probe}" if self.probe else "") if part)
        return f"{self.id or self.board} ({place})" if place else self.id or self.board


@dataclass(frozen=True)
class Device:
    """A USB device with a serial port or a debug probe, or a port of another kind.

    vid, pid: None for a port that is not on USB.  port: empty for a probe without one.
    boards: names of the boards that may be behind it.
    """

    port: str
    description: str
    serial_number: str
    vid: int | None
    pid: int | None
    boards: tuple[str, ...] = ()

    @property
    def usb_id(self) -> str:
        """Vendor and product as `0483:374b`, empty where there is none."""
        return "" if self.vid is None or self.pid is None else f"{self.vid:04x}:{self.pid:04x}"

    def instance(self, board: str) -> Instance:
        """The board behind it, if it is this one."""
        return Instance(board, self.serial_number or self.port, self.port, self.serial_number)


def devices(boards: Sequence[Board] | None = None, wanted: str = "") -> list[Device]:
    """Serial ports and debug probes of this computer, by port.

    boards: whose USB ids are looked for; all that come with strop, if None.  wanted: serial number of a device that is
    returned whatever its ids.
    """
    known = [load_board(name) for name in all_boards()] if boards is None else boards
    ports = [_of_port(port, known) for port in _comports()]
    seen = {(device.usb_id, device.serial_number) for device in ports}
    probes = [p for p in _on_usb(known) if p.boards or (wanted and p.serial_number == wanted)]
    probes = [p for p in probes if (p.usb_id, p.serial_number) not in seen]
    return sorted([*ports, *probes], key=lambda device: (not device.port, device.port, device.serial_number))


def _comports() -> Iterable[Any]:
    from serial.tools.list_ports import comports

    return list(comports())


def _of_port(port: Any, boards: Sequence[Board]) -> Device:
    possible = _boards_behind(port.vid, port.pid, boards, _line_names(port))
    return Device(port.device, port.description or "", port.serial_number or "", port.vid, port.pid, possible)


def _line_names(port: Any) -> set[str]:
    """What one of several lines of a device may be called: words of its texts, and a letter for its place."""
    words = set(re.split(r"\W+", f"{port.interface or ''} {port.description or ''}"))
    place = re.search(r"\.(\d)$", port.location or "")  # as in 1-4:1.1, the second interface
    return words | {"ABCD"[int(place[1]) % 4]} if place else words


def _on_usb(boards: Sequence[Board]) -> Iterator[Device]:
    """USB devices from Linux's tree of them; nothing elsewhere."""
    for folder in sorted(SYSFS.glob("*")):
        vid, pid = (_read(folder / name) for name in ("idVendor", "idProduct"))
        if vid and pid:
            ids = int(vid, 16), int(pid, 16)
            yield Device("", _read(folder / "product"), _read(folder / "serial"), *ids, _boards_behind(*ids, boards))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _boards_behind(
    vid: int | None, pid: int | None, boards: Sequence[Board], line: set[str] | None = None
) -> tuple[str, ...]:
    """Names of the boards with such a device. line: what a port is called, to tell it from others of its device."""
    return tuple(
        board.name for board in boards
        if any((u.vid, u.pid) == (vid, pid) and (line is None or u.interface in {"", *line}) for u in board.usb)
    )  # fmt: skip


def usb_id_of(serial_number: str) -> str:
    """USB id, such as `0483:374b`, of what is plugged in with this serial number; empty where nothing is."""
    return next((d.usb_id for d in devices([], serial_number) if d.serial_number == serial_number), "")


def choose(instances: Iterable[Instance], board: str, wanted: str = "") -> Instance | None:
    """The connected instance of a board; None where there is none.

    wanted: its id, port or probe's serial number.  Raises UsageError, which lists them, when more than one remains.
    """
    fitting = [one for one in instances if one.connected and one.board == board and _is(one, wanted)]
    if len(fitting) > 1:
        listed = ", ".join(str(one) for one in fitting)
        raise UsageError(f"there are {len(fitting)} boards {board}: {listed}", do="Choose one with --id")
    return fitting[0] if fitting else None


def _is(instance: Instance, wanted: str) -> bool:
    return not wanted or wanted in (instance.id, instance.serial, instance.probe)


def connected_instances(board: Board, wanted: str = "") -> list[Instance]:
    """What is plugged in and may be this board: by its USB ids, or because its serial number or port is wanted."""
    found = [d for d in devices([board], wanted) if not wanted or wanted in (d.serial_number, d.port)]
    known = [d for d in found if d.boards]
    return [d.instance(board.name) for d in known or (found if wanted else [])]


def instance_for(
    board: Board, *, hardware_map: Path | None = None, wanted: str = "", hardware: bool = False
) -> Instance | None:
    """The instance that a command means: of the map, or else of what is plugged in. None for twin and emulator.

    hardware: an emulated board, too, must be there; otherwise it is only where a map or an id says so.
    Raises MissingBoardError where a board is needed and none is there, and UsageError for several.
    """
    from strop.host.hardware_map import read_map

    hardware = hardware or bool(wanted) or not board.emulator
    if board.is_host or (hardware_map is None and not hardware):
        return None
    candidates = connected_instances(board, wanted) if hardware_map is None else read_map(hardware_map)
    found = choose(candidates, board.name, wanted)
    if found is None and hardware:
        raise _missing(board, hardware_map, wanted)
    return located(found, board) if found else None


def located(instance: Instance, board: Board) -> Instance:
    """An instance with the port that its probe has now, which need not be the one in the map."""
    lines = [d for d in devices([board]) if d.port and instance.probe and d.serial_number == instance.probe]
    ports = [d.port for d in lines if d.boards] or [d.port for d in lines]
    return replace(instance, serial=ports[0]) if len(ports) == 1 else instance


def _missing(board: Board, hardware_map: Path | None, wanted: str) -> MissingBoardError:
    which = f"board {board.name} with id {wanted}" if wanted else f"board {board.name}"
    if hardware_map is not None:
        what = f"the hardware map has no connected {which}"
        return MissingBoardError(what, where=str(hardware_map), do="See strop list")
    advice = "See strop list; a --hardware-map names boards that it cannot tell apart"
    if not (board.usb or wanted):
        advice = "It has no probe of its own: choose yours with --id and its serial number, or in a --hardware-map"
    return MissingBoardError(f"no {which} is plugged in", do=advice)
