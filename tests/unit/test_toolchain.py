"""Toolchains: found by name, missing ones named with their package; builds repeat byte for byte and are cached."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from strop.errors import PlanError, ToolchainError
from strop.targets import toolchain
from strop.targets.board import Board, load_board
from strop.targets.isa import load_isa
from strop.targets.toolchain import build_elf, build_shared, cache_folder, find_toolchain

BOARDS = ("qemu-rv32imf", "qemu-rv32imac", "qemu-cortex-m4f")
PROGRAM = """
#include "twice.h"
volatile float x = 3.0f;
volatile double wide;
int main(void) { x = twice(x); wide = (double)x * 1.5; return 0; }
"""
HEADER = "static inline float twice(float a) { return a * 2.0f; }\n"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STROP_CACHE", str(tmp_path / "cache"))


def _program(folder: Path, text: str = PROGRAM) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "twice.h").write_text(HEADER, encoding="utf-8")
    (folder / "main.c").write_text(text, encoding="utf-8")
    return folder / "main.c"


def _families(board: Board) -> list[str]:
    """The toolchains that are installed for a board; zig always is."""
    found = ["zig"]
    for name in ("gcc", "clang"):
        try:
            found.append(find_toolchain(name, board.core).name)
        except ToolchainError:
            continue
    return found


@pytest.mark.parametrize("name", BOARDS)
def test_builds_repeat_byte_for_byte(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = load_board(name)
    for family in _families(board):
        images = []
        for place in ("here", "a/much/longer/path/elsewhere"):
            monkeypatch.setenv("STROP_CACHE", str(tmp_path / place / "cache"))
            source = _program(tmp_path / place / "source")
            images.append(build_elf(board, [source], [], tmp_path / place / "a.elf", toolchain=family).read_bytes())
        assert images[0] == images[1]
        assert str(tmp_path).encode() not in images[0]


def test_second_build_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _program(tmp_path / "source")
    first = build_elf(load_board(BOARDS[0]), [source], [], tmp_path / "a.elf").read_bytes()
    monkeypatch.setattr(toolchain, "_run", lambda *_: pytest.fail("compiled again"))
    assert build_elf(load_board(BOARDS[0]), [source], [], tmp_path / "b.elf").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.elf", "b.elf", "cache", "source"]


@pytest.mark.parametrize("change", ["source", "header", "define", "board"])
def test_a_change_is_compiled(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _program(tmp_path / "source")
    build_elf(load_board(BOARDS[0]), [source], [], tmp_path / "a.elf")
    if change == "source":
        source.write_text(PROGRAM + "// more\n", encoding="utf-8")
    if change == "header":
        (source.parent / "twice.h").write_text(HEADER + "// more\n", encoding="utf-8")
    board = load_board(BOARDS[0])
    board = board.model_copy(update={"stack_reserve": 2048}) if change == "board" else board
    ran: list[str] = []
    monkeypatch.setattr(toolchain, "_run", lambda *_: ran.append(change) or Path(_[1][-1]).touch())
    build_elf(board, [source], [], tmp_path / "b.elf", ["MORE=1"] if change == "define" else [])
    assert ran == [change]


def test_an_error_names_the_line_and_leaves_nothing(tmp_path: Path) -> None:
    source = _program(tmp_path / "source", "int main(void) { return missing; }\n")
    with pytest.raises(ToolchainError, match=r"main.c:1:.*undeclared identifier 'missing'.*qemu-rv32imf"):
        build_elf(load_board(BOARDS[0]), [source], [], tmp_path / "a.elf")
    assert not (tmp_path / "a.elf").exists()
    assert not any(path.is_file() for path in cache_folder().rglob("*"))


def test_warnings_are_errors(tmp_path: Path) -> None:
    source = _program(tmp_path / "source", "int main(void) { unsigned char c = 1000; return c; }\n")
    with pytest.raises(ToolchainError, match=r"main.c:1"):
        build_elf(load_board(BOARDS[0]), [source], [], tmp_path / "a.elf")


@pytest.mark.parametrize("name", BOARDS)
@pytest.mark.parametrize(
    ("kind", "size", "what"),
    [
        ("", 9_900_000, r"needs \d,\d\d\d,\d\d\d B more RAM than"),
        ("const", 9_900_000, r"needs \d,\d\d\d,\d\d\d B more flash than"),
        ("", None, "leaves too little RAM for the stack"),
    ],
)
def test_a_program_too_large_says_by_how_much(
    kind: str, size: int | None, what: str, name: str, tmp_path: Path
) -> None:
    board = load_board(name)
    size = size or board.memory[1].length - 256
    text = f"{kind} char huge[{size}] = {{{int(bool(kind))}}}; volatile int at; int main(void) {{ return huge[at]; }}\n"
    source = _program(tmp_path / "source", text)
    for family in _families(board):
        with pytest.raises(PlanError, match=rf"{what}.*{name}"):
            build_elf(board, [source], [], tmp_path / "a.elf", toolchain=family)


def test_a_missing_source(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="cannot read a source"):
        build_elf(load_board(BOARDS[0]), [tmp_path / "gone.c"], [], tmp_path / "a.elf")


@pytest.mark.parametrize(
    ("name", "isa", "advice"),
    [
        ("gcc", "rv32imf", "'riscv64-unknown-elf-gcc'.*apt-get install gcc-riscv64-unknown-elf"),
        ("gcc", "cortex-m4f", "'arm-none-eabi-gcc'.*apt-get install gcc-arm-none-eabi"),
        ("gcc", "host", "'gcc'.*apt-get install gcc"),
        ("clang", "rv32imac", "'clang'.*apt-get install clang-19"),
        ("clang-17", "host", "'clang-17'.*apt-get install clang-17"),
    ],
)
def test_a_missing_compiler_names_its_package(
    name: str, isa: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolchainError, match=advice):
        find_toolchain(name, load_isa(isa))


@pytest.mark.parametrize(("name", "guess"), [("gc", "gcc"), ("zigg", "zig"), ("clang-x", "clang"), ("zig-9", "zig")])
def test_unknown_toolchain_suggests_the_nearest(name: str, guess: str) -> None:
    with pytest.raises(ToolchainError, match=f"no toolchain '{name}'.*Did you mean '{guess}'"):
        find_toolchain(name, load_isa("host"))


def test_clang_without_a_number_is_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("clang-9", "clang-19", "clang-format-20"):
        (tmp_path / name).write_text("#!/bin/sh\necho version of $0\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_toolchain("clang", load_isa("host"))
    assert found.command == (str(tmp_path / "clang-19"),)


def _compiler_that_knows(folder: Path, name: str, words: str) -> None:
    """A compiler that refuses the word that a shell pattern finds among its arguments."""
    (folder / name).write_text(f"#!/bin/sh\ncase $* in *{words}*) exit 1;; esac\necho {name} version\n")
    (folder / name).chmod(0o755)


def test_an_old_clang_is_spelled_to_in_its_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLVM 14, Debian 12's, has no word for the CSR instructions, and no vectors of half floats."""
    _compiler_that_knows(tmp_path, "clang", "zicsr")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "-march=rv32imac" in find_toolchain("clang", load_isa("rv32imac")).flags
    _compiler_that_knows(tmp_path, "clang-19", "nothing")
    assert find_toolchain("clang-19", load_isa("rv32imac")).flags == load_isa("rv32imac").flags["clang"]


def test_the_newest_clang_where_the_first_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _compiler_that_knows(tmp_path, "clang", "zvfh")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match=r"clang version makes no code for rv32v\. Choose a newer one, or zig"):
        find_toolchain("clang", load_isa("rv32v"))
    _compiler_that_knows(tmp_path, "clang-19", "nothing")
    assert find_toolchain("clang", load_isa("rv32v")).command == (str(tmp_path / "clang-19"),)
    assert find_toolchain("clang", load_isa("rv32imf")).command == (str(tmp_path / "clang"),)


def test_a_family_without_flags_for_a_core() -> None:
    with pytest.raises(ToolchainError, match=r"gcc makes no code for rv32v\. Choose clang or zig"):
        find_toolchain("gcc", load_isa("rv32v"))


@pytest.mark.parametrize("family", ["zig", "gcc", "clang"])
def test_a_shared_library_computes(family: str, tmp_path: Path) -> None:
    try:
        find_toolchain(family, load_isa("host"))
    except ToolchainError as missing:
        pytest.skip(str(missing))
    source = tmp_path / "sum.c"
    source.write_text("float f(float a, float b, float c); float f(float a, float b, float c) { return a * b + c; }\n")
    library = ctypes.CDLL(str(build_shared([source], [], tmp_path / "libsum.so", toolchain=family)))
    library.f.restype, library.f.argtypes = ctypes.c_float, [ctypes.c_float] * 3
    a = 1 + 2**-12  # a*a needs 25 bits: contracted to an fma, the sum below would be 2**-24, not 0
    assert library.f(a, a, -(1 + 2**-11)) == 0.0


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc on this machine")
def test_memory_functions(tmp_path: Path) -> None:
    """Against Python, over all alignments, lengths around a word, and overlaps in both directions."""
    renamed = [f"-D{name}=my_{name}" for name in ("memcpy", "memmove", "memset", "memcmp")]
    library_path = tmp_path / "memory.so"
    source = toolchain.FIRMWARE / "memory.c"
    command = ["gcc", "-O2", "-ffreestanding", "-shared", "-fPIC", *renamed, str(source), "-o", str(library_path)]
    subprocess.run(command, check=True)
    library = ctypes.CDLL(str(library_path))
    original = bytes(range(1, 65))
    for to in range(24, 33):
        for start in range(20, 36):
            for n in (0, 1, 3, 4, 5, 11, 16):
                memory = ctypes.create_string_buffer(original, 64)
                library.my_memmove(ctypes.byref(memory, to), ctypes.byref(memory, start), n)
                expected = bytearray(original)
                expected[to : to + n] = original[start : start + n]
                assert memory.raw == expected
    for to in range(8):
        for n in (0, 1, 3, 4, 5, 11, 16):
            memory = ctypes.create_string_buffer(original, 64)
            library.my_memset(ctypes.byref(memory, to), 0x1A5, n)
            assert memory.raw == original[:to] + b"\xa5" * n + original[to + n :]
            library.my_memcpy(ctypes.byref(memory, 32 + to), original, n)
            assert memory.raw[32 + to : 32 + to + n] == original[:n]
    assert library.my_memcmp(b"abc", b"abd", 2) == 0
    assert library.my_memcmp(b"abc", b"abd", 3) < 0 < library.my_memcmp(b"ab\xff", b"ab\x01", 3)
