"""RISC-V without an FPU: floats are computed by the compiler's runtime library."""

from strop.targets.isa import Isa

ISA = Isa(
    name="rv32imac",
    arch="riscv32",
    fma=False,
    tiling={"accumulators": 2, "band": 2},
    startup="startup_rv32.S",
    flags={
        "zig": ("-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+a+c", "-mabi=ilp32"),
        "gcc": ("-march=rv32imac", "-misa-spec=2.2", "-mabi=ilp32"),
        "clang": ("--target=riscv32-unknown-elf", "-march=rv32imac_zicsr", "-mabi=ilp32"),
    },
    gcc_prefix="riscv64-unknown-elf-",
    gcc_package="gcc-riscv64-unknown-elf",
    counter="retired instructions (minstret)",
    notes="A float32 multiplication or addition is a call of 30 to 60 instructions.",
)
