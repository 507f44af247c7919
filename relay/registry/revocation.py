"""Revoking a key, alone or with all below it, in one transaction; a second time it changes nothing.

Every key that is not revoked yet is marked, also one that has expired: a clock set back must not wake it. Counted are
those that lived.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import ColumnElement, func, select, update

from relay.keys.forms import Kind
from relay.registry.database import Writing
from relay.registry.records import Actor, Revocation
from relay.registry.schema import KEYS
from relay.registry.trees import descendants, not_over, unknown

NAMED = 100


async def revoke_tree(write: Writing, now: float, actor: Actor, key_id: str, *, cascade: bool) -> Revocation:
    """Revokes a key and, with `cascade`, all its descendants. Raises NotFound."""
    if await write.row(select(KEYS.c.id).where(KEYS.c.id == key_id)) is None:
        raise unknown(key_id)
    tree = descendants(key_id)
    below = KEYS.c.id.in_(select(tree.c.id))
    done = await revoke_where(write, now, actor, below if cascade else KEYS.c.id == key_id)
    living = select(func.count()).select_from(KEYS).where(below, KEYS.c.id != key_id, KEYS.c.revoked_at.is_(None))
    left = await write.row(living.where(not_over(now)))
    return Revocation(done.counts, done.ids, done.by, done.at, 0 if left is None else int(left[0]))


async def revoke_where(write: Writing, now: float, actor: Actor, which: ColumnElement[bool]) -> Revocation:
    """Revokes every key that is meant and not revoked yet, under one new number of the revocation sequence."""
    seq = write.ledger.revocation_seq + 1
    marks = {"revoked_at": now, "revoked_by": actor.key_id, "revoked_seq": seq}
    change = update(KEYS).where(which, KEYS.c.revoked_at.is_(None)).values(**marks)
    rows = await write.rows(change.returning(KEYS.c.id, KEYS.c.kind, KEYS.c.expires_at))
    if rows:
        write.ledger.revocation_seq = seq
    counts = dict.fromkeys(Kind, 0)
    lived = [row for row in rows if row.expires_at is None or row.expires_at > now]
    for row in lived:
        counts[Kind(row.kind)] += 1
    return Revocation(counts, frozenset(row.id for row in lived), actor.key_id, now)


def told(revocation: Revocation) -> dict[str, Any]:
    """What the audit says of it: the ids of a few, of many a hash that any list of them can be compared with."""
    ids = sorted(revocation.ids)
    counts = {str(kind): number for kind, number in revocation.counts.items()}
    if len(ids) <= NAMED:
        return {"revoked": counts, "ids": ids}
    return {"revoked": counts, "ids_sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest()}
