"""Files of named arrays: `.npz`, and torch's `.pt` for a state_dict. Written whole or not at all."""

import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.compiler.bundle import write_whole
from strop.errors import DataError, UsageError

Array = NDArray[Any]

DAMAGED = (OSError, ValueError, EOFError, AttributeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What numpy raises for a damaged file, according to which byte is wrong."""


def read_npz(path: Path, do: str) -> dict[str, Array]:
    """All arrays of a `.npz`. do: advice for a file that is missing or damaged, which raises DataError."""
    if not path.is_file():
        raise DataError(f"the file {path} does not exist", do=do)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive.items())
    except DAMAGED as error:
        raise DataError("the file is damaged or cut short, or no .npz", where=str(path), do=do) from error


def real(stored: Array) -> Array:
    """Numbers as numpy knows them: bfloat16 as float32, which holds them all."""
    return stored if stored.dtype.kind in "biuf" else stored.astype(np.float32)


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write a `.npz`, whole or not at all. Raises UsageError where that is impossible."""
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    write_file(path, buffer.getvalue())


def write_file(path: Path, data: bytes) -> None:
    """Write a file that the user named, whole or not at all. Raises UsageError where that is impossible."""
    try:
        write_whole(path, data)
    except OSError as error:
        raise UsageError(f"the file cannot be written: {error.strerror}", where=str(path), do="Name another") from error


def check_weights_path(path: Path) -> None:
    """Raise UsageError for a path that weights cannot be written to, before the work that makes them."""
    if path.suffix not in (".npz", ".pt", ".pth"):
        raise UsageError(f"weights cannot be written as {path.suffix or path.name!r}", do="Name a .pt or .npz file")
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} does not exist", do="Make it, or name another file")


def write_weights(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state_dict of torch tensors as `.npz`, or as `.pt` for `torch.load`."""
    import torch

    check_weights_path(path)
    if path.suffix == ".npz":
        write_npz(path, {name: tensor.numpy() for name, tensor in state.items()})
        return
    buffer = BytesIO()
    torch.save(dict(state), buffer)
    write_file(path, buffer.getvalue())


def read_weights(path: Path) -> dict[str, Array]:
    """Read weights from a `.npz`, or from a `.pt` with a state_dict. Raises DataError for any other or damaged file."""
    import torch

    advice = "Give a .npz, or a .pt with a state_dict, such as a run's weights.pt"
    if path.suffix == ".npz":
        return read_npz(path, advice)
    if not path.is_file():
        raise DataError(f"the file {path} does not exist", do=advice)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.numpy() for name, tensor in state.items()}
    except Exception as error:  # torch raises a dozen kinds, according to which byte is wrong
        what = "the file holds no weights, or is damaged or cut short"
        raise DataError(what, where=str(path), do=advice) from error
