"""Arm Cortex-M0 (Armv6-M): 16-bit Thumb, eight general registers, no FPU."""

from strop.targets.isa import Isa

ISA = Isa(
    name="cortex-m0",
    arch="thumb",
    fma=False,
    tiling={"accumulators": 1, "band": 1},
    startup="startup_cortex_m.S",
    flags={
        "zig": ("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0"),
        "gcc": ("-mcpu=cortex-m0", "-mthumb", "-mfloat-abi=soft"),
        "clang": ("--target=thumbv6m-none-eabi", "-mcpu=cortex-m0", "-mfloat-abi=soft"),
    },
    gcc_prefix="arm-none-eabi-",
    gcc_package="gcc-arm-none-eabi",
    counter="ticks of a timer: the core has none of its own",
    notes="A float32 multiplication or addition is a call of 60 to 150 instructions: no 64-bit product, no clz.",
)
