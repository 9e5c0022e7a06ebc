"""Thumb-2 code as capstone prints it: absolute branch operands, register lists without ranges, IT blocks.

Of Armv8.1-M, capstone 5 knows neither loops (wls, le) nor most of Helium: it skips that, or prints what the same bits
are to other cores, operations of a coprocessor. None of those moves the stack: a vector's address with write-back is
never sp (Armv8-M reference manual, Arm DDI 0553, VLDR and VSTR), and vpush and vpop are the FPU's. Loops are read here.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import replace

import capstone

from strop.targets.flow import RETURN, UNKNOWN, Decoder, Flow, Insn, Registers, after_call, signed
from strop.targets.isa import Isa

MODES = (capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
MACHINE = "EM_ARM"
POINTER_BIT = 1

_CONDITIONS = "eq|ne|hs|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le"
_BRANCH = re.compile(rf"b({_CONDITIONS})?(\.w)?|cbn?z")
_PRESERVED = frozenset(("r4", "r5", "r6", "r7", "r8", "sb", "sl", "fp"))
_COPROCESSOR = frozenset(("cdp", "cdp2", "mcr", "mcr2", "mrc", "mrc2", "mcrr", "mcrr2", "mrrc", "mrrc2"))
_NUMBER = re.compile(r"#(-?\w+)")
_REGISTER_BYTES = {"r": 4, "s": 4, "d": 8, "q": 16}


def interrupt_frame(isa: Isa) -> int:
    """Return the bytes of stack that the core takes for an interrupt (Armv7-M B1.5.6): registers and 4 to align them.

    Eight registers, and with an FPU 18 words more; every FPU here has fma.
    """
    return 4 * (8 + 18 * isa.fma) + 4


def size(first: int) -> int:
    """Return the bytes of an instruction, known or not, by its first halfword."""
    return 4 if first >> 11 in (0b11101, 0b11110, 0b11111) else 2


def decoder(insns: dict[int, Insn], word: Callable[[int], int]) -> Decoder:
    """Return the decoder of a program; ``word`` reads a literal at an address."""
    return _Thumb(word, _conditional_addresses(insns))


class _Thumb:
    def __init__(self, word: Callable[[int], int], conditional: frozenset[int]) -> None:
        self._word, self._conditional = word, conditional

    def __call__(self, insn: Insn, registers: Registers) -> Flow:
        """Decode one instruction. One inside an IT block may also do nothing, and leaves no constant for certain."""
        if insn.address not in self._conditional:
            return self._flow(insn, insn.name, registers)
        base, dot, width = insn.name.partition(".")
        flow = self._flow(insn, base[:-2] + dot + width, {})
        return replace(flow, falls=True, reset=False, grow=max(flow.grow, 0), loads=self._maybe(insn, base, registers))

    def _maybe(self, insn: Insn, base: str, registers: Registers) -> int | None:
        """Track constants under a condition, ``r0/ne`` say, so that both halves of a conditional load are found."""
        condition = "/" + base[-2:]
        held = {name: value for name, value in registers.items() if "/" not in name}
        held |= {name.removesuffix(condition): registers[name] for name in registers if name.endswith(condition)}
        loaded = self._constant(insn, base[:-2], insn.operands, held)
        kept = {name: value for name, value in registers.items() if "/" in name and not name.endswith(condition)}
        registers.clear()
        registers.update(kept | {name + condition: value for name, value in held.items()})
        return loaded

    def _flow(self, insn: Insn, name: str, registers: Registers) -> Flow:
        ops, base = insn.operands, name.partition(".")[0]
        if name == UNKNOWN or base in _COPROCESSOR:
            for register in [register for register, value in registers.items() if value > 0xFFFF]:
                del registers[register]  # it may write any; the half of an address that movw left is too dear to lose
            return Flow(jumps=_loop(insn) if name == UNKNOWN else None)
        if base == "bl" or (base in ("blx", "bx") and ops.startswith("#")):
            after_call(registers, _PRESERVED)
            return Flow(calls=_number(ops) & ~1)
        if base == "blx":
            known = registers.get(ops)
            after_call(registers, _PRESERVED)
            return Flow(calls=None if known is None else known & ~1, calls_any=known is None)
        if _BRANCH.fullmatch(name):
            return Flow(jumps=_number(ops), falls=name not in ("b", "b.w"))
        if _returns(base, ops):
            return RETURN
        if base in ("bx", "tbb", "tbh") or (re.match(r"pc\b", ops) and base in ("mov", "ldr", "add", "adds")):
            known = registers.get(ops) if base == "bx" else None
            jumps = None if known is None else known & ~1
            return Flow(jumps=jumps, jumps_any=known is None, table=base in ("tbb", "tbh"), falls=False)
        if flow := _stack(base, ops, registers):
            return flow
        return Flow(loads=self._constant(insn, base, ops, registers))

    def _constant(self, insn: Insn, base: str, ops: str, registers: Registers) -> int | None:
        """Track the constants of mov, movw, movt and literal loads; forget every other register that is named.

        Returns the constant that movt or a literal load completes.
        """
        target, _, rest = ops.partition(", ")
        before = registers.get(target)
        for register in re.findall(r"\b(?:r\d+|sb|sl|fp|ip|lr)\b", ops):
            registers.pop(register, None)
        if base in ("mov", "movs", "movw") and rest.startswith("#"):
            registers[target] = _number(rest) & 0xFFFFFFFF
        elif base == "movt" and before is not None:
            registers[target] = before & 0xFFFF | _number(rest) << 16
        elif base == "ldr" and (match := re.fullmatch(r"\[pc, #(-?\w+)\]", rest)):
            registers[target] = self._word((insn.address + 4 & ~3) + int(match[1], 0))
        return registers.get(target) if base in ("movt", "ldr") else None


def _loop(insn: Insn) -> int | None:
    """Return where wls, wlstp, le or letp may jump; None for all other instructions that capstone does not know."""
    first, second = struct.unpack("<2H", bytes(int(byte, 16) for byte in insn.operands.split(", ")).ljust(4, b"\0"))
    if first & 0xFF80 != 0xF000 or second & 0xF001 != 0xC001:
        return None
    distance = (second >> 1 & 0x3FF) << 2 | (second >> 11 & 1) << 1
    return insn.address + 4 + int(-distance if first & 0xF == 0xF else distance)


def _returns(base: str, ops: str) -> bool:
    loads_pc = base in ("pop", "ldm", "ldmia") and re.search(r"\bpc\b", ops)
    return (base == "bx" and ops == "lr") or bool(loads_pc) or (base == "ldr" and ops.startswith("pc, [sp], "))


def _stack(base: str, ops: str, registers: Registers) -> Flow | None:
    """Decode an instruction that writes sp; return None for all others."""
    if base in ("push", "vpush") or (base in ("stmdb", "vstmdb") and ops.startswith("sp!")):
        return Flow(grow=_list_bytes(ops))
    if base in ("pop", "vpop") or (base in ("ldm", "ldmia", "vldmia") and ops.startswith("sp!")):
        registers.clear()
        return Flow(grow=-_list_bytes(ops))
    if match := re.search(r"\[sp, #(-\w+)\]!|\[sp\], #(\w+)", ops):
        return Flow(grow=-int(match[1] or match[2], 0))
    if not re.match(r"sp\b", ops) or base not in ("sub", "subw", "add", "addw", "mov", "ldr"):
        return None
    source = ops.rsplit(", ", 1)[-1]
    if base == "mov" and source in registers:
        return Flow(reset=True)
    relative = base[:3] in ("sub", "add") and not re.match(r"sp, (?!sp\b)\w+, ", ops)
    if not relative or not (source.startswith("#") or source in registers):
        return Flow(unknown=True)
    amount = _number(source) if source.startswith("#") else signed(registers[source])
    return Flow(grow=amount if base.startswith("sub") else -amount)


def _list_bytes(ops: str) -> int:
    """Return the bytes of a register list as capstone prints it: every register by name, no ranges."""
    names = re.search(r"\{(.*)\}", ops)
    registers = names[1].split(", ") if names else []
    wide = {"sb": 4, "sl": 4, "sp": 4}
    return sum(wide.get(name, _REGISTER_BYTES.get(name[0], 4)) for name in registers)


def _number(ops: str) -> int:
    """Return the first immediate operand; capstone prints one wherever this is asked."""
    match = _NUMBER.search(ops)
    assert match is not None, ops
    return int(match[1], 0)


def _conditional_addresses(insns: dict[int, Insn]) -> frozenset[int]:
    """Return the addresses of instructions in IT blocks; as many follow an ``itte``, say, as it has letters after i."""
    inside, left = set[int](), 0
    for address, insn in insns.items():
        if left:
            inside.add(address)
            left -= 1
        if re.fullmatch(r"it[te]{0,3}", insn.name):
            left = len(insn.name) - 1
    return frozenset(inside)
