"""The audit: chained, only added to, and the condition of every change."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import asyncpg
import pytest

from relay.keys.chain import GENESIS, digest
from relay.keys.times import text_of
from relay.registry import Action, Actor, Conflict, NotAllowed, Note, NotFound, Signer, Unavailable
from tests.registry.world import NOW, World, a_key, actor, world
from tests.support.databases import apart


async def execute(url: str, statement: str) -> None:
    """Straight at the database, as somebody with its password would."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        try:
            connection.execute(statement)
        finally:
            connection.close()
        return

    async def work() -> None:
        other = await asyncpg.connect(url)
        try:
            await other.execute(statement)
        finally:
            await other.close()

    await asyncio.to_thread(apart, work)


def note(subject: str = "a", **given: Any) -> Note:
    """Something that happened."""
    return Note(Actor("mtk_child_x", ("mtk_master_y",), "192.0.2.1"), Action.TUNNEL_OPEN, subject, **given)


async def test_the_rows_are_a_chain(here: World) -> None:
    """Each hash covers the row and the hash before, from the first row on, through changes and notes alike."""
    _, master = await here.project()
    await here.registry.audit.record([note("a", details={"ü": [1, 2.5, None, "\0\ud800"]}), note("b", at=NOW - 1.5)])
    await here.registry.keys.revoke(here.by, master.id, True)
    entries = await here.registry.audit.read(0, 100)
    assert [row.seq for row, _ in entries] == list(range(1, 7))
    previous = GENESIS
    for row, hash in entries:
        previous = digest(previous, row)
        assert hash == previous
    assert await here.registry.audit.head() == (6, previous)
    told = entries[3][0]
    assert (told.actor, told.lineage, told.address) == ("mtk_child_x", ("mtk_master_y",), "192.0.2.1")
    assert told.details == {"ü": [1, 2.5, None, r"\0\ud800"]}
    assert (told.at, entries[4][0].at) == (text_of(NOW), text_of(NOW - 1.5))
    assert [row.seq for row, _ in await here.registry.audit.read(4, 1)] == [5]
    await here.registry.audit.record([])
    assert (await here.registry.audit.head())[0] == 6


async def test_a_new_registry_has_no_row(database_url: str) -> None:
    """Its chain begins at the well-known hash."""
    from relay.registry import Database, Registry

    database = await Database.open(database_url)
    try:
        assert await Registry(database, lambda: NOW).audit.head() == (0, GENESIS)
    finally:
        await database.close()


REWRITES = {
    "edit": "UPDATE audit SET subject = 'x' WHERE seq = 1",
    "edit all": "UPDATE audit SET actor = ''",
    "delete": "DELETE FROM audit WHERE seq = 2",
    "delete all": "DELETE FROM audit",
    "overwrite": "INSERT INTO audit SELECT seq, 'x', actor, lineage, action, subject, project, address, details,"
    " previous, hash FROM audit WHERE seq = 1 ON CONFLICT (seq) DO UPDATE SET at = 'x'",
}


async def test_the_database_itself_refuses_to_rewrite_a_row(here: World) -> None:
    """Whoever holds the connection: edit, delete and overwrite fail, and the rows are what they were."""
    await here.project()
    before = await here.registry.audit.read()
    sqlite = here.url.startswith("sqlite")
    other = "INSERT OR REPLACE INTO audit VALUES (1,'','','','','','','','','','')" if sqlite else "TRUNCATE audit"
    for how in (*REWRITES.values(), other):
        with pytest.raises((sqlite3.IntegrityError, asyncpg.RaiseError)) as refused:
            await execute(here.url, how)
        assert "append-only" in str(refused.value), how
    assert await here.registry.audit.read() == before


async def every_change(here: World) -> dict[str, Any]:
    """One call of each change there is, ready to be made."""
    project, master = await here.project()
    child = await here.child(master)
    other, _ = await here.project("two")
    await here.registry.subdomains.reserve(here.by, "held", project.id)
    await here.registry.signers.add("node_0", b"0" * 32, "host")
    registry = here.registry
    return {
        "projects.create": lambda: here.project("three"),
        "projects.default": lambda: registry.projects.default(here.by),
        "projects.give_plan": lambda: registry.projects.give_plan(here.by, project.id, "small"),
        "projects.delete": lambda: registry.projects.delete(here.by, project.id),
        "keys.mint": lambda: here.child(master),
        "keys.revoke": lambda: registry.keys.revoke(here.by, master.id, True),
        "keys.rotate": lambda: registry.keys.rotate(here.by, master.id, b"x" * 32, "mtk_master_" + "0" * 12, 1.0),
        "subdomains.claim": lambda: registry.subdomains.claim(actor(child), ["free"], child),
        "subdomains.reserve": lambda: registry.subdomains.reserve(here.by, "free2", project.id),
        "subdomains.release": lambda: registry.subdomains.release(here.by, "held"),
        "subdomains.move": lambda: registry.subdomains.move(here.by, "held", other.id),
        "signers.retire": lambda: registry.signers.retire(here.by, "node_0"),
        "signers.add": lambda: registry.signers.add("node_x", b"x" * 32, "host"),
        "audit.record": lambda: registry.audit.record([note()]),
    }


async def everything(here: World) -> list[Any]:
    """All that the registry holds."""
    registry = here.registry
    return [
        await registry.projects.list(), await registry.keys.list(), await registry.subdomains.list(),
        await registry.signers.all(), await registry.audit.read(), await registry.audit.head(),
        await registry.changes.position(),
    ]  # fmt: skip


async def test_what_cannot_be_audited_is_not_done(fresh_url: str) -> None:
    """Each change, while the audit takes no row, is refused and leaves nothing; when it does again, it is made."""
    async with world(fresh_url) as here:
        changes = await every_change(here)
        before = await everything(here)
        if fresh_url.startswith("sqlite"):
            fail = "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END"
            mend = "DROP TRIGGER full"
        else:
            fail, mend = (
                "ALTER TABLE audit ADD CONSTRAINT broken CHECK (seq < 0) NOT VALID",
                ("ALTER TABLE audit DROP CONSTRAINT broken"),
            )
        await execute(fresh_url, fail)
        for name, change in changes.items():
            with pytest.raises(Unavailable) as refused:
                await change()
            assert "audit" in str(refused.value), name
            assert await everything(here) == before, name
        await execute(fresh_url, mend)
        for name in ("keys.mint", "subdomains.move", "projects.default", "audit.record", "keys.revoke"):
            await changes[name]()
        assert (await here.registry.audit.head())[0] == before[5][0] + 5


async def test_every_change_is_audited(here: World) -> None:
    """One or more rows each, and none without a change."""
    seen = set()
    for name, change in (await every_change(here)).items():
        if name in {"projects.delete", "keys.revoke", "subdomains.release"}:
            continue  # they would take the ground from under the others
        before = await here.registry.audit.head()
        await change()
        assert await here.registry.audit.head() != before, name
        seen |= {row.action for row, _ in await here.registry.audit.read(before[0])}
    assert seen == {
        "project.create", "key.mint", "key.rotate", "subdomain.claim", "subdomain.reserve", "subdomain.move",
        "signer.add", "signer.retire", "tunnel.open", "project.plan",
    }  # fmt: skip


async def test_signers(here: World) -> None:
    """Added once, found by everybody, never replaced."""
    await here.registry.signers.add("node_a", b"a" * 32, "host-a")
    before = await here.registry.audit.head(), await here.registry.changes.position()
    await here.registry.signers.add("node_a", b"a" * 32, "host-b")
    assert (await here.registry.audit.head(), await here.registry.changes.position()) == before
    with pytest.raises(Conflict):
        await here.registry.signers.add("node_a", b"b" * 32, "host-a")
    here.clock.advance(1)
    await here.registry.signers.add("node_b", b"b" * 32, "host-b")
    assert await here.registry.signers.all() == [
        Signer("node_a", b"a" * 32, "host-a", NOW, None), Signer("node_b", b"b" * 32, "host-b", NOW + 1, None),
    ]  # fmt: skip
    assert (await here.registry.changes.position()).keys_seq == before[1].keys_seq + 1


async def test_a_signer_is_retired_once_and_for_ever(here: World) -> None:
    """It stays in the list, with its end; whoever polls learns of it; it cannot be added again."""
    await here.registry.signers.add("node_a", b"a" * 32, "host")
    before = await here.registry.changes.position()
    here.clock.advance(1)
    assert await here.registry.signers.retire(here.by, "node_a")
    assert (await here.registry.changes.position()).keys_seq == before.keys_seq + 1
    assert [one.retired_at for one in await here.registry.signers.all()] == [NOW + 1]
    row = await here.last()
    assert (row.action, row.actor, row.subject) == ("signer.retire", here.operator.id, "node_a")
    assert not await here.registry.signers.retire(here.by, "node_a")
    assert await here.last() == row
    with pytest.raises(Conflict):
        await here.registry.signers.add("node_a", b"a" * 32, "host")
    with pytest.raises(NotFound):
        await here.registry.signers.retire(here.by, "node_b")


STRANGE = "a\0b\ud800c"
PLAIN = r"a\0b\ud800c"


async def test_a_strange_text_is_no_reason_to_write_nothing(here: World) -> None:
    """What not every database stores is escaped, wherever it stands; the rows beside it, and the chain, are whole."""
    told = Note(Actor(STRANGE, (STRANGE,), STRANGE), Action.TUNNEL_OPEN, STRANGE, STRANGE, {STRANGE: [STRANGE, 1]})
    await here.registry.audit.record([note("before"), told, note("after")])
    before, row, after = (row for row, _ in await here.registry.audit.read(1))
    assert (before.subject, after.subject) == ("before", "after")
    assert (row.actor, row.lineage, row.address, row.subject, row.project) == (PLAIN, (PLAIN,), PLAIN, PLAIN, PLAIN)
    assert row.details == {PLAIN: [PLAIN, 1]}
    [(_, previous), (_, hash), _] = await here.registry.audit.read(1)
    assert digest(previous, row) == hash


async def test_a_note_that_can_never_be_a_row(here: World) -> None:
    """Is told apart from a registry that is away: it would be refused for ever."""
    for details in ({"a": float("nan")}, {"a": {1, 2}}, {"a": b"x"}):
        with pytest.raises(NotAllowed) as refused:
            await here.registry.audit.record([note("a"), note("b", details=details)])
        assert refused.value.code == "note"
    assert await here.actions() == []


async def test_a_refused_change_leaves_no_row(here: World) -> None:
    """What was not done is not in the audit."""
    before = await here.registry.audit.head()
    with pytest.raises(NotFound):
        await here.registry.keys.revoke(here.by, a_key(here.operator.kind).id, True)
    assert await here.registry.audit.head() == before
