"""Runs a Program in numpy, op by op: the meaning that generated code is checked against."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strop.compiler.health import SCALE, followed, guarded
from strop.compiler.ir import PERSISTENT, Op, Program, Role, runs
from strop.compiler.ops import spec
from strop.errors import VerifyError

Array = NDArray[Any]


class Interpreter:
    """A Program with its variables. dtype: float64 for mathematics, float32 for the target's precision.

    memory holds params, states and consts between calls, as arrays of `dtype` (integers keep their type).
    """

    def __init__(self, program: Program, dtype: type[np.floating[Any]] = np.float64) -> None:
        self.program, self.dtype, self.beyond = program, dtype, False
        self.memory = {name: self._cast(name, data) for name, data in program.initial.items()}

    def _cast(self, name: str, data: Array) -> Array:
        return data.astype(self.dtype) if self.program.values[name].dtype.is_float else data.copy()

    def _typed(self, result: Array) -> Array:
        """What an op made in a dtype of its own, from integers, in that of all others."""
        return result.astype(self.dtype, copy=False) if result.dtype.kind == "f" else result

    def run(self, function: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run `train_step` or `infer`; returns every value computed, and overwrites the variables in `memory`.

        inputs: x and, for a train step, y, by name; batch axis first.
        """
        env = {**self.memory, **{name: self._cast(name, np.asarray(data)) for name, data in inputs.items()}}
        for op in self.program.functions()[function]:
            if self.beyond and guarded(self.program, op):
                fresh = [name for name in op.outputs if name not in env]
                env.update({name: np.zeros(self.program.values[name].shape, self.dtype) for name in fresh})
            else:
                self._execute(op, env)
        if SCALE in env and function == "train_step":
            env[SCALE] = followed(env[SCALE], beyond=self.beyond)
        self.beyond = False
        self.memory.update({name: env[name] for name in self.memory})
        return env

    def _execute(self, op: Op, env: dict[str, Array]) -> None:
        if op.kind == "scan":
            self._scan(op, env)
            return
        for part in op.parts:
            with np.errstate(invalid="ignore"):  # a step whose errors are infinite is computed to its end
                results = spec(part.kind).reference([env[name] for name in part.inputs], part.attrs)
            env.update(zip(part.outputs, map(self._typed, results), strict=True))
        for name in op.outputs:
            env[name] = self._stored(name, env[name])

    def _stored(self, name: str, value: Array) -> Array:
        """What memory keeps; takes note of an error that is too large for its format."""
        dtype = self.program.values[name].dtype
        scale = float(self.memory[SCALE][0]) if dtype.dynamic else 2.0**dtype.exponent
        if dtype.dynamic or dtype.exponent:
            self.beyond |= not bool((np.abs(value * scale) <= dtype.most).all())
        return dtype.rounded(value, scale)

    def _scan(self, op: Op, env: dict[str, Array]) -> None:
        """Turn after turn; a row is written back behind each op, so that rows that overlap see it."""
        for name in (name for name in op.outputs if self.program.values[name].role not in PERSISTENT):
            type_ = self.program.values[name].type
            env[name] = np.full(type_.shape, np.nan, self.dtype)
        if "over" in op.attrs:
            env[op.outputs[0]] = env[str(op.attrs["over"])].copy()
        for turn, t in enumerate(op.times):
            rows = {name: self._row(op, name, t, env) for name in op.rows}
            for part in (part for part in op.body if runs(part, turn)):
                inner = {**env, **rows}
                self._execute(part, inner)
                for name in part.outputs:
                    if name in rows:
                        rows[name][...] = inner[name]
                    else:
                        env[name] = inner[name]

    def _row(self, op: Op, name: str, t: int, env: Mapping[str, Array]) -> Array:
        """A step value as a view of its sequence."""
        row, shape = op.rows[name], self.program.values[name].shape
        sequence = env[row.sequence]
        elements = sequence.reshape(len(sequence), -1)[(t + row.shift) % len(sequence)]
        view: Array = elements[row.start : row.start + prod(shape)].reshape(shape)
        return view

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
