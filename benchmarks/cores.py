"""What other formats, vector units and several harts make of a training step: the part of RESULTS.md on cores.

    python benchmarks/cores.py            # a few minutes
    python benchmarks/cores.py --report   # only write the page again

Writes cores.json beside this file, and RESULTS.md with it.
"""

import argparse
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
FORMATS = ("float32", "float16", "bfloat16")
CLUSTER, TEAMS, SHARED = "qemu-rv32imf-smp", (1, 2, 4, 8), ("ds-cnn", "resnet8")


@dataclass(frozen=True)
class Stored(Case):
    """A net on a board in a format."""

    dtype: str = "float32"

    def build(self, board: Board | None = None) -> Bundle:
        """Compile it: batch 1."""
        model, example = MODELS[self.net]()
        policy = precision(self.dtype, rounding="nearest")
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


def measure(terminal: Terminal) -> dict[str, Any]:
    """All rows."""
    cases = [Stored(net, "backprop", board, dtype) for net in NETS for board in CORES for dtype in FORMATS]
    teams = [(Stored(net, "backprop", CLUSTER), harts) for net in SHARED for harts in TEAMS]
    with terminal.meter("cores", len(cases) + len(teams)) as meter:
        return {
            "formats": [_counted(measured(case), meter) for case in cases],
            "harts": [{**_counted(measured(case, team(harts)), meter), "harts": harts} for case, harts in teams],
        }


def _counted(found: dict[str, Any], meter: Any) -> dict[str, Any]:
    meter.advance()
    return found


TEXT = """One training step by backprop, as above, with all tensors stored in a format (`--dtype`, `--rounding
nearest`) and every sum in float32. **Against float32** is on the same core. A vector
instruction counts as one, so this says how much is issued, not how long a core takes over it.
"""

HARTS = """`qemu-rv32imf-smp`, float32: instructions of the slowest hart. The bits do not depend on the number of harts.
"""

PAPER = """The work on reduced-precision training on RISC-V clusters (PULP-TrainLib) reports, for eight cores with
packed float16 and hardware loops, the first column. The second is what strop measures.

| what | reported | strop | comparable? |
| --- | --- | --- | --- |
| float16 against float32 | up to 1.72 times faster, a convolution | {conv} times fewer | partly (1) |
| eight cores against one | eight used throughout | {speedup} times fewer, resnet8 | as instructions |
| ResNet8, a step | 3.11 MAC a cycle, float16 | {resnet} MAC an instruction, float32 | no (2) |
| DS-CNN, a step | 0.81 MAC a cycle, float16 | {dscnn} MAC an instruction, float32 | no (2) |

1. Theirs are cycles with pairs of halves in one register; ours are instructions of cnn-28x28 with vectors of 128 bits,
   float16 stored, sums in float32.
2. Ours counts instructions of the slowest of eight harts. Instructions are no cycles: a single-issue core stalls some
   10 % of them (see above), and these have no hardware loops.
"""


def section(found: Mapping[str, Any]) -> list[str]:
    """The part of RESULTS.md."""
    return ["## Formats and cores\n", TEXT, *_formats(found), "", "### Harts\n", HARTS, *_harts(found), "",
            "### Beside the paper\n", _paper(found)]  # fmt: skip


def _formats(found: Mapping[str, Any]) -> Iterator[str]:
    rows = {(row["net"], row["board"], row["dtype"]): row for row in found["formats"]}
    yield "| net | core | float32 | float16 | against float32 | bfloat16 | against float32 | RAM float32 | float16 |"
    yield "| --- | --- |" + " ---: |" * 7
    for net in NETS:
        for board, core in CORES.items():
            full, half, brain = (rows[net, board, dtype] for dtype in FORMATS)
            costs = [row["instructions"] for row in (full, half, brain)]
            cells = [f"{costs[0]:,.0f}", *(f"{c:,.0f} | {c / costs[0]:.2f}" for c in costs[1:])]
            yield f"| {net} | {core} | {' | '.join(cells)} | {full['ram']['total']:,} | {half['ram']['total']:,} |"


def _harts(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"| net | {' | '.join(f'harts: {n}' for n in TEAMS)} | times fewer |"
    yield "| --- |" + " ---: |" * (len(TEAMS) + 1)
    for net in SHARED:
        costs = [_team(found, net, harts)["instructions"] for harts in TEAMS]
        yield f"| {net} | {' | '.join(f'{c:,.0f}' for c in costs)} | {costs[0] / costs[-1]:.2f} |"


def _team(found: Mapping[str, Any], net: str, harts: int) -> Mapping[str, Any]:
    row: Mapping[str, Any] = next(r for r in found["harts"] if (r["net"], r["harts"]) == (net, harts))
    return row


def _paper(found: Mapping[str, Any]) -> str:
    rows = {(row["net"], row["board"], row["dtype"]): row["instructions"] for row in found["formats"]}
    last = {net: _team(found, net, 8) for net in SHARED}
    return PAPER.format(
        conv=f"{rows['cnn-28x28', 'qemu-rv32v', 'float32'] / rows['cnn-28x28', 'qemu-rv32v', 'float16']:.2f}",
        speedup=f"{_team(found, 'resnet8', 1)['instructions'] / last['resnet8']['instructions']:.2f}",
        resnet=f"{last['resnet8']['macs'] / last['resnet8']['instructions']:.2f}",
        dscnn=f"{last['ds-cnn']['macs'] / last['ds-cnn']['instructions']:.2f}",
    )


def main() -> None:
    """Measure and write."""
    from results import write

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="measure nothing")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="torch")
    if not options.report:
        STORE.write_text(json.dumps(measure(Terminal()), indent=1) + "\n")
    write()


if __name__ == "__main__":
    main()
