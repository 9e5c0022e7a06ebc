"""Worst-case stack of a linked program, read from its machine code.

The disassembly, unlike a compiler's stack-usage file, covers what was inlined and the compiler's own runtime library.
Every function is walked along its control flow; the depth at each call is that function's frame so far. An indirect
call may reach every function whose address the program keeps in its data or loads into a register, which covers the
model's table and the session's callbacks. Recursion is an error, and so is a frame whose size is known only at run time
(arrays of variable length, locals aligned beyond the ABI's alignment of the stack).
"""

from bisect import bisect_right
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from strop.errors import ToolchainError
from strop.targets.flow import Decoder, Flow, Insn, Registers

ROM = "strop_rom_"  # a function whose name begins so calls the chip's own ROM through registers, and nothing else
OUTSIDE = -1  # no address of the program
DEEPEST = 1 << 24  # a walk that gets here follows a loop that pushes


@dataclass(frozen=True)
class Code:
    """The program's text: instructions by address, functions, and addresses that data or code refer to.

    names: first address of every function.  ends: where the function beginning there ends.
    decoder: of the architecture.  taken: functions an indirect call may reach.
    pointed: every address in data, sorted, among them branch tables' targets.  targets: of direct branches.
    rom_stack: bytes of stack that code outside the program takes.
    """

    insns: dict[int, Insn]
    names: dict[int, str]
    ends: dict[int, int]
    decoder: Decoder
    taken: frozenset[int]
    pointed: tuple[int, ...]
    targets: frozenset[int]
    rom_stack: int = 0


@dataclass
class Frame:
    """One function: its deepest own stack, and the depth at each call (None stands for an indirect one)."""

    bytes: int = 0
    calls: dict[int | None, int] = field(default_factory=dict)

    def call(self, target: int | None, depth: int) -> None:
        """Note a call at a depth."""
        self.calls[target] = max(depth, self.calls.get(target, 0))


class Link(NamedTuple):
    """One step of the deepest chain: a function and the bytes it holds while it calls the next."""

    function: str
    bytes: int


def jump_targets(insns: dict[int, Insn], decoder: Decoder) -> frozenset[int]:
    """Return every address that a direct branch or call reaches; what registers hold is forgotten there."""
    flows = [decoder(insn, {}) for insn in insns.values()]
    return frozenset(target for flow in flows for target in (flow.jumps, flow.calls) if target is not None)


def loaded_addresses(insns: dict[int, Insn], decoder: Decoder, starts: Container[int]) -> Iterator[int]:
    """Yield every constant that a function loads as if it were an address, whatever branches lie between its halves."""
    registers: Registers = {}
    for address, insn in insns.items():
        if address in starts:
            registers.clear()
        loaded = decoder(insn, registers).loads
        if loaded is not None:
            yield loaded


def frame_of(code: Code, entry: int) -> Frame:
    """Walk one function from its first address and return its frame."""
    return _Walk(code, entry).frame


class _Walk:
    """Follows one function's control flow, each instruction at the greatest depth it can be reached with."""

    def __init__(self, code: Code, entry: int) -> None:
        self.frame = Frame()
        self._code, self._entry = code, entry
        self._end = code.ends.get(entry, entry)
        self._seen: dict[int, int] = {}
        self._work = [(entry, 0)]
        while self._work:
            self._follow(*self._work.pop())

    def _follow(self, pc: int, depth: int) -> None:
        """Go on from ``pc`` until nothing falls through, or until where an earlier walk was as deep."""
        registers: Registers = {}
        while pc in self._code.insns and self._seen.get(pc, -1) < depth:
            if pc in self._code.targets:
                registers.clear()
            self._seen[pc] = depth
            insn = self._code.insns[pc]
            flow = self._code.decoder(insn, registers)
            depth = self._depth_after(flow, pc, depth)
            self._branch(flow, depth)
            pc += insn.size
            if not flow.falls or self._ends(flow, insn, pc, depth):
                return

    def _depth_after(self, flow: Flow, pc: int, depth: int) -> int:
        depth = 0 if flow.reset else max(0, depth + flow.grow)
        if flow.unknown or depth > DEEPEST:
            where = f"{self._code.names.get(self._entry, hex(self._entry))} at {pc:#x}"
            raise ToolchainError("the size of a stack frame is known only at run time", where=where)
        self.frame.bytes = max(self.frame.bytes, depth)
        return depth

    def _ends(self, flow: Flow, insn: Insn, following: int, depth: int) -> bool:
        """Whether the function's end was passed: into the next function, or by a call that never returns."""
        passed = insn.address < self._end <= following
        if passed and flow.calls is None and not flow.calls_any:
            self.frame.call(following, depth)
        return passed

    def _branch(self, flow: Flow, depth: int) -> None:
        """Note calls and tail calls in the frame; queue branches that stay inside the function.

        A core without wide branches jumps far with its call instruction.
        """
        if flow.calls is not None and self._entry < flow.calls < self._end:
            self._work.append((flow.calls, depth))
        elif flow.calls is not None:
            self.frame.call(flow.calls, depth)
        if flow.calls_any:
            self.frame.call(None, depth)
        if flow.jumps is not None and flow.jumps in self._code.names and flow.jumps != self._entry:
            self.frame.call(flow.jumps, depth)
        elif flow.jumps is not None:
            self._work.append((flow.jumps, depth))
        if flow.jumps_any:
            inside = (pc for pc in range(self._entry, self._end) if pc in self._code.insns and pc not in self._seen)
            self._work.extend((pc, depth) for pc in inside)
            if not flow.table and not self._has_branch_table():
                self.frame.call(None, depth)

    def _has_branch_table(self) -> bool:
        """Whether data holds addresses inside this function, behind its first."""
        pointed = self._code.pointed
        return bisect_right(pointed, self._entry) < bisect_right(pointed, self._end - 1)


RECURSION = (
    "Nothing on a board may recurse. A jump table in gcc's soft-float library may look like it: choose --toolchain zig"
)


def deepest(code: Code, entry: int) -> tuple[int, tuple[Link, ...]]:
    """Return the worst stack in bytes from ``entry`` on, and the chain of calls that reaches it."""
    done: dict[int, tuple[int, tuple[Link, ...]]] = {}
    path: list[int] = []

    def visit(function: int) -> tuple[int, tuple[Link, ...]]:
        if function not in code.insns:
            return code.rom_stack, (Link("rom", code.rom_stack),)
        name = code.names.get(function, hex(function))
        if function in path:
            circle = [code.names.get(f, hex(f)) for f in path[path.index(function) :]]
            what = f"the program calls itself: {' -> '.join([*circle, name])}"
            raise ToolchainError(what, do=RECURSION)
        if function not in done:
            path.append(function)
            done[function] = _deepest_of(frame_of(code, function), name, code, visit)
            path.pop()
        return done[function]

    return visit(entry)


def _deepest_of(
    frame: Frame, name: str, code: Code, visit: Callable[[int], tuple[int, tuple[Link, ...]]]
) -> tuple[int, tuple[Link, ...]]:
    best: tuple[int, tuple[Link, ...]] = (frame.bytes, (Link(name, frame.bytes),))
    for target, depth in sorted(frame.calls.items(), key=lambda call: (call[0] is None, call[0] or 0)):
        for callee in _callees(target, name, code):
            below, chain = visit(callee)
            if depth + below > best[0]:
                best = (depth + below, (Link(name, depth), *chain))
    return best


def _callees(target: int | None, caller: str, code: Code) -> list[int]:
    """Return the functions that a call may reach. Of ROM, which lies outside of all code, one is as any other."""
    if target is not None:
        return [target]
    return [OUTSIDE] if caller.startswith(ROM) else sorted(code.taken)
