"""Tensor expressions to C through TVM: the only file that knows it (apache-tvm 0.27.0.post1)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import tvm
from tvm import s_tir, sym, te, tirx

from strop.compiler.chalf import SMALLEST, HalfPrinter, HalfSumPrinter
from strop.compiler.cprint import NARROW, Printer
from strop.compiler.cteam import TeamPrinter
from strop.compiler.cvector import VectorPrinter
from strop.compiler.dtypes import DTYPES, FLOAT16, DType
from strop.compiler.ir import TensorType
from strop.compiler.kernels import (
    Kernel,
    KernelSpec,
    Parameter,
    narrow_states,
    operand_names,
    overwritten,
    result_order,
    variables,
)
from strop.compiler.lanes import arrange_lanes, ways
from strop.compiler.lanes.layout import Lanes, of_terms
from strop.compiler.lanes.terms import written_out
from strop.compiler.ops import spec
from strop.compiler.ops.base import Hints, OpSpec
from strop.compiler.schedules import Stage, arrange
from strop.errors import LowerError

PASSES = (
    s_tir.transform.CanonicalizeLoop(),
    s_tir.transform.LowerInitBlock(),
    s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
    s_tir.transform.ConvertBlocksToOpaque(),
    s_tir.transform.CompactBufferAllocation(),
    s_tir.transform.LowerMatchBuffer(),
    s_tir.transform.StmtSimplify(),
    s_tir.transform.LowerOpaqueBlock(),
    tirx.transform.FlattenBuffer(),
    tirx.transform.NarrowDataType(32),
    s_tir.transform.LoopPartition(),
    tirx.transform.UnrollLoop(),
    s_tir.transform.RenormalizeSplitPattern(),
    tirx.transform.StmtSimplify(),
    tirx.transform.RemoveNoOp(),
)
"""TVM's own lowering for plain CPU loops, up to where it would add packed-argument checks."""


class Expressions:
    """The language of `ops.base.Te` in TVM's terms; records a Stage for every tensor it makes."""

    def __init__(self) -> None:
        self.stages: dict[Any, Stage] = {}
        self.hints = Hints()
        self.names: set[str] = set()

    def compute(self, shape: Sequence[int], element: Callable[..., Any], name: str) -> Any:
        """One stage: a map, or a sum or maximum if the element is one."""
        name = self._fresh(name)
        tensor = te.compute(tuple(shape), element, name=name)
        terms = tuple(int(axis.dom.extent) for axis in tensor.op.reduce_axis)
        self.stages[tensor.op] = Stage(
            name, tuple(map(int, shape)), bool(terms), hints=self.hints, reads=self._reads(tensor), terms=terms
        )
        return tensor

    def _reads(self, tensor: Any) -> frozenset[str]:
        """Names of the stages that a tensor reads."""
        return frozenset(self.stages[t.op].name for t in tensor.op.input_tensors if t.op in self.stages)

    def _fresh(self, name: str) -> str:
        count, candidate = 1, name
        while candidate in self.names:
            count += 1
            candidate = f"{name}{count}"
        self.names.add(candidate)
        return candidate

    def axes(self, *extents: int) -> tuple[Any, ...]:
        """Reduction axes."""
        return tuple(te.reduce_axis((0, extent), name=f"r{i}") for i, extent in enumerate(extents))

    def sum(self, expr: Any, axes: Sequence[Any]) -> Any:
        """Sum from zero."""
        return te.sum(expr, axis=list(axes))

    def max(self, expr: Any, axes: Sequence[Any]) -> Any:
        """Maximum from the lowest number."""
        return te.max(expr, axis=list(axes))

    def compute_argmax(
        self, shape: Sequence[int], element: Callable[..., tuple[Any, Any]], axes: Sequence[Any], name: str
    ) -> tuple[Any, Any]:
        """Maximum and the label of the first place that has it."""
        name = self._fresh(name)

        def labelled(*index: Any) -> Any:
            value, label = element(*index)
            return ARGMAX((value, tirx.Cast("uint8", label)), axis=list(axes))

        value, label = te.compute(tuple(shape), labelled, name=name)
        results = (False, False)
        self.stages[value.op] = Stage(name, tuple(shape), True, results, self.hints, self._reads(value))
        return value, label

    def scatter(
        self, variable: TensorType, inputs: Sequence[Any], place: Callable[..., Any], element: Callable[..., Any],
        name: str,
    ) -> Any:
        """Loops written out: an expression has no way to name the element it defines, so nothing here is scheduled."""
        name, dtype = self._fresh(name), variable.dtype.name
        reads = [tirx.decl_buffer(t.shape, t.dtype, t.op.name) for t in inputs]
        target = tirx.decl_buffer(variable.shape, dtype, name)

        def row(r: Any) -> Any:
            at = place(reads, r)
            write = _nest(variable.shape[1:], lambda *i: tirx.BufferStore(target, element(reads, r, *i), [at, *i]))
            return tirx.IfThenElse(tirx.all(at >= 0, at < variable.shape[0]), write, None)

        body = _nest([int(inputs[0].shape[0])], row, "r")
        return te.extern(
            [variable.shape], list(inputs), lambda *_: body, name, [dtype], in_buffers=reads, out_buffers=[target]
        )  # fmt: skip

    def widened(self, tensor: Any, dtype: DType) -> Any:
        """What an expression sees of a tensor in memory: times 2^exponent, where it rests so."""
        if not dtype.narrow:
            return tensor
        factor = self._model("unscale") if dtype.dynamic else 1.0
        wide = self.compute(
            tensor.shape, lambda *i: _times(tirx.Cast(dtype.accumulator, tensor[i]), factor), f"{tensor.op.name}_wide"
        )
        self.stages[wide.op] = replace(self.stages[wide.op], widens=True)
        return wide

    def scaled(self, tensor: Any, exponent: int) -> Any:
        """A tensor times 2^exponent."""
        if not exponent:
            return tensor
        return self.compute(tensor.shape, lambda *i: _times(tensor[i], 2.0**exponent), f"{tensor.op.name}_scaled")

    def _model(self, function: str, *arguments: Any) -> Any:
        """A function of the generated file itself (see `compiler.health`)."""
        return tirx.call_pure_extern("float32", f"strop_model_{function}", *arguments)

    def stored(self, tensor: Any, dtype: DType, exponent: int = 0) -> Any:
        """What memory keeps of a tensor. Whatever else the kernel computes from it sees it before it is rounded.

        exponent: the tensor is what it should be times 2^exponent.
        """
        factor = self._model("scale") if dtype.dynamic else 2.0 ** (dtype.exponent - exponent)

        def element(*i: Any) -> Any:
            value = _times(tensor[i], factor)
            limited = self._model("limited", value) if dtype.dynamic or dtype.exponent else value
            return tirx.Cast(dtype.base, limited) if dtype.narrow else limited

        return self.compute(tensor.shape, element, f"{tensor.op.name}_stored")

    def keep(self, tensor: Any) -> None:
        """Compute an element once, into a register."""
        self.stages[tensor.op] = replace(self.stages[tensor.op], kept=True)

    def read_by_others(self, tensor: Any) -> bool:
        """Whether another stage is made of it."""
        return any(self.stages[tensor.op].name in other.reads for other in self.stages.values())

    def drop_unread(self) -> None:
        """Forget operands that were widened for nothing: no result is made of them."""
        read = frozenset[str]().union(*(stage.reads for stage in self.stages.values()))
        self.stages = {op: stage for op, stage in self.stages.items() if stage.result or stage.name in read}

    def move(self, moved: Any, behind: Any) -> None:
        """Put a stage behind another."""
        order = [op for op in self.stages if not op.same_as(moved)]
        at = next(i for i, op in enumerate(order) if op.same_as(behind)) + 1
        self.stages = {op: self.stages[op] for op in [*order[:at], moved, *order[at:]]}

    def where(self, condition: Any, then: Any, otherwise: Any) -> Any:
        """Evaluates the chosen side only."""
        return tirx.if_then_else(condition, then, otherwise)

    def every(self, *conditions: Any) -> Any:
        """Logical and."""
        return tirx.all(*conditions)

    def call(self, function: str, *arguments: Any) -> Any:
        """A function of runtime/numerics.h."""
        return tirx.call_pure_extern("float32", f"strop_{function}f", *arguments)

    def sign_hash(self, seed: int, tensor: int, index: Any) -> Any:
        """The generator of runtime/rng.h."""
        return self._hash("sign", seed, tensor, index)

    def uniform_hash(self, seed: int, tensor: int, index: Any) -> Any:
        """The same generator."""
        return self._hash("uniform", seed, tensor, index)

    def _hash(self, what: str, seed: int, tensor: int, index: Any) -> Any:
        keys = (tirx.const(seed, "uint32"), tirx.const(tensor, "uint32"))
        return tirx.call_pure_extern("float32", f"strop_rng_{what}", *keys, tirx.Cast("uint32", index))

    def rounded(self, value: Any, dtype: DType) -> Any:
        """A function of runtime/numerics.h."""
        return self.call(f"{NARROW[dtype.base]}_rounded", value)

    def dithered(self, value: Any, dtype: DType, seed: Any, tensor: int, index: Any) -> Any:
        """The same, with the bits of runtime/rng.h."""
        keys = (tirx.Cast("uint32", seed), tirx.const(tensor, "uint32"))
        random = tirx.call_pure_extern("uint32", "strop_rng", *keys, tirx.Cast("uint32", index))
        return self.call(f"{NARROW[dtype.base]}_dithered", value, random)

    def const(self, value: float) -> Any:
        """A float32 constant."""
        return tirx.const(float(value), "float32")

    def cast(self, expr: Any, dtype: DType) -> Any:
        """Convert."""
        return tirx.Cast(dtype.name, expr)


def _times(value: Any, factor: Any) -> Any:
    if isinstance(factor, float):
        return value * tirx.const(factor, "float32") if factor != 1 else value
    return value * factor


def _nest(shape: Sequence[int], body: Callable[..., Any], stem: str = "i") -> Any:
    """Loops over a shape, outermost first, around the statement body(*index)."""
    index = [tirx.Var(f"{stem}{n}", "int32") for n in range(len(shape))]
    statement = body(*index)
    for var, extent in reversed(list(zip(index, shape, strict=True))):
        statement = tirx.For(var, 0, extent, tirx.ForKind.SERIAL, statement)
    return statement


def _larger(a: Any, b: Any) -> Any:
    """The pair with the larger value; the first of equals."""
    wins = b[0] > a[0]
    return tirx.Select(wins, b[0], a[0]), tirx.Select(wins, b[1], a[1])


def _lowest(value: Any, label: Any) -> Any:
    return tirx.const(-3.4028234663852886e38, value), tirx.const(0, label)


ARGMAX = te.comm_reducer(_larger, _lowest, name="argmax")


def lower_kernel(kernel: KernelSpec) -> Kernel:
    """Express, schedule, lower and print one kernel. Raises LowerError where TVM or the printer cannot.

    In vectors if the tiling has lanes and one of the ways to lay them can be printed, else in scalars.
    """
    for lanes, (wide, printer) in _vector_ways(kernel):
        try:
            return _lowered(wide, printer, lanes)
        except LowerError:
            continue
    return _lowered(kernel, TeamPrinter if kernel.tiling.harts > 1 else Printer, Lanes.NONE)


def _vector_ways(kernel: KernelSpec) -> Iterator[tuple[Lanes, tuple[KernelSpec, type[Printer]]]]:
    """Ways to schedule and print a kernel in vectors, the best first."""
    if kernel.tiling.lanes == 1:
        return
    stages, shape = list(_express(kernel)[0].stages.values()), kernel.types[kernel.results[0]].shape
    for wide, printer, partial in _vector_printers(kernel, stages):
        for lanes in ways(shape, stages, wide.tiling):
            if of_terms(lanes) or not partial:
                yield lanes, (wide, printer)


def _vector_printers(kernel: KernelSpec, stages: Iterable[Stage]) -> list[tuple[KernelSpec, type[Printer], bool]]:
    """Ways to print a kernel in vectors, the best first, and whether only for lanes that are terms.

    Twice the lanes pay where halves are computed with. Where halves are only the operands of float32 sums, they pay if
    the sums are partial ones: those of outputs would need twice the registers.
    """
    if not kernel.half or not any(type_.dtype.base == FLOAT16.name for type_ in kernel.types):
        return [(kernel, VectorPrinter, False)]
    tiling, printer = kernel.tiling, HalfSumPrinter if kernel.half == "sums" else HalfPrinter
    partial = not kernel.outer and kernel.half != "sums" and any(stage.reduces for stage in stages)
    # a vector of several instructions would need twice as many for float32 operands
    if partial and not tiling.whole and any(type_.dtype.name == "float32" for type_ in kernel.types[: kernel.inputs]):
        return [(kernel, printer, False)]
    twice = replace(tiling, lanes=tiling.halves, register=2 * tiling.register, at_once=2 * tiling.at_once)
    wide = replace(kernel, tiling=replace(twice, sums=1 if kernel.half == "sums" else tiling.widened))
    return [(wide, printer, partial), (kernel, printer, False)]


def _lowered(kernel: KernelSpec, printer: type[Printer], lanes: Lanes) -> Kernel:
    try:
        expressions, arguments, replaced = _express(kernel)
        stages = list(expressions.stages.values())
        schedule = s_tir.Schedule(te.create_prim_func(arguments))
        if lanes is Lanes.NONE:
            arrange(schedule, stages, kernel.tiling, outer=kernel.outer)
        else:
            arrange_lanes(schedule, stages, kernel.tiling, lanes, outer=kernel.outer, half=kernel.half == "sums")
        function = tvm.transform.Sequential(list(PASSES))(schedule.mod)["main"]
    except (RuntimeError, ValueError, TypeError) as error:
        kinds = ", ".join(step[0] for step in kernel.steps)
        raise LowerError(f"TVM cannot schedule {kinds}", where=str(error).strip().splitlines()[-1]) from error
    renews = lanes is Lanes.ONE_SUM or any(written_out(stage, kernel.tiling) for stage in stages)
    return _print(kernel, function, replaced, printer, lanes, renews=renews)


def _express(kernel: KernelSpec) -> tuple[Expressions, list[Any], Mapping[int, int]]:
    """Build the expression; returns it with the function's arguments: inputs, then results."""
    names, language = operand_names(kernel), Expressions()
    language.names.update(names[: kernel.inputs])
    given = [
        te.placeholder(type_.shape, name=names[i], dtype=type_.dtype.base)
        for i, type_ in enumerate(kernel.types[: kernel.inputs])
    ]
    env = {i: language.widened(tensor, kernel.types[i].dtype) for i, tensor in enumerate(given)}
    exponents = {i: type_.dtype.exponent for i, type_ in enumerate(kernel.types[: kernel.inputs])}
    for kind, sources, outputs, given_attrs in kernel.steps:
        op, attrs = spec(kind), cast(dict[str, Any], dict(given_attrs))
        types = [_widened(kernel.types[i]) for i in sources]
        language.hints = op.hints(types, attrs)
        late = _left(op, sources, exponents)
        rated = _rated(kernel, op, sources, exponents, attrs)
        if rated is not None:
            attrs["lr"] = _rate(attrs, exponents[rated])
            late = {rated: 0}
        operands = [env[i] if i in late else language.scaled(env[i], -exponents[i]) for i in sources]
        exponent = sum(late.values())
        if exponent and language.hints.outer:
            attrs["scale"] = float(attrs.get("scale", 1.0)) * 2.0**-exponent
            exponent = 0
        env.update(zip(outputs, op.expression(language, operands, types, attrs), strict=True))
        exponents.update(dict.fromkeys(outputs, exponent))
    results = [_result(kernel, language, i, env[i], exponents[i]) for i in result_order(kernel)]
    for tensor in (tensor for tensor in results if tensor.op in language.stages):
        stage = language.stages[tensor.op]
        marked = tuple(old or i == tensor.value_index for i, old in enumerate(stage.results))
        language.stages[tensor.op] = replace(stage, results=marked)
    language.drop_unread()
    return language, [*given, *results], overwritten(kernel)


def _left(op: OpSpec, sources: Sequence[int], exponents: Mapping[int, int]) -> dict[int, int]:
    """The operand that a step takes as it rests, times 2^exponent: its results are then what they are, times as much.

    A power of two rounds nothing, so it is taken off once a result instead of once a term, or not at all if the result
    rests times the same.
    """
    if op.linear not in op.operands[: len(sources)]:
        return {}
    source = sources[op.operands.index(op.linear)]
    return {source: exponents[source]} if sources.count(source) == 1 else {}


def _rated(
    kernel: KernelSpec, op: OpSpec, sources: Sequence[int], exponents: Mapping[int, int], attrs: Mapping[str, Any]
) -> int | None:
    """The gradient of an update that this kernel makes times 2^exponent, if a rate that is a constant can take that.

    Where halves may compute the update it has to stay one that they hold.
    """
    if not op.gradient or "lr" not in attrs or attrs["weight_decay"]:
        return None
    source = sources[op.operands.index(op.gradient)]
    held = kernel.half != "sums" or abs(_rate(attrs, exponents[source])) >= SMALLEST
    return source if source >= kernel.inputs and held else None


def _rate(attrs: Mapping[str, Any], exponent: int) -> float:
    """The learning rate of a gradient that comes times 2^exponent."""
    return float(attrs["lr"]) * 2.0**-exponent


def _result(kernel: KernelSpec, language: Expressions, operand: int, tensor: Any, exponent: int) -> Any:
    """A result as memory keeps it. A weight waits in a register until its states, made of the old one, are stored.

    exponent: the tensor is the result times 2^exponent.
    """
    dtype, early, replaced = kernel.types[operand].dtype, narrow_states(kernel), variables(kernel)
    if not dtype.narrow and operand not in early:
        made = language.scaled(tensor, -exponent)
        if exponent:
            language.move(made.op, tensor.op)
        return made
    weight = operand in replaced and operand not in early
    if (weight and early) or (operand not in early and language.read_by_others(tensor)):
        language.keep(tensor)
    made = language.stored(tensor, dtype, exponent)
    if operand not in replaced:
        language.move(made.op, tensor.op)
    return made


def _widened(type_: TensorType) -> TensorType:
    """The type that an expression sees."""
    return TensorType(type_.shape, DTYPES[type_.dtype.accumulator]) if type_.dtype.narrow else type_


def _print(
    kernel: KernelSpec, function: Any, replaced: Mapping[int, int], make: type[Printer], lanes: Lanes, *, renews: bool
) -> Kernel:
    names = operand_names(kernel)
    printer = make(names, kernel.fma, Bounds())
    if isinstance(printer, VectorPrinter):
        printer.gathers = lanes in (Lanes.POSITIONS, Lanes.ONE_SUM) or of_terms(lanes)
        printer.renews = renews
        printer.room = kernel.tiling.scalars
    parameters: dict[str, Parameter] = {}
    operands = [*range(kernel.inputs), *result_order(kernel)]
    for operand, var in zip(operands, function.params, strict=True):
        place = replaced.get(operand, operand)
        writes = operand >= kernel.inputs or place in replaced.values()
        printer.bind(var, names[place])
        parameters[names[place]] = Parameter(names[place], kernel.types[place].dtype.c, writes)
    printer.function(function.body)
    body = "".join(line + "\n" for line in printer.lines if line)
    return Kernel(tuple(parameters.values()), body, team=make is TeamPrinter)


class Bounds:
    """What the printer asks about indices and loops: C's / and % round to zero, the expressions' to minus infinity."""

    def __init__(self) -> None:
        self.analyzer = sym.Analyzer()

    def loop(self, node: Any) -> None:
        """Learn a loop variable's range."""
        self.analyzer.bind(node.loop_var, tvm.ir.Range.from_min_extent(node.min, node.extent))

    def not_negative(self, node: Any) -> bool:
        """Whether the expression is certainly at least 0, where both roundings agree."""
        return self.range(node)[0] >= 0

    def depends(self, node: Any, var: Any) -> bool:
        """Whether a variable occurs in an expression."""
        return any(var.same_as(other) for other in tirx.analysis.undefined_vars(node))

    def variables(self, node: Any) -> list[Any]:
        """The variables in an expression."""
        return list(tirx.analysis.undefined_vars(node))

    def pair(self, index: Any) -> tuple[Any, bool] | None:
        """The first of two neighbours that an index is one of, and whether it is the second.

        By its parity, or by that of its constant where no other index comes before; else None.
        """
        known = self.analyzer.modular_set(index)
        *_, constant = sym.detect_linear_equation(index, tirx.analysis.undefined_vars(index)) or (0,)
        second = bool(int(constant if int(known.coeff) % 2 else known.base) % 2)
        first = self.analyzer.simplify(index - int(second))
        return (first, second) if int(known.coeff) % 2 == 0 or self.not_negative(first) else None

    def lanes(self, index: Any, lane: Any) -> tuple[int, Any]:
        """(a, b) of an index that is a * lane + b. Raises LowerError for one that is not."""
        slope, *rest = sym.detect_linear_equation(index, [lane]) or (0, None)
        if type(slope).__name__ != "IntImm":
            raise LowerError("lanes lie in no row", where=str(index))
        return int(slope), self.analyzer.simplify(rest[0])

    def distance(self, index: Any, other: Any) -> int | None:
        """How far another index is from one; None if that is no constant."""
        apart = self.analyzer.simplify(other - index)
        return int(apart) if type(apart).__name__ == "IntImm" else None

    def range(self, node: Any) -> tuple[int, int]:
        """The least and the largest value of an expression."""
        bound = self.analyzer.const_int_bound(node)
        return int(bound.min_value), int(bound.max_value)

    def first(self, loop: Any, condition: Any) -> int:
        """In how many turns of a loop a condition holds, if those are the first ones; else 0."""
        for count in range(1, int(loop.extent)):
            with self.analyzer.constraint_scope(loop.loop_var < count):
                held = self.analyzer.can_prove(condition)
            with self.analyzer.constraint_scope(loop.loop_var >= count):
                if held and self.analyzer.can_prove(tirx.Not(condition)):
                    return count
        return 0

    def within(self, loop: Any, conditions: Mapping[str, Any]) -> tuple[Any, Any, frozenset[str]]:
        """(first, end) of the turns of a loop in which conditions hold, as far as they bound it, and the keys of those.

        A condition bounds a loop if it is linear in the loop's variable, with a factor of 1 or -1.
        """
        first, end, met = loop.min, loop.min + loop.extent, set()
        for key, condition in conditions.items():
            slope, rest = _linear(condition, loop.loop_var)
            if slope == 1:
                first = tirx.max(first, -rest)
            elif slope == -1:
                end = tirx.min(end, rest + 1)
            if slope in (1, -1):
                met.add(key)
        return self.analyzer.simplify(first), self.analyzer.simplify(end), frozenset(met)


def _linear(condition: Any, var: Any) -> tuple[int, Any]:
    """(a, b) of a comparison that says a * var + b >= 0; a is 0 if it says no such thing."""
    kind = type(condition).__name__
    if kind not in ("LT", "LE") or not str(condition.a.ty.dtype).startswith("int"):
        return 0, None
    slope, *rest = sym.detect_linear_equation(condition.b - condition.a - (kind == "LT"), [var]) or (0, 0)
    return int(slope), *rest
