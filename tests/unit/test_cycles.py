"""The cycle counts of the benchmarks, on sequences written by hand."""

import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

# a folder of scripts, not a package
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from cycles import count, kernels, loaded, read

from strop.targets.flow import Insn

LOOP = {
    insn.address: insn
    for insn in (
        Insn(0, 4, "flw", "fa0, 8(a0)"),
        Insn(4, 4, "flw", "fa1, 0(a1)"),  # reads nothing that was loaded just now
        Insn(8, 4, "fmadd.s", "fa2, fa0, fa1, fa2"),  # waits for fa1
        Insn(12, 2, "c.addi", "a0, 4"),
        Insn(14, 2, "c.lw", "a3, 0(a0)"),
        Insn(16, 4, "fmadd.s", "fa2, fa0, fa1, fa2"),
        Insn(20, 4, "bne", "a0, a2, -0x14"),
    )
}
TURN = list(LOOP)


def counted(*addresses: int) -> tuple[int, int, int]:
    """What a run costs, its first instruction apart."""
    return count(Counter(pairwise(addresses)), LOOP)


def test_a_loop_by_hand() -> None:
    assert counted(*TURN) == (6, 1, 0)
    assert counted(*TURN * 3) == (20, 3, 2 * 2), "two turns begin with a taken branch"


@pytest.mark.parametrize(
    ("insn", "registers"),
    [
        (Insn(0, 4, "fmadd.s", "fa2, fa0, fa1, fa2"), {"fa0", "fa1", "fa2"}),
        (Insn(0, 4, "fmadd.s", "fa3, fa0, fa1, fa2"), {"fa0", "fa1", "fa2"}),
        (Insn(0, 4, "fsw", "fa0, 8(a0)"), {"fa0", "a0"}),
        (Insn(0, 2, "c.swsp", "s0, 0x1c(sp)"), {"s0", "sp"}),
        (Insn(0, 4, "lw", "a0, 8(a1)"), {"a1"}),
        (Insn(0, 2, "c.add", "a0, a1"), {"a0", "a1"}),
        (Insn(0, 2, "c.mv", "a0, a1"), {"a1"}),
        (Insn(0, 4, "add", "a0, a1, a2"), {"a1", "a2"}),
        (Insn(0, 2, "c.beqz", "a0, 8"), {"a0"}),
        (Insn(0, 4, "bne", "a0, a1, 8"), {"a0", "a1"}),
    ],
)
def test_what_an_instruction_reads(insn: Insn, registers: set[str]) -> None:
    assert {word for word in read(insn) if word[0].isalpha()} == registers


def test_what_an_instruction_loads() -> None:
    assert loaded(Insn(0, 2, "c.flwsp", "fa5, 0x30(sp)")) == "fa5"
    assert loaded(Insn(0, 4, "fsw", "fa5, 0x30(a0)")) is None
    assert loaded(Insn(0, 4, "mv", "a0, a1")) is None


def test_kernels_lie_between_two_calls_of_the_counter() -> None:
    counter = 100
    trace = [7, counter, 0, 4, 8, counter, 5, 6, counter, 0, 4, 0, 4, counter, 7]
    first, second = kernels(iter(trace), counter)
    assert first == {(0, 4): 1, (4, 8): 1}
    assert second == {(0, 4): 2, (4, 0): 1}
