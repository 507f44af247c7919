"""`relay serve`: the command that runs a relay. Its options are the settings themselves; the node does the rest."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from relay.cli.errors import Mistake
from relay.cli.keyring import DEFAULT_RELAY
from relay.cli.output import (
    BOLD,
    DIM,
    GREEN,
    YELLOW,
    Event,
    Lines,
    Report,
    clock,
    harmless,
    json_lines,
    sentence,
)
from relay.settings import SETTINGS, ServeSettings, Setting, SettingsError, default_data, load

SERVER_PACKAGES = {"starlette", "uvicorn"}
NOBODY = "No relay ran on this data directory: there was nothing to take over."
MEMORY = (
    "There is enough memory again",
    "Memory is short: each answer ends its connection",
    "Memory is short: new requests are refused",
    "Memory is short: nobody is accepted",
)
NOT_INSTALLED = "This installation has the agent only; the relay needs more: pip install 'tunnel-relay[server]'"


def serve(config: Path | None, as_json: bool, take_over: bool, **given: str | None) -> None:
    """Run a relay, with visitors on one listener and agents on another, until Ctrl-C.

    Every option is also a variable (--head-timeout is RELAY_HEAD_TIMEOUT) and a
    line in the TOML file of --config (head_timeout = 10). A flag wins over the
    environment, the environment over the file.

    Examples:

      relay serve
      relay serve --domain tunnels.example.com --data /var/lib/relay
      relay serve --domain tunnels.example.com --data /var/lib/relay --take-over
      RELAY_DOMAIN=tunnels.example.com relay serve --config /etc/relay.toml
    """
    try:
        settings = load(given, os.environ, config)
    except SettingsError as error:
        raise Mistake(harmless(error)) from None
    raise typer.Exit(run(settings, as_json=as_json, take_over=take_over))


def _option(one: Setting) -> inspect.Parameter:
    shown = f" \\[default: {one.default}]" if one.default else ""
    option = typer.Option(one.flag, help=one.help + shown, metavar=one.kind.metavar, show_default=False)
    return inspect.Parameter(
        one.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def _plain(name: str, kind: Any, default: object, option: Any) -> inspect.Parameter:  # noqa: ANN401
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


CONFIG = typer.Option("--config", help="A TOML file with settings. [RELAY_CONFIG]", metavar="FILE", show_default=False)
JSON = typer.Option("--json", help="Print each event as one line of JSON.", metavar="")
TAKE_OVER = typer.Option(
    "--take-over",
    help="Take the place of the relay that runs on the same data directory; no request is lost.",
    metavar="",
)
# Typer reads a signature; so each setting is written down once, in relay.settings.
serve.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        *(_option(one) for one in SETTINGS if one.flag),
        _plain("config", Path | None, None, CONFIG),
        _plain("as_json", bool, False, JSON),
        _plain("take_over", bool, False, TAKE_OVER),
    ]
)
serve.__annotations__ = {"return": None}


def run(settings: ServeSettings, *, as_json: bool, take_over: bool = False) -> int:
    """Runs the relay until it ends; its exit code."""
    try:
        from relay.node import run as run_node
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in SERVER_PACKAGES:
            raise Mistake(NOT_INSTALLED) from None
        raise
    lines = Lines()
    report = json_lines(lines) if as_json else people(lines, settings)
    try:
        return int(run_node(settings, report, take_over))
    except OSError as error:
        raise Mistake(
            f"The relay cannot start: {sentence(error)} Choose other addresses with --public and --agents, "
            "or another directory with --data.",
            1,
        ) from error


def people(lines: Lines, settings: ServeSettings) -> Report:
    """Events as lines for an operator at a terminal."""

    def line(text: str, colour: str = "") -> None:
        lines.say(f"{lines.paint(clock(), DIM)}  {lines.paint(text, colour)}")

    def report(event: Event) -> None:
        name = event.get("event")
        if name == "serving":
            for text in serving(event, settings):
                lines.say(text, BOLD if text.startswith("Relay ") else "")
        elif name in {"agent_up", "agent_down"}:
            what, colour = ("has its agent", GREEN) if name == "agent_up" else ("lost its agent", YELLOW)
            for one in names_of(event):
                line(f"{one} {what}", colour)
        elif name == "warning":
            line(f"Warning: {sentence(event.get('message', ''))}", YELLOW)
        elif name == "certificate":
            line(f"Serving another certificate, valid until {event.get('until')}.", GREEN)
        elif name == "pressure":
            line(pressure(event), YELLOW if event.get("level") else GREEN)
        elif name == "error":
            Lines(sys.stderr).say(f"relay: {sentence(event.get('message', ''))}")
        elif name == "took_over":
            line(f"Took over from the relay with pid {pid}." if (pid := event.get("pid")) else NOBODY)
        elif name == "handed_over":
            line(f"The relay with pid {event.get('pid')} has taken over.")
        elif name == "stopping":
            line("Stopping: what is under way may finish. Ctrl-C again stops at once.")
        elif name == "stopped":
            line("Stopped.")

    return report


def pressure(event: Event) -> str:
    """How short memory is, and what is done about it."""
    level, resident, budget = (int(str(event.get(name, 0))) for name in ("level", "resident", "budget"))
    share = f"{100 * resident // max(budget, 1)} % of {budget // 2**20} MiB are used"
    return f"{MEMORY[min(level, len(MEMORY) - 1)]} ({share})."


def names_of(event: Event) -> list[str]:
    names = event.get("names")
    return [harmless(one) for one in names] if isinstance(names, list | tuple) else []


def serving(event: Event, settings: ServeSettings) -> list[str]:
    """What is served, where agents connect, where the key is, and how an agent here and one elsewhere get theirs."""
    agents, key_file = event.get("agents"), event.get("key_file")
    to_agents = f"ws://{harmless(agents)}"
    if settings.tls_cert is not None:
        to_agents = f"wss://{settings.domain}:{harmless(agents).rpartition(':')[2]}"
    base = harmless(event.get("public_url") or settings.base_url(settings.public.port))
    scheme, _, rest = base.replace("://NAME.", "://", 1).partition("://")
    found = [
        f"Relay for {settings.domain}",
        f"  visitors       {scheme}://NAME.{rest}   (listening on {harmless(event.get('public'))})",
        f"  agents         {to_agents}",
    ]
    if event.get("internal"):
        found.append(f"  internal       http://{harmless(event['internal'])}")
    if key_file:
        found.append(f"  operator key   {harmless(key_file)}")
    here = "relay http 3000 --subdomain NAME"
    if to_agents != DEFAULT_RELAY:
        here += f" --relay {to_agents}"
    if key_file and not _found_by_itself(settings):
        here += f" --key-file {harmless(key_file)}"
    found += ["", "An agent on this machine:", f"  {here}"]
    if scheme == "https":
        found += [
            "An agent on another machine, with a key that relay projects create or relay keys mint gave here:",
            f"  relay http 3000 --subdomain NAME --relay {to_agents if settings.tls_cert else f'wss://{rest}'} "
            "--key-file FILE",
        ]
    else:
        found += [
            "An agent on another machine, with a key that relay projects create or relay keys mint gave here, and a "
            "proxy with TLS (docs/operating.md):",
            "  relay http 3000 --subdomain NAME --relay wss://DOMAIN --key-file FILE",
        ]
    return [*found, "", "Ctrl-C stops."]


def _found_by_itself(settings: ServeSettings) -> bool:
    """Whether commands of this user find the operator key without being told where."""
    try:
        return settings.data == default_data(os.environ)
    except RuntimeError:  # no home directory
        return False
