"""`relay plans`: the limits that a relay's operator has put under a name, to be given to projects."""

from __future__ import annotations

import typer

from relay.cli.limit_options import COLUMNS, limit_cells
from relay.cli.options import Asked, command
from relay.cli.output import say_json
from relay.cli.tables import table


def plans(asked: Asked) -> None:
    """List the plans that projects may be given, with their limits.

    Plans are tables of the relay's settings file. A project gets one with
    relay projects create NAME --plan PLAN, or relay projects plan NAME PLAN.
    """
    found = asked.client().get("plans").get("items") or []
    if asked.as_json:
        say_json(found)
        return
    rows = [(one.get("name"), *limit_cells(one.get("limits") or {}), one.get("default") is True) for one in found]
    table(("PLAN", *COLUMNS, "DEFAULT"), rows, none="The relay has no plan.")


def add(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    command(app)(plans)
