"""The layouts: which axes of a kernel become lanes."""

from collections.abc import Sequence
from enum import Enum, auto

from strop.compiler.lanes.vectors import FEW


class Lanes(Enum):
    """Which axes of a map become lanes."""

    NONE = auto()
    ALL = auto()
    IMAGE = auto()
    LAST = auto()
    CHANNELS = auto()
    TERMS = auto()
    SUMS = auto()
    """Terms, and what follows the sums has lanes over them."""
    POSITIONS = auto()
    ONE_SUM = auto()
    """Positions, one sum of each window at a time."""


def of_terms(lanes: Lanes) -> bool:
    """Whether lanes are terms of a sum."""
    return lanes in (Lanes.TERMS, Lanes.SUMS)


def lane_axis(shape: Sequence[int], lanes: Lanes = Lanes.ALL) -> int:
    """The axis of a reduction's outputs whose neighbours become lanes: channels of an image, rows of a weight."""
    if len(shape) <= 2 or lanes is Lanes.LAST:
        return len(shape) - 1
    return 1 if shape[1] >= min(FEW, shape[0]) else 0
