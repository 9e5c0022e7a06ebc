"""Arm Cortex-M55 with FPU and Helium (M-profile vector extension): eight registers of four float32 or eight float16."""

from strop.targets.isa import Isa

APART = ("-fno-vectorize", "-fno-slp-vectorize")
"""Vectors flush subnormal numbers and scalars do not: only what asks for vectors (runtime/lanes_mve.h) has them."""

LOOPS = ("-mllvm", "-force-hardware-loops", "-mllvm", "-force-hardware-loop-phi")
"""LLVM takes assembly text for a call, and would not use the core's hardware loop around it."""

AS_WRITTEN = ("-mllvm", "-enable-misched=false")
"""LLVM's scheduler draws loads of vectors together, until they are spilled."""

PINNED = (*APART, *LOOPS, *AS_WRITTEN)
"""For the LLVM that the project pins; clang 14's own hardware loops crash it."""

ISA = Isa(
    name="cortex-m55",
    arch="thumb",
    fma=True,
    tiling={
        "accumulators": 20, "rows": 4, "depth": 8, "lanes": 16, "halves": 16, "registers": 8, "at_once": 4,
        "panel": 512, "sweep": 2,
    },
    lanes=4,
    flush=True,
    startup="startup_cortex_m.S",
    flags={
        "zig": (
            "-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m55+fp_armv8d16sp+fullfp16+mve_fp", *PINNED,
        ),
        "gcc": ("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard", "-fno-tree-vectorize"),
        "clang": ("--target=thumbv8.1m.main-none-eabihf", "-mcpu=cortex-m55", "-mfloat-abi=hard", *APART),
    },
    gcc_prefix="arm-none-eabi-",
    gcc_package="gcc-arm-none-eabi",
    counter="instructions (25 MHz timer x 40 under QEMU's -icount shift=0); a vector instruction is one",
    notes=(
        "Two registers hold 8 lanes, any distance apart. Vectors flush float32 subnormals, scalars keep them; "
        "vectors of float16 keep theirs."
    ),
)  # fmt: skip
