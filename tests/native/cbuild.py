"""Compiles C into a shared library or an object for a test. A Path is a source file, a str is C text."""

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
EXACT = ("-std=c11", "-ffp-contract=off", "-fno-math-errno")
COMPILERS = {"zig": (sys.executable, "-m", "ziglang", "cc"), "gcc": ("gcc",), "clang": ("clang",)}
_SCRATCH = TemporaryDirectory(prefix="strop-cbuild-")  # goes with the test run


def has_compiler(cc: str) -> bool:
    """Say whether ``cc`` can be run here; zig comes with the package."""
    return shutil.which(COMPILERS[cc][0]) is not None


def compile_c(sources: Sequence[Path | str], output: str, *, cc: str = "zig", flags: Sequence[str] = ()) -> Path:
    """Compile to ``output`` in a fresh directory and return its path; a warning fails the test with its text."""
    folder = Path(mkdtemp(dir=_SCRATCH.name))
    files = [s if isinstance(s, Path) else _write(folder / f"text{i}.c", s) for i, s in enumerate(sources)]
    command = [*COMPILERS[cc], *EXACT, *WARNINGS, f"-I{RUNTIME}", *flags, *map(str, files), "-o", str(folder / output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return folder / output


def build_shared(sources: Sequence[Path | str], *, cc: str = "zig", flags: Sequence[str] = ()) -> ctypes.CDLL:
    """Compile ``sources`` for this machine and load them; repeated calls share one library."""
    return _shared(tuple(sources), cc, tuple(flags))


@cache
def _shared(sources: tuple[Path | str, ...], cc: str, flags: tuple[str, ...]) -> ctypes.CDLL:
    path = compile_c(sources, "library.so", cc=cc, flags=("-O2", "-shared", "-fPIC", *flags))
    return ctypes.CDLL(str(path))


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
