"""The exported library: complete, compiled by strangers without a warning, and the same bits as the twin."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import strop
from strop.compiler.bundle import Bundle
from strop.errors import UsageError
from strop.host.export import export
from strop.host.zoo import load_model

FILES = {
    "strop_model.h", "strop_model.c", "numerics.h", "numerics.c", "rng.h", "main.c", "Makefile", "README.md", "LICENSE",
}  # fmt: skip
COMPILERS = {"gcc": "gcc", "zig": f"{sys.executable} -m ziglang cc"}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    name, model, example = load_model("mlp-64-32-10")
    return strop.build(model, example, name=name, rule="tpsgd", optimizer=strop.optim.SGD(lr=0.05))


def make(folder: Path, compiler: str, *words: str) -> str:
    command: Sequence[str] = ["make", "-C", str(folder), f"CC={COMPILERS[compiler]}", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses_of_example(bundle: Bundle) -> list[float]:
    """What main.c computes, by the twin."""
    kinds = np.arange(200) % 10
    x = (np.arange(64)[None] % 10 == kinds[:, None]).astype(np.float32)
    return [float(loss) for loss in bundle.twin().train(x, kinds)[::20]]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_compiles_and_computes_what_the_twin_computes(bundle: Bundle, tmp_path: Path, compiler: str) -> None:
    folder = tmp_path / "library"
    assert {file.name for file in export(bundle, folder)} == FILES
    printed = re.findall(r"^step \d+: loss (\S+)$", make(folder, compiler, "run"), re.M)
    assert printed == [f"{loss:f}" for loss in losses_of_example(bundle)]
    assert float(printed[-1]) < float(printed[0])


def test_regression_and_batch(tmp_path: Path) -> None:
    name, model, example = load_model("mlp-64-32-10")
    made = strop.build(model, example, name=name, loss="mse", batch=3, optimizer=strop.optim.SGD(lr=0.05))
    export(made, tmp_path / "library")
    assert "step 180" in make(tmp_path / "library", "gcc", "run")


def test_includes_only_what_is_there(bundle: Bundle, tmp_path: Path) -> None:
    for file in export(bundle, tmp_path / "library"):
        text = re.sub(r"#ifdef STROP_COUNT_KERNELS.*?#else", "", file.read_text(), flags=re.S)
        assert set(re.findall(r'#include "(.+?)"', text)) <= FILES, file


def test_same_bytes_twice(bundle: Bundle, tmp_path: Path) -> None:
    one, two = (export(bundle, tmp_path / name) for name in ("one", "two"))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]


def test_keeps_other_peoples_files(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        export(bundle, folder)
    assert (folder / "thesis.tex").exists()
    export(bundle, folder, force=True)
    assert {file.name for file in folder.iterdir()} == FILES
    assert list(tmp_path.iterdir()) == [folder], "nothing half made stays behind"


def test_a_failed_write_leaves_nothing(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def failing(self: Path, text: str) -> int:
        written.append(self)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        return len(text)

    monkeypatch.setattr(Path, "write_text", failing)
    with pytest.raises(UsageError, match="No space left"):
        export(bundle, tmp_path / "library")
    assert not list(tmp_path.iterdir())


def test_readme_tells_what_it_is(bundle: Bundle, tmp_path: Path) -> None:
    export(bundle, tmp_path / "library")
    text = (tmp_path / "library" / "README.md").read_text()
    assert "TpSGD" in text
    assert "float32 (1, 64)" in text
    assert "{" not in text
    assert "Apache License" in (tmp_path / "library" / "LICENSE").read_text()
