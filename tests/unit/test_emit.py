"""The generated files: names that cannot clash, one function an equal kernel, and a header of its own."""

import json
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from cases import NETWORKS, Library, Net, batches, compiled, mlp, stages
from cbuild import RUNTIME, WARNINGS

from strop.compiler.bundle import Bundle
from strop.compiler.emit import FLOATS, RESERVED, identifier, vectors
from strop.compiler.interp import Interpreter
from strop.compiler.ir import Program, Role
from strop.compiler.kernels import Kernel
from strop.compiler.optim import SGD, Adam
from strop.compiler.rules import Backprop, HeadOnly, TpSGD


def bundle(program: Program, rule: str = "backprop", loss: str = "cross_entropy") -> Bundle:
    rules = {"backprop": Backprop(), "tpsgd": TpSGD(), "head-only": HeadOnly()}
    return stages(program, rules[rule], loss, Adam())[1]


@pytest.mark.parametrize(
    ("name", "expected"), [("0.weight", "layer0_weight"), ("conv1.bias", "conv1_bias"), ("a-b c", "a_b_c"), ("x", "x")]
)
def test_identifiers_resemble_the_name(name: str, expected: str) -> None:
    assert identifier(name) == expected


class Renamed(Net):
    """A network whose layers have the given names."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(4)
        for name in names:
            shape = (4, 4)
            weight = self._param(f"{name}.weight", *shape)
            self.at = self.b.emit1("dense", [self.at, weight], f"{name}.sum", loc=f"{name} (Linear)")
            self.at = self.b.emit1("tanh", [self.at], name)


NASTY = [
    "start", "cross_entropy", "sgd", "add", "out", "arena", "KERNEL", "uint8_t", "int", "main", "tanh", "memset",
    "initial_params", "consts", "strop_model_params", "strop_model_state", "a.b", "a_b", "a-b", "0", "layer0", "für",
]  # fmt: skip


def test_names_of_layers_never_clash(tmp_path: Path) -> None:
    """Keywords, names the file uses itself, and names that are one as identifiers; also with counters."""
    made = bundle(Renamed(NASTY).program())
    (x, y), *_ = batches(made.program, 1)
    expected = Interpreter(made.program, np.float32).train_step(x, y)
    for flags in ((), ("-DSTROP_COUNT_KERNELS",)):
        folder = tmp_path / f"{len(flags)}"
        folder.mkdir()
        stub = folder / "stub.c"
        stub.write_text('#include "strop.h"\nuint64_t strop_port_counter(void) { return 0; }\n')
        library = Library(made, folder, flags=(*flags, str(stub)))
        assert library.train_step(x, y) == pytest.approx(expected, rel=1e-5)


def test_reserved_words_are_what_the_file_uses() -> None:
    source = bundle(mlp()).files["strop_model.c"]
    globals_ = set(re.findall(r"^(?:static )?(?:const )?(?:union \{[^}]*\} |\w+ )(\w+)(?: =|;)", source, re.MULTILINE))
    assert globals_ <= RESERVED


@pytest.mark.parametrize(("function", "spared"), [("load_bf16", True), ("load_f16", False), ("half_add", False)])
def test_vectors_that_meet_no_binary16_are_spared_its_order_of_lanes(function: str, spared: bool) -> None:
    assert (FLOATS in vectors([Kernel((), f"strop_x8_{function}(w, 1, 8);")], flush=True)) == spared


def test_equal_layers_share_a_kernel() -> None:
    net = Net(6)
    for _ in range(4):
        net.dense(6).act("tanh")
    source = bundle(net.dense(3).program()).files["strop_model.c"]
    forward = [line for line in source.splitlines() if re.match(r"static void \w*dense_tanh\w*\(", line)]
    assert len(forward) == 1
    assert len(re.findall(rf"^    .*\b{forward[0].split('(')[0].split()[-1]}\(", source, re.MULTILINE)) == 8


@pytest.mark.parametrize(("board", "apart"), [("qemu-rv32v", True), ("qemu-cortex-m55", False)])
def test_kernels_that_are_called_again_stay_functions_where_the_core_prefers_that(board: str, apart: bool) -> None:
    program = Net(40).dense(40).act("relu").dense(40).act("relu").dense(3).program()
    text = stages(program, Backprop(), "cross_entropy", SGD(lr=0.1), board=board)[1].files["strop_model.c"]
    shared = re.findall(r"noinline\)\)\nstatic void (\w+)\(", text)
    step = text.split("float strop_model_train_step(")[1].split("\n}")[0]
    again = {name for name in re.findall(r" (\w+)\(", step) if step.count(f" {name}(") > 1} - {"KERNEL"}
    assert set(shared) == (again if apart else set())
    assert again


def test_init_starts_over(tmp_path: Path) -> None:
    library = Library(bundle(NETWORKS["cnn"](), "head-only"), tmp_path)
    before = {name: view.copy() for name, view in library.variables().items()}
    for x, y in batches(library.plan.program, 2):
        library.train_step(x, y)
    assert any(not np.array_equal(view, before[name]) for name, view in library.variables().items())
    library.c.strop_model_init()
    for name, view in library.variables().items():
        assert np.array_equal(view, before[name])
        assert np.array_equal(view, library.plan.program.initial[name])


@pytest.mark.parametrize(("loss", "label"), [("cross_entropy", "const int32_t *y"), ("mse", "const float *y")])
def test_the_header_says_the_labels_type(loss: str, label: str) -> None:
    made = bundle(mlp(3), loss=loss)
    header = made.files["strop_model.h"]
    assert f"float strop_model_train_step(const float *x, {label});" in header
    assert "#define STROP_MODEL_BATCH 3u" in header
    assert f"#define STROP_MODEL_Y_BYTES {made.program.only(Role.LABEL).bytes}u" in header
    assert "#define STROP_MODEL_X_BYTES 84u" in header
    assert "#define STROP_MODEL_OUT_BYTES 48u" in header


def test_the_header_needs_no_other_and_is_good_cpp(tmp_path: Path) -> None:
    (tmp_path / "strop_model.h").write_text(bundle(mlp()).files["strop_model.h"])
    text = 2 * '#include "strop_model.h"\n' + "int use(void); int use(void) { strop_model_init(); return 0; }\n"
    (tmp_path / "user.c").write_text(text)
    (tmp_path / "user.cpp").write_text(text)
    zig = (sys.executable, "-m", "ziglang", "cc", "-c", "-nostdinc++", "-Wall", "-Wextra", "-Werror")
    for name, standard in (("user.c", "-std=c11"), ("user.cpp", "-std=c++17")):
        command = [*zig, standard, str(tmp_path / name), "-o", str(tmp_path / "user.o")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rule", ["backprop", "tpsgd", "head-only"])
def test_the_table_is_the_manifests(name: str, rule: str, tmp_path: Path) -> None:
    """Tensors in the manifest's order: parameters, then state; and the hash of the Program."""
    made = bundle(NETWORKS[name](), rule)
    rows = re.findall(
        r"\{strop_model_(\w+)\.\w+, (\d+)u, (STROP_\w+), STROP_(\w+), 1, 0\}, /\* (.+) \*/",
        made.files["strop_model_table.c"],
    )
    expected = [
        ("params" if t["role"] == "param" else "state", str(t["bytes"]), "STROP_F32", t["role"].upper(), t["name"])
        for t in made.manifest["tensors"]
    ]
    assert rows == expected
    assert ", ".join(f"0x{byte:02x}" for byte in made.hash) in made.files["strop_model_table.c"]
    assert made.manifest["hash"] == made.hash.hex()
    for file, text in made.files.items():
        (tmp_path / file).write_text(text)
    command = ["gcc", "-fsyntax-only", "-std=c11", *WARNINGS, f"-I{RUNTIME}", str(tmp_path / "strop_model_table.c")]
    if shutil.which("gcc"):
        subprocess.run(command, check=True)


def test_save_writes_everything_whole(tmp_path: Path) -> None:
    made = bundle(mlp())
    made.save(tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *made.files, "program.txt", "manifest.json", "memory.txt", "memory.png",
    }  # fmt: skip
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == made.manifest
    assert (tmp_path / "out" / "program.txt").read_text() == made.program.text


def test_the_file_names_nothing_but_its_own_headers() -> None:
    for network, rule in product(NETWORKS, ("backprop", "tpsgd")):
        source = bundle(NETWORKS[network](), rule).files["strop_model.c"]
        assert set(re.findall(r'#include ([<"].*[>"])', source)) <= {
            '"strop_model.h"', "<stdbool.h>", "<stddef.h>", '"numerics.h"', '"rng.h"', '"strop.h"',
        }  # fmt: skip
        assert not re.search(r"\b(malloc|free|alloca|printf|memcpy|double)\b", source)


def test_frozen_values_are_constants() -> None:
    made = compiled(NETWORKS["cnn"](), HeadOnly(), "cross_entropy", SGD())
    source = stages(NETWORKS["cnn"](), HeadOnly(), "cross_entropy", SGD())[1].files["strop_model.c"]
    assert "static const strop_model_consts_t consts = {" in source
    for value in made.of(Role.CONST):
        assert f".{identifier(value.name)} = {{" in source
