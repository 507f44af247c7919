"""Questions about the tree of keys: ancestors, descendants, and the line of keys that replaced each other."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CTE, Select, bindparam, literal, or_, select

from relay.keys.forms import shown
from relay.registry.database import Reading
from relay.registry.errors import NotAllowed, NotFound
from relay.registry.records import Actor, KeyRecord
from relay.registry.rows import key_of
from relay.registry.schema import KEYS


def _ancestors() -> Select[Any]:
    first = select(KEYS.c.id, KEYS.c.parent_id, literal(0).label("depth")).where(KEYS.c.id == bindparam("key_id"))
    tree = first.cte("lineage", recursive=True)
    above = select(KEYS.c.id, KEYS.c.parent_id, tree.c.depth + 1).join(tree, KEYS.c.id == tree.c.parent_id)
    tree = tree.union_all(above)
    return select(KEYS).join(tree, KEYS.c.id == tree.c.id).order_by(tree.c.depth.desc())


ANCESTORS = _ancestors()
"""The ancestors of `key_id`, topmost first, and the key itself."""


def descendants(key_id: str) -> CTE:
    """Ids of the key and of all below it."""
    tree = select(KEYS.c.id).where(KEYS.c.id == key_id).cte("tree", recursive=True)
    return tree.union(select(KEYS.c.id).join(tree, KEYS.c.parent_id == tree.c.id))


def predecessors(key_id: str) -> CTE:
    """Ids of the key and of all that it replaced, one after another."""
    line = select(KEYS.c.id).where(KEYS.c.id == key_id).cte("line", recursive=True)
    return line.union(select(KEYS.c.id).join(line, KEYS.c.successor_id == line.c.id))


async def newest(read: Reading, key_id: str) -> KeyRecord:
    """The last key of the line that this one is of. Raises NotFound."""
    first = select(KEYS.c.id, KEYS.c.successor_id).where(KEYS.c.id == key_id)
    line = first.cte("line", recursive=True)
    line = line.union(select(KEYS.c.id, KEYS.c.successor_id).join(line, KEYS.c.id == line.c.successor_id))
    row = await read.row(select(KEYS).join(line, KEYS.c.id == line.c.id).where(line.c.successor_id.is_(None)))
    if row is None:
        raise unknown(key_id)
    return key_of(row)


async def same_holder(read: Reading, one: str, other: str) -> bool:
    """Whether two keys are one, or replaced each other by rotation."""
    if one == other:
        return True
    for a, b in ((one, other), (other, one)):
        line = predecessors(a)
        if await read.row(select(line.c.id).where(line.c.id == b)) is not None:
            return True
    return False


async def lineage(read: Reading, key_id: str) -> list[KeyRecord]:
    """The key's ancestors, topmost first, and the key itself at the end. Raises NotFound."""
    found = [key_of(row) for row in await read.rows(ANCESTORS, {"key_id": key_id})]
    if not found:
        raise unknown(key_id)
    return found


async def living(read: Reading, key_id: str, now: float) -> list[KeyRecord]:
    """As `lineage`; raises NotAllowed when one of them is revoked or has expired.

    A key that was replaced counts for what hangs below it as long as its newest successor does.
    """
    found = await lineage(read, key_id)
    for one in found:
        whose = "The key" if one.id == key_id else "A key above it"
        state = one.state(now)
        if state != "valid" and one.id != key_id and one.successor_id is not None:
            state = (await newest(read, one.id)).state(now)
        if state != "valid":
            what = "is revoked" if state == "revoked" else "has expired"
            raise NotAllowed(f"key_{state}", f"{whose}, {one.id}, {what}; use another key.")
    return found


async def acting(read: Reading, actor: Actor, now: float) -> None:
    """Raises NotAllowed when whoever asks for a change was revoked, or has expired, since the request came in."""
    if not actor.key_id:  # the relay itself
        return
    row = await read.row(select(KEYS).where(KEYS.c.id == actor.key_id))
    state = "unknown" if row is None else key_of(row).state(now)
    if state != "valid":
        raise NotAllowed(f"key_{state}", f"The key {shown(actor.key_id)} is {state}; use another key.")


def unknown(key_id: str) -> NotFound:
    """`key_id` may be anything that somebody typed, even a key: only an id is repeated."""
    return NotFound(f"There is no key {shown(key_id)}.")


def not_over(now: float) -> Any:  # noqa: ANN401
    """The condition that a key has not expired."""
    return or_(KEYS.c.expires_at.is_(None), KEYS.c.expires_at > now)
