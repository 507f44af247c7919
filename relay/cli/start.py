"""`relay start`: all tunnels of a file in one agent, which follows the file's changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from relay.agent.config import CannotListen
from relay.cli.errors import Mistake
from relay.cli.http import silent
from relay.cli.http_lines import Situation, reporter
from relay.cli.options import Insecure, KeyFile, Metrics, RelayUrl
from relay.cli.output import Event, Lines, harmless, say_json
from relay.cli.tunnelfile import DEFAULT_FILE, OneTunnel
from relay.cli.tunnelwatch import Chosen, TunnelWatch

if TYPE_CHECKING:
    from relay.agent.config import AgentSettings


def start(
    file: Annotated[Path, typer.Option("--file", "-f", help="The file that names the tunnels.", metavar="FILE")] = Path(
        DEFAULT_FILE
    ),
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Say what would be opened, and whether the file is good; open nothing.", metavar=""
        ),
    ] = False,
    relay: RelayUrl = None,
    key_file: KeyFile = None,
    metrics: Metrics = None,
    insecure: Insecure = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as one line of JSON.", metavar="")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no line for each request.", metavar="")] = False,
) -> None:
    """Make many local services public: all tunnels of a file, until Ctrl-C.

    The file is read anew when it changes, or on SIGHUP. Tunnels that stay keep
    what runs over them; a mistake is told, and the tunnels stay as they were.

    Example of a relay.yaml:

      relay: wss://tunnels.example.com
      key_file: child.key
      tunnels:
        mcp-me: 3000
        shop:
          target: http://127.0.0.1:8000
          private: true
    """
    watch = TunnelWatch(file, Chosen(relay, key_file, metrics, insecure), os.environ)
    settings = watch.settings()
    if check:
        (_check_json if as_json else _check)(file, settings, watch)
        return
    raise typer.Exit(_run(settings, watch, as_json=as_json, quiet=quiet))


def _run(settings: AgentSettings, watch: TunnelWatch, *, as_json: bool, quiet: bool) -> int:
    """Runs the agent until it ends; its exit code."""
    from relay.agent import run as run_agent

    targets = {name: one.url for name, one in settings.tunnels}
    tell, hints = reporter(
        Lines(), Situation(settings.relay_url, watch.key.origin, targets), as_json=as_json, quiet=quiet
    )

    def report(event: Event) -> None:
        if event.get("event") == "reloaded":
            targets.clear()
            targets.update((one.name, one.target.url) for one in watch.said.tunnels)
        tell(event)

    for name in silent(settings.tunnels):
        report({"event": "hint", "message": hints.for_start(name)})
    try:
        return int(run_agent(settings, report, watch, quiet=quiet))
    except CannotListen as error:
        raise Mistake(str(error)) from None


# ---- --check


def _check(file: Path, settings: AgentSettings, watch: TunnelWatch) -> None:
    lines = Lines()
    count = len(settings.tunnels)
    lines.say(f"{harmless(file)} is good: {count} tunnel{'s' * (count != 1)} at {settings.relay_url}")
    widest = max(len(one.name) for one in watch.said.tunnels)
    for one in watch.said.tunnels:
        told = ", ".join(_features(one))
        lines.say(f"  {one.name:<{widest}}  {one.target.url}{'  ' + told if told else ''}")
    lines.say(f"Key: {watch.key.id}, from {harmless(watch.key.origin)}")


def _features(one: OneTunnel) -> Iterator[str]:
    rules, limits = one.rules, one.limits
    if rules is not None and rules.visitor_keys:
        yield "private"
    if rules is not None and rules.basic:
        yield f"{len(rules.basic)} user{'s' * (len(rules.basic) != 1)}"
    if one.upstream:
        yield f"{len(one.upstream)} field{'s' * (len(one.upstream) != 1)} for the local service"
    if one.preserve_host:
        yield "Host as it is"
    if limits.rate is not None:
        yield f"{limits.rate} requests a second"
    if limits.rate_per_address is not None:
        yield f"{limits.rate_per_address} for each address"


def _check_json(file: Path, settings: AgentSettings, watch: TunnelWatch) -> None:
    tunnels = [
        {
            "subdomain": one.name,
            "target": one.target.url,
            "access": list(one.rules.ways) if one.rules is not None else [],
            "upstream_fields": len(one.upstream),
            "preserve_host": one.preserve_host,
            "rate": one.limits.rate,
            "rate_per_address": one.limits.rate_per_address,
        }
        for one in watch.said.tunnels
    ]
    project = watch.said.project and watch.said.project[0]
    whole = {"file": str(file), "relay": settings.relay_url, "project": project, "key": watch.key.id}
    say_json({**whole, "links": settings.links, "tunnels": tunnels})
