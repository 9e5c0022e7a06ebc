"""Hardware maps: the boards somebody owns, as YAML; like those of Zephyr's twister, a list of entries.

    - id: bench-left             # the name to choose it by; a probe's serial number unless changed
      board: nucleo-f446re       # a board's name; unknown where several share these USB ids
      serial: /dev/ttyACM0       # port: a device, or any address of a transport
      probe: 066AFF525254667867  # serial number of the probe or USB bridge
      baud: 115200               # of the port; the board's own if left out
      runner: openocd            # flash tool; the board's first if left out
      connected: true            # false: not used
"""

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import yaml

from strop.errors import UsageError, nearest
from strop.host.arrays import write_file
from strop.host.instances import Device, Instance
from strop.targets.board import board_names, load_board

UNKNOWN = "unknown"
"""Board of an entry that several boards fit: never chosen until somebody writes its name."""

_KINDS = {field.name: bool if field.name == "connected" else int if field.name == "baud" else str
          for field in fields(Instance)}  # fmt: skip
_SHOWN = ("id", "board", "serial", "probe", "baud", "runner", "connected")


def read_map(path: Path) -> list[Instance]:
    """Return the entries of a map. Raises UsageError, with the entry's number, for what is not one."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the hardware map cannot be read: {error.strerror}", where=str(path),
                         do="Write one with: strop list --write-map map.yml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        advice = "Compare it with the map that strop list --write-map writes"
        raise UsageError(f"the hardware map is not YAML: {_complaint(error)}", where=str(path), do=advice) from error
    if not isinstance(entries, list | None):
        raise UsageError("a hardware map is a list of entries", where=str(path), do="Begin each entry with a dash")
    return _distinct([_entry(entry, path, number) for number, entry in enumerate(entries or [], 1)], path)


def _complaint(error: Exception) -> str:
    """What is wrong, and in which line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


def _entry(entry: Any, path: Path, number: int) -> Instance:
    where = f"{path}, entry {number}"
    if not isinstance(entry, dict) or not entry.get("board"):
        raise UsageError("the entry names no board", where=where, do="Write board: and a name; see strop boards")
    values = {}
    for key, value in entry.items():
        if key not in _KINDS:
            raise UsageError(f"an entry has no {key!r}", where=where, do=nearest(str(key), _KINDS))
        if value is not None:
            values[key] = _value(key, value, where)
    instance = Instance(**values)
    known = (UNKNOWN, *board_names())
    if instance.board not in known and not instance.board.endswith(".toml"):
        raise UsageError(f"there is no board {instance.board!r}", where=where, do=nearest(instance.board, known))
    return instance if instance.id else replace(instance, id=instance.probe or instance.serial)


def _value(key: str, value: Any, where: str) -> Any:
    """A value as its type; YAML reads a serial number of digits as a number, and drops its leading zeros."""
    kind, given = _KINDS[key], type(value)
    if kind is str and given is int:
        raise UsageError(f"{key}: {value} is a number to YAML", where=where, do=f'Write it in quotes: {key}: "{value}"')
    if given is not kind or (key == "baud" and value <= 0):
        raise UsageError(f"{key}: {value!r} cannot be used", where=where, do=f"Give a {kind.__name__}")
    return value


def _distinct(entries: list[Instance], path: Path) -> list[Instance]:
    ids = [entry.id for entry in entries if entry.id]
    for name in ids:
        if ids.count(name) > 1:
            raise UsageError(f"two entries have the id {name}", where=str(path), do="Give each an id of its own")
    return entries


def write_map(path: Path, found: Sequence[Device], board: str = "") -> list[Instance]:
    """Write what is plugged in to a map, new or merged into the one that is there; returns the entries.

    An entry with the same probe keeps what somebody wrote, and gets its present port. One whose probe is gone stays,
    not connected.  board: name for those devices that may be this board among others.
    """
    known = [device for device in found if device.boards]
    old = read_map(path) if path.exists() else []
    kept = [_updated(entry, known) for entry in old]
    names = {entry.id for entry in kept}
    new = [_new(device, board) for device in known if not any(_same(entry, device) for entry in old)]
    entries = [*kept, *(entry for entry in new if entry.id not in names)]
    write_file(path, _text(entries).encode())
    return entries


def _same(entry: Instance, device: Device) -> bool:
    """Whether a device is an entry's: by the probe's serial number, or, for want of one, by the port."""
    if entry.probe or device.serial_number:
        return entry.probe == device.serial_number
    return entry.serial == device.port


def _updated(entry: Instance, found: Sequence[Device]) -> Instance:
    """An entry as it is now; a port that no USB device has, such as a socket, is left alone."""
    here = [device for device in found if _same(entry, device)]
    if here:
        return replace(entry, serial=here[0].port or entry.serial, connected=True)
    return replace(entry, connected=False) if entry.probe else entry


def _new(device: Device, board: str) -> Instance:
    name = board if board in device.boards else device.boards[0] if len(device.boards) == 1 else UNKNOWN
    uart = load_board(name).uart if name in board_names() else None
    return replace(device.instance(name), baud=uart.baud if uart else 0)


def _text(entries: Sequence[Instance]) -> str:
    return str(yaml.safe_dump([_row(entry) for entry in entries], sort_keys=False))


def _row(entry: Instance) -> dict[str, Any]:
    values = asdict(entry)
    return {key: values[key] for key in _SHOWN if values[key] or key == "connected"}
