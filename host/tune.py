"""The search for faster schedules: candidates that give other C, measured on the board, chosen by speed and size.

Costs are counted by kernel, so one firmware tries a candidate of every kernel at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, fields, replace
from functools import cached_property, partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from elftools.elf.elffile import ELFFile
from numpy.typing import NDArray

from strop.compiler.emit import Emitter
from strop.compiler.ir import Op
from strop.compiler.kernels import Kernel, KernelSpec, kernel_spec, lower, lowered, needs_code
from strop.compiler.passes.tuned import Entry, Schedules, schedule_key, tuned
from strop.compiler.schedules import Tiling
from strop.errors import LowerError, ToolchainError
from strop.host.profile import Profile, profile
from strop.host.session import Session
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
    "depth": (1, 2, 4, 8, 16, 32),
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
    toolchain: str = "zig", on_build: Callable[[], None] = lambda: None,
) -> Tuning:  # fmt: skip
    """Search the schedules of a bundle's training step on its board.

    bundle: built without schedules.  x, y: data of some steps, the same for every candidate.  open_device: opens the
    board with a bundle, instrumented if told so.  budget: firmwares to try.  known: what was found before; it is tried
    first.  on_build: called after each firmware.
    Raises UsageError for a board that counts nothing. Candidates too large for the board are passed over.
    """
    bench = Bench(bundle, x, y, open_device, toolchain)
    base = bench.profile({})
    on_build()
    own = bench.by_kernel(base)
    searched = {key: bench.kernels[key] for key, cost in own.items() if cost >= SHARE * base.instructions_per_step}
    earlier = (known or Schedules()).table(bundle.board.isa, bench.default)
    trials = {key: [trial] for key, trial in bench.trials(own, {}, searched).items()}
    searches = {key: variants(spec, earlier.get(key, bench.default)) for key, spec in searched.items()}
    builds = 0
    while builds < budget and (table := _next(searches)):
        with suppress(ToolchainError):
            for key, trial in bench.trials(bench.costs(table), table, table).items():
                trials[key].append(trial)
        builds += 1
        on_build()
    best = {key: choose(tried[0], tried[1:]) for key, tried in trials.items()}
    return bench.conclude(base, {key: (tried[0], best[key]) for key, tried in trials.items()}, builds)


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


def choose(own: Trial, others: Iterable[Trial]) -> Trial:
    """The fastest that earns its size: from the shortest up, each must repay what it is longer than the best so far."""
    best = own
    for trial in sorted(others, key=lambda trial: (trial.bytes, trial.instructions, astuple(trial.tiling))):
        gain, growth = 1 - trial.instructions / best.instructions, trial.bytes / best.bytes - 1
        if gain > 0 and gain >= WORTH * growth:
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
        return Tiling(core.accumulators, core.unroll)

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
        return [op for op in self.bundle.program.train_step if needs_code(op)]

    def _spec(self, op: Op) -> KernelSpec:
        return kernel_spec(self.bundle.program, op, self.default)

    def retiled(self, table: Table) -> "Bundle":
        """The bundle with other tilings; memory stays as it was planned."""
        program = tuned(self.bundle.program, self.default, table)
        files = Emitter(program, self.bundle.plan, lower(program, self.default)).files()
        return replace(self.bundle, program=program, files=files)

    def profile(self, table: Table) -> Profile:
        """Run it twice, without and with counters."""
        bundle = self.retiled(table)
        return profile(bundle, self.x, self.y, partial(self.open_device, bundle))

    def costs(self, table: Table) -> dict[str, float]:
        """Instructions a step of each kernel, by one firmware with counters."""
        with self.open_device(self.retiled(table), True) as device:
            device.train(self.x, self.y)
            assert isinstance(device.backend, Session)
            return self._summed(cost * device.batch / len(self.x) for cost in device.backend.profile())

    def by_kernel(self, measured: Profile) -> dict[str, float]:
        """Instructions a step of each kernel, from a profile."""
        return self._summed(row.instructions for row in measured.kernels)

    def _summed(self, costs: Iterable[float]) -> dict[str, float]:
        total = dict.fromkeys(self.keys, 0.0)
        for key, cost in zip(self.keys, costs, strict=True):
            total[key] += cost
        return total

    def trials(self, costs: Mapping[str, float], table: Table, keys: Iterable[str]) -> dict[str, Trial]:
        """What a firmware says of some kernels, with the size of their code."""
        tilings = {key: table.get(key, self.default) for key in keys}
        functions = {key: lowered(replace(self.kernels[key], tiling=own)) for key, own in tilings.items()}
        sizes = code_sizes(self.bundle, functions, self.toolchain)
        return {key: Trial(own, costs[key], sizes[key]) for key, own in tilings.items()}

    def conclude(self, base: Profile, found: Mapping[str, tuple[Trial, Trial]], builds: int) -> Tuning:
        """Put the best tilings together; none is kept if the whole step is not faster by them."""
        table = {key: best.tiling for key, (own, best) in found.items() if best is not own}
        last = self.profile(table) if table else base
        if last.instructions_per_step >= base.instructions_per_step:
            table, last = {}, base
            found = {key: (own, own) for key, (own, _) in found.items()}
        after = self.by_kernel(last)
        changes = tuple(self._change(key, own, best, after[key]) for key, (own, best) in found.items())
        entries = {change.key: self._entry(change) for change in changes}
        return Tuning(base.instructions_per_step, last.instructions_per_step, builds, changes, entries)

    def _change(self, key: str, own: Trial, best: Trial, after: float) -> Change:
        rows = [row for k, row in zip(self.keys, self.bundle.manifest["kernels"], strict=True) if k == key]
        layers = tuple(dict.fromkeys(row["layer"] for row in rows))
        different = {
            field.name: value
            for field in fields(Tiling)
            if (value := getattr(best.tiling, field.name)) != getattr(own.tiling, field.name)
        }
        return Change(key, rows[0]["name"], layers, own.instructions, after, own.bytes, best.bytes, different)

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
        source.write_text(SIZES.format(functions=text, pointers=pointers))
        files = [source, RUNTIME / "numerics.c"]
        program = build_elf(bundle.board, files, [RUNTIME], Path(folder) / "kernels.elf", [], toolchain)
        with program.open("rb") as stream:
            symbols = list(ELFFile(stream).get_section_by_name(".symtab").iter_symbols())
    sizes = {symbol.name: int(symbol["st_size"]) for symbol in symbols}
    return {key: sizes[name] for key, name in names.items()}


SIZES = """#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "numerics.h"
#include "rng.h"

{functions}
void (*const volatile kernels[])(void) = {{{pointers}}};

int main(void) {{ return kernels[0] == 0; }}
"""
"""A program that keeps every kernel, none of them inlined."""
