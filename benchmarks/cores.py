"""What other formats, vector units and several harts make of a training step: the part of RESULTS.md on cores.

    python benchmarks/cores.py            # what cores.json does not hold yet; a quarter of an hour for all
    python benchmarks/cores.py --again    # all of it
    python benchmarks/cores.py --report   # only write the page again

Writes cores.json beside this file, and RESULTS.md with it.
"""

import argparse
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from measure import SILENCE, Case

import strop
from strop.compiler.bundle import Bundle
from strop.compiler.precision import precision
from strop.host.device import connect
from strop.host.footprint import report
from strop.host.profile import step_costs
from strop.host.progress import Terminal
from strop.host.zoo import MODELS
from strop.targets.board import Board, load_board

HERE = Path(__file__).parent
STORE = HERE / "cores.json"
NETS = ("mlp-784-128-10", "cnn-28x28", "ds-cnn")
CORES = {
    "qemu-rv32imf": "rv32imf", "qemu-rv32imf-zfh": "rv32imf, Zfh", "qemu-rv32v": "vectors, 128 bits",
    "qemu-cortex-m4f": "Cortex-M4F", "qemu-cortex-m55": "Cortex-M55",
}  # fmt: skip
SUMMED = "float16 sums"
FORMATS = ("float32", "float16", SUMMED, "bfloat16")
CLUSTER, TEAMS, SHARED = "qemu-rv32imf-smp", (1, 2, 4, 8), ("ds-cnn", "resnet8")


@dataclass(frozen=True)
class Stored(Case):
    """A net on a board in a format."""

    dtype: str = "float32"

    def build(self, board: Board | None = None) -> Bundle:
        """Compile it: batch 1."""
        model, example = MODELS[self.net]()
        dtype, _, sums = self.dtype.partition(" ")
        policy = precision(dtype, rounding="nearest", sums=dtype if sums else None)
        return strop.build(model, example, rule=self.rule, board=board or self.board, name=self.net, dtype=policy)


def measured(case: Stored, board: Board | None = None) -> dict[str, Any]:
    """Instructions a step, multiply-accumulates, and bytes of RAM by kind."""
    bundle = case.build(board)
    with connect(bundle, timeout=SILENCE) as device:
        instructions = float(np.mean(step_costs(device, *case.samples(bundle))))
    return {
        "net": case.net, "board": case.board, "dtype": case.dtype, "instructions": instructions,
        "macs": sum(kernel["macs"] for kernel in bundle.manifest["kernels"]), "ram": report(bundle).to_json()["ram"],
    }  # fmt: skip


def team(harts: int) -> Board:
    """The cluster with so many harts."""
    board = load_board(CLUSTER)
    assert board.emulator is not None
    args = (*board.emulator.args[:-1], str(harts))
    constants = {**board.constants, "harts": harts}
    return board.model_copy(update={
        "constants": constants, "emulator": board.emulator.model_copy(update={"args": args}),
    })  # fmt: skip


def wanted() -> Iterator[tuple[Stored, int]]:
    """All cases, with the harts of a cluster or 0; sums in float16 where a core computes in it."""
    for net, board, dtype in product(NETS, CORES, FORMATS):
        if dtype != SUMMED or load_board(board).core.tiling.get("halves", 0):
            yield Stored(net, "backprop", board, dtype), 0
    for net, harts in product(SHARED, TEAMS):
        yield Stored(net, "backprop", CLUSTER), harts


def measure(terminal: Terminal, rows: list[dict[str, Any]]) -> None:
    """Add the rows that are missing, and keep each as soon as it is there."""
    known = {(row["net"], row["board"], row["dtype"], row["harts"]) for row in rows}
    missing = [(case, harts) for case, harts in wanted() if (case.net, case.board, case.dtype, harts) not in known]
    with terminal.meter("cores", len(missing)) as meter:
        for case, harts in missing:
            rows.append({**measured(case, team(harts) if harts else None), "harts": harts})
            STORE.write_text(json.dumps(rows, indent=1) + "\n")
            meter.advance()


TEXT = """One training step by backprop, as above, with all tensors stored in a format (`--dtype`, `--rounding
nearest`). Sums are float32, but for **sums too**, which is `--sums float16` on cores that compute in it. In
parentheses: how many times fewer than in float32 on the same core. A vector instruction counts as one, so this says how
much is issued, not how long a core takes over it.
"""

HARTS = """`qemu-rv32imf-smp`, float32: instructions of the slowest hart. The bits do not depend on the number of harts.
"""

PAPER = """The work on reduced-precision training on RISC-V clusters (PULP-TrainLib) reports, for eight cores with
packed float16 and hardware loops, the first column. The second is what strop measures.

| what | reported | strop | comparable? |
| --- | --- | --- | --- |
| float16 against float32 | up to 1.72 times faster, a convolution | {conv} times fewer, ds-cnn | partly (1) |
| eight cores against one | eight used throughout | {speedup} times fewer, resnet8 | as instructions |
| ResNet8, a step | 3.11 MAC a cycle, float16 | {resnet} MAC an instruction, float32 | no (2) |
| DS-CNN, a step | 0.81 MAC a cycle, float16 | {dscnn} MAC an instruction, float32 | no (2) |

1. Theirs are cycles with pairs of halves in one register; ours are instructions with vectors of 128 bits, sums of up to
   32 terms in float16.
2. Ours counts instructions of the slowest of eight harts. Instructions are no cycles: a single-issue core stalls some
   10 % of them (see above), and these have no hardware loops.
"""


def section(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The part of RESULTS.md."""
    return ["## Formats and cores\n", TEXT, *_formats(found), "", "### Harts\n", HARTS, *_harts(found), "",
            "### Beside the paper\n", _paper(found)]  # fmt: skip


def _formats(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| net | core | float32 | float16 | sums too | bfloat16 | RAM float32 | float16 |"
    yield "| --- | --- |" + " ---: |" * 6
    for net, board in product(NETS, CORES):
        rows = [_row(found, net, board, dtype) for dtype in FORMATS]
        full, half = (rows[FORMATS.index(dtype)] for dtype in ("float32", "float16"))
        if full and half:
            ram = " | ".join(f"{row['ram']['total']:,}" for row in (full, half))
            yield f"| {net} | {CORES[board]} | {' | '.join(_cost(row, full) for row in rows)} | {ram} |"


def _cost(row: Mapping[str, Any] | None, full: Mapping[str, Any]) -> str:
    if row is None:
        return "–"
    fewer = f" ({full['instructions'] / row['instructions']:.2f})" if row is not full else ""
    return f"{row['instructions']:,.0f}{fewer}"


def _row(
    found: Sequence[Mapping[str, Any]], net: str, board: str, dtype: str = "float32", harts: int = 0
) -> Mapping[str, Any] | None:
    wanted = (net, board, dtype, harts)
    return next((r for r in found if (r["net"], r["board"], r["dtype"], r["harts"]) == wanted), None)


def _harts(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"| net | {' | '.join(f'harts: {n}' for n in TEAMS)} | times fewer |"
    yield "| --- |" + " ---: |" * (len(TEAMS) + 1)
    for net in SHARED:
        costs = [_team(found, net, harts)["instructions"] for harts in TEAMS]
        yield f"| {net} | {' | '.join(f'{c:,.0f}' for c in costs)} | {costs[0] / costs[-1]:.2f} |"


def _team(found: Sequence[Mapping[str, Any]], net: str, harts: int) -> Mapping[str, Any]:
    row = _row(found, net, CLUSTER, harts=harts)
    assert row is not None, f"{net} has not been measured on {harts} harts"
    return row


def _paper(found: Sequence[Mapping[str, Any]]) -> str:
    full, half = (_row(found, "ds-cnn", "qemu-rv32v", dtype) for dtype in ("float32", SUMMED))
    assert full is not None and half is not None
    last = {net: _team(found, net, 8) for net in SHARED}
    return PAPER.format(
        conv=f"{full['instructions'] / half['instructions']:.2f}",
        speedup=f"{_team(found, 'resnet8', 1)['instructions'] / last['resnet8']['instructions']:.2f}",
        resnet=f"{last['resnet8']['macs'] / last['resnet8']['instructions']:.2f}",
        dscnn=f"{last['ds-cnn']['macs'] / last['ds-cnn']['instructions']:.2f}",
    )


def main() -> None:
    """Measure and write."""
    from results import write

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="measure all of it again")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="torch")
    if not options.report:
        measure(Terminal(), json.loads(STORE.read_text()) if STORE.exists() and not options.again else [])
    write()


if __name__ == "__main__":
    main()
