"""Fixed addresses: what lives at once never overlaps, and the arena is as small as the best of all packings."""

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import pytest
from cases import NETWORKS, Net, compiled, stages
from hypothesis import given, settings
from hypothesis import strategies as st

from strop.compiler.ir import Role
from strop.compiler.liveness import Interval, live_bytes
from strop.compiler.optim import SGD, Adam
from strop.compiler.plan import ALIGNMENT, Buffer, Plan, check_fits, pack, place
from strop.compiler.rules import Backprop, HeadOnly, TpSGD
from strop.errors import PlanError


@st.composite
def buffers(draw: st.DrawFn, count: int, largest: int = 40) -> list[Interval]:
    starts = draw(st.lists(st.integers(0, 8), min_size=1, max_size=count))
    return [
        Interval((f"b{i}",), draw(st.integers(1, largest)), first, first + draw(st.integers(0, 5)))
        for i, first in enumerate(starts)
    ]


def height(packed: Sequence[Buffer]) -> int:
    return max((b.end for b in packed), default=0)


def lowest(order: Sequence[Interval]) -> int:
    """The arena when every buffer goes, in this order, to the lowest multiple of 4 where it meets no other."""
    placed: list[tuple[int, int, Interval]] = []
    for interval in order:
        offset = 0
        while any(a < offset + interval.bytes and offset < b and other.overlaps(interval) for a, b, other in placed):
            offset += 4
        placed.append((offset, offset + interval.bytes, interval))
    return max(-(-end // 4) * 4 for _, end, _ in placed)


@settings(max_examples=200, deadline=None)
@given(buffers(24))
def test_what_lives_at_once_is_apart(intervals: list[Interval]) -> None:
    packed = pack(intervals)
    assert sorted(b.interval.names for b in packed) == sorted(i.names for i in intervals)
    for i, a in enumerate(packed):
        assert a.offset % ALIGNMENT == 0
        for b in packed[i + 1 :]:
            together = a.interval.first <= b.interval.last and b.interval.first <= a.interval.last
            apart = a.offset + a.interval.bytes <= b.offset or b.offset + b.interval.bytes <= a.offset
            assert apart or not together


@settings(max_examples=40, deadline=None, derandomize=True)
@given(buffers(6))
def test_small_arenas_are_optimal(intervals: list[Interval]) -> None:
    """Some order of placing each buffer as low as it goes gives an optimal packing; this tries them all."""
    assert height(pack(intervals)) == min(map(lowest, permutations(intervals)))


def test_nothing_to_place_takes_nothing() -> None:
    assert pack([]) == ()


RULES = {"backprop": Backprop(), "tpsgd": TpSGD(), "head-only": HeadOnly()}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("network", NETWORKS)
def test_arenas_of_networks_have_no_waste(network: str, rule: str) -> None:
    """The arena is no larger than what must be alive at the worst op."""
    p = compiled(NETWORKS[network](), RULES[rule], "cross_entropy", SGD())
    plan = place(p)
    need = max(max(live_bytes(p, ops, p.results(name))) for name, ops in p.functions().items())
    assert plan.sizes["arena"] <= need + 4 * len(plan.arena["train_step"])


def plan_of(network: str = "cnn", rule: str = "backprop") -> Plan:
    return place(compiled(NETWORKS[network](), RULES[rule], "cross_entropy", Adam()))


def test_regions_hold_every_lasting_value_once() -> None:
    plan = plan_of(rule="head-only")
    for role, region in ((Role.PARAM, "params"), (Role.STATE, "state"), (Role.CONST, "const")):
        values = plan.program.of(role)
        offsets = [plan.fixed[v.name] for v in values]
        assert offsets == sorted(offsets)
        assert plan.sizes[region] == sum(-(-v.bytes // 4) * 4 for v in values) > 0


def test_every_activation_that_is_written_has_a_place() -> None:
    for network in NETWORKS:
        plan = plan_of(network)
        for function, ops in plan.program.functions().items():
            for name in {n for op in ops for n in (*op.inputs, *op.outputs)}:
                owner = plan.aliases[function].get(name, name)
                if plan.program.values[owner].role is Role.ACT and owner not in plan.given[function]:
                    assert plan.offset(function, owner) >= 0


def test_a_reshaped_output_is_the_callers_memory() -> None:
    """A network that ends in Flatten writes what comes before it straight to the caller."""
    p = compiled(Net(1, 5, 5).conv(2).flatten().program(), Backprop(), "mse", SGD())
    plan = place(p)
    assert p.output != plan.given["infer"][0] == "l0"
    assert plan.arena["infer"] == ()


def test_peak_names_the_op_that_sets_it() -> None:
    plan = plan_of()
    size, op = plan.peak("train_step")
    assert size == height(plan.arena["train_step"])
    assert " -> " in op


def test_a_program_without_a_train_step_can_be_placed() -> None:
    plan = place(NETWORKS["mlp"]())
    assert plan.arena["train_step"] == ()
    assert plan.peak("train_step") == (0, "")
    assert plan.peak("infer")[0] == plan.sizes["arena"] > 0


def test_text_lists_regions_and_buffers() -> None:
    plan = plan_of()
    text = plan.text
    assert text.startswith("memory map of cnn\n")
    for region, size in plan.sizes.items():
        assert f"{region:<7}{size:>9,} B" in text
    for buffer in plan.arena["train_step"]:
        assert buffer.interval.names[0] in text


@pytest.mark.parametrize(("name", "magic"), [("map.png", b"\x89PNG"), ("map.svg", b"<?xml")])
def test_picture(name: str, magic: bytes, tmp_path: Path) -> None:
    for plan in (plan_of(), place(NETWORKS["mlp"]())):
        plan.draw(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        assert data.startswith(magic)
        assert len(data) > 5000


def test_picture_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        plan_of().draw(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(("ram", "flash", "what"), [(100, 10**6, "RAM"), (10**6, 100, "flash")])
def test_what_does_not_fit_is_refused_with_the_map(ram: int, flash: int, what: str) -> None:
    with pytest.raises(PlanError, match=rf"cnn needs [\d,]+ B of {what}, small has 100 B") as error:
        check_fits(plan_of(), ram, flash, "small")
    assert "memory map of cnn" in f"{error.value} {vars(error.value)}"


def test_what_fits_is_not_refused() -> None:
    plan = plan_of()
    check_fits(plan, plan.sizes["params"] + plan.sizes["state"] + plan.sizes["arena"], 10**6, "exact")


def test_order_lowers_the_peak_of_local_rules() -> None:
    net = Net(32)
    for _ in range(5):
        net.dense(32).act("tanh")
    seen, bundle = stages(net.dense(3).program(), TpSGD(), "cross_entropy", SGD())
    before = place(seen["fuse"]).sizes["arena"]
    assert bundle.plan.sizes["arena"] < before / 1.5
