"""Lineages for many at once: few queries, no answer older than its question, nobody harmed by one who leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from relay.keys.forms import Kind, new_id
from relay.registry import NotFound, Unavailable
from relay.registry.database import Database, Reading
from relay.registry.lineages import MOST_AT_ONCE, Lineages
from tests.registry.world import World, actor


class Gated:
    """A database whose readings wait at a gate, are counted, and may fail."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.gate = asyncio.Event()
        self.readings = 0
        self.fails = False

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reading]:
        self.readings += 1
        await self.gate.wait()
        if self.fails:
            raise Unavailable("away")
        async with self._database.reading() as read:
            yield read


async def begun(gated: Gated, readings: int = 1) -> None:
    """So many readings have begun."""
    while gated.readings < readings:
        await asyncio.sleep(0)


async def test_many_questions_are_few_queries(here: World) -> None:
    """The first asks alone; those who come meanwhile are answered together, each with its own lineage."""
    _, master = await here.project()
    children = [await here.child(master) for _ in range(3)]
    gated = Gated(here.database)
    lineages = Lineages(gated)  # type: ignore[arg-type]
    asking = [asyncio.create_task(lineages.of(each.id)) for each in (*children, *children, master)]
    await begun(gated)
    gated.gate.set()
    answers = await asyncio.gather(*asking)
    assert answers == [*([here.operator, master, each] for each in (*children, *children)), [here.operator, master]]
    assert gated.readings == 2
    asking = [asyncio.create_task(lineages.of(new_id(Kind.CHILD))) for _ in range(2 * MOST_AT_ONCE)]
    unknown = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(each, NotFound) for each in unknown)
    assert gated.readings == 2 + 3


async def test_no_answer_is_older_than_its_question(here: World) -> None:
    """Who asks after a revocation hears of it, also while a query from before it is under way."""
    _, master = await here.project()
    child = await here.child(master)
    gated = Gated(here.database)
    lineages = Lineages(gated)  # type: ignore[arg-type]
    early = asyncio.create_task(lineages.of(child.id))
    await begun(gated)
    await here.registry.keys.revoke(actor(master), child.id, cascade=False)
    late = asyncio.create_task(lineages.of(child.id))
    await asyncio.sleep(0)
    gated.gate.set()
    assert (await late)[-1].revoked_at is not None
    await early
    assert gated.readings == 2


async def test_one_who_leaves_takes_nobody_along(here: World) -> None:
    """Not the one whose turn it is, with the questions of others; not one who waits."""
    _, master = await here.project()
    child = await here.child(master)
    gated = Gated(here.database)
    lineages = Lineages(gated)  # type: ignore[arg-type]
    asking = [asyncio.create_task(lineages.of(child.id)) for _ in range(4)]
    await begun(gated)
    asking[0].cancel()
    asking[2].cancel()
    await begun(gated, 2)
    gated.gate.set()
    expected = [here.operator, master, child]
    assert [await asking[1], await asking[3]] == [expected, expected]
    assert gated.readings == 2


async def test_a_database_that_is_away_is_told_to_all(here: World) -> None:
    """And the next question is asked anew."""
    gated = Gated(here.database)
    gated.fails = True
    gated.gate.set()
    lineages = Lineages(gated)  # type: ignore[arg-type]
    asking = [asyncio.create_task(lineages.of(here.operator.id)) for _ in range(5)]
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(each, Unavailable) for each in answers)
    gated.fails = False
    assert await lineages.of(here.operator.id) == [here.operator]


async def test_an_unknown_key_has_no_lineage(here: World) -> None:
    """As before, alone."""
    with pytest.raises(NotFound, match="There is no key"):
        await Lineages(here.database).of(new_id(Kind.CHILD))
