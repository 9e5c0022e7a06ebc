"""One row of the table: a net, a rule and a board, measured from an empty cache."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from goals import MLPERF

import strop
from strop.compiler.bundle import Bundle
from strop.host.bounds import bounds
from strop.host.device import connect
from strop.host.footprint import report
from strop.host.profile import profile, step_costs
from strop.host.zoo import MODELS

STEPS, LONG_STEPS = 20, 2
"""Training steps that are averaged: of small nets, and of MLPerf Tiny's."""
SILENCE = 120.0
"""Seconds a board may take over a step on a busy computer."""


@dataclass(frozen=True)
class Case:
    """What is measured. rule: a learning rule's name; its optimizer is SGD without momentum."""

    net: str
    rule: str
    board: str

    @property
    def steps(self) -> int:
        """Steps that are averaged."""
        return LONG_STEPS if self.net in MLPERF else STEPS

    def build(self) -> Bundle:
        """Compile it: batch 1, float32."""
        model, example = MODELS[self.net]()
        loss = "mse" if self.net == "fc-autoencoder" else "cross_entropy"
        return strop.build(model, example, loss=loss, rule=self.rule, board=self.board, name=self.net)

    def samples(self, bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
        """Uniform noise in [0, 1) with random labels; an autoencoder's labels are its input."""
        rng = np.random.default_rng(0)
        x = rng.random((self.steps, *bundle.manifest["x"]["shape"][1:])).astype(np.float32)
        classes = bundle.manifest["classes"]
        return x, rng.integers(0, classes, self.steps, np.int32) if classes else x


def costs(case: Case) -> dict[str, Any]:
    """What must not grow unnoticed: instructions a step (mean), bytes of RAM by kind, bytes of flash by kind."""
    bundle = case.build()
    with connect(bundle, timeout=SILENCE) as device:
        instructions = float(np.mean(step_costs(device, *case.samples(bundle))))
    return {"instructions": instructions, **_footprint(bundle)}


def _footprint(bundle: Bundle) -> dict[str, Any]:
    found = report(bundle).to_json()
    return {"ram": found["ram"], "flash": found["flash"]}


def row(case: Case, *, kernels: bool) -> dict[str, Any]:
    """All figures of a case. kernels: also those of each kernel, and the seconds that a cold build takes.

    Works in the current cache, which must be empty for the time to mean something.
    """
    described = {"net": case.net, "rule": case.rule, "board": case.board, "steps": case.steps}
    if not kernels:
        found = costs(case)
        return {**described, **found, "bound": _total(bounds(case.build()))}
    start = time.perf_counter()
    bundle = case.build()
    connect(bundle).close()
    seconds = time.perf_counter() - start
    x, y = case.samples(bundle)
    measured = profile(bundle, x, y, lambda counted: connect(bundle, profile=counted, timeout=SILENCE))
    return {
        **described, "instructions": measured.instructions_per_step, **_footprint(bundle), "bound": measured.bound,
        "build_seconds": round(seconds, 1), "kernels": [kernel.to_json() for kernel in measured.kernels],
    }  # fmt: skip


def _total(each: list[float | None]) -> float | None:
    known = [least for least in each if least is not None]
    return sum(known) if known else None


@contextmanager
def empty_cache() -> Iterator[None]:
    """Let strop remember nothing from before, and forget it all again."""
    before = os.environ.get("STROP_CACHE")
    with TemporaryDirectory(prefix="strop-benchmark-") as folder:
        os.environ["STROP_CACHE"] = str(Path(folder))
        try:
            yield
        finally:
            if before is None:
                del os.environ["STROP_CACHE"]
            else:
                os.environ["STROP_CACHE"] = before
