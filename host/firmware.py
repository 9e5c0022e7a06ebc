"""From a bundle to something that runs: the firmware of its board, the library alone, or the twin."""

from pathlib import Path
from typing import TYPE_CHECKING

from strop.compiler.bundle import write_whole
from strop.compiler.ir import digest
from strop.targets.toolchain import FIRMWARE, RUNTIME, build_elf, build_firmware, build_twin, cache_folder

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


def library_elf(bundle: "Bundle", toolchain: str = "zig") -> Path:
    """A program of the model alone, called as a user's own firmware would: what the exported library costs."""
    folder = sources(bundle)
    files = [folder / "strop_model.c", RUNTIME / "numerics.c", FIRMWARE / "library.c"]
    out = folder / f"{bundle.board.name}-{toolchain}-library.elf"
    return build_elf(bundle.board, files, [folder, RUNTIME], out, [], toolchain)
