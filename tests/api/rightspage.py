"""The table of rights on docs/keys.md, which is what the tests of rights are made from."""

from __future__ import annotations

from pathlib import Path

from relay.api.rights import Right
from relay.keys.forms import Kind

PAGE = Path(__file__).resolve().parents[2] / "docs" / "keys.md"
# Rows about keys end with the key that they are about.
ABOUT = ("itself", "descendant", "other")


def rows() -> dict[str, dict[Kind, str]]:
    """What each kind may, by row: yes, own project, itself, no."""
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- rights -->")
    lines = [line for line in rest.partition("<!-- /rights -->")[0].splitlines() if line.startswith("|")]
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    kinds = [Kind(name) for name in head[1:]]
    return {cells[0].strip("`"): dict(zip(kinds, cells[1:], strict=True)) for cells in body}


def right_of(row: str) -> tuple[Right, str]:
    """The right that a row is about, and of which key ("" where it is about none in particular)."""
    words = row.split()
    about = words.pop() if words[-1] in ABOUT else ""
    return Right(".".join(words)), about
