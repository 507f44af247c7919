"""Whoever breaks off is seen by the other end, in time, and never as a clean end.

A visitor that leaves, a local service that dies in the middle, an agent that is killed, a link that is cut or that
carries one way only. `inprogress` has the exchanges; each fault is tried against every kind of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import pytest
import pytest_asyncio

from tests.support.child import Event, eventually
from tests.support.faultcontrols import Direction, How
from tests.support.faultprocess import FaultProcess
from tests.support.longer import CHAOS
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess
from tests.support.rawhttp import CLOSE, RESET, RawClient, RawServer, Request, Step, Wait, chunk, exchange
from tests.support.rawstream import EndOfBytes
from tests.system.inprogress import KINDS, UNANSWERED, Begun, Holding, InProgress, Kind
from tests.system.numbers import nothing_left

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("aborts")]

AT_ONCE = 1.0
HALF_OPEN = 15.0
ROUNDS = 30 if CHAOS else 3

Leaves = Literal["close", "reset"]


@dataclass
class Dying:
    """A local service that says `said`, waits for `now` where it is told to, and ends `how`."""

    said: bytes = b""
    how: Step = CLOSE
    waits: bool = True
    now: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, request: Request) -> AsyncIterator[Step]:
        """See the class."""
        yield self.said
        if self.waits:
            yield Wait(self.now)
        yield self.how


async def pour(request: Request) -> AsyncIterator[Step]:
    """100 MB, as fast as they are taken."""
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
    for _ in range(100):
        yield bytes(1_000_000)


@dataclass
class Sipping:
    """A local service that reads nothing of an upload before `go_on`."""

    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, request: Request) -> AsyncIterator[Step]:
        """See the class."""
        request.stream.pause()
        yield Wait(self.go_on)
        await request.read()


@dataclass
class House:
    """A relay, and an agent with a name for each local service: `t` keeps exchanges in the middle."""

    relay: RelayProcess
    agent: AgentProcess
    begun: Begun
    dying: Dying
    sipping: Sipping
    servers: dict[str, RawServer]

    async def begin_all(self, name: str) -> list[InProgress]:
        """One exchange of each kind, in progress."""
        return await self.begun.begin_all(f"{name}.{DOMAIN}")

    def agent_for(self, name: str, relay_port: int | None = None) -> AgentProcess:
        """Another agent in front of the same local service, not started; `relay_port`: of a fault proxy."""
        port = self.servers["t"].port
        return AgentProcess(
            port, relay_port=relay_port or self.relay.agents_port, key_file=self.relay.key_file, subdomain=name
        )

    async def get(self, name: str, timeout: float = 10.0) -> int:
        """The status of a small request; held for as long as the relay holds it."""
        request = f"GET / HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\nConnection: close\r\n\r\n"
        return (await exchange(self.relay.public_port, request.encode(), timeout)).status


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """Started once for all tests here."""
    dying, sipping, holding = Dying(), Sipping(), Holding()
    servers = {
        "t": holding,
        "dying": RawServer(dying.serve),
        "pour": RawServer(pour),
        "sip": RawServer(sipping.serve, early=True),
    }
    async with AsyncExitStack() as stack:
        for server in servers.values():
            await stack.enter_async_context(server)
        relay = await stack.enter_async_context(RelayProcess(args=["--grace", "1"]))
        names = [f"{name}={server.port}" for name, server in servers.items()]
        agent = AgentProcess(None, relay_port=relay.agents_port, key_file=relay.key_file, subdomain=names)
        await stack.enter_async_context(agent)
        await agent.established()
        begun = Begun(holding, relay.public_port)
        stack.callback(begun.close)
        yield House(relay, agent, begun, dying, sipping, servers)
        begun.close()
        await nothing_left(relay)


@pytest.fixture(autouse=True)
def leave(house: House) -> Iterator[None]:
    """Whatever a test begins ends with it."""
    yield
    house.begun.close()


# ---- the visitor leaves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_visitor_that_leaves_is_seen_by_the_local_service(house: House, kind: Kind, how: Leaves) -> None:
    """Within a second, whatever the exchange was doing, and the agent tells that it was cancelled."""
    for _round in range(ROUNDS):
        seen = len(house.agent.events)
        one = await house.begun.begin(kind, f"t.{DOMAIN}")
        one.client.reset() if how == "reset" else one.client.close()
        assert await one.request.stream.left_within(AT_ONCE)
        if kind != "pipe":  # whose end is passed on: it may go on in the other direction
            await house.agent.wait_event(cancelled(one.request), after=seen)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_visitor_that_leaves_a_download_unread(house: House, how: Leaves) -> None:
    """The local service is blocked by a visitor that does not read; when that one goes, the local service is free."""

    for _round in range(ROUNDS):
        async with await RawClient.connect(house.relay.public_port) as client:
            client.send(f"GET / HTTP/1.1\r\nHost: pour.{DOMAIN}\r\n\r\n".encode())
            await client.head()
            client.stream.pause()
            request = house.servers["pour"].requests[-1]
            await stalls(request)
            client.reset() if how == "reset" else client.close()
            assert await request.stream.left_within(AT_ONCE)


async def test_a_visitor_that_resets_an_upload_unread(house: House) -> None:
    """An upload that the local service does not read yet: after the visitor's reset it finds a part and an abort."""
    service, server = house.sipping, house.servers["sip"]
    for number in range(ROUNDS):
        service.go_on.clear()
        seen = len(house.agent.events)
        async with await RawClient.connect(house.relay.public_port) as client:
            client.send(f"POST / HTTP/1.1\r\nHost: sip.{DOMAIN}\r\nContent-Length: 100000000\r\n\r\n".encode())
            client.send(bytes(50_000_000))
            request = await server.received(number + 1)
            await stalls(request, client)
            client.reset()
            await house.agent.wait_event(cancelled(request), AT_ONCE, after=seen)
        service.go_on.set()
        await eventually(partial(broken, request))


async def test_visitors_that_leave_in_haste_leave_nothing(house: House) -> None:
    """Before, while or just after the local service is connected to: nothing is kept, and the agent stops at once."""
    host = f"haste.{DOMAIN}"
    async with house.agent_for("haste") as agent:
        await agent.established()
        for number in range(300):
            client = await RawClient.connect(house.relay.public_port)
            client.send(f"GET /head/haste HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            for _ in range(number % 5):
                await asyncio.sleep(0)
            client.reset()
        await nothing_left(house.relay)
        assert await agent.stop(timeout=2.0) == 0


# ---- the local service dies ------------------------------------------------------------------------------------------

BODY = bytes(range(256)) * 4
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
DEATHS: dict[str, tuple[bytes, Step]] = {
    "length": (LENGTH + BODY, CLOSE),
    "length, reset": (LENGTH + BODY, RESET),
    "length, nothing of it": (LENGTH, CLOSE),
    "length, nothing of it, reset": (LENGTH, RESET),
    "length, one byte short": (b"HTTP/1.1 200 OK\r\nContent-Length: 1025\r\n\r\n" + BODY, CLOSE),
    "chunked": (CHUNKED + chunk(BODY), CLOSE),
    "chunked, reset": (CHUNKED + chunk(BODY), RESET),
    "chunked, in a chunk": (CHUNKED + b"800\r\n" + BODY, CLOSE),
    "chunked, in the last chunk": (CHUNKED + chunk(BODY) + b"0\r\n", CLOSE),
    "chunked, in the last chunk, reset": (CHUNKED + chunk(BODY) + b"0\r\n", RESET),
    "until close, reset": (UNTIL_CLOSE + BODY, RESET),
    "until close, nothing of it, reset": (UNTIL_CLOSE, RESET),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a visitor saw of an answer that broke off."""

    line: bytes
    body: bytes
    how: str


async def look(port: int, version: str, service: Dying, expected: bytes) -> Seen:
    """Ask; once `expected` has come of the body the local service may die; how that looks."""
    service.now.clear()
    async with await RawClient.connect(port) as client:
        client.send(f"GET / {version}\r\nHost: dying.{DOMAIN}\r\n\r\n".encode())
        head = await client.head()
        await eventually(lambda: expected in client.stream.unread())
        service.now.set()
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(AT_ONCE):
                async for piece in client.body(head):
                    pieces.append(piece)
        except EndOfBytes as end:
            return Seen(head.line, b"".join(pieces), end.how)
        return Seen(head.line, b"".join(pieces), "a clean end")


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("name", DEATHS)
async def test_a_local_service_that_dies_is_never_a_clean_end(house: House, name: str, version: str) -> None:
    """Direct and through the tunnel the visitor has the same head, the same part of the body, and an abort."""
    service = house.dying
    service.said, service.how = DEATHS[name]
    service.waits = True
    expected = BODY if BODY in service.said else b""
    direct = await look(house.servers["dying"].port, version, service, expected)
    tunnelled = await look(house.relay.public_port, version, service, expected)
    assert direct.how in ("eof", "reset")
    assert tunnelled.how in ("eof", "reset")
    assert (tunnelled.line, tunnelled.body) == (direct.line, direct.body)
    if version == "HTTP/1.0" and b"Content-Length" not in service.said:
        assert tunnelled.how == "reset"


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("name", DEATHS)
async def test_a_local_service_that_dies_in_the_same_instant(house: House, name: str, version: str) -> None:
    """When the answer and its end come together the visitor sees an abort, or an answer of the relay in its place."""
    service = house.dying
    service.said, service.how = DEATHS[name]
    service.waits = False
    for _round in range(ROUNDS):
        request = f"GET / {version}\r\nHost: dying.{DOMAIN}\r\n\r\n".encode()
        response = await exchange(house.relay.public_port, request)
        if response.ended == "clean":
            assert response.head is not None
            assert (response.status, response.head.get("Relay-Error")) == (502, b"local_reset")
        else:
            assert BODY.startswith(response.body)
            assert response.framing != "close" or response.ended == "reset" or response.head is None


@pytest.mark.parametrize("how", [CLOSE, RESET], ids=["close", "reset"])
async def test_a_local_service_that_dies_before_it_answers(house: House, how: Step) -> None:
    """Nothing came: the relay says so, for a request with a body that is still being sent as well."""
    service = house.dying
    service.how, service.waits = how, False
    for service.said in (b"", b"HTTP/1.1 200 OK\r\nContent-Le"):
        for _round in range(ROUNDS):
            request = f"POST / HTTP/1.1\r\nHost: dying.{DOMAIN}\r\nContent-Length: 2\r\n\r\nok".encode()
            response = await exchange(house.relay.public_port, request)
            assert response.head is not None
            assert (response.status, response.head.get("Relay-Error")) == (502, b"local_reset")


# ---- the agent dies, the link breaks ---------------------------------------------------------------------------------


async def expect_abort(exchanges: list[InProgress], since: float, within: float, *, local: bool = True) -> None:
    """Every visitor sees an abort (or `agent_lost` where nothing had come), every local service that it was left."""

    async def one(each: InProgress) -> None:
        left = within - (time.monotonic() - since)
        outcome = await each.outcome(left)
        if each.kind in UNANSWERED:
            assert (outcome.status, outcome.code) == (502, b"agent_lost"), each.kind
        else:
            assert not outcome.clean, each.kind
        assert outcome.at - since < within, each.kind
        if local:
            assert await each.request.stream.left_within(within - (time.monotonic() - since)), each.kind
        each.client.close()

    async with asyncio.TaskGroup() as group:
        for each in exchanges:
            group.create_task(one(each))


@pytest.mark.chaos
async def test_an_agent_that_is_killed(house: House) -> None:
    """SIGKILL: aborts at once; a request meanwhile is held, and served once a new agent is there."""
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(house.agent_for("killed"))
        await agent.established()
        for _round in range(ROUNDS):
            exchanges = await house.begin_all("killed")
            since = time.monotonic()
            await agent.kill()
            await expect_abort(exchanges, since, AT_ONCE)
            held = asyncio.create_task(house.get("killed"))
            agent = await stack.enter_async_context(house.agent_for("killed"))
            await agent.wait_event("connecting")
            since = time.monotonic()
            assert await held == 200
            assert await house.get("killed") == 200
            assert time.monotonic() - since < AT_ONCE


@pytest.mark.chaos
@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_a_link_that_is_cut(house: House, how: How) -> None:
    """Aborts at once; the agent is back within a second, and what was asked meanwhile is served."""
    async with (
        FaultProcess(house.relay.agents_port) as proxy,
        house.agent_for(how, proxy.port) as agent,
    ):
        await agent.established()
        await both_links(agent)
        for _round in range(ROUNDS):
            exchanges = await house.begin_all(how)
            seen, seen_down = len(agent.events), len(house.relay.events)
            since = time.monotonic()
            assert await proxy.cut(how) == 2
            await house.relay.wait_event("agent_down", after=seen_down)
            held = [asyncio.create_task(house.get(how)) for _ in range(5)]
            assert await asyncio.gather(*held) == [200] * 5
            assert time.monotonic() - since < AT_ONCE
            await expect_abort(exchanges, since, AT_ONCE)
            await both_links(agent, seen)


async def both_links(agent: AgentProcess, after: int = 0) -> None:
    """Wait until both links of the agent are up."""
    for slot in (0, 1):
        await agent.wait_event(lambda event, slot=slot: is_(event, "connected", slot), after=after)  # type: ignore[misc]


# ---- links that carry one way only -----------------------------------------------------------------------------------


async def half_open(house: House, direction: Direction) -> None:
    """Nothing passes in this direction, no end either: aborts in time; the same agent is then served again."""
    async with (
        FaultProcess(house.relay.agents_port) as proxy,
        house.agent_for(f"half-{direction}", proxy.port) as agent,
    ):
        await agent.established()
        await both_links(agent)
        exchanges = await house.begin_all(f"half-{direction}")
        seen = len(agent.events)
        since = time.monotonic()
        await proxy.swallow(direction, new=False)
        await expect_abort(exchanges, since, HALF_OPEN)
        await both_links(agent, seen)
        assert time.monotonic() - since < HALF_OPEN + AT_ONCE
        assert await house.get(f"half-{direction}") == 200


async def taken_over(house: House) -> None:
    """A new agent takes the name of one whose links are half-open, within a second, and the old exchanges end."""
    async with AsyncExitStack() as stack:

        async def start() -> tuple[FaultProcess, AgentProcess]:
            proxy = await stack.enter_async_context(FaultProcess(house.relay.agents_port))
            return proxy, await stack.enter_async_context(house.agent_for("next", proxy.port))

        proxy, agent = await start()
        await agent.established()
        for _round in range(ROUNDS):
            exchanges = await house.begin_all("next")
            await proxy.swallow("both", new=True)
            proxy, new = await start()
            await new.wait_event("connecting")
            since = time.monotonic()
            await new.established()
            assert await house.get("next") == 200
            assert time.monotonic() - since < AT_ONCE
            await expect_abort(exchanges, since, AT_ONCE, local=False)
            await agent.kill()  # told to stop, it would finish its exchanges first
            agent = new


@pytest.mark.chaos
async def test_half_open_links(house: House) -> None:
    """One way, the other way, both ways, and a new agent before the verdict, all at the same time."""
    async with asyncio.TaskGroup() as group:
        for direction in ("up", "down", "both"):
            group.create_task(half_open(house, direction))
        group.create_task(taken_over(house))


# ---- small ones ------------------------------------------------------------------------------------------------------


def is_(event: Event, name: str, slot: int) -> bool:
    return event.get("event") == name and event.get("slot") == slot


def broken(request: Request) -> bool:
    """Whether the body broke off while it was read."""
    return request.broken is not None


def cancelled(request: Request) -> Callable[[Event], bool]:
    path = request.target.decode()
    return lambda event: event.get("event") == "request" and event["path"] == path and event.get("error") == "cancelled"


async def stalls(request: Request, client: RawClient | None = None) -> None:
    """Wait until nothing has moved for a while: every window and buffer between the two ends is full."""
    streams = [request.stream] + ([client.stream] if client else [])
    last: tuple[int, ...] = ()
    since = time.monotonic()
    while time.monotonic() - since < 0.3:
        now = tuple(stream.transport.get_write_buffer_size() for stream in streams)
        if now != last:
            last, since = now, time.monotonic()
        await request.stream.left_within(0.02)
