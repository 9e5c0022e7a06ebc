"""Arm Cortex-M7 with its FPU (FPv5-SP-D16): 32 single registers, vfma, two instructions a cycle."""

from strop.targets.isa import Isa

ISA = Isa(
    name="cortex-m7",
    arch="thumb",
    fma=True,
    tiling={"accumulators": 20, "rows": 4, "depth": 16},
    startup="startup_cortex_m.S",
    flags={
        # zig's cortex_m7 is the core without FPU, whatever the ABI says
        "zig": ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m7+fp_armv8d16sp"),
        "gcc": ("-mcpu=cortex-m7", "-mthumb", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
        "clang": ("--target=thumbv7em-none-eabihf", "-mcpu=cortex-m7", "-mfpu=fpv5-sp-d16", "-mfloat-abi=hard"),
    },
    gcc_prefix="arm-none-eabi-",
    gcc_package="gcc-arm-none-eabi",
    counter="instructions (25 MHz timer x 40 under QEMU's -icount shift=0)",
    notes="As cortex-m4f; a real core issues up to two instructions a cycle, which this counter does not show.",
)
