"""`relay usage`: what projects and keys have used in a month, and what is left of it."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from relay.cli.errors import Mistake
from relay.cli.limit_options import amount_cells
from relay.cli.options import Asked, Project, command
from relay.cli.output import Lines, harmless, say_json
from relay.cli.showing import project_of
from relay.cli.tables import cell, table, when

AMOUNTS = ("REQUESTS", "IN", "OUT", "LEFT")

Month = Annotated[
    str | None, typer.Option("--month", help="Another month than this one.", metavar="YYYY-MM", show_default=False)
]


def usage(asked: Asked, *, project: Project = None, month: Month = None) -> None:
    """Show what was used in a month, and what is left: by project and by key.

    Months are those of UTC. What a key has left is the least that it, the keys
    above it and its project have.

    Examples:

      relay usage
      relay usage --project mcp-server --month 2026-11
    """
    if month is not None and not re.fullmatch(r"20[0-9]{2}-(0[1-9]|1[0-2])", month):
        raise Mistake(
            f"--month must be a year and a month, for example --month 2026-11, but it is {harmless(month)!r}."
        )
    found = asked.client().get("usage", project=project, month=month)
    if asked.as_json:
        say_json(found)
        return
    lines = Lines()
    projects, keys = found.get("projects") or [], found.get("keys") or []
    lines.say(f"{cell(found.get('month'))}, until {when(found.get('ends_at'))}")
    if projects or not keys:
        rows = [(project_of(one), one.get("plan"), *amount_cells(one)) for one in projects]
        lines.say()
        table(("PROJECT", "PLAN", *AMOUNTS), rows, none="Nothing was used.")
    if keys:
        rows = [(one.get("key"), project_of(one), one.get("label"), *amount_cells(one)) for one in keys]
        lines.say()
        table(("KEY", "PROJECT", "LABEL", *AMOUNTS), rows, none="")
    if found.get("more") is True:
        lines.say()
        lines.say("These have the most requests; there are more. Choose with: relay usage --project PROJECT")


def add(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    command(app)(usage)
