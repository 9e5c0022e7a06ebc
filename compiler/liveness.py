"""When each activation must exist, and which share memory because one is the other under another shape."""

from collections.abc import Sequence
from dataclasses import dataclass

from strop.compiler.ir import Op, Program, Role
from strop.compiler.ops import spec


@dataclass(frozen=True)
class Interval:
    """A buffer that lives from op `first` to op `last`, both included. names: the values that are this memory."""

    names: tuple[str, ...]
    bytes: int
    first: int
    last: int

    def overlaps(self, other: "Interval") -> bool:
        """Whether both must exist at some op."""
        return self.first <= other.last and other.first <= self.last


def held(op: Op) -> tuple[str, ...]:
    """The values whose memory an op works on: what it reads and writes and, of a scan, what passes inside a turn."""
    inner = () if op.kind != "scan" else (name for part in op.body for name in part.outputs if name not in op.rows)
    return (*op.inputs, *op.outputs, *inner)


def aliases(ops: Sequence[Op]) -> dict[str, str]:
    """Value -> the value whose memory it is: free ops rename their input, others may take one over (`passes.reuse`)."""
    root: dict[str, str] = {}
    for op in ops:
        source = op.inputs[0] if not op.body and spec(op.kind).free else op.attrs.get("over")
        if source is not None:
            root[op.outputs[0]] = root.get(str(source), str(source))
    return root


def offsets(program: Program, ops: Sequence[Op]) -> dict[str, int]:
    """Value -> the element of the memory it shares (see `aliases`) that it starts at; absent if that is the first."""
    starts: dict[str, int] = {}
    for op in ops:
        over = op.attrs.get("over")
        if over is not None:
            starts[op.outputs[0]] = starts.get(str(over), 0)
        elif not op.body and spec(op.kind).free:
            source = program.values[op.inputs[0]]
            first = int(op.attrs.get("first", 0)) * (source.type.size // source.shape[0])  # type: ignore[arg-type]
            starts[op.outputs[0]] = starts.get(source.name, 0) + first
    return {name: start for name, start in starts.items() if start}


def intervals(program: Program, ops: Sequence[Op], results: Sequence[str], given: Sequence[str] = ()) -> list[Interval]:
    """The planned buffers of a function, in order of definition. given: values that the caller provides memory for."""
    root = aliases(ops)
    names: dict[str, list[str]] = {}
    span: dict[str, tuple[int, int]] = {}
    for index, op in enumerate(ops):
        for name in held(op):
            owner = root.get(name, name)
            if program.values[owner].role not in (Role.ACT, Role.SCRATCH) or owner in given:
                continue
            first = span.get(owner, (index, index))[0]
            span[owner] = (first, len(ops) if name in results else max(index, span.get(owner, (0, 0))[1]))
            if name not in names.setdefault(owner, []):
                names[owner].append(name)
    return [Interval(tuple(names[n]), program.values[n].bytes, *span[n]) for n in span]


def live_bytes(program: Program, ops: Sequence[Op], results: Sequence[str]) -> list[int]:
    """Bytes of activations alive while each op runs."""
    buffers = intervals(program, ops, results)
    return [sum(b.bytes for b in buffers if b.first <= i <= b.last) for i in range(len(ops))]
