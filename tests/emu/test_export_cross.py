"""The exported CMake package in a user's firmware project, cross-compiled as users do it: their compiler, a toolchain
file, and no flags but the core's and all warnings. It trains on emulated boards to the twin's figures."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from exported import bundle_for, expected_lines, lines_of

from strop.errors import ToolchainError
from strop.host.export import export
from strop.targets.board import Board, load_board
from strop.targets.isa.rv32imf import APART, DOWN
from strop.targets.link import linker_script
from strop.targets.toolchain import FIRMWARE, Toolchain, find_toolchain

PROJECT = Path(__file__).parent / "example"
CMAKE = shutil.which("cmake", path=str(Path(sys.executable).parent)) or shutil.which("cmake")

TOOLCHAIN = """
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR {arch})
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_C_COMPILER {command})
set(CMAKE_ASM_COMPILER {command})
set(CMAKE_C_FLAGS_INIT "{flags} -ffreestanding -Wall -Wextra -Wconversion -Werror")
set(CMAKE_ASM_FLAGS_INIT "{flags}")
"""
LINKING = {"gcc": (["-nostdlib"], "gcc"), "clang": (["-nostdlib", "-fuse-ld=lld"], ""), "zig": ([], "")}
"""Options of the linker by family, and the runtime library: zig has its own at hand."""


def compiler_for(name: str, board: Board) -> Toolchain:
    try:
        found = find_toolchain(name, board.core)
    except ToolchainError as missing:
        pytest.skip(str(missing))
    if found.family == "clang" and not shutil.which("ld.lld"):
        pytest.skip("clang links for these cores with lld only: apt-get install lld")
    return found


def cmake(*words: str | Path) -> None:
    if not CMAKE:
        pytest.skip("cmake is not installed")
    done = subprocess.run([CMAKE, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()


def listed(words: Sequence[str | Path]) -> str:
    return ";".join(map(str, words))


def core_flags(compiler: Toolchain, board: Board) -> list[str]:
    """The core's, without what strop adds for its scheduler; lld relaxes RISC-V's calls since version 15."""
    flags = [flag for flag in compiler.flags if flag not in (*APART, *DOWN)]
    return [*flags, "-mno-relax"] if (compiler.family, board.core.arch) == ("clang", "riscv32") else flags


def settings(library: Path, board: Board, compiler: Toolchain, folder: Path) -> list[str]:
    """What the project is told: the exported folder, the board's own sources, and how to link."""
    (folder / "link.ld").write_text(linker_script(board))
    (folder / "toolchain.cmake").write_text(TOOLCHAIN.format(
        arch=board.core.arch, command=listed(compiler.command), flags=" ".join(core_flags(compiler, board))
    ))  # fmt: skip
    own = [FIRMWARE / board.core.startup, FIRMWARE / "boot.c", FIRMWARE / "memory.c", board.port_source]
    own += [PROJECT / "aeabi.c"] if (compiler.family, board.core.arch) == ("clang", "thumb") else []
    script, (options, runtime) = f"-T{folder / 'link.ld'}", LINKING[compiler.family]
    return [
        f"-DCMAKE_TOOLCHAIN_FILE={folder / 'toolchain.cmake'}", "-DCMAKE_BUILD_TYPE=MinSizeRel", f"-DLIBRARY={library}",
        f"-DBOARD_SOURCES={listed(own)}", f"-DBOARD_FOLDERS={FIRMWARE}", f"-DBOARD_DEFINES={listed(board.defines)}",
        f"-DLINKING={listed([script, *options])}", f"-DRUNTIME={runtime}",
    ]  # fmt: skip


@pytest.mark.parametrize("board", ["qemu-rv32imf", "qemu-cortex-m4f"])
@pytest.mark.parametrize("compiler", ["gcc", "clang", "zig"])
def test_a_firmware_project_uses_the_package(tmp_path: Path, board: str, compiler: str) -> None:
    target, bundle = load_board(board), bundle_for(board)
    found = compiler_for(compiler, target)
    export(bundle, tmp_path / "library", format="cmake")
    cmake("-S", PROJECT, "-B", tmp_path / "b", *settings(tmp_path / "library", target, found, tmp_path))
    cmake("--build", tmp_path / "b")
    assert lines_of(tmp_path / "b" / "sensor", board, 4) == expected_lines(bundle, 3)
