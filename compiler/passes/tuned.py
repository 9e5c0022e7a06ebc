"""Schedules found by measurement: a file keeps them, a pass puts them into the Program.

A schedule never changes a bit of what a kernel computes. An entry that fits no kernel is without effect.
"""

import json
from collections.abc import Mapping
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from strop.compiler.ir import Op, Program, digest
from strop.compiler.kernels import KernelSpec, kernel_spec, lowered, needs_code
from strop.compiler.schedules import Tiling
from strop.errors import LowerError, UsageError

Count = Annotated[int, Field(ge=1, le=8192)]
STREAM = ("seed", "tensor")
"""Integer attributes that bear on no loop: the keys of a random stream."""


class Entry(BaseModel):
    """The best tiling measured for a kernel.

    kernel: what it computes, for people.  tiling: the fields of Tiling that differ from the ISA's own.  before, after:
    instructions a step.  made_with: versions that the figures rest on.
    """

    model_config = ConfigDict(frozen=True)

    kernel: str
    tiling: dict[str, Count]
    before: float
    after: float
    made_with: str


class Schedules(BaseModel):
    """All that has been tuned: entries by ISA and by `schedule_key`."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    schedules: dict[str, dict[str, Entry]] = {}

    @property
    def text(self) -> str:
        """The file's text: sorted, so that it diffs well."""
        return json.dumps(self.model_dump(), indent=2, sort_keys=True) + "\n"

    def table(self, isa: str, default: Tiling) -> dict[str, Tiling]:
        """Tiling by kernel on an ISA; what an entry does not say is as in `default`."""
        known = {field.name for field in fields(Tiling)}
        return {
            key: replace(default, **{name: value for name, value in entry.tiling.items() if name in known})
            for key, entry in self.schedules.get(isa, {}).items()
        }

    def with_entries(self, isa: str, entries: Mapping[str, Entry | None]) -> "Schedules":
        """Return a copy with entries of an ISA replaced, or removed where None is given."""
        merged = {**self.schedules.get(isa, {}), **entries}
        kept = {key: entry for key, entry in merged.items() if entry is not None}
        return self.model_copy(update={"schedules": {**self.schedules, isa: kept}})


def read_schedules(path: str | Path) -> Schedules:
    """Read a file that `strop tune` wrote. Raises UsageError for one that is missing, damaged or of a newer format."""
    advice = "Make it with strop tune"
    try:
        return Schedules.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise UsageError(f"the schedules cannot be read: {error.strerror}", where=str(path), do=advice) from error
    except ValidationError as error:
        first: Any = error.errors(include_url=False)[0]
        entry = ".".join(map(str, first["loc"]))
        message = f"{entry}: {first['msg']}" if entry else first["msg"]
        raise UsageError(f"the file holds no schedules: {message}", where=str(path), do=advice) from error


def schedule_key(kernel: KernelSpec) -> str:
    """16 hex digits for what a kernel computes, whatever its schedule, layer, learning rate and random stream."""
    steps = [(*step[:3], [(name, _shape_of(name, value)) for name, value in step[3]]) for step in kernel.steps]
    types = [str(type_) for type_ in kernel.types]
    return digest(repr((types, kernel.inputs, steps, kernel.results, kernel.over, kernel.fma)).encode())[:16]


def _shape_of(name: str, value: object) -> object:
    """An attribute as far as it bears on the loops: of a factor, whether there is one; of a key, nothing."""
    if name in STREAM:
        return None
    return bool(value) if isinstance(value, float) else value


def tuned(program: Program, default: Tiling, table: Mapping[str, Tiling]) -> Program:
    """Return the Program with `tiling` on each op whose kernel has an entry that differs from `default`.

    Raises UsageError for an entry that cannot be scheduled.
    """

    def scheduled(op: Op) -> Op:
        if op.kind == "scan":
            return replace(op, body=tuple(map(scheduled, op.body)))
        if not needs_code(op):
            return op
        kernel = kernel_spec(program, op, default)
        found = table.get(schedule_key(kernel), default)
        if found == default:
            return op
        _check(replace(kernel, tiling=found), op.loc)
        return replace(op, attrs={**op.attrs, "tiling": astuple(found)})

    if not table:
        return program
    return program.with_(**{name: tuple(map(scheduled, ops)) for name, ops in program.functions().items()})


def _check(kernel: KernelSpec, layer: str) -> None:
    try:
        lowered(kernel)
    except LowerError as error:
        message = f"the tuned schedule {kernel.tiling} does not work: {error.what}"
        raise UsageError(message, where=layer, do="Tune again, or remove its entry") from error
