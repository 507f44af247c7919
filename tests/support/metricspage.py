"""The tables of docs/metrics.md: which metrics there are, and which of them a scrape holds from the start."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
COLUMNS = ["name", "type", "labels", "meaning", "appears"]


@dataclass(frozen=True, slots=True)
class Row:
    """One metric."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str
    appears: str
    """`always`, or under which conditions."""

    @property
    def samples(self) -> tuple[str, ...]:
        """The names that its samples have."""
        return (
            tuple(f"{self.name}{end}" for end in ("_bucket", "_sum", "_count"))
            if self.type == "histogram"
            else (self.name,)
        )


def rows(text: str | None = None) -> list[Row]:
    """Every row of a table of metrics, in order."""
    found, inside = [], False
    for line in (PAGE.read_text(encoding="utf-8") if text is None else text).splitlines():
        cells = [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells == COLUMNS:
            inside = True
        elif inside and not cells[0].startswith("---"):
            name, kind, labels, meaning, appears = cells
            found.append(Row(name.strip("`"), kind, tuple(re.findall(r"`(\w+)`", labels)), meaning, appears))
    return found
