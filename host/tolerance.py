"""How far a training step with 16-bit storage may be from an exact one that starts from the same tensors.

    |ours - exact|  <=  storage  +  bound * largest update of the tensor

storage: what rounding the parameter may change, of its largest element: half a last place (2^-11 in float16, 2^-8 in
bfloat16), a whole one where it is rounded by chance, and the square of a half where the rest is carried along: then
parameter + rest are compared, on both sides of an update that is computed at the parameter.  bound:
what the rounding of activations and errors between kernels does to the update.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from strop.compiler.dtypes import BFLOAT16, FLOAT16
from strop.compiler.health import SCALE
from strop.compiler.ir import Program, Role
from strop.compiler.optim import SGD
from strop.compiler.passes.narrow import REST, STEP
from strop.host.arrays import real

if TYPE_CHECKING:
    from strop.host.reference import Reference

Array = NDArray[Any]

BOUNDS = {FLOAT16.name: (2.0**-8, 2.0**-3), BFLOAT16.name: (2.0**-3, 2.0**-2)}
"""By the format that activations and errors rest in: of a few layers, and of many. A rounding is 2^-11 or 2^-8 of a
number; what makes it more is where it decides the side of a ReLU, or which of a pool's inputs is the largest, and each
layer adds such places."""

FEW = 16
"""Activations and errors that rest in 16 bits, up to which it is a few layers."""

EXACT = 2.0**-12
"""The same where all that rests in 16 bits is parameters."""

TURNED = 2.0
"""For optimizers that divide by the gradient's own size: the sign of a small one is up to rounding."""


def update_bound(program: Program, reference: "Reference") -> float | None:
    """`bound`, or None for a Program that is all float32."""
    if not any(value.dtype.narrow for value in program.values.values()):
        return None
    if not isinstance(reference.optimizer.settings, SGD):
        return TURNED
    stored = [program.values[name] for op in program.train_step for name in op.outputs]
    between = [value.dtype.base for value in stored if value.role is Role.ACT and value.dtype.narrow]
    return max((BOUNDS[name][len(between) > FEW] for name in between), default=EXACT)


def storage(program: Program, name: str, largest: float) -> float:
    """`storage` of a parameter.  largest: its largest element."""
    dtype = program.values[name].dtype
    if not dtype.narrow:
        return 2.0**-22 * largest
    info = ml_dtypes.finfo(dtype.numpy)  # type: ignore[no-untyped-call]
    half, least = float(info.eps) / 2, float(info.smallest_subnormal)
    if f"{name}{REST}" in program.values:
        return max(half * half * largest, least)
    return max(half * largest, least / 2) * (2 if STEP in program.values else 1)


def known(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Tensors that a reference has too: without what only rounding needs. A step computes with what is stored alone."""
    return {name: real(data) for name, data in tensors.items() if name not in (STEP, SCALE) and not name.endswith(REST)}


def rests(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """What is carried along of parameters, by their names; float64."""
    return {name.removesuffix(REST): data.astype(np.float64) for name, data in tensors.items() if name.endswith(REST)}


def skipped(before: Mapping[str, Array], after: Mapping[str, Array]) -> bool:
    """Whether a step was left unfinished because an error left its format's range."""
    return SCALE in before and bool(after[SCALE][0] < before[SCALE][0])
