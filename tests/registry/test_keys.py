"""Keys: which may be minted under which, how they are found, what is remembered of their use."""

from __future__ import annotations

from typing import Any

import pytest

from relay.keys.forms import Kind, new_id
from relay.keys.scopes import Scope
from relay.registry import RELAY, Conflict, KeyFilter, KeyRecord, NotAllowed, NotFound
from relay.registry.records import State
from tests.registry.world import DAY, NOW, World, a_key, actor

# Which kinds a kind may mint.
MINTS = {
    Kind.OPERATOR: {Kind.MASTER, Kind.CHILD, Kind.VISITOR},
    Kind.MASTER: {Kind.CHILD, Kind.VISITOR},
    Kind.CHILD: set(),
    Kind.VISITOR: set(),
}


async def of_every_kind(here: World) -> dict[Kind, KeyRecord]:
    """A key of each kind, in the project `one`."""
    project, master = await here.project()
    visitor = a_key(Kind.VISITOR, parent_id=master.id, project_id=project.id, tunnel="t")
    return {
        Kind.OPERATOR: here.operator,
        Kind.MASTER: master,
        Kind.CHILD: await here.child(master),
        Kind.VISITOR: await here.registry.keys.mint(actor(master), visitor),
    }


@pytest.mark.parametrize("kind", Kind)
async def test_which_kind_mints_which(kind: Kind, here: World) -> None:
    """Every kind under every kind: made exactly where the table says, and audited then."""
    parents = await of_every_kind(here)
    project = None if kind is Kind.OPERATOR else parents[Kind.MASTER].project_id
    extra: dict[str, Any] = {"tunnel": "t"} if kind is Kind.VISITOR else {}
    for parent, above in parents.items():
        new = a_key(kind, parent_id=above.id, project_id=project, label="a label", **extra)
        before = await here.registry.audit.head()
        if kind in MINTS[parent]:
            record = await here.registry.keys.mint(actor(above), new)
            assert await here.registry.keys.get(new.id) == record
            assert (record.kind, record.parent_id, record.project_id) == (kind, above.id, project)
            assert (record.public, record.tunnel, record.label) == (new.public, new.tunnel, "a label")
            row = await here.last()
            assert (row.action, row.actor, row.subject, row.project) == ("key.mint", above.id, new.id, project)
            assert row.lineage == actor(above).lineage
        else:
            with pytest.raises(NotAllowed) as refused:
                await here.registry.keys.mint(actor(above), new)
            assert refused.value.code == "kind", parent
            assert await here.registry.audit.head() == before


async def test_only_the_relay_makes_an_operator(here: World) -> None:
    """A key without a parent is refused to everybody but the relay itself, and that makes nothing but operators."""
    with pytest.raises(NotAllowed):
        await here.registry.keys.mint(here.by, a_key(Kind.OPERATOR))
    project, _ = await here.project()
    with pytest.raises(NotAllowed):
        await here.registry.keys.mint(RELAY, a_key(Kind.MASTER, project_id=project.id))


MALFORMED: dict[str, tuple[Kind, dict[str, Any], str]] = {
    "master without public key": (Kind.MASTER, {"public": None}, "public_key"),
    "master with half a public key": (Kind.MASTER, {"public": b"x" * 31}, "public_key"),
    "child with a public key": (Kind.CHILD, {"public": b"x" * 32}, "public_key"),
    "child without an end": (Kind.CHILD, {"expires_at": None}, "expiry"),
    "visitor without an end": (Kind.VISITOR, {"expires_at": None, "tunnel": "t"}, "expiry"),
    "child that is over": (Kind.CHILD, {"expires_at": NOW}, "expiry"),
    "child for ever": (Kind.CHILD, {"expires_at": float("inf")}, "expiry"),
    "child until never": (Kind.CHILD, {"expires_at": float("nan")}, "expiry"),
    "visitor without a tunnel": (Kind.VISITOR, {}, "tunnel"),
    "child with a tunnel": (Kind.CHILD, {"tunnel": "t"}, "tunnel"),
    "visitor of no name": (Kind.VISITOR, {"tunnel": "T"}, "scope_wider"),
    "no project": (Kind.CHILD, {"project_id": None}, "project"),
    "a label with a line's end": (Kind.CHILD, {"label": "a\nb"}, "label"),
    "a label without end": (Kind.CHILD, {"label": "a" * 201}, "label"),
}


async def test_a_malformed_wish_is_refused(here: World) -> None:
    """Each with a code of its own, and nothing is written."""
    project, _ = await here.project()
    for case, (kind, given, code) in MALFORMED.items():
        new = a_key(kind, **{"parent_id": here.operator.id, "project_id": project.id, **given})
        with pytest.raises(NotAllowed) as refused:
            await here.registry.keys.mint(here.by, new)
        assert refused.value.code == code, case
    assert await here.actions() == ["project.create", "key.mint"]


WIDER: dict[str, dict[str, Any]] = {
    "names": {"scope": Scope(("a*",), 2, 10, 1000)},
    "tunnels": {"scope": Scope(("ab*",), 3, 10, 1000)},
    "no tunnels": {"scope": Scope(("ab*",), None, 10, 1000)},
    "rate": {"scope": Scope(("ab*",), 2, 11, 1000)},
    "bandwidth": {"scope": Scope(("ab*",), 2, 10, None)},
    "expiry": {"scope": Scope(("ab*",), 2, 10, 1000), "expires_at": NOW + DAY + 1},
}


async def test_nothing_is_wider_than_its_parent(here: World) -> None:
    """In names, in any limit, in time."""
    _, master = await here.project(scope=Scope(("ab*",), 2, 10, 1000), expires_at=NOW + DAY)
    same = await here.child(master, scope=master.scope, expires_at=NOW + DAY)
    assert same.scope == master.scope
    for what, given in WIDER.items():
        with pytest.raises(NotAllowed) as refused:
            await here.child(master, **given)
        assert refused.value.code == ("expiry_later" if what == "expiry" else "scope_wider"), what


async def test_a_master_mints_in_its_own_project_only(here: World) -> None:
    """Whatever project it names."""
    _, master = await here.project()
    other, _ = await here.project("two")
    with pytest.raises(NotAllowed) as refused:
        await here.child(master, other.id)
    assert refused.value.code == "foreign_project"
    with pytest.raises(NotFound):
        await here.child(here.operator, "proj_unknown")
    with pytest.raises(NotFound):
        await here.registry.keys.mint(here.by, a_key(Kind.CHILD, parent_id=new_id(Kind.MASTER), project_id=other.id))


async def test_a_key_is_registered_once(here: World) -> None:
    """The same id again is a conflict, whatever else differs."""
    _, master = await here.project()
    child = await here.child(master)
    with pytest.raises(Conflict) as refused:
        await here.child(master, id=child.id)
    assert refused.value.code == "key_exists"


@pytest.mark.parametrize("dead", ["parent revoked", "parent expired", "grandparent revoked"])
async def test_nothing_is_minted_under_a_dead_key(dead: str, here: World) -> None:
    """Neither when the parent is dead nor when the parent lives under a dead one."""
    _, master = await here.project(expires_at=NOW + DAY if dead == "parent expired" else None)
    which = here.operator if dead == "grandparent revoked" else master
    if dead != "parent expired":
        await here.registry.keys.revoke(here.by, which.id, False)
    here.clock.advance(DAY)
    with pytest.raises(NotAllowed) as refused:
        await here.child(master, expires_at=NOW + DAY + 100)
    assert refused.value.code == ("key_expired" if dead == "parent expired" else "key_revoked")
    assert which.id in str(refused.value)


async def test_a_replaced_key_counts_as_its_successor_for_those_below(here: World) -> None:
    """Masters go on minting after their operator's key was rotated away, until the new one is dead too."""
    _, master = await here.project()
    done = await here.registry.keys.rotate(here.by, here.operator.id, b"n" * 32, new_id(Kind.OPERATOR), 10)
    assert done.record is not None
    here.clock.advance(DAY)
    assert (await here.child(master, expires_at=NOW + 2 * DAY)).parent_id == master.id
    await here.registry.keys.revoke(actor(done.record), done.record.id, False)
    with pytest.raises(NotAllowed):
        await here.child(master, expires_at=NOW + 2 * DAY)
    with pytest.raises(NotAllowed):  # the replaced key itself is over
        await here.child(here.operator, master.project_id, expires_at=NOW + 2 * DAY)


async def test_a_visitor_key_is_for_a_name_that_is_the_projects_or_nobodys(here: World) -> None:
    """Not for one that another project has, nor for one outside its parent's scope."""
    project, master = await here.project(scope=Scope(("mine*",)))
    other, _ = await here.project("two")
    await here.registry.subdomains.reserve(here.by, "mine1", project.id)
    await here.registry.subdomains.reserve(here.by, "mine2", other.id)

    async def mint(tunnel: str) -> str | None:
        new = a_key(Kind.VISITOR, parent_id=master.id, project_id=project.id, tunnel=tunnel, scope=master.scope)
        return (await here.registry.keys.mint(actor(master), new)).tunnel

    assert [await mint("mine1"), await mint("mine3")] == ["mine1", "mine3"]
    for tunnel, code in (("mine2", "name_taken"), ("others", "scope_wider")):
        with pytest.raises(NotAllowed) as refused:
            await mint(tunnel)
        assert refused.value.code == code


async def test_lists_are_filtered_and_paged(here: World) -> None:
    """By project, kind and state; every page in order, all of them together the whole."""
    project, master = await here.project()
    await here.project("two")
    short = [await here.child(master, expires_at=NOW + 10) for _ in range(5)]
    long = [await here.child(master) for _ in range(5)]
    await here.registry.keys.revoke(here.by, long[0].id, False)
    here.clock.advance(20)

    async def ids(which: KeyFilter) -> set[str]:
        found, cursor = [], None
        while True:
            page = await here.registry.keys.list(which, 2, cursor)
            assert len(page.items) <= 2
            found += [key.id for key in page.items]
            if (cursor := page.next_cursor) is None:
                assert len(found) == len(set(found))
                return set(found)

    assert await ids(KeyFilter(project.id, Kind.CHILD, "expired")) == {key.id for key in short}
    assert await ids(KeyFilter(project.id, Kind.CHILD, "valid")) == {key.id for key in long[1:]}
    assert await ids(KeyFilter(state="revoked")) == {long[0].id}
    assert await ids(KeyFilter(state="retired")) == set()
    assert await ids(KeyFilter(kind=Kind.OPERATOR)) == {here.operator.id}
    assert len(await ids(KeyFilter(project.id))) == 11
    assert len(await ids(KeyFilter())) == 13


async def test_keys_of_a_retired_signer_are_in_a_list_of_their_own(here: World) -> None:
    """They are not valid; one that has ended in another way as well, or whose signer is not known, is where it was."""
    _, master = await here.project()
    for kid in ("node_a", "node_b"):
        await here.registry.signers.add(kid, kid.encode() * 5 + b"xx", "host")
    old, new, unknown = [await here.child(master, signer=kid) for kid in ("node_a", "node_b", None)]
    revoked = await here.child(master, signer="node_a")
    expired = await here.child(master, signer="node_a", expires_at=NOW + 1)
    await here.registry.keys.revoke(here.by, revoked.id, False)
    here.clock.advance(2)
    assert (await here.registry.keys.get(old.id)).signer == "node_a"

    async def children(state: State) -> set[str]:
        return {one.id for one in (await here.registry.keys.list(KeyFilter(kind=Kind.CHILD, state=state))).items}

    assert await children("valid") == {old.id, new.id, unknown.id}
    await here.registry.signers.retire(here.by, "node_a")
    assert await children("valid") == {new.id, unknown.id}
    assert await children("retired") == {old.id}
    assert (await children("revoked"), await children("expired")) == ({revoked.id}, {expired.id})


async def test_lineage_and_find(here: World) -> None:
    """The ancestors from the top down to the key itself; of many ids those that are known."""
    _, master = await here.project()
    child = await here.child(master)
    assert await here.registry.keys.lineage(child.id) == [here.operator, master, child]
    assert await here.registry.keys.lineage(here.operator.id) == [here.operator]
    unknown = [new_id(Kind.CHILD) for _ in range(1200)]
    assert await here.registry.keys.find([*unknown, child.id]) == {child.id: child}
    assert await here.registry.keys.find([]) == {}
    for call in (here.registry.keys.lineage, here.registry.keys.get):
        with pytest.raises(NotFound):
            await call(new_id(Kind.CHILD))


async def test_a_whole_key_that_is_not_found_is_not_repeated(here: World) -> None:
    """What somebody took for an id may be a secret: the message has no more of it than its id."""
    from relay.keys.private import PrivateKey

    key = PrivateKey.generate(Kind.MASTER)
    with pytest.raises(NotFound) as missing:
        await here.registry.keys.get(key.text)
    assert key.id in str(missing.value)
    assert key.text not in str(missing.value)


async def test_masters_are_the_keys_that_sign(here: World) -> None:
    """Operator and master keys, living or not, and no key of another kind."""
    _, master = await here.project(expires_at=NOW + DAY)
    _, revoked = await here.project("two")
    await here.child(master)
    await here.registry.keys.revoke(here.by, revoked.id, True)
    here.clock.advance(DAY)
    found = {key.id: (key.public, key.state(here.clock.now())) for key in await here.registry.keys.masters()}
    assert found == {
        here.operator.id: (here.operator.public, "valid"),
        master.id: (master.public, "expired"),
        revoked.id: (revoked.public, "revoked"),
    }


async def test_last_use_only_goes_forward(here: World) -> None:
    """A batch notes when and from where; an older note changes nothing, an unknown key neither."""
    _, master = await here.project()
    await here.registry.keys.touch({master.id: (NOW + 5, "192.0.2.1"), new_id(Kind.CHILD): (NOW, "192.0.2.2")})
    await here.registry.keys.touch({master.id: (NOW + 4, "192.0.2.3"), here.operator.id: (NOW + 1, "::1")})
    await here.registry.keys.touch({})
    for key, at, address in ((master, NOW + 5, "192.0.2.1"), (here.operator, NOW + 1, "::1")):
        found = await here.registry.keys.get(key.id)
        assert (found.last_used_at, found.last_used_from) == (at, address)
    assert await here.actions() == ["project.create", "key.mint"]
