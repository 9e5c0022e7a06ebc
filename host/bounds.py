"""The fewest instructions a kernel can take on a scalar core with fma, for `profile` to hold a measurement against.

Counted from the tensor expression of the op, so an op that is added has its bound without asking:

* an operation, comparison, choice, or call of the runtime is one instruction, as often as the loops it depends on run;
  a product that is only added is part of the addition;
* every element of an operand is loaded once, every element of a result stored once;
* a sum of products that uses its operands again and again loads half of one a product: a tile of 4 x 4 sums in
  registers takes 8 loads for 16 fma. A convolution three wide and of stride 1 loads 3/8: four outputs in a row share
  six inputs, 18 loads for 48 fma.

What depends on loop variables alone is free: addresses, and padding, which a schedule can keep out of a loop. Loops
themselves are not counted. A fully connected layer thus costs 2 a weight forward, 3 for a first layer's update, and 4
for input gradient and update in one pass. Calls make the bound of a loss far lower than anything can be.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from strop.compiler.dtypes import DType
from strop.compiler.ir import Op, Program, TensorType
from strop.compiler.kernels import kernel_runs
from strop.compiler.ops import spec

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle

LOADS = 1 / 2
"""Loads a product where registers hold a tile of 4 x 4 sums."""
SLIDING_LOADS = 3 / 8
"""The same where neighbours share inputs: convolutions three wide and of stride 1."""

OPERATIONS = {
    name: getattr(operator, name)
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "lt", "le", "gt", "ge", "eq", "ne")
}


def bounds(bundle: "Bundle") -> list[float | None]:
    """The bound of each kernel of the train step, in order of execution; None where no scalar core with fma runs it."""
    program, core = bundle.program, bundle.board.core
    scalar = max(core.tiling.get("lanes", 1), core.tiling.get("harts", 1)) == 1
    counted = core.fma and scalar and not bundle.board.is_host
    return [times * bound(program, op) if counted else None for op, times in kernel_runs(program.train_step)]


def bound(program: Program, op: Op) -> float:
    """The fewest instructions of one run of an op, fused or not."""
    language = Counting()
    tensors = {name: Tensor(program.values[name].shape) for name in op.inputs}
    for part in op.parts:
        language.loads_a_product = _loads_a_product(program, part)
        types = [program.values[name].type for name in part.inputs]
        made = spec(part.kind).expression(language, [tensors[n] for n in part.inputs], types, dict(part.attrs))
        tensors.update(zip(part.outputs, made, strict=True))
    return _instructions([tensors[name] for name in op.outputs])


def _loads_a_product(program: Program, part: Op) -> float:
    """What the sums of products of an op load for each, where they use operands again."""
    if not part.kind.startswith("conv2d") or part.attrs["groups"] != 1:
        return LOADS
    kernel = part.attrs.get("kernel") or program.values[part.inputs[1]].shape[2:]
    return SLIDING_LOADS if (kernel[-1], part.attrs["stride"][1]) == (3, 1) else LOADS  # type: ignore[index]


def _binary(name: str, *, swapped: bool = False) -> Any:
    def method(self: "Term", other: Any) -> "Term":
        pair = (self, _term(other))
        return Term(name, pair[::-1] if swapped else pair)

    return method


@dataclass(frozen=True, eq=False)
class Term:
    """A scalar of an expression: `op` of other terms, or of a number, an axis's extent or a tensor in `of`."""

    op: str
    args: tuple["Term", ...] = ()
    of: Any = None

    __add__, __radd__ = _binary("add"), _binary("add", swapped=True)
    __sub__, __rsub__ = _binary("sub"), _binary("sub", swapped=True)
    __mul__, __rmul__ = _binary("mul"), _binary("mul", swapped=True)
    __truediv__, __rtruediv__ = _binary("truediv"), _binary("truediv", swapped=True)
    __floordiv__, __mod__ = _binary("floordiv"), _binary("mod")
    __lt__, __le__, __gt__, __ge__ = (_binary(name) for name in ("lt", "le", "gt", "ge"))
    __eq__, __ne__, __hash__ = _binary("eq"), _binary("ne"), object.__hash__

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """Equal for terms that compute the same, so that what is written twice counts once."""
        return (self.op, id(self) if self.op == "axis" else self.of, *(arg.key for arg in self.args))

    @cached_property
    def axes(self) -> frozenset["Term"]:
        """The loops whose variables it depends on."""
        if self.op == "axis":
            return frozenset([self])
        return frozenset[Term]().union(*(arg.axes for arg in self.args)) - frozenset(self.of if self.reduces else ())

    @property
    def reduces(self) -> bool:
        """Whether it is made in loops of its own; these are in `of`."""
        return self.op in ("sum", "max", "argmax")

    @cached_property
    def known(self) -> bool:
        """Whether it depends on loop variables alone."""
        return self.op != "read" and all(arg.known for arg in self.args)

    def at(self, place: dict["Term", Any]) -> Any:
        """The value of a known term for given values of its axes."""
        if self.op == "axis":
            return place[self]
        if self.op == "number":
            return self.of
        function: Callable[..., Any] = OPERATIONS.get(self.op, np.logical_and)
        return reduce(function, (arg.at(place) for arg in self.args))


def _term(value: Any) -> Term:
    return value if isinstance(value, Term) else Term("number", of=value)


@dataclass(frozen=True, eq=False)
class Tensor:
    """An operand of a kernel, or a stage: element by element from a term. loads_a_product: see `Counting`."""

    shape: tuple[int, ...]
    element: Term | None = None
    loads_a_product: float = LOADS

    def __getitem__(self, place: Any) -> Term:
        return Term("read", tuple(_term(index) for index in (place if isinstance(place, tuple) else (place,))), self)


class Counting:
    """The language of `ops.base.Te` that only keeps what it is told. loads_a_product: of the sums told next."""

    loads_a_product = LOADS

    def compute(self, shape: Sequence[int], element: Callable[..., Any], name: str) -> Tensor:
        """One stage."""
        del name
        return Tensor(tuple(shape), _term(element(*self.axes(*shape))), self.loads_a_product)

    def axes(self, *extents: int) -> tuple[Term, ...]:
        """Loops."""
        return tuple(Term("axis", of=extent) for extent in extents)

    def sum(self, expr: Any, axes: Sequence[Any]) -> Term:
        """An addition in every turn."""
        return Term("sum", (_term(expr),), tuple(axes))

    def max(self, expr: Any, axes: Sequence[Any]) -> Term:
        """A maximum in every turn."""
        return Term("max", (_term(expr),), tuple(axes))

    def compute_argmax(
        self, shape: Sequence[int], element: Callable[..., tuple[Any, Any]], axes: Sequence[Any], name: str
    ) -> tuple[Tensor, Tensor]:
        """A comparison and a branch in every turn, counted with the first tensor."""
        largest = self.compute(shape, lambda *i: Term("argmax", (_term(element(*i)[0]),), tuple(axes)), name)
        return largest, self.compute(shape, lambda *i: largest[i], name)

    def scatter(
        self, variable: TensorType, inputs: Sequence[Any], place: Callable[..., Any], element: Callable[..., Any],
        name: str,
    ) -> Tensor:
        """The rows that are written."""
        del place
        shape = (inputs[0].shape[0], *variable.shape[1:])
        return self.compute(shape, lambda r, *i: element(inputs, r, *i), name)

    def where(self, condition: Any, then: Any, otherwise: Any) -> Term:
        """A choice."""
        return Term("where", (condition, _term(then), _term(otherwise)))

    def every(self, *conditions: Any) -> Term:
        """Conditions that each may be known or not."""
        return Term("every", conditions)

    def call(self, function: str, *arguments: Any) -> Term:
        """One instruction, whatever the function takes."""
        return Term("call", tuple(_term(argument) for argument in arguments), function)

    def sign_hash(self, seed: int, tensor: int, index: Any) -> Term:
        """A call too."""
        return Term("call", (_term(index),), (seed, tensor))

    def uniform_hash(self, seed: int, tensor: int, index: Any) -> Term:
        """A call too."""
        return Term("call", (_term(index),), (seed, tensor, "uniform"))

    def rounded(self, value: Any, dtype: DType) -> Term:
        """A call."""
        return self.call(dtype.base, value)

    def dithered(self, value: Any, dtype: DType, seed: Any, tensor: int, index: Any) -> Term:
        """Two calls."""
        return self.call(dtype.base, value, self.sign_hash(0, tensor, index))

    def const(self, value: float) -> Term:
        """A register."""
        return _term(float(value))

    def cast(self, expr: Any, dtype: DType) -> Term:
        """Free: most conversions are of labels and indices."""
        del dtype
        return _term(expr)


def _instructions(results: Sequence[Tensor]) -> float:
    """Arithmetic, loads and stores of the stages that lead to the results."""
    stages = list(_stages(results))
    merged = {p.key for s in stages for term in _terms(s.element) for p in _merged(term, results)}
    seen: set[tuple[Any, ...]] = set()
    arithmetic = sum(_cost(stage.element, 1.0, merged, seen) for stage in stages if stage.element)
    return arithmetic + _loads(stages) + sum(prod(tensor.shape) for tensor in results)


def _stages(results: Iterable[Tensor]) -> Iterator[Tensor]:
    """Every tensor that leads to the results, operands too, each once."""
    found: dict[int, Tensor] = {}
    waiting = list(results)
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in found:
            found[id(tensor)] = tensor
            waiting += [term.of for term in _terms(tensor.element) if term.op == "read"]
    yield from found.values()


def _terms(term: Term | None) -> Iterator[Term]:
    if term is not None:
        yield term
        for arg in term.args:
            yield from _terms(arg)


def _factors(term: Term) -> Iterator[Term]:
    """What a term reads, without what it takes to know the places."""
    if term.op == "read":
        yield term
    else:
        for arg in term.args:
            yield from _factors(arg)


def _merged(term: Term, results: Sequence[Tensor]) -> Iterator[Term]:
    """Products that an addition takes in."""
    for arg in term.args if term.op in ("add", "sub", "sum") else ():
        found = _product(arg, results)
        if found is not None:
            yield found
            return


def _product(term: Term, results: Sequence[Tensor] = ()) -> Term | None:
    """The product that a term is, perhaps under a condition, or in a stage of its own that is no result."""
    if term.op == "where":
        return _product(term.args[1], results)
    if term.op == "read" and term.of.element and not any(term.of is result for result in results):
        return _product(term.of.element, results)
    return term if term.op == "mul" and not term.known else None


def _cost(term: Term, share: float, merged: set[tuple[Any, ...]], seen: set[tuple[Any, ...]]) -> float:
    """Instructions of a term's own operations. share: of its loops' turns that it is needed in."""
    if term.known or term.op == "read" or term.key in seen:
        return 0.0
    seen.add(term.key)
    axes = term.axes | frozenset(term.of if term.reduces else ())
    runs = share * _turns(axes)
    if term.op == "where":
        holds, asked = _asked(term.args[0])
        sides = zip(term.args[1:], (share * holds, share * (1 - holds)), strict=True)
        asking = sum(_cost(each, share, merged, seen) + share * _turns(each.axes) for each in asked)
        return asking + sum(_cost(side, part, merged, seen) for side, part in sides)
    inner = sum(_cost(arg, share, merged, seen) for arg in term.args)
    if term.reduces:
        return inner + runs * _guarded(term.args[0]) * (2 if term.op == "argmax" else 1)
    return inner + (0.0 if term.key in merged else runs)


def _turns(axes: Iterable[Term]) -> int:
    """How often a body inside these loops runs."""
    return prod(int(axis.of) for axis in axes)


def _asked(condition: Term) -> tuple[float, list[Term]]:
    """(share of turns in which the known conditions hold, the conditions that must be asked)."""
    parts = condition.args if condition.op == "every" else (condition,)
    known = [part for part in parts if part.known]
    if not known:
        return 1.0, list(parts)
    axes = list(frozenset[Term]().union(*(part.axes for part in known)))
    grid = np.meshgrid(*(np.arange(axis.of) for axis in axes), indexing="ij", sparse=True)
    holds = Term("every", tuple(known)).at(dict(zip(axes, grid, strict=True)))
    share = float(np.broadcast_to(holds, [axis.of for axis in axes]).mean())
    return share, [part for part in parts if not part.known]


def _guarded(term: Term) -> float:
    """The share of turns in which a guarded term has to be added."""
    return _asked(term.args[0])[0] if term.op == "where" else 1.0


def _loads(stages: Sequence[Tensor]) -> float:
    """Every operand once; what sums of products use again, as often as registers force it to be."""
    again: dict[int, Tensor] = {}
    total = 0.0
    for stage in stages:
        term = stage.element
        product = _product(term.args[0]) if term is not None and term.op == "sum" else None
        if term is None or product is None:
            continue
        operands = {id(t.of): t.of for t in _factors(product) if t.of.element is None}
        runs = _turns(term.axes | frozenset(term.of)) * _guarded(term.args[0])
        total += max(sum(prod(t.shape) for t in operands.values()), stage.loads_a_product * runs)
        again |= operands
    return total + sum(prod(t.shape) for t in stages if t.element is None and id(t) not in again)
