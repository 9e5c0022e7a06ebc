"""RISC-V without FPU and without atomic instructions: the ESP32-C3's core."""

from strop.targets.isa import Isa
from strop.targets.isa.rv32imac import ISA as RV32IMAC

ISA = Isa(
    name="rv32imc",
    arch="riscv32",
    fma=False,
    tiling=RV32IMAC.tiling,
    startup="startup_rv32.S",
    flags={
        "zig": ("-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+c", "-mabi=ilp32"),
        "gcc": ("-march=rv32imc", "-misa-spec=2.2", "-mabi=ilp32"),
        "clang": ("--target=riscv32-unknown-elf", "-march=rv32imc_zicsr", "-mabi=ilp32"),
    },
    gcc_prefix="riscv64-unknown-elf-",
    gcc_package="gcc-riscv64-unknown-elf",
    counter="core cycles",
    notes=RV32IMAC.notes,
)
