"""`train` and `eval`."""

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
import typer

from strop.errors import UsageError
from strop.host.arrays import write_weights
from strop.host.cli.choices import bundle_of, device_of, record, signature_of
from strop.host.cli.command import Outcome, verb
from strop.host.cli.options import Build, Data, Folder, Keep, Length, Model, Shared, Tools, Weights
from strop.host.cli.show import facts
from strop.host.data import Order, load_data
from strop.host.health import Watch
from strop.host.picture import Curve, learning_curves
from strop.host.report import NAME, write_report
from strop.host.runs import Run, read_report
from strop.host.trainer import Checkpoint, Training, identity

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle
    from strop.host.device import Device

RECENT = 100
"""Steps over which the final loss is averaged."""

OptionalModel = Annotated[str, typer.Argument(metavar="MODEL", help="As for the other verbs; known with --resume.")]
Group = TypeVar("Group", Shared, Build, Data, Keep, Length, Tools, Weights)


@verb()
def train(
    context: typer.Context, shared: Shared, build: Build, data: Data, length: Length, start: Weights, folder: Folder,
    tools: Tools, keep: Keep, model: OptionalModel = "",
) -> Outcome:  # fmt: skip
    """Train a network on a board; leaves weights, checkpoint, learning curve and report in the run's folder."""
    if length.resume:
        saved = _saved(context, length.resume)
        model = model or str(saved["model"])
        shared, build, data = _merged(shared, saved), _merged(build, saved), _merged(data, saved)
        length, start, tools = _merged(length, saved), _merged(start, saved), _merged(tools, saved)
        keep = _merged(keep, saved)
    if not model:
        raise UsageError("no model is given", do="Name a built-in, or file.py:callable")
    bundle = bundle_of(model, build, shared, start.weights)
    samples = load_data(data.data, signature_of(bundle), seed=build.seed, split=data.split)
    order = Order(len(samples.x), build.batch, build.seed)
    stop = _stop(length, order)
    checkpoint = _checkpoint(length.resume, identity(bundle, samples, order))
    place = folder.run_dir or length.resume
    with (
        record("train", bundle.board, tools, place, shared, build, data, length, start, keep, model=model) as run,
        device_of(bundle, shared, tools, store=keep.store) as device,
    ):
        every = length.checkpoint_every or order.steps_per_epoch
        watch = Watch(shared.terminal.note)
        training = Training(device, samples, order, run.path("checkpoint.npz"), every, watch=watch)
        run.publish(partial(_page, run, bundle, training, tools))
        device.reset()
        if keep.autosave:
            device.autosave(keep.autosave)
        if checkpoint:
            training.take_up(checkpoint)
        with shared.terminal.meter("train", stop, done=training.step) as meter:
            training.run(stop, meter)
        result = _leave(run, device, training, meter.rate)
    shown = {name: f"{value:,} {bundle.board.counter.unit}" if name == "cost_per_step" else value
             for name, value in result.items()}  # fmt: skip
    return Outcome(result, lambda out: facts(out, shown))


@verb("eval")
def evaluate(
    shared: Shared, model: Model, build: Build, data: Data, start: Weights, folder: Folder, tools: Tools
) -> Outcome:
    """Measure a network on held-out samples, with --weights or with what a board on --port has learnt."""
    bundle = bundle_of(model, build, shared, start.weights)
    samples = load_data(data.data, signature_of(bundle), seed=build.seed, split=data.split)
    with (
        record("eval", bundle.board, tools, folder.run_dir, shared, build, data, start, model=model) as run,
        device_of(bundle, shared, tools) as device,
    ):
        x, y = samples.held_out
        with shared.terminal.meter("eval", -(-len(x) // build.batch)) as meter:
            score = device.evaluate(x, y, on_step=lambda _: meter.advance())
        where = {"board": device.name, "run": str(run.folder)}
        result = {"model": model, "samples": len(x), _score(device): score, **where}
        run.add(result=result)
    return Outcome(result, lambda out: facts(out, result))


def _saved(context: typer.Context, folder: Path) -> dict[str, Any]:
    """Options of the run to resume, without those that are given again."""
    settings = read_report(folder).get("settings", {})
    if "model" not in settings:
        raise UsageError(f"{folder} is not the folder of a training run", do="Name the folder that train printed")
    given = {name for name in settings if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"}
    return {name: value for name, value in settings.items() if name not in given}


def _checkpoint(folder: Path | None, who: str) -> Checkpoint | None:
    """The checkpoint to go on from, of the same run; None for a fresh run, and for one that reached none."""
    if folder is None or not (folder / "checkpoint.npz").exists():
        return None
    checkpoint = Checkpoint.load(folder / "checkpoint.npz")
    checkpoint.check(who)
    return checkpoint


def _merged(group: Group, saved: dict[str, Any]) -> Group:
    return replace(group, **{f.name: saved[f.name] for f in fields(group) if f.name in saved})


def _stop(length: Length, order: Order) -> int:
    counts = {"epochs": length.epochs, "steps": length.steps, "checkpoint-every": length.checkpoint_every}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UsageError(f"--{name} must be at least 1, not {value}")
    return length.epochs * order.steps_per_epoch if length.steps is None else length.steps


def _leave(run: Run, device: "Device", training: Training, rate: float) -> dict[str, Any]:
    """Write the weights, the curve and the report; returns the result."""
    state = device.state_dict()
    for name in ("weights.pt", "weights.npz"):
        write_weights(run.path(name), state)
    curve = Curve(training.losses, training.accuracy)
    learning_curves(run.path("learning-curve.png"), {str(run.report["settings"]["rule"]): curve}, _title(device))
    score = {_score(device): training.accuracy[-1][1]} if training.accuracy else {}
    result = {
        "model": run.report["settings"]["model"],
        "rule": run.report["settings"]["rule"],
        "board": device.name,
        "steps": training.step,
        "loss": float(np.mean(training.losses[-RECENT:])),
        **score,
        "steps_per_second": round(rate, 1),
        **({"cost_per_step": round(training.mean_cost)} if training.cost else {}),
        "weights": str(run.path("weights.pt")),
        "report": str(run.path(NAME)),
        "run": str(run.folder),
    }
    run.add(result=result)
    return result


def _page(run: Run, bundle: "Bundle", training: Training, tools: Tools, report: Mapping[str, Any]) -> None:
    write_report(run.folder, report, bundle, Curve(training.losses, training.accuracy), toolchain=tools.toolchain)


def _score(device: "Device") -> str:
    return "accuracy" if device.bundle.manifest["classes"] else "mean_squared_error"


def _title(device: "Device") -> str:
    return _score(device).replace("_", " ")
