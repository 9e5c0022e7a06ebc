"""RISC-V with an FPU and a vector unit (RVV 1.0, float32 and float16 elements) whose registers hold 256 bits."""

from strop.targets.isa import Isa
from strop.targets.isa.rv32v import AS_WRITTEN, MOVES_AS_THEY_ARE

ISA = Isa(
    name="rv32v256",
    arch="riscv32",
    fma=True,
    tiling={
        "accumulators": 20, "unroll": 8, "depth": 8, "reach": 8192, "band": 8, "turn": 4, "lanes": 64, "halves": 128,
        "register": 8, "scalars": 24,
    },
    lanes=8,
    apart=True,
    startup="startup_rv32.S",
    flags={
        "zig": (
            "-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+a+f+c+zfh+zve32f+zvfh+zvl256b",
            "-mabi=ilp32f", "-mrvv-vector-bits=256", *AS_WRITTEN, *MOVES_AS_THEY_ARE,
        ),
        "clang": (
            "--target=riscv32-unknown-elf", "-march=rv32imafc_zicsr_zfh_zve32f_zvfh_zvl256b",
            "-mabi=ilp32f", "-mrvv-vector-bits=256", *AS_WRITTEN,
        ),
    },
    counter="retired instructions (minstret); a vector instruction is one",
    notes="Eight registers form a group of 64 lanes; a vector has any stride and length. float16 by Zvfh.",
)  # fmt: skip
