"""Names: the first claim reserves, the login moves, others wait out the quarantine."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from relay.keys.forms import Kind, new_id
from relay.keys.scopes import Scope
from relay.registry import KeyRecord, NotAllowed, NotFound, Project, names
from tests.registry.world import DAY, NOW, World, a_key, actor, world

WEEK = 7 * DAY


async def two(here: World) -> tuple[tuple[Project, KeyRecord], tuple[Project, KeyRecord]]:
    """Two projects, each with a child key that lives for a year."""
    made = []
    for name in ("one", "two"):
        project, master = await here.project(name)
        made.append((project, await here.child(master, expires_at=NOW + 365 * DAY)))
    return made[0], made[1]


async def claim(here: World, names: Sequence[str], child: KeyRecord) -> None:
    """As an agent does when it connects."""
    await here.registry.subdomains.claim(actor(child), names, child)


async def test_the_first_claim_reserves(here: World) -> None:
    """For the project, in the name of the key above; the second claim only reads."""
    (project, child), _ = await two(here)
    await claim(here, ["b", "a", "b"], child)
    found = await here.registry.subdomains.get("a")
    assert (found.project_id, found.login, found.reserved_at, found.released_at) == (
        project.id, child.parent_id, NOW, None,
    )  # fmt: skip
    assert await here.registry.subdomains.owners() == {"a": project.id, "b": project.id}
    row = await here.last()
    assert (row.action, row.actor, row.details) == ("subdomain.claim", child.id, {"key": child.id})
    before = await here.registry.audit.head()
    await claim(here, ["a", "b"], child)
    assert await here.registry.audit.head() == before


async def test_a_taken_name_takes_the_others_along(here: World) -> None:
    """Of several names none is reserved when one is another project's."""
    (_, mine), (_, theirs) = await two(here)
    await claim(here, ["x"], theirs)
    with pytest.raises(NotAllowed) as refused:
        await claim(here, ["a", "x", "b"], mine)
    assert refused.value.code == "name_taken"
    assert set(await here.registry.subdomains.owners()) == {"x"}


async def test_who_may_claim_what(here: World) -> None:
    """Child keys only, names of their scope only, names that can be names only, and no key that was revoked."""
    project, master = await here.project(scope=Scope(("a*",)))
    child = await here.child(master, scope=master.scope)
    for claimant, name, code in (
        (master, "a", "kind"), (here.operator, "a", "kind"), (child, "b", "name_outside_scope"),
        (child, "A", "name_form"), (child, "a.b", "name_form"), (child, "", "name_form"), (child, "a\0", "name_form"),
    ):  # fmt: skip
        with pytest.raises(NotAllowed) as refused:
            await claim(here, [name], claimant)
        assert refused.value.code == code
    await here.registry.keys.revoke(here.by, child.id, False)
    with pytest.raises(NotAllowed) as refused:
        await claim(here, ["a"], child)
    assert refused.value.code == "key_revoked"
    assert await here.registry.subdomains.owners() == {}
    assert project.deleted_at is None


@pytest.mark.parametrize("how", ["released", "project deleted"])
async def test_a_name_given_back_is_kept_from_others(how: str, here: World) -> None:
    """For the quarantine's time; after it, it is theirs and no longer the first one's."""
    (one, mine), (other, theirs) = await two(here)
    await claim(here, ["a"], mine)
    if how == "released":
        await here.registry.subdomains.release(here.by, "a")
    else:
        await here.registry.projects.delete(here.by, one.id)
    here.clock.advance(WEEK - 1)
    with pytest.raises(NotAllowed) as refused:
        await claim(here, ["a"], theirs)
    assert refused.value.code == "name_taken"
    here.clock.advance(1)
    await claim(here, ["a"], theirs)
    assert await here.registry.subdomains.owners() == {"a": other.id}
    if how == "released":
        with pytest.raises(NotAllowed):
            await claim(here, ["a"], mine)


async def test_its_own_project_has_a_name_back_at_once(here: World) -> None:
    """Neither its other keys nor itself wait."""
    (one, mine), _ = await two(here)
    await claim(here, ["a"], mine)
    await here.registry.subdomains.release(here.by, "a")
    assert await here.registry.subdomains.owners() == {}
    assert (await here.registry.subdomains.get("a")).released_at == NOW
    here.clock.advance(1)
    await claim(here, ["a"], mine)
    found = await here.registry.subdomains.get("a")
    assert (found.project_id, found.reserved_at, found.released_at) == (one.id, NOW + 1, None)


async def test_the_login_that_reserved_it_does_not_wait(here: World) -> None:
    """A name that was given back goes at once to another project of the same operator; a stranger's login waits."""
    one, _ = await here.project()
    other, master = await here.project("two")
    first = await here.child(here.operator, one.id)
    second = await here.child(here.operator, other.id)
    stranger = await here.child(master)
    await claim(here, ["a"], first)
    await here.registry.subdomains.release(here.by, "a")
    with pytest.raises(NotAllowed):
        await claim(here, ["a"], stranger)
    await claim(here, ["a"], second)
    assert await here.registry.subdomains.owners() == {"a": other.id}


async def test_without_quarantine_a_name_is_free_at_once(database_url: str) -> None:
    """When the operator set none."""
    async with world(database_url, quarantine=0) as here:
        (_, mine), (other, theirs) = await two(here)
        await claim(here, ["a"], mine)
        await here.registry.subdomains.release(here.by, "a")
        await claim(here, ["a"], theirs)
        assert await here.registry.subdomains.owners() == {"a": other.id}


async def test_the_login_moves_a_name(here: World) -> None:
    """To another project, in one step; the key that claimed it for the first project is refused from then on."""
    one, _ = await here.project()
    other, master = await here.project("two")
    old, new = await here.child(here.operator, one.id), await here.child(master)
    await claim(here, ["a"], old)
    here.clock.advance(1)
    moved = await here.registry.subdomains.move(here.by, "a", other.id)
    assert (moved.project_id, moved.login, moved.reserved_at) == (other.id, here.operator.id, NOW + 1)
    row = await here.last()
    assert (row.action, row.project, row.details) == ("subdomain.move", other.id, {"from": one.id})
    await claim(here, ["a"], new)
    with pytest.raises(NotAllowed) as refused:
        await claim(here, ["a"], old)
    assert refused.value.code == "name_taken"
    before = await here.registry.audit.head()
    assert await here.registry.subdomains.move(here.by, "a", other.id) == moved
    assert await here.registry.audit.head() == before


async def test_nobody_else_moves_it(here: World) -> None:
    """Not another operator, not the master of the project that has it, not the login when it is dead."""
    one, master = await here.project()
    other, _ = await here.project("two")
    await here.registry.subdomains.reserve(here.by, "a", one.id)
    done = await here.registry.keys.rotate(here.by, here.operator.id, b"n" * 32, new_id(Kind.OPERATOR), DAY)
    assert done.record is not None
    for who in (master, await here.child(master)):
        with pytest.raises(NotAllowed) as refused:
            await here.registry.subdomains.move(actor(who), "a", other.id)
        assert refused.value.code == "not_login"
    await here.registry.keys.revoke(here.by, done.record.id, False)
    with pytest.raises(NotAllowed) as refused:
        await here.registry.subdomains.move(actor(done.record), "a", other.id)
    assert refused.value.code == "key_revoked"
    with pytest.raises(NotFound):
        await here.registry.subdomains.move(here.by, "b", other.id)
    with pytest.raises(NotFound):
        await here.registry.subdomains.move(here.by, "a", "proj_unknown")
    assert await here.registry.subdomains.owners() == {"a": one.id}


async def test_a_master_moves_no_name_out_of_its_project(here: World) -> None:
    """Even when it is the login that reserved it."""
    (one, mine), (other, _) = await two(here)
    await claim(here, ["a"], mine)
    master = await here.registry.keys.get(mine.parent_id or "")
    with pytest.raises(NotAllowed) as refused:
        await here.registry.subdomains.move(actor(master), "a", other.id)
    assert refused.value.code == "foreign_project"
    assert await here.registry.subdomains.owners() == {"a": one.id}


async def test_reserving_and_giving_back(here: World) -> None:
    """Reserving twice is once; a name that nobody has cannot be given back."""
    one, _ = await here.project()
    other, _ = await here.project("two")
    made = await here.registry.subdomains.reserve(here.by, "a", one.id)
    assert (made.project_id, made.login) == (one.id, here.operator.id)
    before = await here.registry.audit.head()
    assert await here.registry.subdomains.reserve(here.by, "a", one.id) == made
    assert await here.registry.audit.head() == before
    with pytest.raises(NotAllowed):
        await here.registry.subdomains.reserve(here.by, "a", other.id)
    with pytest.raises(NotFound):
        await here.registry.subdomains.reserve(here.by, "b", "proj_unknown")
    await here.registry.subdomains.release(here.by, "a")
    for name in ("a", "b"):
        with pytest.raises(NotFound):
            await here.registry.subdomains.release(here.by, name)
    with pytest.raises(NotFound):
        await here.registry.subdomains.get("b")


async def test_pages_hold_all_once(here: World) -> None:
    """By name, of one project or of all, without those that were given back."""
    one, _ = await here.project()
    other, _ = await here.project("two")
    for number in range(5):
        await here.registry.subdomains.reserve(here.by, f"a{number}", one.id)
    await here.registry.subdomains.reserve(here.by, "b", other.id)
    await here.registry.subdomains.release(here.by, "a2")

    async def names(project: str | None) -> list[str]:
        found, cursor = [], None
        while True:
            page = await here.registry.subdomains.list(project, 2, cursor)
            found += [one.name for one in page.items]
            if (cursor := page.next_cursor) is None:
                return found

    assert await names(None) == ["a0", "a1", "a3", "a4", "b"]
    assert await names(one.id) == ["a0", "a1", "a3", "a4"]


async def test_whoever_polls_learns_that_a_name_changed_hands(here: World) -> None:
    """Reserved, moved, given back, gone with its project: each moves the place in the sequence of names, no other."""
    one, _ = await here.project()
    other, _ = await here.project("two")
    before = await here.registry.changes.position()
    at = [before.names_seq]

    async def moved_on() -> bool:
        at.append((await here.registry.changes.position()).names_seq)
        return at[-1] > at[-2]

    await here.registry.subdomains.reserve(here.by, "a", one.id)
    assert await moved_on()
    await here.registry.subdomains.move(here.by, "a", other.id)
    assert await moved_on()
    await here.registry.subdomains.release(here.by, "a")
    assert await moved_on()
    await here.registry.subdomains.reserve(here.by, "a", one.id)
    assert await moved_on()
    assert (await here.registry.changes.position()).keys_seq == before.keys_seq
    await here.registry.projects.delete(here.by, one.id)
    assert await moved_on()
    visitor = a_key(Kind.VISITOR, parent_id=here.operator.id, project_id=other.id, tunnel="t")
    await here.registry.keys.mint(here.by, visitor)
    assert not await moved_on()


async def test_a_project_holds_so_many_names(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for more gets none of them; one that was given back counts until others may have it."""
    monkeypatch.setattr(names, "MOST_NAMES", 3)
    project, master = await here.project()
    other, _ = await here.project("other")
    child, registry = await here.child(master), here.registry.subdomains
    await claim(here, ["a", "b"], child)
    await registry.reserve(here.by, "moved", other.id)
    head = await here.registry.audit.head()
    with pytest.raises(NotAllowed) as refused:
        await claim(here, ["c", "d"], child)
    assert refused.value.code == "too_many"
    assert await here.registry.audit.head() == head
    await claim(here, ["c"], child)
    await registry.release(here.by, "c")
    with pytest.raises(NotAllowed):
        await registry.reserve(here.by, "d", project.id)
    with pytest.raises(NotAllowed):
        await registry.move(here.by, "moved", project.id)
    await claim(here, ["a", "b", "c"], child)
    here.clock.advance(DAY / 2)
    await registry.release(here.by, "c")
    here.clock.advance(8 * DAY)
    await registry.reserve(here.by, "d", project.id)
    assert set(await registry.owners()) == {"a", "b", "d", "moved"}
