"""Several rv32imf cores with one memory: each kernel's outputs are shared out over the harts."""

from strop.targets.isa import Isa
from strop.targets.isa.rv32imf import ISA as RV32IMF

ISA = Isa(
    name="rv32imf-smp",
    arch="riscv32",
    fma=True,
    tiling={**RV32IMF.tiling, "harts": 8},
    startup="startup_rv32.S",
    flags=RV32IMF.flags,
    gcc_prefix=RV32IMF.gcc_prefix,
    gcc_package=RV32IMF.gcc_package,
    counter="retired instructions of the slowest hart, kernel by kernel",
    notes="Each hart as rv32imf. Between kernels all wait for the last.",
)
