"""The PC's side of checkpoints: memory or a file that plays the flash of a twin or of an emulated board."""

from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING

from strop.errors import BoardError, DataError

if TYPE_CHECKING:
    from strop.targets.board import Board

SECTOR, UNIT = 4096, 4
"""Of the twin's flash, in bytes."""
OVERHEAD = 48 + 9 * 16
"""Bytes of a slot that are not the model's (runtime/store.h, STROP_STORE_SLOT_BYTES)."""


def flash_bytes(data_bytes: int) -> int:
    """Return the size of a flash for two checkpoints of so many bytes."""
    return 2 * SECTOR * -(-(OVERHEAD + data_bytes) // SECTOR)


def open_flash(data_bytes: int, file: Path | None = None) -> mmap:
    """Return memory of its own, or the file's, for the checkpoints of a model with so many bytes of tensors.

    A file that does not exist begins as erased flash. Raises DataError for one that is too small or cannot be used.
    """
    size = flash_bytes(data_bytes)
    if file is None:
        return mmap(-1, size)
    _at_least(file, size)
    try:
        with file.open("r+b") as opened:
            return mmap(opened.fileno(), 0)
    except OSError as error:
        raise _unusable(file, error) from error


def emulating(board: "Board", file: Path) -> "Board":
    """Return the emulated board with its flash in a file, which outlives the emulator.

    A file that does not exist begins as erased flash. Raises BoardError for a board whose emulator has no flash that
    can be written, DataError for a file of another size.
    """
    emulator = board.emulator
    if emulator is None or not emulator.store:
        raise BoardError(
            f"board {board.name!r} has no flash that a file could stand for",
            do="Leave out the file, or choose qemu-rv32imf",
        )
    _at_least(file, emulator.store_bytes)
    if file.stat().st_size != emulator.store_bytes:
        raise DataError(
            f"the file has {file.stat().st_size} bytes, the flash {emulator.store_bytes}",
            where=str(file),
            do="Name another file; a new one is made",
        )
    path = str(file.absolute()).replace(",", ",,")  # as QEMU wants it within an option
    args = (*emulator.args, *(word.replace("{file}", path) for word in emulator.store))
    return board.model_copy(update={"emulator": emulator.model_copy(update={"args": args})})


def _at_least(file: Path, size: int) -> None:
    """Make the file if there is none; DataError for one that is smaller."""
    try:
        if not file.exists():
            _make(file, size)
        found = file.stat().st_size
    except OSError as error:
        raise _unusable(file, error) from error
    if found < size:
        raise DataError(
            f"the file has {found} bytes, checkpoints of this model take {size}",
            where=str(file),
            do="Name another file; a new one is made",
        )


def _make(file: Path, size: int) -> None:
    temporary = file.with_name(f".{file.name}.new")
    with temporary.open("wb") as opened:
        opened.truncate(size)  # zeros hold no checkpoint either, and take no room on the disk
    temporary.replace(file)


def _unusable(file: Path, error: OSError) -> DataError:
    return DataError(f"the file for checkpoints cannot be used: {error}", where=str(file), do="Name another file")
