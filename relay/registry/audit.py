"""The audit: what is written, in one place, chained by hash. A change that cannot be written here is not made.

Rows are only ever added, the database's triggers refuse the rest; what a row and a chain are is `relay.keys.chain`'s.
A text that not every database stores is escaped before it is chained: it must not keep other rows from being written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import insert, select

from relay.keys.chain import AuditRow, digest
from relay.keys.times import text_of
from relay.registry.database import Database, Writing
from relay.registry.errors import NotAllowed, RegistryError, Unavailable
from relay.registry.records import Note
from relay.registry.schema import AUDIT, LEDGER

NOT_AUDITED = "The change was not made, because it cannot be written into the audit; try again in a moment."


class Action(StrEnum):
    """What can happen."""

    PROJECT_CREATE = "project.create"
    PROJECT_DELETE = "project.delete"
    PROJECT_PLAN = "project.plan"
    KEY_MINT = "key.mint"
    KEY_REVOKE = "key.revoke"
    KEY_ROTATE = "key.rotate"
    SUBDOMAIN_RESERVE = "subdomain.reserve"
    SUBDOMAIN_CLAIM = "subdomain.claim"
    SUBDOMAIN_RELEASE = "subdomain.release"
    SUBDOMAIN_MOVE = "subdomain.move"
    TUNNEL_OPEN = "tunnel.open"
    TUNNEL_CLOSE = "tunnel.close"
    TUNNEL_SUMMARY = "tunnel.summary"
    SESSION_REFUSED = "session.refused"
    REQUEST_REFUSED = "request.refused"
    REFUSALS_SUMMARY = "refusals.summary"
    SIGNER_ADD = "signer.add"
    SIGNER_RETIRE = "signer.retire"
    RELAY_START = "relay.start"


async def append(write: Writing, at: float, *notes: Note) -> None:
    """Adds rows to the transaction of the change that they are about. Raises Unavailable, and so undoes the change.

    Raises NotAllowed for a note that can never be a row.
    """
    if not notes:
        return
    seq, previous = write.ledger.audit_seq, write.ledger.audit_hash
    values = []
    for note in notes:
        seq += 1
        row = _row(seq, at, note)
        try:
            now = digest(previous, row)
        except (TypeError, ValueError, RecursionError):
            raise NotAllowed("note", f"The details of {row.action} are not JSON.") from None
        values.append(
            {
                "seq": seq,
                "at": row.at,
                "actor": row.actor,
                "lineage": json.dumps(row.lineage),
                "action": row.action,
                "subject": row.subject,
                "project": row.project,
                "address": row.address,
                "details": json.dumps(row.details),
                "previous": previous,
                "hash": now,
            }
        )
        previous = now
    try:
        await write.run(insert(AUDIT), values)
    except NotAllowed:
        raise
    except RegistryError:
        raise Unavailable(NOT_AUDITED) from None
    write.ledger.audit_seq, write.ledger.audit_hash = seq, previous


def _row(seq: int, at: float, note: Note) -> AuditRow:
    return AuditRow(
        seq=seq,
        at=text_of(at if note.at is None else note.at),
        actor=storable(note.actor.key_id),
        lineage=storable(tuple(note.actor.lineage)),
        action=str(note.action),
        subject=storable(note.subject),
        project=storable(note.project),
        address=storable(note.actor.address),
        details=storable(dict(note.details)),
    )


def storable(value: Any) -> Any:  # noqa: ANN401
    """The same texts, also those in lists and objects, with NUL and lone surrogates escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    if isinstance(value, dict):
        return {storable(name): storable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(storable(one) for one in value)
    return value


class Audit:
    """Reading the audit, and writing what is no change of the registry's own."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now

    async def record(self, notes: Sequence[Note]) -> None:
        """Many notes in one transaction. Raises Unavailable; NotAllowed when one of them can never be a row."""
        if notes:
            async with self._database.writing() as write:
                await append(write, self._now(), *notes)

    async def read(self, after_seq: int = 0, limit: int = 500) -> list[tuple[AuditRow, str]]:
        """Rows with their hashes, oldest first."""
        query = select(AUDIT).where(AUDIT.c.seq > after_seq).order_by(AUDIT.c.seq).limit(limit)
        async with self._database.reading() as read:
            rows = await read.rows(query)
        return [
            (
                AuditRow(
                    seq=row.seq,
                    at=row.at,
                    actor=row.actor,
                    lineage=tuple(json.loads(row.lineage)),
                    action=row.action,
                    subject=row.subject,
                    project=row.project,
                    address=row.address,
                    details=json.loads(row.details),
                ),
                row.hash,
            )
            for row in rows
        ]

    async def head(self) -> tuple[int, str]:
        """Number and hash of the newest row; (0, GENESIS) without any."""
        async with self._database.reading() as read:
            row = await read.row(select(LEDGER.c.audit_seq, LEDGER.c.audit_hash))
        assert row is not None
        return row.audit_seq, row.audit_hash
