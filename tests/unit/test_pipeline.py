"""The whole compiler: equal bytes for equal input, and C that computes what the Program says, model by rule."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import NETWORKS, Array, Library, batches, stages
from cbuild import COMPILERS, EXACT, RUNTIME, WARNINGS, has_compiler
from torch import nn

from strop.compiler.capture.torch import capture
from strop.compiler.emit import Emitter
from strop.compiler.interp import Interpreter
from strop.compiler.ir import PERSISTENT, Program
from strop.compiler.kernels import lower
from strop.compiler.optim import SGD, Adam, Optimizer
from strop.compiler.pipeline import build
from strop.compiler.rules import Backprop, HeadOnly, TpSGD
from strop.compiler.rules.base import Rule
from strop.compiler.schedules import Tiling
from strop.errors import StropError
from strop.host.zoo import MODELS

RULES: dict[str, Rule] = {"backprop": Backprop(), "tpsgd": TpSGD(), "head-only": HeadOnly()}
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": SGD(lr=0.02),
    "decay": SGD(lr=0.02, weight_decay=0.1),
    "momentum": SGD(lr=0.02, momentum=0.9),
    "adam": Adam(),
}
CCS = [cc for cc in ("gcc", "zig") if has_compiler(cc)]

# --- the same bytes ----------------------------------------------------------------------------------------------

BUILD_TWO = """
import sys
from pathlib import Path
import strop
from strop.host.zoo import MODELS
two = (("mlp-64-32-10", "backprop", strop.optim.Adam()), ("digits-cnn", "tpsgd", strop.optim.SGD()))
for name, rule, optimizer in two:
    model, example = MODELS[name]()
    strop.build(model, example, rule=rule, optimizer=optimizer, board="qemu-rv32imf").save(Path(sys.argv[1]) / name)
"""


def built_files(folder: Path, cache_folder: Path, hash_seed: str) -> dict[str, str]:
    """Digest by file of two bundles, made in a process of its own."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "STROP_CACHE": str(cache_folder)}
    subprocess.run([sys.executable, "-c", BUILD_TWO, str(folder)], check=True, env=environment)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    """In another process, with another order of sets, with kernels from the cache: not a byte differs."""
    cold = built_files(tmp_path / "cold", tmp_path / "cache", "1")
    kept = list((tmp_path / "cache" / "kernels").iterdir())
    warm = built_files(tmp_path / "warm", tmp_path / "cache", "2")
    assert cold == warm
    assert len(cold) == 2 * 7
    assert kept
    assert sorted(kept) == sorted((tmp_path / "cache" / "kernels").iterdir())


def test_the_seed_changes_targets_only() -> None:
    model, example = MODELS["mlp-64-32-10"]()
    first, same, other = (build(model, example, rule="tpsgd", seed=seed) for seed in (1, 1, 2))
    assert first.files == same.files
    assert first.hash != other.hash
    assert [v.type for v in first.program.values.values()] == [v.type for v in other.program.values.values()]


# --- the same numbers --------------------------------------------------------------------------------------------


@cache
def captured(name: str) -> Program:
    model, example = MODELS[name]()
    return capture(model, example, name=name)


def loss_of(name: str) -> str:
    return "mse" if name == "fc-autoencoder" else "cross_entropy"


def relative(ours: Array, exact: Array) -> float:
    return float(np.abs(ours - exact).max() / max(np.abs(exact).max(), 1e-6))


def check_steps(library: Library, program: Program, steps: int = 2) -> list[bytes]:
    """Each step against float64 from the same variables: 1e-4 relative; returns the bits it left."""
    exact, variables = Interpreter(program), library.variables()
    for x, y in batches(program, steps):
        exact.memory.update({name: view.astype(np.float64) for name, view in variables.items()})
        assert relative(library.infer(x), exact.infer(x)) <= 1e-4
        assert library.train_step(x, y) == pytest.approx(exact.train_step(x, y), rel=1e-4)
        for name, view in variables.items():
            assert relative(view, exact.memory[name]) <= 1e-4, name
    return [view.tobytes() for view in variables.values()]


LARGE = ("resnet8", "ds-cnn")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", MODELS)
def test_built_in_models(name: str, rule: str, tmp_path: Path) -> None:
    """Clean under both compilers' warnings; every step within 1e-4 of float64; the same bits again."""
    seen, bundle = stages(captured(name), RULES[rule], loss_of(name), SGD(lr=0.01))
    library, steps = Library(bundle, tmp_path, cc=CCS[0]), 1 if name in LARGE else 2
    first = check_steps(library, seen["rule"], steps)
    library.c.strop_model_init()
    for x, y in batches(bundle.program, steps):
        library.train_step(x, y)
    assert [view.tobytes() for view in library.variables().values()] == first
    for cc in CCS[1:] if rule == "backprop" else ():  # which has the kernels of the others too
        command = [*COMPILERS[cc], "-c", *EXACT, *WARNINGS, "-Wvla", f"-I{RUNTIME}", f"-I{tmp_path}"]
        subprocess.run([*command, str(tmp_path / "strop_model.c"), "-o", str(tmp_path / "model.o")], check=True)


SMALL = [
    (network, optimizer, list(RULES)[(i + j) % 3], ("cross_entropy", "mse")[(i + j // 2) % 2], (1, 3)[(i + j) % 2])
    for i, network in enumerate(NETWORKS)
    for j, optimizer in enumerate(OPTIMIZERS)
]
"""Every network with every optimizer; rules, losses and batches dealt out among them."""


@pytest.mark.parametrize(("network", "optimizer", "rule", "loss", "batch"), SMALL)
def test_small_networks(network: str, optimizer: str, rule: str, loss: str, batch: int, tmp_path: Path) -> None:
    """The C of both compilers leaves the same bits, with and without fused multiply-add within 1e-4 of float64."""
    for board in ("host", "qemu-rv32imac"):
        seen, bundle = stages(NETWORKS[network](batch), RULES[rule], loss, OPTIMIZERS[optimizer], board=board)
        results = []
        for cc in CCS if board == "host" else CCS[:1]:
            (folder := tmp_path / f"{board}-{cc}").mkdir()
            results.append(check_steps(Library(bundle, folder, cc=cc), seen["rule"], 3))
        assert results.count(results[0]) == len(results)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("network", NETWORKS)
def test_tiles_of_fused_kernels_never_change_a_bit(network: str, optimizer: str, tmp_path: Path) -> None:
    _, bundle = stages(NETWORKS[network](), Backprop(), "cross_entropy", OPTIMIZERS[optimizer])
    results = []
    for tiling in (Tiling(8, 4), Tiling(2, 1), Tiling(3, 5)):
        (folder := tmp_path / f"{tiling.accumulators}").mkdir()
        files = Emitter(bundle.program, bundle.plan, lower(bundle.program, tiling)).files()
        library = Library(replace(bundle, files=files), folder)
        losses = [library.train_step(x, y) for x, y in batches(bundle.program, 3)]
        results.append((losses, [view.tobytes() for view in library.variables().values()]))
    assert results.count(results[0]) == len(results)


def test_a_network_that_ends_in_flatten(tmp_path: Path) -> None:
    """Its output is written to the caller's memory, though a reshape stands last."""
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AvgPool2d(3), nn.Flatten())
    bundle = build(model.eval(), torch.zeros(1, 1, 5, 5))
    x = np.random.default_rng(0).standard_normal((1, 1, 5, 5)).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(Library(bundle, tmp_path).infer(x), model(torch.tensor(x)).numpy(), rtol=1e-5)


def test_a_value_added_to_itself(tmp_path: Path) -> None:
    """`x + x` in a kernel of its own reads one operand twice: one parameter."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x + x)  # type: ignore[no-any-return]

    model = Twice().eval()
    bundle = build(model, torch.zeros(1, 4))
    assert ("x", "x") in {op.inputs for op in bundle.program.infer}
    x = np.random.default_rng(0).standard_normal((1, 4)).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(Library(bundle, tmp_path).infer(x), model(torch.tensor(x)).numpy(), rtol=1e-5)


# --- the interface -----------------------------------------------------------------------------------------------


def test_the_model_is_not_changed() -> None:
    model, example = MODELS["mlp-64-32-10"]()
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    build(model, example)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_stages_are_announced_in_order() -> None:
    model, example = MODELS["mlp-64-32-10"]()
    told: list[str] = []
    build(model, example, progress=told.append)
    assert told[:2] == ["capture", "rule"]
    assert told[-3:] == ["place", "lower", "emit"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch": 0}, "a batch has at least 1 sample, not 0"),
        ({"dtype": "float23"}, "parameters cannot be stored as 'float23'. Did you mean 'float32'"),
        ({"rule": "tpsdg"}, "no rule is called 'tpsdg'. Did you mean 'tpsgd'"),
        ({"loss": "crossentropy"}, "no loss is called 'crossentropy'. Did you mean 'cross_entropy'"),
        ({"board": "qemu-rv32img"}, "qemu-rv32imf"),
    ],
)
def test_options_that_do_not_exist(options: dict[str, object], sentence: str) -> None:
    model, example = MODELS["mlp-64-32-10"]()
    with pytest.raises(StropError) as error:
        build(model, example, **options)  # type: ignore[arg-type]
    assert sentence in str(error.value)


def test_the_manifest_is_json_and_names_the_board() -> None:
    model, example = MODELS["mlp-64-32-10"]()
    manifest = build(model, example, rule="tpsgd", optimizer=Adam(), batch=2).manifest
    assert json.loads(json.dumps(manifest)) == manifest
    assert manifest["board"] == "host"
    assert manifest["batch"] == 2
    assert [t["name"] for t in manifest["tensors"]][:4] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert {v.name for v in build(model, example).program.of(*PERSISTENT)} == set(model.state_dict())
