"""What the tests of the compiler share: every op's own cases, small networks, and the passes in order."""

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zlib import crc32

import numpy as np
import torch
from cbuild import RUNTIME, build_shared
from numpy.typing import NDArray
from torch import nn

from strop.compiler import pipeline
from strop.compiler.bundle import Bundle
from strop.compiler.dtypes import FLOAT32, DType
from strop.compiler.ir import Builder, Op, Program, Role, TensorType
from strop.compiler.kernels import Kernel, KernelSpec, kernel_spec, needs_code, operand_names, overwritten
from strop.compiler.lower import lower_kernel
from strop.compiler.ops import spec, specs
from strop.compiler.ops.base import Case, f32
from strop.compiler.optim import Optimizer
from strop.compiler.rules.base import Rule
from strop.compiler.schedules import Tiling
from strop.compiler.verify import verify

Array = NDArray[Any]


@dataclass(frozen=True)
class OpCase:
    """One case of one op. number: its place in the op's `cases()`."""

    kind: str
    number: int
    case: Case

    def __str__(self) -> str:
        return f"{self.kind}_{self.number}"

    def draw(self) -> list[Array]:
        """Inputs, the same on every call."""
        return spec(self.kind).draw(np.random.default_rng(crc32(str(self).encode())), self.case)

    def infer(self) -> list[TensorType]:
        """Types of the outputs."""
        return spec(self.kind).infer(self.case.inputs, self.case.attrs)

    def program(self, *, fma: bool = False) -> Program:
        """A Program whose train step is the op, on initial contents drawn by `draw`."""
        kind, b, names = spec(self.kind), Builder({}), []
        for i, (type_, data) in enumerate(zip(self.case.inputs, self.draw(), strict=True)):
            role = Role.PARAM if i in kind.overwrites.values() else Role.CONST
            names.append(b.value(f"i{i}", type_, role, data=data))
        if kind.overwrites:
            outputs = tuple(
                names[kind.overwrites[i]] if i in kind.overwrites else b.value(f"o{i}", type_, Role.ACT)
                for i, type_ in enumerate(self.infer())
            )
            b.update(self.kind, names, outputs, **self.case.attrs)
        else:
            outputs = b.emit(self.kind, names, "o", **self.case.attrs)
        return Program(
            str(self), b.values, (), outputs[0], train_step=tuple(b.ops), loss=outputs[0], initial=b.initial, fma=fma
        )


def resting(program: Program, dtype: DType) -> Program:
    """The Program of an op with all that a precision policy may store in another format in that format."""
    (op,), values = program.train_step, dict(program.values)
    named = [*zip(spec(op.kind).operands, op.inputs, strict=False),
             *zip(spec(op.kind).results, op.outputs, strict=False)]  # fmt: skip
    kept = {name for what, name in named if what in spec(op.kind).precise} | {*op.outputs[1:]} - {*op.inputs}
    for name, value in program.values.items():
        if value.dtype is FLOAT32 and value.type.size > 1 and name not in kept:
            values[name] = replace(value, type=TensorType(value.shape, dtype))
    initial = {name: data.astype(values[name].dtype.numpy) for name, data in program.initial.items()}
    return program.with_(values=values, initial=initial)


def rests(case: OpCase, dtype: DType) -> bool:
    """Whether any operand of a case may rest in a format; an update that rounds itself has one of its own."""
    own = case.case.attrs.get("dtype", dtype.name)
    retyped = resting(case.program(), dtype).values.values()
    return dtype.name in spec(case.kind).dtypes and dtype.name == own and any(v.dtype is dtype for v in retyped)


OP_CASES = [OpCase(kind, i, case) for kind, op in specs().items() for i, case in enumerate(op.cases())]


class CompiledCase:
    """The kernel of an op's case and the memory it works on.

    operands: arrays in the order of the kernel's parameters.  results: those that hold the outputs, in order.
    dtype: what float operands rest in where a precision policy may say so.  half: what is computed in binary16.
    """

    def __init__(
        self, case: OpCase, tiling: Tiling, *, fma: bool, dtype: DType = FLOAT32, half: str = ""
    ) -> None:
        program = resting(case.program(fma=fma), dtype).with_(half=half)
        self.case, self.op = case, program.train_step[0]
        self.spec: KernelSpec = kernel_spec(program, self.op, tiling)
        self.kernel = _kernel(self.spec)
        self.operands, self.results = self._memory()

    def _memory(self) -> tuple[list[Array], list[Array]]:
        names, moved = operand_names(self.spec), overwritten(self.spec)
        drawn = zip(names, self.spec.types, self.case.draw(), strict=False)
        arrays = {name: data.astype(type_.dtype.numpy) for name, type_, data in drawn}
        for type_, name in list(zip(self.spec.types, names, strict=True))[self.spec.inputs :]:
            arrays.setdefault(name, np.full(type_.shape, 0xA5, np.uint8).astype(type_.dtype.numpy))
        results = [arrays[names[moved.get(i, i)]] for i in self.spec.results]
        return [arrays[p.name] for p in self.kernel.parameters], results

    def source(self, name: str) -> str:
        """C of the kernel as `void name(void *const *operands)`."""
        arguments = ", ".join(f"operands[{i}]" for i in range(len(self.kernel.parameters)))
        return (
            self.kernel.function(f"{name}_kernel")
            + f"void {name}(void *const *operands);\n"
            + f"void {name}(void *const *operands) {{\n    {name}_kernel({arguments});\n}}\n"
        )


@cache
def _kernel(spec: KernelSpec) -> Kernel:
    return lower_kernel(spec)


KERNEL_INCLUDES = '#include <stdbool.h>\n#include <stdint.h>\n#include "numerics.h"\n#include "rng.h"\n'


def coded() -> list[OpCase]:
    """The cases of ops that need code."""
    return [case for case in OP_CASES if needs_code(Op(case.kind, (), ()))]


class Net:
    """Builds a forward Program layer by layer; weights are drawn from a seeded generator."""

    def __init__(self, *sample: int, batch: int = 1, seed: int = 0) -> None:
        self.b, self.rng, self.layers = Builder({}), np.random.default_rng(seed), 0
        self.at = self.b.value("x", f32(batch, *sample), Role.INPUT)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what the last layer gives."""
        return self.b.values[self.at].shape

    def _param(self, name: str, *shape: int, scale: float = 0.5, role: Role = Role.PARAM, offset: float = 0) -> str:
        return self.b.value(
            name, f32(*shape), role, name.split(".", maxsplit=1)[0], scale * self.rng.standard_normal(shape) + offset
        )

    def _layer(self, kind: str, inputs: Sequence[str], **attrs: Any) -> "Net":
        self.at = self.b.emit1(kind, [self.at, *inputs], f"l{self.layers}", loc=f"l{self.layers} ({kind})", **attrs)
        self.layers += 1
        return self

    def dense(self, units: int, *, bias: bool = True) -> "Net":
        """Fully connected."""
        n = self.layers
        names = [self._param(f"l{n}.weight", units, self.shape[1])]
        return self._layer("dense", [*names, *([self._param(f"l{n}.bias", units)] if bias else [])])

    def conv(
        self, channels: int, kernel: int = 3, *, stride: int = 1, padding: int = 0, groups: int = 1, bias: bool = True
    ) -> "Net":
        """Convolution."""
        n = self.layers
        names = [self._param(f"l{n}.weight", channels, self.shape[1] // groups, kernel, kernel)]
        names += [self._param(f"l{n}.bias", channels)] if bias else []
        return self._layer("conv2d", names, stride=(stride,) * 2, padding=(padding,) * 2, groups=groups)

    def act(self, kind: str) -> "Net":
        """Activation."""
        return self._layer(kind, [], **({"slope": 0.125} if kind == "leaky_relu" else {}))

    def norm(self) -> "Net":
        """Batch normalisation with frozen statistics."""
        n, channels = self.layers, self.shape[1]
        names = [self._param(f"l{n}.weight", channels, offset=1), self._param(f"l{n}.bias", channels)]
        names += [self._param(f"l{n}.mean", channels, role=Role.CONST)]
        return self._layer(
            "batch_norm", [*names, self._param(f"l{n}.inv_std", channels, scale=0, offset=0.75, role=Role.CONST)]
        )

    def pool(self, kind: str, kernel: int = 2, stride: int = 2, padding: int = 0) -> "Net":
        """`max_pool2d_argmax` or `avg_pool2d`."""
        return self._layer(kind, [], kernel=(kernel,) * 2, stride=(stride,) * 2, padding=(padding,) * 2)

    def flatten(self) -> "Net":
        """One row a sample."""
        return self.view(self.shape[0], int(np.prod(self.shape[1:])))

    def view(self, *shape: int) -> "Net":
        """The same elements under another shape, the first axis included."""
        return self._layer("reshape", [], shape=shape)

    def plus(self, earlier: str) -> "Net":
        """Add an earlier value of the same shape."""
        return self._layer("add", [earlier])

    def program(self, name: str = "net") -> Program:
        """The forward Program."""
        return verify(Program(name, self.b.values, tuple(self.b.ops), self.at, initial=self.b.initial))


def mlp(batch: int = 1) -> Program:
    """Dense 7-5-4 with tanh."""
    return Net(7, batch=batch).dense(5).act("tanh").dense(4).program("mlp")


def cnn(batch: int = 1) -> Program:
    """Two padded convolutions with pooling and batch normalisation, and a dense layer."""
    net = Net(2, 6, 7, batch=batch).conv(4, padding=1).norm().act("relu").pool("max_pool2d_argmax")
    return net.conv(5, padding=1, bias=False).act("leaky_relu").pool("avg_pool2d").flatten().dense(3).program("cnn")


def residual(batch: int = 1) -> Program:
    """A convolution beside the identity, and a value added to itself."""
    net = Net(3, 5, 4, batch=batch).conv(4).act("sigmoid")
    skip = net.at
    net = net.conv(4, padding=1).act("relu6").plus(skip).pool("avg_pool2d", 2, 1)
    return net.plus(net.at).flatten().dense(4, bias=False).program("residual")


NETWORKS = {"mlp": mlp, "cnn": cnn, "residual": residual}


def stages(
    program: Program, rule: Rule, loss: str, optimizer: Optimizer, *, board: str = "host"
) -> tuple[dict[str, Program], Bundle]:
    """Send a forward Program through the pipeline: the verified Program after each pass, and the bundle."""
    seen: dict[str, Program] = {}

    def recorded(program: Program, stage: str = "") -> Program:
        seen[stage] = verify(program, stage)
        return seen[stage]

    with patch.object(pipeline, "capture", lambda *_, **__: program), patch.object(pipeline, "verify", recorded):
        example = torch.zeros(program.only(Role.INPUT).shape)
        bundle = pipeline.build(
            nn.Module(), example, loss=loss, rule=rule, optimizer=optimizer, board=board, batch=program.batch
        )
    return seen, bundle


def compiled(program: Program, rule: Rule, loss: str, optimizer: Optimizer, *, board: str = "host") -> Program:
    """The Program after all passes."""
    return stages(program, rule, loss, optimizer, board=board)[1].program


def batches(program: Program, count: int, seed: int = 0) -> Iterator[tuple[Array, Array]]:
    """Random float32 inputs and labels that fit a Program with a train step."""
    rng = np.random.default_rng(seed)
    x, y, classes = program.only(Role.INPUT), program.only(Role.LABEL), program.values[program.output].shape[-1]
    for _ in range(count):
        labels = rng.standard_normal(y.shape) if y.dtype.is_float else rng.integers(0, classes, y.shape)
        yield rng.standard_normal(x.shape).astype(np.float32), labels.astype(y.dtype.numpy)


class Library:
    """A bundle's C compiled for this PC and called as a user's program would.

    folder: for the generated files.  flags: more of the compiler's.
    """

    def __init__(self, bundle: Bundle, folder: Path, *, cc: str = "gcc", flags: Sequence[str] = ()) -> None:
        self.plan, self.folder = bundle.plan, folder
        for name, text in bundle.files.items():
            (folder / name).write_text(text)
        sources = [folder / "strop_model.c", RUNTIME / "numerics.c"]
        self.c = build_shared(sources, cc=cc, flags=(f"-I{folder}", "-Wvla", *flags))
        self.c.strop_model_train_step.restype = ctypes.c_float
        self.c.strop_model_init()

    def train_step(self, x: Array, y: Array) -> float:
        """One batch; returns the loss."""
        return float(self.c.strop_model_train_step(_pointer(x), _pointer(y)))

    def infer(self, x: Array) -> Array:
        """The network's output for one batch."""
        out = np.full(self.plan.program.values[self.plan.program.output].shape, np.nan, np.float32)
        self.c.strop_model_infer(_pointer(x), _pointer(out))
        return out

    def variables(self) -> dict[str, Array]:
        """Views of all parameters and states."""
        views = {}
        for value in self.plan.program.of(Role.PARAM, Role.STATE):
            struct = "strop_model_params" if value.role is Role.PARAM else "strop_model_state"
            memory = memoryview((ctypes.c_char * self.plan.sizes[struct.rsplit("_", 1)[1]]).in_dll(self.c, struct))
            views[value.name] = np.frombuffer(
                memory, value.dtype.numpy, value.type.size, self.plan.fixed[value.name]
            ).reshape(value.shape)
        return views


def _pointer(array: Array) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)
