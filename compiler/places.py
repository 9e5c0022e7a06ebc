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
    turns, start = _turns([atom for _, atom in lanes], lane, bounds, count)
    values = (
        sum(factor * _value(atom, {**turn, lane: number}) for factor, atom in lanes)
        for turn in turns for number in range(count)
    )  # fmt: skip
    table = tuple(size * value for value in values)
    if len(table) > LONGEST or min(table) < 0 or max(table) > FARTHEST:
        raise LowerError("lanes lie too far apart", where=str(index))
    parts = tuple((size * factor % (FARTHEST + 1), divisor, load) for divisor, (factor, load) in loads.items())
    base = bounds.analyzer.simplify(sum((term * factor for factor, term in fixed), index - index))
    return Spread(base, table, start, tuple(part for part in parts if part[0]))


def _turns(atoms: list[Any], lane: Any, bounds: Any, count: int) -> tuple[list[dict[Any, int]], Any]:
    """The values of the loop variable that atoms depend on beside the lane, and where its turn begins in the table."""
    others = {var for atom in atoms for var in bounds.variables(atom)} - {lane}
    if len(others) > 1:
        raise LowerError("lanes lie in no row", where=", ".join(map(str, atoms)))
    if not others:
        return [{}], bounds.analyzer.simplify(lane - lane)
    (var,) = others
    low, high = bounds.range(var)
    if high - low > LONGEST:
        raise LowerError("lanes lie too far apart", where=str(var))
    return [{var: turn} for turn in range(low, high + 1)], bounds.analyzer.simplify((var - low) * count)


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


def _value(node: Any, variables: dict[Any, int]) -> int:
    """The value of an index for the values of its variables."""
    kind = type(node).__name__
    if kind == "Var":
        return variables[node]
    if kind == "IntImm":
        return int(node)
    if kind not in OPERATIONS:
        raise LowerError("lanes lie in no row", where=str(node))
    return OPERATIONS[kind](_value(node.a, variables), _value(node.b, variables))


OPERATIONS = {
    "Add": int.__add__, "Sub": int.__sub__, "Mul": int.__mul__, "FloorDiv": int.__floordiv__, "FloorMod": int.__mod__,
}  # fmt: skip
