"""The command `relay` (and its alias `mytunnel`): which commands there are, and how every one of them may end."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from relay import __version__
from relay.cli import login, plans, token, usage
from relay.cli.audit import audit
from relay.cli.completion import completion, prepare_for
from relay.cli.db import app as db
from relay.cli.doctor import doctor
from relay.cli.errors import UNEXPECTED, Mistake
from relay.cli.health import health
from relay.cli.http import http
from relay.cli.keyring import refuse_whole_keys
from relay.cli.keys import keys
from relay.cli.output import harmless
from relay.cli.projects import projects
from relay.cli.serve import serve
from relay.cli.service import service
from relay.cli.signers import signers
from relay.cli.start import start
from relay.cli.subdomains import subdomains
from relay.cli.tunnels import tunnels

app = typer.Typer(
    name="relay",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(http)
app.command()(start)
app.command()(serve)
app.command()(health)
app.command()(doctor)
login.add(app)
for _name, _group in (
    ("projects", projects),
    ("keys", keys),
    ("subdomains", subdomains),
    ("tunnels", tunnels),
    ("audit", audit),
    ("signers", signers),
    ("service", service),
    ("db", db),
):
    app.add_typer(_group, name=_name)
usage.add(app)
plans.add(app)
token.add(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"relay {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def relay(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.", metavar="")
    ] = False,
) -> None:
    """Make a local service public through a relay of your own.

    A relay runs where visitors can reach it (relay serve). An agent runs beside
    your service (relay http) and keeps a connection outwards to the relay.
    Visitors call https://NAME.DOMAIN and reach your service as if directly.

    Try all of it on one machine, each line in a terminal of its own:

      relay serve
      relay http 3000 --subdomain mcp-me
      curl http://mcp-me.tunnels.localhost:8080/
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def version() -> None:
    """Print the version."""
    _version(True)


app.command()(completion)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command's entry point. Always ends by `SystemExit`: 0 done, 1 unexpected, 2 a mistake, else docs/agent.md."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # an arrow in an old Windows console is no reason to fail
    name = Path(sys.argv[0]).stem
    program = name if name in {"relay", "mytunnel"} else "relay"
    sys.exit(_run(program, arguments))


@functools.cache
def _command() -> Callable[..., int | None]:
    return typer.main.get_command(app)


def _run(program: str, arguments: Sequence[str] | None) -> int:
    try:
        prepare_for(program, os.environ)
        refuse_whole_keys(sys.argv[1:] if arguments is None else arguments)
        return int(_command()(args=arguments, prog_name=program, standalone_mode=False) or 0)
    except Mistake as mistake:
        _complain(str(mistake))
        return mistake.code
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else program
        _complain(f"{error.format_message().rstrip('.')}. See: {command} --help")
        return error.exit_code
    except typer.Abort:
        return 130
    except Exception as error:
        if os.environ.get("RELAY_DEBUG"):
            traceback.print_exc()
        else:
            _complain(
                f"Unexpected: {type(error).__name__}: {str(error).rstrip('.')}. "
                "This is a fault of relay; RELAY_DEBUG=1 in the environment shows where."
            )
        return UNEXPECTED


def _complain(text: str) -> None:
    print(f"relay: {harmless(text)}", file=sys.stderr)  # noqa: T201
