"""`relay keys mint`: what is asked for of a new key, and how it reaches whoever asked."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from relay.cli import limit_options as limits
from relay.cli.delivery import Delivery
from relay.cli.errors import Mistake, Unavailable
from relay.cli.limit_options import read_bandwidth
from relay.cli.options import Asked, KeyOut, Label, Project, Quiet, bytes_of, command, label_of, seconds
from relay.cli.output import say_json
from relay.cli.showing import about, scope_names
from relay.cli.tables import cell, when
from relay.keys.errors import BadKey
from relay.keys.forms import Kind, check_text, public_text
from relay.keys.scopes import Scope

Master = Annotated[bool, typer.Option("--master", help="A master key instead of a child key.", metavar="")]
Visitor = Annotated[
    str | None, typer.Option("--visitor", help="A visitor key for this tunnel instead.", metavar="SUBDOMAIN")
]
Subdomains = Annotated[
    list[str] | None,
    typer.Option(
        "--subdomain", "-s", help="What may be claimed, such as mcp-*; may be repeated. Any without.", metavar="PATTERN"
    ),
]
Life = Annotated[
    str | None, typer.Option("--life", help="How long it is valid: 24h, a master key without end.", metavar="TIME")
]


def mint(
    asked: Asked,
    *,
    project: Project = None,
    master: Master = False,
    visitor: Visitor = None,
    subdomain: Subdomains = None,
    tunnels: limits.Tunnels = None,
    rate: limits.Rate = None,
    bandwidth: limits.Bandwidth = None,
    streams: limits.Streams = None,
    body: limits.Body = None,
    requests: limits.Requests = None,
    bytes: limits.Bytes = None,
    life: Life = None,
    label: Label = None,
    key_out: KeyOut = None,
    quiet: Quiet = False,
) -> None:
    """Mint a key. It is shown this once.

    A child key opens tunnels and mints nothing; a master key mints child and
    visitor keys of its project and opens nothing; a visitor key lets visitors
    in to a private tunnel. No key can do more than the one that minted it: a
    limit that is left out is that one's, and it holds for the sum of all below.

    Examples:

      relay keys mint --project mcp-server --subdomain 'mcp-*' --life 7d
      relay keys mint --project mcp-server --rate 10 --bandwidth '10 Mbit/s'
      relay keys mint --visitor mcp-me --life 1h --label "for Ada"
      relay keys mint --project mcp-server --master --key-out second.key
    """
    kind = _kind(master, visitor)
    wish: dict[str, Any] = {"kind": kind.value}
    wish["scope"] = _scope(
        {
            "names": subdomain or None,
            "tunnels": tunnels,
            "rate": rate,
            "bandwidth": read_bandwidth(bandwidth),
            "streams": streams,
            "body": bytes_of(body, "--body") if body else None,
            "monthly_requests": requests,
            "monthly_bytes": bytes_of(bytes, "--bytes") if bytes else None,
        }
    )
    if kind is Kind.VISITOR and wish["scope"]:
        raise Mistake("A visitor key lets visitors in to one tunnel: leave --subdomain and the limits out.")
    wish |= {"project": project, "life": seconds(life, "--life") if life else None, "label": label}
    wish["tunnel"] = label_of(visitor, "--visitor") if visitor is not None else None
    _deliver(asked, kind, wish, Delivery(key_out, quiet))


def _deliver(asked: Asked, kind: Kind, wish: dict[str, Any], delivery: Delivery) -> None:
    from relay.keys.private import PrivateKey

    client = asked.client()
    with delivery.place() as place:
        pair = PrivateKey.generate(kind) if kind.private else None
        if pair is not None:
            place.write(pair.text)
            wish["public_key"] = public_text(pair.public)
        made = client.post("keys", body={name: value for name, value in wish.items() if value not in (None, {})})
        text = _text_of(made, kind) if pair is None else pair.text
        if pair is None:
            place.write(text)
        place.keep()
    key = made.get("key") or {}
    if asked.as_json:
        say_json({"key": key, **delivery.json(text)})
        return
    delivery.say(f"{kind.capitalize()} key", text, kind, [_summary(key)])


def _kind(master: bool, visitor: str | None) -> Kind:
    if master and visitor is not None:
        raise Mistake("A key is a master key or a visitor key: give one of --master and --visitor.")
    return Kind.MASTER if master else Kind.CHILD if visitor is None else Kind.VISITOR


def _scope(asked: dict[str, Any]) -> dict[str, Any]:
    """What was said of a scope. Raises `Mistake` for what can be none."""
    said = {name: value for name, value in asked.items() if value is not None}
    try:
        Scope.from_json(said)
    except ValueError as error:
        raise Mistake(str(error)) from None
    return said


def _text_of(made: dict[str, Any], kind: Kind) -> str:
    text = made.get("text")
    if not isinstance(text, str) or not _is_key(text, kind):  # it goes to the terminal and into files as it is
        raise Unavailable("The relay gave no key: is this command older or newer than the relay?")
    return text


def _is_key(text: str, kind: Kind) -> bool:
    try:
        return check_text(text) is kind
    except BadKey:
        return False


def _summary(key: dict[str, Any]) -> str:
    until = f"until {when(key['expires_at'])}" if key.get("expires_at") else "without end"
    what = (
        f"tunnel {cell(key['tunnel'])}" if key.get("tunnel") else f"subdomains: {scope_names(key.get('scope') or {})}"
    )
    return f"{about(key)}, {what}, valid {until}."


def add(group: typer.Typer) -> None:
    """Adds the command to `relay keys`."""
    command(group)(mint)
