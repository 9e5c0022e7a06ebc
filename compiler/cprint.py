"""Prints lowered TensorIR statements as C: constant shapes, named scalars, the target's contraction and no libm.

Works on the nodes by the name of their class, so it needs no import of tvm.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from re import sub
from typing import Any

import numpy as np

from strop.compiler.dtypes import DTYPES
from strop.errors import LowerError

MAX_SCALARS = 64
"""Largest register tile that is printed as named scalars."""

BINARY = {
    "Add": ("+", 4), "Sub": ("-", 4), "Mul": ("*", 5), "Div": ("/", 5), "FloorDiv": ("/", 5), "FloorMod": ("%", 5),
    "LT": ("<", 3), "LE": ("<=", 3), "GT": (">", 3), "GE": (">=", 3), "EQ": ("==", 2), "NE": ("!=", 2),
    "And": ("&&", 1), "Or": ("||", 0),
}  # fmt: skip
"""Operator and precedence of each binary node. FloorDiv and FloorMod only of what is not negative."""

ATOM = 9

NARROW = {"float16": "f16", "bfloat16": "bf16"}
"""Formats that only rest in memory, as the runtime's conversions call them."""


class Printer:
    """Prints one kernel's body. reserved: names of parameters.  fma: contract a*b + c.  bounds: see `lower.Bounds`."""

    def __init__(self, reserved: Iterable[str], fma: bool, bounds: Any) -> None:
        self.fma, self.bounds = fma, bounds
        self.buffers: dict[Any, str] = {}
        self.scalars: set[str] = set()
        self.vars: dict[Any, str] = {}
        self.holding: frozenset[str] = frozenset()
        self.taken = set(reserved)
        self.lines: list[str] = []
        self.depth = 1

    def bind(self, buffer: Any, name: str) -> None:
        """Give a parameter's buffer its C name."""
        self.buffers[buffer] = name

    def function(self, body: Any) -> None:
        """Append the C of a kernel's body."""
        self.statement(body)

    def statement(self, node: Any) -> None:
        """Append the C of a statement."""
        self._printer("_", node)(node)

    def _printer(self, prefix: str, node: Any) -> Callable[[Any], Any]:
        """The method for a node: `_For` prints a statement, `_xCast` an expression."""
        method: Callable[[Any], Any] | None = getattr(self, f"{prefix}{type(node).__name__}", None)
        if method is None:
            raise LowerError(f"no C for a {type(node).__name__} node", where=str(node)[:80])
        return method

    def _line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def _SeqStmt(self, node: Any) -> None:
        for condition, parts in groupby(self._ordered(node.seq), self._guard):
            if condition is None:
                for part in parts:
                    self.statement(part)
            else:
                self._guarded(condition, parts)

    def _ordered(self, statements: Sequence[Any]) -> Sequence[Any]:
        """Statements in the order to print them in."""
        return statements

    def _guard(self, node: Any) -> str | None:
        """The condition of `sum = sum +- (condition ? term : 0)`, which is `if (condition) sum = sum +- term`.

        Without what the loops around it make sure of; empty where nothing is left.
        """
        choice = self._choice_added(node)
        if choice is None:
            return None
        return " && ".join(text for text in self._parts(choice) if text not in self.holding)

    def _parts(self, choice: Any) -> dict[str, Any]:
        """What must hold for a choice to take its first side, by its C."""
        return {self.expression(part, BINARY["And"][1] + 1): part for part in _conjuncts(choice.args[0])}

    def _conditions(self, node: Any) -> dict[str, Any]:
        """The conditions under which a statement does anything, if all it does is to add guarded terms."""
        kind = type(node).__name__
        if kind == "SeqStmt":
            common = self._conditions(node.seq[0])
            for part in node.seq[1:] if common else ():
                other = self._conditions(part) if common else {}
                common = {text: condition for text, condition in common.items() if text in other}
            return common
        if kind == "For":
            self.bounds.loop(node)
            self.vars.setdefault(node.loop_var, "")
            inner = self._conditions(node.body)
            return {text: part for text, part in inner.items() if not self.bounds.depends(part, node.loop_var)}
        choice = self._choice_added(node)
        return self._parts(choice) if choice is not None else {}

    def _choice_added(self, node: Any) -> Any | None:
        """The choice between a term and 0 that a store adds to what it overwrites."""
        value: Any = getattr(node, "value", None)
        if type(node).__name__ != "BufferStore" or type(value).__name__ not in ("Add", "Sub"):
            return None
        if not _is_choice(value.b) or not _is_zero(value.b.args[2]) or type(value.a).__name__ != "TensorLoad":
            return None
        return value.b if self._element(value.a.source, value.a.indices) == self._target(node) else None

    def _guarded(self, condition: str, parts: Iterable[Any]) -> None:
        """Additions whose guards are this condition."""
        if condition:
            self._line(f"if ({condition}) {{")
            self.depth += 1
        for part in parts:
            self._add(part)
        if condition:
            self.depth -= 1
            self._line("}")

    def _add(self, part: Any) -> None:
        """An addition whose guard holds."""
        left, term = part.value.a, part.value.b.args[1]
        self._assign(part, left + term if type(part.value).__name__ == "Add" else left - term)

    def _assign(self, node: Any, value: Any) -> None:
        """A value to where a store puts it."""
        self._line(f"{self._target(node)} = {self.expression(value)};")

    def _target(self, node: Any) -> str:
        return self._element(node.buffer, node.indices)

    def _DeclBuffer(self, node: Any) -> None:
        """Another view of a parameter: the same memory, so the same name."""
        self.buffers[node.buffer] = self.buffers[node.data.args[0]]

    def _AllocBuffer(self, node: Any) -> None:
        """A register tile: one scalar an element."""
        count = int(np.prod([int(size) for size in node.buffer.shape]))
        if count > MAX_SCALARS:
            raise LowerError(f"{node.buffer.name} would be a hidden stack array of {count} elements")
        name = self._fresh(str(node.buffer.name).removesuffix("_local"))
        self.buffers[node.buffer] = name
        self.scalars.add(name)
        names = [name] if count == 1 else [_nth(name, i) for i in range(count)]
        self._registers(_ctype(node.buffer.dtype), names)

    def _registers(self, kind: str, names: list[str]) -> None:
        """Declare a register tile."""
        self._line(f"{kind} {', '.join(names)};")

    def _BufferStore(self, node: Any) -> None:
        condition = self._guard(node)
        if condition is not None:
            self._guarded(condition, [node])
        else:
            self._assign(node, node.value)

    def _Bind(self, node: Any) -> None:
        name = self._variable(node.var)
        self._line(f"const {_ctype(node.value.ty.dtype)} {name} = {self.expression(node.value)};")

    def _For(self, node: Any) -> None:
        """A loop over the turns in which its body does something."""
        self.bounds.loop(node)
        var, around = self._variable(node.loop_var), self.holding
        first, end, met = self.bounds.within(node, self._conditions(node.body))
        limit = self.expression(end, BINARY["LT"][1] + 1)
        self.holding |= met
        self._block(f"for (int {var} = {self.expression(first)}; {var} < {limit}; ++{var})", node.body)
        self.holding = around

    def _IfThenElse(self, node: Any) -> None:
        self._block(f"if ({self.expression(node.condition)})", node.then_case)
        if node.else_case is not None:
            self._block("else", node.else_case)

    def _block(self, head: str, body: Any) -> None:
        self._line(head + " {")
        self.depth += 1
        self.statement(body)
        self.depth -= 1
        self._line("}")

    def _variable(self, var: Any) -> str:
        self.vars[var] = self._fresh(str(var.name))
        return self.vars[var]

    def _fresh(self, stem: str) -> str:
        stem = sub(r"\W", "_", stem)
        name, count = stem, 1
        while name in self.taken:
            count += 1
            name = f"{stem}_{count}"
        self.taken.add(name)
        return name

    def _element(self, buffer: Any, indices: Any) -> str:
        name, (index,) = self.buffers[buffer], indices
        if name not in self.scalars:
            return f"{name}[{self.expression(index)}]"
        if type(index).__name__ != "IntImm":
            raise LowerError(f"register tile {name} is indexed by a loop that is not unrolled")
        whole = int(np.prod([int(size) for size in buffer.shape])) == 1
        return name if whole else _nth(name, int(index.value))

    def expression(self, node: Any, outer: int = -1) -> str:
        """C of an expression, in parentheses where `outer` binds tighter."""
        text, precedence = self._expression(node)
        return f"({text})" if precedence < outer else text

    def _expression(self, node: Any) -> tuple[str, int]:
        kind = type(node).__name__
        if kind in BINARY:
            return self._binary(kind, node)
        return str(self._printer("_x", node)(node)), ATOM

    def _binary(self, kind: str, node: Any) -> tuple[str, int]:
        if self.fma and kind in ("Add", "Sub") and _is_float(node):
            contracted = self._contracted(kind, node.a, node.b)
            if contracted:
                return contracted, ATOM
        if kind in ("FloorDiv", "FloorMod") and not self.bounds.not_negative(node.a):
            raise LowerError("a kernel divides an index that may be negative", where=str(node))
        symbol, precedence = BINARY[kind]
        left = self.expression(node.a, precedence)
        return f"{left} {symbol} {self.expression(node.b, precedence + 1)}", precedence

    def _contracted(self, kind: str, a: Any, b: Any) -> str | None:
        """c + x*y, x*y + c and c - x*y as one rounding; the right product wins where both sides are products."""
        if type(b).__name__ == "Mul":
            x = self.expression(b.a, BINARY["Mul"][1] if kind == "Add" else ATOM)
            return f"strop_fmaf({_negated(x) if kind == 'Sub' else x}, {self.expression(b.b)}, {self.expression(a)})"
        if type(a).__name__ == "Mul":
            rest = _negated(self.expression(b, ATOM)) if kind == "Sub" else self.expression(b)
            return f"strop_fmaf({self.expression(a.a)}, {self.expression(a.b)}, {rest})"
        return None

    def _xTensorLoad(self, node: Any) -> str:
        return self._element(node.source, node.indices)

    def _xVar(self, node: Any) -> str:
        return self.vars[node]

    def _xIntImm(self, node: Any) -> str:
        suffix = "u" if str(node.ty.dtype).startswith("uint") else ""
        return f"{int(node.value)}{suffix}"

    def _xFloatImm(self, node: Any) -> str:
        dtype = DTYPES[str(node.ty.dtype)]
        if dtype.narrow:
            return f"{int(np.array([node.value], np.float32).astype(dtype.numpy).view(np.uint16)[0])}u"
        return literal(float(node.value))

    def _xCast(self, node: Any) -> str:
        if str(node.ty.dtype) in NARROW:
            return f"strop_{NARROW[str(node.ty.dtype)]}_bits({self.expression(node.value)})"
        if str(node.value.ty.dtype) in NARROW:
            return f"strop_{NARROW[str(node.value.ty.dtype)]}_float({self.expression(node.value)})"
        return f"({_ctype(node.ty.dtype)}){self.expression(node.value, ATOM)}"

    def _xSelect(self, node: Any) -> str:
        return self._choice(node.condition, node.true_value, node.false_value)

    def _xMax(self, node: Any) -> str:
        return self._preferred(">", node)

    def _xMin(self, node: Any) -> str:
        return self._preferred("<", node)

    def _preferred(self, comparison: str, node: Any) -> str:
        a, b = self.expression(node.a, BINARY["LT"][1] + 1), self.expression(node.b, BINARY["LT"][1] + 1)
        return f"({a} {comparison} {b} ? {a} : {b})"

    def _choice(self, condition: Any, then: Any, otherwise: Any) -> str:
        return f"({self.expression(condition)} ? {self.expression(then)} : {self.expression(otherwise)})"

    def _xCall(self, node: Any) -> str:
        name = str(node.op.name)
        if name.endswith("if_then_else"):
            return self._choice(*node.args)
        if "call" in name and "extern" in name:
            function, *arguments = node.args
            return f"{function.value}({', '.join(self.expression(a) for a in arguments)})"
        raise LowerError(f"no C for a call of {name}")


def _nth(name: str, index: int) -> str:
    return f"{name}_{index}" if name[-1].isdigit() else f"{name}{index}"


def _negated(atom: str) -> str:
    """The negative of an atom; a literal's own sign would make `--` of it."""
    return atom[1:] if atom.startswith("-") else f"-{atom}"


def literal(value: float) -> str:
    """The shortest decimal that reads back as the same float32."""
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise LowerError(f"the constant {value} is no float32")
    plain = value == 0 or 1e-4 <= abs(value) < 1e7
    form = np.format_float_positional if plain else np.format_float_scientific
    return f"{form(np.float32(value), trim='0')}f"


PARTS = ("body", "condition", "then_case", "else_case", "value", "a", "b", "true_value", "false_value")
LISTS = ("seq", "args", "indices")
"""What a node may be made of."""


def walk(node: Any) -> Iterator[Any]:
    """A node and all that it is made of."""
    yield node
    lists = (part for name in LISTS for part in getattr(node, name, ()))
    for part in (*(getattr(node, name, None) for name in PARTS), *lists):
        if part is not None:
            yield from walk(part)


def _conjuncts(condition: Any) -> list[Any]:
    """The parts of a condition that must all hold."""
    if type(condition).__name__ != "And":
        return [condition]
    return [*_conjuncts(condition.a), *_conjuncts(condition.b)]


def _is_choice(node: Any) -> bool:
    return type(node).__name__ == "Call" and str(node.op.name).endswith("if_then_else")


def _is_zero(node: Any) -> bool:
    return type(node).__name__ == "FloatImm" and float(node.value) == 0


def _is_float(node: Any) -> bool:
    return str(node.ty.dtype).startswith("float")


def _ctype(dtype: Any) -> str:
    name = str(dtype)
    return {"float32": "float", "bool": "bool"}.get(name, f"{name}_t")
