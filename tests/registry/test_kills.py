"""Programs that die in the middle: what was acknowledged is there, what was begun is whole or not at all.

RELAY_CHAOS=1 kills 50 times; the default kills a few times.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3

import pytest
from sqlalchemy import insert

from relay.keys.chain import GENESIS, digest
from relay.keys.forms import Kind
from relay.registry.rows import row_of_key
from relay.registry.schema import KEYS
from tests.registry.conftest import Writer
from tests.registry.world import NOW, World, a_key, world
from tests.support.longer import CHAOS

KILLS = 50 if CHAOS else 3
TREE = 500

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600 if CHAOS else 120)]


async def is_sound(here: World) -> None:
    """The database's own check passes, and the chain leads to the ledger's end."""
    if here.url.startswith("sqlite"):
        connection = sqlite3.connect(here.url.removeprefix("sqlite:///"))
        try:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        finally:
            connection.close()
    previous, last = GENESIS, 0
    for row, hash in await here.registry.audit.read(0, 1_000_000):
        assert row.seq == last + 1
        previous, last = digest(previous, row), row.seq
        assert hash == previous
    assert await here.registry.audit.head() == (last, previous)


async def test_killed_while_writing(database_url: str, program: Writer) -> None:
    """After each kill every acknowledged key is there, with its row in the audit, and so is nothing without one."""
    rng = random.Random(1)
    async with world(database_url) as here:
        await here.project()
        acknowledged: set[str] = set()
        for _ in range(KILLS):
            pid = await program.order("write", database_url)
            for _ in range(rng.randint(1, 12)):
                acknowledged.add(await program.answer())
            os.kill(pid, signal.SIGKILL)
            while (line := await program.answer()) != "killed":
                acknowledged.add(line)
            audited = {row.subject for row, _ in await here.registry.audit.read(0, 1_000_000)}
            assert acknowledged <= audited
            found = await here.registry.keys.find(audited)
            assert {one for one in audited if one.startswith("mtk_")} == set(found)
            await is_sound(here)
            await here.registry.signers.add(f"node_{len(acknowledged)}", b"x" * 32, "host")


async def test_killed_while_revoking(database_url: str, program: Writer) -> None:
    """Killed at each of its steps in turn: the whole tree is revoked, with a row in the audit, or nothing of it is."""
    async with world(database_url) as here:
        _, master = await here.project()
        child = row_of_key(await here.child(master, expires_at=NOW + 1e9))
        async with here.database.writing() as write:
            await write.run(insert(KEYS), [{**child, "id": a_key(Kind.CHILD).id} for _ in range(TREE)])
        step, killed = 0, 0
        while True:
            await program.order(f"revoke {master.id} {step}", database_url)
            how = await program.answer()
            await is_sound(here)
            revoked = len(await here.registry.changes.revoked_since(0))
            audited = "key.revoke" in await here.actions()
            assert (revoked, audited) in {(0, False), (TREE + 2, True)}
            if how == "done":
                break
            killed += 1
            assert revoked == 0
            step += 1 if CHAOS else 4
        assert killed >= 3
        assert revoked == TREE + 2
