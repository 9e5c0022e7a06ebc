"""Every function of runtime/lanes.h on boards with vector units and on the PC that plays them: the same bits.

Operands are all triples of numbers that flushing, rounding and NaN treat apart, and random ones around FLT_MIN.
"""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cbuild import RUNTIME, build_shared
from test_ops_emu import MAIN, board_hashes

from strop.compiler.emit import FLUSH
from strop.targets.board import load_board
from strop.targets.toolchain import build_elf

BOARDS = ("qemu-cortex-m55", "qemu-rv32v", "qemu-rv32v256")
SOURCE = Path(__file__).with_name("lanes.c").read_text()
ZEROS = "y.u[0] = y.u[1] = y.u[2] = y.u[3] = 0"
FORMS = {"": "A, B", "_vf": "C, b.f[0]", "_fv": "b.f[0], C"}
HALF_FORMS = {"": "HALVES(a.h), HALVES(b.h + 1)", "_vf": "HALVES(c.h + 1), b.f[0]", "_fv": "b.f[0], HALVES(c.h + 1)"}
PRODUCTS = {
    "": "A, B", "_fvv": "a.f[0], B", "_f16": "HALVES(b.h), HALVES(b.h + 1)", "_f16_fvv": "b.h[0], HALVES(b.h + 1)",
    "_wide_fvv": "a.f[0], HALVES(b.h + 1)",
}  # fmt: skip


def cases() -> Iterator[tuple[str, str]]:
    """(name, C that defines it) of every case."""
    for function in ("add", "sub", "mul", "div"):
        unit = "SCALAR" if function == "div" else "VECTOR"
        for form, operands in FORMS.items():
            yield floats(function + form, operands, unit)
    for function in ("fma", "fnma"):
        for form, factors in PRODUCTS.items():
            yield floats(function + form, f"{factors}, C")
        yield floats(f"{function}_fvv", "0x1p-64f, B, C", suffix="_constant")
    for function in ("pick_gt", "pick_ge", "pick_eq"):
        yield floats(function, "B, C, A, B")
        yield floats(f"{function}_f", "B, C, a.f[1], B")
    yield floats("pick_lane", "(int32_t)(t % (WIDTH + 2)) - 1, a.f[1], B")
    for function in ("add_f16", "sub_f16"):
        yield floats(function, "C, HALVES(a.h)")
    yield from labels("", "f32", ("B", "C"), "strop_x8_store(y.f, 1, most, WIDTH), float_bits(y.u[i], VECTOR)")
    yield floats("sqrt", "A", "SCALAR")
    yield floats("exp", "C")
    usual = "strop_x8_mul_vf(strop_x8_sub_vf(strop_x8_load_u8(a.b, 1, WIDTH), 128.0f, WIDTH), 0.66f, WIDTH)"
    yield floats("exp", usual, suffix="_usual")
    yield floats("fill", "a.f[0]")
    yield floats("fill_f16", "-0x1.8p-20f")
    yield floats("clipped", "C, 0x1p-125f")
    yield floats("load_f16", "a.h, 2")
    yield floats("load_bf16", "a.h + 1, 2")
    yield "first", "FLOATS(first, VECTOR, strop_x8_first(A, B, 1 + t % WIDTH))"
    yield "sum", "CASE(sum, y.f[0] = strop_x8_sum(a.f[0], C, 1 + t % WIDTH), float_bits(y.u[0], true))"
    for bits in (16, 32):
        stored = f"strop_x8_store_places{bits}(y.h, {places(bits)}, 1 + t % WIDTH)"
        yield f"store_places{bits}", f"CASE(store_places{bits}, {ZEROS}; {stored}, y.h[i])"
    yield floats("gather", f"table.f, {places(32)}")
    yield floats("gather_f16", f"table.h, {places(16)}")
    yield floats("gather_bf16", f"table.h, {places(32)}")
    yield "within", "CASE(within, y.u[0] = strop_x8_within(C, 0x1.ffep15f, 1 + t % WIDTH), y.u[0])"
    for function in ("store_f16", "store_bf16"):
        bits = "half_bits(y.h[i], VECTOR)" if function == "store_f16" else "y.h[i]"
        yield function, f"CASE({function}, strop_x8_{function}(y.h, 1, C, WIDTH), {bits})"
    for width in (4, 8, 16):
        for form, type_ in {"": "float", "_u8": "uint8_t", "_f16": "uint16_t", "_bf16": "uint16_t"}.items():
            yield f"memory_x{width}{form}", f"MEMORY({width}, {form}, {type_})"


def places(bits: int) -> str:
    """C of lanes' places in the table: 4 bytes times a number below 32, and more by numbers in memory."""
    kind = f"strop_x8_places{bits}"
    least = f"{kind}_add({kind}(distances, WIDTH), {kind}_u8(bytes, 1, WIDTH), 4u, WIDTH)"
    return f"{kind}_add({least}, {kind}_div({kind}_u8(bytes + 1, 2, WIDTH), 3u, WIDTH), 65536u - 4u, WIDTH)"


def floats(function: str, arguments: str, unit: str = "VECTOR", suffix: str = "") -> tuple[str, str]:
    """One with a vector of results."""
    name = function + suffix
    return name, f"FLOATS({name}, {unit}, strop_x8_{function}({arguments}, WIDTH))"


def halves(function: str, arguments: str) -> tuple[str, str]:
    """One with a vector of results in binary16."""
    statement = f"strop_x8_half_store(y.h, 1, strop_x8_half_{function}({arguments}, WIDTH), WIDTH)"
    return f"half_{function}", f"CASE(half_{function}, {statement}, half_bits(y.h[i], VECTOR))"


def labels(kind: str, element: str, operands: tuple[str, str], most: str) -> Iterator[tuple[str, str]]:
    """A maximum of two vectors and its labels. most: C that stores it, and of a result."""
    first, second = operands
    raised = (
        f"strop_{element}x8 most = {first}; strop_{element}x8_labels label = strop_x8_{kind}labels(7, WIDTH)"
        f"; strop_x8_{kind}raise(&most, &label, {second}, 200, WIDTH)"
    )
    stored = f"strop_x8_{kind}store_labels(y.b, 1 + t % 2, label, 1 + t % WIDTH)"
    yield f"{kind}raise", f"CASE({kind}raise, {raised}; {most})"
    yield f"{kind}labels", f"CASE({kind}labels, {raised}; {ZEROS}; {stored}, y.u[i % 4])"


def in_halves() -> Iterator[tuple[str, str]]:
    """The cases that compute in binary16."""
    for function in ("add", "sub", "mul"):
        for form, operands in HALF_FORMS.items():
            yield halves(function + form, operands)
    for function in ("fma", "fnma"):
        yield halves(function, "HALVES(a.h), HALVES(b.h + 1), HALVES(c.h + 1)")
        yield halves(f"{function}_fvv", "b.h[1], HALVES(a.h), HALVES(c.h + 1)")
    for function in ("pick_gt", "pick_ge", "pick_eq"):
        yield halves(function, "HALVES(b.h + 1), HALVES(c.h + 1), HALVES(a.h), HALVES(b.h)")
        yield halves(f"{function}_f", "HALVES(b.h + 1), HALVES(c.h + 1), a.f[0], HALVES(b.h)")
    most = "strop_x8_half_store(y.h, 1, most, WIDTH), half_bits(y.h[i], VECTOR)"
    yield from labels("half_", "f16", ("HALVES(b.h + 1)", "HALVES(c.h + 1)"), most)
    first = "strop_x8_half_store(y.h, 1, strop_x8_half_first(HALVES(a.h), HALVES(b.h), 1 + t % WIDTH), WIDTH)"
    yield "half_first", f"CASE(half_first, {first}, y.h[i])"
    half_sum = "strop_x8_half_sum(a.f[0], HALVES(c.h + 1), 1 + t % WIDTH)"
    yield "half_sum", f"CASE(half_sum, y.f[0] = {half_sum}, float_bits(y.u[0], true))"
    half = f"strop_x8_half_store(y.h, 1, strop_x8_gather_half(table.h, {places(16)}, WIDTH), WIDTH)"
    yield "gather_half", f"CASE(gather_half, {half}, y.h[i])"
    yield halves("fill", "a.f[0]")
    yield halves("relu", "HALVES(c.h + 1)")
    yield halves("clipped", "HALVES(c.h + 1), 0x1p-13f")
    yield halves("round", "C")
    yield floats("widen", "HALVES(a.h)")
    within = "strop_x8_half_within(HALVES(c.h + 1), 0x1.ffcp15f, 1 + t % WIDTH)"
    yield "half_within", f"CASE(half_within, y.u[0] = {within}, y.u[0])"


def of_panels() -> Iterator[tuple[str, str]]:
    """The cases of functions that only boards with panels have."""
    dot = "strop_x4_dot_f16(HALVES(b.h), HALVES(b.h + 1), strop_x4_load(c.f, 1, 4), 4)"
    bits = "i < 4 ? float_bits(y.u[i], VECTOR) : 0u"
    yield "dot_f16", f"CASE(dot_f16, strop_x4_store(y.f, 1, {dot}, 4), {bits})"
    for width, n in ((4, 3), (8, 5), (8, 8)):
        for stride in (1, WIDTH // n):
            name, lanes = f"half_spread_x{width}_{n}_{stride}", f"strop_x{width}_half(a.h, 2, {n})"
            statement = f"strop_x{width}_half_spread(y.f, {stride}, {lanes}, {n})"
            yield name, f"CASE({name}, {statement}, i % {stride} || i >= {n * stride} ? 0u : y.u[i] & 0xffffu)"
    two = "const strop_two two = strop_load_two(a.f + t % 7)"
    yield "two", f"CASE(two, {two}, strop_float_bits(i % 2 ? two.second : two.first))"
    words = "const strop_two_words two = strop_load_two_words(a.f + t % 7)"
    yield "two_words", f"CASE(two_words, {words}, i % 2 ? two.second : two.first)"


WIDTH = 8
CASES = dict([*cases(), *in_halves()])


@pytest.mark.parametrize("name", BOARDS)
def test_every_function_has_the_bits_of_the_pc(name: str, tmp_path: Path) -> None:
    board = load_board(name)
    chosen = CASES | dict(of_panels()) if "panel" in board.core.tiling else CASES
    table = ", ".join(f"case_{case}" for case in chosen)
    pointers = f"\nstatic uint32_t (*const cases[])(void) = {{{table}}};\n"
    text = (FLUSH if board.core.flush else "") + SOURCE + "\n".join(chosen.values()) + pointers + MAIN
    source = tmp_path / "cases.c"
    source.write_text(text)
    elf = build_elf(board, [source, RUNTIME / "numerics.c"], [RUNTIME], tmp_path / "cases.elf")
    pc = build_shared([text, RUNTIME / "numerics.c"])
    pc.case_hash.restype = ctypes.c_uint32
    received = np.frombuffer(board_hashes(board, elf, len(chosen)), "<u4")
    different = [case for i, (case, word) in enumerate(zip(chosen, received, strict=True)) if pc.case_hash(i) != word]
    assert not different
