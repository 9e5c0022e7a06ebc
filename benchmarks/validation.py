"""Try the twin's promise on all that strop builds: every rule, network, format and board, through `strop validate`.

    python benchmarks/validation.py rules                      # every rule on six networks and two boards
    python benchmarks/validation.py formats                    # three formats on all emulated boards
    python benchmarks/validation.py rules --only rnn-row,gru-har/dfa,sdfa/qemu-cortex-m4f

Each combination trains a few hundred steps on the board, in the twin and in PyTorch. Finished ones are lines of
validation.jsonl and are not tried again; VALIDATION.md is written from them.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from io import StringIO
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from strop.compiler.rules import rules
from strop.host.cli import run
from strop.host.progress import Terminal

HERE = Path(__file__).parent
LEDGER, REPORT = HERE / "validation.jsonl", HERE / "VALIDATION.md"
MODELS = ("mlp-64-32-10", "cnn-8x8", "digits-cnn", "conv1d-har", "rnn-row", "gru-har")
BOARDS = ("qemu-rv32imf", "qemu-cortex-m4f")
FORMATS = ("float32", "float16", "bfloat16")
FORMAT_BOARDS = (
    "qemu-rv32imf", "qemu-rv32imac", "qemu-cortex-m4f", "qemu-rv32imf-zfh", "qemu-rv32v", "qemu-rv32v256",
    "qemu-cortex-m55", "qemu-cortex-m7", "qemu-rv32imf-smp",
)  # fmt: skip
PATIENCE = "60"
"""Seconds that a board may be silent: emulated without an FPU, a step of ds-cnn takes some."""
MORE = {"sparse": ("--update", "*bias*")}
"""Options that a rule cannot do without."""


@dataclass(frozen=True)
class Trial:
    """One combination."""

    model: str
    rule: str
    board: str
    dtype: str
    steps: int

    @property
    def words(self) -> tuple[str, ...]:
        """The command line."""
        return ("validate", self.model, "--rule", self.rule, "--board", self.board, "--dtype", self.dtype,
                "--steps", str(self.steps), "--timeout", PATIENCE, "--json", *MORE.get(self.rule, ()))  # fmt: skip


def trials(what: str, steps: int) -> Iterator[Trial]:
    """All combinations, board by board, small networks first."""
    if what == "rules":
        for board, model, rule in product(BOARDS, MODELS, sorted(rules())):
            yield Trial(model, rule, board, "float32", steps)
        return
    models, chosen = ("mlp-64-32-10", "cnn-8x8", "digits-cnn", "ds-cnn"), ("backprop", "tpsgd", "mono-forward")
    for model, board, dtype, rule in product(models, FORMAT_BOARDS, FORMATS, chosen):
        yield Trial(model, rule, board, dtype, steps)


def wanted(trial: Trial, only: str) -> bool:
    """Whether `models/rules/boards`, patterns with commas between, has the trial; what is absent stands for all."""
    parts = [*(part or "*" for part in only.split("/")), "*", "*", "*"]
    names = (trial.model, trial.rule, trial.board)
    return all(any(fnmatchcase(name, p) for p in part.split(",")) for name, part in zip(names, parts, strict=False))


def attempt(trial: Trial) -> dict[str, Any]:
    """What `strop validate` says."""
    printed = StringIO()
    with redirect_stdout(printed), TemporaryDirectory() as folder:
        run((*trial.words, "--run-dir", folder))
    document: dict[str, Any] = json.loads(printed.getvalue())
    return document


def read() -> dict[Trial, dict[str, Any]]:
    """All that was tried."""
    if not LEDGER.exists():
        return {}
    rows = [json.loads(line) for line in LEDGER.read_text().splitlines()]
    return {Trial(**trial): result for trial, result in rows}


def cell(result: dict[str, Any]) -> str:
    """A result in a table."""
    if "error" in result:
        return "refused" if result["error"]["kind"] in ("RuleError", "LegalizeError", "PlanError") else "**error**"
    if not result["bits_equal"]:
        return "**differs**"
    return f"{result['torch']['max_rel_error']:.0e}" if result["torch"] else "equal"


def table(found: dict[Trial, dict[str, Any]]) -> list[str]:
    """A table a board and format: rules down, networks across."""
    lines: list[str] = []
    for board, dtype, steps in dict.fromkeys((t.board, t.dtype, t.steps) for t in found):
        here = {(t.rule, t.model): r for t, r in found.items() if (t.board, t.dtype, t.steps) == (board, dtype, steps)}
        models = list(dict.fromkeys(model for _, model in here))
        lines += [f"\n## {board}, {dtype}, {steps} steps\n", f"| rule | {' | '.join(models)} |"]
        lines += ["| --- |" + " --: |" * len(models)]
        for rule in sorted({rule for rule, _ in here}):
            cells = [cell(here[rule, model]) if (rule, model) in here else "–" for model in models]
            lines.append(f"| {rule} | {' | '.join(cells)} |")
    return lines


def report(found: dict[Trial, dict[str, Any]]) -> str:
    """The page."""
    equal = sum(result.get("bits_equal", False) for result in found.values())
    refused = sum(cell(result) == "refused" for result in found.values())
    rest = len(found) - equal - refused
    return "\n".join([
        "# Validation\n",
        "Written by `python benchmarks/validation.py`; every line of it is one run of `strop validate MODEL --rule R"
        " --board B --dtype T --steps N --json`.\n",
        f"**{len(found)} combinations tried: board and twin have the same bits in {equal}, {refused} are refused with a"
        f" reason, {rest} are neither.** A figure is the largest relative error of a step against the rule's float64"
        " reference in PyTorch.",
        *table(found), "",
    ])  # fmt: skip


def main() -> None:
    """Try what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rules", "formats", "report"))
    parser.add_argument("--only", default="", metavar="MODELS/RULES/BOARDS", help="a part, as shell patterns")
    parser.add_argument("--steps", type=int, help="300 for rules, 500 for formats")
    options = parser.parse_args()
    found = read()
    if options.what != "report":
        steps = options.steps or (300 if options.what == "rules" else 500)
        missing = [t for t in trials(options.what, steps) if t not in found and wanted(t, options.only)]
        with Terminal().meter("validate", len(missing)) as meter:
            for trial in missing:
                found[trial] = attempt(trial)
                with LEDGER.open("a") as ledger:
                    ledger.write(json.dumps([asdict(trial), found[trial]]) + "\n")
                meter.advance()
    REPORT.write_text(report(found))
    sys.exit(any(cell(result) in ("**error**", "**differs**") for result in found.values()))


if __name__ == "__main__":
    main()
