"""Instruction sets: what a core can do and how each compiler is told. One file an ISA; its name is the ISA's name.

A module ``cortex_m4f`` in this package defines ``ISA``, an ``Isa`` named ``cortex-m4f``. Nothing else lists it.
"""

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module

from strop.errors import BoardError, nearest


@dataclass(frozen=True)
class Isa:
    """A core, as the compiler passes, the schedules and the C toolchains see it.

    arch: family that start-up code and stack analysis are written for: ``riscv32``, ``thumb`` or ``host``.
    fma: float32 multiply-add with one rounding is an instruction; only then may a Program contain it.
    tiling: fields of `compiler.schedules.Tiling` that differ from its defaults: what the registers of the core hold.
    lanes: float32 values of a vector register; 1 for a scalar core.  flush: its vectors take subnormals for zero.
    apart: kernels that a step calls more than once are functions: as part of it, they would share their constants, and
    spill whole groups of registers for that.
    startup: file in ``firmware/`` with the reset code; empty on the PC.
    flags: compiler flags by toolchain name.  gcc_prefix: of the cross gcc.  gcc_package: the Debian package of it.
    counter: what a board of this ISA counts work in.  notes: what the instruction bounds rest on.
    """

    name: str
    arch: str
    fma: bool
    tiling: Mapping[str, int] = field(default_factory=dict, hash=False)
    lanes: int = 1
    flush: bool = False
    apart: bool = False
    startup: str = ""
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    gcc_prefix: str = ""
    gcc_package: str = "gcc"
    counter: str = ""
    notes: str = ""


def isa_names() -> tuple[str, ...]:
    """Return the names of all ISAs, sorted."""
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)))


@cache
def load_isa(name: str) -> Isa:
    """Return the ISA called ``name``; raise BoardError with the nearest name when there is none."""
    if name not in isa_names():
        raise BoardError(f"there is no instruction set {name!r}", do=nearest(name, isa_names()))
    isa = import_module(f"{__name__}.{name.replace('-', '_')}").ISA
    if not isinstance(isa, Isa) or isa.name != name:
        raise BoardError(f"the file of instruction set {name!r} does not define ISA = Isa(name={name!r}, …)")
    return isa
