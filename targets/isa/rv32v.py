"""RISC-V with an FPU and a vector unit (RVV 1.0, float32 and float16 elements) whose registers hold 128 bits."""

from strop.targets.isa import Isa

# LLVM's scheduler draws loads of whole register groups together, until they are spilled
AS_WRITTEN = ("-mllvm", "-enable-misched=false")

# LLVM 20 and later set a type before each move of whole registers; any type is good, and nothing leaves an invalid one
MOVES_AS_THEY_ARE = ("-mllvm", "-riscv-insert-vsetvli-whole-vector-register-move-valid-vtype=false")

ISA = Isa(
    name="rv32v",
    arch="riscv32",
    fma=True,
    tiling={
        "accumulators": 20, "unroll": 8, "depth": 8, "reach": 8192, "band": 8, "turn": 4, "lanes": 32, "halves": 64,
        "scalars": 24,
    },
    lanes=4,
    apart=True,
    startup="startup_rv32.S",
    flags={
        "zig": (
            "-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+a+f+c+zfh+zve32f+zvfh+zvl128b",
            "-mabi=ilp32f", "-mrvv-vector-bits=128", *AS_WRITTEN, *MOVES_AS_THEY_ARE,
        ),
        "clang": (
            "--target=riscv32-unknown-elf", "-march=rv32imafc_zicsr_zfh_zve32f_zvfh_zvl128b",
            "-mabi=ilp32f", "-mrvv-vector-bits=128", *AS_WRITTEN,
        ),
    },
    counter="retired instructions (minstret); a vector instruction is one",
    notes="Eight registers form a group of 32 lanes; a vector has any stride and length. float16 by Zvfh.",
)  # fmt: skip
