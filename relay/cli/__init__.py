"""The command `relay` (and its alias `mytunnel`): which commands there are, and how every one of them may end."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from relay import __version__
from relay.cli.completion import completes
from relay.cli.errors import UNEXPECTED, Mistake
from relay.cli.keyring import refuse_whole_keys
from relay.cli.output import harmless
from relay.cli.values import make_plain_ones_here

# Each with its room, in the order of the help. What is called so there is the command, unless the room adds its own.
COMMANDS = {
    **{name: name for name in ("http", "start", "serve", "health", "doctor")},
    **dict.fromkeys(("login", "logout", "whoami"), "login"),
    **{name: name for name in ("usage", "plans", "token", "version", "completion")},
    **{name: name for name in ("projects", "keys", "subdomains", "tunnels", "audit", "signers", "service", "db")},
}
HELP = ["-h", "--help"]


def app(word: str | None = None) -> typer.Typer:
    """The command line; with only that command of it, if `word` is one: to load all of them takes time and memory."""
    made = typer.Typer(
        name="relay",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": HELP},
    )
    made.callback(invoke_without_command=True)(relay)
    for room in [COMMANDS[word]] if word in COMMANDS else dict.fromkeys(COMMANDS.values()):
        _add(made, room)
    return made


def _add(to: typer.Typer, room: str) -> None:
    if room == "version":
        to.command()(version)
        return
    found = importlib.import_module(f"relay.cli.{room}")
    if hasattr(found, "add"):
        found.add(to)
        return
    command = getattr(found, room)
    if isinstance(command, typer.Typer):
        to.add_typer(command, name=room)
    else:
        to.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        from relay.wire import frames

        typer.echo(f"relay {__version__}{'' if str(frames.__file__).endswith('.py') else ' (compiled)'}")
        raise typer.Exit


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


def version() -> None:
    """Print the version."""
    _version(True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command's entry point. Always ends by `SystemExit`: 0 done, 1 unexpected, 2 a mistake, else docs/agent.md."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # an arrow in an old Windows console is no reason to fail
    name = Path(sys.argv[0]).stem
    program = name if name in {"relay", "mytunnel"} else "relay"
    sys.exit(_run(program, arguments))


def _command(word: str) -> Callable[..., int | None]:
    return _made("version" if word == "--version" else word if word in COMMANDS else None)


@functools.cache
def _made(word: str | None) -> Callable[..., int | None]:
    command: Callable[..., int | None] = make_plain_ones_here(typer.main.get_command(app(word)), HELP)
    return command


def _run(program: str, arguments: Sequence[str] | None) -> int:
    try:
        words = sys.argv[1:] if arguments is None else arguments
        refuse_whole_keys(words)
        run = _command("" if completes(program, os.environ) else next(iter(words), ""))
        return int(run(args=arguments, prog_name=program, standalone_mode=False) or 0)
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
