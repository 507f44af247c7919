"""`relay projects`: namespaces that own keys and subdomains, each with the master key that it begins with."""

from __future__ import annotations

from typing import Annotated

import typer

from relay.cli.delivery import Delivery
from relay.cli.limit_options import limit_facts
from relay.cli.options import Asked, KeyOut, Label, Quiet, Yes, command, group, label_of, sure
from relay.cli.output import Lines, harmless, say_json
from relay.cli.showing import revoked_lines
from relay.cli.tables import cell, facts, table, when
from relay.keys.forms import Kind, public_text
from relay.settings.plans import NONE

projects = group("Create, list, show and delete projects.")

Name = Annotated[str, typer.Argument(help="The project's name: a-z, 0-9 and -, at most 63.", metavar="NAME")]
Plan = Annotated[
    str | None, typer.Option("--plan", help="Its limits; see: relay plans.", metavar="PLAN", show_default=False)
]
PlanOrNone = Annotated[str, typer.Argument(help="The plan's name, or none.", metavar="PLAN|none")]
Named = Annotated[str, typer.Argument(help="The project's name or id.", metavar="PROJECT")]


@command(projects)
def create(
    asked: Asked,
    name: Name,
    *,
    plan: Plan = None,
    label: Label = None,
    key_out: KeyOut = None,
    quiet: Quiet = False,
) -> None:
    """Create a project and its master key, which is shown this once.

    The key is made here; the relay gets its public half. With it in
    RELAY_MASTER_KEY, agents of the project mint their own keys.

    Examples:

      relay projects create mcp-server
      relay projects create mcp-server --plan hobby
      relay projects create mcp-server --key-out mcp-server.key
    """
    from relay.keys.private import PrivateKey

    name = label_of(name, "The name of a project")
    client = asked.client()
    pair = PrivateKey.generate(Kind.MASTER)
    delivery = Delivery(key_out, quiet)
    with delivery.place() as place:
        place.write(pair.text)
        master = {"public_key": public_text(pair.public), **({"label": label} if label else {})}
        given = {} if plan is None else {"plan": plan}
        made = client.post("projects", body={"name": name, "master": master, **given})
        place.keep()
    project = made.get("project") or {}
    if asked.as_json:
        held = delivery.json(pair.text)
        say_json({"project": project, "master_key": held["text"], "key_file": held["file"], "key": made.get("master")})
        return
    delivery.say(f"Project created: {cell(project.get('id'))}   Master key", pair.text, Kind.MASTER)


@command(projects, "list")
def list_(asked: Asked) -> None:
    """List the projects of the relay."""
    found = list(asked.client().items("projects", limit=500))
    if asked.as_json:
        say_json(found)
        return
    rows = [
        (one.get("name"), one.get("id"), one.get("plan"), when(one.get("created_at")), one.get("created_by"))
        for one in found
    ]
    none = "There is no project yet; make one with: relay projects create NAME"
    table(("NAME", "ID", "PLAN", "CREATED", "BY"), rows, none=none)


@command(projects)
def show(asked: Asked, project: Named) -> None:
    """Show one project, with its plan and limits, its subdomains and master keys."""
    client = asked.client()
    found = client.get("projects", project)
    if asked.as_json:
        say_json(found)
        return
    names = list(client.items("subdomains", project=found.get("id"), limit=500))
    masters = list(client.items("keys", project=found.get("id"), kind="master", state="valid", limit=500))
    facts(
        [
            ("project", found.get("name")),
            ("id", found.get("id")),
            ("plan", found.get("plan")),
            *limit_facts(found.get("limits") or {}),
            ("created", f"{when(found.get('created_at'))} by {cell(found.get('created_by'))}"),
            ("deleted", when(found.get("deleted_at"))),
            ("subdomains", [one.get("name") for one in names]),
            ("master keys", [one.get("id") for one in masters]),
        ]
    )


@command(projects, "plan")
def give_plan(asked: Asked, project: Named, plan: PlanOrNone) -> None:
    """Give a project a plan, or none: then it has the relay's default plan, if there is one.

    Its limits hold at once, for the sum of all its keys. See: relay plans

    Examples:

      relay projects plan mcp-server hobby
      relay projects plan mcp-server none
    """
    found = asked.client().patch("projects", project, body={"plan": None if plan == NONE else plan})
    if asked.as_json:
        say_json(found)
        return
    limits = [f"{name}: {amount}" for name, amount in limit_facts(found.get("limits") or {}) if amount]
    had = cell(found.get("plan") or NONE)
    Lines().say(f"Plan of {cell(found.get('name'))}: {had} ({', '.join(limits) or 'no limits'})")


@command(projects)
def delete(asked: Asked, project: Named, *, yes: Yes = False) -> None:
    """Delete a project: revoke all its keys, cut their tunnels, release its subdomains.

    Its subdomains stay closed to other projects for the relay's quarantine time.
    """
    client = asked.client()
    sure(f"Delete the project {harmless(project)}, revoke all its keys and release its subdomains?", yes)
    counts = client.delete("projects", project)
    if asked.as_json:
        say_json({"project": project, **counts})
        return
    lines = Lines()
    lines.say(f"Project deleted: {harmless(project)}")
    for line in revoked_lines(counts, None) or ["It had no key that was valid."]:
        lines.say(line)
