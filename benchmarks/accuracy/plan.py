"""Which jobs a study has: every setting of a rule is tried, the network trained with the best, its cost measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import tables
from jobs import Adapting, Check, Cost, Peer, Setting, Training
from ledger import Job, Ledger

from strop.compiler.rules import rules

SEEDS = (0, 1, 2)


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

    def settings(self) -> list[tuple[float, Setting]]:
        """Every learning rate and setting that is tried."""
        return [
            (lr, Setting(self.net, self.activation, self.table.rule, options)) for lr, options in self.table.variants()
        ]

    def check(self) -> Check:
        """Whether the rule may train the network."""
        return Check(**_of(self.settings()[0][1]))

    def tuning(self, lr: float, setting: Setting, seed: int) -> Training:
        """A short run, measured on validation samples."""
        return Training(**_of(setting), lr=lr, seed=self.tuned_on(seed), samples=self.budget.tuning, epochs=1,
                        part="validation")  # fmt: skip

    def tuned_on(self, seed: int) -> int:
        """The seed whose runs decide: of people, each split's own, so that nobody decides about himself."""
        return 0 if tables.NETS[self.net].data == "images" else seed

    def chosen(self, ledger: Ledger, seed: int) -> tuple[float, Setting] | None:
        """The setting with the best validation score; None if none was measured."""
        scored = [(ledger.get(self.tuning(lr, setting, seed)), lr, setting) for lr, setting in self.settings()]
        measured = [(found["score"], lr, setting) for found, lr, setting in scored if found]
        return max(measured, key=lambda each: each[0])[1:] if measured else None

    def training(self, ledger: Ledger, seed: int) -> Training | None:
        """The run whose test score counts."""
        if not (best := self.chosen(ledger, seed)):
            return None
        lr, setting = best
        return Training(**_of(setting), lr=lr, seed=seed, samples=self.budget.samples, epochs=self.budget.epochs,
                        part="test")  # fmt: skip

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


def phases(net: str, only: str, ledger: Ledger) -> Iterator[tuple[str, list[Job | None]]]:
    """The jobs of a network, in the order in which each needs the results of those before."""
    rows = entries(net, only)
    yield "may it", [row.check() for row in rows]
    rows = [row for row in rows if ledger.get(row.check()) is not None]
    seeds = sorted({row.tuned_on(seed) for row in rows for seed in SEEDS})
    yield "settings", [row.tuning(*each, seed) for row in rows for each in row.settings() for seed in seeds]
    yield "training", [row.training(ledger, seed) for row in rows for seed in SEEDS]
    yield "board", [row.cost(ledger) for row in rows]
    yield "PyTorch", [row.peer(ledger) for row in rows]
    if tables.NETS[net].data != "images":
        ways = [way for way in tables.WAYS if fits(way.by, only)]
        yield "new people", [adapting(ledger, net, way, seed) for way in ways for seed in SEEDS]
