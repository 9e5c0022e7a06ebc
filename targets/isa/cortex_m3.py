"""Arm Cortex-M3 (Armv7-M): Thumb-2 without an FPU; floats are computed by the compiler's runtime library."""

from strop.targets.isa import Isa

ISA = Isa(
    name="cortex-m3",
    arch="thumb",
    fma=False,
    tiling={"accumulators": 2, "band": 2},
    startup="startup_cortex_m.S",
    flags={
        "zig": ("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m3"),
        "gcc": ("-mcpu=cortex-m3", "-mthumb", "-mfloat-abi=soft"),
        "clang": ("--target=thumbv7m-none-eabi", "-mcpu=cortex-m3", "-mfloat-abi=soft"),
    },
    gcc_prefix="arm-none-eabi-",
    gcc_package="gcc-arm-none-eabi",
    counter="core cycles (SysTick)",
    notes="A float32 multiplication or addition is a call of 30 to 60 instructions.",
)
