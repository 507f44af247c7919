"""Rotation: a new key beside the old one for a while, safe on a schedule."""

from __future__ import annotations

import secrets

import pytest

from relay.keys.forms import Kind, new_id
from relay.keys.scopes import Scope
from relay.registry import Conflict, KeyRecord, NotAllowed, NotFound, Rotated
from tests.registry.world import DAY, NOW, World, actor


async def rotate(here: World, key: KeyRecord, overlap: float = DAY, version: int | None = None) -> Rotated:
    """A rotation to a new key."""
    public, key_id = secrets.token_bytes(32), new_id(key.kind)
    return await here.registry.keys.rotate(here.by, key.id, public, key_id, overlap, token_version=version)


async def test_the_old_key_overlaps_with_the_new(here: World) -> None:
    """The new one takes the old one's place in everything; the old one ends after the overlap, its children stay."""
    project, master = await here.project(scope=Scope(("a*",), 3), label="ci")
    child = await here.child(master, scope=Scope(("ab",), 1))
    done = await rotate(here, master, 100)
    assert done.record is not None
    new = await here.registry.keys.get(done.record.id)
    assert new == done.record
    assert (new.kind, new.project_id, new.parent_id) == (Kind.MASTER, project.id, here.operator.id)
    assert (new.scope, new.label, new.expires_at, new.created_at) == (master.scope, "ci", None, NOW)
    old = await here.registry.keys.get(master.id)
    assert old == done.old
    assert (old.expires_at, old.successor_id) == (NOW + 100, new.id)
    row = await here.last()
    assert (row.action, row.subject, row.details["new"]) == ("key.rotate", master.id, new.id)
    here.clock.advance(100)
    assert old.state(here.clock.now()) == "expired"
    assert (await here.registry.keys.get(child.id)).state(here.clock.now()) == "valid"
    assert (await here.child(new, scope=Scope(("ab",), 1))).parent_id == new.id
    with pytest.raises(NotAllowed):
        await here.child(master, scope=Scope(("ab",), 1))


async def test_an_old_id_leads_to_the_newest(here: World) -> None:
    """Whichever key of the line is named, the newest is replaced, and all before end with the overlap at the latest."""
    _, first = await here.project()
    second = (await rotate(here, first)).record
    assert second is not None
    third = (await rotate(here, first, 10)).record
    assert third is not None
    assert (await here.registry.keys.get(second.id)).successor_id == third.id
    assert (await here.registry.keys.get(first.id)).successor_id == second.id
    ends = [(await here.registry.keys.get(one.id)).expires_at for one in (first, second, third)]
    assert ends == [NOW + 10, NOW + 10, None]


async def test_an_overlap_makes_no_key_live_longer(here: World) -> None:
    """A key that ends before the overlap does ends when it did; the new one ends with it."""
    _, master = await here.project(expires_at=NOW + 5)
    done = await rotate(here, master)
    assert done.record is not None
    assert (done.old.expires_at, done.record.expires_at) == (NOW + 5, NOW + 5)


async def test_on_a_schedule_nothing_happens_twice(here: World) -> None:
    """With a token version, the same or a lower one changes nothing; without, the version stays what it was."""
    _, master = await here.project()
    first = await rotate(here, master, version=1)
    assert first.record is not None
    assert first.record.token_version == 1
    before = await here.registry.audit.head()
    for version in (1, 0):
        again = await rotate(here, master, version=version)
        assert (again.record, again.old) == (None, first.record)
    assert await here.registry.audit.head() == before
    plain = await rotate(here, master)
    assert plain.record is not None
    assert plain.record.token_version == 1
    assert (await rotate(here, master, version=7)).record is not None


@pytest.mark.parametrize("how", ["revoked", "expired", "project deleted", "parent revoked"])
async def test_a_dead_key_is_not_renewed(how: str, here: World) -> None:
    """Whoever holds a key that was taken away gets no other one for it."""
    project, master = await here.project(expires_at=NOW + 5 if how == "expired" else None)
    if how == "revoked":
        await here.registry.keys.revoke(here.by, master.id, False)
    elif how == "project deleted":
        await here.registry.projects.delete(here.by, project.id)
    elif how == "parent revoked":
        await here.registry.keys.revoke(here.by, here.operator.id, False)
    here.clock.advance(10)
    before = await here.registry.audit.head()
    with pytest.raises(NotAllowed):
        await rotate(here, master)
    assert await here.registry.audit.head() == before


async def test_what_cannot_be_rotated(here: World) -> None:
    """A child key, an unknown key, and a key that is registered already."""
    _, master = await here.project()
    child = await here.child(master)
    with pytest.raises(NotAllowed) as refused:
        await rotate(here, child)
    assert refused.value.code == "kind"
    with pytest.raises(NotFound):
        await here.registry.keys.rotate(here.by, new_id(Kind.MASTER), b"x" * 32, new_id(Kind.MASTER), 0.0)
    with pytest.raises(Conflict):
        await here.registry.keys.rotate(here.by, master.id, b"x" * 32, here.operator.id, 0.0)
    assert (await here.registry.keys.get(master.id)).successor_id is None


async def test_an_operator_key_is_rotated_too(here: World) -> None:
    """It keeps having no parent and no project, and what it reserved is its successor's to move."""
    one, _ = await here.project()
    two, _ = await here.project("two")
    await here.registry.subdomains.reserve(here.by, "a", one.id)
    done = await rotate(here, here.operator, 0)
    assert done.record is not None
    assert (done.record.parent_id, done.record.project_id) == (None, None)
    moved = await here.registry.subdomains.move(actor(done.record), "a", two.id)
    assert moved.project_id == two.id


async def test_whoever_polls_learns_of_it(here: World) -> None:
    """A rotation moves the place in the sequence of keys."""
    _, master = await here.project()
    before = await here.registry.changes.position()
    await rotate(here, master)
    after = await here.registry.changes.position()
    assert after.keys_seq > before.keys_seq
    assert after.revocation_seq == before.revocation_seq


@pytest.mark.parametrize("end", ["expired", "revoked"])
async def test_what_hangs_below_a_key_that_was_replaced_goes_on(here: World, end: str) -> None:
    """Once the old operator key is over, its master keys mint as before: its successor stands for it."""
    _, master = await here.project()
    done = await rotate(here, here.operator, 100)
    if end == "revoked":
        await here.registry.keys.revoke(here.by, here.operator.id, False)
    here.clock.advance(101)
    assert done.record is not None
    here.operator = done.record
    assert (await here.child(master)).parent_id == master.id
    assert (await rotate(here, master)).record is not None
    await here.registry.keys.revoke(here.by, done.record.id, False)
    with pytest.raises(NotAllowed):
        await here.child(master)


async def test_a_key_that_was_replaced_does_not_replace_its_successor(here: World) -> None:
    """Decided where it is written: a request that overtook the rotation on its way is no different."""
    _, master = await here.project()
    first = await rotate(here, master)
    assert first.record is not None
    with pytest.raises(NotAllowed, match=first.record.id) as caught:
        await here.registry.keys.rotate(actor(master), master.id, secrets.token_bytes(32), new_id(Kind.MASTER), DAY)
    assert caught.value.code == "key_replaced"
    assert (await here.registry.keys.get(first.record.id)).successor_id is None
