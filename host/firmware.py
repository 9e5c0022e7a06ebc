"""From a bundle to something that runs: the firmware of its board, the library alone, or the twin."""

from pathlib import Path
from typing import TYPE_CHECKING

from strop.compiler.bundle import write_whole
from strop.compiler.ir import digest
from strop.errors import UsageError
from strop.targets.toolchain import (
    FIRMWARE,
    RUNTIME,
    build_elf,
    build_firmware,
    build_twin,
    cache_folder,
    runtime_sources,
)

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle


def sources(bundle: "Bundle") -> Path:
    """A folder with the bundle's C files, kept in the cache under their hash."""
    folder = cache_folder() / "models" / digest(repr(sorted(bundle.files.items())).encode())[:32]
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in bundle.files.items():
        if not (folder / name).is_file():
            write_whole(folder / name, text.encode())
    return folder


def twin_library(bundle: "Bundle", toolchain: str = "zig") -> Path:
    """The twin as a shared library of this PC."""
    folder = sources(bundle)
    return build_twin(folder, folder / f"twin-{toolchain}.so", toolchain=toolchain)


def elf(bundle: "Bundle", *, toolchain: str = "zig", profile: bool = False) -> Path:
    """The firmware of the bundle's board. profile: with a counter around every kernel."""
    folder = sources(bundle)
    name = f"{bundle.board.name}-{toolchain}{'-profile' if profile else ''}.elf"
    return build_firmware(bundle.board, folder, folder / name, ["STROP_COUNT_KERNELS"] if profile else [], toolchain)


def onboard_elf(bundle: "Bundle", sample: Path, *, every: int = 100, autosave: int = 0, toolchain: str = "zig") -> Path:
    """Firmware that trains on what `strop_sample` of a C file gives (see firmware/onboard.h).

    every: steps between two reports.  autosave: steps between two checkpoints, 0 for none. Raises UsageError for a file
    that is missing, ToolchainError for one that does not compile.
    """
    if not sample.is_file():
        raise UsageError(f"the file {sample} does not exist", do="Name a C file with strop_sample; see docs/onboard.md")
    folder, name = sources(bundle), f"{bundle.board.name}-{toolchain}-onboard.elf"
    files = [FIRMWARE / "main.c", FIRMWARE / "onboard.c", *runtime_sources(), *sorted(folder.glob("*.c")), sample]
    label = "int32_t" if bundle.manifest["classes"] else "float"
    defines = [f"STROP_ONBOARD={every}", f"STROP_LABEL={label}", f"STROP_ONBOARD_AUTOSAVE={autosave}"]
    out = folder / name
    return build_elf(bundle.board, files, [folder, RUNTIME, sample.parent], out, defines, toolchain)


def library_elf(bundle: "Bundle", toolchain: str = "zig") -> Path:
    """A program of the model alone, called as a user's own firmware would: what the exported library costs."""
    folder = sources(bundle)
    files = [folder / "strop_model.c", RUNTIME / "numerics.c", FIRMWARE / "library.c"]
    out = folder / f"{bundle.board.name}-{toolchain}-library.elf"
    return build_elf(bundle.board, files, [folder, RUNTIME], out, [], toolchain)
