"""The Program: values and ops of `train_step` and `infer`, frozen; its text is the single truth.

Semantics, checked by `verify` after every pass:

* An activation, scratch or label value is defined once in a function before it is read.
* A `param` or `state` value is a variable. It keeps its contents between calls; an op may overwrite it in place, once
  a function, and whatever reads it later in that function sees the new contents.
* A `const` value never changes and may live in flash.
* A `fused` op is exactly its body, run in order; what only the body uses needs no memory.
* A `scan` op runs its body once a turn. In there a step value is a row of a sequence: it may be read and overwritten,
  and the next turn finds what this one wrote; so it is with variables, which a turn may overwrite once. What passes
  between the ops of a turn needs memory while the scan runs.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from strop.compiler.dtypes import DType

Attr = int | float | str | bool | tuple[Any, ...]


class Role(StrEnum):
    """What a value is for; decides where it lives and how long."""

    INPUT = "input"
    LABEL = "label"
    PARAM = "param"
    STATE = "state"
    CONST = "const"
    ACT = "act"
    SCRATCH = "scratch"


PERSISTENT = frozenset({Role.PARAM, Role.STATE})


@dataclass(frozen=True)
class TensorType:
    """Shape (elements per axis, all positive) and storage format."""

    shape: tuple[int, ...]
    dtype: DType

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Storage in bytes, without padding."""
        return self.size * self.dtype.bytes

    def __str__(self) -> str:
        return f"{self.dtype.name}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Value:
    """A named tensor. loc: the layer of the user's model it comes from ('' for what the compiler made)."""

    name: str
    type: TensorType
    role: Role
    loc: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements per axis."""
        return self.type.shape

    @property
    def dtype(self) -> DType:
        """Storage format."""
        return self.type.dtype

    @property
    def bytes(self) -> int:
        """Storage in bytes."""
        return self.type.bytes

    def __str__(self) -> str:
        return f"{self.role} {self.name}: {self.type}"


@dataclass(frozen=True)
class Op:
    """One operation: `outputs = kind(inputs) {attrs}`; a `fused` op carries the ops it stands for in `body`.

    A `scan` carries the ops of a turn. attrs: times, the first and the last value of its counter t, which goes up or
    down by one; rows, one `Row` a step value. An op of its body with an attribute `restart` runs only in every
    restart-th turn from the first, or in the first alone if that is 0.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    loc: str = ""
    body: tuple["Op", ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "attrs", MappingProxyType(dict(sorted(self.attrs.items()))))

    def __hash__(self) -> int:
        return hash((self.kind, self.inputs, self.outputs))

    @property
    def parts(self) -> tuple["Op", ...]:
        """The primitive ops this op stands for: its body, or itself. A scan stands for itself."""
        return self.body if self.kind == "fused" else (self,)

    @property
    def rows(self) -> dict[str, "Row"]:
        """A scan's rows by the name of their step value; none of any other op."""
        rows: Any = self.attrs.get("rows", ()) if self.kind == "scan" else ()
        return {row[0]: Row(*row) for row in rows}

    @property
    def times(self) -> range:
        """The values that a scan's counter takes, turn after turn."""
        ends: Any = self.attrs["times"]
        first, last = ends
        return range(first, last + 1) if first <= last else range(first, last - 1, -1)

    def __str__(self) -> str:
        attrs = ", ".join(f"{key}={_text(value)}" for key, value in self.attrs.items())
        line = f"{', '.join(self.outputs)} = {self.kind}({', '.join(self.inputs)})" + (f" {{{attrs}}}" if attrs else "")
        if not self.body:
            return line
        return "\n".join([line + " {", *_indented(self.body), "}"])


@dataclass(frozen=True)
class Row:
    """A step value of a scan: at counter t it lies in row (t + shift) mod R of a sequence with R rows.

    start: its first element in the row.
    """

    name: str
    sequence: str
    shift: int = 0
    start: int = 0

    @property
    def attr(self) -> tuple[str, str, int, int]:
        """The row as it stands in `rows`."""
        return (self.name, self.sequence, self.shift, self.start)


def runs(op: Op, turn: int) -> bool:
    """Whether an op of a scan's body runs in a turn, counted from 0."""
    restart: Any = op.attrs.get("restart")
    return restart is None or (turn % restart if restart else turn) == 0


def _text(value: Attr) -> str:
    if isinstance(value, float):
        return repr(float(value))
    return str(value).replace(" ", "")


@dataclass(frozen=True)
class Program:
    """A network with its training step.

    values: every tensor by name.  infer: ops from `x` to `output`.  train_step: ops of one step, empty before a rule
    has been applied.  initial: contents of params, states and consts at start.  fma: whether `a*b + c` is one
    rounding on the target.  half: what is computed in binary16 where all operands rest in it: nothing,
    `maps`, or `sums` too; see `compiler.chalf`.  batch: samples a step.
    """

    name: str
    values: Mapping[str, Value]
    infer: tuple[Op, ...]
    output: str
    train_step: tuple[Op, ...] = ()
    loss: str = ""
    initial: Mapping[str, np.ndarray] = field(default_factory=dict)
    fma: bool = False
    half: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("values", "initial", "notes"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def batch(self) -> int:
        """Samples a step: the leading axis of the input."""
        return self.only(Role.INPUT).shape[0]

    def of(self, *roles: Role) -> list[Value]:
        """All values of the given roles, in order of definition."""
        return [value for value in self.values.values() if value.role in roles]

    def only(self, role: Role) -> Value:
        """The single value of a role that has just one, such as INPUT."""
        (value,) = self.of(role)
        return value

    def functions(self) -> dict[str, tuple[Op, ...]]:
        """The two functions by name, in the order they are emitted."""
        return {"train_step": self.train_step, "infer": self.infer}

    def results(self, function: str) -> tuple[str, ...]:
        """The values a caller of the function receives."""
        return (self.output,) if function == "infer" else (self.loss,)

    def with_(self, **changes: Any) -> "Program":
        """Return a copy with some fields replaced."""
        return replace(self, **changes)

    def pruned(self, *kept: str) -> "Program":
        """Return a copy without values that no function mentions (inputs, labels and the `kept` stay)."""
        ops = [op for function in self.functions().values() for op in flatten(function)]
        used = {*kept, *(name for op in ops for name in (*op.inputs, *op.outputs))}
        keep = {
            name: value for name, value in self.values.items() if name in used or value.role in (Role.INPUT, Role.LABEL)
        }
        initial = {name: data for name, data in self.initial.items() if name in keep}
        return self.with_(values=keep, initial=initial)

    @property
    def text(self) -> str:
        """The Program as text: one line a value and an op; initial contents appear as their hash."""
        half = f", half={self.half}" if self.half else ""
        lines = [f"program {self.name} {{fma={self.fma}{half}}}"]
        lines += [f"  {value}{self._initial_text(value.name)}" for value in self.values.values()]
        for name, ops in self.functions().items():
            lines += ["", f"{name} -> {', '.join(self.results(name))} {{", *_indented(ops), "}"]
        return "\n".join(lines) + "\n"

    def _initial_text(self, name: str) -> str:
        return f" = {digest(self.initial[name].tobytes())[:16]}" if name in self.initial else ""

    @property
    def hash(self) -> bytes:
        """16 bytes that name this Program and its initial contents, on the wire and in caches."""
        return hashlib.sha256(self.text.encode()).digest()[:16]


def _indented(ops: Iterable[Op]) -> list[str]:
    return ["  " + line for op in ops for line in str(op).splitlines()]


def digest(data: bytes) -> str:
    """sha-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def flatten(ops: Iterable[Op]) -> Iterator[Op]:
    """Every op and every op inside another."""
    for op in ops:
        yield op
        yield from flatten(op.body)


class Builder:
    """Appends ops to a growing function; makes values with shapes inferred by the op's own spec."""

    def __init__(self, values: Mapping[str, Value], initial: Mapping[str, np.ndarray] | None = None) -> None:
        self.values: dict[str, Value] = dict(values)
        self.initial: dict[str, np.ndarray] = dict(initial or {})
        self.ops: list[Op] = []

    def fresh(self, stem: str) -> str:
        """A name not yet taken: the stem, or the stem with a number."""
        name, count = stem, 1
        while name in self.values:
            count += 1
            name = f"{stem}.{count}"
        return name

    def value(self, name: str, type_: TensorType, role: Role, loc: str = "", data: np.ndarray | None = None) -> str:
        """Declare a value; `data` is its initial content for persistent and const roles."""
        self.values[name] = Value(name, type_, role, loc)
        if data is not None:
            self.initial[name] = np.ascontiguousarray(data, dtype=type_.dtype.numpy)
        return name

    def emit(self, kind: str, inputs: Iterable[str], name: str, *, loc: str = "", **attrs: Attr) -> tuple[str, ...]:
        """Append an op with fresh outputs called after `name`; returns their names."""
        from strop.compiler.ops import spec

        inputs = tuple(inputs)
        types = spec(kind).infer([self.values[i].type for i in inputs], attrs)
        outputs = tuple(
            self.value(self.fresh(name + suffix), type_, Role.ACT, loc)
            for suffix, type_ in zip(spec(kind).suffixes, types, strict=True)
        )
        self.ops.append(Op(kind, inputs, outputs, attrs, loc))
        return outputs

    def emit1(self, kind: str, inputs: Iterable[str], name: str, *, loc: str = "", **attrs: Attr) -> str:
        """`emit` for an op whose first output is the one wanted."""
        return self.emit(kind, inputs, name, loc=loc, **attrs)[0]

    def update(
        self, kind: str, inputs: Iterable[str], variables: Iterable[str], *, loc: str = "", **attrs: Attr
    ) -> None:
        """Append an op that overwrites the given params or states in place."""
        self.ops.append(Op(kind, tuple(inputs), tuple(variables), attrs, loc))
