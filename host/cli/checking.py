"""`validate`, `profile` and `demo`."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from strop.errors import UsageError
from strop.host.cli.choices import (
    bundle_of,
    device_of,
    optimizer_of,
    record,
    replay_of,
    rule_of,
    samples_for,
    signature_of,
)  # fmt: skip
from strop.host.cli.command import Outcome, verb
from strop.host.cli.options import Build, Folder, Model, Shared, Tools
from strop.host.cli.show import facts, table
from strop.host.runs import Run

if TYPE_CHECKING:
    from strop.host.demo import Result
    from strop.host.profile import Profile
    from strop.host.reference import Reference
    from strop.host.validate import Verdict

LAYERS = "layers"
"""The MODEL that stands for single layers, each in a net of its own."""

ValidateSteps = Annotated[int, typer.Option("--steps", help="Training steps to compare.", min=1)]
ProfileSteps = Annotated[int, typer.Option("--steps", help="Training steps to average over.", min=1)]


@verb()
def validate(
    shared: Shared, model: Model, build: Build, folder: Folder, tools: Tools, steps: ValidateSteps = 500
) -> Outcome:
    """Prove that board and twin compute the same bits, and measure how far float64 PyTorch is."""
    from strop.host.device import twin
    from strop.host.reference.base import one_thread
    from strop.host.validate import validate as compare

    bundle, reference = bundle_of(model, build, shared), _reference(model, build)
    x, y = samples_for(signature_of(bundle), steps, build.seed)
    with (
        record("validate", bundle.board, tools, folder.run_dir, shared, build, model=model, steps=steps) as run,
        device_of(bundle, shared, tools, framed=True) as board,
        twin(bundle, toolchain=tools.toolchain) as pc,
        shared.terminal.meter("validate", steps) as meter,
        one_thread(),
    ):
        board.reset()
        verdict = compare(board, pc, reference, x, y, meter.advance)
        run.add(result=verdict.to_json())
    status = 0 if verdict.passed else 1
    return Outcome(verdict.to_json(), lambda out: _show_verdict(out, verdict, bundle.board.name), status)


@verb()
def profile(
    shared: Shared, model: Model, build: Build, folder: Folder, tools: Tools, steps: ProfileSteps = 10
) -> Outcome:
    """Count the instructions of a training step, in all and by kernel; of MODEL `layers`, those of single layers."""
    from strop.host.profile import profile as measure

    if shared.port:
        raise UsageError("profile flashes firmware of its own, so it takes no --port")
    if model == LAYERS:
        return _profile_layers(shared, folder, tools)
    bundle = bundle_of(model, build, shared)
    x, y = samples_for(signature_of(bundle), steps, build.seed)
    with (
        record("profile", bundle.board, tools, folder.run_dir, shared, build, model=model, steps=steps) as run,
        shared.terminal.meter("profile", 2 * steps) as meter,
    ):
        start = partial(device_of, bundle, shared, tools, framed=True)
        result = measure(bundle, x, y, lambda counted: start(profile=counted), meter.advance)
        result.draw(run.path("kernels.png"))
        run.add(result=result.to_json())
    return Outcome(result.to_json(), lambda out: _show_profile(out, result))


def _profile_layers(shared: Shared, folder: Folder, tools: Tools) -> Outcome:
    """Instructions a multiply-accumulate of single layers."""
    from strop.host.layers import layer_costs, nets
    from strop.targets.board import load_board

    board, start = load_board(shared.board), partial(device_of, shared=shared, tools=tools, profile=True, framed=True)
    with (
        record("profile", board, tools, folder.run_dir, shared, model=LAYERS) as run,
        shared.terminal.meter("profile layers", len(nets())) as meter,
    ):
        costs = layer_costs(board, start, meter.advance)
        run.add(result=[cost.to_json() for cost in costs])
    rows = [
        (c.layer, c.step, f"{c.instructions:,.0f}", f"{c.macs:,}", f"{c.instructions_per_mac:.2f}",
         f"{c.bound / c.macs:.2f}" if c.bound else "")
        for c in costs
    ]  # fmt: skip
    heads = ("layer", "step", "instructions", "MACs", "per MAC", "bound")
    return Outcome([cost.to_json() for cost in costs], lambda out: table(out, heads, rows, numbers=4))


@verb()
def demo(shared: Shared, folder: Folder, tools: Tools) -> Outcome:
    """Train digits-cnn on an emulated board by tpSGD and by backprop, and compare it with twin and PyTorch."""
    from strop.host.demo import BOARD, MODEL, run_demo
    from strop.targets.board import load_board

    board = load_board(BOARD if shared.board == "host" else shared.board)
    with record("demo", board, tools, folder.run_dir, replace(shared, board=board.name), model=MODEL) as run:
        results = run_demo(board, run, shared.terminal, toolchain=tools.toolchain, timeout=tools.timeout)
        document: dict[str, Any] = {"board": board.name, "rules": [result.to_json() for result in results]}
        run.add(result=document)
    equal = all(result.bits_equal for result in results)
    return Outcome({**document, "run": str(run.folder)}, lambda out: _show_demo(out, results, run), 0 if equal else 1)


def _reference(model: str, build: Build) -> "Reference | None":
    """The float64 trainer of the same network, if the rule has one."""
    from strop.host.reference import reference
    from strop.host.zoo import load_model

    module, replay = load_model(model)[1], replay_of(build)
    return reference(rule_of(build), module, build.loss, optimizer_of(build), replay=replay)


def _show_verdict(out: Console, verdict: "Verdict", board: str) -> None:
    found = verdict.first_difference
    where = f"no: step {found.step}, {found.tensor}" if found else "yes"
    rows: dict[str, Any] = {"board": board, "steps": verdict.steps, "bits equal": where}
    if verdict.torch:
        worst = f" ({verdict.torch.worst_tensor})" if verdict.torch.worst_tensor else ""
        rows["against PyTorch"] = f"{verdict.torch.max_rel_error:.1e} a step{worst}"
        if (bound := verdict.torch.update_bound) is not None:
            kept = "within" if verdict.torch.within else "NOT within"
            rows["its update"] = f"{verdict.torch.update_error:.1e} beyond storage, {kept} {bound:.1e}"
        rows["its loss"] = f"{verdict.torch.loss_max_rel_error:.1e}"
        if verdict.torch.jumps:
            rows["signs that rounding decided"] = f"{verdict.torch.jumps}, each held to the side it fell on"
    facts(out, rows)


def _show_profile(out: Console, result: "Profile") -> None:
    rows = [
        (k.name, k.layer, f"{k.instructions:,.0f}", f"{k.macs:,}", _rounded(k.instructions_per_mac),
         "" if k.bound is None else f"{k.bound:,.0f}", _rounded(k.ratio))
        for k in result.kernels
    ]  # fmt: skip
    step, least = result.instructions_per_step, result.bound
    bound, ratio = ("", "") if least is None else (f"{least:,.0f}", _rounded(step / least))
    total = ("step", "", f"{step:,.0f}", f"{result.macs:,}", "", bound, ratio)
    table(out, ("kernel", "layer", "instructions", "MACs", "per MAC", "bound", "ratio"), [*rows, total], numbers=5)


def _rounded(number: float | None) -> str:
    return "" if number is None else f"{number:.2f}"


def _show_demo(out: Console, results: "list[Result]", run: Run) -> None:
    heads = ("rule", "board", "twin", "PyTorch", "RAM", "flash", "instr./step", "bits equal")
    rows = [
        (r.rule, f"{r.board_accuracy:.1%}", f"{r.twin_accuracy:.1%}", f"{r.torch_accuracy:.1%}", f"{r.ram_bytes:,} B",
         f"{r.flash_bytes:,} B", f"{r.instructions_per_step:,.0f}", "yes" if r.bits_equal else "NO")
        for r in results
    ]  # fmt: skip
    table(out, heads, rows, numbers=7)
    out.print(f"learning curves: {run.path('learning-curve.png')}", soft_wrap=True)
