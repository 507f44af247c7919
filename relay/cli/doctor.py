"""`relay doctor`: looks at what is between a local service and its public address, and says what is wrong with it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.errors import Mistake
from relay.cli.options import Asked, Insecure, KeyFile, RelayUrl, label_of
from relay.cli.output import Lines, say_json
from relay.cli.serve import CONFIG, NOT_INSTALLED, SERVER_PACKAGES

if TYPE_CHECKING:
    from relay.cli.doctoring.findings import Examination

FAILED = 1
DATABASE_PACKAGES = {"aiosqlite", "sqlalchemy"}
Side = tuple[tuple[str, ...], "Callable[[Examination], Coroutine[Any, Any, None]]"]


def doctor(
    target: Annotated[
        str | None,
        typer.Argument(help="The local service: a port, HOST:PORT or a URL.", metavar="TARGET", show_default=False),
    ] = None,
    *,
    subdomain: Annotated[
        str | None,
        typer.Option("--subdomain", "-s", help="The public name; a random one without.", metavar="NAME"),
    ] = None,
    relay: RelayUrl = None,
    key_file: KeyFile = None,
    project: Annotated[
        str | None, typer.Option(help="The project whose tunnel it is.", metavar="PROJECT", show_default=False)
    ] = None,
    insecure: Insecure = False,
    operator: Annotated[
        bool,
        typer.Option("--operator", help="Look at a relay of this machine, by the settings of relay serve.", metavar=""),
    ] = False,
    config: Annotated[Path | None, CONFIG] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all findings as JSON.", metavar="")] = False,
) -> None:
    """Look at what a tunnel needs, from the local service to a visitor, and say what to do about what is wrong.

    It opens a tunnel for a moment and calls it at its public address. With
    --operator it looks at a relay of this machine instead: its settings, files,
    database, names, ports and certificate.

    Examples:

      relay doctor 3000
      relay doctor 3000 --subdomain mcp-me --relay wss://tunnels.example.com
      relay doctor --operator --config /etc/relay.toml
    """
    if operator and (target or subdomain or relay or key_file or project):
        raise Mistake("With --operator a relay of this machine is looked at: leave out what is an agent's.")
    if config is not None and not operator:
        raise Mistake("--config is the relay's: for a relay of this machine add --operator.")
    from relay.cli.doctoring.findings import Examination, people

    if operator:
        checks, work = _operators_side(config)
    else:
        name = None if subdomain is None else label_of(subdomain, "--subdomain")
        checks, work = _agents_side(Asked(relay, key_file, insecure), target, name, project)
    found = Examination((lambda one: None) if as_json else people(Lines(), checks))
    asyncio.run(found.all_of(work(found)))
    if as_json:
        say_json([one.as_json() for one in found.findings])
    raise typer.Exit(FAILED if found.failed else 0)


def _agents_side(asked: Asked, target: str | None, name: str | None, project: str | None) -> Side:
    from relay.cli.doctoring import agentside
    from relay.cli.http import target_of

    local = None if target is None else target_of(target)
    plan = agentside.Plan(asked.address, os.environ, local, name, asked.key_file, project)
    return agentside.CHECKS, lambda found: agentside.examine(found, plan)


def _operators_side(config: Path | None) -> Side:
    try:
        from relay.cli.doctoring import operatorside
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in SERVER_PACKAGES | DATABASE_PACKAGES:
            raise Mistake(NOT_INSTALLED) from None
        raise
    return operatorside.CHECKS, lambda found: operatorside.examine(found, config, os.environ)
