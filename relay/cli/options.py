"""The options that every command of the API has, and those that several share: each written down once.

A command is a function whose first argument is `Asked`; `command` puts the shared options into its place.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.errors import NOT_DONE, Mistake
from relay.cli.output import harmless
from relay.wire.hello import LABEL
from relay.wire.limits import MOST_RATE

if TYPE_CHECKING:
    from relay.cli.client import Client
    from relay.cli.keyring import Key

RelayUrl = Annotated[
    str | None,
    typer.Option(
        "--relay",
        help="The relay's address. [RELAY_URL, else the login's, else ws://127.0.0.1:8081]",
        metavar="URL",
        show_default=False,
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        help="A file that holds the key. [RELAY_KEY, RELAY_MASTER_KEY, MTK_MASTER, the login, a relay on this machine]",
        metavar="FILE",
        show_default=False,
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Speak without TLS also to another machine.", metavar="", show_default=False)
]
Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        help="Serve /livez, /readyz and /metrics here, on loopback or a network of your own. [RELAY_METRICS]",
        metavar="HOST:PORT",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.", metavar="", show_default=False)]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", metavar="", show_default=False)]
Project = Annotated[
    str | None, typer.Option("--project", help="A project's name or id.", metavar="PROJECT", show_default=False)
]
KeyOut = Annotated[
    Path | None,
    typer.Option(
        "--key-out", help="Write the key to this file, 0600, and do not print it.", metavar="FILE", show_default=False
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing but the key.", metavar="", show_default=False)
]
Label = Annotated[
    str | None, typer.Option("--label", help="A note to know the key by.", metavar="TEXT", show_default=False)
]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the shared options said."""

    relay: str | None = None
    key_file: Path | None = None
    insecure: bool = False
    as_json: bool = False

    @property
    def address(self) -> str:
        """The relay's. Raises `Mistake`."""
        from relay.cli.keyring import find_relay

        return find_relay(self.relay, os.environ, self.insecure)

    def key(self) -> Key:
        """Raises `Mistake`."""
        from relay.cli.keyring import find_key

        return find_key(self.key_file, os.environ, self.address)

    def client(self, key: Key | None = None) -> Client:
        """For the relay, with the key given or the first at hand. Raises `Mistake`."""
        from relay.cli.client import Client

        return Client(self.address, key or self.key())


SHARED = (
    ("relay", RelayUrl, None),
    ("key_file", KeyFile, None),
    ("insecure", Insecure, False),
    ("as_json", AsJson, False),
)


def command(group: typer.Typer, name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds a command whose first argument, `Asked`, comes from the shared options."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        def call(**given: Any) -> None:  # noqa: ANN401 - options of every type
            asked = Asked(**{each: given.pop(each) for each, _, _ in SHARED})
            function(asked, **given)

        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        shared = [
            inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for each, kind, default in SHARED
        ]
        call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [*(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own), *shared]
        )
        call.__annotations__ = {"return": None}
        call.__doc__ = function.__doc__
        group.command(name or function.__name__)(call)
        return function

    return register


def group(about: str) -> typer.Typer:
    """A command of commands; called alone it shows what there is."""
    made = typer.Typer(help=about, rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]})

    @made.callback(invoke_without_command=True)
    def alone(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    return made


def sure(question: str, yes: bool) -> None:
    """Asks on a terminal; without one `--yes` must have been given. Raises `Mistake`."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Mistake(f"{question} Nobody is there to answer, so nothing was done: say --yes.")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Mistake("Nothing was done.", NOT_DONE)


# ---------------------------------------------------------------------------------------------------- words and amounts


def label_of(text: str, what: str) -> str:
    """A name in small letters. Raises `Mistake` for what can be none."""
    label = text.strip().lower()
    if not LABEL.fullmatch(label):
        raise Mistake(
            f"{what} must be 1 to 63 of a-z, 0-9 and -, neither first nor last a -, for example mcp-server, "
            f"but it is {harmless(text)!r}."
        )
    return label


def one_of(text: str | None, option: str, words: Iterable[str]) -> str | None:
    """The word, or None where there is none. Raises `Mistake` for another one."""
    if text is None or text.strip().lower() in words:
        return text and text.strip().lower()
    raise Mistake(f"{option} must be one of {', '.join(words)}, but it is {harmless(text)!r}.")


_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def seconds(text: str, option: str) -> int:
    """`24h` is 86400; a bare number is seconds. Raises `Mistake`."""
    found = re.fullmatch(r"([0-9]{1,9})([smhdw]?)", text.strip().lower())
    if found is None:
        raise Mistake(
            f"{option} must be a whole number with s, m, h, d or w behind it, for example {option} 24h, "
            f"but it is {harmless(text)!r}."
        )
    return int(found[1]) * _SECONDS[found[2]]


def rate_of(value: int | None, option: str) -> int | None:
    """Requests a second, or None where there is no limit. Raises `Mistake`."""
    if value is None or 1 <= value <= MOST_RATE:
        return value
    raise Mistake(f"{option} must be a number of requests a second, 1 to {MOST_RATE}, but it is {value}.")


def bytes_of(text: str, option: str) -> int:
    """`10MiB` is 10485760. Raises `Mistake`."""
    from relay.settings.kinds import size

    try:
        amount = size(1, 2**50).parse(text)
    except ValueError:
        raise Mistake(
            f"{option} must be a number of bytes, perhaps with KiB, MiB or GiB behind it, for example {option} 10MiB, "
            f"but it is {harmless(text)!r}."
        ) from None
    assert isinstance(amount, int)
    return amount


def metrics_of(text: str | None, environment: Mapping[str, str]) -> tuple[str, int] | None:
    """Where an agent serves its metrics: what was given, else the variable; None: nowhere. Raises `Mistake`."""
    where, example = "--metrics", "--metrics 127.0.0.1:9091"
    if text is None:
        text = environment.get("RELAY_METRICS") or None
        where, example = "RELAY_METRICS", "RELAY_METRICS=127.0.0.1:9091"
    if text is None:
        return None
    from relay.settings.kinds import ADDRESS, Address  # here: most agents are not measured

    try:
        address = ADDRESS.parse(text)
    except ValueError:
        raise Mistake(f"{where} must be {ADDRESS.form}, for example {example}, but it is {harmless(text)!r}.") from None
    assert isinstance(address, Address)
    return address.host, address.port
