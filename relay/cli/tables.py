"""Answers of the API for people: tables and lists of facts. Whatever came from the network is made harmless here."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from relay.cli.output import Lines, harmless

# Where nobody looks at a screen nothing is folded: lines are cut by programs, not by us.
UNFOLDED = 100_000


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, none: str) -> None:
    """Prints rows under their columns, or the sentence `none` where there is no row."""
    held = list(rows)
    if not held:
        Lines().say(none)
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in held:
        grid.add_row(*(Text(cell(value)) for value in row))
    _print(grid)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Prints each name with its value, without those whose value is None or empty."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=False)
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, "", (), []):
            grid.add_row(name, Text(cell(value)))
    _print(grid)


def _print(grid: Any) -> None:  # noqa: ANN401 - Rich is loaded where it is needed
    from rich.console import Console

    lines, held = Lines(), io.StringIO()
    terminal = sys.stdout.isatty()
    Console(
        file=held,
        width=None if terminal else UNFOLDED,
        force_terminal=lines.coloured,
        no_color=not lines.coloured,
        legacy_windows=False,
        _environ=os.environ,
    ).print(grid)
    for line in held.getvalue().splitlines():
        lines.say(line.rstrip())


def cell(value: object) -> str:
    """A value as a person reads it, harmless: nothing for None, words for a truth, a list with commas."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(cell(one) for one in value)
    return harmless(value)


def when(moment: object) -> str:
    """An ISO 8601 time as this machine's own, to the minute; harmless whatever it is."""
    try:
        return datetime.fromisoformat(str(moment)).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return cell(moment)


def many(count: int, thing: str) -> str:
    """`1 key`, `2 keys`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
