"""Footprints of linked programs: sizes against known objects, stacks against known frames and the compiler's own."""

import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from strop.errors import ToolchainError
from strop.targets.board import Board, load_board
from strop.targets.elf import Footprint, frames, measure
from strop.targets.toolchain import BARE_METAL, NUMERICS, OWN_FLAGS, build_elf, find_toolchain

BOARDS = ("qemu-rv32imf", "qemu-rv32imac", "qemu-cortex-m4f", "qemu-cortex-m55")
TOOLCHAINS = ("zig", "gcc", "clang")
HEAD = """
typedef int (*function_t)(int);
#define APART __attribute__((noinline))
volatile int input;
"""


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest) -> Board:
    return load_board(request.param)


def _build(board: Board, folder: Path, text: str, toolchain: str = "zig") -> Path:
    try:
        find_toolchain(toolchain, board.core)
    except ToolchainError as missing:
        pytest.skip(str(missing))
    (folder / "main.c").write_text(HEAD + text, encoding="utf-8")
    return build_elf(board, [folder / "main.c"], [], folder / "a.elf", toolchain=toolchain)


def _measure(board: Board, folder: Path, text: str, toolchain: str = "zig") -> Footprint:
    return measure(_build(board, folder, text, toolchain), board)


def _chain(footprint: Footprint) -> list[str]:
    return [link.function for link in footprint.stack_chain if link.function not in ("_start", "strop_boot")]


def test_sizes_of_known_objects(board: Board, tmp_path: Path) -> None:
    template = """
    static const __attribute__((section(".strop_params"))) int image[100] = {{1}};
    static const int table[{n}] = {{2}};
    static int changed[{n}] = {{3}};
    static int zero[{n}];
    int main(void) {{
        for (int i = 0; i < 100; i++) {{
            changed[i] += image[(input + i) % 100] + table[(input + i) % {n}];
            zero[i] = changed[i];
        }}
        return zero[input];
    }}
    """
    small = _measure(board, tmp_path, template.format(n=100))
    large = _measure(board, tmp_path, template.format(n=356))
    assert small.params == large.params == 400
    assert large.rodata - small.rodata == large.data - small.data == large.bss - small.bss == 1024
    assert abs(large.code - small.code) < 64
    assert large.flash == large.code + large.rodata + large.params + large.data
    assert large.ram == large.data + large.bss + large.stack
    assert {**large.as_dict(), "flash": 0} != large.as_dict() == measure(tmp_path / "a.elf", board).as_dict()


FRAMES = """
APART int leaf(int a) { volatile char local[256]; local[a & 255] = 1; return local[0]; }
APART int middle(int a) { volatile char local[512]; local[a & 511] = 1; return leaf(local[0]) + 1; }
APART int large(int a) { volatile char local[9000]; local[a] = 1; return leaf(local[0]) + 1; }
"""


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_the_deepest_chain_counts(board: Board, toolchain: str, tmp_path: Path) -> None:
    footprint = _measure(board, tmp_path, FRAMES + "int main(void) { return large(leaf(middle(input))); }", toolchain)
    assert _chain(footprint) == ["main", "large", "leaf"]
    assert 9256 <= footprint.stack <= 9256 + 96
    assert sum(link.bytes for link in footprint.stack_chain) == footprint.stack


def test_a_smaller_frame_with_deeper_calls_wins(board: Board, tmp_path: Path) -> None:
    text = FRAMES + "APART int flat(int a) { volatile char l[600]; l[a] = 1; return l[3]; }"
    footprint = _measure(board, tmp_path, text + "int main(void) { return flat(middle(input)); }")
    assert _chain(footprint) == ["main", "middle", "leaf"]


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
@pytest.mark.parametrize("where", ["constant table", "variable", "argument"])
def test_an_indirect_call_reaches_what_has_its_address_taken(
    board: Board, toolchain: str, where: str, tmp_path: Path
) -> None:
    small = "APART int small(int a) { return a * 7; }"
    use = {
        "constant table": "const function_t t[2] = {small, large}; int main(void) { return t[input & 1](1) + 1; }",
        "variable": "static volatile function_t f = large; int main(void) { return f(1) + small(2); }",
        "argument": "APART int call(function_t f) { return f(input) + input; }"
                    "int main(void) { return call(input ? small : large) + 1; }",
    }  # fmt: skip
    footprint = _measure(board, tmp_path, FRAMES + small + use[where], toolchain)
    assert _chain(footprint)[-2:] == ["large", "leaf"]
    assert footprint.stack >= 9256


def test_a_function_nobody_can_call_does_not_count(board: Board, tmp_path: Path) -> None:
    text = FRAMES + "APART int small(int a) { return a; } static volatile function_t f = small;"
    keep = "__attribute__((used)) static int never(int a) { return large(a); }"
    footprint = _measure(board, tmp_path, text + keep + "int main(void) { return f(1) + middle(1); }")
    assert "large" not in _chain(footprint)
    assert footprint.stack < 1024


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_tail_calls_give_the_frame_back_first(board: Board, toolchain: str, tmp_path: Path) -> None:
    text = FRAMES + "APART int hand_on(int a) { volatile char l[700]; l[a & 7] = 1; return middle(l[3]); }"
    footprint = _measure(board, tmp_path, text + "int main(void) { return hand_on(input) + 1; }", toolchain)
    assert _chain(footprint)[-3:] == ["hand_on", "middle", "leaf"]
    assert footprint.stack < 700 + 512 + 256  # not on top of each other


def test_recursion_is_refused(board: Board, tmp_path: Path) -> None:
    text = """
    int odd(int); APART int even(int n) { return n == 0 ? 1 : odd(n - 1) + input; }
    APART int odd(int n) { return n == 0 ? 0 : even(n - 1) + input; }
    int main(void) { return even(input); }
    """
    with pytest.raises(ToolchainError, match=r"calls itself: .*(even -> odd -> even|odd -> even -> odd)"):
        _measure(board, tmp_path, text)


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_a_frame_of_unknown_size_is_refused(board: Board, toolchain: str, tmp_path: Path) -> None:
    text = """
    APART int take(int n) { volatile char local[n]; local[0] = 1; return local[n / 2]; }
    int main(void) { return take(input); }
    """
    with pytest.raises(ToolchainError, match=r"known only at run time.*take"):
        _measure(board, tmp_path, text, toolchain)


def test_the_runtime_library_counts(tmp_path: Path) -> None:
    """Soft float on a core without FPU: the chain ends in a function no source of ours contains."""
    text = "volatile float x; volatile double y; int main(void) { y = (double)x / y; x *= x; return 0; }"
    chain = _chain(_measure(load_board("qemu-rv32imac"), tmp_path, text))
    assert chain[0] == "main"
    assert chain[1].startswith("__")


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_frames_agree_with_the_compilers_own_figures(board: Board, toolchain: str, tmp_path: Path) -> None:
    text = FRAMES + """
    APART float many(const float *x, int n) {
        float s[12] = {0};
        for (int i = 0; i < n; i++) { for (int j = 0; j < 12; j++) { s[j] = s[j] * x[i] + x[i + j]; } }
        float sum = 0; for (int j = 0; j < 12; j++) { sum += s[j] * (float)leaf(j); }
        return sum;
    }
    APART int early(int a) { if (a < 0) { return 1; } return leaf(a) + middle(a + 1); }
    float xs[64];
    int main(void) { return large(input) + early(input) + (int)many(xs, input); }
    """
    found = frames(_build(board, tmp_path, text, toolchain), board)
    stated = _stack_usage(board, toolchain, tmp_path)
    assert stated.keys() >= {"leaf", "middle", "large", "many", "early", "main"}
    assert {name: found[name] for name in stated} == stated


def _stack_usage(board: Board, toolchain: str, folder: Path) -> dict[str, int]:
    """Ask the compiler itself: gcc by a .su file, clang and zig by a section in the object."""
    compiler = find_toolchain(toolchain, board.core)
    flags = [*compiler.flags, *OWN_FLAGS[compiler.family], *NUMERICS, *BARE_METAL]
    ask = "-fstack-usage" if compiler.family == "gcc" else "-fstack-size-section"
    command = [*compiler.command, *flags, ask, "-c", "main.c", "-o", "main.o"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    if compiler.family == "gcc":
        rows = [line.split("\t") for line in (folder / "main.su").read_text().splitlines()]
        return {row[0].rsplit(":", 1)[1]: int(row[1]) for row in rows}
    with (folder / "main.o").open("rb") as stream:
        file = ELFFile(stream)
        sections = [section for section in file.iter_sections() if section.name == ".stack_sizes"]
        names = [file.get_section(section["sh_link"]).name.rpartition(".")[2] for section in sections]
        return {name: _uleb128(section.data()[4:]) for name, section in zip(names, sections, strict=True)}


def _uleb128(data: bytes) -> int:
    return sum((byte & 0x7F) << 7 * i for i, byte in enumerate(data))


SHAPES = {
    "thumb": """
        push {r4, r5, r6, lr}
        vpush {s16, s17, s18}
        vpush {d10, d11}
        str r0, [sp, #-8]!
        sub.w sp, sp, #256
        movw r4, #1024
        sub sp, r4
        bl leaf
        add.w sp, sp, #1280
        ldr r0, [sp], #8
        vpop {d10, d11}
        vpop {s16, s17, s18}
        pop {r4, r5, r6, pc}
    """,
    "riscv": """
        addi sp, sp, -16
        c.addi16sp sp, -64
        lui t0, 1
        addi t0, t0, -1024
        sub sp, sp, t0
        call leaf
        li t0, 3072
        add sp, sp, t0
        addi sp, sp, 80
        ret
    """,
}


def test_every_way_to_move_the_stack_pointer(board: Board, tmp_path: Path) -> None:
    """By hand, since no compiler uses all of them in one function."""
    shape = SHAPES["riscv" if board.core.arch == "riscv32" else "thumb"]
    lines = "\\n".join(line.strip() for line in shape.strip().splitlines())
    text = f"""
    int leaf(int a); APART int leaf(int a) {{ return a + input; }}
    int shape(void); __attribute__((naked, noinline)) int shape(void) {{ __asm__ volatile("{lines}"); }}
    int main(void) {{ return shape() + leaf(2); }}
    """
    own = 16 + 12 + 16 + 8 + 256 + 1024 if board.core.arch == "thumb" else 16 + 64 + 3072
    assert frames(_build(board, tmp_path, text), board)["shape"] == own


HELIUM = """
    push {r4, lr}
    vpush {d8, d9, d10, d11}
    sub sp, #32
    vstrw.32 q4, [sp, #16]
    dlstp.32 lr, r0
    1:
    vldrw.u32 q0, [r1], #16
    vldrw.u32 q1, [r1, q0, uxtw #2]
    vfma.f32 q4, q1, r2
    vcmp.f32 gt, q1, q2
    vpsel q0, q3, q4
    vmrs r3, p0
    vmov r2, r3, q0[2], q0[0]
    vcvtb.f32.f16 q0, q1
    vldrw.u32 q5, [q1, #16]!
    vstrw.32 q4, [r1], #16
    letp lr, 1b
    wls lr, r0, 3f
    2:
    le lr, 2b
    b 4f
    3:
    bl large
    4:
    add sp, #32
    vpop {d8, d9, d10, d11}
    pop {r4, pc}
"""


def test_helium_and_loops_are_read(tmp_path: Path) -> None:
    """What capstone knows nothing of does not end the walk, and the exit of a loop leads on."""
    board = load_board("qemu-cortex-m55")
    lines = "\\n".join(line.strip() for line in HELIUM.strip().splitlines())
    text = f"""
    int large(int a); APART int large(int a) {{ volatile char l[2000]; l[a & 7] = 1; return l[3] + input; }}
    int shape(void); __attribute__((naked, noinline)) int shape(void) {{ __asm__ volatile("{lines}"); }}
    int main(void) {{ return shape() + large(2); }}
    """
    elf = _build(board, tmp_path, text)
    assert frames(elf, board)["shape"] == 8 + 32 + 32
    assert _chain(measure(elf, board)) == ["main", "shape", "large"]


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"not a program at all, but long enough to have a header" * 9])
def test_a_file_that_is_no_program(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.elf").write_bytes(content)
    with pytest.raises(ToolchainError, match="cannot read the program"):
        measure(tmp_path / "a.elf", load_board(BOARDS[0]))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="cannot read the program"):
        measure(tmp_path / "gone.elf", load_board(BOARDS[0]))


def test_a_program_of_another_core_is_refused(tmp_path: Path) -> None:
    elf = _build(load_board("qemu-cortex-m4f"), tmp_path, "int main(void) { return 0; }")
    with pytest.raises(ToolchainError, match="no program for board 'qemu-rv32imf'"):
        measure(elf, load_board("qemu-rv32imf"))
