"""A copy of the database that is made while a relay serves and mints: whole, and closed to others."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.keys import Api
from tests.support.processes import RelayProcess
from tests.system.docpages import call, public_id

pytestmark = pytest.mark.asyncio


@contextlib.asynccontextmanager
async def writers(api: Api) -> AsyncIterator[asyncio.Queue[str]]:
    """The keys that two writers mint, without a break."""
    minted: asyncio.Queue[str] = asyncio.Queue()

    async def mint() -> None:
        while True:
            minted.put_nowait(await api.mint())

    tasks = [asyncio.create_task(mint()) for _ in range(2)]
    try:
        yield minted
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


async def taken(minted: asyncio.Queue[str], at_least: int) -> list[str]:
    """All keys that were minted and not taken yet, which are so many at least."""
    async with asyncio.timeout(20):
        first = [await minted.get() for _ in range(at_least)]
    return first + [minted.get_nowait() for _ in range(minted.qsize())]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        yield connection


def minted_in(copy: Path) -> set[str]:
    """The ids of the child keys in a copy, which is one file, closed to others, and sound."""
    assert copy.stat().st_mode & 0o777 == 0o600
    assert not list(copy.parent.glob(f"{copy.name}-*"))
    with opened(copy) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        keys = {str(row[0]) for row in database.execute("SELECT id FROM keys WHERE kind = 'child'")}
        rows = database.execute("SELECT subject FROM audit WHERE action = 'key.mint' AND subject LIKE 'mtk_child_%'")
        assert {str(row[0]) for row in rows} == keys
        broken = "SELECT * FROM audit AS a JOIN audit AS b ON b.seq = a.seq + 1 WHERE b.previous <> a.hash"
        assert database.execute(broken).fetchall() == []
    return keys


async def test_a_copy_while_a_relay_mints(tmp_path: Path) -> None:
    """It has all that was answered before it began and nothing halfway: each key stands in the audit, none without."""
    async with RelayProcess(tmp_path / "data") as relay:
        master = await relay.api.create_project("mcp-server")
        environment = {"RELAY_DATA": str(relay.data), "HOME": str(tmp_path)}
        copy = tmp_path / "copy.db"
        async with writers(master) as minted:
            before = await taken(minted, 5)
            code, said = await asyncio.to_thread(call, ["db", "backup", str(copy)], environment, b"")
            assert (code, said) == (0, f"Copied the database to {copy}.\n")
            await taken(minted, 0)
            after = await taken(minted, 3)  # two may have been on their way
    inside = minted_in(copy)
    assert {public_id(key) for key in before} <= inside
    assert public_id(after[-1]) not in inside
