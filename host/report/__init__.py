"""`report.html`: a run as one page for people, in one file that needs no network."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strop.errors import StropError
from strop.host.arrays import write_file
from strop.host.report.page import Story, page

if TYPE_CHECKING:
    from strop.compiler.bundle import Bundle
    from strop.host.footprint import Report as Footprint
    from strop.host.picture import Curve
    from strop.host.profile import Profile

__all__ = ["NAME", "write_report"]

NAME = "report.html"


def write_report(
    folder: Path, run: Mapping[str, Any], bundle: "Bundle", curve: "Curve", *, toolchain: str = "zig",
    profile: "Profile | None" = None,
) -> Path:  # fmt: skip
    """Write a run's page into its folder; returns the file.

    run: the run's report.json so far.  curve: its losses and scores.  profile: of the training step, if it was counted.
    """
    story = Story(run, bundle, curve, _footprint(bundle, toolchain), profile)
    write_file(folder / NAME, page(story).encode())
    return folder / NAME


def _footprint(bundle: "Bundle", toolchain: str) -> "Footprint | None":
    """What the bundle costs; None where its compiler is missing, or the firmware cannot be linked or measured."""
    from strop.host.footprint import report

    try:
        return report(bundle, toolchain=toolchain)
    except StropError:
        return None
