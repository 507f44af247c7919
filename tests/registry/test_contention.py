"""Many writers, and a disk without room: everybody is served or told, nobody is lost."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from relay.registry import Action, Database, Note, Registry, Unavailable, migrate
from relay.registry.dialects import FULL
from tests.registry.conftest import Writer
from tests.registry.test_audit import note
from tests.registry.test_kills import is_sound
from tests.registry.world import World, world
from tests.support.longer import CHAOS

WRITERS = 64
EACH = 40 if CHAOS else 1

pytestmark = pytest.mark.chaos


async def test_many_writers_and_another_program(database_url: str, program: Writer) -> None:
    """64 at once beside a second program that writes without a pause: every change of both is made, none is refused."""
    async with world(database_url) as here:
        await here.project()
        pid = await program.order("write", database_url)
        theirs = [await program.answer()]

        async def write(number: int) -> None:
            for each in range(EACH):
                await here.registry.audit.record([note(f"{number}-{each}")])

        async def listen() -> None:
            while (line := await program.answer()) != "killed":
                theirs.append(line)

        listening = asyncio.create_task(listen())
        await asyncio.gather(*(write(number) for number in range(WRITERS)))
        os.kill(pid, 9)
        await listening
        subjects = {row.subject for row, _ in await here.registry.audit.read(0, 1_000_000)}
        assert {f"{number}-{each}" for number in range(WRITERS) for each in range(EACH)} <= subjects
        assert set(theirs) <= subjects
        assert len(theirs) > 1
        await is_sound(here)


async def test_several_pools_on_one_database(database_url: str) -> None:
    """As several nodes, or a relay and its successor during a take-over."""
    async with world(database_url) as here:
        databases = [await Database.open(database_url) for _ in range(4)]
        try:
            registries = [Registry(one, here.clock) for one in databases]
            await asyncio.gather(*(one.audit.record([note(f"{each}")]) for one in registries for each in range(10)))
        finally:
            for one in databases:
                await one.close()
        await is_sound(here)
        assert (await here.registry.audit.head())[0] == 41


async def fills_up(here: World, path: Path | None = None) -> int:
    """Writes until it is refused; how many rows were acknowledged."""
    much = Note(here.by, Action.TUNNEL_OPEN, "a", details={"much": "x" * 20_000})
    written, _ = await here.registry.audit.head()
    refused = 0
    while refused < 3:
        try:
            await here.registry.audit.record([much])
            written += 1
        except Unavailable as error:
            assert str(error), path
            refused += 1
        assert written < 10_000
    return written


async def test_a_full_database(sqlite_url: str) -> None:
    """Refused in a sentence, again and again; reading goes on; with room it is writing as well."""
    async with world(sqlite_url) as here:
        pages: list[int] = [200]

        def limit(connection: object, *_: object) -> None:
            cursor = connection.cursor()  # type: ignore[attr-defined]
            cursor.execute(f"PRAGMA max_page_count={pages[0]}")
            cursor.close()

        event.listen(here.database._writer.sync_engine, "checkout", limit)
        written = await fills_up(here)
        await is_sound(here)
        assert (await here.registry.audit.head())[0] == written
        pages[0] = 2**30
        await here.registry.audit.record([note("again")])
        assert (await here.registry.audit.head())[0] == written + 1
        await is_sound(here)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 2 MB; only root can make one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user cannot mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def test_a_full_disk(small_disk: Path) -> None:
    """The same where the disk itself has no room: nothing acknowledged is lost, and room is all it takes to go on."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 900_000)
    url = f"sqlite:///{small_disk}/relay.db"
    await asyncio.to_thread(migrate.ensure, url)
    async with world(url) as here:
        written = await fills_up(here)
        assert (await here.registry.audit.head())[0] == written
        with pytest.raises(Unavailable) as full:
            await here.registry.audit.record([Note(here.by, Action.TUNNEL_OPEN, "a", details={"x": "x" * 10**6})])
        assert FULL in str(full.value) or "audit" in str(full.value)
        ballast.unlink()
        await here.registry.audit.record([note("again")])
        await is_sound(here)
        assert (await here.registry.audit.head())[0] == written + 1


async def test_a_limit_for_the_size_of_files(sqlite_url: str, program: Writer) -> None:
    """A write that the system refuses: the same, for a program without rights to mount anything."""
    async with world(sqlite_url) as here:
        before, _ = await here.registry.audit.head()
        await program.order("limited", sqlite_url)
        refused = [await program.answer() for _ in range(3)]
        assert all(line.startswith("refused ") and line.endswith(".") for line in refused)
        written = int((await program.answer()).removeprefix("written "))
        assert await program.answer() == "done"
        assert (await here.registry.audit.head())[0] == before + written
        assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
        await is_sound(here)
