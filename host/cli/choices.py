"""From words on the command line to the objects they stand for."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strop.errors import DataError, RuleError, UsageError, nearest
from strop.host import userfile
from strop.host.arrays import read_weights
from strop.host.cli.options import Build, Shared, Tools, settings_of
from strop.host.data import Array, Order, Signature, sample_data
from strop.host.runs import Run, tools_used

if TYPE_CHECKING:
    from torch import nn

    from strop.compiler.adaptation import Replay
    from strop.compiler.bundle import Bundle
    from strop.compiler.optim import Optimizer, Schedule
    from strop.compiler.rules.base import Rule
    from strop.host.device import Device
    from strop.host.instances import Instance
    from strop.host.session import Session
    from strop.targets.board import Board

OPTIMIZERS = ("sgd", "momentum", "adam", "lion")
SCHEDULES = ("constant", "step", "linear", "cosine")

OPTION_OF = {
    "objective": "objective", "n": "blocks", "update": "update", "budget": "update-budget", "freeze": "freeze",
    "seed": "seed", "truncate": "truncate",
}  # fmt: skip
"""Settings of rules that have an option of their own; all others are given by --set."""


def bundle_of(model: str, build: Build, shared: Shared, weights: str = "", board: "Board | None" = None) -> "Bundle":
    """Compile a model as the options say, showing the stages.

    weights: a file of parameters to build in.  board: instead of the one the options name.
    """
    from strop.compiler.pipeline import build as compile_model
    from strop.compiler.precision import precision
    from strop.host.zoo import load_model

    with shared.terminal.working(f"building {model}") as stage:
        name, module, example = load_model(model)
        if weights:
            _put_in(module, Path(weights))
        return compile_model(
            module, example, name=name, loss=build.loss, rule=rule_of(build), optimizer=optimizer_of(build),
            board=board or shared.board, batch=build.batch, replay=replay_of(build) or 0,
            dtype=precision(
                build.dtype, rounding=build.rounding, error_scale=_number(build.error_scale), sums=build.sums
            ),
            schedules=build.schedules or None, progress=stage,
        )  # fmt: skip


def _number(text: str | None) -> int | str | None:
    """An option that is a whole number or a word."""
    return int(text) if text and text.isascii() and text.isdigit() else text


def _put_in(module: "nn.Module", file: Path) -> None:
    """Give a module the weights of a file."""
    import torch

    state = {name: torch.from_numpy(data) for name, data in read_weights(file).items()}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split()).partition(": ")[2]
        advice = "Name the model that they come from"
        raise DataError(f"the weights do not fit the model: {reason}", where=str(file), do=advice) from error


def device_of(
    bundle: "Bundle", shared: Shared, tools: Tools, *, profile: bool = False, framed: bool = False, store: str = ""
) -> "Device":
    """Open the board that the options name, flashed or emulated unless a port is given.

    profile: with a counter around each kernel.  framed: the twin, too, behind the frames of the wire.
    store: a file that plays the flash of an emulated board or of the twin.
    """
    from strop.host.device import connect, twin

    with shared.terminal.working(f"starting {bundle.board.name}") as stage:
        if bundle.board.is_host and not (shared.port or framed):
            return twin(bundle, toolchain=tools.toolchain, store=store or None)
        instance = None if shared.port else instance_of(bundle.board, shared)
        return connect(
            bundle, port=shared.port or None, instance=instance, toolchain=tools.toolchain, profile=profile,
            timeout=tools.timeout, progress=stage, store=store or None,
        )  # fmt: skip


def instance_of(board: "Board", shared: Shared, *, hardware: bool = False) -> "Instance | None":
    """The board on this desk that the options mean; None for the twin, and for an emulated board."""
    from strop.host.instances import instance_for

    return instance_for(board, hardware_map=shared.hardware_map, wanted=shared.id, hardware=hardware)


def not_with_port(shared: Shared, name: str) -> None:
    """Raise UsageError for a verb that starts or flashes a board, and a port of one that runs."""
    if shared.port:
        raise UsageError(f"{name} starts a board, so it takes no --port", do="Choose the board with --board")


def session_of(shared: Shared, tools: Tools, name: str, on_log: Callable[[str], None] | None = None) -> "Session":
    """A board that runs already, whatever its model: on the port that is given, or that a hardware map knows."""
    from strop.host.session import Session
    from strop.host.transport import transport_for

    return Session(transport_for(port_of(shared, name)), timeout=tools.timeout, on_log=on_log)


def port_of(shared: Shared, name: str) -> str:
    """The address of a board that runs already. Raises UsageError for a verb of that name that is given none."""
    from strop.targets.board import load_board

    board = load_board(shared.board)
    instance = None if shared.port else instance_of(board, shared)
    port = shared.port or (instance.address(board) if instance else "")
    if not port:
        raise UsageError(f"{name} needs a board that runs already", do="Name it with --port; see strop list")
    return port


def rule_of(build: Build) -> "Rule":
    """The learning rule with its settings."""
    kind = rule_class_of(build.rule)
    named: dict[str, Any] = {
        "objective": build.objective, "n": build.blocks, "update": tuple(build.update), "budget": build.update_budget,
    }  # fmt: skip
    given = {name: value for name, value in named.items() if value not in ("", None, ())}
    free = dict(_assignment(text) for text in build.set)
    known = {field.name: field.type for field in fields(kind)}
    for name in free:
        if name not in known:
            advice = f"{nearest(name, known)}. See strop rules {build.rule}"
            raise UsageError(f"the rule {kind.name} has no setting {name!r}", do=advice)
    for name in given:
        if name not in known:
            option = OPTION_OF[name]
            raise UsageError(f"the rule {kind.name} has no choice of {option}", do=f"Leave out --{option}")
    given |= {name: _value(name, text, str(known[name])) for name, text in free.items()}
    return kind(freeze=tuple(build.freeze), seed=build.seed, truncate=build.truncate, **given)


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text} gives no value", do="Write --set name=value")
    return name.strip().replace("-", "_"), value.strip()


def _value(name: str, text: str, kind: str) -> Any:
    """A setting from its text, by the type that the rule declares."""
    word = next((word for word in ("bool", "float", "int", "tuple") if word in kind), "str")
    flags = {"true": True, "false": False}
    readers: dict[str, Callable[[str], Any]] = {
        "bool": lambda text: flags[text.lower()], "float": float, "int": int, "str": str,
        "tuple": lambda text: tuple(text.split(",")),
    }  # fmt: skip
    try:
        return readers[word](text)
    except (ValueError, KeyError):
        raise UsageError(f"{name} is of type {word}, and {text!r} is not", do=f"Write --set {name}=…") from None


def rule_class_of(spec: str) -> "type[Rule]":
    """A rule by name, or a class of a user's file. Raises RuleError for an unknown one."""
    from strop.compiler.rules import rule_class
    from strop.compiler.rules.base import Rule

    if not userfile.is_userfile(spec):
        return rule_class(spec)
    path, kind = userfile.load(spec, "rule")
    if not (isinstance(kind, type) and issubclass(kind, Rule)):
        raise RuleError(f"{spec.rpartition(':')[2]!r} is not a class derived from strop's Rule", where=str(path))
    return kind


def optimizer_of(build: Build) -> "Optimizer":
    """The optimizer with its settings; what is not given is its own default."""
    from strop.compiler.optim import SGD, Adam, Lion

    if build.optimizer not in OPTIMIZERS:
        raise UsageError(f"no optimizer is called {build.optimizer!r}", do=nearest(build.optimizer, OPTIMIZERS))
    if build.momentum is not None and build.optimizer != "momentum":
        raise UsageError(f"{build.optimizer} takes no momentum", do="Use --optimizer momentum")
    given: dict[str, Any] = {
        "weight_decay": build.weight_decay, "schedule": schedule_of(build), "warmup": build.warmup,
        "clip_value": build.clip_value, "clip_norm": build.clip_norm,
        "clip_global_norm": build.clip_global_norm, "accumulate": build.accumulate,
    }  # fmt: skip
    if build.lr is not None:
        given["lr"] = build.lr
    if build.optimizer == "momentum":
        return SGD(**given, momentum=0.9 if build.momentum is None else build.momentum)
    kinds: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "lion": Lion}
    return kinds[build.optimizer](**given)


def replay_of(build: Build) -> "Replay | None":
    """The buffer of samples on the board, if there is to be one."""
    from strop.compiler.adaptation import Replay

    if build.replay:
        return Replay(build.replay, build.replay_batch, build.replay_dtype)
    if (build.replay_batch, build.replay_dtype) != (Build.replay_batch, Build.replay_dtype):
        raise UsageError("there is no buffer to replay from", do="Give its size with --replay")
    return None


def schedule_of(build: Build) -> "Schedule":
    """The learning rate's schedule; what is not given is its own default."""
    from strop.compiler.optim import Constant, Cosine, Linear, StepDecay

    steps, final = build.schedule_steps, build.schedule_final
    if build.schedule not in SCHEDULES:
        raise UsageError(f"no schedule is called {build.schedule!r}", do=nearest(build.schedule, SCHEDULES))
    if build.schedule == "constant":
        if steps is not None or final is not None:
            options = "--schedule-steps and no --schedule-final"
            raise UsageError(f"a constant learning rate takes no {options}", do="Choose a --schedule")
        return Constant()
    if steps is None:
        raise UsageError(f"the schedule {build.schedule} needs its length", do="Give --schedule-steps")
    if build.schedule == "step":
        return StepDecay(steps) if final is None else StepDecay(steps, final)
    return {"linear": Linear, "cosine": Cosine}[build.schedule](steps, final or 0.0)


def record(verb: str, board: "Board", tools: Tools, folder: Path | None, *groups: Any, **more: Any) -> Run:
    """The record of a run with these options, not yet begun."""
    return Run(verb, settings_of(*groups, tools, **more), tools_used(board, tools.toolchain), folder)


def signature_of(bundle: "Bundle") -> Signature:
    """What the data must look like."""
    return Signature.of(bundle.manifest)


def samples_for(signature: Signature, steps: int, seed: int) -> tuple[Array, Array]:
    """Samples for so many steps, in the order that a training run has, whatever the model takes."""
    data = sample_data(signature, min(steps * signature.batch, 1000) + signature.batch, seed)
    chosen = Order(len(data.x), signature.batch, seed).indices(0, steps)
    return data.x[chosen], data.y[chosen]
