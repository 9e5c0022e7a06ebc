"""Train every network by every rule through the twin, and write what came out.

    python benchmarks/accuracy/study.py                       # about an hour on two cores
    python benchmarks/accuracy/study.py --only conv,vgg/tps*  # networks, rules or both, by shell patterns
    python benchmarks/accuracy/study.py --report              # only write tables and plots again

Writes benchmarks/ACCURACY.md, accuracy.json beside this file, and plots into docs. Every finished job is a line of
runs.jsonl, and what is there is not measured again. Networks, rules and budgets are in tables.py.
"""

import argparse
import json
import os
import warnings
from pathlib import Path

import plots
import samples
import tables
from jobs import DATA, data_folder, split
from ledger import Job, Ledger, Work, workers
from plan import fits, phases
from summary import courses, lines
from writing import document

from strop.host.progress import Terminal

HERE = Path(__file__).parent


def study(ledger: Ledger, only: str, jobs: int, terminal: Terminal) -> None:
    """Do all that is missing. only: `networks/rules`, shell patterns; an absent half stands for all."""
    wanted, _, rule = only.partition("/")
    with workers(jobs) as each:
        for net in (name for name in tables.NETS if fits(name, wanted or "*")):
            if _available(net, terminal):
                for title, wishes in phases(net, rule or "*", ledger):
                    _fill(ledger, [job for job in wishes if job], each, f"{net}, {title}", terminal)


def _fill(ledger: Ledger, jobs: list[Job], each: Work, title: str, terminal: Terminal) -> None:
    missing = [job for job in dict.fromkeys(jobs) if ledger.get(job) is None]
    if not missing:
        return
    with terminal.meter(title, len(missing)) as meter:
        for job, result in each(missing):
            ledger.add(job, result)
            meter.advance()


def _available(net: str, terminal: Terminal) -> bool:
    """Whether the network's data is there; says so if not."""
    try:
        split(tables.NETS[net].data, data_folder(), 0)
    except samples.Missing as error:
        terminal.note(f"{net} is left out: there is no {error}.")
        return False
    return True


def write(ledger: Ledger, root: Path) -> None:
    """Write tables and plots under the project's root, from what was measured."""
    found = {net: there for net in tables.NETS if (there := lines(ledger, net))}
    people = {net: courses(ledger, net) for net in found}
    memory = HERE / "memory.json"
    depth = json.loads(memory.read_text()) if memory.exists() else []
    (root / "benchmarks" / "ACCURACY.md").write_text(document(found, people, depth, ledger.minutes()))
    everything = {
        "rules": [line.to_json() for there in found.values() for line in there],
        "new people": [course.to_json() for there in people.values() for course in there],
        "memory": depth,
    }
    (root / "benchmarks" / "accuracy" / "accuracy.json").write_text(json.dumps(everything, indent=1) + "\n")
    docs = root / "docs"
    plots.by_rule(found, docs / "accuracy-by-rule.png")
    plots.against_ram(found, docs / "accuracy-against-ram.png")
    if any(people.values()):
        plots.adaptation(people, docs / "adaptation.png")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--only", default="", metavar="NETS/RULES", help="a part of the study, as shell patterns")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--runs", type=Path, default=HERE / "runs.jsonl", help="where finished jobs are kept")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="torch")
    if options.data:
        os.environ[DATA] = str(options.data.resolve())
    ledger = Ledger(options.runs)
    if not options.report:
        study(ledger, options.only, options.jobs, Terminal())
    write(ledger, HERE.parents[1])


if __name__ == "__main__":
    main()
