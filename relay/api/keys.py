"""Keys over HTTP: list, show, rotate, revoke, and who is calling."""

from __future__ import annotations

from relay.api import models, problems, wishes
from relay.api.call import Call, Reply
from relay.api.keyshapes import key_of, told_of_revocation
from relay.api.projects import Names, listed
from relay.api.rights import Right, Thing
from relay.api.wishes import KeysQuery, RevokeWish, RotateWish
from relay.keys.forms import Kind, is_public_id, shown
from relay.keys.private import id_of_public
from relay.registry.errors import NotFound
from relay.registry.records import KeyFilter, KeyRecord

# Rotations followed from a key to those that came after it.
_LONGEST_LINE = 1000


async def told(call: Call, record: KeyRecord) -> models.Key:
    """The key as it is told."""
    return key_of(record, await Names(call.office).of(record.project_id), call.office.now())


async def whoami(call: Call) -> Reply:
    """The key that signed this request."""
    return Reply(await told(call, await call.office.registry.keys.get(call.who.key_id)))


async def page(call: Call) -> Reply:
    """Keys of the caller's project, or of all to an operator."""
    query = call.taken(KeysQuery)
    project = await listed(call, query.project, Right.KEYS_LIST)
    chosen = KeyFilter(project=project, kind=query.kind, state=query.state)
    found = await call.office.registry.keys.list(chosen, query.limit, query.cursor)
    names, now = Names(call.office), call.office.now()
    items = [key_of(one, await names.of(one.project_id), now) for one in found.items]
    return Reply(models.Keys(items=items, next_cursor=found.next_cursor))


async def show(call: Call) -> Reply:
    """One key."""
    return Reply(await told(call, await _find(call, Right.KEYS_SHOW)))


async def revoke(call: Call) -> Reply:
    """Ends a key, and with `cascade` all below it; those that were revoked before are not counted again."""
    record = await _find(call, Right.KEYS_REVOKE)
    cascade = call.taken(RevokeWish).cascade
    revocation = await call.office.registry.keys.revoke(call.actor, record.id, cascade)
    return Reply(told_of_revocation(call.office, revocation))


async def rotate(call: Call) -> Reply:
    """Replaces the newest key of a line by one whose public half was sent."""
    record = await _find(call, Right.KEYS_ROTATE)
    if record.kind not in (Kind.OPERATOR, Kind.MASTER):
        raise problems.conflict(
            f"A {record.kind} key is not rotated.", "Mint a new one; an agent with a master key does so by itself."
        )
    wish = call.taken(RotateWish)
    await _refuse_outdated(call, record, wish)
    public = wishes.raw_public_key(wish.public_key)
    new_id, overlap = id_of_public(record.kind, public), float(wish.overlap)
    done = await call.office.registry.keys.rotate(
        call.actor, record.id, public, new_id, overlap, token_version=wish.token_version
    )
    newest = done.record or done.old
    for one in (done.old, newest):
        call.office.keyring.learn(one)
    key, old = await told(call, newest), await told(call, done.old)
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


async def _refuse_outdated(call: Call, record: KeyRecord, wish: RotateWish) -> None:
    """A key that was replaced must not replace its successor: it may be in the hands of whoever it was replaced for."""
    if call.everywhere(Right.KEYS_ROTATE) and record.id != call.who.key_id:
        return
    newest = record
    for _ in range(_LONGEST_LINE):
        if newest.successor_id is None:
            break
        newest = await call.office.registry.keys.get(newest.successor_id)
    if newest is record or (wish.token_version is not None and wish.token_version <= newest.token_version):
        return
    problem = problems.forbidden(
        f"The key {record.id} was replaced already; its newest successor is {newest.id}.",
        "Rotate that one, with itself.",
    )
    raise call.refused(Right.KEYS_ROTATE, problem)
