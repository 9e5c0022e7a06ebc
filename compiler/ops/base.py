"""What an op has to say of itself, and the small language its tensor expression is written in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from strop.compiler.dtypes import FLOAT32, DType
from strop.compiler.ir import Builder, Op, TensorType

Array = NDArray[Any]
Attrs = Mapping[str, Any]
Expr = Any  # a scalar expression: supports + - * / // % and comparisons
Tensor = Any  # indexable by Exprs


class Te(Protocol):
    """The expression language: loops over output elements, reductions, choices, and the runtime's functions.

    A reduction runs in row-major order of its axes, one accumulator an output element, unless a schedule says
    otherwise. Function calls go to the runtime, never to a libm.
    """

    def compute(self, shape: Sequence[int], element: Callable[..., Expr], name: str) -> Tensor:
        """A tensor whose element at an index is `element(*index)`."""

    def axes(self, *extents: int) -> tuple[Expr, ...]:
        """Reduction axes, outermost first."""

    def sum(self, expr: Expr, axes: Sequence[Expr]) -> Expr:
        """Sum of `expr` over the axes, from zero."""

    def max(self, expr: Expr, axes: Sequence[Expr]) -> Expr:
        """Largest `expr` over the axes."""

    def compute_argmax(
        self, shape: Sequence[int], element: Callable[..., tuple[Expr, Expr]], axes: Sequence[Expr], name: str
    ) -> tuple[Tensor, Tensor]:
        """Largest value over the axes and the uint8 label of the first place that has it; element -> (value, label)."""

    def scatter(
        self, variable: TensorType, inputs: Sequence[Tensor], place: Callable[..., Expr], element: Callable[..., Expr],
        name: str,
    ) -> Tensor:
        """A variable with a few rows replaced, for an op that overwrites it: all other rows stay as they lie in memory.

        Row place(inputs, r) becomes element(inputs, r, *index), for each row r of the first input, in order; a place
        outside the variable is skipped. Costs what it writes, however large the variable.
        """  # fmt: skip

    def where(self, condition: Expr, then: Expr, otherwise: Expr) -> Expr:
        """A choice that evaluates only the chosen side, so `then` may index outside when the condition is false."""

    def every(self, *conditions: Expr) -> Expr:
        """Logical and."""

    def call(self, function: str, *arguments: Expr) -> Expr:
        """A float32 function of the runtime: exp, log, tanh, sigmoid, sqrt."""

    def sign_hash(self, seed: int, tensor: int, index: Expr) -> Expr:
        """+1 or -1 from the counter-based generator at (seed, tensor, index)."""

    def uniform_hash(self, seed: int, tensor: int, index: Expr) -> Expr:
        """A multiple of 2^-24 in [0, 1) from the counter-based generator at (seed, tensor, index)."""

    def rounded(self, value: Expr, dtype: DType) -> Expr:
        """The float32 that is left of a value once it is stored."""

    def dithered(self, value: Expr, dtype: DType, seed: Expr, tensor: int, index: Expr) -> Expr:
        """One of a value's two neighbours in a 16-bit format, by the generator at (seed, tensor, index)."""

    def const(self, value: float) -> Expr:
        """A float32 constant."""

    def cast(self, expr: Expr, dtype: DType) -> Expr:
        """Convert to another dtype."""


@dataclass(frozen=True)
class Case:
    """One test case of an op: input types and attributes; `draw` fills special inputs such as labels."""

    inputs: tuple[TensorType, ...]
    attrs: Attrs = field(default_factory=dict)


def f32(*shape: int) -> TensorType:
    """A float32 tensor type."""
    return TensorType(tuple(shape), FLOAT32)


def guarded(te: Te, condition: Expr | None, term: Expr) -> Expr:
    """The term where the condition holds, else 0; a condition of None always holds."""
    return term if condition is None else te.where(condition, term, te.const(0))


@dataclass(frozen=True)
class Hints:
    """What a schedule may make use of; none of it changes the result.

    tile: output axes whose neighbours share operands, worth holding side by side in registers.  slides: whether
    neighbours along the last of them share all but one, as under a wide kernel.  dot: each output is a dot product with
    its own row of a weight (few rows side by side, unrolled deep).  outer: an outer product of one sample (walked down
    its columns, a column's operand stays in a register).  window: each output reduces a window of its own; windows
    neither overlap nor leave the input.  scattered: numbers in memory say where terms lie.
    """

    tile: tuple[int, ...] = ()
    slides: bool = True
    dot: bool = False
    outer: bool = False
    window: bool = False
    scattered: bool = False


class OpSpec:
    """Base of all ops. An op is one instance, found by its `kind`."""

    kind: ClassVar[str]
    operands: ClassVar[tuple[str, ...]] = ("x",)
    """Names of the inputs, as they stand in generated C; optional ones last."""
    results: ClassVar[tuple[str, ...]] = ("y",)
    """Names of the outputs."""
    suffixes: ClassVar[tuple[str, ...]] = ("",)
    """Appended to the stem to name each output."""
    overwrites: ClassVar[Mapping[int, int]] = {}
    """Output index -> input index of the variable it replaces in place."""
    elementwise: ClassVar[bool] = False
    """Whether element i of the outputs depends on element i only, for every input of the output's shape."""
    plain: ClassVar[str] = ""
    """The kind that computes the first output alone; takes over where the others are not read."""
    free: ClassVar[bool] = False
    """Whether the output is the input's memory under another type: no code, no copy."""
    working: ClassVar[tuple[int, ...]] = ()
    """Outputs that the kernel itself works on: they keep their memory even where nobody else reads them."""
    composite: ClassVar[bool] = False
    """Whether the op stands for others, which `expand` gives: it has no expression."""
    weighted: ClassVar[bool] = False
    """Whether the op is a layer that rules may train by itself: its second input is its weight."""
    activity: ClassVar[int] = 0
    """Of a layer, the output that local objectives look at: a recurrent layer's last step."""
    follows: ClassVar[bool] = False
    """Whether the op belongs to the layer before it, as activations, normalisations and max-pools do."""
    reach: ClassVar[tuple[float, float] | None] = None
    """For an activation, targets it can reach without saturating: the lower and the upper of two."""
    linear: ClassVar[str] = ""
    """The operand that all results are proportional to: a power of two that it rests times need not be taken back."""
    gradient: ClassVar[str] = ""
    """The operand that an update multiplies by its attribute `lr`, and uses for nothing else without `weight_decay`."""
    monotone: ClassVar[bool] = False
    """Whether the op never decreases, element by element, so that it may move behind a max-pool."""
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float16", "bfloat16")
    """Storage formats that float operands may rest in; the op itself sees float32."""
    precise: ClassVar[frozenset[str]] = frozenset()
    """Operands and results that are float32 under any precision policy, by their names in C."""

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        """Types of the outputs."""
        raise NotImplementedError

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        """Outputs in plain numpy, in the dtype of the inputs; shares nothing with `expression`."""
        raise NotImplementedError

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        """Outputs as tensor expressions; `types` are the inputs' types."""
        raise NotImplementedError

    def expand(self, b: Builder, op: Op) -> None:
        """Of a composite op: append ops that compute its outputs, under their names."""
        raise NotImplementedError

    def hints(self, types: Sequence[TensorType], attrs: Attrs) -> Hints:
        """What a schedule may make use of; `types` are the inputs' types."""
        del types, attrs
        return Hints()

    def vjp(self, b: Builder, op: Op, grads: Sequence[str | None]) -> list[str | None]:
        """Emit ops that turn gradients of the outputs into gradients of the inputs; None where there is none."""
        raise NotImplementedError

    def macs(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType], attrs: Attrs) -> int:
        """Multiply-accumulates of one run; 0 for what is no linear algebra."""
        del inputs, outputs, attrs
        return 0

    def cases(self) -> list[Case]:
        """Asymmetric, odd-sized, strided and padded examples for the tests."""
        return []

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """Random inputs for a case; overridden where inputs are not free (labels, indices, positive sums)."""
        return [rng.standard_normal(t.shape).astype(t.dtype.numpy) for t in case.inputs]

    @property
    def differentiable(self) -> tuple[int, ...]:
        """Input indices the gradient check perturbs; empty for ops without `vjp`."""
        return ()


class Elementwise(OpSpec):
    """An op whose outputs have the shape of its first input, element by element."""

    elementwise = True

    def infer(self, inputs: Sequence[TensorType], attrs: Attrs) -> list[TensorType]:
        """One output of the first input's type."""
        del attrs
        return [inputs[0]]

    def element(self, te: Te, values: Sequence[Expr], attrs: Attrs) -> Expr:
        """The output element from the inputs' elements at the same index."""
        raise NotImplementedError

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        """Apply `element` at every index."""
        return [te.compute(types[0].shape, lambda *i: self.element(te, [t[i] for t in inputs], attrs), self.kind)]

    def cases(self) -> list[Case]:
        """A batch of one and an odd batch."""
        arity = getattr(self, "arity", 1)
        return [Case((f32(1, 3, 5, 7),) * arity), Case((f32(3, 11),) * arity)]
