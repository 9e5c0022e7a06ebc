"""Runs a Program in numpy, op by op: the meaning that generated code is checked against."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.compiler.ir import PERSISTENT, Program, Role
from strop.compiler.ops import spec
from strop.errors import VerifyError

Array = NDArray[Any]


class Interpreter:
    """A Program with its variables. dtype: float64 for mathematics, float32 for the target's precision.

    memory holds params, states and consts between calls, as arrays of `dtype` (integers keep their type).
    """

    def __init__(self, program: Program, dtype: type[np.floating[Any]] = np.float64) -> None:
        self.program, self.dtype = program, dtype
        self.memory = {name: self._cast(data) for name, data in program.initial.items()}

    def _cast(self, data: Array) -> Array:
        return data.astype(self.dtype) if np.issubdtype(data.dtype, np.floating) else data.copy()

    def run(self, function: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run `train_step` or `infer`; returns every value computed, and overwrites the variables in `memory`.

        inputs: x and, for a train step, y, by name; batch axis first.
        """
        env = {**self.memory, **{name: self._cast(np.asarray(data)) for name, data in inputs.items()}}
        for op in self.program.functions()[function]:
            for part in op.parts:
                results = spec(part.kind).reference([env[name] for name in part.inputs], part.attrs)
                env.update(zip(part.outputs, results, strict=True))
        self.memory.update({name: env[name] for name in self.memory})
        return env

    def train_step(self, x: Array, y: Array) -> float:
        """One batch; returns the mean loss."""
        return float(self.run("train_step", {"x": x, "y": y})[self.program.loss].reshape(()))

    def infer(self, x: Array) -> Array:
        """The network's output, (batch, ...)."""
        return self.run("infer", {"x": x})[self.program.output]


def run(
    program: Program, function: str, inputs: Mapping[str, Array], dtype: type[np.floating[Any]] = np.float64
) -> dict[str, Array]:
    """Run one function once from the initial contents; returns all values by name, variables as they end up."""
    for name in inputs:
        if program.values[name].role not in (Role.INPUT, Role.LABEL, *PERSISTENT):
            raise VerifyError(f"{name!r} is not an input of {program.name}")
    return Interpreter(program, dtype).run(function, inputs)
