"""Number formats: one row each. An op that does not list a format is refused by name, never widened silently."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DType:
    """A storage format.

    name: as printed in a Program.  c: the C type.  bits: storage width.  accumulator: the row that sums are kept in.
    numpy: the interpreter's type in its exact mode.
    """

    name: str
    c: str
    bits: int
    accumulator: str
    numpy: type[np.generic]

    @property
    def bytes(self) -> int:
        """Storage size of one element."""
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        """Whether elements are real numbers (the float64 interpreter widens only these)."""
        return issubclass(self.numpy, np.floating)


FLOAT32 = DType("float32", "float", 32, "float32", np.float32)
INT32 = DType("int32", "int32_t", 32, "int32", np.int32)
INT8 = DType("int8", "int8_t", 8, "int32", np.int8)
UINT8 = DType("uint8", "uint8_t", 8, "int32", np.uint8)

DTYPES = {row.name: row for row in (FLOAT32, INT32, INT8, UINT8)}
