"""`relay tunnels`: the names that are alive now, and how to cut one."""

from __future__ import annotations

from typing import Annotated

import typer

from relay.cli.options import Asked, command, group, label_of
from relay.cli.output import Lines, say_json
from relay.cli.showing import project_of
from relay.cli.tables import table, when

tunnels = group("List and close live tunnels.")


@command(tunnels, "list")
def list_(asked: Asked) -> None:
    """List the tunnels that are alive now."""
    found = list(asked.client().items("tunnels", limit=500))
    if asked.as_json:
        say_json(found)
        return
    rows = [
        (
            one.get("name"),
            project_of(one),
            one.get("url"),
            one.get("links"),
            one.get("streams"),
            when(one.get("since")),
            one.get("private"),
            one.get("key_id"),
        )
        for one in found
    ]
    columns = ("NAME", "PROJECT", "ADDRESS", "LINKS", "OPEN", "SINCE", "PRIVATE", "KEY")
    table(columns, rows, none="No tunnel is open; open one with: relay http 3000 --subdomain NAME")


@command(tunnels)
def close(asked: Asked, name: Annotated[str, typer.Argument(help="The tunnel's public name.", metavar="NAME")]) -> None:
    """Cut a tunnel. Its agent is told, and ends; its key and its name stay what they are."""
    name = label_of(name, "NAME")
    asked.client().delete("tunnels", name)
    if asked.as_json:
        say_json({"name": name, "closed": True})
        return
    Lines().say(f"Closed: {name}")
