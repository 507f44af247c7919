"""Projects: made with a master key, found, listed, deleted with all that was theirs."""

from __future__ import annotations

import pytest

from relay.keys.forms import Kind
from relay.registry import Conflict, NotAllowed, NotFound
from tests.registry.world import World, a_key, actor


async def test_a_project_comes_with_its_master_key(here: World) -> None:
    """Both are found afterwards, by id and by name, and the audit has a row for each."""
    project, master = await here.project("mcp-server")
    assert project.id.startswith("proj_mcp_server_")
    assert (project.created_by, project.created_at, project.deleted_at) == (here.operator.id, here.clock.now(), None)
    assert await here.registry.projects.get("mcp-server") == project
    assert await here.registry.projects.get(project.id) == project
    assert await here.registry.keys.get(master.id) == master
    assert (master.project_id, master.parent_id) == (project.id, here.operator.id)
    assert await here.actions() == ["project.create", "key.mint"]


async def test_a_long_name_makes_a_bearable_id(here: World) -> None:
    """At most 24 characters of a name go into the id."""
    project, _ = await here.project("a" * 63)
    assert project.id.startswith("proj_" + "a" * 24 + "_")
    assert len(project.id) == 5 + 24 + 1 + 6


async def test_a_name_must_be_a_label(here: World) -> None:
    """What cannot be a label of a host name is no project's name; nothing is written."""
    for name in ("", "A", "-a", "a-", "a" * 64, "a.b", "a b", "ä", "a\n", "a\0"):
        with pytest.raises(NotAllowed) as refused:
            await here.project(name)
        assert refused.value.code == "project_name", name
    assert await here.actions() == []


async def test_names_are_unique_among_the_living(here: World) -> None:
    """A second project of a name is refused, and leaves no key behind; after a deletion the name is free."""
    first, _ = await here.project()
    master = a_key(Kind.MASTER, parent_id=here.operator.id)
    with pytest.raises(Conflict) as refused:
        await here.registry.projects.create(here.by, "one", master)
    assert refused.value.code == "project_exists"
    with pytest.raises(NotFound):
        await here.registry.keys.get(master.id)
    await here.registry.projects.delete(here.by, first.id)
    second, _ = await here.project()
    assert (await here.registry.projects.get("one")).id == second.id
    assert (await here.registry.projects.get(first.id)).deleted_at == here.clock.now()


async def test_the_first_key_is_a_master_key_under_an_operator(here: World) -> None:
    """Another kind, or another parent, is refused, and there is no project then."""
    _, master = await here.project()
    with pytest.raises(NotAllowed):
        await here.registry.projects.create(here.by, "two", a_key(Kind.CHILD, parent_id=here.operator.id))
    with pytest.raises(NotAllowed):
        await here.registry.projects.create(actor(master), "two", a_key(Kind.MASTER, parent_id=master.id))
    with pytest.raises(NotAllowed):
        await here.registry.projects.create(here.by, "two", a_key(Kind.MASTER))
    with pytest.raises(NotFound):
        await here.registry.projects.get("two")


async def test_the_default_project_is_made_once(here: World) -> None:
    """It has no key of its own; asked again it is the same; deleted, it is made anew."""
    first = await here.registry.projects.default(here.by)
    assert first == await here.registry.projects.default(here.by)
    assert first.name == "default"
    assert await here.actions() == ["project.create"]
    await here.registry.projects.delete(here.by, first.id)
    assert (await here.registry.projects.default(here.by)).id != first.id


async def test_deleting_takes_keys_and_names_along(here: World) -> None:
    """All its keys are revoked, whoever minted them; its names are given back; other projects keep theirs."""
    project, master = await here.project()
    other, other_master = await here.project("two")
    child = await here.child(master)
    of_operator = await here.child(here.operator, project.id)
    await here.registry.subdomains.claim(actor(child), ["a", "b"], child)
    await here.registry.subdomains.reserve(here.by, "c", other.id)
    done = await here.registry.projects.delete(here.by, project.id)
    assert done.ids == {master.id, child.id, of_operator.id}
    assert (done.counts[Kind.MASTER], done.counts[Kind.CHILD]) == (1, 2)
    assert (await here.registry.keys.get(child.id)).revoked_by == here.operator.id
    assert (await here.registry.keys.get(other_master.id)).state(here.clock.now()) == "valid"
    assert await here.registry.subdomains.owners() == {"c": other.id}
    assert (await here.last()).details["names"] == ["a", "b"]
    with pytest.raises(NotFound):
        await here.registry.projects.delete(here.by, project.id)
    with pytest.raises(NotFound):
        await here.registry.keys.mint(here.by, a_key(Kind.MASTER, parent_id=here.operator.id, project_id=project.id))


async def test_a_project_has_a_plan_or_none(here: World) -> None:
    """Given when it is made or later; each change has its row and is seen by whoever polls, and there is no other."""
    master = a_key(Kind.MASTER, parent_id=here.operator.id)
    made, _ = await here.registry.projects.create(here.by, "one", master, "hobby")
    assert (made.plan, (await here.registry.projects.get("one")).plan) == ("hobby", "hobby")
    other, _ = await here.project("two")
    assert await here.registry.projects.plans() == {made.id: "hobby"}
    for project, plan, before in ((other, "small", None), (made, None, "hobby"), (other, "large", "small")):
        at = await here.registry.changes.position()
        assert (await here.registry.projects.give_plan(here.by, project.id, plan)).plan == plan
        row = await here.last()
        assert (row.action, row.subject, row.project) == ("project.plan", project.id, project.id)
        assert (row.actor, row.details) == (here.operator.id, {"plan": plan, "before": before})
        assert (await here.registry.projects.get(project.id)).plan == plan
        assert (await here.registry.changes.position()).names_seq == at.names_seq + 1
        await here.registry.projects.give_plan(here.by, project.id, plan)
        assert (await here.registry.changes.position()).names_seq == at.names_seq + 1
        assert await here.last() == row
    await here.registry.projects.delete(here.by, other.id)
    assert await here.registry.projects.plans() == {}
    with pytest.raises(NotFound):
        await here.registry.projects.give_plan(here.by, other.id, None)


async def test_whoever_polls_learns_of_a_new_project_with_a_plan(here: World) -> None:
    """One without a plan changes nothing that another node would have to know."""
    before = await here.registry.changes.position()
    await here.project()
    assert (await here.registry.changes.position()).names_seq == before.names_seq
    await here.registry.projects.create(here.by, "two", a_key(Kind.MASTER, parent_id=here.operator.id), "hobby")
    assert (await here.registry.changes.position()).names_seq == before.names_seq + 1


async def test_pages_hold_all_once(here: World) -> None:
    """A list read page by page has every living project once, oldest first, also those made at the same moment."""
    made = [(await here.project(f"p{number}"))[0] for number in range(7)]
    await here.registry.projects.delete(here.by, made[3].id)
    here.clock.advance(1)
    made.append((await here.project("last"))[0])
    seen, cursor = [], None
    while True:
        page = await here.registry.projects.list(3, cursor)
        seen += [project.id for project in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert sorted(seen) == sorted(project.id for project in made if project is not made[3])
    assert seen[-1] == made[-1].id


async def test_a_made_up_cursor_is_refused(here: World) -> None:
    """Nothing but a cursor that a page gave is taken for one."""
    for cursor in ("", "x", "W10", "eyJhIjoxfQ", "WzEsMl0", "W05hTiwgInAiXQ", "WzEuMCwgIlx1MDAwMCJd", "é"):
        with pytest.raises(NotAllowed) as refused:
            await here.registry.projects.list(3, cursor)
        assert refused.value.code == "cursor", cursor


async def test_what_is_not_there(here: World) -> None:
    """Whatever is asked for and does not exist is not found; what no database can hold is refused."""
    for name in ("nobody", "proj_x", "", "a" * 10_000):
        with pytest.raises(NotFound):
            await here.registry.projects.get(name)
    for name in ("a\0b", "\ud800"):
        with pytest.raises((NotFound, NotAllowed)):
            await here.registry.projects.get(name)
    await here.project()
