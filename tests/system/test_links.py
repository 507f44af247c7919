"""Links and who owns a name: what one of two links carries, which of two links stays, which of two agents.

Where the moment matters an agent made by hand says what a real one would say; where the agent's own conduct matters
it is a real one behind a fault proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pytest
import pytest_asyncio

from relay.wire.errors import AwayCode
from relay.wire.hello import Hello, Refused, Welcome
from tests.support.child import Event, eventually
from tests.support.faultprocess import FaultProcess
from tests.support.local import LocalService
from tests.support.messages import Response
from tests.support.pattern import Meter
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess
from tests.support.rawhttp import RawClient, exchange
from tests.support.rawstream import EndOfBytes
from tests.system.handagent import HandAgent
from tests.system.inprogress import UNANSWERED, Begun, Holding, InProgress
from tests.system.numbers import nothing_left, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("links")]

AT_ONCE = 1.0
ROUNDS = 3
NAME_REFUSED = 4  # exit code of an agent, docs/agent.md

_instances = itertools.count(1)


@dataclass
class House:
    """A relay; agents come and go."""

    relay: RelayProcess
    key: str

    def hand(
        self, name: str, instance: str, slot: int = 0, generation: int = 1, *, label: str = "", answers: bool = True
    ) -> HandAgent:
        """A link of an agent made by hand; `label` is what its answers say."""
        names = tuple(name.split(","))
        hello = Hello(instance, slot, generation, self.key, names)
        return HandAgent(self.relay.agents_port, hello, label=label, answers_pings=answers)

    async def get(self, name: str, path: str = "/") -> Response:
        """One request to a name."""
        request = f"GET {path} HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\nConnection: close\r\n\r\n"
        return await exchange(self.relay.public_port, request.encode())

    async def served_by(self, name: str) -> str:
        """The label of whoever answers."""
        response = await self.get(name)
        assert response.status == 200, response.raw
        return response.body.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """Started once for all tests here."""
    async with RelayProcess(args=["--grace", "1"]) as relay:
        yield House(relay, relay.key_file.read_text().strip())
        await nothing_left(relay)


@pytest.fixture
def name() -> str:
    """A name for each test; also good as an instance."""
    return f"n{next(_instances)}"


# ---- which link, which agent -----------------------------------------------------------------------------------------


async def test_a_newer_generation_takes_the_place_of_an_older(house: House, name: str) -> None:
    """At once: the older link is told and ended, what ran on it is `agent_lost`, requests go to the newer."""
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(house.hand(name, name, generation=1, label="1"))
        for generation in (2, 3, 7):
            lost = asyncio.create_task(house.get(name, "/never"))
            await opened(old, b"/never")
            since = time.monotonic()
            new = await stack.enter_async_context(
                house.hand(name, name, generation=generation, label=str(generation), answers=generation != 2)
            )
            assert isinstance(new.answer, Welcome)
            await asyncio.wait_for(old.ended.wait(), AT_ONCE)
            assert old.away == [AwayCode.SUPERSEDED]
            response = await lost
            assert (response.status, response.head and response.head.get("Relay-Error")) == (502, b"agent_lost")
            assert await house.served_by(name) == str(generation)
            assert time.monotonic() - since < AT_ONCE
            old = new


@pytest.mark.parametrize("generation", [4, 5])
async def test_an_older_generation_is_refused(house: House, name: str, generation: int) -> None:
    """A late attempt of the same agent does not end the link that is there."""
    async with house.hand(name, name, generation=5, label="kept") as kept:
        async with house.hand(name, name, generation=generation) as late:
            assert isinstance(late.answer, Refused)
            assert late.answer.code == "stale_generation"
            await asyncio.wait_for(late.ended.wait(), AT_ONCE)
        assert await house.served_by(name) == "kept"
        assert not kept.ended.is_set()


async def test_slots_of_one_agent_stand_side_by_side(house: House, name: str) -> None:
    """Another slot evicts nobody; when one link ends the other serves."""
    async with house.hand(name, name, slot=1, label="second") as second:
        async with house.hand(name, name, slot=0, label="first") as first:
            assert isinstance(first.answer, Welcome)
            assert await house.served_by(name) == "first"
            assert not second.ended.is_set()
        assert await house.served_by(name) == "second"


async def test_a_name_whose_agent_answers_stays_with_it(house: House, name: str) -> None:
    """Another agent is refused with a reason and a time to come back, and disturbs nothing."""
    async with house.hand(name, "holder", label="holder") as holder:
        for _round in range(ROUNDS):
            async with house.hand(name, "rival") as rival:
                assert isinstance(rival.answer, Refused)
                assert rival.answer.code == "name_taken"
                assert rival.answer.retry_after is not None
                assert name in rival.answer.message
            assert await house.served_by(name) == "holder"
        assert (holder.away, holder.ended.is_set()) == ([], False)


async def test_one_answering_link_is_enough_to_keep_a_name(house: House, name: str) -> None:
    """An agent with one dead and one living link lives."""
    async with (
        house.hand(name, "holder", slot=0, answers=False),
        house.hand(name, "holder", slot=1),
        house.hand(name, "rival") as rival,
    ):
        assert isinstance(rival.answer, Refused)
        assert rival.answer.code == "name_taken"


async def test_a_name_whose_agent_does_not_answer_is_taken_over(house: House, name: str) -> None:
    """Within a second, on all links; what ran there is `agent_lost`, and the new agent serves."""
    async with AsyncExitStack() as stack:
        for number in range(ROUNDS):
            dead = [
                await stack.enter_async_context(house.hand(f"{name}-{number}", f"dead{number}", slot, answers=False))
                for slot in (0, 1)
            ]
            lost = asyncio.create_task(house.get(f"{name}-{number}", "/never"))
            await opened(dead[0], b"/never")
            since = time.monotonic()
            new = await stack.enter_async_context(house.hand(f"{name}-{number}", f"new{number}", label="new"))
            assert isinstance(new.answer, Welcome)
            assert await house.served_by(f"{name}-{number}") == "new"
            assert time.monotonic() - since < AT_ONCE
            assert (await lost).status == 502
            for link in dead:
                await asyncio.wait_for(link.ended.wait(), AT_ONCE)


async def test_two_rivals_for_a_dead_agents_name(house: House, name: str) -> None:
    """Exactly one of them gets it."""
    async with house.hand(name, "dead", answers=False), house.hand(name, "one", label="one") as one:
        assert isinstance(one.answer, Welcome)
    async with house.hand(name, "dead", answers=False):
        rivals = [house.hand(name, instance, label=instance) for instance in ("one", "two", "three")]
        async with AsyncExitStack() as stack:
            entered = await asyncio.gather(*(stack.enter_async_context(rival) for rival in rivals))
            welcome = [rival for rival in entered if isinstance(rival.answer, Welcome)]
            assert len(welcome) == 1
            assert await house.served_by(name) == welcome[0].label


async def test_a_claim_of_several_names_is_all_or_nothing(house: House, name: str) -> None:
    """One taken name refuses the whole hello: nobody serves the free one, which is the project's from now on."""
    async with house.hand(name, "holder"):
        async with house.hand(f"{name}-free,{name}", "rival") as rival:
            assert isinstance(rival.answer, Refused)
        assert (await house.get(f"{name}-free")).status == 503


async def test_a_second_agent_process_is_told_and_ends(house: House, name: str) -> None:
    """With its documented exit code, while the first goes on."""
    async with Holding() as local:
        first = AgentProcess(
            local.port, relay_port=house.relay.agents_port, key_file=house.relay.key_file, subdomain=name
        )
        second = AgentProcess(
            local.port, relay_port=house.relay.agents_port, key_file=house.relay.key_file, subdomain=name
        )
        async with first:
            await first.established()
            async with second:
                refused = await second.wait_event("refused")
                assert refused["code"] == "name_taken"
                assert await second.wait() == NAME_REFUSED
            assert await house.served_by(name) == "ok"


# ---- two links of a real agent ---------------------------------------------------------------------------------------


@dataclass
class Pair:
    """A real agent with two links behind a fault proxy."""

    name: str
    agent: AgentProcess
    proxy: FaultProcess
    local: Holding
    begun: Begun

    async def connected(self, after: int = 0, slots: tuple[int, ...] = (0, 1)) -> None:
        """Wait until these links are up."""
        for slot in slots:
            await self.agent.wait_event(partial(is_connected, slot), after=after)

    async def only(self, slot: int) -> None:
        """Break the other link for as long as the proxy refuses connections; this one is left."""
        while True:
            await self.proxy.refuse()
            seen = len(self.agent.events)
            await self.proxy.cut(pair=(await self.proxy.pairs())[0])
            lost = int((await self.agent.wait_event("disconnected", after=seen))["slot"])
            if lost != slot:
                return
            await self.restore(lost)

    async def restore(self, slot: int) -> None:
        """Let the broken link come back."""
        seen = len(self.agent.events)
        await self.proxy.accept()
        await self.connected(seen, (slot,))

    async def begin_all(self) -> list[InProgress]:
        """One exchange of each kind."""
        return await self.begun.begin_all(f"{self.name}.{DOMAIN}")


@pytest_asyncio.fixture(loop_scope="module")
async def pair(house: House, name: str) -> AsyncIterator[Pair]:
    """See `Pair`."""
    async with Holding() as local, FaultProcess(house.relay.agents_port) as proxy:
        begun = Begun(local, house.relay.public_port)
        agent = AgentProcess(local.port, relay_port=proxy.port, key_file=house.relay.key_file, subdomain=name)
        async with agent:
            await agent.established()
            two = Pair(name, agent, proxy, local, begun)
            await two.connected()
            try:
                yield two
            finally:
                begun.close()


@pytest.mark.parametrize("lost_slot", [0, 1])
async def test_losing_one_link_loses_only_its_streams(house: House, pair: Pair, lost_slot: int) -> None:
    """Exchanges on the other link go on, new ones are served at once, and the lost link comes back."""
    for _round in range(ROUNDS):
        await pair.only(1)
        (second,) = await pair.proxy.pairs()
        on_slot = {1: await pair.begin_all()}  # there is no other
        await pair.restore(0)
        (first,) = set(await pair.proxy.pairs()) - {second}
        on_slot[0] = await pair.begin_all()  # without load the lower slot is taken
        lost, kept = on_slot[lost_slot], on_slot[1 - lost_slot]
        seen = len(pair.agent.events)
        since = time.monotonic()
        await pair.proxy.cut(pair=(first, second)[lost_slot])
        for one in lost:
            assert not (await one.outcome(AT_ONCE)).clean or one.kind in UNANSWERED
            assert await one.request.stream.left_within(AT_ONCE)
        assert await house.served_by(pair.name) == "ok"
        assert time.monotonic() - since < AT_ONCE
        await pair.connected(seen, (lost_slot,))
        for one in kept:
            assert (one.client.stream.ended, one.request.stream.ended) == (None, None)
            one.client.reset()
            assert await one.request.stream.left_within(AT_ONCE)
        pair.begun.close()


async def test_a_bulk_transfer_does_not_draw_others_to_its_link(house: House, name: str) -> None:
    """Beside a transfer that has run for a while, new streams take the other link: they outlive the transfer's."""
    async with LocalService() as local, FaultProcess(house.relay.agents_port) as proxy, AsyncExitStack() as stack:
        agent = AgentProcess(local.port, relay_port=proxy.port, key_file=house.relay.key_file, subdomain=name)
        await stack.enter_async_context(agent)
        for slot in (0, 1):
            await agent.wait_event(partial(is_connected, slot))
        client = await stack.enter_async_context(await RawClient.connect(house.relay.public_port))
        client.send(f"GET /bytes/{10**12} HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\n\r\n".encode())
        meter = Meter()
        pouring = asyncio.create_task(pour(client, meter))
        small = []
        for _ in range(3):
            goal = meter.size + 64 * 2**20
            await eventually(lambda goal=goal: meter.size > goal, 20.0)  # type: ignore[misc]
            one = await stack.enter_async_context(await RawClient.connect(house.relay.public_port))
            one.send(f"GET /sse?count=1000&every=1 HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\n\r\n".encode())
            await one.until(b"id: 0")
            small.append(one)
        await proxy.cut(pair=(await proxy.pairs())[0])
        await eventually(lambda: any(one.stream.ended for one in (client, *small)))
        await house.get(name)
        alive = [one.stream.ended is None for one in small]
        assert any(alive) if pouring.done() else not all(alive)
        pouring.cancel()


# ---- the hold --------------------------------------------------------------------------------------------------------


async def test_requests_are_held_while_the_agent_is_away(house: House, name: str) -> None:
    """All of them are served once it is back, and one whose visitor left meanwhile is not sent on."""
    for _round in range(ROUNDS):
        async with house.hand(name, name):
            pass
        waiting = [asyncio.create_task(house.get(name, f"/{number}")) for number in range(20)]
        async with await RawClient.connect(house.relay.public_port) as client:
            client.send(f"GET /left HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\n\r\n".encode())
            await until(house.relay, {"relay_requests_held": 21})
            client.reset()
        await until(house.relay, {"relay_requests_held": 20})
        since = time.monotonic()
        async with house.hand(name, name, label="back") as back:
            assert {(await each).body for each in waiting} == {b"back"}
            assert time.monotonic() - since < AT_ONCE
            assert sorted(back.opened) == sorted(b"/%d" % number for number in range(20))


async def test_a_real_agent_comes_back_soon(house: House, pair: Pair) -> None:
    """Once the relay can be reached again the agent is back within a second, and serves what was held."""
    for _round in range(ROUNDS):
        seen, seen_down = len(pair.agent.events), len(house.relay.events)
        await pair.proxy.refuse()
        await pair.proxy.cut()
        await house.relay.wait_event("agent_down", after=seen_down)
        waiting = [asyncio.create_task(house.get(pair.name)) for _ in range(10)]
        await until(house.relay, {"relay_requests_held": 10})
        for _ in range(4):  # a few attempts have failed
            await pair.agent.wait_event("disconnected", after=seen)
            seen = len(pair.agent.events)
        since = time.monotonic()
        await pair.proxy.accept()
        assert {(await each).status for each in waiting} == {200}
        assert time.monotonic() - since < AT_ONCE
        await pair.connected(seen)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_attempts_that_break_in_the_handshake(house: House, pair: Pair, direction: Literal["up", "down"]) -> None:
    """Cut at any byte of the handshake the agent tries again, and is back soon after the path is whole."""
    for count in (1, 40, 90, 130, 180, 240, 300):
        await pair.proxy.cut_after(count, direction, "fin" if count % 3 else "rst")
        seen = len(pair.agent.events)
        await pair.proxy.cut()
        for _ in range(4):
            await pair.agent.wait_event("disconnected", after=seen)
            seen = len(pair.agent.events)
    await pair.proxy.cut_after(None, direction)
    assert await house.served_by(pair.name) == "ok"


# ---- small ones ------------------------------------------------------------------------------------------------------


async def opened(agent: HandAgent, target: bytes) -> None:
    """Wait until a request for this target has reached the agent."""
    await eventually(lambda: target in agent.opened)


async def pour(client: RawClient, meter: Meter) -> None:
    """Count what comes until the end."""
    with contextlib.suppress(EndOfBytes):
        while piece := await client.stream.some():
            meter.count(len(piece))


def is_connected(slot: int, event: Event) -> bool:
    """Whether this event says that a link is up."""
    return (event.get("event"), event.get("slot")) == ("connected", slot)
