"""The search for faster schedules: candidates that give other C, measured on the board, chosen by speed and size.

Costs are counted by kernel, so one firmware tries a candidate of every kernel at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, fields, replace
from functools import cached_property
from importlib.metadata import version
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from numpy.typing import NDArray

from strop.compiler.emit import Emitter, vectors
from strop.compiler.ir import Op, digest
from strop.compiler.kernels import Kernel, KernelSpec, kernel_runs, kernel_spec, lower, lowered
from strop.compiler.passes.tuned import Entry, Schedules, schedule_key, tuned
from strop.compiler.schedules import Tiling
from strop.errors import LowerError, PlanError, ToolchainError, UsageError
from strop.host.profile import kernel_sums, step_costs
from strop.targets.toolchain import RUNTIME, build_elf, find_toolchain

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle
    from strop.host.device import Device

Array = NDArray[Any]
Table = Mapping[str, Tiling]
OpenDevice = Callable[["Bundle", bool], "Device"]

SPACE: Mapping[str, tuple[int, ...]] = {
    "accumulators": (2, 4, 6, 8, 10, 12, 16, 20, 24),
    "unroll": (1, 2, 3, 4, 5, 8, 16),
    "rows": (1, 2, 3, 4, 5, 6, 7, 8),
    "reach": (4, 1024, 8192),
    "depth": (1, 2, 4, 8, 16, 32),
    "band": (2, 4, 8, 12, 16, 20),
    "turn": (1, 2, 4),
    "sweep": (1, 2, 5, 10),
}
"""Values to try for each field of a Tiling."""

SHARE = 0.005
"""Share of a step's instructions below which a kernel is left alone."""

WORTH = 0.1
"""What code may cost: a kernel that is 10 % longer must run in 1 % fewer instructions."""


@dataclass(frozen=True)
class Trial:
    """A tiling of a kernel that ran on the board. instructions: a step, over all calls.  bytes: of the function."""

    tiling: Tiling
    instructions: float
    bytes: int


Trials = Mapping[str, Trial]


@dataclass(frozen=True)
class Step:
    """A training step as a whole. instructions: mean over the steps.  bits: hash of what they have learnt."""

    instructions: float
    bits: str


@dataclass(frozen=True)
class Change:
    """What tuning did to a kernel. before, after: instructions a step, over all its calls.

    layers: where it is called.  bytes_before, bytes_after: of the function.  tiling: what is not as the ISA has it.
    """

    key: str
    name: str
    layers: tuple[str, ...]
    before: float
    after: float
    bytes_before: int
    bytes_after: int
    tiling: Mapping[str, int]


@dataclass(frozen=True)
class Tuning:
    """What a search found. before, after: instructions of a whole step, by firmware without counters.

    builds: firmwares that were tried.  kernels: those that were searched.  entries: for `Schedules.with_entries`.
    """

    before: float
    after: float
    builds: int
    kernels: tuple[Change, ...]
    entries: Mapping[str, Entry | None]

    def to_json(self) -> dict[str, Any]:
        """The result as `strop tune --json` prints it."""
        return {
            "instructions_before": self.before, "instructions_after": self.after, "builds": self.builds,
            "kernels": [asdict(change) for change in self.kernels],
        }  # fmt: skip


def tune(
    bundle: "Bundle", x: Array, y: Array, open_device: OpenDevice, *, budget: int = 24, known: Schedules | None = None,
    worth: float = WORTH, toolchain: str = "zig", on_build: Callable[[], None] = lambda: None,
) -> Tuning:  # fmt: skip
    """Search the schedules of a bundle's training step on its board.

    bundle: built without schedules.  x, y: data of some steps, the same for every candidate.  open_device: opens the
    board with a bundle, instrumented if told so.  budget: firmwares to try.  known: what was found before; it is tried
    first.  worth: see `choose`.  on_build: called after each firmware.
    Raises UsageError for a board that counts nothing. Candidates too large for the board are passed over.
    """
    bench = Bench(bundle, x, y, open_device, toolchain)
    before, own = bench.step({}), bench.costs({})
    on_build()
    searched = {key: bench.kernels[key] for key, cost in own.items() if cost >= SHARE * before.instructions}
    earlier = (known or Schedules()).table(bundle.board.isa, bench.default)
    standard = bench.trials(own, {}, searched)
    trials: dict[str, list[Trial]] = {key: [] for key in searched}
    searches = {key: variants(spec, earlier.get(key, bench.default)) for key, spec in searched.items()}
    builds = 0
    while builds < budget and (table := _next(searches)):
        with suppress(PlanError, ToolchainError):
            for key, trial in bench.trials(bench.costs(table), table, table).items():
                trials[key].append(trial)
        builds += 1
        on_build()
    best = {key: choose(standard[key], tried, worth) for key, tried in trials.items()}
    return bench.conclude(before, standard, _settled(bench, standard, best, worth), builds)


def _settled(bench: "Bench", standard: Trials, best: Trials, worth: float) -> Trials:
    """Those that still earn their size side by side: what stands around a kernel bears on its code."""
    kept = {key: trial for key, trial in best.items() if trial is not standard[key]}
    while kept:
        costs = bench.costs({key: trial.tiling for key, trial in kept.items()})
        again = {key: replace(trial, instructions=costs[key]) for key, trial in kept.items()}
        earning = {key: trial for key, trial in again.items() if choose(standard[key], [trial], worth) is trial}
        if len(earning) == len(kept):
            break
        kept = earning
    return kept


def _next(searches: Mapping[str, Iterator[Tiling]]) -> dict[str, Tiling]:
    """The next candidate of every kernel that has one left."""
    return {key: found for key, search in searches.items() if (found := next(search, None))}


def variants(kernel: KernelSpec, first: Tiling) -> Iterator[Tiling]:
    """Tilings that give a kernel C of its own, each C once: `first`, those that change one field, then all others."""
    seen = {lowered(kernel).body}

    def is_new(candidate: Tiling) -> bool:
        try:
            body = lowered(replace(kernel, tiling=candidate)).body
        except LowerError:
            return False
        new = body not in seen
        seen.add(body)
        return new

    if is_new(first):
        yield first
    matter = []
    for name, values in SPACE.items():
        fresh = [one for value in values if is_new(one := replace(kernel.tiling, **{name: value}))]
        matter += [name] if fresh else []
        yield from fresh
    for values in product(*(SPACE[name] for name in matter)):
        candidate = replace(kernel.tiling, **dict(zip(matter, values, strict=True)))
        if is_new(candidate):
            yield candidate


def choose(own: Trial, others: Iterable[Trial], worth: float = WORTH) -> Trial:
    """The fastest that earns its size: from the shortest up, each must repay what it is longer than the best so far.

    worth: share of the instructions to gain for twice the code; 0 takes the fastest of any size.
    """
    best = own
    for trial in sorted(others, key=lambda trial: (trial.bytes, trial.instructions, astuple(trial.tiling))):
        gain, growth = 1 - trial.instructions / best.instructions, trial.bytes / best.bytes - 1
        if gain > 0 and gain >= worth * growth:
            best = trial
    return best


@dataclass(frozen=True)
class Bench:
    """A bundle whose kernels can be given other tilings, and a board to run it on."""

    bundle: "Bundle"
    x: Array
    y: Array
    open_device: OpenDevice
    toolchain: str

    @cached_property
    def default(self) -> Tiling:
        """The ISA's own tiling."""
        core = self.bundle.board.core
        return Tiling(**core.tiling)

    @cached_property
    def keys(self) -> list[str]:
        """The key of every kernel call of the training step."""
        return [schedule_key(self._spec(op)) for op in self._calls]

    @cached_property
    def kernels(self) -> dict[str, KernelSpec]:
        """Every kernel of the training step, untuned."""
        return {key: self._spec(op) for key, op in zip(self.keys, self._calls, strict=True)}

    @cached_property
    def _calls(self) -> list[Op]:
        return [op for op, _ in kernel_runs(self.bundle.program.train_step)]

    def _spec(self, op: Op) -> KernelSpec:
        return kernel_spec(self.bundle.program, op, self.default)

    def retiled(self, table: Table) -> "Bundle":
        """The bundle with other tilings; memory stays as it was planned."""
        program = tuned(self.bundle.program, self.default, table)
        kernels, core = lower(program, self.default), self.bundle.board.core
        files = Emitter(program, self.bundle.plan, kernels, flush=core.flush, apart=core.apart).files()
        return replace(self.bundle, program=program, files=files)

    def step(self, table: Table) -> Step:
        """Train by firmware without counters. Raises UsageError for a board that counts nothing."""
        with self.open_device(self.retiled(table), False) as device:
            costs = step_costs(device, self.x, self.y)
            bits = digest(b"".join(data.tobytes() for data in device.tensors().values()))
        if not any(costs):
            raise UsageError(f"{device.name} counts no instructions", do="Tune on an emulated board, with --board")
        return Step(sum(costs) / len(costs), bits)

    def costs(self, table: Table) -> dict[str, float]:
        """Instructions a step of each kernel over all its calls, by firmware with counters."""
        with self.open_device(self.retiled(table), True) as device:
            sums = kernel_sums(device, self.x, self.y)
        total = dict.fromkeys(self.keys, 0)
        for key, cost in zip(self.keys, sums, strict=True):
            total[key] += cost
        return {key: cost * device.batch / len(self.x) for key, cost in total.items()}

    def trials(self, costs: Mapping[str, float], table: Table, keys: Iterable[str]) -> dict[str, Trial]:
        """What a firmware says of some kernels, with the size of their code."""
        tilings = {key: table.get(key, self.default) for key in keys}
        functions = {key: lowered(replace(self.kernels[key], tiling=own)) for key, own in tilings.items()}
        sizes = code_sizes(self.bundle, functions, self.toolchain)
        return {key: Trial(own, costs[key], sizes[key]) for key, own in tilings.items()}

    def conclude(self, before: Step, standard: Trials, best: Trials, builds: int) -> Tuning:
        """Put the best tilings together; none is kept if the whole step is not faster by them."""
        after = self.step({key: trial.tiling for key, trial in best.items()}) if best else before
        if after.bits != before.bits:
            raise LowerError("a schedule changed a result", do="This is a defect of strop: please report it")
        if after.instructions >= before.instructions:
            best, after = {}, before
        changes = tuple(self._change(key, own, best.get(key, own)) for key, own in standard.items())
        entries = {change.key: self._entry(change) for change in changes}
        return Tuning(before.instructions, after.instructions, builds, changes, entries)

    def _change(self, key: str, own: Trial, best: Trial) -> Change:
        rows = [row for k, row in zip(self.keys, self.bundle.manifest["kernels"], strict=True) if k == key]
        layers = tuple(dict.fromkeys(row["layer"] for row in rows))
        different = {
            field.name: value
            for field in fields(Tiling)
            if (value := getattr(best.tiling, field.name)) != getattr(own.tiling, field.name)
        }
        figures = (own.instructions, best.instructions, own.bytes, best.bytes)
        return Change(key, rows[0]["name"], layers, *figures, different)

    def _entry(self, change: Change) -> Entry | None:
        if not change.tiling:
            return None
        kernel = self.kernels[change.key]
        what = f"{' + '.join(kind for kind, *_ in kernel.steps)} -> {kernel.types[kernel.results[0]]}"
        made_with = f"strop {version('strop')}, {find_toolchain(self.toolchain, self.bundle.board.core).version}"
        return Entry(
            kernel=what, tiling=dict(change.tiling), before=round(change.before, 1), after=round(change.after, 1),
            made_with=made_with,
        )  # fmt: skip


def code_sizes(bundle: "Bundle", functions: Mapping[str, Kernel], toolchain: str) -> dict[str, int]:
    """Bytes of code of each kernel, compiled for the bundle's board as a function of its own."""
    names = {key: f"kernel_{number}" for number, key in enumerate(functions)}
    text = "".join(functions[key].function(name) for key, name in names.items())
    pointers = ", ".join(f"(void (*)(void)){name}" for name in names.values())
    with TemporaryDirectory() as folder:
        source = Path(folder) / "kernels.c"
        headers = vectors(functions.values(), flush=bundle.board.core.flush)
        source.write_text(SIZES.format(headers=headers, functions=text, pointers=pointers))
        files = [source, RUNTIME / "numerics.c"]
        program = build_elf(bundle.board, files, [RUNTIME], Path(folder) / "kernels.elf", [], toolchain)
        with program.open("rb") as stream:
            tables = [part for part in ELFFile(stream).iter_sections() if isinstance(part, SymbolTableSection)]
            sizes = {symbol.name: int(symbol["st_size"]) for part in tables for symbol in part.iter_symbols()}
    return {key: sizes[name] for key, name in names.items()}


SIZES = """#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "numerics.h"
#include "rng.h"
{headers}
{functions}
void (*const volatile kernels[])(void) = {{{pointers}}};

int main(void) {{ return kernels[0] == 0; }}
"""
"""A program that keeps every kernel, none of them inlined."""
