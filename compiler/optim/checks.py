"""Ranges of settings: each check takes settings by name and raises UsageError for the first outside its range."""

import numpy as np

from strop.errors import UsageError

COUNTABLE = 1 << 24
"""A board counts in float32, which holds every whole number up to this one."""


def positive(**numbers: float | None) -> None:
    """Above 0 and finite; None stands for a setting that is off."""
    for name, number in numbers.items():
        if number is not None and not (np.isfinite(number) and number > 0):
            raise UsageError(f"{name} must be a positive number, not {number}")


def not_negative(**numbers: float) -> None:
    """0 or above, and finite."""
    for name, number in numbers.items():
        if not (np.isfinite(number) and number >= 0):
            raise UsageError(f"{name} must not be negative, and finite; it is {number}")


def fraction(**numbers: float) -> None:
    """In [0, 1)."""
    for name, number in numbers.items():
        if not 0 <= number < 1:
            raise UsageError(f"{name} must lie in [0, 1), not {number}")


def share(**numbers: float) -> None:
    """In [0, 1]."""
    for name, number in numbers.items():
        if not 0 <= number <= 1:
            raise UsageError(f"{name} must lie in [0, 1], not {number}")


def count(least: int, **numbers: int) -> None:
    """Whole, at least `least`, and no more than a board counts."""
    for name, number in numbers.items():
        if not (isinstance(number, int | np.integer) and least <= number <= COUNTABLE):
            raise UsageError(f"{name} must be a whole number from {least} to {COUNTABLE}, not {number}")
