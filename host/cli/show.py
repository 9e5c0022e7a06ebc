"""Results for people: facts one a line, and tables that fit 100 columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def facts(out: Console, rows: Mapping[str, Any]) -> None:
    """Print names and values, one pair a line."""
    width = max(map(len, rows), default=0) + 2
    for name, value in rows.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        out.print(f"{name.replace('_', ' '):<{width}}{shown}", soft_wrap=True, markup=False)


def table(out: Console, heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0) -> None:
    """Print a table; its last `numbers` columns are aligned to the right."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(heads))
    for i, head in enumerate(heads):
        shown.add_column(head, justify="right" if i >= len(heads) - numbers else "left", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    out.print(shown)
