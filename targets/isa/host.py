"""This PC, as the twin sees it. ``fma`` is true because the runtime's strop_fmaf is exact with or without hardware."""

from strop.targets.isa import Isa

ISA = Isa(
    name="host",
    arch="host",
    fma=True,
    tiling={"accumulators": 16, "unroll": 1, "band": 0},
    flags={
        "zig": ("-mcpu=native",),
        "gcc": ("-march=native",),
        "clang": ("-march=native",),
    },
    counter="none",
    notes="Wider vectors change no bits: reductions have a fixed order and contraction is off.",
)
