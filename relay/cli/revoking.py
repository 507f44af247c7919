"""`relay keys revoke`: ends a key, and with --cascade every key below it. Never asks; a leak does not wait.

A whole key is accepted here, and only here: it revokes itself, so that whoever finds a key can make it harmless without
having another. What cannot prove itself any more, or never could, is revoked by its id with the caller's own key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Annotated

import typer

from relay.cli.errors import KEY_REFUSED, Mistake, NoKey, Refusal
from relay.cli.keyring import Key, find_key, keys_at_hand
from relay.cli.options import Asked, command
from relay.cli.output import Lines, say_json
from relay.cli.showing import number, revoked_lines
from relay.cli.tables import many
from relay.keys.errors import BadKey
from relay.keys.forms import Kind, check_text, is_public_id, kind_of, shown

Given = Annotated[
    str, typer.Argument(help="The key's public id, or the whole key, which revokes itself.", metavar="KEY")
]


def revoke(
    asked: Asked,
    key: Given,
    *,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Revoke every key that was minted below it too.", metavar="")
    ] = False,
) -> None:
    """Revoke a key: it opens nothing any more, and live sessions under it are cut.

    Examples:

      relay keys revoke mtk_child_3fGh8KqLm2Np
      relay keys revoke --cascade mtk_master_3fGh8KqLm2Np
    """
    key_id = id_of(key.strip())
    kind = kind_of(key_id)
    counts = _revoke(asked, key.strip(), key_id, cascade)
    if asked.as_json:
        say_json({"id": key_id, "cascade": cascade, **counts})
        return
    lines = Lines()
    for line in revoked_lines(counts, kind) or [f"{key_id} was revoked already."]:
        lines.say(line)
    remaining = number(counts, "remaining")
    if remaining:
        stay = "stays valid until it expires" if remaining == 1 else "stay valid until they expire"
        lines.say(
            f"{many(remaining, 'key')} below it {stay}; revoke {'it' if remaining == 1 else 'them'} with --cascade."
        )


def id_of(text: str) -> str:
    """The public id of a key, whole or not. Raises `Mistake` for what is neither; shows no more than an id."""
    if is_public_id(text):
        return text
    try:
        check_text(text)
    except BadKey as error:
        begins = re.match(r"mtk_(?:operator|master)_[0-9A-Za-z]{12}(?=_)", text)
        step = (
            f"Its id is enough: relay keys revoke {begins[0]}"
            if begins
            else "The id of a key is enough; see relay keys list."
        )
        raise Mistake(f"Nothing was sent. {error} {step}") from None
    return shown(text)


def _revoke(asked: Asked, text: str, key_id: str, cascade: bool) -> dict[str, object]:
    refusal: Refusal | None = None
    for key in _authorities(asked, text):
        try:
            return asked.client(key).post("keys", key_id, "revoke", body={"cascade": cascade})
        except Refusal as error:
            if error.code != KEY_REFUSED or is_public_id(text):
                raise
            # A key that was revoked already proves nothing any more; another may ask for the same.
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _authorities(asked: Asked, text: str) -> Iterator[Key]:
    """Which keys to revoke with, one after the other. Raises `Mistake`."""
    if is_public_id(text):
        yield asked.key()
        return
    itself = None if kind_of(text) is Kind.VISITOR else Key(text, "the command line", check_text(text))
    if itself is None:
        yield find_key(asked.key_file, os.environ, asked.address)
        return
    yield itself
    try:
        yield from (key for key in keys_at_hand(asked.key_file, os.environ, asked.address) if key.text != text)
    except NoKey:
        return


def add(group: typer.Typer) -> None:
    """Adds the command to `relay keys`."""
    command(group)(revoke)
