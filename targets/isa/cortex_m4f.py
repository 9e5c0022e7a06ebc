"""Arm Cortex-M4 with its single-precision FPU (FPv4-SP-D16): 32 single registers, vfma."""

from strop.targets.isa import Isa

ISA = Isa(
    name="cortex-m4f",
    arch="thumb",
    fma=True,
    tiling={"accumulators": 20, "rows": 4, "depth": 16},
    startup="startup_cortex_m.S",
    flags={
        # zig's cortex_m4 is the core without FPU, whatever the ABI says
        "zig": ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp"),
        "gcc": ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
        "clang": ("--target=thumbv7em-none-eabihf", "-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    },
    gcc_prefix="arm-none-eabi-",
    gcc_package="gcc-arm-none-eabi",
    counter="instructions (25 MHz timer x 40 under QEMU's -icount shift=0)",
    notes="Post-increment addressing and multiple loads exist; vfma accumulates in place.",
)
