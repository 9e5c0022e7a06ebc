"""`tune`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from strop.errors import UsageError
from strop.host.arrays import write_file
from strop.host.cli.choices import bundle_of, device_of, record, samples_for, signature_of
from strop.host.cli.command import Outcome, verb
from strop.host.cli.options import Build, Folder, Model, Shared, Tools
from strop.host.cli.show import table

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle
    from strop.host.device import Device
    from strop.host.tune import Tuning

FILE = "strop-schedules.json"

Budget = Annotated[int, typer.Option(help="Firmwares to build and measure.", min=1)]
AnySize = Annotated[bool, typer.Option("--any-size", help="Take the fastest schedules, however long their code.")]
TuneSteps = Annotated[int, typer.Option("--steps", help="Training steps to measure each on.", min=1)]


@verb()
def tune(
    shared: Shared, model: Model, build: Build, folder: Folder, tools: Tools, budget: Budget = 24, steps: TuneSteps = 3,
    any_size: AnySize = False,
) -> Outcome:  # fmt: skip
    """Search for faster schedules by measuring on a board; keeps them in --schedules, or in strop-schedules.json."""
    from strop.compiler.passes.tuned import Schedules, read_schedules
    from strop.host.tune import WORTH
    from strop.host.tune import tune as search

    if shared.port:
        raise UsageError("tune flashes firmware of its own, so it takes no --port")
    file = Path(build.schedules or FILE)
    if not file.parent.is_dir():
        raise UsageError(f"the folder {file.parent} does not exist", do="Make it, or name another file")
    known = read_schedules(file) if file.exists() else Schedules()
    build = replace(build, schedules="")
    bundle = bundle_of(model, build, shared)
    x, y = samples_for(signature_of(bundle), steps, build.seed)

    def start(candidate: "Bundle", counted: bool) -> "Device":
        return device_of(candidate, shared, tools, profile=counted, framed=True)

    with (
        record("tune", bundle.board, tools, folder.run_dir, shared, build, model=model, file=str(file)) as run,
        shared.terminal.meter("tune", budget + 1) as meter,
    ):
        found = search(
            bundle, x, y, start, budget=budget, known=known, worth=0 if any_size else WORTH,
            toolchain=tools.toolchain, on_build=meter.advance,
        )  # fmt: skip
        merged = known.with_entries(bundle.board.isa, found.entries)
        write_file(file, merged.text.encode())
        result = {"model": model, "board": bundle.board.name, "file": str(file), **found.to_json()}
        run.add(result=result)
    return Outcome(result, lambda out: _show(out, found, file))


def _show(out: Console, found: "Tuning", file: Path) -> None:
    rows = [
        (
            kernel.name, ", ".join(f"{name} {value}" for name, value in kernel.tiling.items()),
            f"{kernel.bytes_before:,}", f"{kernel.bytes_after:,}", f"{kernel.before:,.0f}", f"{kernel.after:,.0f}",
        )
        for kernel in found.kernels
    ]  # fmt: skip
    total = ("step", "", "", "", f"{found.before:,.0f}", f"{found.after:,.0f}")
    table(out, ("kernel", "tiling", "bytes", "tuned", "instructions", "tuned"), [*rows, total], numbers=4)
    out.print(f"{file}: build with --schedules {file}", soft_wrap=True, markup=False)
