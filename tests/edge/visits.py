"""A visitor's connection without a socket, and what stands behind it: a transport that remembers, a hub, an agent.

On a virtual loop; `Place.passes` lets time go by as the node does, with a sweep every quarter of a second.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from relay.edge.connection import Connection
from relay.edge.services import Services, Timeouts
from relay.edge.visitor import Visitor
from relay.exchange.heads import Fields, RequestHead, ResponseHead, decode_request, encode_fields, encode_response
from relay.tunnels.hold import HoldBounds
from relay.wire import frames
from relay.wire.errors import ResetCode
from relay.wire.frames import decode_reset, encode, encode_credit, encode_reset
from tests.mux.ends import settle
from tests.tunnels.agents import House, Keys, Knocker

HOST = b"Host: demo.tunnels.localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
SWEEP = 0.25
HIGH_WATER = 64 * 1024


def post(body: bytes, *, kind: bytes = b"text/plain", target: bytes = b"/", length: int | None = None) -> bytes:
    """A POST with its body."""
    size = len(body) if length is None else length
    return b"POST %b HTTP/1.1\r\n%bContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (target, HOST, kind, size, body)


class Transport(asyncio.Transport):
    """What a protocol is given: remembers what was written and how it ended."""

    def __init__(self, *, peer: Any = ("192.0.2.7", 50_000), tls: bool = False) -> None:
        super().__init__({"peername": peer, "ssl_object": object() if tls else None})
        self.protocol: Connection
        self.sent = bytearray()
        self.writes = 0
        """In how many pieces it was written."""
        self.unsent = 0
        """Bytes of `sent` that the visitor has not taken; grows only while `stuck`."""
        self.stuck = False
        self.reading = True
        self.arrived: list[bytes] = []
        """What the visitor sent while nobody read."""
        self.fin_sent = False
        self.aborted = False
        self.ended = False
        self._closing = False
        self._full = False
        self._loop = asyncio.get_running_loop()

    def write(self, data: Any) -> None:
        assert not self.fin_sent, "written behind the end"
        if self._closing:
            return
        self.sent += data
        self.writes += 1
        if self.stuck:
            self.unsent += len(data)
            if self.unsent > HIGH_WATER and not self._full:
                self._full = True
                self.protocol.pause_writing()

    def take(self, amount: int | None = None) -> None:
        """The visitor reads so much of what waits for it, or all."""
        self.unsent -= self.unsent if amount is None else min(amount, self.unsent)
        if self._full and self.unsent <= HIGH_WATER // 4:
            self._full = False
            self.protocol.resume_writing()
        if self._closing and not self.unsent:
            self._end()

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.most_unwritten = high

    most_unwritten: int | None = None

    def can_write_eof(self) -> bool:
        return self.get_extra_info("ssl_object") is None

    def write_eof(self) -> None:
        assert self.can_write_eof()
        self.fin_sent = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        self._loop.call_soon(self._read)

    def is_reading(self) -> bool:
        return self.reading

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        if not self.unsent:
            self._end()

    def abort(self) -> None:
        self._closing = True
        self.aborted = True
        self._end()

    def arrive(self, data: bytes) -> None:
        """Bytes of the visitor, which the protocol gets as soon as it reads."""
        self.arrived.append(data)
        self._read()

    def fin(self) -> None:
        """The visitor half-closes."""
        if not self._closing and not self.protocol.eof_received():
            self.close()

    def reset(self) -> None:
        """The visitor's end breaks."""
        self._closing = True
        self._end()

    def _read(self) -> None:
        while self.arrived and self.reading and not self._closing:
            data = self.arrived.pop(0)
            room = self.protocol.get_buffer(-1)
            part, rest = data[: len(room)], data[len(room) :]
            room[: len(part)] = part
            if rest:
                self.arrived.insert(0, rest)
            self.protocol.buffer_updated(len(part))

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self._loop.call_soon(self.protocol.connection_lost, None)


class Agent(Knocker):
    """An agent that is told what to answer; streams by number, the first one is 1."""

    def opened(self) -> list[tuple[int, RequestHead, bool]]:
        """(stream, request, whether it has no body) of every OPEN."""
        return [
            (number, decode_request(payload), bool(kind & frames.END_FLAG))
            for kind, number, payload in self.frames
            if kind & ~frames.END_FLAG == frames.OPEN
        ]

    def body(self, number: int) -> bytes:
        """What came of a request's body."""
        kinds = (frames.DATA, frames.DATA_END)
        return b"".join(payload for kind, on, payload in self.frames if kind in kinds and on == number)

    def cut(self, number: int) -> ResetCode | None:
        """How a stream was cut by the relay."""
        for kind, on, payload in self.frames:
            if kind == frames.RESET and on == number:
                return ResetCode(decode_reset(memoryview(payload))[0])
        return None

    async def head(self, number: int, status: int = 200, fields: Fields | None = None, reason: bytes = b"OK") -> None:
        """A response head."""
        await self.send(encode(frames.HEAD, number, encode_response(ResponseHead(status, reason, fields or []))))

    async def data(self, number: int, data: bytes, *, ended: bool = False) -> None:
        """A part of a body."""
        await self.send(encode(frames.DATA_END if ended else frames.DATA, number, data))

    async def end(self, number: int, trailers: Fields | None = None) -> None:
        """The end of an answer."""
        await self.send(encode(frames.END, number, encode_fields(trailers) if trailers else b""))

    async def answer(
        self, number: int, body: bytes = b"hello", status: int = 200, fields: Fields | None = None
    ) -> None:
        """A whole answer by length, in one message."""
        declared = [(b"Content-Length", b"%d" % len(body)), *(fields or [])]
        head = encode(frames.HEAD, number, encode_response(ResponseHead(status, b"OK", declared)))
        await self.send(head, encode(frames.DATA_END, number, body))

    async def credit(self, number: int, amount: int) -> None:
        """More room for a request's body."""
        await self.send(encode_credit(number, amount), encode_credit(0, amount))

    async def reset(self, number: int, code: ResetCode, detail: str = "") -> None:
        """A stream is cut."""
        await self.send(encode_reset(number, code, detail))


class Visit:
    """One connection of a visitor."""

    def __init__(self, services: Services, **transport: Any) -> None:
        self.visitor = Visitor(services)
        self.transport = Transport(**transport)
        self.transport.protocol = self.visitor
        self.visitor.connection_made(self.transport)

    async def send(self, *parts: bytes) -> None:
        """Bytes in pieces, and whatever they cause."""
        for part in parts:
            self.transport.arrive(part)
            await settle()

    @property
    def sent(self) -> bytes:
        """All that the visitor was sent."""
        return bytes(self.transport.sent)

    @property
    def statuses(self) -> list[int]:
        """Of every answer so far; bodies of these tests hold no status line."""
        return [int(digits) for digits in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", self.sent)]

    @property
    def code(self) -> str | None:
        """`Relay-Error` of the last answer that had one."""
        values = re.findall(rb"\r\nRelay-Error: ([a-z_]+)\r\n", self.sent)
        return values[-1].decode() if values else None

    @property
    def over(self) -> bool:
        """Whether the connection is at its end, for reading as for writing."""
        return self.transport.ended


class Place:
    """One relay's visitors' side with a hub, and an agent for the name `demo`."""

    def __init__(self, *, hold: float | HoldBounds = 10.0, timeouts: Timeouts | None = None, **services: Any) -> None:
        bounds = hold if isinstance(hold, HoldBounds) else HoldBounds(hold, per_name=4, in_all=6)
        self.house = House(Keys(), bounds)
        self.house.kind = Agent
        self.services = Services(self.house.hub, "tunnels.localhost", timeouts or Timeouts(), **services)
        self.loop = asyncio.get_running_loop()

    async def agent(self, *names: str, **hello: Any) -> Agent:
        """An agent that was welcomed."""
        agent = await self.house.agent(*names, **hello)
        assert isinstance(agent, Agent)
        assert agent.welcome is not None
        return agent

    def visit(self, **transport: Any) -> Visit:
        """A new connection."""
        return Visit(self.services, **transport)

    async def passes(self, seconds: float) -> None:
        """Time goes by, swept."""
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            await asyncio.sleep(min(SWEEP, max(end - self.loop.time(), 1e-6)))
            for visitor in list(self.services.visitors):
                visitor.check(self.loop.time())


async def served(method: bytes = b"GET", **options: Any) -> tuple[Place, Agent, Visit]:
    """A place, its agent, and a visitor whose first request is on stream 1."""
    place = Place(**options)
    agent = await place.agent()
    visit = place.visit()
    if method:
        await visit.send(GET.replace(b"GET", method))
        assert len(agent.opened()) == 1
    return place, agent, visit
