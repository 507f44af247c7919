"""`relay http`: the command that runs an agent. Turns what was typed into `AgentSettings`; the agent does the rest."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated

import typer

from relay.agent.config import DEFAULT_LINKS, HTTP_PARSERS, MOST_LINKS, AgentSettings, CannotListen
from relay.agent.proxies import BadProxy, proxy_for
from relay.agent.targets import Target, TargetError, is_loopback, parse_target
from relay.cli.access_options import read_access
from relay.cli.errors import Mistake
from relay.cli.http_lines import Situation, reporter
from relay.cli.keyring import find_key, find_relay
from relay.cli.minting import key_source
from relay.cli.options import Insecure, KeyFile, Metrics, RelayUrl, label_of, metrics_of, rate_of
from relay.cli.output import Lines, harmless
from relay.wire.hello import MAX_NAMES
from relay.wire.limits import TunnelLimits

_FIRST = (
    "amber bold brave bright calm clever cosy early fair fast fresh gentle glad golden green happy honest jolly keen "
    "kind light lucky mellow merry mild neat nimble noble proud quick quiet rapid royal silver smart snowy soft solid "
    "spry sunny sweet swift tidy vivid warm wise witty young"
)
_SECOND = (
    "badger beaver bison crane deer dolphin dove eagle elk falcon finch fox gecko goose hare hawk heron horse ibis "
    "kiwi koala lark lemur llama lynx marten mole moose newt otter owl panda parrot pony puffin quail raven robin "
    "salmon seal sparrow stork swan tiger trout turtle whale wolf wren zebra"
)
# How long to look whether something listens on the local port; it is this machine, which answers at once.
PROBE_SECONDS = 0.3


def http(
    target: Annotated[
        str | None,
        typer.Argument(help="The local service: a port, HOST:PORT or a URL.", metavar="TARGET", show_default=False),
    ] = None,
    subdomain: Annotated[
        list[str] | None,
        typer.Option(
            "--subdomain",
            "-s",
            help="The public name; random without. NAME=TARGET, repeated, opens several tunnels in one agent.",
            metavar="NAME | NAME=TARGET",
        ),
    ] = None,
    relay: RelayUrl = None,
    key_file: KeyFile = None,
    project: Annotated[
        str | None,
        typer.Option(help="The project whose tunnel it is; a master key mints the agent's own.", metavar="PROJECT"),
    ] = None,
    links: Annotated[
        int, typer.Option(help=f"Connections to the relay, 1 to {MOST_LINKS}.", metavar="N")
    ] = DEFAULT_LINKS,
    private: Annotated[
        bool, typer.Option("--private", help="Ask visitors for a visitor key of this tunnel.", metavar="")
    ] = False,
    basic_auth_file: Annotated[
        Path | None,
        typer.Option(help="Ask visitors for a user and password of this file, lines user:password.", metavar="FILE"),
    ] = None,
    upstream_header_file: Annotated[
        Path | None,
        typer.Option(
            help="Send these fields to the local service with each request, lines Name: value.", metavar="FILE"
        ),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(help="Let each tunnel take this many requests a second; what is above is told 429.", metavar="N"),
    ] = None,
    rate_per_address: Annotated[
        int | None, typer.Option(help="The same for each visitor's address: a brake for loops.", metavar="N")
    ] = None,
    preserve_host: Annotated[
        bool, typer.Option("--preserve-host", help="Send the visitor's Host and Origin on as they are.", metavar="")
    ] = False,
    allow_upstream: Annotated[
        list[str] | None,
        typer.Option(help="Let the local service be in this network too; may be repeated.", metavar="CIDR"),
    ] = None,
    http_parser: Annotated[
        str, typer.Option(help="Who reads the local service's answers; h11 is stricter.", metavar="httptools|h11")
    ] = HTTP_PARSERS[0],
    metrics: Metrics = None,
    insecure: Insecure = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as one line of JSON.", metavar="")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no line for each request.", metavar="")] = False,
) -> None:
    """Make a local service public: open a tunnel to it, until Ctrl-C.

    The agent connects outwards to the relay and needs no open port. When the
    connection breaks, it comes back by itself.

    Examples:

      relay http 3000 --subdomain mcp-me
      relay http 3000 --relay wss://tunnels.example.com --key-file child.key
      RELAY_MASTER_KEY=… relay http 3000 --subdomain mcp-me --project mcp-server
      relay http --subdomain shop=3000 --subdomain web=192.168.1.20:8000
    """
    tunnels = tunnels_of(target, subdomain or [])
    if not 1 <= links <= MOST_LINKS:
        raise Mistake(f"--links must be a number from 1 to {MOST_LINKS}, for example --links 2, but it is {links}.")
    if http_parser not in HTTP_PARSERS:
        raise Mistake(f"--http-parser must be {' or '.join(HTTP_PARSERS)}, but it is {harmless(http_parser)!r}.")
    networks = tuple(network_of(text) for text in allow_upstream or ())
    brake = TunnelLimits(rate_of(rate, "--rate"), rate_of(rate_per_address, "--rate-per-address"))
    relay_url = reachable(find_relay(relay, os.environ, insecure))
    access = read_access(private, basic_auth_file, upstream_header_file)
    names = tuple(name for name, _ in tunnels)
    limits = {} if brake == TunnelLimits() else dict.fromkeys(names, brake)
    key = find_key(key_file, os.environ, relay_url)
    settings = AgentSettings(
        relay_url=relay_url,
        keys=key_source(relay_url, key, project, names, os.environ),
        tunnels=tunnels,
        access=access.for_each(names, limits),
        limits=limits,
        upstream=dict.fromkeys(names, access.upstream),
        links=links,
        preserve_host=frozenset(names if preserve_host else ()),
        allow_upstream=networks,
        http_parser=http_parser,
        metrics=metrics_of(metrics, os.environ),
    )
    targets = {name: one.url for name, one in tunnels}
    situation = Situation(relay_url, key.origin, targets)
    raise typer.Exit(run(settings, situation, as_json=as_json, quiet=quiet))


def run(settings: AgentSettings, situation: Situation, *, as_json: bool, quiet: bool) -> int:
    """Runs the agent until it ends; its exit code."""
    from relay.agent import run as run_agent

    report, hints = reporter(Lines(), situation, as_json=as_json, quiet=quiet)
    for name in silent(settings.tunnels):
        report({"event": "hint", "message": hints.for_start(name)})
    try:
        return int(run_agent(settings, report, quiet=quiet))
    except CannotListen as error:
        raise Mistake(str(error)) from None


def tunnels_of(target: str | None, subdomains: list[str]) -> tuple[tuple[str, Target], ...]:
    """Each subdomain with its local service. Raises `Mistake`."""
    if target is None and not subdomains:
        raise Mistake("Which local service? Give its port, HOST:PORT or URL, for example: relay http 3000")
    tunnels: dict[str, Target] = {}
    for text in subdomains or [random_name()]:
        name, equals, own = text.partition("=")
        if equals and target is not None:
            raise Mistake(
                f"Give the local service once, as TARGET ({harmless(target)}) "
                f"or in --subdomain {harmless(text)}, not both."
            )
        if not equals and target is None:
            raise Mistake(
                f"--subdomain {harmless(text)} needs a local service, "
                f"for example: relay http 3000 --subdomain {harmless(text)}"
            )
        label = label_of(name, "--subdomain")
        if label in tunnels:
            raise Mistake(f"--subdomain {label} stands twice; every name leads to one local service.")
        tunnels[label] = target_of(own if equals else target or "")
    if len(tunnels) > MAX_NAMES:
        raise Mistake(
            f"One agent opens at most {MAX_NAMES} tunnels, not {len(tunnels)}; start another one for the rest."
        )
    return tuple(tunnels.items())


def target_of(text: str) -> Target:
    """Raises `Mistake`."""
    try:
        return parse_target(text)
    except TargetError as error:
        raise Mistake(harmless(error)) from None


def network_of(text: str) -> IPv4Network | IPv6Network:
    """Raises `Mistake`."""
    try:
        return ip_network(text.strip())
    except ValueError:
        raise Mistake(
            f"--allow-upstream must be a network in CIDR form, for example --allow-upstream 203.0.113.0/24, "
            f"but it is {harmless(text)!r}."
        ) from None


def reachable(relay_url: str) -> str:
    """The address, if the environment's proxy may be one. Raises `Mistake`."""
    try:
        proxy_for(relay_url)
    except BadProxy as error:
        raise Mistake(str(error)) from None
    return relay_url


def random_name() -> str:
    """A name that nobody else is likely to have: about 22 million."""
    return f"{secrets.choice(_FIRST.split())}-{secrets.choice(_SECOND.split())}-{1000 + secrets.randbelow(9000)}"


def silent(tunnels: Iterable[tuple[str, Target]]) -> list[str]:
    """The names whose local service is on this machine's loopback, where nothing listens now."""
    found: list[str] = []
    for name, target in tunnels:
        if is_loopback(target.host):
            try:
                socket.create_connection((target.host, target.port), PROBE_SECONDS).close()
            except ConnectionRefusedError:
                found.append(name)
            except OSError:
                pass
    return found
