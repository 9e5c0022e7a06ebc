"""Kernels: one C function an op, shared by equal ops, remembered by the hash of what made them."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from inspect import isfunction
from pathlib import Path

from strop.compiler.ir import Op, Program, TensorType, digest, runs
from strop.compiler.ops import spec
from strop.compiler.ops.base import OpSpec
from strop.compiler.ops.optimizer import WEIGHT
from strop.compiler.schedules import Tiling


@dataclass(frozen=True)
class Parameter:
    """A parameter of a kernel. writes: whether the kernel stores to it."""

    name: str
    ctype: str
    writes: bool

    def __str__(self) -> str:
        return f"{'' if self.writes else 'const '}{self.ctype} *restrict {self.name}"


@dataclass(frozen=True)
class Kernel:
    """A C function. body: statements, indented.  parameters: inputs, then outputs that overwrite no input.

    team: the harts of a cluster run it together, and it has `hart` and `harts` for its first parameters.
    """

    parameters: tuple[Parameter, ...]
    body: str
    team: bool = False

    def function(self, name: str) -> str:
        """The definition under a name."""
        parameters = [*(("int hart", "int harts") if self.team else ()), *map(str, self.parameters)]
        head = f"static void {name}({', '.join(parameters)}) {{"
        return f"{head}\n{self.body}}}\n"


@dataclass(frozen=True)
class KernelSpec:
    """What makes a kernel, independent of names: operations by index of their operands, types and attributes.

    types: of every operand, inputs first.  steps: (kind, input indices, output indices, attrs).  results: operand
    indices of the outputs.  over: the input whose memory the first result takes over.  half: see `Program`.
    """

    types: tuple[TensorType, ...]
    inputs: int
    steps: tuple[tuple[str, tuple[int, ...], tuple[int, ...], tuple[tuple[str, object], ...]], ...]
    results: tuple[int, ...]
    over: int | None
    fma: bool
    tiling: Tiling
    half: str = ""

    @property
    def outer(self) -> bool:
        """Whether it updates a weight by the outer product of one sample."""
        return any(
            spec(kind).hints([self.types[i] for i in sources], dict(attrs)).outer
            for kind, sources, _, attrs in self.steps
        )

    @property
    def key(self) -> str:
        """Changes with anything that could change the C."""
        kinds = dict.fromkeys(spec(kind) for kind, *_ in self.steps)
        made_of = [version("strop"), version("apache-tvm"), _sources(), *map(_source, kinds), str(self)]
        return digest("\n".join(made_of).encode())


def kernel_spec(program: Program, op: Op, tiling: Tiling) -> KernelSpec:
    """Describe an op's kernel without names, so that equal layers share it; its own `tiling` wins over the given."""
    index = {name: i for i, name in enumerate(operands(op))}
    types = [program.values[name].type for name in index]
    steps = []
    for part in op.parts:
        sources = tuple(index[name] for name in part.inputs)
        for name in part.outputs:
            types.append(program.values[name].type)
            index[name] = len(types) - 1
        attrs = tuple((key, value) for key, value in part.attrs.items() if key not in PLACEMENT)
        steps.append((part.kind, sources, tuple(index[n] for n in part.outputs), attrs))
    results = tuple(index[name] for name in op.outputs)
    over = index.get(str(op.attrs.get("over")))
    own = op.attrs.get("tiling")
    tiling = Tiling(*own) if isinstance(own, tuple) else tiling
    return KernelSpec(tuple(types), len(operands(op)), tuple(steps), results, over, program.fma, tiling, program.half)


PLACEMENT = ("over", "tiling", "restart")
"""Attributes that say where and when a kernel runs, not what it computes."""


def operands(op: Op) -> tuple[str, ...]:
    """The values a kernel reads, each once: what `x + x` reads is one parameter."""
    return tuple(dict.fromkeys(op.inputs))


def variables(kernel: KernelSpec) -> dict[int, tuple[int, str]]:
    """Result operand that replaces a variable -> (that variable's operand, what the op calls it)."""
    return {
        outputs[out]: (sources[source], spec(kind).operands[source])
        for kind, sources, outputs, _ in kernel.steps
        for out, source in spec(kind).overwrites.items()
    }


def overwritten(kernel: KernelSpec) -> dict[int, int]:
    """Result operand -> input operand whose memory it is: variables updated in place, inputs taken over."""
    taken = {} if kernel.over is None else {kernel.results[0]: kernel.over}
    return taken | {result: operand for result, (operand, _) in variables(kernel).items()}


def result_order(kernel: KernelSpec) -> list[int]:
    """Results as TensorIR lays them out: a weight's update before the gradient that shares its loops.

    States come before the weight if any is in a narrow format: they are then made of the weight's old contents.
    """
    replaced, early = variables(kernel), narrow_states(kernel)
    return sorted(kernel.results, key=lambda result: int(result not in early) if result in replaced else 2)


def narrow_states(kernel: KernelSpec) -> set[int]:
    """Results that are states of a weight, if one of them is in a narrow format."""
    states = {result for result, (_, name) in variables(kernel).items() if name != WEIGHT}
    return states if any(kernel.types[result].dtype.narrow for result in states) else set()


def operand_names(kernel: KernelSpec) -> list[str]:
    """A C name for every operand, from the ops' own vocabulary."""
    names: list[str] = [""] * len(kernel.types)
    for kind, sources, outputs, _ in kernel.steps:
        for i, name in [
            *zip(sources, spec(kind).operands, strict=False),
            *zip(outputs, spec(kind).results, strict=False),
        ]:
            if not names[i]:
                names[i] = _unique(name, names)
    return names


def _unique(name: str, taken: Sequence[str]) -> str:
    count, candidate = 1, name
    while candidate in taken:
        count += 1
        candidate = f"{name}{count}"
    return candidate


def macs(program: Program, op: Op) -> int:
    """Multiply-accumulates of one run of an op."""
    total = 0
    for part in op.parts:
        inputs, outputs = ([program.values[n].type for n in names] for names in (part.inputs, part.outputs))
        total += spec(part.kind).macs(inputs, outputs, part.attrs)
    return total


def lower(program: Program, tiling: Tiling) -> dict[Op, Kernel]:
    """A kernel for every op of both functions that needs code."""
    specs = {
        op: kernel_spec(program, op, tiling) for ops in program.functions().values() for op, _ in kernel_runs(ops)
    }
    made = {kernel: lowered(kernel) for kernel in dict.fromkeys(specs.values())}
    return {op: made[kernel] for op, kernel in specs.items()}


def needs_code(op: Op) -> bool:
    """Whether the op is more than another name for its input's memory."""
    return bool(op.body) or not (spec(op.kind).free or spec(op.kind).composite)


def kernel_runs(ops: Iterable[Op]) -> Iterator[tuple[Op, int]]:
    """The ops that are kernels, those of scans included, in order of execution, and how often each runs."""
    for op in filter(needs_code, ops):
        if op.kind == "scan":
            yield from ((part, sum(runs(part, turn) for turn in range(len(op.times)))) for part in op.body)
        else:
            yield op, 1


def cache_folder() -> Path:
    """Where generated code is remembered between builds; STROP_CACHE overrides."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("STROP_CACHE") or Path(home) / "strop")


def lowered(kernel: KernelSpec) -> Kernel:
    """The C of a kernel, from the cache if it was made before. Raises LowerError."""
    path = cache_folder() / "kernels" / f"{kernel.key}.json"
    if path.is_file():
        row = json.loads(path.read_text())
        return Kernel(tuple(Parameter(**p) for p in row["parameters"]), row["body"], row["team"])
    from strop.compiler.lower import lower_kernel

    made = lower_kernel(kernel)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(asdict(made)))
    temporary.replace(path)
    return made


@cache
def _source(op: OpSpec) -> str:
    """Hash of the files that define an op: one that a user registers may change while strop does not."""
    methods = (item for base in type(op).__mro__ for item in vars(base).values() if isfunction(item))
    files = sorted({Path(method.__code__.co_filename) for method in methods})
    return digest(b"".join(file.read_bytes() for file in files if file.is_file()))


MAKERS = ("lower", "cprint", "cvector", "places", "chalf", "cteam", "schedules", "harts", "kernels", "dtypes")
"""What decides what a kernel looks like, besides the ops."""


@cache
def _sources() -> str:
    """Hash of the files that decide what a kernel looks like."""
    folder = Path(__file__).parent
    own = (folder / f"{name}.py" for name in MAKERS)
    files = [*own, *(file for part in ("ops", "lanes") for file in sorted((folder / part).glob("*.py")))]
    return digest(b"".join(file.read_bytes() for file in files))
