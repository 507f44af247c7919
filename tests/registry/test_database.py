"""Transactions: cancelled anywhere they leave nothing, and every wait has its end, whatever the database does."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from sqlalchemy import event, text

from relay.keys.forms import Kind, new_id
from relay.registry import Conflict, Database, KeyFilter, Limits, NotFound, RegistryError, Unavailable, migrate
from relay.registry.dialects import LATE, LOCKED
from tests.registry.test_audit import execute, note
from tests.registry.world import World, a_key, world
from tests.support.databases import Postgres
from tests.support.longer import CHAOS
from tests.support.postgres import Server

SHORT = Limits(connect=0.5, statement=0.5, lock=0.3, readers=2)
SOON = 5.0


def pools(database: Database) -> list[Any]:
    """The writer's and the readers', which tests look into and nobody else does."""
    return [database._writer.sync_engine, database._readers.sync_engine]


async def is_whole(here: World) -> None:
    """Every connection was given back, and reading and writing go on."""
    async with asyncio.timeout(SOON):
        while here.database._endings:
            await asyncio.wait(here.database._endings)
    assert [engine.pool.checkedout() for engine in pools(here.database)] == [0, 0]
    seq, _ = await here.registry.audit.head()
    await here.registry.signers.add(f"node_{seq}", b"s" * 32, "host")
    assert (await here.registry.audit.head())[0] == seq + 1


# ------------------------------------------------------------------------------------------------ cancellation


COUNTED = ("checkout", "begin", "before_cursor_execute", "commit")


class Canceller:
    """Cancels a task when its database gets the statement of this number; a commit counts as the last one."""

    def __init__(self, here: World, number: int) -> None:
        self._left = number
        self.task: asyncio.Task[Any] | None = None
        self.hit = False
        self._engines = pools(here.database)
        for engine in self._engines:
            for name in COUNTED:
                event.listen(engine, name, self._count)

    def _count(self, *_: object) -> None:
        if self._left == 0 and self.task is not None and not self.hit:
            self.hit = True
            self.task.cancel()
        self._left -= 1

    def end(self) -> None:
        for engine in self._engines:
            for name in COUNTED:
                event.remove(engine, name, self._count)


async def cancelled_at(here: World, number: int, work: Coroutine[Any, Any, Any]) -> bool:
    """Does the work, cancelled at a statement; whether there was one of that number."""
    canceller = Canceller(here, number)
    canceller.task = asyncio.create_task(work)
    try:
        async with asyncio.timeout(SOON):
            await asyncio.wait({canceller.task})
    finally:
        canceller.end()
    if canceller.hit:
        assert canceller.task.cancelled()
    else:
        canceller.task.result()
    return canceller.hit


async def test_a_cancelled_change_is_made_or_not(here: World) -> None:
    """Cancelled at each of its statements in turn: nothing of it is there, or all; no connection is lost."""
    _, master = await here.project()
    number = 0
    while True:
        child = a_key(Kind.CHILD, parent_id=master.id, project_id=master.project_id)
        before, _ = await here.registry.audit.head()
        hit = await cancelled_at(here, number, here.registry.keys.mint(here.by, child))
        await is_whole(here)
        try:
            await here.registry.keys.get(child.id)
            made = True
        except NotFound:
            made = False
        rows = [row.subject for row, _ in await here.registry.audit.read(before)]
        assert (child.id in rows) == made
        if not hit:
            assert made
            break
        number += 1
    assert number >= 6


async def test_a_cancelled_reader_gives_its_connection_back(here: World) -> None:
    """More often than there are connections."""
    for _ in range(6):
        assert await cancelled_at(here, 1, here.registry.keys.list(KeyFilter()))
    await is_whole(here)


async def test_a_body_that_fails_rolls_back(here: World) -> None:
    """Whatever the exception; it comes out as it is."""
    for error in (KeyError("x"), OSError(28, "x"), asyncio.CancelledError(), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised:
            async with here.database.writing() as write:
                write.ledger.keys_seq += 1
                await write.run(text("DELETE FROM keys"))
                raise error
        assert raised.value is error
        await is_whole(here)
    await here.registry.keys.get(here.operator.id)


# ------------------------------------------------------------------------------------------------ waiting


@asynccontextmanager
async def locked(url: str) -> AsyncIterator[None]:
    """Another program holds the ledger."""
    if url.startswith("sqlite"):
        other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.close()
    else:
        connection = await asyncpg.connect(url)
        try:
            async with connection.transaction():
                await connection.execute("SELECT * FROM ledger FOR UPDATE")
                yield
        finally:
            await connection.close()


async def test_who_waits_too_long_for_the_lock_is_told(database_url: str) -> None:
    """A writer in another program: after the deadline each waiter hears of it; readers are not stopped."""
    async with world(database_url, SHORT) as here:
        async with locked(database_url):
            began = time.monotonic()
            changes = [here.registry.audit.record([note()]) for _ in range(3)]
            results = await asyncio.gather(*changes, return_exceptions=True)
            assert time.monotonic() - began < SOON
            assert [str(one) for one in results] == [LOCKED] * 3
            assert (await here.registry.keys.get(here.operator.id)).id == here.operator.id
        await is_whole(here)


async def test_who_is_cancelled_while_waiting_for_the_lock_is_gone(here: World) -> None:
    """At once, and its turn does not come later."""
    begun = asyncio.Event()
    event.listen(here.database._writer.sync_engine, "checkout", lambda *_: begun.set())
    async with locked(here.url):
        task = asyncio.create_task(here.registry.signers.add("node_late", b"l" * 32, "host"))
        await begun.wait()
        task.cancel()
        async with asyncio.timeout(SOON):
            await asyncio.wait({task})
        assert task.cancelled()
    await is_whole(here)
    assert "node_late" not in {one.kid for one in await here.registry.signers.all()}


SLOW = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8000000) SELECT max(i) FROM n",
    "postgresql": "SELECT pg_sleep(1.5)",
}


async def test_a_slow_statement_is_given_up(database_url: str) -> None:
    """After its deadline, even where the driver cannot stop it; the next ones have other connections."""
    async with world(database_url, SHORT) as here:
        began = time.monotonic()
        with pytest.raises(Unavailable) as late:
            async with here.database.reading() as read:
                await read.rows(text(SLOW[here.database.dialect]))
        assert str(late.value) == LATE
        assert time.monotonic() - began < 1.4
        await here.registry.keys.get(here.operator.id)
        await is_whole(here)


async def test_more_readers_than_connections_wait_their_turn(database_url: str) -> None:
    """And who waits too long is told."""
    async with world(database_url, SHORT) as here:
        ids = [here.registry.keys.get(here.operator.id) for _ in range(30)]
        assert len(await asyncio.gather(*ids)) == 30
        async with here.database.reading(), here.database.reading():
            with pytest.raises(Unavailable):
                await here.registry.keys.get(here.operator.id)
        await is_whole(here)


async def test_writers_come_in_order(here: World) -> None:
    """First come, first served."""
    order: list[int] = []

    async def write(number: int) -> None:
        async with here.database.writing():
            order.append(number)

    await asyncio.gather(*(write(number) for number in range(20)))
    assert order == list(range(20))


async def test_a_reader_sees_one_moment(here: World) -> None:
    """What is committed between two of its queries, it does not see."""
    count = text("SELECT count(*) FROM audit")
    async with here.database.reading() as read:
        before = await read.rows(count)
        await here.registry.signers.add("node_x", b"x" * 32, "host")
        assert await read.rows(count) == before
        with pytest.raises(RegistryError):
            await read.rows(text("DELETE FROM keys"))
    await here.registry.keys.get(here.operator.id)


# ------------------------------------------------------------------------------------------------ a database away


async def test_a_database_that_goes_away_and_comes_back(fresh_postgres_url: str, postgres: Postgres) -> None:
    """Meanwhile every call says so, in a sentence; then all goes on, without a new start."""
    async with world(fresh_postgres_url, SHORT) as here:
        postgres.away(fresh_postgres_url)
        for call in (here.registry.changes.position, lambda: here.registry.signers.add("n", b"x" * 32, "h")):
            with pytest.raises(Unavailable) as away:
                await call()
            assert str(away.value).endswith(".")
            assert fresh_postgres_url not in str(away.value)
        postgres.back(fresh_postgres_url)
        await is_whole(here)


async def test_connections_cut_in_the_middle_of_a_change(postgres_url: str, postgres: Postgres) -> None:
    """The change fails and is not there; the next one has a connection that works."""
    async with world(postgres_url) as here:
        with pytest.raises(Unavailable):
            async with here.database.writing() as write:
                await write.run(text("UPDATE keys SET label = 'half'"))
                await execute(
                    postgres_url,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()",
                )
        assert (await here.registry.keys.get(here.operator.id)).label == ""
        await is_whole(here)


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """A server that holds its connections and says nothing."""
    assert server.process is not None
    processes = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


@pytest.mark.chaos
@pytest.mark.skipif(not CHAOS, reason="the two tests above are the short version")
async def test_a_server_that_is_restarted() -> None:
    """A relay lives through it, and through one that hangs: meanwhile calls fail in time, after it they work."""
    directory = Path(tempfile.mkdtemp(prefix="relay-pg-"))
    server = Server(directory)
    await asyncio.to_thread(server.start)
    try:
        await asyncio.to_thread(migrate.ensure, server.url)
        async with world(server.url, SHORT) as here:
            await is_whole(here)
            await asyncio.to_thread(server.stop)
            with pytest.raises(Unavailable):
                await here.registry.changes.position()
            with pytest.raises(Unavailable):
                await here.registry.keys.touch({here.operator.id: (1.0, "")})
            await asyncio.to_thread(server.start)
            await is_whole(here)
            with frozen(server):
                for call in (here.registry.changes.position, here.registry.signers.all):
                    began = time.monotonic()
                    with pytest.raises(Unavailable):
                        await call()
                    assert time.monotonic() - began < 2
            await is_whole(here)
    finally:
        await asyncio.to_thread(server.stop)
        shutil.rmtree(directory)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////nonexistent/relay.db",
        "postgresql://relay:canary@127.0.0.1:1/relay",
        "postgresql://relay:canary@nowhere.invalid/relay",
        "postgresql://relay:canary@127.0.0.1:nan/relay",
        "postgresql://relay:canary@127.0.0.1:1/relay?sslmode=canary",
        "mysql://relay:canary@db/relay",
        "sqlite://",
        "sqlite:///:memory:",
        "canary",
        "",
    ],
)
async def test_a_database_that_cannot_be_opened(url: str) -> None:
    """A sentence, without the password; and no file is made."""
    with pytest.raises(RegistryError) as refused:
        await Database.open(url, SHORT)
    assert "canary" not in str(refused.value)
    assert str(refused.value).endswith(".")


async def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    """Only a migration makes a database."""
    with pytest.raises(Unavailable):
        await Database.open(f"sqlite:///{tmp_path}/relay.db", SHORT)
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_is_taken_away_is_not_written_to(sqlite_url: str) -> None:
    """What an open connection would write to it would be lost; put back, all goes on."""
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    async with world(sqlite_url) as here:
        elsewhere = file.with_name("elsewhere")
        file.rename(elsewhere)
        for _ in range(2):
            with pytest.raises(Unavailable, match="not the one any more"):
                await here.registry.audit.head()
            with pytest.raises(Unavailable, match="not the one any more"):
                await here.registry.signers.add("node_x", b"s" * 32, "host")
            shutil.copyfile(elsewhere, file)
        elsewhere.replace(file)
        await is_whole(here)


async def test_errors_hold_nothing_of_what_was_sent(here: World, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the message nor a traceback nor a log has a label, an id or a query."""
    caplog.set_level(logging.DEBUG, "sqlalchemy")
    _, master = await here.project()
    twice = a_key(Kind.CHILD, parent_id=master.id, project_id=master.project_id, label="canary-label")
    await here.registry.keys.mint(here.by, twice)
    with pytest.raises(Conflict) as refused:
        await here.registry.keys.mint(here.by, twice)
    with pytest.raises(Conflict) as plain:
        async with here.database.writing() as write:
            await write.run(text("INSERT INTO signers VALUES ('canary', :key, 'canary', 0, NULL)"), {"key": b"canary"})
            await write.run(text("INSERT INTO signers VALUES ('canary', :key, 'canary', 0, NULL)"), {"key": b"canary"})
    for error in (refused.value, plain.value):
        said = str(error) + "".join(one for one in traceback.format_exception(error) if "canary-label" in one)
        assert "canary" not in said
        assert "INSERT" not in str(error)
    assert "canary-label" not in caplog.text
    assert await here.registry.keys.find([new_id(Kind.CHILD)]) == {}
