"""The files of a library by path: what the model needs of the runtime, an example, and what a build system asks for."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import distributions
from importlib.resources import files
from math import prod
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from strop.compiler.ir import digest
from strop.errors import UsageError
from strop.host.export.formats import Format
from strop.host.export.template import Fields, template, templates

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle

SCHEMA = 1
"""Version of strop.json's layout."""

TRAINING = ("numerics.c", "frame.c", "store.c", "watch.c")
INFERENCE = ("numerics.c",)
"""C files of the runtime that a library has; headers follow from what they include."""

PUBLIC = ("strop_model.h", "store.h", "watch.h", "strop.h", "frame.h", "errors.def")
"""What users include, and what that includes."""

LICENSE = "Apache-2.0"

CONTRACT = """/* This build system takes no -ffp-contract=off: a*b + c is rounded twice unless the code says it. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

"""


def contents(bundle: "Bundle", layout: Format) -> dict[str, str]:
    """Every file of the library by its path in the folder, sorted."""
    parts = sources(bundle)
    paths = {name: f"{layout.headers if name in PUBLIC else layout.sources}{name}" for name in parts}
    library = {paths[name]: _contracted(name, text, layout) for name, text in parts.items()}
    fields = fields_of(bundle, layout, list(paths.values()))
    rest = {path: template(f"{layout.name}/{path}", fields) for path in templates(layout.name)}
    if not fields["train"]:
        rest.pop("examples/sensor/partitions.csv", None)
    made = {**library, **_example(layout, fields), **rest}
    made |= {"README.md": template("README.md", fields), "LICENSE": _license()}
    made["strop.json"] = json.dumps(_manifest(bundle, layout, made), indent=2) + "\n"
    return dict(sorted(made.items()))


def sources(bundle: "Bundle") -> dict[str, str]:
    """The library itself: generated C, and what that needs of the runtime. Raises UsageError for a cluster's."""
    runtime, found = files("strop.runtime"), dict(bundle.files)
    wanted = list(_included(found.values())) + list(TRAINING if trains(bundle) else INFERENCE)
    while wanted:
        name = wanted.pop()
        if name == "team.h":
            raise UsageError(
                "a library for several harts needs strop's own start-up code", where=bundle.board.name,
                do="Export for a board with one core",
            )  # fmt: skip
        if name not in found:
            found[name] = runtime.joinpath(name).read_text(encoding="utf-8")
            wanted += _included([found[name]])
    return found


def trains(bundle: "Bundle") -> bool:
    """Whether the bundle has a training step."""
    return bool(bundle.program.train_step)


def _included(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from re.findall(r'^\s*#\s*include "(.+?)"', text, re.MULTILINE)


def _contracted(name: str, text: str, layout: Format) -> str:
    return CONTRACT + text if layout.contracted and name in ("strop_model.c", "numerics.c") else text


def _example(layout: Format, fields: Fields) -> dict[str, str]:
    """The example: its own files, those of the way it is used, and its program."""
    names = {name: f"common/{name}" for name in ("example.h", "line.h", "sample.c", "sample.h")}
    names["example.c"] = "training/example.c" if fields["train"] else "inference/example.c"
    if fields["train"]:
        names |= {"flash.h": "flash/flash.h", layout.flash[0]: layout.flash[1]}
    if layout.main:
        names[layout.main[0]] = layout.main[1]
    return {f"{layout.example}{name}": template(path, fields) for name, path in names.items()}


def fields_of(bundle: "Bundle", layout: Format, paths: list[str]) -> Fields:
    """What fills the places of the templates."""
    train, classes = trains(bundle), bool(bundle.manifest["classes"])
    return {
        **_texts(bundle, train), **_sample(bundle), "train": train, "infer": not train, "classes": classes,
        "values": not classes, "use": layout.use, "sources": sorted(_c_names(paths)),
        **_example_names(layout, train), "checkpoint": str(_state_bytes(bundle)), "partition": hex(_partition(bundle)),
    }  # fmt: skip


def _c_names(paths: Iterable[str]) -> Iterator[str]:
    return (PurePosixPath(path).name for path in paths if path.endswith(".c"))


def _example_names(layout: Format, train: bool) -> dict[str, Any]:
    """The example's C files, and all its files as PlatformIO lists them."""
    main = layout.main[0] if layout.main else "main.c"
    names = ["example.c", "sample.c", main, *([layout.flash[0]] if train else [])]
    headers = ["example.h", "line.h", "sample.h", *(["flash.h"] if train else [])]
    listed = ["platformio.ini", *(f"src/{name}" for name in [*names, *headers])]
    return {"examples": sorted(names), "example_json": ", ".join(json.dumps(name) for name in sorted(listed))}


def _texts(bundle: "Bundle", train: bool) -> dict[str, str]:
    """What the library says of itself."""
    facts, keep = bundle.manifest, bundle.plan.sizes
    what = "A neural network that trains where it runs" if train else "A trained neural network"
    learning = f"{facts.get('rule', '')}, step by step. " if train else ""
    ram, flash = keep["params"] + keep["state"] + keep["arena"], keep["params"] + keep["const"]
    return {
        **{key: str(facts.get(key, "")) for key in ("name", "board", "dtype", "batch", "rule", "optimizer", "loss")},
        **{key: _described(facts[key]) for key in ("x", "y", "output")},
        "version": str(facts["strop"]), "title": f"strop_{re.sub(r'[^A-Za-z0-9_]+', '_', facts['name'])}",
        "about": what, "sentence": f"{what}, in plain C.", "call": "step" if train else "call",
        "paragraph": f"{facts['name']}: {learning}No allocation, no operating system, no libm.",
        "keywords": "machine learning, neural network, on-device training, tinyml",
        "memory": f"{ram:,} B of RAM beside the stack; {flash:,} B of flash for parameters, beside the code",
    }  # fmt: skip


def _described(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "not used"
    return f"{entry['dtype']} ({', '.join(map(str, entry['shape']))})"


def _sample(bundle: "Bundle") -> dict[str, str | bool]:
    """The example's sensor: samples of a kind have ones in places of their own; the kind is class or value."""
    facts, label = bundle.manifest, bundle.manifest["y"]
    batch, kinds = facts["batch"], facts["classes"] or 4
    rows = facts["x"].get("indices")
    value = f"(float)((i + kind) % {rows})" if rows else "(i % KINDS == kind ? 1.0f : 0.0f) + 0.25f * noise()"
    count = prod(label["shape"]) // batch if label else 1
    return {
        "samples": str(batch), "x_count": str(prod(facts["x"]["shape"]) // batch), "y_count": str(count),
        "kinds": str(kinds), "value": value,
        "label": "int32_t" if facts["classes"] else "float",
        "noise": not rows, "answer": "kind" if facts["classes"] else "(float)kind / (float)KINDS",
    }  # fmt: skip


def _state_bytes(bundle: "Bundle") -> int:
    return sum(row["bytes"] for row in bundle.manifest["tensors"])


def _partition(bundle: "Bundle", sector: int = 4096, unit: int = 16) -> int:
    """Bytes of a flash partition for two checkpoints: FLASH_BYTES of flash.h."""
    slot = 48 + 9 * unit + -(-_state_bytes(bundle) // unit) * unit
    return 2 * -(-slot // sector) * sector


def _manifest(bundle: "Bundle", layout: Format, made: Mapping[str, str]) -> dict[str, Any]:
    """strop.json: where the library comes from, what it costs, and every file."""
    facts = {key: value for key, value in bundle.manifest.items() if key != "files"}
    rows = {path: {"bytes": len(text.encode()), "sha256": digest(text.encode())} for path, text in sorted(made.items())}
    kind = "training" if trains(bundle) else "inference"
    return {"schema": SCHEMA, "format": layout.name, "kind": kind, "license": LICENSE, **facts, "files": rows}


def _license() -> str:
    """The licence this package was installed with."""
    texts = (found.read_text("licenses/LICENSE") for found in distributions(name="strop"))
    return next(filter(None, texts), "Apache License 2.0: http://www.apache.org/licenses/LICENSE-2.0\n")
