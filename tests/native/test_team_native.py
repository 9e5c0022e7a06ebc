"""Kernels that harts share: their parts, in any order, have the bits of the whole. Every op's cases, on this PC."""

import ctypes
from functools import cache

import pytest
from cases import KERNEL_INCLUDES, CompiledCase, OpCase, coded
from cbuild import RUNTIME, build_shared

from strop.compiler.schedules import Tiling

TEAM, ALONE = Tiling(8, 4, harts=8), Tiling(8, 4)
BARRIER = "strop_team_barrier"


def compiled(case: OpCase, tiling: Tiling) -> CompiledCase:
    return CompiledCase(case, tiling, fma=True)


CASES = [case for case in coded() if BARRIER not in compiled(case, TEAM).kernel.body]


def source(case: OpCase) -> str:
    """`case_team(operands, hart, harts)` and `case_alone(operands)`."""
    whole = compiled(case, TEAM)
    arguments = ", ".join(["hart", "harts", *(f"operands[{i}]" for i in range(len(whole.kernel.parameters)))])
    head = f"void {case}_team(void *const *operands, int hart, int harts)"
    return (
        compiled(case, ALONE).source(f"{case}_alone")
        + whole.kernel.function(f"{case}_team_kernel")
        + f"{head};\n{head} {{\n    {case}_team_kernel({arguments});\n}}\n"
    )


@cache
def library() -> ctypes.CDLL:
    return build_shared([KERNEL_INCLUDES + "\n".join(map(source, CASES)), RUNTIME / "numerics.c"])


def test_most_kernels_are_one_nest() -> None:
    assert len(CASES) > len(coded()) / 2


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_parts_are_the_whole(case: OpCase) -> None:
    alone = compiled(case, ALONE)
    library()[f"{case}_alone"]((ctypes.c_void_p * len(alone.operands))(*(a.ctypes.data for a in alone.operands)))
    for harts in (1, 3, 8):
        team = compiled(case, TEAM)
        operands = (ctypes.c_void_p * len(team.operands))(*(a.ctypes.data for a in team.operands))
        for hart in reversed(range(harts)):
            library()[f"{case}_team"](operands, hart, harts)
        assert [r.tobytes() for r in team.results] == [r.tobytes() for r in alone.results]
