"""Precision as data: in which format each kind of tensor rests in memory. Sums are float32 unless asked otherwise."""

import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from strop.compiler.dtypes import BFLOAT16, DTYPES, FLOAT16, FLOAT32, DType
from strop.errors import UsageError, nearest

FORMATS = (FLOAT32.name, FLOAT16.name, BFLOAT16.name)
SUMS = ("float32", "float16")
ROUNDINGS = ("nearest", "stochastic", "carried")
USUAL = {FLOAT16.name: "nearest", BFLOAT16.name: "stochastic"}
"""Roundings where a policy names none: the cheapest that costs no accuracy (benchmarks/PRECISION.md)."""
SCALES = {FLOAT32.name: 1024, FLOAT16.name: 64}
"""Error scales where a policy names none, by what sums are kept in: one of errors times inputs has to stay in range."""
Format = Literal["float32", "float16", "bfloat16"]


class Formats(BaseModel):
    """Formats by the role of a tensor; None leaves what the policy says for all layers.

    parameters: weights, biases, local heads.  activations: what the network's forward pass hands on.  errors: whatever
    else a step computes and keeps for another kernel: gradients, objectives.  state: moments of the optimizer.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    parameters: Format | None = None
    activations: Format | None = None
    errors: Format | None = None
    state: Format | None = None


class Precision(Formats):
    """A policy. Input, output, loss, normalisation gains and statistics, and single numbers are float32 in any policy.

    rounding: how an updated parameter becomes 16 bits; without one, nearest in float16 and stochastic in bfloat16.
    `nearest` loses updates below half a last place (2^-12 of the parameter in float16, 2^-9 in bfloat16); `stochastic`
    keeps them on average, for a random number an element; `carried` keeps what was rounded off for the next update, in
    a state of the parameter's size and format (Kahan's compensation; of bfloat16 both together are what a float32
    master would be, to 16 bits of mantissa).  error_scale: a power of two that errors in float16 are stored times, so
    that small ones do not vanish; large ones stay at the format's end. Without one 1024, or 64 with sums in float16.
    `dynamic` begins with 2^16, halves when an error leaves the range, skipping the updates of that step, and doubles
    after 2,000 steps without: a step's updates wait for all of its errors, which are in memory together.  sums: what
    sums of products of float16 numbers are kept in; with `float16`, sums of up to 32 terms are added up in float32, on
    a core that computes in it.  layers: other formats for layers whose name fits a shell pattern, the last that fits.
    """

    parameters: Format = "float32"
    activations: Format = "float32"
    errors: Format = "float32"
    state: Format = "float32"
    rounding: Literal["nearest", "stochastic", "carried"] | None = None
    error_scale: int | Literal["dynamic"] | None = None
    sums: Literal["float32", "float16"] = "float32"
    layers: Mapping[str, Formats] = {}

    @field_validator("error_scale")
    @classmethod
    def _is_a_power_of_two(cls, scale: int | str | None) -> int | str | None:
        if isinstance(scale, int) and (scale < 2 or scale & (scale - 1) or scale > 2**24):
            raise ValueError("must be a power of two from 2 to 2^24, or dynamic")
        return scale

    def __str__(self) -> str:
        """One format where it is all there is, or each role's, and what differs from the defaults."""
        changed = self.model_dump(exclude_defaults=True, exclude_none=True)
        formats = {role: getattr(self, role) for role in Formats.model_fields}
        if len(set(formats.values())) == 1:
            rest = [f"{name}={value}" for name, value in changed.items() if name not in formats]
            return ", ".join([self.parameters, *rest])
        return ", ".join(f"{name}={value}" for name, value in changed.items())

    @property
    def follows(self) -> bool:
        """Whether the error scale changes in training, and updates wait for all errors of a step."""
        return self.error_scale == "dynamic"

    @property
    def narrows(self) -> bool:
        """Whether anything is stored in less than 32 bits."""
        return self != Precision()

    def rounds(self, dtype: DType) -> str:
        """How an updated parameter becomes a number of a format."""
        return self.rounding or USUAL[dtype.base]

    def of(self, role: str, layer: str) -> DType:
        """The format of a tensor. role: parameters, activations, errors or state.  layer: name, or ''."""
        name = getattr(self, role)
        for pattern, formats in self.layers.items():
            if fnmatchcase(layer, pattern):
                name = getattr(formats, role) or name
        dtype = DTYPES[name]
        if role != "errors" or dtype is not FLOAT16:
            return dtype
        scale = self.error_scale or SCALES[self.sums]
        return dtype.follows if scale == "dynamic" else dtype.scaled(int(scale).bit_length() - 1)


def uniform(name: str, **settings: Any) -> Precision:
    """The policy that stores everything in one format."""
    return Precision.model_validate({**dict.fromkeys(Formats.model_fields, name), **settings})


def precision(wanted: "Precision | str | Path", **settings: Any) -> Precision:
    """A policy from a format's name or a TOML file. settings: fields to replace; None leaves them.

    Raises UsageError for what is neither, and for entries that are wrong, by name.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    where = "" if isinstance(wanted, Precision) else str(wanted)
    try:
        if isinstance(wanted, Precision):
            return Precision.model_validate({**wanted.model_dump(), **settings})
        if where in FORMATS:
            return uniform(where, **settings)
        if Path(where).suffix == ".toml":
            return Precision.model_validate({**tomllib.loads(Path(where).read_text(encoding="utf-8")), **settings})
    except ValidationError as error:
        first: Any = error.errors(include_url=False)[0]
        path, message = list(map(str, first["loc"])), str(first["msg"]).removeprefix("Value error, ")
        entry = ".".join(path[:1] if path[0] == "error_scale" else path)  # what follows is a branch of its type
        raise UsageError(f"precision: {entry}: {message}", where=where, do=_advice(entry)) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"the precision policy cannot be read: {error}", where=where) from error
    raise UsageError(f"parameters cannot be stored as {where!r}", do=f"{nearest(where, FORMATS)}, or a policy.toml")


def _advice(entry: str) -> str:
    values = {"rounding": ROUNDINGS, "error_scale": ("1024", "dynamic"), "sums": SUMS}
    return f"One of {', '.join(values[entry])}" if entry in values else nearest(entry, Precision.model_fields)
