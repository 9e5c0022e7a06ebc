"""runtime/numerics: error bounds, special values, shape, and the same bits from every compiler and core.

``STROP_SWEEP_STRIDE=1`` makes the error sweeps exhaustive (minutes); the header's "max seen" comes from that.
"""

import ctypes
import math
import os
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cbuild import RUNTIME, build_shared, compile_c, has_compiler
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

HERE = Path(__file__).parent
NUMERICS = RUNTIME / "numerics.c"
STRIDE = int(os.environ.get("STROP_SWEEP_STRIDE", "509"))  # a prime: meets every exponent with many mantissas
INF, NAN = math.inf, math.nan
BOUNDS = {  # ulp, as runtime/numerics.h promises
    "strop_expf": (1.0, "exp"),
    "strop_logf": (0.85, "log"),
    "strop_tanhf": (1.5, "tanh"),
    "strop_sigmoidf": (2.5, "reference_sigmoid"),
    "strop_sqrtf_soft": (0.5, "sqrt"),
}


@pytest.fixture(scope="module")
def lib() -> ctypes.CDLL:
    """The software versions of everything, with the sweeps."""
    library = build_shared([NUMERICS, HERE / "sweep.c"], flags=("-DSTROP_SOFT", "-O3", "-lm"))
    library.worst_error.restype = ctypes.c_double
    return library


def evaluate(lib: ctypes.CDLL, name: str, x: float) -> float:
    function = lib[name]
    function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
    return float(function(x))


def bits(x: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", x))[0])


def from_bits(u: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", u))[0])


@pytest.mark.parametrize("name", BOUNDS)
def test_error_bound(lib: ctypes.CDLL, name: str) -> None:
    bound, exact = BOUNDS[name]
    at = ctypes.c_float()
    worst = lib.worst_error(lib[name], lib[exact], ctypes.c_uint32(STRIDE), ctypes.byref(at))
    print(f"{name}: {worst:.4f} ulp at {at.value!r}")
    assert worst <= bound, f"{worst} ulp at {at.value!r}"


def test_header_states_the_tested_bounds() -> None:
    text = (RUNTIME / "numerics.h").read_text()
    for name, (bound, _) in BOUNDS.items():
        row = next(line for line in text.splitlines() if line.startswith(f" *   {name.removesuffix('_soft')} "))
        assert f" {bound} " in row, row


SPECIAL = [
    ("strop_expf", 0.0, 1.0), ("strop_expf", -0.0, 1.0), ("strop_expf", INF, INF), ("strop_expf", -INF, 0.0),
    ("strop_expf", from_bits(0x42B17217), math.exp(from_bits(0x42B17217))), ("strop_expf", from_bits(0x42B17218), INF),
    ("strop_expf", -103.97207, from_bits(1)), ("strop_expf", -103.97209, 0.0),
    ("strop_logf", 1.0, 0.0), ("strop_logf", 0.0, -INF), ("strop_logf", -0.0, -INF), ("strop_logf", INF, INF),
    ("strop_logf", -1.0, NAN), ("strop_logf", -INF, NAN), ("strop_logf", from_bits(1), -103.278929903431851),
    ("strop_tanhf", 0.0, 0.0), ("strop_tanhf", -0.0, -0.0), ("strop_tanhf", INF, 1.0), ("strop_tanhf", -INF, -1.0),
    ("strop_tanhf", from_bits(1), from_bits(1)), ("strop_tanhf", -1e-40, -1e-40),
    ("strop_sigmoidf", 0.0, 0.5), ("strop_sigmoidf", -0.0, 0.5), ("strop_sigmoidf", INF, 1.0),
    ("strop_sigmoidf", -INF, 0.0), ("strop_sigmoidf", -103.0, 1.8048e-45), ("strop_sigmoidf", 200.0, 1.0),
    ("strop_sqrtf_soft", 0.0, 0.0), ("strop_sqrtf_soft", -0.0, -0.0), ("strop_sqrtf_soft", INF, INF),
    ("strop_sqrtf_soft", -from_bits(1), NAN), ("strop_sqrtf_soft", -INF, NAN), ("strop_sqrtf_soft", 4.0, 2.0),
    *((name, NAN, NAN) for name in BOUNDS), *((name, -NAN, NAN) for name in BOUNDS),
]  # fmt: skip


@pytest.mark.parametrize(("name", "x", "expected"), SPECIAL)
def test_special_values(lib: ctypes.CDLL, name: str, x: float, expected: float) -> None:
    got = evaluate(lib, name, x)
    assert math.isnan(got) if math.isnan(expected) else bits(got) == bits(expected)


def test_tanh_is_odd_bounded_and_monotone(lib: ctypes.CDLL) -> None:
    """Exhaustive where tanh is neither its argument (below 2^-12) nor 1."""
    first, last = bits(2.0**-13), bits(9.5)
    assert lib.count_broken_shape(lib.strop_tanhf, first, last, ctypes.c_float(1.0)) == 0
    assert evaluate(lib, "strop_tanhf", 2.0**-13) == 2.0**-13
    assert evaluate(lib, "strop_tanhf", 9.5) == 1.0


def test_soft_sqrt_is_correctly_rounded(lib: ctypes.CDLL) -> None:
    """Every mantissa in two neighbouring octaves is every case there is; then subnormals and all exponents."""
    assert lib.count_wrong_roots(lib.strop_sqrtf_soft, bits(1.0), 1, 1 << 24) == 0
    assert lib.count_wrong_roots(lib.strop_sqrtf_soft, 0, 16411, 0x00800000 // 16411) == 0
    assert lib.count_wrong_roots(lib.strop_sqrtf_soft, 0, 4099, 0xFFFFFFFF // 4099) == 0


def test_sqrt_instruction_gives_the_same_bits() -> None:
    lib = build_shared([NUMERICS, HERE / "sweep.c"], flags=("-lm",))
    assert lib.count_wrong_roots(lib.inline_sqrt, 0, 4099, 0xFFFFFFFF // 4099) == 0


def test_soft_fma_is_correctly_rounded(lib: ctypes.CDLL) -> None:
    """Against the C library's fmaf, which is the processor's where it has one."""
    positive = [0, 1, 2, 3, 0x3FFFFF, 0x400000, 0x7FFFFF, 0x800000, 0x800001, 0xFFFFFF, 0x1000000, 0x33800000,
                0x33800001, 0x34000000, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x3FFFFFFF, 0x5F7FFFFF, 0x5F800000,
                0x7EFFFFFF, 0x7F000000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000]  # fmt: skip
    edges = np.array([p | sign for p in positive for sign in (0, 0x80000000)], np.uint32)
    pointer = edges.ctypes.data_as(ctypes.c_void_p)
    assert lib.count_wrong_fma_edges(lib.strop_fmaf_soft, pointer, len(edges)) == 0
    assert lib.count_wrong_fma_random(lib.strop_fmaf_soft, 1 << 20) == 0


SAMPLE = 20011
DIGEST = (HERE / "digest.c", HERE / "half.c")
BUILDS = {
    "zig -O0, undefined behaviour traps": ("zig", ("-O0", "-fsanitize=undefined", "-fsanitize-trap=undefined")),
    "zig -O3": ("zig", ("-O3",)),
    "zig -O2, software": ("zig", ("-DSTROP_SOFT",)),
    "zig -Os, native": ("zig", ("-Os", "-march=native")),
    "gcc -O0": ("gcc", ("-O0",)),
    "gcc -O2": ("gcc", ("-O2",)),
    "gcc -O2, with errno": ("gcc", ("-O2", "-fmath-errno")),
    "gcc -O3, native, software": ("gcc", ("-O3", "-march=native", "-DSTROP_SOFT")),
    "clang -O2": ("clang", ("-O2",)),
}


def digests(cc: str, flags: tuple[str, ...]) -> list[str]:
    if not has_compiler(cc):
        pytest.skip(f"{cc} is not installed")
    lib = build_shared([NUMERICS, *DIGEST], cc=cc, flags=flags)
    return [f"{lib.digest(which, SAMPLE) & 0xFFFFFFFF:08x}" for which in range(8)]


@pytest.mark.parametrize("build", BUILDS)
def test_every_build_gives_the_same_bits(build: str) -> None:
    assert digests(*BUILDS[build]) == digests("zig", ())


@pytest.mark.parametrize("cc", ["zig", "gcc", "clang"])
def test_fma_instruction_is_used_and_correct(cc: str) -> None:
    """Where the processor has one; a call of libm would show as an undefined symbol."""
    if not has_compiler(cc) or " fma " not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"no {cc} or no fma here")
    text = '#include "numerics.h"\nfloat f(float a, float b, float c);\n' \
           "float f(float a, float b, float c) { return strop_fmaf(a, b, c) + strop_sqrtf(a); }\n"  # fmt: skip
    for level in ("-O0", "-O2"):
        assert undefined(compile_c([text], "f.o", cc=cc, flags=("-c", "-mfma", level))) == set()
    lib = build_shared([NUMERICS, HERE / "sweep.c"], cc=cc, flags=("-mfma", "-lm"))
    assert lib.count_wrong_fma_random(lib.inline_fma, 1 << 14) == 0


@dataclass(frozen=True)
class Board:
    """A core: how to compile for it, and an emulator with its program's address and serial data register."""

    flags: tuple[str, ...]
    emulator: tuple[str, ...]
    code: int
    uart: int


RISCV = ("qemu-system-riscv32", "-M", "virt", "-bios", "none")
CORTEX = ("qemu-system-arm", "-M", "mps2-an386", "-semihosting")
FREESTANDING = ("-target", "riscv32-freestanding-none")
BOARDS = {
    "rv32imf": Board((*FREESTANDING, "-mcpu=generic_rv32+m+a+f+c", "-mabi=ilp32f"), RISCV, 0x80000000, 0x10000000),
    "rv32imf-zfh": Board(
        (*FREESTANDING, "-mcpu=generic_rv32+m+a+f+c+zfh", "-mabi=ilp32f"),
        (*RISCV, "-cpu", "rv32,Zfh=true"),
        0x80000000,
        0x10000000,
    ),
    "rv32imac": Board((*FREESTANDING, "-mcpu=generic_rv32+m+a+c", "-mabi=ilp32"), RISCV, 0x80000000, 0x10000000),
    "cortex-m4f": Board(("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp"), CORTEX, 0, 0x40004000),
}


def undefined(path: Path) -> set[str]:
    """Return the names that the object expects from elsewhere."""
    with path.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        names = {s.name for s in table.iter_symbols() if s["st_shndx"] == "SHN_UNDEF" and s.name}
    return names - {"__aeabi_unwind_cpp_pr0"}


@pytest.mark.parametrize("board", BOARDS)
def test_needs_nothing_from_a_c_library(board: str) -> None:
    """Nothing at all where there is an FPU; without one the compiler's soft float, double in strop_fmaf_soft alone."""
    path = compile_c([NUMERICS], "numerics.o", flags=("-c", "-O2", *BOARDS[board].flags))
    soft_float = r"__(add|sub|mul|div)[sd]f3|__(eq|ne|lt|le|gt|ge|unord)[sd]f2|__(floatsi|truncdf|extendsf)(sf|df2|sf2)"
    allowed = soft_float if board == "rv32imac" else "$^"
    assert [name for name in undefined(path) if not re.fullmatch(allowed, name)] == []


@pytest.mark.parametrize("board", BOARDS)
def test_emulated_boards_give_the_same_bits(board: str, tmp_path: Path) -> None:
    b = BOARDS[board]
    if shutil.which(b.emulator[0]) is None:
        pytest.skip(f"{b.emulator[0]} is not installed")
    script = tmp_path / "link.ld"
    script.write_text(f"SECTIONS {{ . = {b.code}; .text : {{ KEEP(*(.start)) *(.text*) *(.rodata*) *(.srodata*) }} "
                      "/DISCARD/ : { *(.ARM.exidx*) *(.ARM.extab*) *(.eh_frame*) } }")  # fmt: skip
    bare = (f"-DSTROP_BARE={SAMPLE}u", f"-DSTROP_UART={b.uart}u", "-fno-sanitize=all", f"-Wl,-T,{script}")
    elf = compile_c([NUMERICS, *DIGEST], "digest.elf", flags=("-O2", *b.flags, *bare))
    command = [*b.emulator, "-display", "none", "-serial", "stdio", "-monitor", "none", "-kernel", str(elf)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == digests("zig", ())
