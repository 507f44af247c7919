"""The same exchange twice, straight to the local service and through the tunnel: what each end saw of it, as values.

`House.both` gives the two `Seen`, and `differences.predict` says what the second must be from the first. Nothing is
normalised here but what belongs to one hop by the bytes themselves: white space around values, sizes of chunks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from tests.support.messages import Ending, Framing, Head, Response
from tests.support.processes import DOMAIN, AgentProcess, Edge, RelayProcess
from tests.support.rawhttp import CLOSE, CONTINUE, RawClient, RawServer, Request, Step

PARSERS = ("httptools", "h11")
"""Each is the name of a tunnel, served by an agent with that parser."""

Fields = tuple[tuple[bytes, bytes], ...]
HeadSeen = tuple[bytes, Fields]


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request as the local service saw it."""

    method: bytes
    target: bytes
    version: bytes
    headers: Fields
    framing: Framing
    body: bytes
    trailers: Fields


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as the visitor saw it; `interim` and `line` are start lines with the headers below them."""

    interim: tuple[HeadSeen, ...]
    line: bytes
    headers: Fields
    framing: Framing
    body: bytes
    trailers: Fields
    ended: Ending


@dataclass(frozen=True, slots=True)
class Seen:
    """One exchange from both ends."""

    arrived: Arrived
    answered: Answered


@dataclass(slots=True)
class Script:
    """What the local service does: `interim` heads, then `head`, then the pieces of `body`, then it closes or not."""

    head: bytes
    body: Sequence[bytes] = ()
    interim: Sequence[bytes] = ()
    close: bool = False
    continues: bool = True
    """Whether it says 100 Continue to a request that expects it."""

    async def steps(self, request: Request) -> AsyncIterator[Step]:
        """As a handler of `RawServer(early=True)`."""
        if self.continues and (request.head.get("expect") or b"").lower() == b"100-continue":
            yield CONTINUE
        await request.read()
        for head in self.interim:
            yield head
        yield self.head
        for piece in self.body:
            yield piece
        if self.close:
            yield CLOSE


OK = Script(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", [b"ok"])


@dataclass(slots=True)
class House:
    """A relay with a tunnel for each parser, all to one local service that does what `script` says."""

    relay: RelayProcess
    agents: dict[str, AgentProcess]
    local: RawServer
    edge: Edge
    script: Callable[[Request], AsyncIterator[Step]] = field(default=OK.steps)

    @property
    def port(self) -> int:
        """The public port."""
        return self.relay.public_port

    def host(self, name: str) -> bytes:
        """What a visitor of this tunnel sends as Host."""
        return f"{name}.{DOMAIN}:{self.port}".encode()

    @property
    def local_authority(self) -> bytes:
        """What the local service is called by default."""
        return b"127.0.0.1:%d" % self.local.port

    def play(self, script: Script) -> None:
        """From now on."""
        self.script = script.steps

    async def visitor(self, timeout: float = 10.0) -> RawClient:
        """A connection to the relay."""
        return await RawClient.connect(self.port, timeout=timeout)

    async def both(self, request: bytes, script: Script | None = None, cuts: Sequence[int] = ()) -> tuple[Seen, Seen]:
        """(direct, through the tunnel) for the same bytes, sent in pieces that end at `cuts`."""
        if script is not None:
            self.play(script)
        return await self.once(self.local.port, request, cuts), await self.once(self.port, request, cuts)

    async def once(self, port: int, request: bytes, cuts: Sequence[int] = ()) -> Seen:
        """One exchange on a new connection."""
        self.local.requests.clear()
        method = request.partition(b" ")[0]
        async with await RawClient.connect(port) as client:
            start = 0
            for cut in sorted(cuts):
                client.send(request[start:cut])
                start = max(start, cut)
                await asyncio.sleep(0)  # one write each
            client.send(request[start:])
            response = await client.response(method)
            assert response.head is not None, f"no answer: {response.ended} {response.raw!r}"
            assert self.local.requests, f"the request did not arrive; the answer: {response.raw!r}"
        return Seen(arrived(self.local.requests[-1]), answered(response))


async def play(house: House, request: Request) -> AsyncIterator[Step]:
    """The handler of a house's local service."""
    async for step in house.script(request):
        yield step


@contextlib.asynccontextmanager
async def started(edge: Edge, serve_args: Sequence[str] = (), names: Sequence[str] = PARSERS) -> AsyncIterator[House]:
    """A house on free ports."""
    async with contextlib.AsyncExitStack() as stack:
        houses: list[House] = []
        local = await stack.enter_async_context(RawServer(lambda request: play(houses[0], request), early=True))
        relay = await stack.enter_async_context(RelayProcess(args=serve_args, edge=edge))
        agents = {
            name: AgentProcess(
                local.port,
                relay_port=relay.agents_port,
                key_file=relay.key_file,
                subdomain=name,
                args=["--http-parser", name],
            )
            for name in names
        }
        for agent in agents.values():
            stack.push_async_exit(agent)
        await asyncio.gather(*(agent.start() for agent in agents.values()))
        await asyncio.gather(*(agent.established() for agent in agents.values()))
        house = House(relay, agents, local, edge)
        houses.append(house)
        yield house


def arrived(request: Request) -> Arrived:
    """What a local service saw."""
    method, target, version = request.head.line.split(b" ")
    return Arrived(
        method,
        target,
        version,
        tuple(request.headers),
        request.framing,
        request.body,
        tuple(request.trailers),
    )


def answered(response: Response) -> Answered:
    """What a visitor saw."""
    assert response.head is not None
    return Answered(
        tuple(_head(head) for head in response.interim),
        response.head.line,
        tuple(response.head.headers),
        response.framing,
        response.body,
        tuple(response.trailers),
        response.ended,
    )


def _head(head: Head) -> HeadSeen:
    return head.line, tuple(head.headers)
