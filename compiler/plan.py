"""Fixed addresses: every value gets a region and an offset; the plan draws itself as text and as a picture.

Regions: `params` (trainable, RAM), `state` (optimizer, RAM), `arena` (activations and scratch, RAM, shared by both
functions), `const` (frozen parameters and statistics, flash). Offsets are multiples of 4 bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strop.compiler.ir import Program, Role
from strop.compiler.liveness import Interval, aliases, intervals
from strop.errors import PlanError

ALIGNMENT = 4
REGION_OF = {Role.PARAM: "params", Role.STATE: "state", Role.CONST: "const"}


@dataclass(frozen=True)
class Buffer:
    """A planned piece of the arena during one function."""

    interval: Interval
    offset: int

    @property
    def end(self) -> int:
        """First byte behind it."""
        return self.offset + aligned(self.interval.bytes)


@dataclass(frozen=True)
class Plan:
    """Where everything lives.

    sizes: bytes by region.  fixed: value -> offset in its region, for params, state and const.  arena: buffers by
    function.  aliases: by function, value -> the value whose memory it is.  given: by function, values whose memory
    is the caller's.
    """

    program: Program
    sizes: Mapping[str, int]
    fixed: Mapping[str, int]
    arena: Mapping[str, tuple[Buffer, ...]]
    aliases: Mapping[str, Mapping[str, str]]
    given: Mapping[str, tuple[str, ...]]

    def offset(self, function: str, name: str) -> int:
        """Arena offset of an activation in a function."""
        return next(b.offset for b in self.arena[function] if name in b.interval.names)

    def peak(self, function: str) -> tuple[int, str]:
        """Bytes of arena that the function needs, and the op that sets it."""
        ops = self.program.functions()[function]
        ends = [self._reach(function, index) for index in range(len(ops))]
        if not ends:
            return 0, ""
        worst = max(range(len(ends)), key=ends.__getitem__)
        return ends[worst], describe(ops[worst].kind, ops[worst].outputs, ops[worst].loc)

    def _reach(self, function: str, index: int) -> int:
        return max((b.end for b in self.arena[function] if b.interval.first <= index <= b.interval.last), default=0)

    def scratch_bytes(self) -> int:
        """Bytes of the arena used only by what a kernel needs beside its outputs."""
        names = {value.name for value in self.program.of(Role.SCRATCH)}
        sizes = [b.interval.bytes for buffers in self.arena.values() for b in buffers if set(b.interval.names) <= names]
        return max(sizes, default=0)

    @property
    def text(self) -> str:
        """The memory map, readable in a terminal."""
        lines = [f"memory map of {self.program.name}"]
        for region in ("params", "state", "arena", "const"):
            where = "flash" if region == "const" else "RAM"
            lines.append(f"  {region:<7}{self.sizes[region]:>9,} B  {where}")
        for function, buffers in self.arena.items():
            size, op = self.peak(function)
            lines.append(f"  {function}: {size:,} B of arena, the most at {op}")
            for b in sorted(buffers, key=lambda b: (b.offset, b.interval.first)):
                life = f"ops {b.interval.first}-{b.interval.last}"
                lines.append(f"    {b.offset:>8}..{b.end:<8} {b.interval.bytes:>8} B  {life:<12} {b.interval.names[0]}")
        return "\n".join(lines)

    def draw(self, path: Path) -> None:
        """Write the arena as a picture: ops from left to right, addresses upwards, one rectangle a buffer."""
        from strop.compiler.plan_picture import draw

        draw(self, path)


def check_fits(plan: Plan, ram: int, flash: int, board: str) -> None:
    """Raise PlanError, with the memory map, when the planned bytes alone exceed what the board has."""
    needs_ram = plan.sizes["params"] + plan.sizes["state"] + plan.sizes["arena"]
    needs_flash = plan.sizes["params"] + plan.sizes["const"]
    for what, needs, has in (("RAM", needs_ram, ram), ("flash", needs_flash, flash)):
        if needs > has:
            raise PlanError(
                f"{plan.program.name} needs {needs:,} B of {what}, {board} has {has:,} B", map=plan.text,
                do="Choose a larger board, a smaller network, a rule that keeps less, or freeze layers",
            )  # fmt: skip


def describe(kind: str, outputs: Sequence[str], loc: str) -> str:
    """An op in words: what it computes, of which layer."""
    return f"{kind} -> {', '.join(outputs)}" + (f" of {loc}" if loc else "")


def aligned(size: int) -> int:
    """Round up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def place(program: Program) -> Plan:
    """Give every value a fixed address."""
    fixed: dict[str, int] = {}
    sizes = dict.fromkeys(("params", "state", "arena", "const"), 0)
    for value in program.of(*REGION_OF):
        region = REGION_OF[value.role]
        fixed[value.name] = sizes[region]
        sizes[region] += aligned(value.bytes)
    shared = {name: aliases(ops) for name, ops in program.functions().items()}
    given = {"train_step": (), "infer": (shared["infer"].get(program.output, program.output),)}
    arena = {
        name: pack(intervals(program, ops, program.results(name), given[name]))
        for name, ops in program.functions().items()
    }
    sizes["arena"] = max(map(_height, arena.values()))
    return Plan(program, sizes, fixed, arena, shared, given)


def pack(buffers: Sequence[Interval]) -> tuple[Buffer, ...]:
    """Offsets without overlap: each buffer at the lowest gap that holds it, in the best of several orders."""
    orders = (
        lambda b: (-b.bytes, b.first),
        lambda b: (b.first, -b.bytes),
        lambda b: (-(b.last - b.first), -b.bytes),
        lambda b: (-b.bytes * (b.last - b.first + 1), b.first),
    )
    packings = [packed for key in orders for packed in _attempts(sorted(buffers, key=key))]
    best = min(packings, key=_height, default=[])
    return tuple(sorted(best, key=lambda b: (b.interval.first, b.offset)))


def _attempts(order: list[Interval]) -> Iterator[list[Buffer]]:
    """Packings in an order, and then with what stuck out at the top of the one before placed first."""
    for _ in order:
        packed = _first_fit(order)
        yield packed
        highest = max(packed, key=lambda b: b.end).interval
        if highest is order[0]:
            return
        order = [highest, *(interval for interval in order if interval is not highest)]


def _height(packed: Sequence[Buffer]) -> int:
    return max((b.end for b in packed), default=0)


def _first_fit(buffers: Sequence[Interval]) -> list[Buffer]:
    placed: list[Buffer] = []
    for interval in buffers:
        offset = 0
        for other in sorted((b for b in placed if b.interval.overlaps(interval)), key=lambda b: b.offset):
            if other.offset - offset >= aligned(interval.bytes):
                break
            offset = max(offset, other.end)
        placed.append(Buffer(interval, offset))
    return placed
