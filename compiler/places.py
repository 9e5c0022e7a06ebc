"""Where lanes lie that are in no row: a table of constants says how far each is from the first, and numbers in memory
may say how much further.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from strop.errors import LowerError

FARTHEST = 65535
"""Distances are 16 bits wide."""

LONGEST = 4096
"""Entries of a table, at most: what lies in flash for it should be less than the code it saves."""


@dataclass(frozen=True)
class Spread:
    """Places of lanes.

    base: the index that distances are from.  table, start: distances in bytes, and the entry of the first lane.
    parts: (factor, divisor, load): each lane lies factor * (a number in memory // divisor) bytes further, modulo 2^16.
    """

    base: Any
    table: tuple[int, ...]
    start: Any
    parts: tuple[tuple[int, int, Any], ...]


def spread(index: Any, lane: Any, bounds: Any, size: int, count: int) -> Spread:
    """Places of `count` lanes at an index of elements of `size` bytes. bounds: see `lower.Bounds`.

    Raises LowerError where they are not of this kind.
    """
    fixed, lanes, loads = _parted(index, lane, bounds)
    number = next((number for _, atom in lanes if (number := _number(atom, lane, bounds)) is not None), lane)
    _, first = bounds.lanes(number, lane)
    low, high = bounds.range(first)
    row = Row(lane, first, bounds)
    values = [sum(factor * row.value(atom, n) for factor, atom in lanes) for n in range(low, high + count)]
    table = tuple(size * value for value in values)
    if len(table) > LONGEST or min(table) < 0 or max(table) > FARTHEST:
        raise LowerError("lanes lie too far apart", where=str(index))
    parts = tuple((size * factor % (FARTHEST + 1), divisor, load) for divisor, (factor, load) in loads.items())
    base = bounds.analyzer.simplify(sum((term * factor for factor, term in fixed), index - index))
    return Spread(base, table, bounds.analyzer.simplify(first - low), tuple(part for part in parts if part[0]))


def _parted(index: Any, lane: Any, bounds: Any) -> tuple[list[tuple[int, Any]], list[tuple[int, Any]], dict[Any, Any]]:
    """The terms of a sum: those that are alike in all lanes, those of the lane's number, those of numbers in memory."""
    fixed: list[tuple[int, Any]] = []
    lanes: list[tuple[int, Any]] = []
    loads: dict[int, tuple[int, Any]] = defaultdict(lambda: (0, None))
    for factor, atom in _terms(index, 1):
        if not bounds.depends(atom, lane):
            fixed.append((factor, atom))
        elif (read := _read(atom)) is not None:
            for divisor, times in read[1:]:
                loads[divisor] = (loads[divisor][0] + factor * times, read[0])
        else:
            lanes.append((factor, atom))
    if len({str(load) for _, load in loads.values()}) > 1:
        raise LowerError("the places of lanes depend on two numbers in memory", where=str(index))
    return fixed, lanes, loads


def _terms(node: Any, factor: int) -> Iterator[tuple[int, Any]]:
    """(factor, term) of an index, sums and products with constants taken apart."""
    kind = type(node).__name__
    if kind in ("Add", "Sub"):
        yield from _terms(node.a, factor)
        yield from _terms(node.b, factor if kind == "Add" else -factor)
    elif kind == "Mul" and type(node.b).__name__ == "IntImm":
        yield from _terms(node.a, factor * int(node.b))
    else:
        yield factor, node


def _read(atom: Any) -> tuple[Any, *tuple[tuple[int, int], ...]] | None:
    """(load, (divisor, factor)...) of a byte from memory, its quotient or its remainder by a constant."""
    kind = type(atom).__name__
    if kind == "Cast" and type(atom.value).__name__ == "TensorLoad" and str(atom.value.ty.dtype) == "uint8":
        return atom.value, (1, 1)
    inner = _read(atom.a) if kind in ("FloorDiv", "FloorMod") and type(atom.b).__name__ == "IntImm" else None
    if inner is None or inner[1:] != ((1, 1),):
        return None
    divisor = int(atom.b)
    return (inner[0], (divisor, 1)) if kind == "FloorDiv" else (inner[0], (1, 1), (divisor, -divisor))


def _number(atom: Any, lane: Any, bounds: Any) -> Any | None:
    """What an atom divides: the number of a lane in the row of them all."""
    if type(atom).__name__ not in ("FloorDiv", "FloorMod"):
        return None
    inner = _number(atom.a, lane, bounds)
    if inner is not None:
        return inner
    slope, _ = bounds.lanes(atom.a, lane)
    return atom.a if slope == 1 else None


@dataclass(frozen=True)
class Row:
    """The numbers of lanes in the row of them all. first: that of the first lane."""

    lane: Any
    first: Any
    bounds: Any

    def value(self, node: Any, number: int) -> int:
        """The value of an expression for a number in the row."""
        kind = type(node).__name__
        if kind == "IntImm":
            return int(node)
        if kind in ("FloorDiv", "FloorMod"):
            a, b = self.value(node.a, number), self.value(node.b, number)
            return a // b if kind == "FloorDiv" else a % b
        slope, rest = self.bounds.lanes(node, self.lane)
        further = self.bounds.analyzer.simplify(rest - self.first * slope)
        if type(further).__name__ != "IntImm":
            raise LowerError("lanes lie in no row", where=str(node))
        return int(slope) * number + int(further)
