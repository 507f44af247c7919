"""`relay audit list|verify|export`: what was done with keys and tunnels, and the proof that nobody changed the record.

An export and the relay's public keys are enough for the proof; it asks nobody and believes no relay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.errors import FOUND, Mistake, Unavailable
from relay.cli.options import Asked, command, group
from relay.cli.output import Lines, harmless, say_json
from relay.cli.secretfiles import SecretFile, placed
from relay.cli.tables import cell, many, table, when
from relay.keys.forms import read_public

if TYPE_CHECKING:
    from relay.cli.client import Client

PAGE = 500
_NAMED = re.compile(r"(node_[0-9A-Za-z]+)=([0-9A-Za-z_-]+={0,2})")

audit = group("Read the audit, prove that it is whole, and keep a copy.")


@command(audit, "list")
def list_(
    asked: Asked,
    *,
    last: Annotated[int, typer.Option("--last", "-n", help="So many of the newest rows.", metavar="N", min=1)] = 50,
    after: Annotated[
        int | None, typer.Option(help="Instead: the rows after this number.", metavar="SEQ", min=0, show_default=False)
    ] = None,
) -> None:
    """List who did what, when and from where, the newest last. --json has the details too."""
    client = asked.client()
    if after is None:
        end = _head(client)
        entries = list(_entries(client, max(0, _seq(end) - last), _seq(end)))
    else:
        entries = list(_entries(client, after, None))
    if asked.as_json:
        say_json(entries)
        return
    rows = [
        (
            row.get("seq"),
            when(row.get("at")),
            row.get("actor") or "the relay",
            row.get("action"),
            row.get("subject"),
            row.get("project"),
            row.get("address"),
        )
        for row in (entry["row"] for entry in entries)
    ]
    columns = ("SEQ", "AT", "WHO", "ACTION", "WHAT", "PROJECT", "FROM")
    table(columns, rows, none="There is no such row.")


@command(audit)
def export(
    asked: Asked,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write; standard output without.", metavar="FILE")
    ] = None,
    keys_out: Annotated[
        Path | None, typer.Option(help="Write the relay's public keys to this file too.", metavar="FILE")
    ] = None,
) -> None:
    """Write the whole audit as JSON lines, with a head that the relay signs now.

    Keep it, and the public keys, where the relay's machine cannot reach them.

    Example:

      relay audit export --out audit.jsonl --keys-out audit-keys.txt
      relay audit verify audit.jsonl --public-key audit-keys.txt
    """
    client = asked.client()
    if keys_out is not None:
        _write(keys_out, (f"{kid}={text}" for kid, text in _signers(client).items()))
    if out is None:
        lines = Lines()
        for line in _export(client):
            lines.say(line)
        return
    count = _write(out, _export(client)) - 1
    if asked.as_json:
        say_json({"file": str(out), "rows": count})
        return
    Lines().say(f"Wrote {many(count, 'row')} to {harmless(out)}.")


@command(audit)
def verify(
    asked: Asked,
    file: Annotated[
        Path | None,
        typer.Argument(help="An export; a new one from the relay without.", metavar="FILE", show_default=False),
    ] = None,
    *,
    public_key: Annotated[
        list[str] | None,
        typer.Option(
            help="The relay's public keys: a file as --keys-out writes it, or KID=KEY; may be repeated.",
            metavar="FILE|KID=KEY",
        ),
    ] = None,
    heads: Annotated[
        Path | None, typer.Option(help="Heads that the relay signed before, audit-heads.jsonl say.", metavar="FILE")
    ] = None,
) -> None:
    """Prove that no row of the audit was changed, removed, moved or added.

    With FILE and --public-key nobody is asked. --heads also finds an end that
    was cut off, or a record that was written anew. Ends with 1 if it is not whole.

    Examples:

      relay audit verify
      relay audit verify audit.jsonl --public-key audit-keys.txt --heads audit-heads.jsonl
    """
    from relay.keys.chain import Tampered, verify_export

    if file is not None and not public_key:
        raise Mistake(
            f"Whose signature must {harmless(file)} bear? Give the relay's public keys with --public-key, "
            "as relay audit export --keys-out wrote them."
        )
    public_keys = _public_keys(public_key or [])
    before = list(_lines(heads)) if heads is not None else []
    try:
        if file is not None:
            proven = verify_export(_lines(file), public_keys, before)
        else:
            client = asked.client()
            public_keys = public_keys or {kid: _raw(text, kid) for kid, text in _signers(client).items()}
            proven = verify_export(_export(client), public_keys, before, first=1)
    except Tampered as error:
        raise Mistake(
            f"The audit is not whole. {error} Keep what you have and look who could write to it.", FOUND
        ) from None
    if asked.as_json:
        say_json({"rows": proven.rows, "first": proven.first, "last": proven.last, "head": proven.head.to_json()})
        return
    lines = Lines()
    lines.say(
        f"The audit is whole: {many(proven.rows, 'row')}, {proven.first} to {proven.last}, "
        f"signed by {cell(proven.head.kid)} on {when(proven.head.at)}."
    )
    if proven.first > 1:
        lines.say(f"It begins with row {proven.first}: nothing is said about the rows before.")
    if heads is None:
        lines.say("Earlier heads were not compared; give them with --heads to find a record that was written anew.")


# ---------------------------------------------------------------------------------------------------- from the relay


def _export(client: Client) -> Iterator[str]:
    """The lines of an export: every row up to a head that is signed first, so that rows may be added meanwhile."""
    head = _head(client)
    for entry in _entries(client, 0, _seq(head)):
        yield json.dumps({"row": entry["row"], "hash": entry["hash"]}, sort_keys=True, separators=(",", ":"))
    yield json.dumps({"head": head}, sort_keys=True, separators=(",", ":"))


def _head(client: Client) -> dict[str, Any]:
    head = client.get("audit", "head").get("head")
    if not isinstance(head, dict) or not isinstance(head.get("seq"), int):
        raise Unavailable(f"{client.relay} gave no head of its audit: is this command older or newer than the relay?")
    return head


def _seq(head: Mapping[str, Any]) -> int:
    return int(head["seq"])


def _entries(client: Client, after: int, last: int | None) -> Iterator[dict[str, Any]]:
    """Rows with their hashes, after one number and up to another."""
    following: object = after
    while isinstance(following, int) and (last is None or following < last):
        page = client.get("audit", after=following, limit=PAGE)
        for entry in page.get("items") or ():
            row = entry.get("row") if isinstance(entry, dict) else None
            if not isinstance(row, dict) or not isinstance(row.get("seq"), int) or "hash" not in entry:
                raise Unavailable(
                    f"{client.relay} gave a row that is none: is this command older or newer than the relay?"
                )
            if last is not None and row["seq"] > last:
                return
            yield entry
        following = page["next"] if _further(page.get("next"), following) else None


def _further(following: object, before: int) -> bool:
    return isinstance(following, int) and following > before


def _signers(client: Client) -> dict[str, str]:
    found = client.get("signers").get("items") or ()
    return {str(one["kid"]): str(one["public_key"]) for one in found if {"kid", "public_key"} <= one.keys()}


# ---------------------------------------------------------------------------------------------------- files


def _write(path: Path, lines: Iterable[str]) -> int:
    with SecretFile(path, replace=True) as file:
        count = file.write_lines(lines)
        file.keep()
    return count


def _lines(path: Path) -> Iterator[str]:
    try:
        with placed(path).open(encoding="utf-8") as file:
            yield from file
    except OSError as error:
        raise Mistake(f"{harmless(path)} cannot be read ({error.strerror}).") from None
    except UnicodeError:
        raise Mistake(f"{harmless(path)} is no text: is it the right file?") from None


def _public_keys(given: Iterable[str]) -> dict[str, bytes]:
    """What `--public-key` gave. Raises `Mistake`."""
    found: dict[str, bytes] = {}
    for text in given:
        for line in [text] if _NAMED.fullmatch(text) else _lines(Path(text)):
            if not line.strip():
                continue
            named = _NAMED.fullmatch(line.strip())
            if named is None:
                raise Mistake(
                    "--public-key must be KID=KEY, or a file of such lines as relay audit export --keys-out writes it, "
                    f"but {harmless(text)} has another line."
                )
            found[named[1]] = _raw(named[2], named[1])
    return found


def _raw(text: str, kid: str) -> bytes:
    try:
        return read_public(text.rstrip("="))
    except ValueError:
        raise Mistake(f"The public key of {harmless(kid)} is not one: it must be 32 bytes in base64url.") from None
