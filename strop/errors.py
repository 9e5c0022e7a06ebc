"""One exception class per stage; each says what is wrong, where, and what to do.

The command line prints ``str(error)`` as one paragraph and exits with status 1; nothing below ``StropError`` is
ever shown as a traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class StropError(Exception):
    """Base of all errors a user can cause or repair.

    what: one sentence, no full stop.  where: the layer, file, frame or step.  do: one sentence, what to try next.
    """

    def __init__(self, what: str, *, where: str = "", do: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.do = what, where, do

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        advice = f" {self.do.rstrip('.')}." if self.do else ""
        return f"{self.what.rstrip('.')}{place}.{advice}"


class UsageError(StropError):
    """An option, name or argument that cannot be used."""


class DataError(StropError):
    """A data set that is missing, damaged, or does not fit the model."""


class CaptureError(StropError):
    """A model that cannot be read: a layer without an op, a dynamic shape."""


class VerifyError(StropError):
    """A Program that breaks the IR's specification: always a defect of the pass that made it."""


class RuleError(StropError):
    """A learning rule that cannot train this network."""


class LegalizeError(StropError):
    """An op or dtype that the board lacks."""


class PlanError(StropError):
    """A model that does not fit the board; ``map`` is the memory map as text."""

    def __init__(self, what: str, *, where: str = "", do: str = "", map: str = "") -> None:  # noqa: A002
        super().__init__(what, where=where, do=do)
        self.map = map

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.map}" if self.map else super().__str__()


class LowerError(StropError):
    """A kernel that cannot be scheduled or printed."""


class BoardError(StropError):
    """A board description that is unknown or not valid."""


class ToolchainError(StropError):
    """A compiler that is missing or refuses the sources."""


class FlashError(StropError):
    """A flash tool or emulator that is missing or fails."""


class TransportError(StropError):
    """A port that cannot be opened, or that fell silent."""


class SessionError(StropError):
    """A board that answers with a status other than OK, or runs another model."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return advice for an unknown name: the nearest known one, and all of them."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    return f"{guess}Known: {', '.join(names)}"
