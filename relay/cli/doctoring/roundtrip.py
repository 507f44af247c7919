"""A tunnel opened for a moment, before a little service of our own, and a visit to its public address from here.

What is measured is the way through the relay, whatever the local service does; nothing of that one becomes public.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from relay import __version__
from relay.agent.config import AgentSettings, KeySource
from relay.agent.targets import Target
from relay.cli.doctoring.errors import Trouble
from relay.cli.doctoring.talk import Answer, Talk, asked
from relay.cli.doctoring.ways import Place, proxy_of
from relay.cli.http_lines import REFUSALS
from relay.cli.output import sentence

UP_WITHIN = 6.0
BETWEEN_EVENTS = 0.2
"""Seconds between the two events that our own service sends."""
_ENDS = ("refused", "mint_failed", "revoked", "tunnel_closed", "error")


@dataclass(frozen=True, slots=True)
class Trip:
    """How a visit went. Times are in seconds."""

    first_byte: float
    first_event: float
    apart: float
    """Between two events, which were sent `BETWEEN_EVENTS` apart."""


def place_of(url: str) -> Place:
    """Where a public address leads. Raises `Trouble`."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    proxy = proxy_of(("wss" if tls else "ws") + url[len(parts.scheme) :])
    return Place(parts.hostname or "", parts.port or (443 if tls else 80), tls, proxy)


async def call(url: str) -> Answer:
    """GET of a public address. Raises `Trouble`."""
    talk, answer = await asked(place_of(url), "GET", "/", {"Connection": "close"})
    talk.line.close()
    return answer


@asynccontextmanager
async def opened(relay: str, keys: KeySource, name: str, port: int) -> AsyncIterator[str]:
    """The public address of a tunnel to a port of this machine, for as long as it is wanted. Raises `Trouble`."""
    from relay.agent.runner import Agent

    up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    last: list[Mapping[str, object]] = []

    def report(event: Mapping[str, object]) -> None:
        last.append(event)
        kind = event.get("event")
        if up.done():
            return
        if kind == "established":
            up.set_result(str(event.get("url")))
        elif kind in _ENDS:
            step = REFUSALS.get(str(event.get("code")), "").format(key="the one that was found")
            up.set_exception(Trouble(sentence(event.get("message", "The relay refused")), step or "See docs/agent.md"))

    target = Target("http", "127.0.0.1", port)
    settings = AgentSettings(relay_url=relay, keys=keys, tunnels=((name, target),), links=1)
    agent = Agent(settings, report, f"relay-doctor/{__version__}")
    running = asyncio.ensure_future(agent.run())
    try:
        async with asyncio.timeout(UP_WITHIN):
            await asyncio.wait((up, running), return_when=asyncio.FIRST_COMPLETED)
        if not up.done():
            raise Trouble("The agent ended before there was a tunnel", "Start it by itself to see why: relay http 3000")
        yield up.result()
    except TimeoutError:
        said = next((str(one["reason"]) for one in reversed(last) if one.get("reason")), "no answer")
        raise Trouble(
            f"There was no tunnel within {UP_WITHIN:g} seconds ({said})",
            "Look whether something in between (a proxy, say) lets no WebSocket pass",
        ) from None
    finally:
        agent.end()
        await asyncio.gather(running, return_exceptions=True)


class Service:
    """Our own: to whoever knows its path it sends two events, a little apart; to nobody else anything."""

    def __init__(self) -> None:
        self.path = "/" + secrets.token_urlsafe(16)
        self.word = secrets.token_urlsafe(16)
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Service:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.split(b" ", 2)[1] != self.path.encode():
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            else:
                event = f"data: {self.word}\n\n".encode()
                size = 2 * len(event)
                kind = b"Content-Type: text/event-stream\r\nConnection: close\r\n"
                writer.write(b"HTTP/1.1 200 OK\r\n" + kind + b"Content-Length: %d\r\n\r\n" % size + event)
                await writer.drain()
                await asyncio.sleep(BETWEEN_EVENTS)
                writer.write(event)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError):
            pass
        finally:
            writer.close()


async def visit(url: str, service: Service) -> Trip:
    """To our own service at its public address. Raises `Trouble`."""
    began = time.monotonic()
    talk, answer = await asked(place_of(url), "GET", service.path, {"Accept": "text/event-stream"})
    try:
        first_byte = time.monotonic() - began
        if answer.status != 200:
            raise Trouble(_answered(url, answer), "Look whether the name leads to this relay, in DNS and at its proxy")
        return Trip(first_byte, *await _events(talk, service, url, began))
    finally:
        talk.line.close()


async def _events(talk: Talk, service: Service, url: str, began: float) -> tuple[float, float]:
    word = await talk.event()
    first = time.monotonic()
    if word != service.word:
        raise Trouble(f"{url} is answered by something else", "Look whether the name leads to this relay")
    await talk.event()
    return first - began, time.monotonic() - first


def _answered(url: str, answer: Answer) -> str:
    error = answer.fields.get("relay-error")
    return f"{url} answered HTTP {answer.status}" + (f" ({error})" if error else ", and not the tunnel")
