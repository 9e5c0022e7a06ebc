"""What the stack analysis needs to know of machine code, the same for every architecture.

A module ``flow_<arch>`` beside this one knows one architecture: ``MODES`` for capstone, ``MACHINE`` as the ELF header
names it, ``POINTER_BIT`` (what a pointer to code has added to the code's address), ``size(first halfword)`` of an
instruction that capstone does not know, ``interrupt_frame(isa)`` (bytes of stack), and ``decoder(insns, word)``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

UNKNOWN = ".unknown"
"""Mnemonic of what capstone does not know. Its operands are its bytes."""


class Insn(NamedTuple):
    """One instruction: address, size in bytes, mnemonic and operands as capstone prints them."""

    address: int
    size: int
    name: str
    operands: str


Registers = dict[str, int]  # registers that hold a known constant


@dataclass
class Flow:
    """What one instruction does to the stack pointer and to the program counter.

    grow: bytes the stack grows by, negative when it shrinks.  reset: the stack pointer becomes a constant.
    unknown: it grows by an amount that only a run can tell.  calls, jumps: known targets.
    calls_any, jumps_any: through a register.  table: the jump reads a branch table.
    loads: a register now holds this constant, put together the way compilers load addresses; a small number in one
    instruction never is one.  falls: the next instruction may follow.
    """

    grow: int = 0
    reset: bool = False
    calls: int | None = None
    jumps: int | None = None
    calls_any: bool = False
    jumps_any: bool = False
    table: bool = False
    unknown: bool = False
    loads: int | None = None
    falls: bool = True


RETURN = Flow(falls=False)
Decoder = Callable[[Insn, Registers], Flow]
"""Says what an instruction does and updates the registers that hold known constants."""


def after_call(registers: Registers, preserved: frozenset[str]) -> None:
    """Forget what a callee may overwrite."""
    for name in registers.keys() - preserved:
        del registers[name]


def signed(word: int) -> int:
    """Return a 32-bit word as a two's complement number."""
    return word - (1 << 32) if word & 0x80000000 else word
