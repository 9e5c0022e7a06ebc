"""Prints kernels in vectors: loops marked `vectorized` become calls of runtime/lanes.h, one a vector.

A loop over lanes holds stores only. What its variable does not occur in stays a scalar; an operand is a vector that is
loaded from the lanes' places: any distance apart, or where a table says (see `places`). The last vector of a row may be
shorter than the others. What has no vector form is a LowerError: the kernel stays scalar.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, takewhile
from math import prod
from re import findall
from typing import Any

from strop.compiler.cprint import ATOM, BINARY, NARROW, Printer, literal, walk
from strop.compiler.dtypes import DTYPES
from strop.compiler.places import Spread, spread
from strop.errors import LowerError

VECTORIZED = 2
"""TVM's kind of a loop over lanes."""

PANEL = "local.panel"
"""TVM's scope of numbers that a kernel keeps on the stack. Two neighbours are read at once."""

ROW = "local.row"
"""TVM's scope of sums that a kernel keeps on the stack until all of them are there."""

WIDTHS = (4, 8, 16, 32, 64, 128)
"""Lanes of the types in runtime/lanes.h."""

ARITHMETIC = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}
COMPARISONS = {"GT": ("gt", False), "GE": ("ge", False), "LT": ("gt", True), "LE": ("ge", True), "EQ": ("eq", False)}
"""Function, and whether the operands change places."""


ELEMENTARY = {"strop_sqrtf": "sqrt", "strop_reluf": "relu", "strop_expf": "exp"}
"""Functions of numbers that lanes have too."""

IN_MEMORY = {"float32": "", "uint8": "_u8", **{name: f"_{short}" for name, short in NARROW.items()}}
"""What lanes can lie in memory as, and how the functions that load and store them end. In registers all are floats."""


STACKED = 1024
"""Entries of a row of places on the stack, at most."""

SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of what lanes can be gathered of."""


@dataclass
class Turns:
    """A loop that is being printed. lines, at: where what stands before it goes.

    kept: names of scalars that are read before it, or before another loop of the block that it stands in, by their C.
    changes: what it stores vectors to, if it does no more than that.
    """

    var: Any
    lines: list[str]
    depth: int
    kept: dict[str, str]
    changes: set[Any]

    def __post_init__(self) -> None:
        self.at = len(self.lines)
        self.lines.append("")

    def before(self, text: str) -> None:
        """Put a line before the loop."""
        self.lines[self.at] += "\n" * bool(self.lines[self.at]) + "    " * self.depth + text


def width_of(lanes: int) -> int:
    """The smallest type that holds so many lanes."""
    return next(width for width in WIDTHS if width >= lanes)


class VectorPrinter(Printer):
    """A Printer that knows loops over lanes.

    lane: the variable of the loop being printed.  prefix: of its functions.  extent: turns of the loop, and lanes of
    vectors in registers.  count: how many of them come about, all but in a tail.  tiles: of each register tile of
    vectors, the distance of lanes in it, and how many they are.  filled: the count of its first vector.  declared: the
    lines that declare tiles, as type and names.  single: registers that each lane has one of.  gathers: whether lanes
    may lie in no row, at places of `tables`.  turns: the loops around a statement, outermost first; around: those that
    do no more than store vectors.  fixed: by the place before one of these and their C, the names of vectors that are
    made there.  room: scalars that stay in registers around loops; kept: of each block around a statement, their names
    by their C.  changed: buffers that the kernel stores to.  panels: rows of numbers on the stack.  read: by its C, the
    name of what products with those read in this block of statements.  renews: whether each register tile loads what it
    shares with others, because registers do not keep it; renewed: the memory that the last one has done so from.
    """

    lane: Any = None
    prefix = count = ""
    extent = room = 0
    gathers = renews = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.tiles: dict[Any, tuple[int, int]] = {}
        self.undeclared: dict[Any, tuple[Any, int, int, bool]] = {}
        self.single: dict[Any, str] = {}
        self.bound: list[Any] = []
        self.tables: dict[tuple[int, ...], str] = {}
        self.filled: dict[Any, str] = {}
        self.declared: dict[str, tuple[str, list[str]]] = {}

        self.turns: list[Turns] = []
        self.kept: list[dict[str, str]] = [{}]
        self.changed: set[Any] = set()
        self.around: list[Turns] = []
        self.fixed: dict[tuple[int, str], str] = {}
        self.panels: set[Any] = set()
        self.read: dict[str, str] = {}
        self.renewed: set[str] = set()

    def function(self, body: Any) -> None:
        """Append the C of a kernel's body, tables first."""
        self.room = self.room if always_runs(body) else 0
        self.changed = {node.buffer for node in walk(body) if type(node).__name__ == "BufferStore"}
        super().function(body)
        self.lines = self._used(self.lines)
        self.lines[:0] = [
            f"    static const uint16_t {name}[{len(table)}] = {{{', '.join(map(str, table))}}};"
            for table, name in self.tables.items()
        ]

    def _used(self, lines: list[str]) -> list[str]:
        """Lines without those registers of a tile that a shorter vector has no use for."""
        times = Counter(findall(r"\w+", "\n".join(lines)))
        return [
            f"{head} {', '.join(kept)};" if (kept := [name for name in names if times[name] > 1]) != names else line
            for line in lines
            for head, names in [self.declared.get(line, (line, []))]
        ]

    @contextmanager
    def _lanes(self, loop: Any) -> Iterator[Any]:
        """Print the loop's body as of one vector."""
        if self.lane is not None:
            raise LowerError("a loop over lanes lies in another")
        self.vars[loop.loop_var], self.extent = "", int(loop.extent)
        self.lane, self.prefix = loop.loop_var, f"strop_x{width_of(self.extent)}"
        self.count, body = self._tail(loop)
        try:
            yield body
        finally:
            self.lane = None

    def _tail(self, loop: Any) -> tuple[str, Any]:
        """How many lanes of a loop come about, and its body without the condition that says so."""
        body = loop.body
        if type(body).__name__ != "IfThenElse" or not self.bounds.depends(body.condition, loop.loop_var):
            return str(self.extent), body
        self.bounds.loop(loop)
        count = self.bounds.first(loop, body.condition)
        if not count or body.else_case is not None:
            raise LowerError("a condition differs between lanes", where=str(body.condition))
        return str(count), body.then_case

    def _For(self, node: Any) -> None:
        if self._sums_lanes(node):
            self._line(self._lane_sum(node))
            return
        if is_lanes(node):
            with self._lanes(node) as body:
                self.statement(body)
            return
        changes = self._changes(node)
        turns = Turns(node.loop_var, self.lines, self.depth, self.kept[-1], changes)
        stores = bool(self.around) or any(isinstance(place, str) for place in changes)
        self.turns.append(turns)
        self.around += [turns] * stores
        self.kept.append({})
        super()._For(node)
        self.kept.pop()
        self.around = self.around[:-1] if stores else self.around
        self.turns.pop()

    def _xTensorLoad(self, node: Any) -> str:
        """A scalar; what all turns of loops read for their vectors is read before them, as far as registers hold it."""
        text = super()._xTensorLoad(node)
        if self.lane is None or not self._is_parameter(node.source):
            return text
        known = [kept[text] for kept in self.kept if text in kept]
        steady = list(takewhile(lambda turns: not self.bounds.depends(node, turns.var), reversed(self.turns)))
        if known or not steady or sum(map(len, self.kept)) >= self.room:
            return known[0] if known else text
        name = self._fresh(f"{self.buffers[node.source]}_{len(steady[-1].kept)}")
        steady[-1].before(f"const {DTYPES[str(node.ty.dtype)].c} {name} = {text};")
        return steady[-1].kept.setdefault(text, name)

    def _is_parameter(self, buffer: Any) -> bool:
        """Whether a buffer is memory that the kernel only reads."""
        changed = {self.buffers.get(each) for each in self.changed}
        return buffer.scope() not in ("local", PANEL) and self.buffers[buffer] not in changed

    def _changes(self, node: Any) -> set[Any]:
        """What a statement stores vectors to, registers or the names of memory; nothing if it does anything else."""
        kind, parts = type(node).__name__, []
        if kind == "BufferStore":
            return {self._kept_in(node.buffer)}
        if kind == "SeqStmt":
            parts = list(node.seq)
        elif kind == "For":
            parts = [store_of(node) if is_lanes(node) else node.body]
        changes = [self._changes(part) for part in parts]
        return set[Any]().union(*changes) if all(changes) else set()

    def _kept_in(self, buffer: Any) -> Any:
        """The name of memory, under which it may be several buffers; a buffer of registers."""
        return buffer if buffer.scope() == "local" else self.buffers.get(buffer, buffer)

    def _before(self, node: Any, element: str, make: Callable[[Any], str]) -> str:
        """C of a vector, or the name that it gets before those loops that store vectors and do not change it."""
        outside = self._steady_in(node)
        if not outside:
            return make(node)
        around, self.around = self.around, []
        text = make(node)
        self.around = around
        key = outside[-1].at, text
        if key not in self.fixed:
            self.fixed[key] = self._fresh("fixed")
            outside[-1].before(f"const strop_{element}x{width_of(self.extent)} {self.fixed[key]} = {text};")
        return self.fixed[key]

    def _steady_in(self, node: Any) -> list[Turns]:
        """The loops that a vector can be made before, innermost first; none for a constant."""
        reads = {self._kept_in(part.source) for part in walk(node) if type(part).__name__ == "TensorLoad"}

        def steady(turns: Turns) -> bool:
            return not (self.bounds.depends(node, turns.var) or reads & turns.changes)

        if type(node).__name__ == "FloatImm" or any(self.bounds.depends(node, var) for var in self.bound):
            return []
        return list(takewhile(steady, reversed(self.around)))

    def _ordered(self, statements: Sequence[Any]) -> Sequence[Any]:
        """Additions to different sums so that those of a vector stand together: it is loaded once, and not kept."""
        runs = ((added, list(run)) for added, run in groupby(statements, _is_addition))
        return _with_labels([each for added, run in runs for each in (_by_load(run) if added else run)])

    def _sums_lanes(self, node: Any) -> bool:
        """Whether a loop adds all lanes of a vector in registers to a scalar, one after the other."""
        store: Any = node.body
        value: Any = getattr(store, "value", None)
        if type(store).__name__ != "BufferStore" or type(value).__name__ != "Add":
            return False
        sides = (value.a, value.b)
        if any(type(side).__name__ != "TensorLoad" for side in sides) or not value.a.source.same_as(store.buffer):
            return False
        return value.b.source in self.tiles and self.tiles[value.b.source][1] == int(node.extent)

    def _lane_sum(self, node: Any) -> str:
        target, vector = self._target(node.body), node.body.value.b
        with self._lanes(node):
            tile = self._element(vector.source, vector.indices)
            return f"{target} = {self._call(f'{self._kind(vector.source)}sum', target, tile)};"

    def _kind(self, _tile: Any) -> str:
        """How functions of a register tile's format begin."""
        return ""

    def _guard(self, node: Any) -> str | None:
        """Of a loop over lanes: what guards its only store."""
        if not is_lanes(node):
            return super()._guard(node)
        with self._lanes(node) as body:
            return super()._guard(body)

    def _add(self, part: Any) -> None:
        if not is_lanes(part):
            super()._add(part)
            return
        with self._lanes(part) as body:
            super()._add(body)

    def _conditions(self, node: Any) -> dict[str, Any]:
        if not is_lanes(node):
            return super()._conditions(node)
        with self._lanes(node) as body:
            found = super()._conditions(body)
        return {text: part for text, part in found.items() if not self.bounds.depends(part, node.loop_var)}

    def _IfThenElse(self, node: Any) -> None:
        if self.lane is not None and self._is_vector(node.condition):
            raise LowerError("a condition differs between lanes", where=str(node.condition))
        super()._IfThenElse(node)

    def _AllocBuffer(self, node: Any) -> None:
        """A register tile is declared when its first use has shown whether it is one of vectors."""
        if str(node.buffer.scope()) == PANEL:
            self._panel(node.buffer)
            return
        if str(node.buffer.scope()) == ROW:
            self._array(node.buffer, _size(node.buffer))
            return
        self.undeclared[node.buffer] = (node, len(self.lines), self.depth, self.lane is not None)
        self.lines.append("")

    def _declare(self, buffer: Any, index: Any) -> None:
        node, at, depth, inside = self.undeclared.pop(buffer)
        lines, self.lines, here, self.depth = self.lines, [], self.depth, depth
        if inside and _size(buffer) == 1:
            self._one_a_lane(node)
        elif self.lane is None or not self._is_vector(index):
            super()._AllocBuffer(node)
        else:
            self._vectors(node, index)
        (lines[at],), self.lines, self.depth = self.lines, lines, here

    def _panel(self, buffer: Any) -> None:
        """Declare a panel, with room for a neighbour of the last number."""
        self.panels.add(buffer)
        self._array(buffer, _size(buffer) + 1)

    def _array(self, buffer: Any, count: int) -> None:
        """Declare floats on the stack."""
        self.buffers[buffer] = self._fresh(str(buffer.name).replace("_local", ""))
        self._line(f"float {self.buffers[buffer]}[{count}];")

    def _of_panel(self, buffer: Any, index: Any, suffix: str = "") -> str:
        """A number of a panel, which is read together with its neighbour. suffix: of the function that reads."""
        pair, name = self.bounds.pair(index), self.buffers[buffer]
        first, second = pair or (index, False)
        where = f"{name} + {self.expression(first, BINARY['Add'][1])}"
        two = self._once(f"strop_two{suffix}", f"strop_load_two{suffix}({where})")
        return f"{two}.{'second' if second else 'first'}"

    def _once(self, kind: str, text: str) -> str:
        """The name of what products read several times: compilers take a pair's reading for one that changes memory."""
        if text not in self.read:
            self.read[text] = self._fresh("read")
            self._line(f"const {kind} {self.read[text]} = {text};")
        return self.read[text]

    def _block(self, head: str, body: Any) -> None:
        before, self.read = self.read, {}  # names of what a block reads end with it
        super()._block(head, body)
        self.read = before

    def _guarded(self, condition: str, parts: Iterable[Any]) -> None:
        before, self.read = self.read, {} if condition else self.read
        super()._guarded(condition, parts)
        self.read = before

    def _one_a_lane(self, node: Any) -> None:
        _check_register(node.buffer.dtype)
        self.single[node.buffer] = self._fresh(str(node.buffer.name).removesuffix("_local"))
        self.bound.append(node.buffer)
        self._line(f"strop_f32x{width_of(self.extent)} {self.single[node.buffer]};")

    def _vectors(self, node: Any, index: Any, element: str = "f32") -> None:
        _check_register(node.buffer.dtype)
        self.renewed.clear()
        name, lanes = self._fresh(str(node.buffer.name).removesuffix("_local")), self.extent
        self.buffers[node.buffer], self.tiles[node.buffer] = name, (self.bounds.lanes(index, self.lane)[0], lanes)
        count = _size(node.buffer) // lanes
        names = [self._tile(name, count, i) for i in range(count)]
        self._registers(f"strop_{element}x{width_of(lanes)}{'_labels' * is_label(node.buffer)}", names)

    def _registers(self, kind: str, names: list[str]) -> None:
        super()._registers(kind, names)
        self.declared[self.lines[-1]] = f"{'    ' * self.depth}{kind}", names

    @staticmethod
    def _tile(name: str, count: int, index: int) -> str:
        return name if count == 1 else f"{name}{'_' if name[-1].isdigit() else ''}{index}"

    def _element(self, buffer: Any, indices: Any) -> str:
        (index,) = indices
        if buffer in self.panels:
            return self._of_panel(buffer, index)
        if buffer in self.undeclared:
            self._declare(buffer, index)
        if buffer in self.single:
            return self.single[buffer]
        if buffer not in self.tiles:
            return super()._element(buffer, indices)
        own, lanes = self.tiles[buffer]
        slope, base = self.bounds.lanes(index, self.lane) if self.lane is not None else (0, index)
        if slope != own or type(base).__name__ != "IntImm" or lanes != self.extent:
            raise LowerError(f"register tile {self.buffers[buffer]} is indexed by a loop that is not unrolled")
        outer, inner = divmod(int(base), own * lanes)
        return self._tile(self.buffers[buffer], _size(buffer) // lanes, outer * own + inner)

    def _assign(self, node: Any, value: Any) -> None:
        if self.lane is None:
            super()._assign(node, value)
        elif self._in_registers(node.buffer):
            target = self._target(node)  # declares it
            if is_label(node.buffer) and node.buffer in self.tiles:
                text = self._labels(value, self._kind(node.buffer))
            else:
                text = self._kept(node.buffer, target, self.vector(value))
            self._line(f"{target} = {text};")
        elif is_label(node.buffer) and getattr(value, "source", None) in self.tiles:
            place, kind = self._lanes_of(node.buffer, node.indices), self._kind(value.source)
            self._line(f"{self.prefix}_{kind}store_labels({place}, {self._labels(value, kind)}, {self.count});")
        else:
            place, kind = self._lanes_of(node.buffer, node.indices), IN_MEMORY[str(node.buffer.dtype)]
            if type(value).__name__ == "Cast" and str(node.buffer.dtype) in NARROW:
                value = value.value  # storing rounds
            self._line(f"{self.prefix}_store{kind}({place}, {self.vector(value)}, {self.count});")

    def _kept(self, buffer: Any, target: str, vector: str, kind: str = "") -> str:
        """What a register becomes: in a tail, the other lanes of a sum that began with more stay what they are."""
        if self.filled.setdefault(buffer, self.count) == self.count:
            return vector
        return self._call(f"{kind}first", vector, target)

    def _Bind(self, node: Any) -> None:
        if self.lane is None or not self._is_vector(node.value):
            super()._Bind(node)
            return
        vector, name = self.vector(node.value), self._variable(node.var)
        self.bound.append(node.var)
        self._line(f"const strop_f32x{width_of(self.extent)} {name} = {vector};")

    def _Larger(self, node: "Larger") -> None:
        """Two variables, in vectors what they replace, raised."""
        if self.lane is None or not self._is_vector(node.most.value) or self._is_vector(node.sides[2]):
            self._Bind(node.most)
            self._Bind(node.label)
        else:
            self._raise(node, "f32", "", self.vector)

    def _raise(self, node: "Larger", element: str, kind: str, make: Callable[[Any], str]) -> None:
        value, before, name, previous = node.sides
        first, second = self._variable(node.most.var), self._variable(node.label.var)
        self.bound += [node.most.var, node.label.var]
        lanes = f"strop_{element}x{width_of(self.extent)}"
        self._line(f"{lanes} {first} = {make(before)};")
        self._line(f"{lanes}_labels {second} = {self._labels(previous, kind)};")
        self._line(f"{self._call(f'{kind}raise', f'&{first}', f'&{second}', make(value), self.expression(name))};")

    def _labels(self, node: Any, kind: str) -> str:
        """C of a vector of labels. kind: how functions of the lanes they belong to begin."""
        if not self._is_vector(node):
            return self._call(f"{kind}labels", self.expression(node))
        return self.vars[node] if type(node).__name__ == "Var" else self._element(node.source, node.indices)

    def _in_registers(self, buffer: Any) -> bool:
        return buffer in self.tiles or buffer in self.single or buffer in self.undeclared

    def _lanes_of(self, buffer: Any, indices: Any) -> str:
        """`address, stride` of the lanes."""
        _check(buffer.dtype)
        (index,) = indices
        slope, base = self.bounds.lanes(index, self.lane)
        if slope < 1:
            raise LowerError("lanes lie in no row", where=str(index))
        return f"{self._address(buffer, base)}, {slope}"

    def _address(self, buffer: Any, index: Any) -> str:
        name, text = self.buffers[buffer], self.expression(index, BINARY["Add"][1])
        return name if text == "0" else f"{name} + {text}"

    def _loaded(self, function: str, source: Any, indices: Any) -> str:
        """C of a vector from memory. function: of the lanes' places in a row; `gather` of it where they lie in none."""
        if str(source.scope()) != ROW:
            self._renew(self.buffers[source])
        try:
            return self._call(function, self._lanes_of(source, indices))
        except LowerError:
            if not self.gathers or str(source.dtype) not in SIZES:
                raise
            (index,) = indices
            found = spread(index, self.lane, self.bounds, SIZES[str(source.dtype)], int(self.count))
        address, places = self._address(source, found.base), self._places(found, self.buffers[source], function)
        gather = "gather_" + function.removeprefix("load").removeprefix("_")
        return self._call(gather.removesuffix("_"), address, places)

    def _renew(self, name: str) -> None:
        """Give memory an address that compilers do not know to be the same, where they should keep nothing of it."""
        if self.renews and name not in self.renewed:
            self.renewed.add(name)
            self._line(f"{name} = strop_address({name});")

    def _places(self, found: Spread, name: str, function: str) -> str:
        """C of how far lanes are from an address, in bytes."""
        kind = "places16" if function in ("half", "load_f16") else "places32"
        if found.table not in self.tables:
            self.tables[found.table] = self._fresh(f"{name}_places")
        start, table = self.expression(found.start, BINARY["Add"][1]), self.tables[found.table]
        places = self._call(kind, table if start == "0" else f"{table} + {start}")
        for factor, divisor, load in found.parts:
            part = self._call(f"{kind}_u8", self._lanes_of(load.source, load.indices))
            part = part if divisor == 1 else self._call(f"{kind}_div", part, str(divisor))
            places = self._call(f"{kind}_add", places, part, str(factor))
        again = self._again(found)
        return self._found_before(again, found, kind, places, start) if again else places

    def _again(self, found: Spread) -> list[Turns]:
        """The loops, innermost first, that come to the same places again, beside the one that walks along them."""
        loads = [load for _, _, load in found.parts]
        if not loads or len(found.table) > STACKED or not all(self._is_parameter(load.source) for load in loads):
            return []

        def steady(turns: Turns) -> bool:
            return not any(self.bounds.depends(load, turns.var) for load in loads)

        loops = list(takewhile(lambda t: steady(t) or self.bounds.depends(found.start, t.var), reversed(self.turns)))
        return loops[: max((i for i, turns in enumerate(loops, 1) if steady(turns)), default=0)]

    def _found_before(self, loops: list[Turns], found: Spread, kind: str, places: str, start: str) -> str:
        """C of places that are found once, before loops, and kept on the stack."""
        key = loops[-1].at, places
        name = self.fixed.get(key) or self._fresh("places")
        where = name if start == "0" else f"{name} + {start}"
        if key not in self.fixed:
            self.fixed[key] = name
            lines = [f"{self._call(f'store_{kind}', where, places)};"]
            for turns in loops:
                if self.bounds.depends(found.start, turns.var):
                    variable, (low, high) = self.vars[turns.var], self.bounds.range(turns.var)
                    head = f"for (int {variable} = {low}; {variable} < {high + 1}; ++{variable}) {{"
                    lines = [head, *("    " + line for line in lines), "}"]
            for line in (f"uint16_t {name}_row[{len(found.table)}], *{name} = {name}_row;", *lines):
                loops[-1].before(line)
        self._renew(name)
        return self._call(kind, where)

    def expression(self, node: Any, outer: int = -1) -> str:
        """C of an expression: a vector where it differs between lanes."""
        if self.lane is not None and self._is_vector(node):
            return self.vector(node)
        return super().expression(node, outer)

    def _is_vector(self, node: Any) -> bool:
        return any(self.bounds.depends(node, var) for var in (self.lane, *self.bound))

    def vector(self, node: Any) -> str:
        """C of a vector. A scalar is spread over all lanes."""
        return self._before(node, "f32", self._vector)

    def _vector(self, node: Any) -> str:
        _check(node.ty.dtype)
        if not self._is_vector(node):
            return self._call("fill", self._scalar(node))
        kind = type(node).__name__
        if kind in ARITHMETIC and str(node.ty.dtype) == "float32":
            return self._arithmetic(kind, node.a, node.b)
        if kind in ("Max", "Min"):
            a, b = self.vector(node.a), self.vector(node.b)
            return self._call("pick_gt", *((a, b) if kind == "Max" else (b, a)), a, b)
        if kind == "TensorLoad":
            if self._in_registers(node.source):
                return self._element(node.source, node.indices)
            return self._loaded(f"load{IN_MEMORY[str(node.source.dtype)]}", node.source, node.indices)
        if kind == "Var":
            return self.vars[node]
        if kind == "Cast" and str(node.value.ty.dtype) in NARROW:
            return self.vector(node.value)  # loading widens
        if kind == "Select":
            return self._pick(node.condition, node.true_value, node.false_value)
        if kind == "Call":
            return self._function(node)
        raise LowerError(f"no vector form of a {kind} node", where=str(node)[:80])

    def _scalar(self, node: Any) -> str:
        """C of a float that all lanes share."""
        if type(node).__name__ == "FloatImm":
            return literal(float(node.value))
        text = self.expression(node, ATOM)
        return text if str(node.ty.dtype) == "float32" else f"(float){text}"

    def _call(self, function: str, *arguments: str) -> str:
        return f"{self.prefix}_{function}({', '.join(arguments)}, {self.count})"

    def _arithmetic(self, kind: str, a: Any, b: Any) -> str:
        if self.fma and kind in ("Add", "Sub"):
            if type(b).__name__ == "Mul":
                return self._multiply_add("fma" if kind == "Add" else "fnma", b, self.vector(a))
            if type(a).__name__ == "Mul":
                rest = self.vector(b) if kind == "Add" else self._call("sub_fv", "-0.0f", self.vector(b))
                return self._multiply_add("fma", a, rest)
        if kind == "Add" and is_half(a) and not is_half(b):
            a, b = b, a
        if kind in ("Add", "Sub") and is_half(b) and self._is_vector(a) and self._is_vector(b):
            return self._call(f"{ARITHMETIC[kind]}_f16", self.vector(a), self._half(b))
        if not self._is_vector(b):
            return self._call(f"{ARITHMETIC[kind]}_vf", self.vector(a), self.expression(b))
        if not self._is_vector(a):
            return self._call(f"{ARITHMETIC[kind]}_fv", self.expression(a), self.vector(b))
        return self._call(ARITHMETIC[kind], self.vector(a), self.vector(b))

    def _multiply_add(self, name: str, product: Any, rest: str) -> str:
        a, b = product.a, product.b
        if is_half(a) and is_half(b) and (self._is_vector(a) or self._is_vector(b)):
            return self._multiply_halves(name, a, b, rest)
        if not self._is_vector(a) and not self._is_vector(b):
            return self._call(f"{name}_fvv", self.expression(a), self._call("fill", self.expression(b)), rest)
        if not self._is_vector(b):
            a, b = b, a
        if not self._is_vector(a):
            return self._scaled(name, a, b, rest)
        return self._call(name, self.vector(a), self.vector(b), rest)

    def _scaled(self, name: str, a: Any, b: Any, rest: str) -> str:
        """The product of a float and a vector, of binary16 if it comes from memory: that takes fewer registers."""
        factor, element, widened = self.expression(a), "f32", ""
        if is_half(b) and not self._steady_in(b):
            element, widened, vector = "f16", "_wide", self._half(b)
        else:
            vector = self.vector(b)
        if self._of_panels(a):
            vector = self._once(f"strop_{element}x{width_of(self.extent)}", vector)
        return self._call(f"{name}{widened}_fvv", factor, vector, rest)

    def _of_panels(self, node: Any) -> bool:
        return type(node).__name__ == "TensorLoad" and node.source in self.panels

    def _multiply_halves(self, name: str, a: Any, b: Any, rest: str) -> str:
        """The product of two binary16 numbers from memory, which need not be widened before."""
        if not self._is_vector(b):
            a, b = b, a
        if not self._is_vector(a):
            return self._call(f"{name}_f16_fvv", self.expression(a.value), self._half(b), rest)
        return self._call(f"{name}_f16", self._half(a), self._half(b), rest)

    def _half(self, node: Any) -> str:
        """A vector of binary16 numbers as it rests in memory. node: of what it widens to."""
        return self._loaded("half", node.value.source, node.value.indices)

    def _pick(self, condition: Any, then: Any, otherwise: Any) -> str:
        """A choice lane by lane. Both sides are evaluated: neither may lie outside of memory."""
        kind, lane = type(condition).__name__, self._lane_of(condition)
        if lane is not None and not self._is_vector(then):
            return self._call("pick_lane", lane, self._scalar(then), self.vector(otherwise))
        if kind not in COMPARISONS or str(condition.a.ty.dtype) not in IN_MEMORY or not self._is_vector(condition):
            raise LowerError("no vector form of a choice", where=str(condition)[:80])
        name, swapped = COMPARISONS[kind]
        a, b = self.vector(condition.a), self.vector(condition.b)
        sides = (b, a) if swapped else (a, b)
        if not self._is_vector(then):
            return self._call(f"pick_{name}_f", *sides, self._scalar(then), self.vector(otherwise))
        return self._call(f"pick_{name}", *sides, self.vector(then), self.vector(otherwise))

    def _lane_of(self, condition: Any) -> str | None:
        """C of the only lane in which an index is what a number says, if that is a condition."""
        if type(condition).__name__ != "EQ" or str(condition.a.ty.dtype) != "int32":
            return None
        number, index = (condition.b, condition.a) if self._is_vector(condition.a) else (condition.a, condition.b)
        slope, base = self.bounds.lanes(index, self.lane)
        return self.expression(self.bounds.analyzer.simplify(number - base)) if slope == 1 else None

    def _function(self, node: Any) -> str:
        name = str(node.op.name)
        if name.endswith("if_then_else"):
            return self._pick(*node.args)
        function = str(node.args[0].value) if "call" in name and "extern" in name else name
        if function in ELEMENTARY:
            return self._call(ELEMENTARY[function], self.vector(node.args[1]))
        if function == "strop_model_limited":
            return f"{function}_x{width_of(self.extent)}({self.vector(node.args[1])}, {self.count})"
        raise LowerError(f"no vector form of {function}")


def is_lanes(node: Any) -> bool:
    """Whether a statement is a loop over lanes."""
    return type(node).__name__ == "For" and int(node.kind) == VECTORIZED


def always_runs(body: Any) -> bool:
    """Whether no statement waits for a condition, but for lanes in the shorter vectors at an end.

    A choice by comparing floats is made lane by lane, between what is computed in any case.
    """
    nodes = list(walk(body))
    tails = [node.body for node in nodes if is_lanes(node)]
    conditions = [node for node in nodes if _is_conditional(node)]
    return all(any(node.same_as(tail) for tail in tails) for node in conditions)


def _is_conditional(node: Any) -> bool:
    if type(node).__name__ != "Call" or not str(node.op.name).endswith("if_then_else"):
        return type(node).__name__ == "IfThenElse"
    return not str(getattr(node.args[0], "a", node).ty.dtype).startswith("float")


def store_of(statement: Any) -> Any:
    """What a loop over lanes does, in a tail or not."""
    body: Any = getattr(statement, "body", None)
    return getattr(body, "then_case", body) if is_lanes(statement) else None


def _is_addition(statement: Any) -> bool:
    """Whether a statement adds a vector from memory to a register tile."""
    store = store_of(statement)
    if type(store).__name__ != "BufferStore" or store.buffer.scope() != "local":
        return False
    return type(store.value).__name__ in ("Add", "Sub") and _load_of(statement) is not None


def _load_of(statement: Any) -> str | None:
    """The only vector that an addition loads."""
    lane = str(statement.loop_var)
    loads = (node for node in walk(store_of(statement).value) if type(node).__name__ == "TensorLoad")
    memory = {f"{node.source.name} {node.indices[0]}" for node in loads if node.source.scope() != "local"}
    vectors = [text for text in memory if lane in text]
    return vectors[0] if len(vectors) == 1 else None


def _by_load(statements: list[Any]) -> list[Any]:
    """Statements with those of a load together, as far as each sum keeps the order of its terms."""
    stores = map(store_of, statements)
    targets = [f"{store.buffer.name} {store.indices[0]}" for store in stores]
    left = list(zip(map(_load_of, statements), targets, statements, strict=True))
    ordered: list[Any] = []
    while left:
        ready = [i for i, (_, target, _) in enumerate(left) if target not in {other for _, other, _ in left[:i]}]
        whole = [i for i in ready if all(j in ready for j, (load, *_) in enumerate(left) if load == left[i][0])]
        first = left[(whole or ready)[0]][0]
        taken = [i for i in ready if left[i][0] == first]
        ordered += [left[i][2] for i in taken]
        left = [row for i, row in enumerate(left) if i not in taken]
    return ordered


def choice_of(node: Any) -> tuple[Any, Any, Any] | None:
    """Condition and both sides of a choice."""
    if type(node).__name__ == "Select":
        return node.condition, node.true_value, node.false_value
    if type(node).__name__ == "Call" and str(node.op.name).endswith("if_then_else"):
        return tuple(node.args)
    return None


@dataclass(frozen=True)
class Larger:
    """Variables that are bound to the larger of two floats and to its label."""

    most: Any
    label: Any

    @property
    def sides(self) -> list[Any]:
        """The value, what it replaces where it is larger, and the same of the label."""
        return [side for bind in (self.most, self.label) for side in (choice_of(bind.value) or ())[1:]]


def _with_labels(statements: list[Any]) -> list[Any]:
    """Statements with those two together that bind a larger float and its label."""
    joined: list[Any] = []
    for node in statements:
        if joined and _is_larger(joined[-1]) and _condition(joined[-1]) == _condition(node):
            joined[-1] = Larger(joined[-1], node)
        else:
            joined.append(node)
    return joined


def _is_larger(statement: Any) -> bool:
    """Whether a variable is bound to b where a < b, and else to a."""
    condition, *sides = _chosen(statement) or (None,)
    if type(condition).__name__ != "LT":
        return False
    compared: Any = condition
    return [str(side) for side in sides] == [str(compared.b), str(compared.a)]


def _condition(statement: Any) -> str:
    """What chooses the value of a variable."""
    chosen = _chosen(statement)
    return str(chosen[0]) if chosen else ""


def _chosen(statement: Any) -> tuple[Any, Any, Any] | None:
    """Condition and sides of the choice that a variable is bound to."""
    return choice_of(statement.value) if type(statement).__name__ == "Bind" else None


def is_half(node: Any) -> bool:
    """Whether a number is the exact value of a binary16 in memory."""
    value: Any = node.value if type(node).__name__ == "Cast" else None
    return type(value).__name__ == "TensorLoad" and str(value.ty.dtype) == "float16"


def is_label(buffer: Any) -> bool:
    """Whether a buffer holds labels: bytes, in registers and in memory."""
    return str(buffer.dtype) == "uint8"


def _size(buffer: Any) -> int:
    return prod(int(extent) for extent in buffer.shape)


def _check_register(dtype: Any) -> None:
    if str(dtype) in NARROW:
        raise LowerError(f"registers hold no {dtype}")
    _check(dtype)


def _check(dtype: Any) -> None:
    if str(dtype) not in IN_MEMORY:
        raise LowerError(f"no vectors of {dtype}")
