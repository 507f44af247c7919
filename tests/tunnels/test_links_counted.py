"""How links came and how they ended, as the doorway counts them: each link once, by a reason that is on the list."""

from __future__ import annotations

import asyncio

from relay.mux.keepalive import DEAD_AFTER
from relay.telemetry.links import LOST
from relay.tunnels.doorway import _FATES
from relay.wire import frames
from relay.wire.errors import AwayCode
from relay.wire.frames import encode, encode_going_away
from tests.mux.ends import settle
from tests.support.clock import virtual
from tests.tunnels.agents import House


def lost(house: House) -> dict[str, int]:
    """What is not 0."""
    return dict(+house.doorway.counts.lost)


@virtual
async def test_a_connection_that_breaks_is_lost() -> None:
    """Once, whatever had been told before."""
    house = House()
    agent = await house.agent()
    assert (house.doorway.counts.opened, lost(house)) == (1, {})
    await agent.leave()
    assert lost(house) == {"lost": 1}


@virtual
async def test_an_agent_that_said_goodbye_has_left() -> None:
    """It is counted when it has gone, and not when it says so."""
    house = House()
    agent = await house.agent()
    await agent.send(encode_going_away(AwayCode.SHUTDOWN, 0, "bye"))
    assert lost(house) == {}
    await agent.leave()
    assert lost(house) == {"agent_left": 1}


@virtual
async def test_an_agent_that_does_not_answer_is_dead() -> None:
    """Nobody had to say anything."""
    house = House()
    agent = await house.agent()
    agent.answers = False
    await asyncio.sleep(DEAD_AFTER + 6)
    assert lost(house) == {"dead": 1}


@virtual
async def test_a_link_that_the_relay_ends_is_counted_by_its_word() -> None:
    """The code of the end is the reason."""
    for code, reason in (
        (AwayCode.REVOKED, "revoked"),
        (AwayCode.CLOSED, "closed"),
        (AwayCode.OVERLOADED, "overloaded"),
        (AwayCode.DEAD_PEER, "dead"),
        (AwayCode.SHUTDOWN, "shutdown"),
    ):
        house = House()
        await house.agent()
        (link,) = house.hub.sessions()
        house.hub.dismiss(link, code, "over")
        assert lost(house) == {reason: 1}


@virtual
async def test_every_word_is_on_the_list() -> None:
    """Reasons are series that exist from the start, and no others come."""
    house = House()
    agent = await house.agent()
    await agent.send(encode(frames.WELCOME, 0, b"{}"))
    assert lost(house) == {"protocol_error": 1}
    assert {*_FATES.values(), "lost", "agent_left"} == set(house.doorway.counts.lost) == set(LOST)


@virtual
async def test_who_comes_back_to_its_slot_has_opened_it_again() -> None:
    """Whether its old link was still there or not; another slot or instance is new."""
    house = House()
    await house.agent(generation=1)
    await house.agent(generation=2)
    assert lost(house) == {"superseded": 1}
    await house.agent(slot=1)
    counts = house.doorway.counts
    assert (counts.opened, counts.reopened) == (3, 1)
    for link in list(house.hub.sessions()):
        link.session.abort("gone")
    await settle()
    await house.agent(generation=3)
    assert (counts.opened, counts.reopened) == (4, 2)


@virtual
async def test_refusals_are_counted_by_code() -> None:
    """Those of strangers, too; a connection that never became a link is not lost."""
    house = House(most_strangers=1)
    await house.agent(key="unknown")
    held = house.knock()
    house.knock("192.0.2.2")
    await settle()
    refused = dict(+house.doorway.counts.refused)
    assert refused == {"bad_key": 1, "overloaded": 1}
    assert house.doorway.turned_away == 1
    await held.leave()
    assert lost(house) == {}
