"""Every option of the command line, declared once. A verb takes the groups it needs (see `command.verb`)."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

from typer import Argument, Option

from strop.host.progress import Terminal

Model = Annotated[str, Argument(metavar="MODEL", help="A built-in's name, or file.py:callable.", show_default=False)]


@dataclass(frozen=True)
class Shared:
    """Options of every verb."""

    panel: ClassVar[str] = "Shared"

    board: Annotated[str, Option("--board", "-b", help="A board's name, or a .toml; see strop boards.")] = "host"
    port: Annotated[str, Option("--port", "-p", help="Address of a board that runs already; nothing is flashed.")] = ""
    hardware_map: Annotated[Path | None, Option(help="Boards on this desk, a file that strop list wrote.")] = None
    id: Annotated[str, Option(metavar="ID", help="Which of them: its id, port or probe's serial number.")] = ""
    json: Annotated[bool, Option("--json", help="Write one JSON document to stdout, and nothing else.")] = False
    verbose: Annotated[bool, Option("--verbose", "-v", help="Show stages, and what the board says.")] = False
    quiet: Annotated[bool, Option("--quiet", "-q", help="Show results and errors only.")] = False
    no_progress: Annotated[bool, Option("--no-progress", help="Show no bar.")] = False

    @cached_property
    def terminal(self) -> Terminal:
        """Where to talk."""
        return Terminal(json=self.json, verbose=self.verbose, quiet=self.quiet, progress=not self.no_progress)


@dataclass(frozen=True)
class Build:
    """What is compiled."""

    panel: ClassVar[str] = "Model and rule"

    rule: Annotated[str, Option(help="A learning rule's name, or file.py:Class; see strop rules.")] = "backprop"
    objective: Annotated[
        str, Option(help="Local objective of tpsgd: l2, l1, cosine, huber or cross_entropy; l2 if not given.")
    ] = ""
    blocks: Annotated[int | None, Option(help="For blocks: groups of layers.")] = None
    update: Annotated[list[str], Option(help="For sparse: parameters that learn; may be repeated.")] = field(
        default_factory=list
    )
    update_budget: Annotated[int | None, Option(help="For sparse, instead: bytes that training may take.")] = None
    truncate: Annotated[int, Option(help="Steps an error goes back in a recurrent layer; 0 for all.")] = 0
    set: Annotated[
        list[str], Option("--set", metavar="NAME=VALUE", help="Any other of strop rules NAME; may be repeated.")
    ] = field(default_factory=list)
    freeze: Annotated[list[str], Option(help="Parameters to keep, by name or pattern; may be repeated.")] = field(
        default_factory=list
    )
    optimizer: Annotated[str, Option(help="sgd, momentum, adam or lion.")] = "sgd"
    lr: Annotated[float | None, Option(help="Learning rate; the optimizer's own if not given.")] = None
    weight_decay: Annotated[float, Option(help="Share of a weight that is added to its gradient.")] = 0.0
    momentum: Annotated[float | None, Option(help="For momentum: 0.9 if not given.")] = None
    schedule: Annotated[str, Option(help="Course of the learning rate: constant, step, linear or cosine.")] = "constant"
    schedule_steps: Annotated[
        int | None, Option(help="Updates until the schedule's end, warm-up included; of step, between two falls.")
    ] = None
    schedule_final: Annotated[
        float | None, Option(help="Share of --lr at the end, 0 if not given; of step, left by each fall: 0.1.")
    ] = None
    warmup: Annotated[int, Option(help="First updates, over which the learning rate rises to --lr.")] = 0
    clip_value: Annotated[float | None, Option(help="Largest magnitude of a gradient's element.")] = None
    clip_norm: Annotated[float | None, Option(help="Largest norm of each parameter's gradient.")] = None
    clip_global_norm: Annotated[
        float | None, Option(help="Largest norm of all gradients together, which are then stored.")
    ] = None
    accumulate: Annotated[int, Option(help="Steps whose gradients are averaged into one update.")] = 1
    replay: Annotated[int, Option(help="Samples that the board keeps and trains on again; 0 for none.")] = 0
    replay_batch: Annotated[int, Option(help="Kept samples a step.")] = 1
    replay_dtype: Annotated[str, Option(help="Format of kept samples: float32, or int8 in a quarter.")] = "float32"
    dtype: Annotated[
        str, Option(help="What tensors rest in: float32, float16, bfloat16, or a precision policy, a .toml file.")
    ] = "float32"
    rounding: Annotated[
        str | None, Option(help="Of 16-bit parameters: nearest, stochastic or carried; the policy's if not given.")
    ] = None
    error_scale: Annotated[
        str | None,
        Option(help="Power of two that float16 errors are stored times, or dynamic; the policy's if not given."),
    ] = None
    sums: Annotated[
        str | None,
        Option(help="Of float16 products: float32, or float16 for up to 32 terms; the policy's if not given."),
    ] = None
    loss: Annotated[str, Option(help="cross_entropy, mse, l1, huber or bce.")] = "cross_entropy"
    batch: Annotated[int, Option(help="Samples a step.")] = 1
    seed: Annotated[int, Option(help="Of the rule's random tensors, the split and the order of samples.")] = 0
    schedules: Annotated[str, Option(help="Faster schedules, a file that strop tune wrote.")] = ""


@dataclass(frozen=True)
class Tools:
    """What compiles, and how long to wait for a board."""

    panel: ClassVar[str] = "Tools"

    toolchain: Annotated[str, Option(help="zig, gcc or clang.")] = "zig"
    timeout: Annotated[float, Option(help="Seconds of silence after which a board counts as lost.")] = 5.0


@dataclass(frozen=True)
class Data:
    """What the network sees."""

    panel: ClassVar[str] = "Data"

    data: Annotated[str, Option(help="digits, file.npz with x and y, or file.py:callable.")] = "digits"
    split: Annotated[float, Option(help="Share to hold out, where the data has no x_test.")] = 0.2


@dataclass(frozen=True)
class Folder:
    """Where a run leaves its files."""

    panel: ClassVar[str] = "Run"

    run_dir: Annotated[Path | None, Option(help="Folder of the run; runs/<time> if not given.")] = None


@dataclass(frozen=True)
class Length:
    """How long a training run goes on."""

    panel: ClassVar[str] = "Run"

    epochs: Annotated[int, Option(help="Times each sample is seen.")] = 5
    steps: Annotated[int | None, Option(help="Steps in all, instead of --epochs.")] = None
    checkpoint_every: Annotated[int | None, Option(help="Steps between checkpoints; an epoch if not given.")] = None
    resume: Annotated[Path | None, Option(help="Folder of a run to go on with; its options apply again.")] = None


@dataclass(frozen=True)
class Keep:
    """Checkpoints in the board's flash."""

    panel: ClassVar[str] = "Run"

    autosave: Annotated[
        int, Option(min=0, help="Steps between two checkpoints in the board's flash, which it goes on from; 0: none.")
    ] = 0
    store: Annotated[str, Option(metavar="FILE", help="File that plays the flash of an emulated board.")] = ""


@dataclass(frozen=True)
class Weights:
    """Where training starts from, or what is evaluated."""

    panel: ClassVar[str] = "Run"

    weights: Annotated[str, Option(help="Parameters to build in: a .pt or .npz, such as a run's.")] = ""


WAYS = frozenset({"json", "verbose", "quiet", "no_progress", "port", "resume", "hardware_map", "id"})
"""Options that change how a command talks, not what it computes."""


def settings_of(*groups: Any, **more: Any) -> dict[str, Any]:
    """What a run is made of, by option, JSON-able: enough to do it again."""
    chosen = {name: value for group in groups for name, value in asdict(group).items()}
    return {**more, **{name: value for name, value in chosen.items() if name not in WAYS}}
