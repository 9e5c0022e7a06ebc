"""RISC-V with a single-precision FPU: the class of RI5CY with FPU and of many soft cores."""

from strop.targets.isa import Isa

ISA = Isa(
    name="rv32imf",
    arch="riscv32",
    fma=True,
    tiling={"accumulators": 16, "unroll": 8, "depth": 16, "band": 8, "turn": 2},
    startup="startup_rv32.S",
    flags={
        "zig": ("-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+a+f+c", "-mabi=ilp32f"),
        "gcc": ("-march=rv32imafc", "-misa-spec=2.2", "-mabi=ilp32f"),
        "clang": ("--target=riscv32-unknown-elf", "-march=rv32imafc_zicsr", "-mabi=ilp32f"),
    },
    gcc_prefix="riscv64-unknown-elf-",
    gcc_package="gcc-riscv64-unknown-elf",
    counter="retired instructions (minstret)",
    notes="One load, fma or store at a time; no post-increment addressing, no hardware loop.",
)
