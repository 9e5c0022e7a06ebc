"""Arm Cortex-M55 with FPU and Helium (M-profile vector extension): eight vector registers of four floats."""

from strop.targets.isa import Isa

ISA = Isa(
    name="cortex-m55",
    arch="thumb",
    fma=True,
    tiling={"accumulators": 20, "rows": 4, "depth": 16},
    lanes=4,
    startup="startup_cortex_m.S",
    flags={
        # without mve.fp: clang would turn loops over floats into vectors, which flush subnormals where scalars do not
        "zig": ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m55+fp_armv8d16sp+fullfp16"),
        "gcc": ("-mcpu=cortex-m55+nomve.fp", "-mthumb", "-mfloat-abi=hard"),
        "clang": ("--target=thumbv8.1m.main-none-eabihf", "-mcpu=cortex-m55+nomve.fp", "-mfloat-abi=hard"),
    },
    gcc_prefix="arm-none-eabi-",
    gcc_package="gcc-arm-none-eabi",
    counter="instructions (25 MHz timer x 40 under QEMU's -icount shift=0)",
    notes="Helium flushes subnormal floats to zero, so float32 is computed one at a time, where the core does not.",
)
