"""Train here, infer there: a bundle's trained network alone, its parameters constants in flash."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from strop.compiler.bundle import Bundle
from strop.compiler.emit import Emitter
from strop.compiler.ir import PERSISTENT, Program, Role, digest
from strop.compiler.kernels import lower
from strop.compiler.plan import check_fits, place
from strop.compiler.schedules import Tiling
from strop.errors import DataError, UsageError

if TYPE_CHECKING:
    from strop.compiler.ir import Value

Arrays = Mapping[str, NDArray[Any]]

CHECKPOINT = "tensor/"
"""Prefix of a tensor's name in a run's checkpoint.npz."""


def inference(bundle: Bundle, weights: Arrays | None = None) -> Bundle:
    """A bundle whose only function is the other's `infer`, to the same bits.

    weights: trained contents by name, those of a state_dict or of a run's checkpoint.npz; without them those the bundle
    was built with. Raises UsageError where a rule trained more than the module has, and the weights have not got it;
    DataError for weights of another shape.
    """
    program = _frozen(bundle.program, _unprefixed(weights or {}))
    plan = place(program)
    if not bundle.board.is_host:
        flash, ram = bundle.board.memory
        check_fits(plan, ram.length, flash.length, bundle.board.name)
    core = bundle.board.core
    emitter = _Emitter(program, plan, lower(program, Tiling(**core.tiling)), flush=core.flush)
    files = {"strop_model.h": emitter.header(), "strop_model.c": emitter.source()}
    manifest = {
        **bundle.manifest, "hash": program.hash.hex(), "tensors": [], "kernels": [], "regions": dict(plan.sizes),
        "trained_as": bundle.manifest["hash"], "files": {name: digest(text.encode()) for name, text in files.items()},
    }  # fmt: skip
    return replace(bundle, program=program, plan=plan, files=files, manifest=manifest)


def _unprefixed(weights: Arrays) -> dict[str, NDArray[Any]]:
    """A checkpoint's tensors by their own names; of other files, all."""
    kept = {name.removeprefix(CHECKPOINT): data for name, data in weights.items() if name.startswith(CHECKPOINT)}
    return kept or dict(weights)


def _frozen(program: Program, weights: Arrays) -> Program:
    """The Program without its training step, its variables constants."""
    alone = program.with_(train_step=(), loss="").pruned()
    values, initial = dict(alone.values), dict(alone.initial)
    for value in alone.of(*PERSISTENT):
        values[value.name] = replace(value, role=Role.CONST)
        if value.name in weights:
            initial[value.name] = _contents(value, weights[value.name])
        elif weights and value.role is Role.STATE:
            raise UsageError(
                f"the rule trained {value.name}, which inference needs and the weights have not got",
                do="Give the run's checkpoint.npz with --weights, instead of its weights file",
            )  # fmt: skip
    label = {value.name for value in alone.of(Role.LABEL)}
    return alone.with_(values={name: value for name, value in values.items() if name not in label}, initial=initial)


def _contents(value: "Value", data: NDArray[Any]) -> NDArray[Any]:
    if data.shape != value.shape:
        raise DataError(f"{value.name} has shape {data.shape}, the model's is {value.shape}")
    return np.ascontiguousarray(data, value.dtype.numpy)


class _Emitter(Emitter):
    """Writes a header and a source of `infer` alone."""

    def header(self) -> str:
        x, out = f"{self.x.type}", f"{self.out.type}"
        return (
            self._banner("A trained network.")
            + "#ifndef STROP_MODEL_H\n#define STROP_MODEL_H\n\n"
            + '#ifdef __cplusplus\nextern "C" {\n#endif\n\n'
            + f"#define STROP_MODEL_BATCH {self.program.batch}u\n"
            + f"#define STROP_MODEL_X_BYTES {self.x.bytes}u\n"
            + f"#define STROP_MODEL_OUT_BYTES {self.out.bytes}u\n\n"
            + f"/* The network's output for one batch. x: {x}; out: {out}, apart from x. */\n"
            + "void strop_model_infer(const float *x, float *out);\n\n"
            + "#ifdef __cplusplus\n}\n#endif\n#endif\n"
        )

    def _profile_hook(self) -> str:
        return ""

    def _init(self) -> str:
        return ""
