"""`relay token`: a signed request for curl, so that the key itself never leaves this machine."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from relay.cli.errors import Mistake
from relay.cli.keyring import audience_of
from relay.cli.options import Asked, command, seconds
from relay.cli.output import Lines, say_json
from relay.keys.errors import BadKey


def token(
    asked: Asked,
    *,
    ttl: Annotated[str, typer.Option(help="How long it is good for, at most 1h.", metavar="TIME")] = "10m",
) -> None:
    """Print a token for the relay's API, signed by your operator or master key.

    Nothing is sent. Whoever has the token can do what the key can, for that long.

    Example:

      curl -H "Authorization: Bearer $(relay token)" http://127.0.0.1:8081/api/v1/whoami
    """
    from relay.keys.private import PrivateKey
    from relay.keys.requests import MAX_LIFE

    life = seconds(ttl, "--ttl")
    if not 1 <= life <= MAX_LIFE:
        raise Mistake(f"--ttl must be at most 1h, for example --ttl 10m, but it is {ttl.strip()}.")
    relay, key = asked.address, asked.key()
    if not key.kind.private:
        raise Mistake(
            f"What {key.origin} holds is a {key.kind} key, which signs nothing: give a master or operator key."
        )
    now = time.time()
    try:
        text = PrivateKey.parse(key.text).sign_request(audience_of(relay), now, life)
    except BadKey as error:
        raise Mistake(f"What {key.origin} holds cannot sign. {error}") from None
    if asked.as_json:
        say_json({"token": text, "key": key.id, "audience": audience_of(relay), "expires_in": life})
        return
    Lines().say(text)


def add(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    command(app)(token)
