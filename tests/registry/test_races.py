"""Two programs at once: whatever the order, no rule of the registry is broken.

Both are of this process, with a pool and a queue of their own, so they meet in the database only.
1,000 times here, 10,000 with RELAY_CHAOS=1.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy import insert, text

from relay.keys.forms import Kind, new_id
from relay.registry import Database, KeyRecord, NotAllowed, Registry
from relay.registry.rows import row_of_key
from relay.registry.schema import KEYS
from tests.registry.world import World, a_key, actor
from tests.support.longer import CHAOS

MINTS = 10
ROUNDS = 1000 if CHAOS else 100
NAMES = 1000 if CHAOS else 100

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800 if CHAOS else 120)]

LIVING_UNDER_DEAD = text(
    "SELECT count(*) FROM keys AS child JOIN keys AS parent ON child.parent_id = parent.id "
    "WHERE child.revoked_at IS NULL AND parent.revoked_at IS NOT NULL"
)


@pytest.fixture
async def other(here: World) -> AsyncIterator[Registry]:
    """The second program."""
    database = await Database.open(here.url)
    try:
        yield Registry(database, here.clock)
    finally:
        await database.close()


async def test_minting_against_revoking(here: World, other: Registry) -> None:
    """While some mint under a key another one revokes it and all below: no descendant is left alive, ever."""
    project, first = await here.project()
    masters = [replace(first, id=new_id(Kind.MASTER), public=secrets.token_bytes(32)) for _ in range(ROUNDS)]
    async with here.database.writing() as write:
        await write.run(insert(KEYS), [row_of_key(one) for one in masters])
    seen: Counter[str] = Counter()

    async def mint(registry: Registry, master: KeyRecord) -> None:
        try:
            await registry.keys.mint(actor(master), a_key(Kind.CHILD, parent_id=master.id, project_id=project.id))
        except NotAllowed as refused:
            assert refused.code == "key_revoked"
            seen["refused"] += 1
        else:
            seen["minted"] += 1

    rng = random.Random(1)

    async def revoke(master: KeyRecord) -> None:
        await other.keys.revoke(here.by, master.id, True)

    for master in masters:
        work = [mint(registry, master) for registry in (here.registry, other) for _ in range(MINTS // 2)]
        work.insert(rng.randrange(MINTS), revoke(master))
        await asyncio.gather(*work)
    assert seen["refused"] > 0
    assert seen["minted"] > 0
    async with here.database.reading() as read:
        assert [tuple(row) for row in await read.rows(LIVING_UNDER_DEAD)] == [(0,)]


async def test_two_projects_want_one_name(here: World, other: Registry) -> None:
    """One has it afterwards, the other one was refused; and it is the one that was told so."""
    children = []
    for name in ("one", "two"):
        _, master = await here.project(name)
        children.append(await here.child(master))
    winners: Counter[str | None] = Counter()

    async def claim(registry: Registry, child: KeyRecord, name: str) -> str | None:
        try:
            await registry.subdomains.claim(actor(child), [name], child)
        except NotAllowed as refused:
            assert refused.code == "name_taken"
            return None
        return child.project_id

    for start in range(0, NAMES, 10):
        names = [f"n{number}" for number in range(start, start + 10)]
        mine = [claim(here.registry, children[0], name) for name in names]
        theirs = [claim(other, children[1], name) for name in names]
        results = await asyncio.gather(*mine, *theirs)
        owners = await here.registry.subdomains.owners()
        for name, *told in zip(names, results[:10], results[10:], strict=True):
            assert [one for one in told if one is not None] == [owners[name]]
            winners[owners[name]] += 1
    assert len(winners) == 2
    assert sum(winners.values()) == NAMES


async def test_two_make_the_same(here: World, other: Registry) -> None:
    """The default project is made once, a project's name is given once, a key is rotated once for a version."""
    made = await asyncio.gather(
        *(registry.projects.default(here.by) for registry in (here.registry, other) for _ in range(3))
    )
    assert len({project.id for project in made}) == 1
    _, master = await here.project()
    rotated = await asyncio.gather(
        *(
            registry.keys.rotate(
                here.by, master.id, secrets.token_bytes(32), new_id(Kind.MASTER), 10.0, token_version=1
            )
            for registry in (here.registry, other)
        )
    )
    assert sorted(one.record is None for one in rotated) == [False, True]
