"""The recipe. Read `build` aloud: it is the whole compiler."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strop.compiler.adaptation import Replay
from strop.compiler.bundle import Bundle, make_bundle
from strop.compiler.capture.torch import capture
from strop.compiler.emit import Emitter
from strop.compiler.ir import Program
from strop.compiler.kernels import lower
from strop.compiler.optim import SGD, Optimizer
from strop.compiler.passes.flatten import flatten
from strop.compiler.passes.fuse import fuse
from strop.compiler.passes.halve import halve
from strop.compiler.passes.hoist import hoist
from strop.compiler.passes.legalize import legalize
from strop.compiler.passes.narrow import narrow
from strop.compiler.passes.order import order
from strop.compiler.passes.pooling import pooling
from strop.compiler.passes.reuse import reuse
from strop.compiler.passes.simplify import simplify
from strop.compiler.passes.tuned import Schedules, read_schedules, tuned
from strop.compiler.passes.unroll import unroll
from strop.compiler.plan import check_fits, place
from strop.compiler.precision import Precision, precision
from strop.compiler.rules import Rule, rule_class
from strop.compiler.schedules import Tiling
from strop.compiler.verify import verify
from strop.errors import UsageError
from strop.targets.board import Board, load_board

if TYPE_CHECKING:
    from torch import Tensor, nn

Progress = Callable[[str], None]


def build(
    model: "nn.Module",
    example_input: "Tensor",
    *,
    loss: str = "cross_entropy",
    rule: Rule | str = "backprop",
    optimizer: Optimizer | None = None,
    board: Board | str = "host",
    batch: int = 1,
    dtype: Precision | str | Path = "float32",
    seed: int | None = None,
    replay: Replay | int = 0,
    schedules: Schedules | str | Path | None = None,
    name: str = "",
    progress: Progress = lambda stage: None,
) -> Bundle:
    """Compile a network and a learning rule into C that trains on a board.

    model: trained or fresh; it is read in evaluation mode and not changed.  example_input: float32, batch axis first.
    loss: `cross_entropy` (labels int32 (B)), or `mse`, `l1`, `huber`, `bce` (on logits; labels float32 of the output's
    shape).  rule: an instance or a name; see `strop.rules`.  optimizer: `strop.optim.SGD(lr=0.01)` if not given.
    board: a name, the path of a TOML file, or a Board.  batch: samples a step.  dtype: `float32`, `float16`,
    `bfloat16`, the path of a TOML file, or a Precision.  seed: of the rule's random tensors, and of what is replayed.
    replay: a buffer of so many samples on the board, from which each step trains again, or a `Replay` with its
    settings; 0 for none.  schedules: what `strop tune` found, or its file; it changes speed and size, never a result.
    progress: told each stage's name.

    Raises a StropError of the stage that fails; equal arguments give equal bytes.
    """
    board = load_board(board) if isinstance(board, str) else board
    rule = rule_class(rule)() if isinstance(rule, str) else rule
    rule = rule if seed is None else replace(rule, seed=seed)
    optimizer = optimizer or SGD()
    replay = Replay(replay) if isinstance(replay, int) and replay else replay
    schedules = read_schedules(schedules) if isinstance(schedules, str | Path) else schedules or Schedules()
    policy = precision(dtype)
    if batch < 1:
        raise UsageError(f"a batch has at least 1 sample, not {batch}")

    def stage(title: str, program: Program) -> Program:
        progress(title)
        return verify(program, title)

    forward = partial(capture, model, example_input, name=name or type(model).__name__.lower())
    p = stage("capture", forward(batch=batch))
    p = stage("rule", rule.apply(p, loss, optimizer))
    if isinstance(replay, Replay):
        wide = rule.apply(forward(batch=batch + replay.batch), loss, optimizer)
        p = stage("replay", replay.apply(p, wide, rule.seed))
    p = stage("legalize", legalize(p, fma=board.core.fma, board=board.name))
    p = stage("pooling", pooling(p))
    p = stage("flatten", flatten(p))
    p = stage("simplify", simplify(p))
    p = stage("hoist", hoist(p))
    p = stage("fuse", fuse(p, sweeps=not policy.follows))
    p = stage("unroll", unroll(p))
    p = stage("narrow", narrow(p, policy, board.name, rule.seed, board.core.tiling.get("harts", 1)))
    p = stage("halve", halve(p, policy.sums, board.name, board.core.tiling.get("halves", 0)))
    p = stage("order", order(p))
    p = stage("reuse", reuse(p))
    default = Tiling(**board.core.tiling)
    p = stage("tune", tuned(p, default, schedules.table(board.isa, default)))
    p = p.with_(notes=_notes(rule, loss, optimizer, policy, replay))
    progress("place")
    plan = place(p)
    if not board.is_host:
        flash, ram = board.memory
        check_fits(plan, ram.length, flash.length, board.name)
    progress("lower")
    emitter = Emitter(p, plan, lower(p, default), flush=board.core.flush, apart=board.core.apart)
    progress("emit")
    return make_bundle(p, plan, emitter, board, model)


def _notes(rule: Rule, loss: str, optimizer: Any, policy: Precision, replay: Replay | int) -> dict[str, str]:
    more = {"replay": str(replay)} if replay else {}
    return {"rule": str(rule), "loss": loss, "optimizer": str(optimizer), "dtype": str(policy), **more}
