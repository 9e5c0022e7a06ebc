"""`export`: a model for a user's own build system."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from strop.errors import UsageError
from strop.host.arrays import read_weights
from strop.host.cli.choices import bundle_of
from strop.host.cli.command import Outcome, verb
from strop.host.cli.options import Build, Model, Shared, Weights
from strop.host.export import FORMATS, check_free
from strop.host.export import export as write
from strop.host.export import inference as frozen
from strop.host.export.formats import format_of
from strop.host.export.inference import CHECKPOINT

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle

Out = Annotated[Path, typer.Option("--out", "-o", help="The folder to write, or a .zip.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a folder that is not empty, or a file.")]
Format = Annotated[str, typer.Option("--format", "-f", help=f"Build system: {', '.join(FORMATS)}.")]
Inference = Annotated[bool, typer.Option("--inference", help="Trained weights and their network alone, in flash.")]


@verb()
def export(
    shared: Shared, model: Model, build: Build, start: Weights, out: Out = Path("strop_model"), format: Format = "c",  # noqa: A002
    inference: Inference = False, force: Force = False,
) -> Outcome:  # fmt: skip
    """Write the model as a C library with an example, for your own build system; it needs nothing of strop."""
    format_of(format)
    check_free(out, force=force)
    bundle = _bundle(shared, model, build, start, alone=inference)
    files = write(bundle, out, format=format, force=force)
    folder = out if out.is_dir() else out.parent
    document: dict[str, Any] = {
        "folder": str(out), "format": format, "kind": "inference" if inference else "training",
        "files": [str(file.relative_to(folder)) for file in files], "hash": bundle.hash.hex(),
        "model": bundle.manifest["name"], "board": bundle.board.name,
    }  # fmt: skip

    def show(console: Console) -> None:
        for file in files:
            console.print(f"{file}  {file.stat().st_size:,} B", soft_wrap=True, markup=False)

    return Outcome(document, show)


def _bundle(shared: Shared, model: str, build: Build, start: Weights, *, alone: bool) -> "Bundle":
    """What is exported; for inference, with the weights of a file or of a run's checkpoint."""
    from strop.host.zoo import MODELS

    if not alone:
        return bundle_of(model, build, shared, start.weights)
    if not start.weights:
        if model in MODELS:
            raise UsageError(f"{model} is not trained", do="Name weights with --weights, such as a run's weights.pt")
        return frozen(bundle_of(model, build, shared))
    weights = read_weights(Path(start.weights))
    checkpoint = any(name.startswith(CHECKPOINT) for name in weights)
    return frozen(bundle_of(model, build, shared, "" if checkpoint else start.weights), weights)
