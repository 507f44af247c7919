"""Meters of links: what bounds a link, what is counted for whom and once only, and how many tunnels there may be."""

from __future__ import annotations

import gc
from dataclasses import replace

from relay.keys.scopes import Scope
from relay.limits.allowances import Totals
from relay.limits.meter import Ask
from relay.mux.stream import Stream
from relay.tunnels.admission import Principal
from relay.tunnels.hub import Link
from relay.wire.limits import TunnelLimits
from tests.exchange.test_outgoing import Log
from tests.mux.ends import settle
from tests.support.clock import virtual
from tests.tunnels.agents import House, Keys, Knocker

JANUARY = "1970-01"
MASTER = "mtk_master_000000000000"


class Family(Keys):
    """Two keys below one master key, and one of another project."""

    def __init__(self, master: Scope | None = None) -> None:
        super().__init__()
        above = ((MASTER, master or Scope()),)
        self.known = {
            "one": Principal("p", "one", (MASTER,), above=above),
            "two": Principal("p", "two", (MASTER,), above=above),
            "far": Principal("q", "far"),
        }

    def _judge(self, key: str) -> Principal:
        return self.known[key]


async def a_link(house: House, name: str, key: str) -> tuple[Knocker, Link]:
    """An agent that serves this name by this key."""
    agent = await house.agent(name, key=key, instance=name)
    assert agent.welcome is not None, agent.refused
    return agent, house.hub.tunnels[name].links[0]


def used_by(house: House, id: str) -> Totals:
    """In the month that the tests live in."""
    allowance = house.metering.allowances.get(id)
    assert allowance is not None
    return allowance.used(JANUARY)


def opened(link: Link, name: str, count: int) -> list[Stream]:
    """Streams as the edge opens them on a link that nothing limits."""
    assert not link.meter.limited
    streams = []
    for _ in range(count):
        streams.append(link.session.open(b"", True, Log().exchange))
        link.meter.requests += 1
    return streams


@virtual
async def test_what_a_link_carries_counts_for_all_above_it_and_once() -> None:
    """Its key, the master key, the project; not for others; and not again at the next look, or after its end."""
    house = House(Family())
    agent, link = await a_link(house, "a", "one")
    await a_link(house, "b", "two")
    await a_link(house, "c", "far")
    opened(link, "a", 3)
    for _ in range(2):
        house.metering.fold_all(house.hub.sessions())
    used = {
        one: house.metering.allowances.of(one, Scope(), 0.0).used(JANUARY) for one in ("one", "two", MASTER, "p", "q")
    }
    three = Totals(3, 0, 0)
    assert used == {"one": three, "two": Totals(), MASTER: three, "p": three, "q": Totals()}
    opened(link, "a", 1)
    await agent.leave()
    await settle()
    assert [(one.key_id, one.project, one.totals) for one in house.metering.unwritten()] == [
        ("one", "p", Totals(4, 0, 0))
    ]


@virtual
async def test_what_was_written_and_learned_is_not_counted_twice() -> None:
    """Used is what the registry says and what it does not have yet; also for those above."""
    house = House(Family())
    _, link = await a_link(house, "a", "one")
    metering = house.metering
    assert metering.fresh == {"one", MASTER, "p"}
    opened(link, "a", 2)
    metering.fold_all(house.hub.sessions())
    counts = metering.unwritten()
    opened(link, "a", 5)
    metering.fold_all(house.hub.sessions())
    metering.written(counts)
    assert [one.totals.requests for one in metering.unwritten()] == [5]
    metering.learn(JANUARY, {"one": Totals(2), MASTER: Totals(30), "p": Totals(400)}, metering.ids())
    assert [used_by(house, one).requests for one in ("one", MASTER, "p")] == [7, 35, 405]
    assert not metering.fresh


@virtual
async def test_another_key_begins_its_own_count() -> None:
    """What a link carried before its renewal is the old key's; keys without a link are forgotten once written."""
    house = House(Family())
    agent, link = await a_link(house, "a", "one")
    opened(link, "a", 2)
    await agent.renew("two")
    assert agent.renewed
    opened(link, "a", 1)
    house.metering.fold_all(house.hub.sessions())
    counts = house.metering.unwritten()
    assert {one.key_id: one.totals.requests for one in counts} == {"one": 2, "two": 1}
    house.metering.forget(["one"])
    assert "one" in house.metering.projects_of_keys()
    house.metering.written(counts)
    house.metering.forget(["one"])
    assert set(house.metering.projects_of_keys()) == {"two"}
    assert house.metering.ids() == {"two", MASTER, "p"}


@virtual
async def test_who_comes_back_does_not_begin_the_month_anew() -> None:
    """A key that had no link for a while: what it used counts from its first request on, not from the next look."""
    house = House(Family())
    family = house.keys
    assert isinstance(family, Family)
    family.known["one"] = replace(family.known["one"], scope=Scope(monthly_requests=2))
    agent, link = await a_link(house, "a", "one")
    for _ in range(2):
        assert link.meter.admit(Ask("192.0.2.1"), 0.0, 0.0) is None
    await agent.leave()
    await settle()
    house.metering.written(house.metering.unwritten())
    house.metering.forget(["one"])
    assert not house.metering.projects_of_keys()
    del link
    gc.collect()
    _, link = await a_link(house, "a", "one")
    refusal = link.meter.admit(Ask("192.0.2.1"), 9.0, 9.0)
    assert refusal is not None
    assert refusal.code == "quota_exhausted"


@virtual
async def test_a_new_key_does_not_free_what_runs() -> None:
    """A stream that began under the old key is cut when the bytes of the month are used up, and counts till then."""
    house = House(Family())
    house.plans["p"] = Scope(streams=5, monthly_bytes=100)
    agent, link = await a_link(house, "a", "one")
    before = link.meter
    log = Log()
    before.opener(link.session, house.metering.pacer, Ask("192.0.2.1")).open(b"", False, log.exchange)
    await agent.renew("two")
    assert link.meter is not before
    assert [(len(one.session.streams), len(one.meter.open)) for one in house.hub.sessions()] == [(1, 1)]
    house.metering.learn(JANUARY, {"p": Totals(0, 100)}, ["p"])
    house.metering.fold_all(house.hub.sessions())
    project = house.metering.allowances.get("p")
    assert project is not None
    assert (len(link.session.streams), len(link.meter.open), project.streams) == (0, 0, 0)


@virtual
async def test_tunnels_are_counted_for_every_key_and_project_above() -> None:
    """A master key's limit and a plan's bound the tunnels of all keys below them together; the sentence says which."""
    house = House(Family(master=Scope(tunnels=2)))
    await a_link(house, "a", "one")
    await a_link(house, "b", "two")
    third = await house.agent("c", key="two", instance="c")
    assert third.refused is not None
    assert third.refused.code == "too_many"
    assert "master key" in third.refused.message
    await a_link(house, "d", "far")
    house.plans["q"] = Scope(tunnels=1)
    fifth = await house.agent("e", key="far", instance="e")
    assert fifth.refused is not None
    assert "plan of this project allows at most 1" in fifth.refused.message
    again = await house.agent("d", key="far", instance="d", slot=1)
    assert again.welcome is not None  # a second link of the same name opens no other tunnel


@virtual
async def test_a_plan_that_changes_holds_for_live_links() -> None:
    """A link that nothing limited is limited from then on, and free again."""
    house = House(Family())
    _, link = await a_link(house, "a", "one")
    house.metering.on_plan("p", Scope(rate=1))
    assert link.meter.limited
    house.metering.on_plan("p", Scope())
    assert not link.meter.limited
    house.metering.on_plan("somebody else's", Scope(rate=1))


@virtual
async def test_links_of_one_tunnel_share_its_brake() -> None:
    """What an agent asks for a name holds for the name, whatever the number of its links; others have none."""
    house = House(Family())
    limits = {"a": TunnelLimits(rate=1, rate_per_address=None)}
    for slot in (0, 1):
        agent = house.knock()
        await agent.hello("a", "b", key="one", slot=slot, limits=limits)
        assert agent.welcome is not None
        assert agent.welcome.limits == ("a",)
    first, second = house.hub.tunnels["a"].links
    assert first.meters["a"].limited
    assert "b" not in first.meters
    assert not first.meter.limited
    brakes = {id(link.meters["a"]._brake) for link in (first, second)}
    assert len(brakes) == 1
