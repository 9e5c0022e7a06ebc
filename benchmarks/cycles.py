"""Cycles of single layers on a single-issue core in order, from the instructions that QEMU executes.

    python benchmarks/cycles.py [LAYER…]    # layers whose name begins with one of these; all of host/layers.py if none

The core is of the class of PULP's RI5CY with its FPU, without its own instructions. Its rules: every instruction takes
one cycle, memory answers in one; an instruction that reads what the one before it loads waits one more; a branch that
is taken, and a jump, take three. (Divisions and roots count as one cycle too: no layer's loops hold any.)
"""

import argparse
import os
import re
import subprocess
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import capstone
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from goals import RV32

from strop.compiler.bundle import Bundle
from strop.compiler.kernels import kernel_runs
from strop.host.firmware import sources
from strop.host.flash.qemu import QemuRunner
from strop.host.layers import Layer, is_last_layer, layer_bundle, nets, step_of
from strop.targets.flow import Insn
from strop.targets.flow_riscv32 import MODES
from strop.targets.toolchain import FIRMWARE, RUNTIME, build_elf

STALL, TAKEN = 1, 2
"""Cycles beyond the first: of an instruction right behind the load it reads, and of a branch taken or a jump."""

LOADS = frozenset({"lb", "lbu", "lh", "lhu", "lw", "lwsp", "flw", "flwsp"})
NO_RESULT = frozenset({"sb", "sh", "sw", "swsp", "fsw", "fswsp", "beq", "bne", "blt", "bge", "bltu", "bgeu"})
NO_RESULT |= {f"{name}z" for name in ("beq", "bne", "blt", "bge", "bgt", "ble")}
IN_PLACE = frozenset({"add", "sub", "and", "or", "xor", "addi", "andi", "slli", "srli", "srai", "addi16sp"})
"""Compressed instructions with two operands that read the first as well."""

TRACED = re.compile(rb"/([0-9a-f]{8})/[0-9a-f]+/[0-9a-f]+\]")
"""The program counter in a line of QEMU's `-d exec`."""


@dataclass(frozen=True)
class Cycles:
    """One step of a layer, as in `strop.host.layers`. stalls: cycles lost behind loads.  taken: to branches."""

    layer: str
    step: str
    macs: int
    instructions: int
    stalls: int
    taken: int

    @property
    def cycles(self) -> int:
        """All of them."""
        return self.instructions + self.stalls + self.taken

    def to_json(self) -> dict[str, Any]:
        """As it stands in results.json."""
        return {**asdict(self), "cycles": self.cycles, "macs_per_cycle": self.macs / self.cycles}


def layer_cycles(only: Iterable[str] = ()) -> list[Cycles]:
    """Every step of the layers whose name begins with one of `only`, or of all."""
    found: dict[tuple[str, str], Cycles] = {}
    for layer, front in nets():
        if not only or layer.name.startswith(tuple(only)):
            for cost in net_cycles(layer, layer_bundle(layer, front, RV32)):
                found.setdefault((cost.layer, cost.step), cost)
    return list(found.values())


def net_cycles(layer: Layer, bundle: Bundle) -> Iterator[Cycles]:
    """The steps of the last layer of a net."""
    ops = [op for op, _ in kernel_runs(bundle.program.train_step)]
    with TemporaryDirectory(prefix="strop-cycles-") as folder:
        elf = program(bundle, Path(folder) / "net.elf")
        code, counter = disassembled(elf)
        runs = kernels(traced(bundle, elf, Path(folder) / "trace"), counter)
        for op, row, pairs in zip(ops, bundle.manifest["kernels"], runs, strict=False):
            if row["macs"] and is_last_layer(bundle, row["layer"]):
                yield Cycles(layer.name, step_of(op), row["macs"], *count(pairs, code))


def program(bundle: Bundle, out: Path) -> Path:
    """A program that takes one training step and ends, with a call of the counter before and after every kernel."""
    folder = sources(bundle)
    files = [folder / "strop_model.c", RUNTIME / "numerics.c", FIRMWARE / "library.c"]
    return build_elf(bundle.board, files, [folder, RUNTIME], out, ["STROP_COUNT_KERNELS"])


def disassembled(elf: Path) -> tuple[dict[int, Insn], int]:
    """(instructions by address, address of the function that reads the counter)."""
    with elf.open("rb") as stream:
        file = ELFFile(stream)
        text = [part for part in file.iter_sections() if part["sh_flags"] & SH_FLAGS.SHF_EXECINSTR]
        lines = [line for part in text for line in capstone.Cs(*MODES).disasm(part.data(), part["sh_addr"])]
        (counter,) = file.get_section_by_name(".symtab").get_symbol_by_name("strop_port_counter")
        code = {line.address: Insn(line.address, line.size, line.mnemonic, line.op_str) for line in lines}
        return code, int(counter["st_value"])


def traced(bundle: Bundle, elf: Path, pipe: Path) -> Iterator[int]:
    """Address of every instruction that a run executes, in order."""
    assert bundle.board.emulator
    os.mkfifo(pipe)
    command = [*QemuRunner(bundle.board.emulator).command(elf), "-singlestep", "-d", "exec,nochain", "-D", str(pipe)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as qemu, pipe.open("rb") as log:
        yield from (int(found[1], 16) for line in log if (found := TRACED.search(line)))
    assert qemu.returncode in (0, 1), "0 or 1 is what the program returns"


Pairs = Counter[tuple[int, int]]


def kernels(trace: Iterator[int], counter: int) -> Iterator[Pairs]:
    """Pairs of consecutive addresses of each kernel: what lies between two calls of the counter, every other time."""
    calls = 0
    seen: list[int] = []
    for address in trace:
        if address == counter:
            calls += 1
            if calls % 2 == 0:
                yield Counter(pairwise(seen))
            seen = []
        elif calls % 2:
            seen.append(address)


def count(pairs: Pairs, code: Mapping[int, Insn]) -> tuple[int, int, int]:
    """(instructions, cycles lost behind loads, cycles lost to branches) of the second of each pair of addresses."""
    stalls = sum(times for (one, two), times in pairs.items() if loaded(code[one]) in read(code[two]))
    taken = sum(times for (one, two), times in pairs.items() if two != one + code[one].size)
    return pairs.total(), STALL * stalls, TAKEN * taken


def loaded(insn: Insn) -> str | None:
    """The register that an instruction loads."""
    return _operands(insn)[0] if insn.name.removeprefix("c.") in LOADS else None


def read(insn: Insn) -> list[str]:
    """The registers that an instruction reads."""
    name, operands = insn.name.removeprefix("c."), _operands(insn)
    in_place = insn.name.startswith("c.") and name in IN_PLACE
    return operands if in_place or name in NO_RESULT else operands[1:]


def _operands(insn: Insn) -> list[str]:
    """Registers and numbers of an instruction, `8(a0)` as two of them."""
    return re.findall(r"[\w-]+", insn.operands)


def main() -> None:
    """Print a line a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", nargs="*", metavar="LAYER")
    warnings.filterwarnings("ignore", module="torch")
    for cost in layer_cycles(parser.parse_args().layers):
        each = (part / cost.macs for part in (cost.instructions, cost.stalls, cost.taken, cost.cycles))
        print(f"{cost.layer:33} {cost.step:36}", *(f"{part:6.3f}" for part in each), f"{cost.macs / cost.cycles:6.3f}")


if __name__ == "__main__":
    main()
