"""`relay subdomains`: public names and the projects that they are reserved for, whether a tunnel is open or not."""

from __future__ import annotations

from typing import Annotated

import typer

from relay.cli.options import Asked, Project, Yes, command, group, label_of, sure
from relay.cli.output import Lines, say_json
from relay.cli.showing import project_of
from relay.cli.tables import cell, table, when

subdomains = group("Reserve, list and release public names.")

Name = Annotated[str, typer.Argument(help="The public name, without the relay's domain.", metavar="NAME")]


@command(subdomains)
def reserve(asked: Asked, name: Name, *, project: Project = None) -> None:
    """Reserve a name for a project before an agent claims it.

    Without --project: a master key's own project, else the project default.
    """
    found = asked.client().put("subdomains", label_of(name, "NAME"), body={"project": project} if project else {})
    if asked.as_json:
        say_json(found)
        return
    Lines().say(f"Reserved for {project_of(found)}: {cell(found.get('url') or found.get('name'))}")


@command(subdomains, "list")
def list_(asked: Asked, *, project: Project = None) -> None:
    """List reserved names."""
    found = list(asked.client().items("subdomains", project=project, limit=500))
    if asked.as_json:
        say_json(found)
        return
    rows = [
        (one.get("name"), project_of(one), one.get("url"), when(one.get("reserved_at")), one.get("login"))
        for one in found
    ]
    table(("NAME", "PROJECT", "ADDRESS", "RESERVED", "BY"), rows, none="No name is reserved.")


@command(subdomains)
def release(asked: Asked, name: Name, *, yes: Yes = False) -> None:
    """Give a name up. It stays closed to other projects for the relay's quarantine time."""
    name = label_of(name, "NAME")
    client = asked.client()
    sure(f"Release the name {name}? A tunnel that bears it is cut.", yes)
    client.delete("subdomains", name)
    if asked.as_json:
        say_json({"name": name, "released": True})
        return
    Lines().say(f"Released: {name}")
