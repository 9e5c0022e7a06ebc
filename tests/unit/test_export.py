"""Exported libraries: complete, laid out as each build system documents, compiled by strangers without a warning, and
the same bits as the twin."""

import configparser
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from ctypes import c_void_p
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from cbuild import build_shared
from exported import expected_lines, samples
from numpy.typing import NDArray

import strop
from strop.compiler.bundle import Bundle
from strop.errors import DataError, StropError, UsageError
from strop.host.arrays import write_weights
from strop.host.cli import run
from strop.host.export import FORMATS, contents, export, inference
from strop.host.export.formats import format_of
from strop.host.export.template import filled
from strop.host.zoo import load_model

LIBRARY = {
    "strop_model.h", "strop_model.c", "strop_model_table.c", "numerics.h", "numerics.c", "rng.h", "strop.h", "store.h",
    "store.c", "frame.h", "frame.c", "errors.def", "watch.h", "watch.c",
}  # fmt: skip
ALONE = {"strop_model.h", "strop_model.c", "numerics.h", "numerics.c", "rng.h"}
CLANG = next(filter(shutil.which, ("clang", *(f"clang-{number}" for number in range(30, 13, -1)))), "clang")
COMPILERS = {"gcc": "gcc", "clang": CLANG, "zig": f"{sys.executable} -m ziglang cc"}
CMAKE = shutil.which("cmake", path=str(Path(sys.executable).parent)) or shutil.which("cmake")
EXPORTS = pytest.mark.parametrize("name", FORMATS)


def made(rule: str = "tpsgd", **options: Any) -> Bundle:
    name, model, example = load_model("mlp-64-32-10")
    return strop.build(model, example, name=name, rule=rule, optimizer=strop.optim.SGD(lr=0.05), **options)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return made()


@pytest.fixture(scope="module")
def regression() -> Bundle:
    return made("backprop", loss="mse", batch=3)


def ran(command: Sequence[str | Path], folder: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def command_of(compiler: str) -> str:
    if not shutil.which(COMPILERS[compiler].split(maxsplit=1)[0]):
        pytest.skip(f"{compiler} is not installed")
    return COMPILERS[compiler]


def make(folder: Path, compiler: str, *words: str) -> list[str]:
    """Run make; what it printed but for its own words."""
    return ran(["make", "-s", f"CC={command_of(compiler)}", *words], folder).splitlines()


# --- c ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiler", COMPILERS)
def test_compiles_and_computes_what_the_twin_computes(bundle: Bundle, tmp_path: Path, compiler: str) -> None:
    export(bundle, tmp_path / "library")
    lines = make(tmp_path / "library", compiler, "run")
    assert lines == expected_lines(bundle, 10)
    assert lines[-1].endswith("100 % right, saved"), "it learns"


def test_the_example_goes_on_where_it_was(bundle: Bundle, tmp_path: Path) -> None:
    export(bundle, tmp_path / "library")
    make(tmp_path / "library", "gcc", "run")
    first, second, *_ = make(tmp_path / "library", "gcc", "run")
    assert first == "goes on from step 200"
    assert second == "step 220: loss 0.365, 100 % right, saved" or float(re.findall(r"loss (\S+),", second)[0]) < 0.45


def test_regression_and_batch(regression: Bundle, tmp_path: Path) -> None:
    export(regression, tmp_path / "library")
    losses = [float(line.split()[3].rstrip(",")) for line in make(tmp_path / "library", "gcc", "run")[1:]]
    assert losses[-1] < losses[0]


class Words(torch.nn.Module):
    """Looks whole numbers up."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = torch.nn.Embedding(7, 4), torch.nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.table(x.long()).flatten(1))
        return answer


def test_whole_numbers_as_input(tmp_path: Path) -> None:
    """Of an embedding: the sensor's samples stay below the number of rows."""
    bundle = strop.build(Words(), torch.zeros(1, 3), name="words")
    assert bundle.manifest["x"]["indices"] == 7
    export(bundle, tmp_path / "library")
    assert "saved" in make(tmp_path / "library", "gcc", "run")[-1]


def test_needs_only_what_is_there(bundle: Bundle) -> None:
    for layout in FORMATS.values():
        files = contents(bundle, layout)
        names = {Path(path).name for path in files}
        assert names >= LIBRARY
        for path, text in files.items():
            if path.endswith((".c", ".h", ".cpp", ".ino")):
                assert set(re.findall(r'#include "(.+?)"', text)) <= names | SYSTEM, path


SYSTEM = {"esp_partition.h", "freertos/FreeRTOS.h", "freertos/task.h"}


def test_a_cluster_is_refused() -> None:
    with pytest.raises(UsageError, match="several harts"):
        contents(made(board="qemu-rv32imf-smp"), format_of("c"))


# --- what is written ----------------------------------------------------------------------------------------------


@EXPORTS
def test_same_bytes_twice_and_zipped(bundle: Bundle, tmp_path: Path, name: str) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    texts = [
        {str(file.relative_to(folder)): file.read_bytes() for file in export(bundle, folder, format=name)}
        for folder in folders
    ]
    assert texts[0] == texts[1]
    zips = [export(bundle, tmp_path / number / "mine.zip", format=name)[0].read_bytes() for number in "12"]
    assert zips[0] == zips[1]
    with zipfile.ZipFile(tmp_path / "1" / "mine.zip") as archive:
        assert {path: archive.read(f"mine/{path}") for path in texts[0]} == texts[0]
        assert len(archive.namelist()) == len(texts[0])


@EXPORTS
def test_the_manifest_lists_every_file(bundle: Bundle, tmp_path: Path, name: str) -> None:
    files = {str(file.relative_to(tmp_path / "a")): file for file in export(bundle, tmp_path / "a", format=name)}
    facts = json.loads(files["strop.json"].read_text())
    assert set(facts["files"]) == set(files) - {"strop.json"}
    for path, row in facts["files"].items():
        data = files[path].read_bytes()
        assert row == {"bytes": len(data), "sha256": sha256(data).hexdigest()}
    assert facts["hash"] == bundle.hash.hex()
    assert (facts["format"], facts["kind"], facts["license"]) == (name, "training", "Apache-2.0")
    assert facts["strop"] == strop.__version__ if hasattr(strop, "__version__") else facts["strop"]


@EXPORTS
def test_readme_tells_what_it_is(bundle: Bundle, name: str) -> None:
    files = contents(bundle, format_of(name))
    for words in ("TpSGD", "float32 (1, 64)", "strop_model_train_step(x, y)"):
        assert words in files["README.md"]
    assert "Apache License" in files["LICENSE"]
    assert not any(re.search(r"@\w+@(?<!@PACKAGE_INIT@)", text) for text in files.values())


def test_keeps_other_peoples_files(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        export(bundle, folder)
    assert (folder / "thesis.tex").exists()
    export(bundle, folder, force=True)
    assert not (folder / "thesis.tex").exists()
    assert list(tmp_path.iterdir()) == [folder], "nothing half made stays behind"
    with pytest.raises(UsageError, match="exists and is a file"):
        export(bundle, folder / "LICENSE")
    (tmp_path / "a.zip").write_text("x")
    with pytest.raises(UsageError, match="exists"):
        export(bundle, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_text() == "x"


def test_a_failed_write_leaves_nothing(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def failing(self: Path, text: str, **_: str) -> int:
        written.append(self)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        return len(text)

    monkeypatch.setattr(Path, "write_text", failing)
    with pytest.raises(UsageError, match="No space left"):
        export(bundle, tmp_path / "library")
    assert not list(tmp_path.iterdir())


def test_an_unknown_format(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'zephyr'"):
        export(bundle, tmp_path / "a", format="zephir")


def test_templates() -> None:
    fields = {"name": "x", "many": ["a", "b"], "yes": True, "no": False}
    assert filled("@name@\n  -@many@@name@\n@yes@1\n@no@2\n@yes@@no@3\n@yes@@many@\n@at@\n", fields) == (
        "x\n  -ax\n  -bx\n1\na\nb\n@\n"
    )
    with pytest.raises(StropError, match="nothing fills"):
        filled("@other@", fields)


# --- build systems ------------------------------------------------------------------------------------------------


@pytest.fixture(params=["training", "inference"])
def either(bundle: Bundle, request: pytest.FixtureRequest) -> Bundle:
    return bundle if request.param == "training" else inference(bundle)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_cmake_builds_installs_and_is_found(bundle: Bundle, tmp_path: Path, compiler: str) -> None:
    """As the top-level project, and its example as a stranger to the installed package."""
    if not CMAKE:
        pytest.skip("cmake is not installed")
    source, build, own, there = tmp_path / "s", tmp_path / "b", tmp_path / "own", tmp_path / "installed"
    export(bundle, source, format="cmake")
    chosen = f"-DCMAKE_C_COMPILER={command_of(compiler).replace(' ', ';')}"
    strict = [chosen, "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_C_FLAGS=-Wall -Wextra -Wconversion -Werror"]
    ran([CMAKE, "-S", source, "-B", build, *strict], tmp_path)
    ran([CMAKE, "--build", build], tmp_path)
    assert ran([build / "example" / "example"], tmp_path).splitlines() == expected_lines(bundle, 10)
    ran([CMAKE, "--install", build, "--prefix", there], tmp_path)
    ran([CMAKE, "-S", source / "example", "-B", own, f"-DCMAKE_PREFIX_PATH={there}", *strict], tmp_path)
    ran([CMAKE, "--build", own], tmp_path)
    assert "goes on from step 200" in ran([own / "example"], tmp_path)


def sources_of(files: dict[str, str], folder: str) -> set[str]:
    return {path for path in files if path.startswith(folder) and path.endswith((".c", ".cpp"))}


def test_arduino_layout(either: Bundle) -> None:
    """Library specification 1.5: library.properties, sources in src/, sketches in a folder of their name."""
    files = contents(either, format_of("arduino"))
    properties = dict(line.split("=", 1) for line in files["library.properties"].splitlines())
    required = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"}
    assert required <= set(properties)
    assert all(properties.values())
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.\-]{0,62}", properties["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", properties["version"])
    assert properties["category"] in CATEGORIES
    assert f"src/{properties['includes']}" in files
    assert "examples/Sensor/Sensor.ino" in files
    assert not {path for path in files if path.startswith("utility/")}, "src/ is recursive, and then utility/ is not"
    for line in files["keywords.txt"].splitlines():
        assert re.fullmatch(r"\w+\t(KEYWORD[123]|LITERAL1)", line)


CATEGORIES = (
    "Display", "Communication", "Signal Input/Output", "Sensors", "Device Control", "Timing", "Data Storage",
    "Data Processing", "Other",
)  # fmt: skip

STUB = """
#pragma once
#include <stdint.h>
struct Line { void begin(long); void println(const char *); };
extern Line Serial;
void delay(unsigned long);
"""
EEPROM = """
#pragma once
#include <stdint.h>
struct Eeprom { uint8_t read(int); void write(int, uint8_t); void begin(unsigned); bool commit(); };
extern Eeprom EEPROM;
"""


@pytest.mark.parametrize("name", ["arduino", "platformio"])
@pytest.mark.parametrize("core", ["", "-DESP32"])
def test_sketches_are_cpp(either: Bundle, tmp_path: Path, name: str, core: str) -> None:
    """Against headers that declare what the sketch uses of its core."""
    folder, stubs = tmp_path / "library", tmp_path / "stubs"
    export(either, folder, format=name)
    stubs.mkdir()
    (stubs / "Arduino.h").write_text(STUB)
    (stubs / "EEPROM.h").write_text(EEPROM)
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-c", "-o", "sketch.o", f"-I{stubs}", f"-I{folder}/src"]
    sketch = sorted((folder / "examples").rglob("*.ino")) + sorted((folder / "examples").rglob("*.cpp"))
    assert sketch
    for file in sketch:
        ran([sys.executable, "-m", "ziglang", "c++", *flags, *([core] if core else []), "-x", "c++", file], tmp_path)


def test_arduino_sources_forbid_contraction(tmp_path: Path) -> None:
    """There is no place for a flag: gcc, told to fuse, must not."""
    if not (shutil.which("gcc") and shutil.which("objdump")):
        pytest.skip("gcc or objdump is not installed")
    export(made(board="qemu-rv32imac"), tmp_path / "library", format="arduino")
    text = (tmp_path / "library/src/strop_model.c").read_text()
    plain = text.partition("#endif\n")[2]
    fused = []
    for name, source in (("kept", text), ("plain", plain)):
        (tmp_path / "library/src" / f"{name}.c").write_text(source)
        flags = ["-O2", "-ffp-contract=fast", "-march=x86-64-v3", "-c"]
        ran(["gcc", *flags, f"{name}.c", "-o", tmp_path / f"{name}.o"], tmp_path / "library/src")
        fused.append(len(re.findall(r"\bvfn?m(?:add|sub)", ran(["objdump", "-d", tmp_path / f"{name}.o"], tmp_path))))
    assert fused[0] == 0
    assert fused[1] > 0, "or the test would show nothing"


def test_platformio_layout(either: Bundle) -> None:
    """library.json: what its schema requires, and files that exist; platformio.ini with environments."""
    files = contents(either, format_of("platformio"))
    facts = json.loads(files["library.json"])
    assert re.fullmatch(r"[\w\-. ]{1,50}", facts["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", facts["version"])
    assert {"description", "keywords", "license", "frameworks", "platforms"} <= set(facts)
    assert "-ffp-contract=off" in facts["build"]["flags"]
    assert f"src/{facts['headers']}" in files
    (example,) = facts["examples"]
    assert {f"{example['base']}/{file}" for file in example["files"]} == {p for p in files if p.startswith("examples/")}
    project = configparser.ConfigParser()
    project.read_string(files["examples/sensor/platformio.ini"])
    environments = [name for name in project.sections() if name.startswith("env:")]
    assert environments
    assert all({"platform", "board"} <= set(project[name]) for name in environments)
    assert f"env:{project['platformio']['default_envs']}" in environments


def cmake_calls(text: str) -> dict[str, list[str]]:
    """Arguments of each CMake command."""
    text = re.sub(r"#[^\n]*", "", text)
    return {name: words.split() for name, words in re.findall(r"(\w+)\(([^()]*)\)", text)}


def test_zephyr_layout(either: Bundle) -> None:
    """A module: zephyr/module.yml, its CMakeLists.txt and Kconfig, and a sample with its sample.yaml."""
    files = contents(either, format_of("zephyr"))
    module = yaml.safe_load(files["zephyr/module.yml"])
    assert module["build"] == {"cmake": ".", "kconfig": "Kconfig"}
    assert re.fullmatch(r"\w+", module["name"])
    assert {"CMakeLists.txt", "Kconfig"} <= set(files)
    assert all(any(path.startswith(f"{folder}/") for path in files) for folder in module["samples"])
    calls = cmake_calls(files["CMakeLists.txt"])
    assert set(calls["zephyr_library_sources"]) == sources_of(files, "src/")
    assert calls["zephyr_include_directories"] == ["include"]
    assert re.search(r"^config STROP_MODEL\n\tbool \".+\"\n\thelp\n\t  \S", files["Kconfig"], re.MULTILINE)
    sample = "samples/sensor"
    facts = yaml.safe_load(files[f"{sample}/sample.yaml"])
    assert {"name", "description"} <= set(facts["sample"])
    (test,) = facts["tests"].values()
    assert test["integration_platforms"]
    (pattern,) = facts["common"]["harness_config"]["regex"]
    assert re.search(pattern, "step 20: loss 2.372" if either.program.train_step else "class 1, made as 2")
    calls = cmake_calls(files[f"{sample}/CMakeLists.txt"])
    assert {f"{sample}/{path}" for path in calls["target_sources"][2:]} == sources_of(files, sample)
    options = files[f"{sample}/prj.conf"].splitlines()
    assert "CONFIG_STROP_MODEL=y" in options
    assert all(re.fullmatch(r"CONFIG_\w+=y", line) for line in options)


def test_esp_idf_layout(either: Bundle) -> None:
    """A component: idf_component.yml, idf_component_register, and an example project that overrides its path."""
    files = contents(either, format_of("esp-idf"))
    facts = yaml.safe_load(files["idf_component.yml"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", facts["version"])
    assert {"description", "license", "dependencies"} <= set(facts)
    assert "idf" in facts["dependencies"]
    words = cmake_calls(files["CMakeLists.txt"])["idf_component_register"]
    assert set(words[1 : words.index("INCLUDE_DIRS")]) == sources_of(files, "src/")
    example = "examples/sensor"
    calls = cmake_calls(files[f"{example}/CMakeLists.txt"])
    assert calls["include"] == ["$ENV{IDF_PATH}/tools/cmake/project.cmake"]
    assert "project" in calls
    words = cmake_calls(files[f"{example}/main/CMakeLists.txt"])["idf_component_register"]
    listed = {f"{example}/main/{word}" for word in words if word.endswith(".c")}
    assert listed == sources_of(files, example)
    needs = yaml.safe_load(files[f"{example}/main/idf_component.yml"])["dependencies"]
    place = Path(example, "main", needs["strop_model"]["override_path"])
    assert Path("/", place).resolve() == Path("/")
    assert (f"{example}/partitions.csv" in files) == bool(either.program.train_step)


def test_a_partition_holds_two_checkpoints(bundle: Bundle, tmp_path: Path) -> None:
    """The table's number is what flash.h computes."""
    files = contents(bundle, format_of("esp-idf"))
    row = next(line for line in files["examples/sensor/partitions.csv"].splitlines() if line.startswith("model"))
    size = int(row.split(",")[-1], 16)
    export(bundle, tmp_path / "library", format="esp-idf")
    text = '#include "flash.h"\nunsigned bytes(void);\nunsigned bytes(void) { return FLASH_BYTES(4096u, 16u); }\n'
    main = tmp_path / "library/examples/sensor/main"
    library = build_shared([text], flags=(f"-I{main}", f"-I{tmp_path}/library/include"))
    assert library.bytes() == size


# --- inference ----------------------------------------------------------------------------------------------------


def answers(bundle: Bundle, folder: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the C of an inference library gives."""
    export(bundle, folder)
    library = build_shared([folder / "strop_model.c", folder / "numerics.c"], flags=(f"-I{folder}", "-march=native"))
    outs = np.empty((len(x), *bundle.manifest["output"]["shape"][1:]), np.float32)
    for sample, out in zip(x, outs, strict=True):
        library.strop_model_infer(sample.ctypes.data_as(c_void_p), out.ctypes.data_as(c_void_p))
    return outs


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rule", ["tpsgd", "cafo"])
def test_inference_has_the_same_bits(tmp_path: Path, dtype: str, rule: str) -> None:
    bundle = made(rule, dtype=dtype)
    x, y = samples(60)
    device = bundle.twin()
    device.train(x, y)
    alone = inference(bundle, device.tensors())
    assert {Path(path).name for path in contents(alone, format_of("c"))} >= ALONE
    assert not {Path(path).name for path in contents(alone, format_of("c"))} & (LIBRARY - ALONE)
    got = answers(alone, tmp_path / "library", x)
    assert np.array_equal(got.view(np.uint32), device.infer(x).view(np.uint32))
    assert not np.array_equal(got, bundle.twin().infer(x)), "or nothing was trained"


def test_inference_keeps_nothing_in_ram(bundle: Bundle, tmp_path: Path) -> None:
    alone = inference(bundle)
    source = alone.files["strop_model.c"]
    assert alone.plan.sizes["params"] == alone.plan.sizes["state"] == 0
    assert "static const strop_model_consts_t consts" in source
    assert not re.search("train|init|label", source.partition("*/")[2])
    assert "strop_model_init" not in alone.files["strop_model.h"]
    export(alone, tmp_path / "library")
    assert all(line.startswith("class ") for line in make(tmp_path / "library", "gcc", "run")[1:])


def test_inference_of_a_regression(regression: Bundle, tmp_path: Path) -> None:
    export(inference(regression), tmp_path / "library")
    assert make(tmp_path / "library", "gcc", "run")[-1].startswith("output ")


def test_inference_needs_what_the_rule_trained() -> None:
    bundle = made("cafo")
    names = [row["name"] for row in bundle.manifest["tensors"] if row["role"] == "param"]
    state = [row["name"] for row in bundle.manifest["tensors"] if row["role"] == "state"]
    assert state
    tensors = bundle.twin().tensors()
    with pytest.raises(UsageError, match="checkpoint"):
        inference(bundle, {name: tensors[name] for name in names} or {"other": np.zeros(1)})
    with pytest.raises(DataError, match="shape"):
        inference(bundle, {**tensors, state[0]: np.zeros(3)})


@pytest.fixture
def trained(bundle: Bundle, tmp_path: Path) -> Iterator[Path]:
    device = bundle.twin()
    device.train(*samples(20))
    write_weights(tmp_path / "weights.pt", device.state_dict())
    np.savez(tmp_path / "checkpoint.npz", **{f"tensor/{name}": data for name, data in device.tensors().items()})
    yield tmp_path


@pytest.mark.parametrize("file", ["weights.pt", "checkpoint.npz"])
def test_the_command(
    bundle: Bundle, trained: Path, file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    words = ["export", "mlp-64-32-10", "--rule", "tpsgd", "--lr", "0.05", "--out", "there", "--json"]
    assert run([*words, "--inference", "--weights", file]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["kind"], document["format"]) == ("inference", "c")
    device = bundle.twin()
    device.train(*samples(20))
    expected = contents(inference(bundle, device.tensors()), format_of("c"))["strop_model.c"]
    assert Path("there/strop_model.c").read_text() == expected
    assert set(document["files"]) == {str(p.relative_to("there")) for p in Path("there").rglob("*") if p.is_file()}


def test_the_command_wants_weights(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["export", "mlp-64-32-10", "--inference", "--out", str(tmp_path / "a"), "--json"]) == 1
    assert "not trained" in json.loads(capsys.readouterr().out)["error"]["what"]
    assert run(["export", "mlp-64-32-10", "--format", "cmak", "--out", str(tmp_path / "a"), "--json"]) == 1
    assert "cmake" in json.loads(capsys.readouterr().out)["error"]["do"]
