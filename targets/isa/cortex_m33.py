"""Arm Cortex-M33 (Armv8-M Mainline) with its FPU (FPv5-SP-D16): 32 single registers, vfma."""

from strop.targets.isa import Isa

ISA = Isa(
    name="cortex-m33",
    arch="thumb",
    fma=True,
    tiling={"accumulators": 20, "rows": 4, "depth": 16},
    startup="startup_cortex_m.S",
    flags={
        # zig's cortex_m33 is the core without FPU, whatever the ABI says
        "zig": ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m33+fp_armv8d16sp"),
        "gcc": ("-mcpu=cortex-m33", "-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
        "clang": ("--target=thumbv8m.main-none-eabihf", "-mcpu=cortex-m33", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
    },
    gcc_prefix="arm-none-eabi-",
    gcc_package="gcc-arm-none-eabi",
    counter="core cycles (SysTick)",
    notes="As cortex-m4f.",
)
