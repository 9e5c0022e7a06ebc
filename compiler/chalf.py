"""Prints kernels whose vectors compute in binary16 where the Program says so (`Program.half`).

Of `maps`, what is made of numbers that rest in binary16, element by element, and rests so again is computed in halves,
each operation rounded once; an update `w + a*b` is one fused multiply-add. Of `sums`, a sum of products is also kept in
halves for up to `TERMS` terms, then added to the float32 sum; one that has no more is kept in halves altogether.
Everything else is computed in float32, as in `VectorPrinter`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from strop.compiler.cprint import walk
from strop.compiler.cvector import (
    ARITHMETIC,
    COMPARISONS,
    Larger,
    VectorPrinter,
    choice_of,
    is_half,
    is_label,
    is_lanes,
    store_of,
    width_of,
)
from strop.errors import LowerError

TERMS = 32
"""Terms of a sum in binary16 before it is widened: its error is then some ten of their own roundings."""

SMALLEST, LARGEST = 2.0**-14, 65520.0
"""Constants in between lose no more than half a last place in binary16."""

FUNCTIONS = ("strop_reluf", "strop_model_limited")
"""What has a form in halves."""

FEWEST = 4
"""Fewer terms are added to the float32 sum one by one, which costs less than to widen their sum."""


class HalfPrinter(VectorPrinter):
    """A VectorPrinter that knows arithmetic in binary16.

    sums: whether sums too may be in halves.  terms: of each register tile of sums of halves, the most terms of one.
    chosen: register tiles of what is chosen among such sums.  halves: tiles in halves, and variables.
    open: of each tile that is being summed in halves, the names of those sums by the sums they will be added to.
    words: panels that hold halves, one a word.
    """

    sums = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.terms: dict[Any, int] = {}
        self.chosen: set[Any] = set()
        self.halves: set[Any] = set()
        self.open: dict[Any, dict[str, str]] = {}
        self.words: set[Any] = set()

    def _SeqStmt(self, node: Any) -> None:
        """Look ahead at what becomes of each register tile."""
        buffers = [part.buffer for part in node.seq if type(part).__name__ == "AllocBuffer"]
        for buffer in buffers:
            terms = self._terms(buffer, node.seq)
            if terms is not None:
                self.terms[buffer] = terms
        if self.sums:
            self.chosen |= self._choices({buffer: _stored(node, buffer) for buffer in buffers})
        super()._SeqStmt(node)

    def _ordered(self, statements: Sequence[Any]) -> Sequence[Any]:
        """Products of neighbours that are added to one sum together."""
        joined: list[Any] = []
        for node in super()._ordered(statements):
            if joined and self._are_neighbours(joined[-1], node):
                joined[-1] = Neighbours(joined[-1])
            else:
                joined.append(node)
        return joined

    def _are_neighbours(self, first: Any, second: Any) -> bool:
        """Whether two statements add products to one sum, of every other half, the second's behind the first's."""
        one, other = self._product_added(first), self._product_added(second)
        if not one or [each[:2] for each in one] != [each[:2] for each in other]:
            return False
        between = [self.bounds.distance(base, next_to) for (*_, base), (*_, next_to) in zip(one, other, strict=True)]
        return between == [0, 1, 1] and [distance for _, distance, _ in one[1:]] == [2, 2]

    def _product_added(self, node: Any) -> list[tuple[Any, int, Any]]:
        """Where a loop over lanes has a sum, and the halves whose product it adds: memory, distance, and first lane."""
        try:
            return [(load.source, *self.bounds.lanes(load.indices[0], node.loop_var)) for load in _product_added(node)]
        except LowerError:
            return []

    def _Neighbours(self, node: "Neighbours") -> None:
        with self._lanes(node.first) as body:
            target, product = self._target(body), body.value.b
            factors = (self._two_a_lane(side.value) for side in (product.a, product.b))
            self._line(f"{target} = {self._call('dot_f16', *factors, target)};")

    def _two_a_lane(self, load: Any) -> str:
        """C of a vector of twice as many halves from the first lane's on."""
        _, base = self.bounds.lanes(load.indices[0], self.lane)
        count = 2 * self.extent
        return f"strop_x{width_of(count)}_half({self._address(load.source, base)}, 1, {count})"

    def _choices(self, stored: dict[Any, list[Any]]) -> set[Any]:
        """The buffers of all that get only choices among short sums, and constants to begin with."""
        found = {
            buffer
            for buffer, values in stored.items()
            if any(map(choice_of, values)) and all(_is_constant(value) or _by_comparison(value) for value in values)
        }
        short = {buffer for buffer, terms in self.terms.items() if terms <= TERMS}
        while wrong := {b for b in found if not self._among(stored[b], found | short)}:
            found -= wrong
        return found

    def _among(self, values: list[Any], buffers: set[Any]) -> bool:
        """Whether values are made of some buffers' alone, and of binary16 and parameters in memory."""
        return all(tile in buffers for value in values for tile in _tiles(value))

    def _terms(self, buffer: Any, nodes: Any) -> int | None:
        """The most terms that any sum in the buffer gets; None if it is no buffer of sums of halves."""
        total: Counter[str] = Counter()
        for node in nodes:
            found = self._added(buffer, node)
            if found is None:
                return None
            total.update(found)
        return max(total.values(), default=0) or None

    def _added(self, buffer: Any, node: Any) -> Counter[str] | None:
        """How many terms a statement adds to each sum in a buffer; None if it does anything else to the buffer."""
        kind = type(node).__name__
        if kind == "SeqStmt":
            return self._together(buffer, node.seq, 1)
        if kind == "For":
            if type(node.extent).__name__ != "IntImm":
                return None
            return self._together(buffer, [node.body], 1 if is_lanes(node) else int(node.extent))
        if kind == "IfThenElse":
            return self._together(buffer, [side for side in (node.then_case, node.else_case) if side is not None], 1)
        if kind != "BufferStore" or not node.buffer.same_as(buffer):
            return Counter()
        if type(node.value).__name__ == "FloatImm" and float(node.value.value) == 0:
            return Counter()
        return Counter({str(node.indices[0]): 1}) if self._sum_of(node, node.value) else None

    def _together(self, buffer: Any, nodes: Any, times: int) -> Counter[str] | None:
        total: Counter[str] = Counter()
        for node in nodes:
            found = self._added(buffer, node)
            if found is None:
                return None
            total.update({key: times * count for key, count in found.items()})
        return total

    def _sum_of(self, node: Any, value: Any) -> bool:
        """Whether a store's value is what it overwrites plus or minus a term that halves make."""
        if type(value).__name__ not in ("Add", "Sub") or type(value.a).__name__ != "TensorLoad":
            return False
        if not value.a.source.same_as(node.buffer) or str(value.a.indices[0]) != str(node.indices[0]):
            return False
        choice = choice_of(value.b)
        return self._term(choice[1] if choice else value.b)

    def _term(self, node: Any) -> bool:
        """Whether a term is a half, or a product of halves and their differences with parameters."""
        if type(node).__name__ in ("Mul", "Sub"):
            sides = (node.a, node.b)
            return any(map(self._term, sides)) and all(self._term(n) or _from_memory(n) for n in sides)
        return is_half(node)

    def statement(self, node: Any) -> None:
        """Append the C of a statement; with sums in halves around the largest parts that are short enough."""
        short = [buffer for buffer in self.tiles if self._opens(buffer, node)]
        if not short or self.lane is not None:
            super().statement(node)
            return
        self.open |= {buffer: {} for buffer in short}
        before, self.lines = self.lines, []
        super().statement(node)
        within, self.lines = self.lines, before
        for buffer in short:
            self._summed(buffer, within)

    def _opens(self, buffer: Any, node: Any) -> bool:
        if not self.sums or buffer not in self.terms or buffer in self.halves or buffer in self.open:
            return False
        return FEWEST <= (self._terms(buffer, [node]) or 0) <= TERMS

    def _summed(self, buffer: Any, within: list[str]) -> None:
        """Print sums in halves around the statements that add to them, and add them to the float32 sums."""
        names, count = self.open.pop(buffer), self.tiles[buffer][1]
        prefix = f"strop_x{width_of(count)}"
        for name in names.values():
            self._line(f"strop_f16x{width_of(count)} {name} = {prefix}_half_fill(0.0f, {count});")
        self.lines += within
        for whole, name in names.items():
            self._line(f"{whole} = {prefix}_add_f16({whole}, {name}, {count});")

    def _vectors(self, node: Any, index: Any, element: str = "f32") -> None:
        if (self.sums and self.terms.get(node.buffer, TERMS + 1) <= TERMS) or node.buffer in self.chosen:
            self.halves.add(node.buffer)
            element = "f16"
        super()._vectors(node, index, element)

    def _assign(self, node: Any, value: Any) -> None:
        if node.buffer in self.undeclared:
            self._target(node)  # declares it
        if self.lane is None or is_label(node.buffer):
            super()._assign(node, value)
        elif self.sums and node.buffer in self.panels and is_half(value):
            self.words.add(node.buffer)
            place = self._lanes_of(node.buffer, node.indices)
            self._line(f"{self.prefix}_half_spread({place}, {self.half(value)}, {self.count});")
        elif node.buffer in self.halves or (node.buffer in self.open and self._sum_of(node, value)):
            target = self._partial(node)
            self._line(f"{target} = {self._kept(node.buffer, target, self._half_sum(target, value), 'half_')};")
        elif node.buffer in self.terms and type(value).__name__ == "FloatImm":
            self._line(f"{self._target(node)} = {self._call('fill_f16', self._scalar(value))};")
        elif str(node.buffer.dtype) == "float16" and type(value).__name__ == "Cast" and (text := self._half_of(value)):
            self._line(f"{self.prefix}_half_store({self._lanes_of(node.buffer, node.indices)}, {text}, {self.count});")
        else:
            super()._assign(node, value)

    def _partial(self, node: Any) -> str:
        """The sum in halves that stands for a store's target."""
        whole = self._target(node)
        if node.buffer in self.halves:
            return whole
        names = self.open[node.buffer]
        if whole not in names:
            names[whole] = self._fresh(f"{whole}_part")
        return names[whole]

    def _kind(self, tile: Any) -> str:
        return "half_" if tile in self.halves else ""

    def _Bind(self, node: Any) -> None:
        tiles = _tiles(node.value)
        if self.lane is None or not tiles or not tiles <= self.halves:
            super()._Bind(node)
            return
        text, name = self.half(node.value), self._variable(node.var)
        self.bound.append(node.var)
        self.halves.add(node.var)
        self._line(f"const strop_f16x{width_of(self.extent)} {name} = {text};")

    def _raise(self, node: Larger, element: str, kind: str, make: Callable[[Any], str]) -> None:
        tiles = _tiles(node.most.value) | _tiles(node.label.value)
        if tiles and tiles <= self.halves:
            self.halves |= {node.most.var, node.label.var}
            element, kind, make = "f16", "half_", self.half
        super()._raise(node, element, kind, make)

    def _half_sum(self, target: str, value: Any) -> str:
        kind = type(value).__name__
        if kind not in ("Add", "Sub"):
            return self.half(value)
        term = value.b
        if type(term).__name__ == "Mul":
            return self._product("half_fma" if kind == "Add" else "half_fnma", term, target)
        return self._call("half_add" if kind == "Add" else "half_sub", target, self.half(term))

    def _product(self, name: str, product: Any, rest: str) -> str:
        """rest +- the product of two numbers."""
        a, b = product.a, product.b
        if not self._is_vector(b):
            a, b = b, a
        if self._of_panels(a) and a.source in self.words:
            word = super()._of_panel(a.source, a.indices[0], "_words")
            read = self._once(f"strop_f16x{width_of(self.extent)}", self.half(b))
            return self._call(f"{name}_fvv", word, read, rest)
        if not self._is_vector(a):
            bits = self.expression(a.value) if is_half(a) else f"strop_f16_bits({self.expression(a)})"
            return self._call(f"{name}_fvv", bits, self.half(b), rest)
        return self._call(name, self.half(a), self.half(b), rest)

    def _of_panel(self, buffer: Any, index: Any, suffix: str = "") -> str:
        if buffer not in self.words:
            return super()._of_panel(buffer, index, suffix)
        return f"strop_f16_float((uint16_t){super()._of_panel(buffer, index, '_words')})"

    def _multiply_add(self, name: str, product: Any, rest: str) -> str:
        """In float32, of a product of halves that are made of others."""
        a, b = product.a, product.b
        made = not (is_half(a) and is_half(b)) and self._is_vector(a) and self._is_vector(b)
        if made and self._term(a) and self._term(b):
            return self._call(f"{name}_f16", self.half(a), self.half(b), rest)
        return super()._multiply_add(name, product, rest)

    def _half_of(self, stored: Any) -> str | None:
        """C of what a store to binary16 would round, where halves make it; None where they do not."""
        value = stored.value
        if type(value).__name__ == "TensorLoad":
            return self._element(value.source, value.indices) if value.source in self.halves else None
        return self.half(value) if self._halves(value) else None

    def _halves(self, node: Any, *, term: bool = False, factor: bool = False) -> bool:
        """Whether halves make a number. term, factor: of a sum, of a product.

        A float32 sum may be rounded before a choice as well as after; before another term it may where sums are in
        halves, and before a factor it may be too large.
        """
        kind = type(node).__name__
        if kind == "FloatImm":
            return float(node.value) == 0 or SMALLEST <= abs(float(node.value)) < LARGEST
        if is_half(node) or not self._is_vector(node):
            return True
        if kind == "TensorLoad":
            return node.source in self.halves or _from_memory(node) or not (factor or (term and not self.sums))
        if kind in ("Add", "Sub", "Mul", "Max"):
            term, factor = term or kind in ("Add", "Sub"), factor or kind == "Mul"
            return all(self._halves(side, term=term, factor=factor) for side in (node.a, node.b))
        choice = choice_of(node)
        if choice is not None:
            condition, *sides = choice
            compared = _is_comparison(condition) and self._halves(condition.a) and self._halves(condition.b)
            return compared and all(self._halves(side, term=term, factor=factor) for side in sides)
        return _function(node) in FUNCTIONS and self._halves(node.args[1], term=term, factor=factor)

    def half(self, node: Any) -> str:
        """C of a vector of halves."""
        return self._before(node, "f16", self._made_half)

    def _made_half(self, node: Any) -> str:
        kind = type(node).__name__
        if is_half(node) and self._is_vector(node):
            return self._half(node)
        if kind == "Var":
            return self.vars[node]
        if not self._is_vector(node):
            return self._call("half_fill", self._scalar(node))
        if kind == "TensorLoad":
            place = self._element(node.source, node.indices) if node.source in self.halves else ""
            return place or self._call("half_round", self.vector(node))
        if kind in ARITHMETIC:
            return self._half_arithmetic(kind, node.a, node.b)
        if kind == "Max":
            a, b = self.half(node.a), self.half(node.b)
            return self._call("half_pick_gt", a, b, a, b)
        choice = choice_of(node)
        return self._half_pick(*choice) if choice is not None else self._half_function(node)

    def _half_arithmetic(self, kind: str, a: Any, b: Any) -> str:
        if kind in ("Add", "Sub") and type(b).__name__ == "Mul" and self._is_vector(b):
            return self._product("half_fma" if kind == "Add" else "half_fnma", b, self.half(a))
        if kind == "Add" and type(a).__name__ == "Mul" and self._is_vector(a):
            return self._product("half_fma", a, self.half(b))
        name = f"half_{ARITHMETIC[kind]}"
        if not self._is_vector(b):
            return self._call(f"{name}_vf", self.half(a), self.expression(b))
        if not self._is_vector(a):
            return self._call(f"{name}_fv", self.expression(a), self.half(b))
        return self._call(name, self.half(a), self.half(b))

    def _half_pick(self, condition: Any, then: Any, otherwise: Any) -> str:
        name, swapped = COMPARISONS[type(condition).__name__]
        a, b = self.half(condition.a), self.half(condition.b)
        sides = (b, a) if swapped else (a, b)
        if not self._is_vector(then):
            return self._call(f"half_pick_{name}_f", *sides, self._scalar(then), self.half(otherwise))
        return self._call(f"half_pick_{name}", *sides, self.half(then), self.half(otherwise))

    def _half_function(self, node: Any) -> str:
        function, argument = _function(node), self.half(node.args[1])
        if function == "strop_reluf":
            return self._call("half_relu", argument)
        return f"{function}_half_x{width_of(self.extent)}({argument}, {self.count})"

    def _vector(self, node: Any) -> str:
        """Sums in halves are widened."""
        if type(node).__name__ == "TensorLoad" and node.source in self.halves:
            return self._call("widen", self._element(node.source, node.indices))
        if type(node).__name__ == "Var" and node in self.halves:
            return self._call("widen", self.vars[node])
        return super()._vector(node)


class HalfSumPrinter(HalfPrinter):
    """A HalfPrinter that sums in halves too."""

    sums = True


@dataclass(frozen=True)
class Neighbours:
    """Two loops over lanes that add products of neighbours to one sum. first: that of the first neighbours."""

    first: Any


def _product_added(statement: Any) -> list[Any]:
    """The sum that a loop over lanes adds a product of halves to, and the halves."""
    store = store_of(statement)
    value: Any = getattr(store, "value", None)
    product: Any = getattr(value, "b", None)
    if type(value).__name__ != "Add" or type(product).__name__ != "Mul" or type(value.a).__name__ != "TensorLoad":
        return []
    if not (value.a.source.same_as(store.buffer) and is_half(product.a) and is_half(product.b)):
        return []
    return [value.a, product.a.value, product.b.value]


def _from_memory(node: Any) -> bool:
    """Whether a number is a float32 that a kernel is given."""
    loads = type(node).__name__ == "TensorLoad" and str(node.source.dtype) == "float32"
    return loads and node.source.scope() != "local"


def _stored(statement: Any, buffer: Any) -> list[Any]:
    """What a statement stores to a buffer; for a variable what it is bound to."""
    nodes = list(walk(statement))
    bound = {node.var: node.value for node in nodes if type(node).__name__ == "Bind"}
    stores = [node for node in nodes if type(node).__name__ == "BufferStore" and node.buffer.same_as(buffer)]
    return [bound[store.value] if type(store.value).__name__ == "Var" else store.value for store in stores]


def _tiles(node: Any) -> set[Any]:
    """The register tiles that an expression reads."""
    sources = {part.source for part in walk(node) if type(part).__name__ == "TensorLoad"}
    return {source for source in sources if source.scope() == "local"}


def _by_comparison(value: Any) -> bool:
    """Whether a value is a choice, and it and all within by comparing floats."""
    found = [choice for node in walk(value) if (choice := choice_of(node)) is not None]
    return choice_of(value) is not None and all(_is_comparison(condition) for condition, *_ in found)


def _is_constant(node: Any) -> bool:
    return type(node).__name__ in ("FloatImm", "IntImm")


def _is_comparison(node: Any) -> bool:
    return type(node).__name__ in COMPARISONS and str(node.a.ty.dtype) == "float32"


def _function(node: Any) -> str:
    """Name of the runtime's function that a node calls, if it does."""
    called = type(node).__name__ == "Call" and "extern" in str(node.op.name)
    return str(node.args[0].value) if called else ""
