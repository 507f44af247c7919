"""The world around an agent: a local service that is restarted, a proxy, a name server, a process that was stopped, and
the agent's own end. What happens is told, nothing needs a hand, and nobody is told less than the truth.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError

from tests.support.child import Event, eventually
from tests.support.connectproxy import ConnectProxy, refusal
from tests.support.local import LocalProcess, LocalService
from tests.support.localws import websockets_echo
from tests.support.longer import CHAOS, LONGER
from tests.support.messages import Response
from tests.support.netspace import NetSpace, available
from tests.support.pattern import Meter, pieces
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess
from tests.support.rawhttp import RawClient, RawServer, chunk, exchange, ok
from tests.support.tlsfront import Doorstep, TlsFront, certificate
from tests.support.transfer import Arrival, events
from tests.system.numbers import nothing_left, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("agent_world")]

AT_ONCE = 1.0
RESTARTS = 20 if CHAOS else 2
STOPPED = 12.0
DEAD_WITHIN = 15.0
SECRET = "pr0xy-secret"


@dataclass(frozen=True, slots=True)
class House:
    """A relay; agents come and go."""

    relay: RelayProcess

    def agent(self, target: int | None, *names: str, **more: object) -> AgentProcess:
        """An agent, not started."""
        given = {"relay_port": self.relay.agents_port, "key_file": self.relay.key_file, "subdomain": names, **more}
        return AgentProcess(target, **given)  # type: ignore[arg-type]

    async def ask(self, name: str, path: str = "/", timeout: float = 15.0) -> Response:
        """One request to a name; held for as long as the relay holds it."""
        request = f"GET {path} HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\nConnection: close\r\n\r\n"
        return await exchange(self.relay.public_port, request.encode(), timeout)

    async def visitor(self) -> RawClient:
        """A connection to the public listener."""
        return await RawClient.connect(self.relay.public_port, timeout=15.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """Started once for all tests here."""
    async with RelayProcess(args=["--grace", "1"]) as relay:
        yield House(relay)
        await nothing_left(relay)


def named(kind: str, **members: object) -> partial[bool]:
    """Whether an event is of this kind and has these members."""
    return partial(_is, {"event": kind, **members})


def _is(wanted: Event, event: Event) -> bool:
    return wanted.items() <= event.items()


# ---- a local service that is restarted -------------------------------------------------------------------------------


@dataclass
class Asking:
    """Visitors who ask without a pause, and what they were told: (when they began, status, the relay's code)."""

    house: House
    name: str
    told: list[tuple[float, int, bytes]] = field(default_factory=list)
    over: bool = False

    async def ask(self) -> None:
        """One visitor."""
        while not self.over:
            begun = time.monotonic()
            response = await self.house.ask(self.name, "/count")
            assert response.head is not None
            self.told.append((begun, response.status, response.head.get("Relay-Error") or b""))

    def since(self, moment: float) -> Counter[tuple[int, bytes]]:
        """What was told to those who began after it."""
        return Counter((status, code) for begun, status, code in self.told if begun >= moment)


@pytest.mark.chaos
async def test_a_local_service_that_is_restarted(house: House) -> None:
    """Killed and started again on its port, under requests: errors with a name meanwhile, and served at once after."""
    async with AsyncExitStack() as stack:
        local = await stack.enter_async_context(LocalProcess())
        async with house.agent(local.port, "again") as agent:
            await agent.established()
            asking = Asking(house, "again")
            visitors = [asyncio.create_task(asking.ask()) for _ in range(4)]
            for _ in range(RESTARTS):
                await eventually(lambda: bool(asking.since(0)[200, b""]))
                await local.kill()
                gone = time.monotonic()
                await eventually(lambda gone=gone: asking.since(gone).total() > 20)  # type: ignore[misc]
                meanwhile = asking.since(gone)
                local = await stack.enter_async_context(LocalProcess(local.port))
                back = time.monotonic()
                await eventually(lambda back=back: asking.since(back).total() > 20)  # type: ignore[misc]
                assert set(asking.since(back)) == {(200, b"")}
                assert set(meanwhile) <= {(502, b"local_refused"), (502, b"local_reset")}
            asking.over = True
            await asyncio.gather(*visitors)
            assert set(asking.since(0)) <= {(200, b""), (502, b"local_refused"), (502, b"local_reset")}


# ---- names and proxies -----------------------------------------------------------------------------------------------


async def test_a_relay_whose_name_does_not_resolve(house: House) -> None:
    """It is said why, tried on, and the agent can be stopped at any time."""
    async with house.agent(1, "nowhere", relay_port=0, args=["--relay", "wss://relay.invalid"]) as agent:
        seen = 0
        for _ in range(3):
            lost = await agent.wait_event("disconnected", after=seen)
            seen = agent.events.index(lost) + 1
            assert lost["reason"].startswith("the name does not resolve")
        assert await agent.stop(timeout=2.0) == 0


async def test_a_proxy_on_the_way(house: House, tmp_path: Path) -> None:
    """`HTTPS_PROXY` in front of a relay with TLS: what it refuses is told by its name, then it lets through, goes away
    and comes back; its user and password show nowhere.
    """
    file = certificate(tmp_path, "relay.example")
    async with AsyncExitStack() as stack:
        front = await stack.enter_async_context(TlsFront(house.relay.agents_port, file))
        local = await stack.enter_async_context(RawServer(lambda request: ok(b"here")))
        proxy = ConnectProxy({"relay.example:443": front.port}, user="me", password=SECRET)
        await proxy.__aenter__()
        proxy.answer = refusal(407)
        env = {"HTTPS_PROXY": f"http://me:{SECRET}@127.0.0.1:{proxy.port}", "SSL_CERT_FILE": str(file)}
        agent = house.agent(local.port, "proxied", relay_port=0, args=["--relay", "wss://relay.example"], env=env)
        await stack.enter_async_context(agent)
        for status, words in ((407, "wants a user and a password"), (502, "does not reach relay.example")):
            proxy.answer, seen = refusal(status), len(agent.events)
            lost = await agent.wait_event(lambda event: f"HTTP {status}" in event.get("reason", ""), after=seen)  # noqa: B023
            assert words in lost["reason"]
            assert f"127.0.0.1:{proxy.port}" in lost["reason"]
        proxy.answer = None
        await agent.established()
        assert (await house.ask("proxied")).body == b"here"

        seen = len(agent.events)
        await proxy.__aexit__()
        words = f"the proxy 127.0.0.1:{proxy.port} cannot be reached: connection refused"
        await agent.wait_event(named("disconnected", reason=words), after=seen)
        waiting = asyncio.create_task(house.ask("proxied"))
        async with proxy:
            assert (await waiting).body == b"here"
            assert await agent.stop() == 0
        shown = json.dumps(agent.events) + agent.stderr + "".join(agent.lines)
        assert SECRET not in shown


async def test_a_proxy_on_the_way_to_a_key(house: House) -> None:
    """An agent that mints its own key asks for it the same way, and says what the proxy said."""
    async with ConnectProxy({}) as proxy:
        env = {"HTTPS_PROXY": f"http://me:{SECRET}@127.0.0.1:{proxy.port}"}
        operator = house.relay.data / "operator.key"
        args = ["--relay", "wss://relay.example"]
        async with house.agent(1, "minted", relay_port=0, args=args, env=env, key_file=operator) as agent:
            failed = await agent.wait_event("mint_failed")
            assert "proxy" in failed["message"]
            assert "HTTP 502" in failed["message"]
            assert SECRET not in json.dumps(agent.events) + agent.stderr
            assert proxy.asked[0] == "relay.example:443"


# ---- the agent's own end ---------------------------------------------------------------------------------------------


@dataclass
class Busy:
    """An agent in the middle of an upload, an event stream and a WebSocket; `second` is what a second agent serves."""

    agent: AgentProcess
    local: LocalService
    uploading: RawClient
    arrivals: asyncio.Task[list[Arrival]]
    socket: ClientConnection
    streaming: RawClient
    body: list[memoryview]

    async def finish_upload(self) -> None:
        """The rest of the body, and an answer that counts all of it."""
        for piece in self.body:
            await self.uploading.send_all(chunk(piece))
        self.uploading.send(b"0\r\n\r\n")
        answer = json.loads((await self.uploading.response(b"POST")).body)
        assert answer["intact"]
        assert answer["bytes"] == 1_000_000

    async def echoes(self) -> bool:
        """Whether the WebSocket still carries messages."""
        await self.socket.send("still there?")
        return await asyncio.wait_for(self.socket.recv(), 5) == "still there?"


@contextlib.asynccontextmanager
async def busy(house: House, name: str, count: int) -> AsyncIterator[Busy]:
    """See `Busy`; the event stream has `count` events, one each 50 ms."""
    async with AsyncExitStack() as stack:
        local = await stack.enter_async_context(LocalService())
        echo = await stack.enter_async_context(websockets_echo())
        names = [f"{name}={local.port}", f"{name}-ws={echo}"]
        agent = await stack.enter_async_context(house.agent(None, *names))
        await both_up(agent)  # one that came up later would be given what waits
        body = list(pieces(1_000_000, 100_000))
        uploading = await stack.enter_async_context(await house.visitor())
        head = f"POST /sink HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\nTransfer-Encoding: chunked\r\n\r\n"
        uploading.send(head.encode() + chunk(body.pop(0)))
        await eventually(lambda: bool(local.sinks))
        streaming = await stack.enter_async_context(await house.visitor())

        async def all_events() -> list[Arrival]:
            target = f"/sse?count={count}&every=0.05"
            return [arrival async for arrival in events(streaming, target, f"{name}.{DOMAIN}")]

        arrivals = asyncio.create_task(all_events())
        stack.push_async_callback(given_up, arrivals)
        port = house.relay.public_port
        uri = f"ws://{name}-ws.{DOMAIN}:{port}/"
        socket = await stack.enter_async_context(connect(uri, host="127.0.0.1", port=port, proxy=None, close_timeout=1))
        one = Busy(agent, local, uploading, arrivals, socket, streaming, body)
        assert await one.echoes()
        await eventually(lambda: len(local.requests) == 2)
        yield one


async def given_up(task: asyncio.Task[list[Arrival]]) -> None:
    """Whatever it came to."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_agent_that_stops_finishes_what_it_began(house: House) -> None:
    """SIGTERM: what runs goes on, a new request waits for the agent that is started then, and the first one ends by
    itself, with 0, when the last of its exchanges has.
    """
    async with busy(house, "drained", 20) as one, RawServer(lambda request: ok(b"second")) as local:
        seen = len(house.relay.events)
        one.agent.signal(signal.SIGTERM)
        assert (await one.agent.wait_event("stopping"))["open"] == 3
        await house.relay.wait_event("agent_down", after=seen)
        waiting = [asyncio.create_task(house.ask("drained", f"/{number}")) for number in range(10)]
        await until(house.relay, {"relay_requests_held": 10})
        async with house.agent(local.port, "drained", "drained-ws") as second:
            await second.established()
            assert {(await each).body for each in waiting} == {b"second"}
            await one.finish_upload()
            assert [json.loads(each.fields["data"])["n"] for each in await one.arrivals] == list(range(20))
            assert await one.echoes()
            assert one.agent.returncode is None
            await one.socket.close()
            assert await one.agent.wait(AT_ONCE + 5.0) == 0
            assert one.agent.events[-1] == {"event": "stopped", "exit_code": 0}
            assert (await house.ask("drained")).body == b"second"


async def test_an_agent_that_is_told_twice_stops_at_once(house: House) -> None:
    """What still ran breaks off for the visitor, never as a clean end, and for the local service; exit code 0."""
    async with busy(house, "cut", 1000) as one:
        one.agent.signal(signal.SIGTERM)
        await one.agent.wait_event("stopping")
        assert await one.echoes()
        since = time.monotonic()
        one.agent.signal(signal.SIGTERM)
        assert await one.agent.wait() == 0
        assert time.monotonic() - since < 4.0
        with pytest.raises(ConnectionClosedError) as caught:
            await asyncio.wait_for(one.socket.recv(), AT_ONCE)
        assert caught.value.rcvd is None
        (broken,) = await asyncio.gather(one.arrivals, return_exceptions=True)
        assert type(broken).__name__ == "EndOfBytes"
        answer = await one.uploading.response(b"POST")
        assert answer.head is not None
        assert (answer.status, answer.head.get("Relay-Error")) == (502, b"agent_lost")
        for request in one.local.requests:
            assert await request.stream.left_within(AT_ONCE)


async def test_a_download_that_a_visitor_reads_slowly_comes_whole(house: House) -> None:
    """The local service was done, and its agent told to stop, before the visitor had read the most of it."""
    size = 64 * 2**20 if CHAOS else 12 * 2**20
    async with LocalService() as local, house.agent(local.port, "slow") as agent:
        await agent.established()
        async with await house.visitor() as client:
            client.send(f"GET /bytes/{size} HTTP/1.1\r\nHost: slow.{DOMAIN}\r\n\r\n".encode())
            head = await client.head()
            client.stream.pause()
            await eventually(lambda: bool(agent.events))
            agent.signal(signal.SIGTERM)
            await agent.wait_event("stopping")
            meter = Meter()
            async for piece in client.body(head):
                meter.add(piece)
                if meter.size < 2**20:
                    client.stream.pause()
            assert (meter.size, meter.intact) == (size, True)
        assert await agent.wait(5.0) == 0


# ---- a process that was stopped --------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [pytest.param(1, marks=LONGER), pytest.param(2, marks=LONGER)])
async def test_an_agent_that_was_stopped_comes_back_by_itself(house: House, links: int) -> None:
    """As a laptop that slept: the relay has given it up, it says how long it was away, and serves at once again."""
    name = f"stopped{links}"
    async with (
        RawServer(lambda request: ok(b"here")) as local,
        house.agent(local.port, name, args=["--links", str(links)]) as agent,
    ):
        await agent.established()
        for _ in range(2):
            seen, seen_down = len(agent.events), len(house.relay.events)
            begun = time.monotonic()
            agent.signal(signal.SIGSTOP)
            down = await house.relay.wait_event("agent_down", 20.0, after=seen_down)
            assert name in json.dumps(down)
            await asyncio.sleep(max(0.0, STOPPED - (time.monotonic() - begun)))
            waiting = asyncio.create_task(house.ask(name))
            await until(house.relay, {"relay_requests_held": 1})
            since = time.monotonic()
            agent.signal(signal.SIGCONT)
            assert (await waiting).body == b"here"
            assert time.monotonic() - since < AT_ONCE
            woke = await agent.wait_event("woke", after=seen)
            assert woke["asleep"] > STOPPED - 2


# ---- a network that changes ------------------------------------------------------------------------------------------


@pytest.mark.chaos
@pytest.mark.skipif(not (CHAOS and available()), reason="needs a network namespace, in `make chaos`")
async def test_an_agent_whose_network_changes_comes_back_by_itself(house: House) -> None:
    """Another address on the way to the relay, or none for a while: it is told, and visitors wait for it to be back."""
    async with AsyncExitStack() as stack:
        space = await stack.enter_async_context(NetSpace())
        local = await stack.enter_async_context(Doorstep(0))
        service = await stack.enter_async_context(RawServer(lambda request: ok(b"here")))
        local.behind = service.port
        relay = await stack.enter_async_context(Doorstep(house.relay.agents_port))
        agent = house.agent(
            None,
            f"moved={space.here}:{local.port}",
            relay_port=0,
            args=["--relay", f"ws://{space.here}:{relay.port}", "--insecure"],
        )
        agent.argv = (*space.prefix, *agent.argv)
        await stack.enter_async_context(agent)
        await both_up(agent)
        for _ in range(3):
            seen = len(agent.events)
            since = time.monotonic()
            await space.move()
            changed = await agent.wait_event("network_changed", after=seen)
            assert changed["address"] == space.there
            await both_up(agent, seen)
            assert (await house.ask("moved")).body == b"here"
            assert time.monotonic() - since < 3.0
        for away in (3.0, 20.0):
            seen = len(agent.events)
            await space.unplug()
            await asyncio.sleep(away)
            since = time.monotonic()
            await space.plug()
            await agent.wait_event("network_changed", after=seen)
            if away > DEAD_WITHIN:
                await both_up(agent, seen)  # else the links have outlived it
            assert (await house.ask("moved")).body == b"here"
            assert time.monotonic() - since < 5.0


async def both_up(agent: AgentProcess, after: int = 0) -> None:
    """Until both of its links are up."""
    for slot in (0, 1):
        await agent.wait_event(named("connected", slot=slot), after=after)
