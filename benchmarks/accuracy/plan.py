"""Which jobs a study has: settings of a rule are tried, the network trained with the best, its cost measured.

Short runs try the grid. They favour high rates and strengths, at which a long run may get stuck or collapse, so they
only say where to begin: from their best, runs of full length go on to milder settings as long as validation samples
gain by it. One seed's collapse counts, since images' runs decide together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import tables
from jobs import Adapting, Check, Cost, Peer, Setting, Training
from ledger import Job, Ledger

from strop.compiler.rules import rules

SEEDS = (0, 1, 2)

Choice = tuple[float, Setting]
"""A learning rate and the rest."""


@dataclass(frozen=True)
class Entry:
    """A row of the table of rules, on a network with one activation."""

    net: str
    row: str
    activation: str

    @property
    def table(self) -> tables.Row:
        """The rule's line."""
        return tables.ROWS[self.row]

    @property
    def budget(self) -> tables.Budget:
        """The network's budget."""
        return tables.NETS[self.net].budget

    def settings(self) -> list[Choice]:
        """What short runs try."""
        return [self._choice(*each) for each in self.table.variants()]

    def _choice(self, lr: float, options: tables.Settings) -> Choice:
        return lr, Setting(self.net, self.activation, self.table.rule, options)

    def check(self) -> Check:
        """Whether the rule may train the network."""
        return Check(**_of(self.settings()[0][1]))

    def short(self, choice: Choice, seed: int) -> Training:
        """A short run, measured on validation samples."""
        return self._run(choice, seed, self.budget.tuning, self.budget.tuning_epochs, ("validation",))

    def full(self, choice: Choice, seed: int) -> Training:
        """A run whose validation score may choose it, and whose test score counts then."""
        return self._run(choice, seed, self.budget.samples, self.budget.epochs, ("validation", "test"))

    def _run(self, choice: Choice, seed: int, samples: int, epochs: int, parts: tuple[str, ...]) -> Training:
        lr, setting = choice
        return Training(**_of(setting), lr=lr, seed=seed, samples=samples, epochs=epochs, parts=parts)

    def judges(self, seed: int) -> tuple[int, ...]:
        """The seeds that choose for this one: all; of people, it alone, so that nobody decides about himself."""
        return SEEDS if tables.NETS[self.net].data == "images" else (seed,)

    def begin(self, ledger: Ledger, seed: int) -> Choice | None:
        """The setting with the best short run of the first judge; None if none was measured."""
        scored = [(ledger.get(self.short(each, self.judges(seed)[0])), each) for each in self.settings()]
        measured = [(found["validation"], each) for found, each in scored if found]
        return max(measured, key=lambda each: each[0])[1] if measured else None

    def walk(self, ledger: Ledger, seed: int) -> list[Choice]:
        """Settings that are trained in full: on from the first, as long as a milder one is better."""
        if not (best := self.begin(ledger, seed)):
            return []
        tried = [best]
        while self._judged(ledger, best, seed) >= 0:
            new = [each for each in self._milder(best) if each not in tried]
            if not new:
                break
            tried += new
            best = max(tried, key=lambda each: self._judged(ledger, each, seed))
        return tried

    def _milder(self, choice: Choice) -> list[Choice]:
        return [self._choice(*each) for each in self.table.milder(choice[0], choice[1].options)]

    def _judged(self, ledger: Ledger, choice: Choice, seed: int) -> float:
        """Mean validation score of the judges' full runs; -1 if one is missing."""
        found = [ledger.get(self.full(choice, judge)) for judge in self.judges(seed)]
        return sum(each["validation"] for each in found if each) / len(found) if all(found) else -1

    def chosen(self, ledger: Ledger, seed: int) -> Choice | None:
        """The setting with the best validation score of full runs; None if there is none."""
        best = max(self.walk(ledger, seed), key=lambda each: self._judged(ledger, each, seed), default=None)
        return best if best and self._judged(ledger, best, seed) >= 0 else None

    def training(self, ledger: Ledger, seed: int) -> Training | None:
        """The run whose test score counts."""
        best = self.chosen(ledger, seed)
        return self.full(best, seed) if best else None

    def cost(self, ledger: Ledger) -> Cost | None:
        """The measurement on the board."""
        best = self.chosen(ledger, 0)
        return Cost(**_of(best[1])) if best else None

    def peer(self, ledger: Ledger) -> Peer | None:
        """The comparison with PyTorch."""
        best = self.chosen(ledger, 0)
        return Peer(**_of(best[1]), lr=best[0], seed=0, samples=self.budget.peer) if best else None


def _of(setting: Setting) -> dict[str, object]:
    return {name: getattr(setting, name) for name in ("net", "activation", "rule", "options")}


def entries(net: str, only: str = "*") -> list[Entry]:
    """The rows that are studied on a network, of rules that strop has. only: shell patterns with commas between."""
    wanted = [name for name, row in tables.ROWS.items() if row.rule in rules() and fits(name, only)]
    return [Entry(net, name, each) for name in wanted for each in tables.ROWS[name].on(tables.NETS[net])]


def fits(name: str, only: str) -> bool:
    """Whether one of the patterns fits a name."""
    return any(fnmatchcase(name, pattern) for pattern in only.split(","))


def adapting(ledger: Ledger, net: str, way: tables.Way, seed: int) -> Adapting | None:
    """New people on a network, with the settings that were chosen for the two rules."""
    first, then = (_first(net, name) for name in (way.before, way.by))
    if not (first and then and (before := first.training(ledger, seed)) and (by := then.chosen(ledger, seed))):
        return None
    return Adapting(
        **_of(before), lr=before.lr, seed=seed, samples=before.samples, epochs=before.epochs, by=by[1].rule,
        by_options=by[1].options, lrs=way.lrs, labelled=tables.LABELLED, passes=tables.PASSES,
    )  # fmt: skip


def _first(net: str, name: str) -> Entry | None:
    return next(iter(entries(net, name)), None)


def _wanted(row: Entry, ledger: Ledger) -> Iterator[Job]:
    """The full runs that are known to be needed so far."""
    for seed in SEEDS:
        for choice in row.walk(ledger, seed):
            yield from (row.full(choice, judge) for judge in row.judges(seed))


def phases(net: str, only: str, ledger: Ledger) -> Iterator[tuple[str, list[Job | None]]]:
    """The jobs of a network, in the order in which each needs the results of those before."""
    rows = entries(net, only)
    yield "may it", [row.check() for row in rows]
    rows = [row for row in rows if ledger.get(row.check()) is not None]
    judges = {row: sorted({row.judges(seed)[0] for seed in SEEDS}) for row in rows}
    yield "short runs", [row.short(each, seed) for row in rows for each in row.settings() for seed in judges[row]]
    known: set[Job] = set()
    while wishes := dict.fromkeys(job for row in rows for job in _wanted(row, ledger) if job not in known):
        known.update(wishes)
        yield "training", list(wishes)
    yield "board", [row.cost(ledger) for row in rows]
    yield "PyTorch", [row.peer(ledger) for row in rows]
    if tables.NETS[net].data != "images":
        ways = [way for way in tables.WAYS if fits(way.by, only)]
        yield "new people", [adapting(ledger, net, way, seed) for way in ways for seed in SEEDS]
