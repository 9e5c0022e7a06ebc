"""C compilers: one call from sources to a linked program for a board, or to a shared library for this PC.

zig (from PyPI, with every target and its runtime library built in) is the default; gcc and clang are taken by name,
``gcc``, ``clang`` or with a version as in ``clang-19``. A result depends on the sources' contents, the compiler and
the flags only: no path, time or build number gets into it, and it is kept in a cache under the hash of those.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from strop import firmware, runtime
from strop.errors import PlanError, ToolchainError, nearest
from strop.targets.board import Board
from strop.targets.isa import Isa, load_isa
from strop.targets.link import linker_script

FIRMWARE = Path(firmware.__file__).parent
RUNTIME = Path(runtime.__file__).parent

WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")

NUMERICS = ("-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fomit-frame-pointer", "-g0")
"""Contraction only where the program says fma; without math-errno __builtin_fmaf is an instruction on clang too."""

BARE_METAL = (
    "-O2", "-fno-unroll-loops", "-ffreestanding", "-ffunction-sections", "-fdata-sections", "-fno-jump-tables",
    "-fno-unwind-tables", "-fno-asynchronous-unwind-tables",
)  # fmt: skip
"""No jump tables: what a switch may reach then stays visible to the stack analysis."""

LINK = ("-Wl,--gc-sections", "-Wl,--build-id=none", "-Wl,-z,max-page-size=16")
SHARED = ("-O3", "-shared", "-fPIC", "-Wl,--build-id=none")

OWN_FLAGS = {"zig": ("-fno-sanitize=undefined",), "gcc": (), "clang": ()}
"""zig cc traps undefined behaviour unless told otherwise; the sanitised builds of the tests ask for it themselves."""

LINK_LIBRARIES = {"zig": (), "gcc": ("-nostdlib", "-lgcc")}
"""zig adds its own runtime library (soft float, 64-bit arithmetic)."""


@dataclass(frozen=True)
class Toolchain:
    """A compiler found on this machine: its ``name`` as asked for, its ``family``, the command that runs it, and the
    flags that choose the core, as this version spells them."""

    name: str
    family: str
    command: tuple[str, ...]
    version: str
    flags: tuple[str, ...]


def find_toolchain(name: str, isa: Isa) -> Toolchain:
    """Find a compiler that makes code for ``isa``.

    Raises ToolchainError: an unknown name, a missing program together with the command that installs it, or one that
    is too old for the core.
    """
    family, _, number = name.partition("-")
    if family not in OWN_FLAGS or (number and (family == "zig" or not re.fullmatch(r"[\d.]+", number))):
        raise ToolchainError(f"there is no toolchain {name!r}", do=nearest(name, OWN_FLAGS))
    if family not in isa.flags:
        raise ToolchainError(f"{family} makes no code for {isa.name}", do=f"Choose {' or '.join(sorted(isa.flags))}")
    if family == "zig":
        command = (sys.executable, "-m", "ziglang", "cc")
        return Toolchain(name, family, command, f"zig {version('ziglang')}", isa.flags["zig"])
    return _installed(name, family, isa)


def _installed(name: str, family: str, isa: Isa) -> Toolchain:
    """The gcc or clang of that name that knows the core. ``clang`` alone is the first one on PATH, or the newest."""
    program = f"{isa.gcc_prefix if family == 'gcc' else ''}{name}"
    paths = [path for path in (shutil.which(program), _newest_clang() if name == "clang" else None) if path]
    package = isa.gcc_package if name == "gcc" else "clang-19" if name == "clang" else name
    if not paths:
        raise ToolchainError(f"there is no compiler {program!r} on this machine", do=f"sudo apt-get install {package}")
    for path in paths:
        if spelled := _spelled(path, isa.flags[family]):
            return Toolchain(name, family, (path,), _version_line(path), spelled)
    others = " or ".join(sorted(isa.flags.keys() - {family}))
    what = f"{_version_line(paths[0])} makes no code for {isa.name}"
    raise ToolchainError(what, do=f"Choose a newer one, or {others}")


@cache
def _spelled(path: str, flags: tuple[str, ...]) -> tuple[str, ...]:
    """A core's flags as this compiler takes them; empty if it does not know the core.

    Before version 17, LLVM has the CSR instructions in rv32i and no name for them.
    """
    for spelled in dict.fromkeys((flags, tuple(flag.replace("_zicsr", "") for flag in flags))):
        command = [path, *spelled, "-E", "-x", "c", os.devnull]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return spelled
    return ()


def _newest_clang() -> str | None:
    """Return Debian's clang with the highest number."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    found = [path for folder in folders for path in folder.glob("clang-*") if path.name[6:].isdigit()]
    return str(max(found, key=lambda path: int(path.name[6:]))) if found else None


@cache
def _version_line(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


def build_elf(
    board: Board,
    sources: Sequence[Path],
    includes: Sequence[Path],
    out: Path,
    defines: Sequence[str] = (),
    toolchain: str = "zig",
) -> Path:
    """Compile and link a program for ``board`` and return ``out``.

    sources: C files with ``main``; start-up code, the board's port and the memory functions are added. defines: as
    ``NAME=VALUE``. Raises ToolchainError with the compiler's first error, PlanError if the program is too large.
    """
    compiler = find_toolchain(toolchain, board.core)
    own = [FIRMWARE / board.core.startup, FIRMWARE / "boot.c", FIRMWARE / "memory.c", board.port_source]
    own += [FIRMWARE / "team.c"] if board.constants.get("harts", 1) > 1 else []
    everything = [*sources, *own]
    folders = [*includes, FIRMWARE]
    flags = _flags(compiler, folders, [*board.defines, *defines]) + BARE_METAL
    script = linker_script(board)

    def link(target: Path, folder: Path) -> None:
        (folder / "link.ld").write_text(script, encoding="utf-8")
        options = [*LINK, f"-Wl,-T,{folder / 'link.ld'}", "-o", str(target)]
        if compiler.family == "clang":
            _link_with_zig(compiler, flags, everything, board, folder, options)
        else:
            _run(compiler, [*flags, *map(str, everything), *options, *LINK_LIBRARIES[compiler.family]], board.name)

    return _cached(_key(compiler, flags, everything, folders, script), out, link)


def _link_with_zig(
    compiler: Toolchain, flags: Sequence[str], sources: Sequence[Path], board: Board, folder: Path, options: list[str]
) -> None:
    """Debian's clang has neither linker nor runtime library for microcontrollers; zig lends both."""
    objects: list[str] = []
    for source in sources:
        objects.append(str(folder / f"{len(objects)}.o"))
        _run(compiler, [*flags, "-c", str(source), "-o", objects[-1]], board.name)
    zig = find_toolchain("zig", board.core)
    _run(zig, [*board.core.flags["zig"], *BARE_METAL[:1], *objects, *options], board.name)


def build_firmware(board: Board, model: Path, out: Path, defines: Sequence[str] = (), toolchain: str = "zig") -> Path:
    """Link the firmware of a generated model: all C files in folder ``model``, the runtime and the main loop."""
    sources = [FIRMWARE / "main.c", *runtime_sources(), *sorted(model.glob("*.c"))]
    return build_elf(board, sources, [model, RUNTIME], out, defines, toolchain)


def build_twin(model: Path, out: Path, defines: Sequence[str] = (), toolchain: str = "zig") -> Path:
    """Link the twin of a generated model: the same files as a shared library for this PC."""
    sources = [RUNTIME / "twin.c", *runtime_sources(), *sorted(model.glob("*.c"))]
    return build_shared(sources, [model, RUNTIME], out, defines, toolchain)


def runtime_sources() -> list[Path]:
    """Return the C files of the runtime that board and twin share."""
    return [path for path in sorted(RUNTIME.glob("*.c")) if path.name != "twin.c"]


def build_shared(
    sources: Sequence[Path],
    includes: Sequence[Path],
    out: Path,
    defines: Sequence[str] = (),
    toolchain: str = "zig",
) -> Path:
    """Compile and link a shared library for this PC, with every instruction its CPU has, and return ``out``."""
    compiler = find_toolchain(toolchain, load_isa("host"))
    flags = (*_flags(compiler, includes, defines), *SHARED)

    def link(target: Path, _folder: Path) -> None:
        _run(compiler, [*flags, *map(str, sources), "-o", str(target)], "this PC")

    return _cached(_key(compiler, flags, sources, includes, _cpu()), out, link)


def _flags(compiler: Toolchain, includes: Iterable[Path], defines: Iterable[str]) -> tuple[str, ...]:
    search = (f"-I{folder}" for folder in includes)
    macros = (f"-D{macro}" for macro in defines)
    return (*compiler.flags, *OWN_FLAGS[compiler.family], *NUMERICS, *WARNINGS, *search, *macros)


def _run(compiler: Toolchain, arguments: Sequence[str], where: str) -> None:
    done = subprocess.run([*compiler.command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        _check_room(done.stderr, where)
        raise ToolchainError(f"{compiler.version} refuses the program: {_complaint(done.stderr)}", where=where)


def _check_room(stderr: str, where: str) -> None:
    """Raise PlanError if a linker says that a memory is too small; the largest of several figures is the whole one."""
    found = re.findall(r"region [`']?(FLASH|RAM)'?:? overflowed by (\d+) bytes", stderr)
    memory, missing = max(found, key=lambda each: int(each[1]), default=("", "0"))
    what = f"the program needs {int(missing):,} B more {'flash' if memory == 'FLASH' else memory} than there is"
    if not found and "too little RAM" in stderr:  # the linker script's own words
        what = "the program leaves too little RAM for the stack"
    elif not found:
        return
    raise PlanError(what, where=where, do="Choose a larger board, a smaller network or type, or a rule that keeps less")


def _complaint(stderr: str) -> str:
    """Return the line that says why: the first error, or what a linker said before its driver says that it failed."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("collect2")]
    errors = [line for line in lines if re.search(r"error|undefined reference", line)]
    return (errors or lines or ["it printed nothing"])[0]


# --- cache ------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Return where build results are kept: STROP_CACHE, or ``strop`` in XDG_CACHE_HOME or in ~/.cache."""
    if chosen := os.environ.get("STROP_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "strop"


def _key(
    compiler: Toolchain, flags: Sequence[str], sources: Sequence[Path], includes: Iterable[Path], extra: str
) -> str:
    """Return a hash of all that the result depends on; a folder counts by the headers in it, not by its path."""
    folders = [*dict.fromkeys([*includes, *(source.parent for source in sources)])]
    headers = [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix in (".h", ".def", ".inc")]
    digest = hashlib.sha256()
    for part in (compiler.version, *(flag for flag in flags if not flag.startswith("-I")), extra):
        digest.update(part.encode() + b"\0")
    for path in [*sources, *headers]:
        digest.update(path.name.encode() + b"\0" + _contents(path) + b"\0")
    return digest.hexdigest()


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ToolchainError(f"cannot read a source: {error}", where=str(path)) from error


def _cached(key: str, out: Path, make: Callable[[Path, Path], None]) -> Path:
    """Fill ``out`` from the cache, making a missing entry first. Safe among processes: files appear whole."""
    kept = cache_folder() / key[:2] / key
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            made = Path(folder) / "made"
            make(made, Path(folder))
            made.replace(kept)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.copy(kept, partial)
    partial.replace(out)
    return out


@cache
def _cpu() -> str:
    """Return what -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return "\n".join([platform.machine(), *(line for line in lines if line.startswith(("flags", "Features")))][:2])
