"""`report`: the page of a run, again."""

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from strop.errors import UsageError
from strop.host.cli.choices import bundle_of, device_of, samples_for, signature_of
from strop.host.cli.command import Outcome, verb
from strop.host.cli.options import Build, Shared, Tools
from strop.host.cli.show import facts
from strop.host.picture import Curve
from strop.host.report import write_report
from strop.host.runs import read_report
from strop.host.trainer import Checkpoint

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle
    from strop.host.profile import Profile

COUNTED = 3
"""Steps that kernels are counted over."""

Folder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run.", show_default=False)]
Counted = Annotated[bool, typer.Option("--profile", help="Count each kernel's instructions, on the emulated board.")]
Group = TypeVar("Group")


@verb()
def report(shared: Shared, run: Folder, profile: Counted = False) -> Outcome:
    """Write the report.html of a training run anew, with the cost of each kernel if you like."""
    found = read_report(run)
    settings = found.get("settings", {})
    if found.get("verb") != "train" or "model" not in settings:
        raise UsageError(f"{run} is not the folder of a training run", do="Name the folder that train printed")
    saved = Checkpoint.load(run / "checkpoint.npz")
    curve = Curve(saved.losses.tolist(), [(int(step), float(value)) for step, value in saved.accuracy])
    build, tools = _group(Build, settings), _group(Tools, settings)
    there = _group(Shared, {**settings, "json": shared.json, "quiet": shared.quiet, "no_progress": shared.no_progress})
    bundle = bundle_of(str(settings["model"]), build, there, str(settings.get("weights", "")))
    costs = _profile(bundle, there, tools) if profile else None
    page = write_report(run, found, bundle, curve, toolchain=tools.toolchain, profile=costs)
    document = {"report": str(page), "bytes": page.stat().st_size}
    return Outcome(document, lambda out: facts(out, document))


def _group(kind: type[Group], settings: dict[str, Any]) -> Group:
    """A group of options as the run had it."""
    return kind(**{field.name: settings[field.name] for field in fields(kind) if field.name in settings})  # type: ignore[arg-type]


def _profile(bundle: "Bundle", shared: Shared, tools: Tools) -> "Profile":
    from strop.host.profile import profile as measure

    x, y = samples_for(signature_of(bundle), COUNTED, 0)
    start = partial(device_of, bundle, shared, tools, framed=True)
    with shared.terminal.meter("profile", 2 * COUNTED) as meter:
        return measure(bundle, x, y, lambda counted: start(profile=counted), meter.advance)
