"""Tuned schedules: the file that keeps them, the pass that applies them, and the choice among what was measured."""

import json
from collections.abc import Iterator
from dataclasses import astuple, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import Net, batches, compiled

from strop.compiler.bundle import Bundle
from strop.compiler.ir import Op, Program
from strop.compiler.kernels import KernelSpec, kernel_spec, lowered, needs_code
from strop.compiler.optim import SGD
from strop.compiler.passes.tuned import Entry, Schedules, read_schedules, schedule_key, tuned
from strop.compiler.pipeline import build
from strop.compiler.rules import Backprop, TpSGD
from strop.compiler.schedules import Tiling
from strop.errors import LowerError, UsageError
from strop.host import tune as tuning
from strop.host.cli import run
from strop.host.tune import SPACE, Bench, Step, Trial, choose, tune, variants
from strop.host.zoo import MODELS
from strop.targets.board import load_board

BOARD = "qemu-rv32imf"
CORE = load_board(BOARD).core
DEFAULT = Tiling(**CORE.tiling)
OTHER = {"accumulators": 4, "unroll": 1, "rows": 2, "reach": 4, "depth": 2, "band": 4, "turn": 1}


def bundle(model: str = "mlp-64-32-10", schedules: Schedules | None = None) -> Bundle:
    module, example = MODELS[model]()
    return build(module, example, name=model, board=BOARD, schedules=schedules)


def coded(program: Program) -> list[Op]:
    return [op for ops in program.functions().values() for op in ops if needs_code(op)]


def specs(program: Program) -> dict[str, KernelSpec]:
    found = [kernel_spec(program, op, DEFAULT) for op in coded(program)]
    return {schedule_key(spec): spec for spec in found}


def entry(**fields: int) -> Entry:
    return Entry(kernel="a kernel", tiling=fields, before=10, after=9, made_with="a compiler")


def everywhere(program: Program, **fields: int) -> Schedules:
    """The same tiling for every kernel."""
    return Schedules().with_entries(CORE.name, dict.fromkeys(specs(program), entry(**fields)))


# --- the file ------------------------------------------------------------------------------------------------------


def test_the_file_round_trips(tmp_path: Path) -> None:
    one = Schedules().with_entries("rv32imf", {"b": entry(rows=2), "a": entry(unroll=1)})
    both = one.with_entries("cortex-m4f", {"a": entry(depth=16)})
    (tmp_path / "file").write_text(both.text)
    assert read_schedules(tmp_path / "file") == both
    assert read_schedules(tmp_path / "file").text == both.text
    assert list(json.loads(both.text)["schedules"]["rv32imf"]) == ["a", "b"]
    assert both.with_entries("cortex-m4f", {"a": None, "c": None}).schedules["cortex-m4f"] == {}
    assert both.table("rv32imf", DEFAULT) == {"a": replace(DEFAULT, unroll=1), "b": replace(DEFAULT, rows=2)}


def text_with(**fields: Any) -> str:
    document = json.loads(Schedules().with_entries("rv32imf", {"a": entry(rows=2)}).text)
    document["schedules"]["rv32imf"]["a"].update(fields)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Invalid JSON"),
        (text_with()[:-20], "Invalid JSON"),
        ("\xff", "Invalid JSON"),
        ("[]", "holds no schedules"),
        ('{"format": 2, "schedules": {}}', "format: Input should be 1"),
        ('{"format": 1, "schedules": {"rv32imf": 3}}', "schedules.rv32imf"),
        (text_with(tiling={"rows": 0}), "schedules.rv32imf.a.tiling.rows"),
        (text_with(tiling={"rows": 10**9}), "schedules.rv32imf.a.tiling.rows"),
        (text_with(tiling={"rows": "many"}), "schedules.rv32imf.a.tiling.rows"),
        (text_with(before=None), "schedules.rv32imf.a.before"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError) as error:
        read_schedules(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "strop tune" in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            build(*MODELS["mlp-64-32-10"](), schedules=path)


# --- the pass ------------------------------------------------------------------------------------------------------


def test_the_schedule_is_part_of_the_text_and_of_the_c() -> None:
    plain = bundle()
    changed, again = (bundle(schedules=everywhere(plain.program, **OTHER)) for _ in range(2))
    assert changed.files == again.files
    assert changed.program.text == again.program.text
    assert changed.hash != plain.hash
    assert changed.files["strop_model.c"] != plain.files["strop_model.c"]
    assert f"tiling={astuple(replace(DEFAULT, **OTHER))}".replace(" ", "") in changed.program.text
    assert changed.plan.sizes == plain.plan.sizes
    assert specs(changed.program).keys() == specs(plain.program).keys(), "a key does not depend on the schedule"


def test_one_entry_changes_one_kernel() -> None:
    plain = bundle().program
    key = schedule_key(kernel_spec(plain, plain.train_step[0], DEFAULT))
    changed = tuned(plain, DEFAULT, {key: replace(DEFAULT, depth=2)})
    differ = [new for old, new in zip(coded(plain), coded(changed), strict=True) if old != new]
    assert {schedule_key(kernel_spec(changed, op, DEFAULT)) for op in differ} == {key}
    assert all(kernel_spec(changed, op, DEFAULT).tiling.depth == 2 for op in differ)


def test_what_fits_nothing_is_harmless() -> None:
    plain = bundle()
    keys = specs(plain.program)
    for table in (
        Schedules().with_entries("rv64gc", dict.fromkeys(keys, entry(rows=2))),
        Schedules().with_entries(CORE.name, {"0123456789abcdef": entry(rows=2)}),
        Schedules().with_entries(CORE.name, dict.fromkeys(keys, entry(colour=3))),
        Schedules().with_entries(CORE.name, dict.fromkeys(keys, entry(rows=DEFAULT.rows))),
    ):
        assert bundle(schedules=table).files == plain.files


def test_an_entry_that_cannot_be_scheduled_is_named() -> None:
    with pytest.raises(UsageError, match=r"Tiling.*accumulators=1024.*does not work.*Tune again"):
        bundle("mlp-784-128-10", everywhere(bundle("mlp-784-128-10").program, accumulators=1024))


def trained(name: str, *, lr: float = 0.01, seed: int = 0, units: int = 5, rate: str = "tpsgd") -> set[str]:
    rule = TpSGD(seed=seed) if rate == "tpsgd" else Backprop()
    net = Net(7).dense(units).act("tanh").dense(4).program(name)
    return set(specs(compiled(net, rule, "cross_entropy", SGD(lr=lr), board=BOARD)))


def test_a_key_names_the_computation_not_its_constants() -> None:
    keys = trained("one")
    assert trained("other", lr=0.3, seed=9) == keys
    assert len(trained("one", units=6) & keys) < len(keys)
    assert len(trained("one", rate="backprop") & keys) < len(keys)


def test_tuning_never_changes_a_bit() -> None:
    """A hundred steps of digits-cnn with schedules as unlike as can be."""
    plain = bundle("digits-cnn")
    results = []
    for chosen in (plain, bundle("digits-cnn", everywhere(plain.program, **OTHER))):
        with chosen.twin() as device:
            losses = [device.train_step(x, y) for x, y in batches(chosen.program, 100)]
            results.append((losses, {name: data.tobytes() for name, data in device.tensors().items()}))
    assert results[0] == results[1]
    assert len(set(results[0][0])) > 90, "it has learnt something"


# --- the search ----------------------------------------------------------------------------------------------------


def trial(instructions: float, size: int, **fields: int) -> Trial:
    return Trial(replace(DEFAULT, **fields), instructions, size)


def test_code_must_earn_its_size() -> None:
    own = trial(1000, 100)
    assert choose(own, []) is own
    assert choose(own, [trial(1000, 50, rows=1)]) is own, "shorter alone is no reason"
    assert choose(own, [trial(1001, 50, rows=1)]) is own
    assert choose(own, [good := trial(980, 110, rows=1)]) is good, "2 % for 10 %"
    assert choose(own, [trial(995, 110, rows=1)]) is own, "0.5 % for 10 %"
    assert choose(own, [good, trial(979, 220, rows=2)]) is good, "each step up is judged against the one before"
    assert choose(own, [good, best := trial(979, 220, rows=2)], worth=0) is best
    assert choose(own, [small := trial(990, 60, rows=1), trial(985, 100, rows=2)]) is small


def test_variants_are_distinct_and_start_with_what_is_known() -> None:
    known = replace(DEFAULT, **OTHER)
    for spec in specs(bundle("digits-cnn").program).values():
        found = list(islice(variants(spec, known), 4))
        bodies = [lowered(replace(spec, tiling=tiling)).body for tiling in found]
        assert len({*bodies, lowered(spec).body}) == len(bodies) + 1
        if lowered(replace(spec, tiling=known)).body != lowered(spec).body:
            assert found[0] == known


def test_the_space_names_fields_of_a_tiling() -> None:
    vectors = {"lanes", "halves", "registers", "register", "at_once", "sums", "widened", "panel", "scalars"}
    assert set(SPACE) == set(vars(Tiling())) - vectors - {"harts"}, "the core gives those"
    for name, values in SPACE.items():
        assert Schedules().with_entries("x", {"k": entry(**{name: max(values)})}).table("x", Tiling())["k"]


class Simulated(Bench):
    """A board on which a kernel's cost is a formula."""

    steps: Iterator[Step]

    def step(self, table: tuning.Table) -> Step:
        return next(self.steps)

    def costs(self, table: tuning.Table) -> dict[str, float]:
        return {key: 1000 + 10 * abs(table.get(key, DEFAULT).unroll - 2) for key in self.keys}


def simulate(monkeypatch: pytest.MonkeyPatch, steps: list[Step], budget: int = 8) -> tuning.Tuning:
    monkeypatch.setattr(Simulated, "steps", iter(steps), raising=False)
    monkeypatch.setattr(tuning, "Bench", Simulated)
    monkeypatch.setattr(tuning, "code_sizes", lambda _, functions, __: dict.fromkeys(functions, 100))
    return tune(bundle(), np.zeros(3), np.zeros(3), lambda *_: pytest.fail("no board here"), budget=budget)


def test_the_search_finds_the_cheapest(monkeypatch: pytest.MonkeyPatch) -> None:
    found = simulate(monkeypatch, [Step(9000, "bits"), Step(8000, "bits")], budget=60)
    assert (found.before, found.after) == (9000, 8000)
    kept = [change for change in found.kernels if change.tiling]
    assert kept
    assert all(change.after < change.before and found.entries[change.key] for change in kept)
    unrolled = [change for change in found.kernels if "bias_grad" in change.name]
    assert unrolled
    assert all(change.tiling == {"unroll": 2} for change in unrolled)


def test_a_slower_step_keeps_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for after in (9000, 9001):
        found = simulate(monkeypatch, [Step(9000, "bits"), Step(after, "bits")])
        assert (found.before, found.after) == (9000, 9000)
        assert set(found.entries.values()) == {None}
        assert not any(change.tiling or change.after != change.before for change in found.kernels)


def test_a_changed_bit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LowerError, match="changed a result"):
        simulate(monkeypatch, [Step(9000, "bits"), Step(8000, "other bits")])


def test_the_budget_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert simulate(monkeypatch, [Step(9000, ""), Step(8000, "")], budget=3).builds == 3


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tune", "mlp-64-32-10"), "counts no instructions"),
        (("tune", "mlp-64-32-10", "-p", "tcp:1"), "no --port"),
        (("tune", "mlp-64-32-10", "--schedules", "nowhere/file.json"), "nowhere"),
        (("tune", "mlp-64-32-10", "--schedules", "broken.json"), "holds no schedules"),
        (("build", "mlp-64-32-10", "--schedules", "broken.json"), "holds no schedules"),
        (("analyze", "mlp-64-32-10", "--schedules", "none.json"), "cannot be read"),
    ],
)
def test_bad_input(
    words: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("{")
    assert run([*words, "--json"]) == 1
    assert message in json.dumps(json.loads(capsys.readouterr().out)["error"])
    assert Path("broken.json").read_text() == "{"
    assert not Path("strop-schedules.json").exists()


def test_schedules_by_path(tmp_path: Path) -> None:
    table = everywhere(bundle().program, **OTHER)
    (tmp_path / "s.json").write_text(table.text)
    model, example = MODELS["mlp-64-32-10"]()
    torch.manual_seed(0)
    read = build(model, example, name="mlp-64-32-10", board=BOARD, schedules=tmp_path / "s.json")
    assert [op for op in read.program.train_step if "tiling" in op.attrs]
