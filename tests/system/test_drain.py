"""SIGTERM to a relay at work: what came in time is answered, what runs may finish, the rest is told why."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.support.child import eventually
from tests.support.local import LocalService
from tests.support.longer import LONGER
from tests.support.messages import Response
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess
from tests.support.rawhttp import RawClient, exchange
from tests.system.numbers import until
from tests.system.wspeers import Library, LocalWebSocket, Visitor, dial, local_service

GRACE = 1.5
HOST = f"t.{DOMAIN}".encode()
GET = b"GET /echo HTTP/1.1\r\nHost: %b\r\n\r\n" % HOST
RESTARTS = (1012, "the relay restarts")


@dataclass(frozen=True, slots=True)
class House:
    """A relay with an agent for `t`, a local service, and one for `ws`, a WebSocket server."""

    relay: RelayProcess
    local: LocalService
    sockets: LocalWebSocket

    async def connect(self) -> RawClient:
        return await RawClient.connect(self.relay.public_port)

    async def seasoned(self) -> RawClient:
        """A kept connection that has had an answer."""
        client = await self.connect()
        client.send(GET)
        assert _served(await client.response()) == (200, None)
        return client


@contextlib.asynccontextmanager
async def house(grace: float = GRACE, library: Library = "websockets") -> AsyncIterator[House]:
    async with contextlib.AsyncExitStack() as stack:
        local = await stack.enter_async_context(LocalService())
        sockets = await stack.enter_async_context(local_service(library))
        relay = await stack.enter_async_context(RelayProcess(args=["--grace", f"{grace}"]))
        names = [f"t={local.port}", f"ws={sockets.port}"]
        agent = AgentProcess(None, relay_port=relay.agents_port, key_file=relay.key_file, subdomain=names)
        await stack.enter_async_context(agent)
        await agent.established()
        yield House(relay, local, sockets)


def _served(response: Response) -> tuple[int | None, bytes | None]:
    """Its status, and what it says about the connection."""
    head = response.head
    assert head is not None
    assert response.ended == "clean", response.raw
    return response.status, head.get("connection")


async def _stop_while_all_waits(relay: RelayProcess, come: AsyncIterator[None]) -> None:
    """SIGTERM for a relay that is held; meanwhile visitors come, and wait in the kernel."""
    relay.signal(signal.SIGSTOP)
    async for _ in come:
        pass
    relay.signal(signal.SIGTERM)
    relay.signal(signal.SIGCONT)


async def test_who_has_come_before_the_signal_is_answered() -> None:
    """Connections that nobody has accepted yet, with a request and with half of one, and requests that nobody has read
    yet on kept connections: all get their answer, and with it `Connection: close`."""
    async with house() as at:
        kept = [await at.seasoned() for _ in range(10)]
        idle = await at.seasoned()
        new: list[RawClient] = []

        async def come() -> AsyncIterator[None]:
            for client in kept:
                client.send(GET)
            for number in range(30):
                new.append(await at.connect())
                new[-1].send(GET if number % 3 else GET[:40])
            yield

        await _stop_while_all_waits(at.relay, come())
        for client in new[::3]:
            client.send(GET[40:])
        for client in (*kept, *new):
            assert _served(await client.response()) == (200, b"close")
        assert await idle.rest() == (b"", "eof")
        for client in (*kept, *new, idle):
            client.close()
        assert await at.relay.wait(GRACE + 5.0) == 0


async def test_a_relay_that_stops_under_load() -> None:
    """Whoever got a connection gets an answer; an upload and an event stream that are under way end whole; readiness is
    withdrawn; when nothing is left the relay ends, long before its grace time does."""
    async with house(grace=30.0) as at:
        answers: list[Response] = []

        async def visit() -> None:
            """One after the other, each on a connection of its own, until no connection is to be had."""
            with contextlib.suppress(ConnectionRefusedError):
                while True:
                    async with await at.connect() as client:
                        client.send(GET)
                        answers.append(await client.response())

        async def upload() -> Response:
            async with await at.connect() as client:
                client.send(b"POST /sink HTTP/1.1\r\nHost: %b\r\nContent-Length: 10000\r\n\r\n" % HOST)
                client.send(bytes(5000))
                await eventually(lambda: len(at.local.sinks) == 1)
                begun.set()
                await at.relay.wait_event("stopping")
                client.send(bytes(5000))
                return await client.response()

        begun = asyncio.Event()
        events = await at.connect()
        events.send(b"GET /sse?count=15&every=0.1 HTTP/1.1\r\nHost: %b\r\n\r\n" % HOST)
        assert (await events.head()).status == 200
        visiting = [asyncio.create_task(visit()) for _ in range(8)]
        uploading = asyncio.create_task(upload())
        await begun.wait()
        await eventually(lambda: len(answers) > 100)
        at.relay.signal(signal.SIGTERM)
        await at.relay.wait_event("stopping")
        ready = await exchange(at.relay.internal_port, b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert ready.status == 503
        await asyncio.gather(*visiting)
        assert {_served(one)[0] for one in answers} == {200}
        assert _served(await uploading) == (200, b"close")
        told, ended = await events.rest()
        assert (told.count(b"data:"), told.endswith(b"\r\n0\r\n\r\n"), ended) == (15, True, "eof")
        events.close()
        assert await at.relay.wait(5.0) == 0


@pytest.mark.parametrize("library", ["websockets", pytest.param("aiohttp", marks=LONGER)])
async def test_what_outlives_the_grace_time(library: Library) -> None:
    """A WebSocket is closed with 1012 for the visitor and 1001 for the local service, an endless event stream is cut as
    an abort; neither before its time, and the relay ends with 0."""
    async with house(library=library) as at, dial(library, at.relay.public_port, f"ws.{DOMAIN}") as visitor:
        await visitor.send("hello")
        assert await visitor.receive() == "hello"
        events = await at.connect()
        events.send(b"GET /sse?count=10000&every=0.05 HTTP/1.1\r\nHost: %b\r\n\r\n" % HOST)
        await events.head()
        at.relay.signal(signal.SIGTERM)
        await at.relay.wait_event("stopping")
        began = time.monotonic()
        await visitor.send("still there")
        assert await visitor.receive() == "still there"
        assert await visitor.closed() == RESTARTS
        assert time.monotonic() - began > GRACE - 0.5
        told, ended = await events.rest()
        assert (told.endswith(b"0\r\n\r\n"), ended) == (False, "reset")
        assert await at.relay.wait(5.0) == 0
        await eventually(lambda: len(at.sockets.closed) == 1)
        assert at.sockets.closed == [(1001, RESTARTS[1])]


async def test_a_second_signal_ends_at_once() -> None:
    """Within a second, whatever runs; a WebSocket is still told why."""
    async with house(grace=60.0) as at, dial("websockets", at.relay.public_port, f"ws.{DOMAIN}") as visitor:
        await visitor.send("hello")
        assert await visitor.receive() == "hello"
        events = await at.connect()
        events.send(b"GET /sse?count=10000&every=0.05 HTTP/1.1\r\nHost: %b\r\n\r\n" % HOST)
        await events.head()
        await until(at.relay, {"relay_exchanges_open": 2})
        at.relay.signal(signal.SIGTERM)
        await at.relay.wait_event("stopping")
        began = time.monotonic()
        at.relay.signal(signal.SIGTERM)
        closing = asyncio.create_task(_closed(visitor))
        assert await at.relay.wait(5.0) == 0
        assert time.monotonic() - began < 1.0
        assert await closing == RESTARTS
        assert (await events.rest())[1] == "reset"


async def _closed(visitor: Visitor) -> tuple[int, str]:
    return await visitor.closed()
