"""Revocation: alone and down the tree, counted once, seen by whoever polls; a big tree in time."""

from __future__ import annotations

import secrets
import time

import pytest
from sqlalchemy import text

from relay.keys.forms import Kind, new_id
from relay.registry import NotAllowed, NotFound
from tests.registry.world import DAY, NOW, World, a_key, actor

MANY = 10_000
COPIES = f"""
INSERT INTO keys (id, kind, project_id, parent_id, scope, label, created_at, expires_at, token_version)
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})
SELECT 'mtk_child_' || (100000000000 + i), kind, project_id, parent_id, scope, label, created_at, expires_at, 0
FROM n, keys WHERE id = :pattern
"""


def counted(**given: int) -> dict[Kind, int]:
    """Counts of every kind."""
    return {kind: given.get(str(kind), 0) for kind in Kind}


async def test_alone_and_with_all_below(here: World) -> None:
    """Without cascade the descendants live, and their number is told; with it they go; a second time counts nothing."""
    project, master = await here.project()
    children = [await here.child(master) for _ in range(3)]
    visitor = a_key(Kind.VISITOR, parent_id=master.id, project_id=project.id, tunnel="t")
    await here.registry.keys.mint(actor(master), visitor)
    alone = await here.registry.keys.revoke(here.by, master.id, cascade=False)
    assert (alone.counts, set(alone.ids), alone.remaining) == (counted(master=1), {master.id}, 4)
    assert (await here.registry.keys.get(children[0].id)).state(NOW) == "valid"
    here.clock.advance(5)
    rest = await here.registry.keys.revoke(here.by, master.id, cascade=True)
    assert (rest.counts, rest.remaining) == (counted(child=3, visitor=1), 0)
    assert rest.ids == {visitor.id, *(child.id for child in children)}
    assert (rest.by, rest.at) == (here.operator.id, NOW + 5)
    again = await here.registry.keys.revoke(here.by, master.id, cascade=True)
    assert (again.counts, again.ids, again.remaining) == (counted(), frozenset(), 0)
    found = await here.registry.keys.get(master.id)
    assert (found.revoked_at, found.revoked_by, found.revoked_seq) == (NOW, here.operator.id, 1)
    assert (await here.registry.keys.get(children[0].id)).revoked_seq == 2
    assert (await here.registry.changes.position()).revocation_seq == 2


async def test_the_operator_takes_all_along(here: World) -> None:
    """From the top everything is revoked; a key of another tree is not."""
    _, master = await here.project()
    child = await here.child(master)
    of_operator = await here.child(here.operator, master.project_id)
    done = await here.registry.keys.revoke(here.by, here.operator.id, cascade=True)
    assert done.ids == {here.operator.id, master.id, child.id, of_operator.id}
    assert done.counts == counted(operator=1, master=1, child=2)


async def test_what_is_over_is_marked_and_not_counted(here: World) -> None:
    """An expired key is revoked like the others, so that a clock set back does not wake it, but it was no loss."""
    _, master = await here.project()
    over, alive = await here.child(master, expires_at=NOW + 1), await here.child(master)
    here.clock.advance(2)
    done = await here.registry.keys.revoke(here.by, master.id, cascade=True)
    assert done.counts == counted(master=1, child=1)
    assert done.ids == {master.id, alive.id}
    assert (await here.registry.keys.get(over.id)).state(NOW) == "revoked"


async def test_each_change_has_one_row_in_the_audit(here: World) -> None:
    """It says what was revoked; a revocation that changed nothing has none."""
    project, master = await here.project()
    child = await here.child(master)
    await here.registry.keys.revoke(actor(master), master.id, cascade=True)
    row = await here.last()
    assert (row.action, row.actor, row.subject, row.project) == ("key.revoke", master.id, master.id, project.id)
    assert row.details["cascade"] is True
    assert row.details["ids"] == sorted([child.id, master.id])
    assert row.details["revoked"]["child"] == 1
    before = await here.registry.audit.head()
    await here.registry.keys.revoke(here.by, child.id, cascade=True)
    assert await here.registry.audit.head() == before


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_whoever_lost_its_key_on_the_way_changes_nothing(here: World, end: str) -> None:
    """A request that was let in before its key ended is refused where it would write."""
    project, master = await here.project(expires_at=NOW + 10 * DAY)
    child, by = await here.child(master), actor(master)
    await here.registry.subdomains.reserve(by, "mine", project.id)
    await here.project("other")
    if end == "revoked":
        await here.registry.keys.revoke(here.by, master.id, cascade=False)
    else:
        here.clock.advance(10 * DAY)
    before = await here.registry.audit.head()
    for change in (
        here.registry.subdomains.reserve(by, "new", project.id),
        here.registry.subdomains.release(by, "mine"),
        here.registry.keys.revoke(by, child.id, False),
        here.registry.keys.rotate(by, master.id, secrets.token_bytes(32), new_id(Kind.MASTER), DAY),
        here.registry.projects.delete(by, project.id),
    ):
        with pytest.raises(NotAllowed) as caught:
            await change
        assert caught.value.code == f"key_{end}"
    assert await here.registry.audit.head() == before


async def test_an_unknown_key(here: World) -> None:
    """Is not found."""
    with pytest.raises(NotFound):
        await here.registry.keys.revoke(here.by, new_id(Kind.CHILD), True)


async def test_whoever_polls_learns_what_was_revoked(here: World) -> None:
    """All since a place in the sequence, and all that would still be valid otherwise."""
    _, master = await here.project()
    first, second = await here.child(master, expires_at=NOW + 10), await here.child(master)
    await here.registry.keys.revoke(here.by, first.id, False)
    at = (await here.registry.changes.position()).revocation_seq
    here.clock.advance(1)
    await here.registry.keys.revoke(here.by, second.id, False)
    assert await here.registry.changes.revoked_since(at) == [(second.id, here.operator.id, NOW + 1)]
    assert [one.id for one in await here.registry.changes.revoked_since(0)] == [first.id, second.id]
    assert {one.id for one in await here.registry.changes.revoked_alive(NOW + 1)} == {first.id, second.id}
    assert {one.id for one in await here.registry.changes.revoked_alive(NOW + 10)} == {second.id}


async def test_a_tree_of_ten_thousand(here: World) -> None:
    """Is revoked within 5 s, in one step of the sequence; the audit has a hash of the ids in the place of them."""
    _, master = await here.project()
    child = await here.child(master)
    async with here.database.writing() as write:
        await write.run(text(COPIES), {"pattern": child.id})
    began = time.monotonic()
    done = await here.registry.keys.revoke(here.by, master.id, cascade=True)
    took = time.monotonic() - began
    assert done.counts == counted(master=1, child=MANY + 1)
    assert took < 5
    assert len(await here.registry.changes.revoked_since(0)) == MANY + 2
    assert (await here.registry.changes.position()).revocation_seq == 1
    assert "ids" not in (details := (await here.last()).details)
    assert len(details["ids_sha256"]) == 64
