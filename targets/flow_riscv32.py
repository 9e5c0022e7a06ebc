"""RV32 code as capstone prints it. Branch operands are relative to the instruction."""

import re
from collections.abc import Callable

import capstone

from strop.targets.flow import RETURN, Decoder, Flow, Insn, Registers, after_call, signed
from strop.targets.isa import Isa

MODES = (capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV32 | capstone.CS_MODE_RISCVC)
MACHINE = "EM_RISCV"
POINTER_BIT = 0

_STORES = ("sb", "sh", "sw", "swsp")  # their first operand is read, not written
_PRESERVED = frozenset(f"s{i}" for i in range(12))
_OFFSET = re.compile(r"(-?\w+)\((\w+)\)")


def interrupt_frame(_isa: Isa) -> int:
    """Return the bytes of stack that the core itself takes for an interrupt: none, its handler saves registers."""
    return 0


def size(first: int) -> int:
    """Return the bytes of an instruction, known or not, by its first halfword."""
    return 4 if first & 3 == 3 else 2


def decoder(_insns: dict[int, Insn], _word: Callable[[int], int]) -> Decoder:
    """Return the decoder; instructions need no context."""
    return _flow


def _flow(insn: Insn, registers: Registers) -> Flow:
    name = insn.name.removeprefix("c.")
    ops = [op.strip() for op in insn.operands.split(",")] if insn.operands else []
    if name in ("ret", "mret") or (name == "jr" and ops == ["ra"]):
        return RETURN
    if name in ("j", "jal", "jalr", "jr"):
        return _jump(insn, name, ops, registers)
    if name.startswith("b") and ops:
        return Flow(jumps=insn.address + int(ops[-1], 0))
    if ops and ops[0] == "sp":
        return _stack(name, ops, registers)
    return Flow(loads=_constant(insn, name, ops, registers))


def _jump(insn: Insn, name: str, ops: list[str], registers: Registers) -> Flow:
    if name == "j" or (name == "jal" and ops[0] == "zero"):
        return Flow(jumps=insn.address + int(ops[-1], 0), falls=False)
    if name == "jal":
        after_call(registers, _PRESERVED)
        return Flow(calls=insn.address + int(ops[-1], 0))
    link = "zero" if name == "jr" else ops[0] if len(ops) > 1 else "ra"
    base, offset = _target(ops)
    known = base in registers
    target = (registers.get(base, 0) + offset) & 0xFFFFFFFF if known else None
    if link == "zero":
        return RETURN if base == "ra" and not known else Flow(jumps=target, jumps_any=not known, falls=False)
    after_call(registers, _PRESERVED)
    return Flow(calls=target, calls_any=not known)


def _target(ops: list[str]) -> tuple[str, int]:
    """Return base register and offset of ``jalr ra, 8(t0)``, ``jalr ra, t0, 8``, ``jr t0`` and the like."""
    if match := _OFFSET.fullmatch(ops[-1]):
        return match[2], int(match[1], 0)
    if len(ops) > 1 and not ops[-1][0].isalpha():
        return ops[-2], int(ops[-1], 0)
    return ops[-1], 0


def _stack(name: str, ops: list[str], registers: Registers) -> Flow:
    """Decode an instruction that writes sp. Its constants are kept under the name ``sp`` while it is being set."""
    last = ops[-1]
    if name in ("auipc", "lui") or (name in ("addi", "mv") and "sp" in registers):
        registers["sp"] = 0
        return Flow(reset=True)
    registers.pop("sp", None)
    if name in ("addi", "addi16sp") and (len(ops) == 2 or ops[1] == "sp"):
        return Flow(grow=-int(last, 0))
    if name in ("sub", "add") and (len(ops) == 2 or ops[1] == "sp"):
        if last not in registers:
            return Flow(unknown=True)
        amount = signed(registers[last])
        return Flow(grow=amount if name == "sub" else -amount)
    return Flow(unknown=name not in _STORES)


def _constant(insn: Insn, name: str, ops: list[str], registers: Registers) -> int | None:
    """Track the constants of lui, auipc, li, addi, slli and mv; forget what any other instruction writes.

    Returns the constant that addi completes.
    """
    value: int | None = None
    if name == "lui":
        value = int(ops[1], 0) << 12
    elif name == "auipc":
        value = insn.address + (int(ops[1], 0) << 12)
    elif name == "li":
        value = int(ops[1], 0)
    elif name == "addi" and (source := ops[-2]) in registers:
        value = registers[source] + int(ops[-1], 0)
    elif name == "slli" and ops[-2] in registers:
        value = registers[ops[-2]] << int(ops[-1], 0)
    elif name == "mv" and ops[1] in registers:
        value = registers[ops[1]]
    if ops:
        registers.pop(ops[0], None)
    if value is not None:
        registers[ops[0]] = value & 0xFFFFFFFF
    return registers.get(ops[0]) if name == "addi" else None
