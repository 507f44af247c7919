"""The audit over HTTP: rows as they were chained, and the end of the chain signed."""

from __future__ import annotations

from relay.api import models
from relay.api.call import Call, Reply
from relay.api.wishes import AuditQuery
from relay.keys.chain import GENESIS, sign_head
from relay.keys.times import text_of


async def page(call: Call) -> Reply:
    """Rows after a number, in order."""
    query = call.taken(AuditQuery)
    # One more than is given tells whether there is more.
    found = await call.office.registry.audit.read(query.after, query.limit + 1)
    given = found[: query.limit]
    items = [models.AuditEntry(row=row.to_json(), hash=digest) for row, digest in given]
    following = given[-1][0].seq if len(found) > len(given) else None
    return Reply(models.AuditRows(items=items, next=following))


async def head(call: Call) -> Reply:
    """How far the chain goes, signed at this moment."""
    seq, digest = await call.office.registry.audit.head()
    signed = sign_head(call.office.signing.key(), seq, digest, text_of(call.office.now()), GENESIS)
    return Reply(models.AuditHead(head=signed.to_json()))
