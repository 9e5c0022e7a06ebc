"""Number formats: one row each. An op that does not list a format is refused by name, never widened silently."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DType:
    """A storage format.

    name: as printed in a Program.  c: the C type.  bits: storage width.  accumulator: the row that sums are kept in.
    numpy: the type of arrays that hold it.  exponent: values are stored times 2^exponent, of what would be too small
    (a loss scale that costs no op); beyond the format's range they stay at its end.  dynamic: the factor is the
    Program's state `SCALE` instead, which follows what is stored (see `passes.narrow`).
    """

    name: str
    c: str
    bits: int
    accumulator: str
    numpy: type[Any]
    exponent: int = 0
    dynamic: bool = False

    @property
    def bytes(self) -> int:
        """Storage size of one element."""
        return self.bits // 8

    @cached_property
    def is_float(self) -> bool:
        """Whether elements are real numbers (the float64 interpreter widens only these)."""
        return self.name.startswith(("float", "bfloat"))

    @property
    def narrow(self) -> bool:
        """Whether kernels widen it to its accumulator when they load, and round when they store."""
        return self.is_float and self.bits < 32

    @property
    def base(self) -> str:
        """Name of the format without its scale."""
        return self.name.partition("*")[0]

    def scaled(self, exponent: int) -> "DType":
        """The same format for values times 2^exponent."""
        return replace(self, name=f"{self.base}*2^{exponent}", exponent=exponent) if exponent else self

    @property
    def follows(self) -> "DType":
        """The same format for values times a factor that changes."""
        return replace(self, name=f"{self.base}*dynamic", dynamic=True)

    @property
    def most(self) -> float:
        """The largest number."""
        return float(ml_dtypes.finfo(self.numpy).max)  # type: ignore[no-untyped-call]

    def rounded(self, values: NDArray[Any], scale: float = 1.0) -> NDArray[Any]:
        """What is left of real numbers once they are stored, to the nearest, ties to even; in the type they came in.

        scale: where it is dynamic, the factor.
        """
        if not self.narrow:
            return values
        factor = scale if self.dynamic else 2.0**self.exponent
        scaled = values * values.dtype.type(factor)
        if self.exponent:
            scaled = np.clip(scaled, -self.most, self.most)
        with np.errstate(over="ignore"):
            stored: NDArray[Any] = scaled.astype(self.numpy).astype(values.dtype)
        unscaled: NDArray[Any] = stored * values.dtype.type(1 / factor)
        return unscaled

    def dithered(self, values: NDArray[Any], random: NDArray[np.uint32]) -> NDArray[Any]:
        """Real numbers rounded to one of their two neighbours, the nearer the likelier, as in runtime/numerics.h.

        random: 32 uniform bits an element.
        """
        word, single = np.uint32, values.astype(np.float32)
        bits = np.ascontiguousarray(single).view(word)
        dropped = word(16 if self.base == BFLOAT16.name else 13)
        moved = (bits + (random >> (word(32) - dropped))) & ~word((1 << int(dropped)) - 1)
        made = np.where(np.isfinite(single), moved, bits).astype(word).view(np.float32)
        if self.base == FLOAT16.name:  # below 2^-14 all numbers are 2^-24 apart
            places = np.abs(single) * np.float32(2.0**24)
            whole = np.floor(places)
            up = (places - whole) * np.float32(2.0**24) > (random >> word(8)).astype(np.float32)
            fine = np.copysign((whole + up) * np.float32(2.0**-24), single).astype(np.float32)
            made = np.where(np.abs(single) < np.float32(2.0**-14), fine, made)
        return made.astype(values.dtype)


FLOAT32 = DType("float32", "float", 32, "float32", np.float32)
FLOAT16 = DType("float16", "uint16_t", 16, "float32", np.float16)
BFLOAT16 = DType("bfloat16", "uint16_t", 16, "float32", ml_dtypes.bfloat16)
INT32 = DType("int32", "int32_t", 32, "int32", np.int32)
INT8 = DType("int8", "int8_t", 8, "int32", np.int8)
UINT8 = DType("uint8", "uint8_t", 8, "int32", np.uint8)

DTYPES = {row.name: row for row in (FLOAT32, FLOAT16, BFLOAT16, INT32, INT8, UINT8)}
