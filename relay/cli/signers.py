"""`relay signers`: the keys that nodes sign child and visitor keys with, and the end of one that was stolen."""

from __future__ import annotations

from typing import Annotated

import typer

from relay.cli.options import Asked, Yes, command, group, sure
from relay.cli.output import Lines, harmless, say_json
from relay.cli.tables import table, when

signers = group("List the keys that the relay signs with, and retire one that was stolen.")


@command(signers, "list")
def list_(asked: Asked) -> None:
    """List the signing keys of all nodes, also those that are retired."""
    found = list(asked.client().items("signers"))
    if asked.as_json:
        say_json(found)
        return
    rows = [
        (one.get("kid"), one.get("node"), when(one.get("created_at")), when(one.get("retired_at") or ""))
        for one in found
    ]
    table(("ID", "MADE ON", "SINCE", "RETIRED"), rows, none="There is no signing key.")


@command(signers)
def retire(
    asked: Asked,
    kid: Annotated[str, typer.Argument(help="A signing key's id, as relay signers list has it.", metavar="KID")],
    *,
    yes: Yes = False,
) -> None:
    """End a signing key, and with it every child and visitor key that it signed.

    What they opened is cut. The node whose key it was takes another one at
    once, and agents with a master key are back with new keys. There is no way back.
    """
    client = asked.client()
    sure(f"Retire the signing key {harmless(kid)}? Every child and visitor key that it signed ends.", yes)
    done = client.delete("signers", kid)
    if asked.as_json:
        say_json(done)
        return
    Lines().say(f"Retired: {harmless(kid)}" if done.get("retired") else f"Retired before: {harmless(kid)}")
