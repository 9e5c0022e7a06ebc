"""Updates of a parameter that rests in 16 bits, with what plain rounding would lose: by chance, or carried along.

Each stands for an update of `ops.optimizer` with one operand before its own. attrs: those of the update, and dtype, the
format of the parameter.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from strop.compiler.dtypes import DTYPES
from strop.compiler.ir import TensorType
from strop.compiler.ops.base import Array, Attrs, Case, Expr, OpSpec, Te, Tensor
from strop.compiler.ops.optimizer import WEIGHT, Adam, Lion, Momentum, Sgd, Update
from strop.compiler.ops.replay import i32
from strop.compiler.rng import rng

FORMATS = ("float16", "bfloat16")


class _Rounded(Update):
    """An update with one operand before those of another."""

    of: ClassVar[Update]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if hasattr(cls, "of"):
            cls.operands = (cls.operands[0], *cls.of.operands)
            cls.precise = cls.of.precise

    @property
    def weight(self) -> int:
        """Which result is the parameter."""
        return self.of.results.index(WEIGHT)

    def first(self, like: TensorType) -> TensorType:
        """The type of the operand before the others."""
        raise NotImplementedError

    def cases(self) -> list[Case]:
        """Those of the update, in both formats."""
        made = [(FORMATS[i % 2], case) for i, case in enumerate(self.of.cases())]
        return [
            Case((self.first(case.inputs[0]), *case.inputs), {**case.attrs, "dtype": name, **self.settings})
            for name, case in made
        ]

    settings: ClassVar[dict[str, int]] = {}

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        own = self.of.draw(rng, Case(case.inputs[1:], case.attrs))
        (first,) = OpSpec.draw(self, rng, Case(case.inputs[:1]))
        return [first, DTYPES[case.attrs["dtype"]].rounded(own[0]), *own[1:]]


class Stochastic(_Rounded):
    """n, and what an update takes: the parameter becomes one of its two neighbours, the nearer the likelier.

    n (1) int32 counts the steps: the generator's seed is that of the attributes plus n. attrs: seed, tensor.
    """

    operands = ("n",)
    settings = {"seed": 7, "tensor": 11}

    def first(self, like: TensorType) -> TensorType:
        return i32(1)

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        made = self.of.reference(inputs[1:], attrs)
        w, dtype = made[self.weight], DTYPES[attrs["dtype"]]
        seed = (attrs["seed"] + int(inputs[0][0])) % 2**32
        random = rng(seed, attrs["tensor"], np.arange(w.size)).reshape(w.shape)
        made[self.weight] = dtype.dithered(w, random)
        return made

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        made = self.of.expression(te, inputs[1:], types[1:], attrs)
        (n, *_), w, shape, dtype = inputs, made[self.weight], types[1].shape, DTYPES[attrs["dtype"]]

        def element(*i: Expr) -> Expr:
            place: Expr = 0
            for axis, extent in zip(i, shape, strict=True):
                place = place * extent + axis
            return te.dithered(w[i], dtype, n[0] + attrs["seed"], attrs["tensor"], place)

        made[self.weight] = te.compute(shape, element, "w")
        return made


class Carried(_Rounded):
    """rest, and what an update takes: the parameter is w + rest, and what rounding leaves of it is the new rest.

    Kahan's compensated sum (CACM 8(1), 1965) for updates, as in arXiv 2010.06192, section 4.
    """

    operands = ("rest",)

    def first(self, like: TensorType) -> TensorType:
        return like

    def reference(self, inputs: Sequence[Array], attrs: Attrs) -> list[Array]:
        rest, w, *others = inputs
        made = self.of.reference([w + rest, *others], attrs)
        whole = made[self.weight]
        return [*made, whole - DTYPES[attrs["dtype"]].rounded(whole)]

    def expression(self, te: Te, inputs: Sequence[Tensor], types: Sequence[TensorType], attrs: Attrs) -> list[Tensor]:
        rest, w, *others = inputs
        shape, dtype = types[0].shape, DTYPES[attrs["dtype"]]
        whole = te.compute(shape, lambda *i: w[i] + rest[i], "whole")
        made = self.of.expression(te, [whole, *others], types[1:], attrs)
        new = made[self.weight]
        return [*made, te.compute(shape, lambda *i: new[i] - te.rounded(new[i], dtype), "rest")]

    def draw(self, rng: np.random.Generator, case: Case) -> list[Array]:
        """What is carried is less than half a last place."""
        rest, w, *others = super().draw(rng, case)
        return [rest * np.abs(w) * np.float32(2**-13), w, *others]


class SgdStochastic(Stochastic):
    """See Stochastic."""

    kind, of = "sgd_stochastic", Sgd()
    results, overwrites = Sgd.results, {0: 1}


class MomentumStochastic(Stochastic):
    """See Stochastic."""

    kind, of = "momentum_stochastic", Momentum()
    results, suffixes, overwrites = Momentum.results, Momentum.suffixes, {0: 2, 1: 1}


class AdamStochastic(Stochastic):
    """See Stochastic."""

    kind, of = "adam_stochastic", Adam()
    results, suffixes, overwrites = Adam.results, Adam.suffixes, {0: 2, 1: 3, 2: 1}


class LionStochastic(Stochastic):
    """See Stochastic."""

    kind, of = "lion_stochastic", Lion()
    results, suffixes, overwrites = Lion.results, Lion.suffixes, {0: 1, 1: 2}


class SgdCarried(Carried):
    """See Carried."""

    kind, of = "sgd_carried", Sgd()
    results, suffixes, overwrites = ("w", "rest"), ("", ".rest"), {0: 1, 1: 0}


class MomentumCarried(Carried):
    """See Carried."""

    kind, of = "momentum_carried", Momentum()
    results, suffixes, overwrites = ("velocity", "w", "rest"), ("", ".velocity", ".rest"), {0: 2, 1: 1, 2: 0}


class AdamCarried(Carried):
    """See Carried."""

    kind, of = "adam_carried", Adam()
    results, suffixes, overwrites = ("m", "v", "w", "rest"), (".m", ".v", "", ".rest"), {0: 2, 1: 3, 2: 1, 3: 0}


class LionCarried(Carried):
    """See Carried."""

    kind, of = "lion_carried", Lion()
    results, suffixes, overwrites = ("w", "m", "rest"), ("", ".m", ".rest"), {0: 1, 1: 2, 2: 0}
