"""A local service that means harm, behind a real agent: its visitor is told by name or sees an abort, no other notices.

Heads that two readers would read in two ways are in `test_splitting`, services that die in `test_aborts`. Here is what
never ends: the agent stops reading it, and holds next to nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.support.local import LocalProcess
from tests.support.longer import CHAOS
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess
from tests.support.rawhttp import RawClient
from tests.support.reliability import Record
from tests.system.hostilelocal import OFFENCES, HostileLocal, HostileProcess, target_of
from tests.system.noise import Noise
from tests.system.steady import Steady

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("hostile local")]

MIB = 2**20
RATE = 100.0
WINDOW = 15.0 if CHAOS else 2.0
AT_MOST = 2.0
ASKS = 8
# Below `FLOOR` seconds a p99 is as good as none, where all that takes part shares two processors.
TIMES, FLOOR = 3.0, 0.015
# What an endless answer may bring into the kernels' buffers before it is cut, and into the agent's memory.
MOST_TAKEN = 24 * MIB
MOST_HELD = 16 * MIB
SHORT = ["--response-head-timeout", "1"]
PARSERS = ("httptools", "h11")


@dataclass(slots=True)
class House:
    """An agent for each parser with two tunnels, `bad-PARSER` and `good-PARSER`, the latter with steady visitors."""

    relay: RelayProcess
    agents: dict[str, AgentProcess]
    local: HostileLocal
    steady: dict[str, Steady]

    async def visitor(self) -> RawClient:
        return await RawClient.connect(self.relay.public_port)

    async def others_are_fine(self, parser: str) -> None:
        """All who asked the other tunnel of the same agent were served since the last time, and none waited long."""
        seen = await self.steady[parser].mark()
        assert not seen.failed
        assert seen.worst < AT_MOST


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """All of it, for all tests here."""
    async with LocalProcess() as good, HostileLocal() as local, RelayProcess(args=SHORT) as relay:

        def agent(parser: str) -> AgentProcess:
            return AgentProcess(
                None,
                relay_port=relay.agents_port,
                key_file=relay.key_file,
                subdomain=[f"bad-{parser}={local.port}", f"good-{parser}={good.port}"],
                args=["--http-parser", parser],
            )

        async with agent("httptools") as one, agent("h11") as other:
            await one.established()
            await other.established()
            agents = dict(zip(PARSERS, (one, other), strict=True))
            hosts = [f"good-{parser}.{DOMAIN}" for parser in PARSERS]
            async with (
                Steady(relay.public_port, hosts[0], RATE / 4) as first,
                Steady(relay.public_port, hosts[1], RATE / 4) as second,
            ):
                yield House(relay, agents, local, dict(zip(PARSERS, (first, second), strict=True)))


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("what", OFFENCES)
async def test_an_endless_answer_is_cut(house: House, what: str, parser: str) -> None:
    """The visitor has an answer of the relay's with the reason, an abort, or the head that has no body; the agent stops
    reading at once, holds no more than before, and serves its other tunnel all the while.
    """
    offence, agent = OFFENCES[what], house.agents[parser]
    await house.steady[parser].mark()
    agent.reset_peak()
    before = agent.rss()
    async with await house.visitor() as visitor:
        visitor.send(f"{offence.method} {target_of(what)} HTTP/1.1\r\nHost: bad-{parser}.{DOMAIN}\r\n\r\n".encode())
        response = await visitor.response(offence.method.encode())
        assert response.head is not None
        if offence.seen == "broken off":
            assert (response.status, b"begun".startswith(response.body[:5])) == (200, True)
            assert response.ended in ("eof", "reset")
        elif offence.seen == "without body":
            assert (response.status in (200, 204, 304), response.body, response.ended) == (True, b"", "clean")
            visitor.send(f"GET /fine HTTP/1.1\r\nHost: bad-{parser}.{DOMAIN}\r\n\r\n".encode())
            following = await visitor.response()
            assert (following.status, following.body) == (200, b"fine")
        else:
            assert response.head.get("relay-error") == offence.seen.encode()
            assert offence.words in response.body
            assert offence.seen == "head_timeout" or f"127.0.0.1:{house.local.port}".encode() in response.body
    assert house.local.last is not None
    assert await house.local.last.stream.left_within(5), "the agent is still connected"
    assert house.local.taken < MOST_TAKEN
    assert agent.peak_rss() - before < MOST_HELD
    await house.others_are_fine(parser)


@pytest.mark.alone
@pytest.mark.chaos
async def test_others_beside_a_hostile_local_service(record: Record) -> None:
    """Visitors that ask for one offence after the other: the other tunnel of the same agent is served as before."""
    async with LocalProcess() as good, HostileProcess() as bad, RelayProcess(args=SHORT) as relay:
        names = [f"good={good.port}", f"bad={bad.port}"]
        async with (
            AgentProcess(None, relay_port=relay.agents_port, key_file=relay.key_file, subdomain=names) as agent,
            Steady(relay.public_port, f"good.{DOMAIN}", RATE) as steady,
        ):
            await agent.established()
            alone = await steady.seconds(WINDOW)
            before = agent.rss(), relay.rss()
            async with Noise("any", relay.public_port, f"bad.{DOMAIN}", ASKS) as visitors:
                beside = await steady.seconds(WINDOW)
                grown = agent.rss() - before[0], relay.rss() - before[1]
                asked = await visitors.done()
    allowed = TIMES * max(alone.p99, FLOOR)
    record(
        name=f"hostile local service: {ASKS} visitors of it at once",
        asked=f"the other tunnel of its agent without error, p99 ≤ 3 × that without them (at least {FLOOR} s)",
        seen=f"{asked} answers; p99 {1000 * beside.p99:.1f} ms, without {1000 * alone.p99:.1f} ms",
        ok=not beside.failed and beside.p99 <= allowed and asked > len(OFFENCES),
        counts={"p99_s": beside.p99, "alone_p99_s": alone.p99, "answers": asked},
    )
    record(
        name="hostile local service: memory",
        asked=f"agent and relay grow by at most {ASKS * MOST_HELD / MIB:g} MiB",
        seen=f"agent {grown[0] / MIB:.1f} MiB, relay {grown[1] / MIB:.1f} MiB",
        ok=max(grown) <= ASKS * MOST_HELD,
        counts={"agent_bytes": grown[0], "relay_bytes": grown[1]},
    )
