"""What a build yields: generated C, initial parameters, and a manifest; the same bytes for the same input."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from strop.compiler.emit import Emitter
from strop.compiler.ir import Program, Role, digest, flatten
from strop.compiler.plan import Plan

if TYPE_CHECKING:
    from torch import nn

    from strop.host.device import Device
    from strop.host.footprint import Report
    from strop.targets.board import Board

ABI = 1


@dataclass(frozen=True)
class Bundle:
    """A model for a board, ready to compile.

    files: generated C by name.  manifest: what the host must know of it, JSON-able.  state: the whole module's
    state_dict as it was captured, of which the board trains a part.  tied: names in it that are another one's tensor.
    """

    program: Program
    plan: Plan
    board: "Board"
    files: Mapping[str, str]
    manifest: Mapping[str, Any]
    state: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)

    @property
    def hash(self) -> bytes:
        """16 bytes that name the model on the wire."""
        return self.program.hash

    def save(self, folder: str | Path) -> Path:
        """Write the C files, `program.txt`, `manifest.json`, `memory.txt` and `memory.png`; returns the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        texts = {
            **self.files,
            "program.txt": self.program.text,
            "memory.txt": self.plan.text + "\n",
            "manifest.json": json.dumps(self.manifest, indent=2) + "\n",
        }
        for name, text in texts.items():
            write_whole(folder / name, text.encode())
        self.plan.draw(folder / "memory.png")
        return folder

    @cached_property
    def report(self) -> "Report":
        """RAM, flash and kernels, measured on the compiled library (see `strop.host.footprint`)."""
        from strop.host.footprint import report

        return report(self)

    def twin(self, *, store: str | Path | None = None) -> "Device":
        """The same C compiled for this PC, in this process. store: a file that keeps its checkpoints."""
        from strop.host.device import twin

        return twin(self, store=store)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def make_bundle(program: Program, plan: Plan, emitter: Emitter, board: "Board", module: "nn.Module") -> Bundle:
    """Collect what a build has made."""
    files = emitter.files()
    manifest = _manifest(program, plan, emitter, board, files)
    state = {name: np.asarray(tensor.detach().cpu().numpy()).copy() for name, tensor in module.state_dict().items()}
    return Bundle(program, plan, board, files, manifest, state, _tied(module))


def _tied(module: "nn.Module") -> dict[str, str]:
    """Names of the state_dict that share a parameter with an earlier name."""
    first: dict[int, str] = {}
    named = module.named_parameters(remove_duplicate=False)
    return {name: owner for name, parameter in named if (owner := first.setdefault(id(parameter), name)) != name}


def _manifest(
    program: Program, plan: Plan, emitter: Emitter, board: "Board", files: Mapping[str, str]
) -> dict[str, Any]:
    tensors = sorted(program.of(Role.PARAM, Role.STATE), key=lambda v: v.role is Role.STATE)
    return {
        "name": program.name,
        "strop": version("strop"),
        "abi": ABI,
        "hash": program.hash.hex(),
        "board": board.name,
        **program.notes,
        "batch": program.batch,
        "classes": emitter.classes,
        "x": {**_entry(program, program.only(Role.INPUT).name), **_indices(program)},
        "y": _entry(program, program.only(Role.LABEL).name) if program.of(Role.LABEL) else None,
        "output": _entry(program, program.output),
        "tensors": [{**_entry(program, v.name), "role": str(v.role), "bytes": v.bytes} for v in tensors],
        "regions": dict(plan.sizes),
        "kernels": [
            {"name": call.name, "layer": call.op.loc, "macs": call.macs} for call in emitter.names.calls["train_step"]
        ],
        "files": {name: digest(text.encode()) for name, text in files.items()},
    }


def _indices(program: Program) -> dict[str, int]:
    """Of an input that is looked up in tables: the rows of the smallest, which its whole numbers stay below."""
    rows = [program.values[op.inputs[1]].shape[0] for op in flatten(program.infer) if op.kind == "embedding"]
    return {"indices": min(rows)} if rows else {}


def _entry(program: Program, name: str) -> dict[str, Any]:
    value = program.values[name]
    return {"name": name, "shape": list(value.shape), "dtype": value.dtype.name}
