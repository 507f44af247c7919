"""Usage is kept: written in batches, once only, also when the registry was away; other nodes' counts are learned."""

from __future__ import annotations

import asyncio
import time

import pytest

from relay.keys.scopes import Scope
from relay.limits.meter import Ask
from relay.limits.months import period_of
from relay.node.assemble import Node
from relay.registry import Registry, Unavailable, UsageRow
from relay.registry.records import RELAY
from relay.tunnels.admission import Principal
from relay.tunnels.hub import Link
from tests.tunnels.test_hub import a_session

NOW = period_of(time.time())


async def a_link(node: Node, key_id: str = "mtk_child_000000000000") -> Link:
    """A link of a key of the default project."""
    project = await node.office.registry.projects.default(RELAY)
    link = Link(a_session(), "i", 0, 1, Principal(project.id, key_id), ("demo",))
    node.hub.attach(link)
    return link


async def written(node: Node, link: Link) -> int:
    """Requests of the link's project as the registry knows them."""
    sums = await node.office.registry.usage.sums(NOW, [link.project])
    return sums[link.project].requests if link.project in sums else 0


async def test_what_was_counted_is_written_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the registry was away at first; meanwhile it is told all the same."""
    link = await a_link(node)
    link.meter.requests += 3
    add = node.office.registry.usage.add

    async def away(rows: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(node.office.registry.usage, "add", away)
    with pytest.raises(Unavailable):
        await node.usage.attend(ended=True)
    used = node.usage.used(link.project)
    assert used is not None
    assert (await written(node, link), used.requests) == (0, 3)
    monkeypatch.setattr(node.office.registry.usage, "add", add)
    link.meter.requests += 1
    await node.usage.attend(ended=True)
    await node.usage.attend(ended=True)
    assert await written(node, link) == 4


async def test_the_end_leaves_nothing_unwritten(node: Node) -> None:
    """What was counted right before the end is written by it."""
    link = await a_link(node)
    running = asyncio.ensure_future(node.usage.run())
    link.meter.requests += 2
    node.usage.finish()
    await asyncio.wait_for(running, 5)
    assert await written(node, link) == 2


async def test_what_others_counted_counts_here(node: Node, other: Registry) -> None:
    """A month that another node, or this one before a restart, has used up is used up here."""
    project = await node.office.registry.projects.default(RELAY)
    await other.usage.add([UsageRow(project.id, "mtk_child_111111111111", NOW, 5, 0, 0)])
    link = await a_link(node)
    node.hub.metering.on_plan(project.id, Scope(monthly_requests=6))
    await node.usage.attend()
    used = node.usage.used(project.id)
    assert used is not None
    assert used.requests == 5
    ask = Ask("192.0.2.1")
    clock, wall = node.hub.metering.clock(), node.hub.metering.now()
    assert link.meter.admit(ask, clock, wall) is None
    refusal = link.meter.admit(ask, clock, wall)
    assert refusal is not None
    assert refusal.code == "quota_exhausted"


async def test_what_is_told_is_counted_up_to_now(node: Node) -> None:
    """Not up to the last round only."""
    link = await a_link(node)
    link.meter.requests += 2
    node.usage.count()
    used = node.usage.used(link.principal.key_id)
    assert used is not None
    assert used.requests == 2


async def test_a_key_without_links_is_forgotten(node: Node) -> None:
    """Nobody is connected by it, and it is written."""
    link = await a_link(node)
    link.meter.requests += 1
    link.session.abort("gone")
    node.hub.detach(link)
    await node.usage.attend(ended=True)
    assert await written(node, link) == 1
    assert node.hub.metering.projects_of_keys() == {}
