"""RISC-V with a single-precision FPU that also computes in half precision (Zfh)."""

from strop.targets.isa import Isa
from strop.targets.isa.rv32imf import APART, DOWN
from strop.targets.isa.rv32imf import ISA as RV32IMF

ISA = Isa(
    name="rv32imf-zfh",
    arch="riscv32",
    fma=True,
    tiling=RV32IMF.tiling,
    startup="startup_rv32.S",
    flags={
        "zig": (
            "-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+a+f+c+zfh", "-mabi=ilp32f", *APART, *DOWN,
        ),
        "clang": ("--target=riscv32-unknown-elf", "-march=rv32imafc_zicsr_zfh", "-mabi=ilp32f", *APART),
    },
    counter="retired instructions (minstret)",
    notes="As rv32imf; a half-precision number is loaded, stored and converted by one instruction each.",
)  # fmt: skip
