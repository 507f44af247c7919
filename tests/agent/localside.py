"""Both ends of the agent's local side, for its tests: a local service made of sockets, and a log of events.

The service uses the loop's socket calls, so that it is the same on every event loop. Every wait has a deadline.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self

import pytest

from relay.agent.answers import AnswerHead
from relay.agent.requests import FailureKind, LocalCall
from relay.exchange.heads import Fields, ResponseHead

DEADLINE = 10.0
LINGER_ZERO = struct.pack("ii", 1, 0)


def _loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    found: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.SelectorEventLoop}
    try:
        import uvloop
    except ImportError:
        return found
    return {**found, "uvloop": uvloop.new_event_loop}


LOOPS = _loops()


def on_every_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test, once on each event loop that the agent may run on; unread errors of the loop fail it."""

    @functools.wraps(test)
    def run(loop_name: str, **given: object) -> None:
        troubles: list[object] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
            async with asyncio.timeout(60):
                await test(**given)

        with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
            runner.run(main())
        assert troubles == []

    names = ["loop_name", *inspect.signature(test).parameters]  # what pytest has to fill
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    marked: Callable[..., None] = pytest.mark.parametrize("loop_name", LOOPS)(run)
    return marked


async def within(waiting: Awaitable[Any]) -> Any:
    """What the awaitable gives, before the deadline."""
    async with asyncio.timeout(DEADLINE):
        return await waiting


class Peer:
    """The local service's end of one connection."""

    def __init__(self, wire: socket.socket) -> None:
        self.wire = wire
        self.read = bytearray()
        self.reset_seen = False
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """All of it."""
        await within(self._loop.sock_sendall(self.wire, data))

    async def drip(self, data: bytes) -> None:
        """A byte at a time, each read by the agent before the next is sent."""
        for at in range(len(data)):
            await self.send(data[at : at + 1])
            await asyncio.sleep(0)

    async def until(self, mark: bytes) -> bytes:
        """What came, up to and with `mark`."""
        while mark not in self.read:
            assert await self._more(), f"ended before {mark!r}: {bytes(self.read)[-200:]!r}"
        end = self.read.index(mark) + len(mark)
        data = bytes(self.read[:end])
        del self.read[:end]
        return data

    async def exactly(self, count: int) -> bytes:
        """`count` bytes."""
        while len(self.read) < count:
            assert await self._more(), f"ended after {len(self.read)} of {count} bytes"
        data = bytes(self.read[:count])
        del self.read[:count]
        return data

    async def head(self) -> bytes:
        """One request head."""
        return await self.until(b"\r\n\r\n")

    async def rest(self) -> bytes:
        """Everything until the agent's end closes or half-closes; `reset_seen` tells how."""
        while await self._more():
            pass
        return bytes(self.read)

    async def _more(self) -> bool:
        try:
            data: bytes = await within(self._loop.sock_recv(self.wire, 65536))
        except ConnectionError:
            self.reset_seen = True
            return False
        self.read += data
        return bool(data)

    def fin(self) -> None:
        """No more bytes from here; the agent's may still come."""
        self.wire.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close, which the kernel makes a reset where bytes are unread."""
        self.wire.close()

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
        self.wire.close()


class Service:
    """A local service on a free port; each connection is accepted when the test asks for it."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.wire = socket.socket(family, socket.SOCK_STREAM)
        self.wire.bind((host, 0))
        self.wire.listen(128)
        self.wire.setblocking(False)
        self.port: int = self.wire.getsockname()[1]
        self.peers: list[Peer] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.wire.close()
        for peer in self.peers:
            peer.wire.close()

    async def accept(self) -> Peer:
        """The next connection."""
        wire, _ = await within(asyncio.get_running_loop().sock_accept(self.wire))
        wire.setblocking(False)
        peer = Peer(wire)
        self.peers.append(peer)
        return peer

    def nobody_waits(self) -> bool:
        """Whether no further connection was made."""
        try:
            wire, _ = self.wire.accept()
        except BlockingIOError:
            return True
        wire.close()
        return False


class Log:
    """`LocalEvents` that remembers: names of events in order (data only once in a row), heads, body, end."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.informational: list[ResponseHead] = []
        self.head: ResponseHead | None = None
        self.upgraded = False
        self.body = bytearray()
        self.pieces = 0
        self.trailers: Fields | None = None
        self.failure: tuple[FailureKind, str, bool] | None = None
        self.writable = 0
        self.call: LocalCall | None = None
        """Who takes the request now, where it was told."""
        self.over_at_both_ends = False
        self._news = asyncio.Event()

    def _note(self, name: str) -> None:
        if not (name == "data" and self.names[-1:] == ["data"]):
            self.names.append(name)
        self._news.set()

    def on_connected(self, call: LocalCall) -> None:
        self.call = call

    def on_informational(self, head: AnswerHead) -> None:
        self.informational.append(head.head)
        self._note("informational")

    def on_answer(self, head: AnswerHead) -> None:
        self.head = head.head
        self.upgraded = head.status == 101
        self._note("head")

    def on_whole(self, head: AnswerHead, body: bytes) -> None:
        assert head.status >= 200
        self.on_answer(head)
        self.on_answered(body, [], True)

    def on_body(self, data: bytes) -> None:
        assert type(data) is bytes
        assert data
        self.body += data
        self.pieces += 1
        self._note("data")

    def on_answered(self, data: bytes, trailers: Fields, over: bool) -> None:
        if data:
            self.on_body(data)
        self.trailers = trailers
        self.over_at_both_ends = over
        self._note("end")

    def on_failed(self, kind: FailureKind, detail: str, answered: bool) -> None:
        self.failure = (kind, detail, answered)
        self._note("failed")

    def on_taken(self) -> None:
        self.writable += 1
        self._news.set()

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until something is so; looked at after every event."""
        async with asyncio.timeout(DEADLINE):
            while not holds():
                self._news.clear()
                await self._news.wait()

    async def over(self) -> None:
        """Wait for the end or the failure."""
        await self.until(lambda: self.trailers is not None or self.failure is not None)
