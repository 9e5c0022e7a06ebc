"""The C printer: exact literals, one rounding where the Program says so, and refusals."""

import ctypes
import re
import struct
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from cases import OP_CASES, CompiledCase
from cbuild import RUNTIME, build_shared, has_compiler
from hypothesis import given
from hypothesis import strategies as st

from strop.compiler.cprint import MAX_SCALARS, Printer, literal
from strop.compiler.ir import Builder, Program, Role
from strop.compiler.kernels import kernel_spec
from strop.compiler.lower import lower_kernel
from strop.compiler.ops import _registered, spec
from strop.compiler.ops.base import Attrs, Elementwise, Expr, Te, f32
from strop.compiler.schedules import Tiling
from strop.errors import LowerError

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def bits(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


@given(FLOATS)
def test_a_literal_reads_back_as_the_same_float(value: float) -> None:
    text = literal(value)
    assert re.fullmatch(r"-?\d+\.\d+(e[+-]\d+)?f", text)
    assert bits(float(np.float32(text[:-1]))) == bits(value)


def test_compilers_read_literals_as_numpy_does() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**32, 300, np.uint32).view(np.float32)
    edges = np.array([0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, 1.1754944e-38, 3.4028235e38, 0.1, 1e7, 1e-4], np.float32)
    values = np.concatenate([values[np.isfinite(values)], edges])
    source = f"const float table[] = {{{', '.join(literal(float(v)) for v in values)}}};\n"
    for cc in (cc for cc in ("zig", "gcc") if has_compiler(cc)):
        table = (ctypes.c_uint32 * len(values)).in_dll(build_shared([source], cc=cc), "table")
        assert list(table) == values.view(np.uint32).tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39, -3.5e38])
def test_what_is_no_float32_is_refused(value: float) -> None:
    with pytest.raises(LowerError, match="no float32"):
        literal(value)


# --- expressions, through an op of the test's own ---------------------------------------------------------------


class Probe(Elementwise):
    """Three operands; `build` makes the element from them."""

    kind = "test_cprint_probe"
    operands = ("a", "b", "c")
    build: ClassVar[Callable[..., Expr]]

    def element(self, te: Te, values: list[Expr], attrs: Attrs) -> Expr:  # type: ignore[override]
        return type(self).build(te, *values)


@pytest.fixture(autouse=True)
def known_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The op is known during a test only: other tests go through all known ops."""
    spec("relu")
    monkeypatch.setitem(_registered, Probe.kind, Probe())


def printed(build: Callable[..., Expr], *, fma: bool) -> str:
    """The right-hand side that is printed for an element."""
    Probe.build = staticmethod(build)
    b = Builder({})
    names = [b.value(name, f32(1), Role.CONST, data=np.ones(1)) for name in "abc"]
    outputs = b.emit(Probe.kind, names, "y")
    p = Program("p", b.values, (), outputs[0], train_step=tuple(b.ops), loss=outputs[0], initial=b.initial, fma=fma)
    body = lower_kernel(kernel_spec(p, b.ops[0], Tiling(1, 1))).body
    return re.sub(r"\[0\]", "", body.split(" = ")[1].strip().rstrip(";"))


EXPRESSIONS: list[tuple[Callable[..., Expr], str, str]] = [
    (lambda te, a, b, c: a * b + c, "a * b + c", "strop_fmaf(a, b, c)"),
    (lambda te, a, b, c: c + a * b, "c + a * b", "strop_fmaf(a, b, c)"),
    (lambda te, a, b, c: a * b - c, "a * b - c", "strop_fmaf(a, b, -c)"),
    (lambda te, a, b, c: c - a * b, "c - a * b", "strop_fmaf(-a, b, c)"),
    (lambda te, a, b, c: a * b + b * c, "a * b + b * c", "strop_fmaf(b, c, a * b)"),
    (lambda te, a, b, c: (a + b) * c, "(a + b) * c", "(a + b) * c"),
    (lambda te, a, b, c: a - (b - c), "a - (b - c)", "a - (b - c)"),
    (lambda te, a, b, c: a / (b / c), "a / (b / c)", "a / (b / c)"),
    (lambda te, a, b, c: c - (a + b) * c, "c - (a + b) * c", "strop_fmaf(-(a + b), c, c)"),
    (lambda te, a, b, c: a * b - (a + c), "a * b - (a + c)", "strop_fmaf(a, b, -(a + c))"),
    (lambda te, a, b, c: c - te.const(-0.1) * a, "c - -0.1f * a", "strop_fmaf(0.1f, a, c)"),
    (lambda te, a, b, c: te.where(a < b, a, te.const(-0.5)), "(a < b ? a : -0.5f)", "(a < b ? a : -0.5f)"),
    (lambda te, a, b, c: te.call("exp", a - b) * c, "strop_expf(a - b) * c", "strop_expf(a - b) * c"),
]


def spaced(text: str) -> str:
    return text.replace("a * -0.1f", "-0.1f * a")


@pytest.mark.parametrize(("build", "plain", "contracted"), EXPRESSIONS, ids=[plain for _, plain, _ in EXPRESSIONS])
def test_contraction_only_where_the_program_says_so(build: Callable[..., Expr], plain: str, contracted: str) -> None:
    assert spaced(printed(build, fma=False)) == plain
    assert printed(build, fma=True).replace("a, 0.1f", "0.1f, a") == contracted


def test_two_signs_never_meet() -> None:
    """`--1.0f` is no expression."""
    for fma in (False, True):
        text = printed(lambda te, a, b, c: (c - te.const(-3) * a) + (b * c - te.const(-2)), fma=fma)
        assert "--" not in text


# --- statements and refusals -------------------------------------------------------------------------------------


def node(kind: str, **fields: Any) -> Any:
    """A stand-in for a TensorIR node: the printer goes by the name of its class."""
    return type(kind, (SimpleNamespace,), {"__hash__": object.__hash__})(**fields)


class Anything:
    """Bounds of which nothing is known."""

    def not_negative(self, _node: Any) -> bool:
        return False

    def loop(self, _node: Any) -> None:
        """Learn nothing."""


def printer() -> Printer:
    return Printer((), False, Anything())


def tile(*shape: int) -> Any:
    return node("AllocBuffer", buffer=node("Buffer", name="sum_local", shape=shape, dtype="float32"))


def test_a_register_tile_is_scalars() -> None:
    p = printer()
    p.statement(tile(2, 2))
    assert p.lines == ["    float sum0, sum1, sum2, sum3;"]


def test_a_hidden_array_is_refused() -> None:
    printer().statement(tile(MAX_SCALARS))
    with pytest.raises(LowerError, match=f"sum_local would be a hidden stack array of {MAX_SCALARS + 1} elements"):
        printer().statement(tile(MAX_SCALARS + 1))


@pytest.mark.parametrize("kind", ["FloorDiv", "FloorMod"])
def test_dividing_what_may_be_negative_is_refused(kind: str) -> None:
    """C rounds to zero, the expression to minus infinity."""
    i = node("Var", name="i")
    p = printer()
    p.vars[i] = "i"
    with pytest.raises(LowerError, match="divides an index that may be negative"):
        p.expression(node(kind, a=i, b=node("IntImm", value=2, ty=SimpleNamespace(dtype="int32"))))


def test_an_unknown_node_is_refused_by_name() -> None:
    with pytest.raises(LowerError, match="no C for a Prefetch node"):
        printer().statement(node("Prefetch"))


def test_a_padded_sum_skips_what_lies_outside() -> None:
    """`sum += inside ? term : 0` becomes a test around the term: no addition of zero, no read outside."""
    case = next(c for c in OP_CASES if c.kind == "conv2d" and c.case.attrs["padding"] == (1, 1))
    body = CompiledCase(case, Tiling(8, 4), fma=True).kernel.body
    assert re.search(r"if \([^{]*\) \{\n\s+sum\w* = strop_fmaf", body)
    assert ": 0.0f" not in body


RUNTIME_FUNCTIONS = set(
    re.findall(r"strop_\w+(?=\()", (RUNTIME / "numerics.h").read_text() + (RUNTIME / "rng.h").read_text())
)


def test_no_kernel_calls_a_libm_or_allocates() -> None:
    for case in OP_CASES[:: max(1, len(OP_CASES) // 40)]:
        if not (spec(case.kind).free or spec(case.kind).composite):
            body = CompiledCase(case, Tiling(), fma=True).kernel.body
            called = set(re.findall(r"(\w+)\(", body)) - {"for", "if"}
            assert called <= RUNTIME_FUNCTIONS
            assert not re.search(r"(float|int32_t|uint8_t) \w+\[", body)
