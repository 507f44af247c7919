"""`relay keys list|show|rotate`: keys are looked at and replaced. They begin in `keymint`, and end in `revoking`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from relay.cli.delivery import Delivery
from relay.cli.errors import Mistake
from relay.cli.keymint import add as add_mint
from relay.cli.options import Asked, KeyOut, Project, Quiet, command, group, one_of, seconds
from relay.cli.output import Lines, harmless, say_json
from relay.cli.revoking import add as add_revoke
from relay.cli.scanning import add as add_scan
from relay.cli.showing import KEY_COLUMNS, about, key_row, last_use, show_key
from relay.cli.tables import cell, table, when
from relay.keys.forms import Kind, is_public_id, kind_of, public_text

keys = group("Mint, list, show, rotate and revoke keys, and look for lost ones.")

STATES = ("valid", "expired", "revoked", "retired")

KeyId = Annotated[str, typer.Argument(help="The key's public id, mtk_KIND_ and twelve characters.", metavar="KEY")]
add_mint(keys)


@command(keys, "list")
def list_(
    asked: Asked,
    *,
    project: Project = None,
    kind: Annotated[
        str | None, typer.Option(help="Only this kind.", metavar="operator|master|child|visitor", show_default=False)
    ] = None,
    state: Annotated[
        str | None, typer.Option(help="Only these.", metavar="valid|expired|revoked|retired", show_default=False)
    ] = None,
) -> None:
    """List keys, with when and from where each was last used."""
    kind, state = one_of(kind, "--kind", list(Kind)), one_of(state, "--state", STATES)
    found = list(asked.client().items("keys", project=project, kind=kind, state=state, limit=500))
    if asked.as_json:
        say_json(found)
        return
    table(KEY_COLUMNS, (key_row(one) for one in found), none="There is no such key.")


@command(keys)
def show(asked: Asked, key: KeyId) -> None:
    """Show one key, its limits, and what it has used in this month.

    Of a rotated one also who used the old and the new, and when.
    """
    _public(key)
    client = asked.client()
    found = client.get("keys", key)
    line = _line(client, found)
    if asked.as_json:
        say_json({**found, "line": line})
        return
    show_key(found)
    if len(line) > 1:
        print_line(line)


def _line(client: Any, key: dict[str, Any]) -> list[dict[str, Any]]:  # noqa: ANN401 - a Client, which loads HTTP
    """The keys that this one replaced and was replaced by, the oldest first; alone for a kind that is not rotated."""
    if key.get("kind") not in (Kind.OPERATOR, Kind.MASTER) or client.key.kind is Kind.CHILD:
        return [key]
    alike = {
        one.get("id"): one for one in client.items("keys", project=key.get("project"), kind=key["kind"], limit=500)
    }
    before = {one.get("successor"): one for one in alike.values() if one.get("successor")}
    first, seen = key, {key.get("id")}
    while (older := before.get(first.get("id"))) is not None and older.get("id") not in seen:
        first = older
        seen.add(older.get("id"))
    line = [first]
    while (newer := alike.get(line[-1].get("successor"))) is not None and newer not in line:
        line.append(newer)
    return line


def print_line(line: list[dict[str, Any]]) -> None:
    """A table of a key and those that replaced it."""
    columns = ("ID", "TOKEN VERSION", "STATE", "EXPIRES", "LAST USED")
    rows = [
        (
            one.get("id"),
            one.get("token_version"),
            one.get("state"),
            when(one["expires_at"]) if one.get("expires_at") else "never",
            last_use(one) or "never",
        )
        for one in line
    ]
    table(columns, rows, none="")


@command(keys)
def rotate(
    asked: Asked,
    key: KeyId,
    *,
    overlap: Annotated[str, typer.Option(help="How long the old key stays valid.", metavar="TIME")] = "24h",
    token_version: Annotated[
        int | None,
        typer.Option(help="Do nothing unless this is higher than the newest key's.", metavar="N", show_default=False),
    ] = None,
    key_out: KeyOut = None,
    quiet: Quiet = False,
) -> None:
    """Replace an operator or master key by a new one, which is shown this once.

    The old key stays valid for the overlap, so that everybody who has it can
    change over; relay keys show says who still uses which. With --token-version
    it can run on a schedule: nothing happens while the number stays the same.

    Examples:

      relay keys rotate mtk_master_3fGh8KqLm2Np --overlap 24h
      relay keys rotate mtk_master_3fGh8KqLm2Np --token-version 2 --key-out master.key
    """
    from relay.keys.private import PrivateKey

    _public(key)
    kind = kind_of(key)
    if kind is None or not kind.private:
        raise Mistake("Only operator and master keys are rotated; instead of a child or visitor key mint another one.")
    wish: dict[str, Any] = {"overlap": seconds(overlap, "--overlap")}
    if token_version is not None:
        wish["token_version"] = token_version
    client = asked.client()
    delivery = Delivery(key_out, quiet)
    pair = PrivateKey.generate(kind)
    with delivery.place(replace=True) as place:
        place.write(pair.text)
        answer = client.post("keys", key, "rotate", body={**wish, "public_key": public_text(pair.public)})
        rotated = answer.get("rotated") is True
        if rotated:
            place.keep()
    new, old = answer.get("key") or {}, answer.get("old") or {}
    if asked.as_json:
        held = delivery.json(pair.text) if rotated else {"text": None, "file": None}
        say_json({"rotated": rotated, "key": new, "old": old, **held})
    elif rotated:
        delivery.say(f"New {kind} key", pair.text, kind, _after_rotation(old, client.key.id, client.key.origin))
    elif not quiet:
        Lines().say(f"Nothing to do: {about(new)} has token version {cell(new.get('token_version'))}.")


def _after_rotation(old: dict[str, Any], own: str, origin: str) -> list[str]:
    old_id = cell(old.get("id"))
    said = [
        f"The old key, {old_id}, stays valid until {when(old.get('expires_at'))}; it was last used: "
        f"{last_use(old) or 'never'}."
    ]
    said.append(f"Who uses which: relay keys show {old_id}")
    if old_id == own:
        said.append(f"The old key is the one in {harmless(origin)}: put the new one there before it ends.")
    return said


def _public(key: str) -> None:
    if not is_public_id(key):
        raise Mistake(
            "KEY must be a key's public id, mtk_operator_, mtk_master_, mtk_child_ or mtk_visitor_ and twelve "
            f"characters, but it is {harmless(key)!r}. See: relay keys list"
        )


add_revoke(keys)
add_scan(keys)
