"""A relay that has too much: in memory, of connections, of agents to refuse, of agents that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from relay.node.pressure import ENTER
from relay.tunnels.crowds import FAILURES_A_SECOND, FAILURES_AT_ONCE
from relay.tunnels.journal import MOST_CHANGES
from relay.wire.hello import Hello, Welcome
from tests.support.child import eventually
from tests.support.local import LocalService
from tests.support.messages import Response
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess
from tests.support.rawhttp import RawClient, exchange
from tests.system.badheads import bare, get
from tests.system.forger import forged_keys, signing_secret
from tests.system.handagent import HandAgent
from tests.system.knocking import MOST_AT_ONCE, Knocker, hello_of
from tests.system.numbers import until

KIB = 1024
MIB = 1024 * KIB


def key_of(relay: RelayProcess) -> str:
    """Of an agent that may have every name."""
    return relay.key_file.read_text().strip()


def hand(relay: RelayProcess, *names: str, instance: str = "hand", label: str = "hand") -> HandAgent:
    """An agent made by hand, for these names."""
    return HandAgent(relay.agents_port, Hello(instance, 0, 1, key_of(relay), names), label=label)


def field_of(response: Response, name: str) -> bytes | None:
    """The value of a field; None without one, or without an answer."""
    return None if response.head is None else response.head.get(name)


# ---------------------------------------------------------------------------------------------- memory

# What a relay that has served a little takes, as a part of its budget: below the first level, and not far.
AT_REST = 0.70
# A little above where a level begins.
ENOUGH = 0.01
AT_ONCE = 5
PIECE = 160 * KIB
UPLOADS = 600


@dataclass
class Uploads:
    """Uploads for an agent that takes none of them: what they bring stays with the relay."""

    relay: RelayProcess
    budget: int
    clients: list[RawClient] = field(default_factory=list)
    sent: int = 0
    """How many of them have sent more than their heads."""

    async def begin(self) -> None:
        """All their heads."""
        head = bare(b"POST /never HTTP/1.1", f"Host: sink.{DOMAIN}".encode(), b"Content-Length: 100000000")
        for _ in range(0, UPLOADS, 100):
            self.clients += await asyncio.gather(*(RawClient.connect(self.relay.public_port) for _ in range(100)))
            for client in self.clients[-100:]:
                client.send(head)

    async def grow_to(self, level: int) -> None:
        """A piece each, a few at a time, until it is enough, and the relay has said so."""
        enough = int((ENTER[level - 1] + ENOUGH) * self.budget)
        while self.relay.rss() < enough:
            some = self.clients[self.sent : self.sent + AT_ONCE]
            assert some, "all that they sent was not enough"
            for client in some:
                client.send(bytes(PIECE))
            self.sent += len(some)
            with contextlib.suppress(AssertionError):  # until the relay has read it
                await eventually(lambda: self.relay.rss() >= enough, timeout=0.02)
        await eventually(lambda: self.level() >= level)

    def level(self) -> int:
        """As the relay said last."""
        told = self.told()
        return told[-1] if told else 0

    def told(self) -> list[int]:
        """Every level that it said."""
        return [event["level"] for event in self.relay.events if event["event"] == "pressure"]

    def leave(self) -> None:
        for client in self.clients:
            client.reset()


async def at_rest() -> int:
    """Resident bytes of a relay that has served a little."""
    async with RelayProcess() as relay, hand(relay, "t"):
        for _ in range(3):
            await exchange(relay.public_port, get())
        return relay.rss()


@contextlib.asynccontextmanager
async def short_of_memory() -> AsyncIterator[tuple[RelayProcess, Uploads]]:
    """A relay with a budget that is nearly used, a tunnel `t` with a real agent, and uploads to `sink`."""
    budget = int(await at_rest() / AT_REST)
    async with contextlib.AsyncExitStack() as stack:
        local = await stack.enter_async_context(LocalService())
        relay = await stack.enter_async_context(RelayProcess(args=["--memory-budget", str(budget)]))
        agent = AgentProcess(local.port, relay_port=relay.agents_port, key_file=relay.key_file)
        await stack.enter_async_context(agent)
        await agent.established()
        await stack.enter_async_context(hand(relay, "sink"))
        uploads = Uploads(relay, budget)
        stack.callback(uploads.leave)
        await uploads.begin()
        yield relay, uploads


async def next_event(client: RawClient) -> float:
    """When the next event that comes was sent."""
    data = (await client.until(b"\n\n")).rpartition(b"data: ")[2]
    return float(json.loads(data)["at"])


@pytest.mark.alone
async def test_a_relay_that_runs_short_of_memory_goes_through_the_levels_and_back() -> None:
    """80 %: answers end their connection. 90 %: new requests are told to come again. 95 %: who comes waits, and is not
    reset. What was alive goes on all the while, and afterwards all is as before.
    """
    async with short_of_memory() as (relay, uploads), await RawClient.connect(relay.public_port) as events:
        events.send(get(target=b"/sse?count=100000&every=0.05"))
        assert (await events.head()).status == 200
        assert uploads.told() == []
        kept = await exchange(relay.public_port, get())
        assert (kept.status, field_of(kept, "connection")) == (200, None)

        await uploads.grow_to(1)
        last = await exchange(relay.public_port, get())
        assert (last.status, field_of(last, "connection")) == (200, b"close")
        await uploads.grow_to(2)
        refused = await exchange(relay.public_port, get())
        assert (refused.status, field_of(refused, "relay-error")) == (503, b"overloaded")
        assert (field_of(refused, "retry-after"), field_of(refused, "connection")) == (b"5", b"close")
        await uploads.grow_to(3)
        assert uploads.told() == [1, 2, 3]
        async with await RawClient.connect(relay.public_port) as late:
            late.send(get())
            now = time.monotonic()
            while await next_event(events) < now + 0.5:
                pass
            assert not late.stream.received
            uploads.leave()
            assert (await late.response()).status in (200, 503)
        await relay.wait_event(lambda event: event == event | {"event": "pressure", "level": 0}, 15)
        now = time.monotonic()
        while await next_event(events) < now:
            pass
        again = await exchange(relay.public_port, get())
        assert (again.status, field_of(again, "connection")) == (200, None)
        assert uploads.told()[:3] == [1, 2, 3]
        print(f"resident at the levels: {[e['resident'] // MIB for e in relay.events if 'resident' in e]} MiB")  # noqa: T201


# ---------------------------------------------------------------------------------------------- connections


async def far_too_many(stack: contextlib.AsyncExitStack, port: int) -> int:
    """How many of a dozen more are reset."""
    kept: list[RawClient] = []
    for _ in range(12):
        with contextlib.suppress(ConnectionError):  # as early as that
            kept.append(await stack.enter_async_context(await RawClient.connect(port)))
    asked = [asyncio.create_task(one.stream.left_within(1.0)) for one in kept]
    return 12 - len(kept) + sum(await asyncio.gather(*asked))


async def test_one_address_gets_no_more_than_its_share() -> None:
    """Of visitors' connections and of agents': one too many is told so, far too many are reset, others are served."""
    args = ["--max-connections-per-address", "5", "--max-agent-connections-per-address", "5"]
    async with RelayProcess(args=args) as relay, hand(relay, "t").at("127.0.0.2") as agent:
        assert isinstance(agent.answer, Welcome)
        for port in (relay.public_port, relay.agents_port):
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(5):
                    await stack.enter_async_context(await RawClient.connect(port))
                told = []
                for _ in range(5):
                    client = await stack.enter_async_context(await RawClient.connect(port))
                    client.send(get(target=b"/api/v1/whoami"))
                    told.append((await client.response()).status)
                assert told == [503] * 5
                assert await far_too_many(stack, port) >= 7
                client = await stack.enter_async_context(await RawClient.connect(port, source="127.0.0.3"))
                client.send(get(target=b"/api/v1/openapi.json"))
                assert (await client.response()).status == 200


# ---------------------------------------------------------------------------------------------- agents to be refused

RATE = 1000
SECONDS = 1.5
# It was 0.86 before they were turned away at the door; nothing but a handshake takes 0.5.
MOST_OF_A_CORE = 0.4


async def test_forged_hellos_cost_little_and_agents_from_elsewhere_get_in() -> None:
    """A thousand a second from one address: a few keys are looked at, the rest ends at the door."""
    async with RelayProcess() as relay, Knocker() as knocker:
        forged = [hello_of(key) for key in forged_keys(key_of(relay), signing_secret(relay.data)).values()]
        used, began = relay.cpu_seconds(), time.monotonic()
        knocking = asyncio.create_task(knocker.hellos(relay.agents_port, forged, int(RATE * SECONDS), RATE))
        took: list[float] = []
        while not knocking.done():
            before = time.monotonic()
            async with hand(relay, "t", instance=f"i{len(took)}").at("127.0.0.2") as agent:
                assert isinstance(agent.answer, Welcome)
                took.append(time.monotonic() - before)
                assert (await exchange(relay.public_port, get())).status == 200
            await asyncio.sleep(0.2)
        core, seconds = (relay.cpu_seconds() - used) / (time.monotonic() - began), (await knocking).seconds
        answers = knocking.result().answers
        welcomed = f"welcome in {max(took):.3f} s"
        print(f"{answers.total() / seconds:.0f} a second, {core:.0%} of a core; {answers}; {welcomed}")  # noqa: T201
        looked_at = answers["bad_key"] + answers["expired"]
        assert looked_at <= FAILURES_AT_ONCE + FAILURES_A_SECOND * seconds + MOST_AT_ONCE
        assert answers["too_many"] == answers.total() - looked_at
        assert max(took) < 1
        assert core < MOST_OF_A_CORE


# ---------------------------------------------------------------------------------------------- agents that come and go


async def test_an_agent_that_comes_and_goes_does_not_fill_the_audit(tmp_path: Path) -> None:
    """Whatever it opens and closes: so many rows a minute, and how often it did it besides; so do its refusals."""
    names, data = tuple(f"n{number}" for number in range(20)), tmp_path / "data"
    async with RelayProcess(data) as relay:
        welcomes = 0
        async with hand(relay, "held", instance="holder"):
            for _ in range(40):
                async with hand(relay, *names, instance="restless") as agent:
                    welcomes += isinstance(agent.answer, Welcome)
                async with hand(relay, "held", instance="rival") as rival:
                    assert not isinstance(rival.answer, Welcome)
    with contextlib.closing(sqlite3.connect(data / "relay.db")) as book:
        rows = book.execute("SELECT action, subject, details FROM audit").fetchall()
    found = Counter(action for action, _, _ in rows)
    assert found["tunnel.open"] + found["tunnel.close"] == MOST_CHANGES
    (summary,) = [json.loads(details) for action, _, details in rows if action == "tunnel.summary"]
    assert summary["opened"] + found["tunnel.open"] == welcomes * len(names) + 1
    assert summary["closed"] + found["tunnel.close"] == welcomes * len(names) + 1
    assert (welcomes, found["session.refused"]) == (40, 1)
    (refusals,) = [json.loads(details) for action, _, details in rows if action == "refusals.summary"]
    assert refusals == {"name_taken": 39}


# ---------------------------------------------------------------------------------------------- held requests


async def test_after_a_start_a_request_waits_for_the_agent_that_was_there_before(tmp_path: Path) -> None:
    """Its name is reserved, so it counts as just dropped; any other name is nobody's. What is held is bounded."""
    data = tmp_path / "data"
    async with RelayProcess(data) as relay, hand(relay, "t"):
        ports = relay.ports
    async with RelayProcess(data, ports=ports) as relay:
        unknown = await exchange(relay.public_port, bare(b"GET / HTTP/1.1", f"Host: none.{DOMAIN}".encode()))
        assert (unknown.status, field_of(unknown, "relay-error")) == (404, b"unknown_host")
        first = asyncio.create_task(exchange(relay.public_port, get(), timeout=9))
        await until(relay, {"relay_requests_held": 1})
        large = get(b"Content-Length: 60000").replace(b"GET", b"POST") + bytes(60_000)
        rest = [asyncio.create_task(exchange(relay.public_port, large, timeout=9)) for _ in range(100)]
        done, _ = await asyncio.wait(rest, return_when=asyncio.FIRST_COMPLETED)
        assert field_of(done.pop().result(), "relay-error") == b"agent_offline"
        async with hand(relay, "t", label="back"):
            answer = await first
            assert (answer.status, answer.body) == (200, b"back")
        for one in rest:
            one.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
