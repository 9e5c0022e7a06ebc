"""RISC-V with a single-precision FPU: the class of RI5CY with FPU and of many soft cores."""

from strop.targets.isa import Isa

# LLVM's scheduler draws neighbouring loads together and to the top of a loop, until sums have to be spilled
APART = ("-mllvm", "-misched-cluster=false")
DOWN = ("-mllvm", "-misched-prera-direction=topdown")  # since LLVM 20

ISA = Isa(
    name="rv32imf",
    arch="riscv32",
    fma=True,
    tiling={"accumulators": 20, "unroll": 8, "depth": 16, "reach": 8192, "band": 8, "turn": 4},
    startup="startup_rv32.S",
    flags={
        "zig": ("-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+a+f+c", "-mabi=ilp32f", *APART, *DOWN),
        "gcc": ("-march=rv32imafc", "-misa-spec=2.2", "-mabi=ilp32f"),
        "clang": ("--target=riscv32-unknown-elf", "-march=rv32imafc_zicsr", "-mabi=ilp32f", *APART),
    },
    gcc_prefix="riscv64-unknown-elf-",
    gcc_package="gcc-riscv64-unknown-elf",
    counter="retired instructions (minstret)",
    notes="One load, fma or store at a time; no post-increment addressing, no hardware loop.",
)
