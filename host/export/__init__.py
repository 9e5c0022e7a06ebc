"""A bundle as a C library for a user's own build system, that needs nothing of strop."""

import tempfile
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from strop.errors import UsageError
from strop.host.arrays import write_file
from strop.host.export.formats import FORMATS, format_of
from strop.host.export.inference import inference
from strop.host.export.library import contents

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle

__all__ = ["FORMATS", "check_free", "contents", "export", "inference"]

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every file in a zip, the first one that it can tell: equal contents give equal bytes."""


def export(bundle: "Bundle", out: Path, *, format: str = "c", force: bool = False) -> list[Path]:  # noqa: A002
    """Write the library, whole or not at all; returns its files, or the zip.

    out: a folder, or a file that ends in .zip.  format: a name of FORMATS.  force: replace a folder that holds other
    files, or a file. Raises UsageError for what is there already, and for an unknown format.
    """
    made = contents(bundle, format_of(format))
    check_free(out, force=force)
    if out.suffix == ".zip":
        return [_zipped(made, out)]
    _write_folder(made, out)
    return sorted(path for path in out.rglob("*") if path.is_file())


def check_free(out: Path, *, force: bool = False) -> None:
    """Raise UsageError if something is there that `export` would replace; force: it may."""
    if force or not out.exists():
        return
    if out.suffix == ".zip":
        raise UsageError(f"{out} exists", do="Name another file, or add --force to replace it")
    if not out.is_dir() or any(out.iterdir()):
        what = f"{out} exists and is {'not empty' if out.is_dir() else 'a file'}"
        raise UsageError(what, do="Name another folder, or add --force to replace it")


def _zipped(made: Mapping[str, str], out: Path) -> Path:
    """One folder in a zip, with the file's own name."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in sorted(made.items()):
            entry = zipfile.ZipInfo(f"{out.stem}/{path}", EPOCH)
            entry.external_attr, entry.create_system = 0o100644 << 16, 3
            archive.writestr(entry, text, zipfile.ZIP_DEFLATED)
    _made(out.parent)
    write_file(out, buffer.getvalue())
    return out


def _write_folder(made: Mapping[str, str], folder: Path) -> None:
    _made(folder.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            new = Path(temporary) / "new"
            for path, text in made.items():
                (new / path).parent.mkdir(parents=True, exist_ok=True)
                (new / path).write_text(text, encoding="utf-8")
            if folder.exists():
                folder.rename(Path(temporary) / "old")
            new.rename(folder)
    except OSError as error:
        what = f"the folder cannot be written: {error.strerror}"
        raise UsageError(what, where=str(folder), do="Name another") from error


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the folder cannot be made: {error.strerror}"
        raise UsageError(what, where=str(folder), do="Name another") from error
