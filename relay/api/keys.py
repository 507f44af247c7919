"""Keys over HTTP: list, show, rotate, revoke, and who is calling."""

from __future__ import annotations

from relay.api import models, problems
from relay.api.call import Call, Reply
from relay.api.keyshapes import key_of, told_of_revocation
from relay.api.projects import Names, listed
from relay.api.rights import Right, Thing
from relay.api.usage import Books
from relay.api.wishes import KeysQuery, RevokeWish, RotateWish
from relay.keys.forms import is_public_id, read_public, shown
from relay.keys.private import id_of_public
from relay.limits.months import month_of
from relay.registry.errors import NotFound
from relay.registry.records import KeyFilter, KeyRecord

# Rotations followed from a key to those that came after it.
_LONGEST_LINE = 1000


async def _told(call: Call, record: KeyRecord) -> models.Key:
    """The key as it is told."""
    return key_of(call.office, record, await Names(call.office).of(record.project_id))


async def whoami(call: Call) -> Reply:
    """The key that signed this request."""
    return Reply(await _told(call, await call.office.registry.keys.get(call.who.key_id)))


async def page(call: Call) -> Reply:
    """Keys of the caller's project, or of all to an operator."""
    query = call.taken(KeysQuery)
    project = await listed(call, query.project, Right.KEYS_LIST)
    chosen = KeyFilter(project=project, kind=query.kind, state=query.state)
    found = await call.office.registry.keys.list(chosen, query.limit, query.cursor)
    names = Names(call.office)
    items = [key_of(call.office, one, await names.of(one.project_id)) for one in found.items]
    return Reply(models.Keys(items=items, next_cursor=found.next_cursor))


async def show(call: Call) -> Reply:
    """One key, with the limits that hold for it in effect, and what it has used in this month."""
    record = await _find(call, Right.KEYS_SHOW)
    books = await Books.of_key(call.office, record, month_of(call.office.now()))
    told = dict(await _told(call, record))
    return Reply(models.KeyDetails(**told, effective=books.limits(record), usage=books.told_of_month(record)))


async def revoke(call: Call) -> Reply:
    """Ends a key, and with `cascade` all below it; those that were revoked before are not counted again."""
    record = await _find(call, Right.KEYS_REVOKE)
    cascade = call.taken(RevokeWish).cascade
    revocation = await call.office.registry.keys.revoke(call.actor, record.id, cascade)
    return Reply(told_of_revocation(call.office, revocation))


async def rotate(call: Call) -> Reply:
    """Replaces the newest key of a line by one whose public half was sent."""
    record = await _find(call, Right.KEYS_ROTATE)
    if not record.kind.private:
        raise problems.conflict(
            f"A {record.kind} key is not rotated.", "Mint a new one; an agent with a master key does so by itself."
        )
    wish = call.taken(RotateWish)
    public = read_public(wish.public_key)
    new_id, overlap = id_of_public(record.kind, public), float(wish.overlap)
    # Asked before: once the key is replaced, nothing may keep the answer from whoever holds the new one.
    name = await Names(call.office).of(record.project_id)
    done = await call.office.registry.keys.rotate(
        call.actor, record.id, public, new_id, overlap, token_version=wish.token_version
    )
    newest = done.record or done.old
    for one in (*done.line, newest):
        call.office.keyring.learn(one)
    key, old = key_of(call.office, newest, name), key_of(call.office, done.old, name)
    return Reply(models.Rotated(key=key, rotated=done.record is not None, old=old))


# ---- which key, and may it be touched


async def _find(call: Call, right: Right) -> KeyRecord:
    key_id = call.path["key"]
    if not is_public_id(key_id):
        raise problems.not_found("key", shown(key_id))
    hidden = problems.not_found("key", key_id)
    try:
        record = await call.office.registry.keys.get(key_id)
    except NotFound:
        raise hidden from None
    line = frozenset((record.id,))
    if right is Right.KEYS_REVOKE and not call.everywhere(right) and record.id != call.who.key_id:
        line = await _line(call, record)
    call.demand(right, Thing(record.project_id, record.id, line), hidden)
    return record


async def _line(call: Call, record: KeyRecord) -> frozenset[str]:
    """The key, its ancestors, and all that these were replaced by: whoever rotated a key answers for what it minted."""
    keys = call.office.registry.keys
    found = {one.id: one for one in (record, *await keys.lineage(record.id))}
    after = {one.successor_id for one in found.values() if one.successor_id is not None} - found.keys()
    while after and len(found) < _LONGEST_LINE:
        news = await keys.find(after)
        found |= news
        after = {one.successor_id for one in news.values() if one.successor_id is not None} - found.keys()
    return frozenset(found)
