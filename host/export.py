"""A bundle as a C library that needs nothing of strop: four files, an example, a Makefile and a README."""

import tempfile
from importlib.metadata import distributions
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from strop.errors import UsageError

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle

MODEL = ("strop_model.h", "strop_model.c")
RUNTIME = ("numerics.h", "numerics.c", "rng.h")

MAIN = """/* Trains on made-up samples and prints the loss: put yours in their place. */
#include <stdio.h>

#include "strop_model.h"

static float x[STROP_MODEL_X_BYTES / sizeof(float)];
static {label} y[STROP_MODEL_Y_BYTES / sizeof({label})];

int main(void) {{
    strop_model_init();
    for (int step = 0; step < 200; ++step) {{
        const int kind = step % {kinds};
        for (int i = 0; i < (int)(sizeof x / sizeof *x); ++i) {{
            x[i] = i % {kinds} == kind ? 1.0f : 0.0f;
        }}
        for (unsigned i = 0; i < sizeof y / sizeof *y; ++i) {{
            y[i] = {answer};
        }}
        const float loss = strop_model_train_step(x, y);
        if (step % 20 == 0) {{
            printf("step %d: loss %f\\n", step, (double)loss);
        }}
    }}
    return 0;
}}
"""

MAKEFILE = """# make                                  with gcc
# make CC=clang                         with clang
# make CC="python3 -m ziglang cc"       with zig (pip install ziglang)
CC = gcc
# -ffp-contract=off: a*b + c is rounded twice unless the code says otherwise, so that every compiler gives the same bits
CFLAGS = -O2 -std=c11 -Wall -Wextra -Wconversion -Werror -ffp-contract=off
SOURCES = main.c strop_model.c numerics.c

example: $(SOURCES) strop_model.h numerics.h rng.h
\t$(CC) $(CFLAGS) -o $@ $(SOURCES)

run: example
\t./example

clean:
\trm -f example

.PHONY: run clean
"""

README = """# {name}

A neural network that trains where it runs, as plain C11: no allocation, no operating system, no libm.

```c
#include "strop_model.h"
strop_model_init();                       /* once */
float loss = strop_model_train_step(x, y);
strop_model_infer(x, out);
```

| | |
|---|---|
| rule | {rule} |
| optimizer | {optimizer} |
| loss | {loss} |
| samples a step | {batch} |
| x | {x} |
| y | {y} |
| output | {output} |
| made for | {board} |

Compile `strop_model.c` and `numerics.c`; `strop_model.h` says the rest. Give your compiler `-ffp-contract=off` and
never `-ffast-math`: then every core computes the same bits. `make run` tries it on this computer.

`numerics.h`, `numerics.c` and `rng.h` are part of strop {strop}, Apache License 2.0 (LICENSE). `strop_model.h` and
`strop_model.c` are generated from your network and are yours.
"""


def export(bundle: "Bundle", folder: Path, *, force: bool = False) -> list[Path]:
    """Write the library to a folder, whole or not at all; returns its files.

    force: replace a folder that holds other files. Raises UsageError for such a folder without it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not force:
        raise UsageError(f"{folder} exists and is not empty", do="Name another folder, or add --force to replace it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            made = Path(temporary) / "new"
            made.mkdir()
            for name, text in contents(bundle).items():
                (made / name).write_text(text)
            if folder.exists():
                folder.rename(Path(temporary) / "old")
            made.rename(folder)
    except OSError as error:
        raise UsageError(f"the folder cannot be written: {error}", where=str(folder), do="Name another") from error
    return sorted(folder.iterdir())


def contents(bundle: "Bundle") -> dict[str, str]:
    """Every file of the library by name."""
    runtime = files("strop.runtime")
    return {
        **{name: bundle.files[name] for name in MODEL},
        **{name: runtime.joinpath(name).read_text() for name in RUNTIME},
        "main.c": _main(bundle),
        "Makefile": MAKEFILE,
        "README.md": _readme(bundle),
        "LICENSE": _license(),
    }


def _main(bundle: "Bundle") -> str:
    """The example: inputs whose ones lie k apart are of class k, or have the value k / 4."""
    if classes := bundle.manifest["classes"]:
        return MAIN.format(label="int32_t", kinds=classes, answer="kind")
    return MAIN.format(label="float", kinds=4, answer="(float)kind / 4.0f")


def _readme(bundle: "Bundle") -> str:
    facts = bundle.manifest
    tensors = {name: f"{facts[name]['dtype']} {tuple(facts[name]['shape'])}" for name in ("x", "y", "output")}
    fields = {name: facts[name] for name in ("name", "rule", "optimizer", "loss", "batch", "board", "strop")}
    return README.format(**fields, **tensors)


def _license() -> str:
    """The licence this package was installed with."""
    texts = (found.read_text("licenses/LICENSE") for found in distributions(name="strop"))
    return next(filter(None, texts), "Apache License 2.0: http://www.apache.org/licenses/LICENSE-2.0\n")
