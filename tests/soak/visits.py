"""What visitors do in a soak: exchanges of every kind, each of which knows what it must see in the end.

A visit gives `OK` or, in a word, what came instead: the relay's own code, `broke off`, `late`, `wrong` for what nobody
should ever see. What may be the fault of a fault is for `verdict` to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import random
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from tests.support.messages import Head, Response
from tests.support.pattern import whole
from tests.support.rawhttp import RawClient, chunk
from tests.support.rawstream import EndOfBytes
from tests.support.transfer import Transfer, download, upload

OK = "ok"
PATIENCE = 20.0
"""Seconds for one step of a visit: more than a request is held, and more than a half-open link is believed."""
KIB = 1024
BREAKS = {"close": "local_reset", "garbage": "bad_response", "half": "broke off"}
CLOSED, REASON = 4321, "as you wish"


@dataclass(frozen=True, slots=True)
class Visit:
    """One exchange that is over: by which name, of which kind, when (monotonic seconds), and what came of it."""

    name: str
    kind: str
    began: float
    ended: float
    outcome: str
    detail: str = ""


@dataclass
class Place:
    """Where a visitor goes: the names of one agent's HTTP and WebSocket tunnels, and the relay's port."""

    port: int
    name: str
    domain: str
    visits: list[Visit] = field(default_factory=list)
    begun: int = 0

    def did_well(self, kinds: Collection[str]) -> bool:
        """Whether a visit of each kind has gone well."""
        return set(kinds) <= {visit.kind for visit in self.visits if visit.outcome == OK}

    @property
    def host(self) -> str:
        """Of the HTTP tunnel."""
        return f"{self.name}.{self.domain}"

    @property
    def ws_host(self) -> str:
        """Of the WebSocket tunnel."""
        return f"{self.name}-ws.{self.domain}"


class Visitor:
    """One visitor, who does one kind of thing again and again."""

    _numbers = itertools.count(1)

    def __init__(self, place: Place, kind: str, chance: random.Random) -> None:
        self.place = place
        self.kind = kind
        self.chance = chance
        self._client: RawClient | None = None
        self._detail = ""
        self._do: Callable[[], Awaitable[str]] = getattr(self, f"_{kind}")

    async def run(self, ending: asyncio.Event, pause: float) -> None:
        """Until `ending` is set; a visit that has begun is finished."""
        place = self.place
        while not ending.is_set():
            place.begun += 1
            began, self._detail = time.monotonic(), ""
            try:
                outcome = await self._do()
            except TimeoutError:
                outcome = "late"
            except (EndOfBytes, OSError, ConnectionClosed, InvalidHandshake) as error:
                outcome, self._detail = "broke off", repr(error)[:200]
            if outcome != OK:
                self._leave()
            place.visits.append(Visit(place.name, self.kind, began, time.monotonic(), outcome, self._detail))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), self.chance.uniform(0.0, 2 * pause))
        self._leave()

    def _leave(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    async def _ask(self, method: str, target: str, body: bytes = b"", *fields: str) -> Response:
        """One request on the kept connection, which is left now and then."""
        if self.chance.random() < 0.05:
            self._leave()
        client = self._client = self._client or await RawClient.connect(self.place.port, timeout=PATIENCE)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.place.host}", *fields]
        if method == "POST" and self.chance.random() < 0.5:
            lines.append("Transfer-Encoding: chunked")
            body = (chunk(body) if body else b"") + b"0\r\n\r\n"
        elif method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        client.send(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        response = await client.response(method.encode())
        self._detail = f"{response.ended} {response.raw[:160]!r}"
        return response

    # ---- the kinds

    async def _small(self) -> str:
        """A GET or a small POST, delivered once, and answered with its own nonce."""
        nonce = f"{self.kind}{next(self._numbers)}"
        response = await self._ask(self.chance.choice(("GET", "POST")), "/count", b"", f"X-Nonce: {nonce}")
        if (trouble := trouble_of(response)) is not None:
            return trouble
        return OK if json.loads(response.body) == {"nonce": nonce, "deliveries": 1} else "wrong"

    async def _echo(self) -> str:
        """A POST of up to 200 KiB, of which the local service tells the hash."""
        body = self.chance.randbytes(self.chance.choice((0, 1, 100, 5_000, 70_000, 200 * KIB)))
        response = await self._ask("POST", "/echo", body)
        if (trouble := trouble_of(response)) is not None:
            return trouble
        told = json.loads(response.body)
        return OK if (told["length"], told["sha256"]) == (len(body), hashlib.sha256(body).hexdigest()) else "wrong"

    async def _events(self) -> str:
        """Server-sent events for a second or so, every one of them in its turn."""
        count, came = self.chance.randint(5, 25), b""
        async with await RawClient.connect(self.place.port, timeout=PATIENCE) as client:
            target = f"/sse?count={count}&every=0.05&pad=300"
            client.send(f"GET {target} HTTP/1.1\r\nHost: {self.place.host}\r\n\r\n".encode())
            head = await client.head()
            if (trouble := trouble_at(head)) is not None:
                return trouble
            async with asyncio.timeout(PATIENCE):
                async for piece in client.body(head):
                    came += piece
                    self._detail = f"{len(came)} bytes of {count} events"
        numbers = [line.removeprefix(b"id: ") for line in came.split(b"\n") if line.startswith(b"id: ")]
        return OK if numbers == [b"%d" % number for number in range(count)] else "wrong"

    async def _websocket(self) -> str:
        """Messages of many sizes, each of which comes back, and a close that says what it was asked to."""
        dial = connect(
            f"ws://{self.place.ws_host}:{self.place.port}/",
            host="127.0.0.1",
            port=self.place.port,
            compression=None,
            proxy=None,
            close_timeout=2.0,
            ping_interval=None,
        )
        try:
            async with asyncio.timeout(PATIENCE), dial as peer:
                for _ in range(self.chance.randint(1, 12)):
                    message = self.chance.randbytes(self.chance.choice((0, 1, 125, 126, 4_000, 70_000)))
                    await peer.send(message)
                    if await peer.recv() != message:
                        return "wrong"
                await peer.send("close")
                await peer.wait_closed()
                return OK if (peer.close_code, peer.close_reason) == (CLOSED, REASON) else "broke off"
        except InvalidStatus as error:
            return error.response.headers.get("Relay-Error", f"status {error.response.status_code}")

    async def _upload(self) -> str:
        """The pattern, checked where it arrives."""
        size = self.chance.randint(1, 2048 * KIB)
        async with asyncio.timeout(PATIENCE):
            done = await upload(self.place.port, "/sink?hash=none", size, host=self.place.host)
        if (trouble := trouble_of(done)) is not None:
            return trouble
        return OK if (done.answer.get("bytes"), done.answer.get("intact")) == (size, True) else "wrong"

    async def _download(self) -> str:
        """The pattern, checked here."""
        size = self.chance.randint(1, 3072 * KIB)
        framing = self.chance.choice(("length", "chunked"))
        async with asyncio.timeout(PATIENCE):
            done = await download(self.place.port, f"/bytes/{size}?framing={framing}", host=self.place.host)
        if (trouble := trouble_of(done)) is not None:
            return trouble
        return OK if done.meter.size == size and done.meter.intact else "wrong"

    async def _leaver(self) -> str:
        """Begins something long, takes a part of it, and is gone, with a reset or without."""
        what = self.chance.choice(("/bytes/60000000", "/sse?count=500&every=0.02", "upload"))
        async with await RawClient.connect(self.place.port, timeout=PATIENCE) as client:
            host = f"HTTP/1.1\r\nHost: {self.place.host}\r\n"
            if what == "upload":
                client.send(f"POST /sink?rate=200000 {host}Content-Length: 4000000\r\n\r\n".encode() + whole(200 * KIB))
            else:
                client.send(f"GET {what} {host}\r\n".encode())
                if (trouble := trouble_at(await client.head())) is not None:
                    return trouble
                await client.stream.some()
            await client.stream.left_within(self.chance.uniform(0.0, 0.3))
            if self.chance.random() < 0.5:
                client.reset()
        return OK

    async def _breaker(self) -> str:
        """A local service that breaks: exactly that is told."""
        how = self.chance.choice(tuple(BREAKS))
        response = await self._ask("GET", f"/break/{how}")
        trouble = trouble_of(response) or OK
        if trouble == BREAKS[how]:
            if trouble == "broke off":
                self._leave()
            return OK
        return trouble if trouble != OK else "wrong"


KINDS = ("small", "echo", "events", "websocket", "upload", "download", "leaver", "breaker")


def trouble_at(head: Head) -> str | None:
    """What is wrong with the head of an answer that should be the local service's own, and good; None: nothing."""
    code = head.get("Relay-Error")
    if code is not None:
        return code.decode()
    return None if head.status == 200 else f"status {head.status}"


def trouble_of(answer: Response | Transfer) -> str | None:
    """The same of a whole answer, which must also have ended well."""
    if answer.head is None:
        return "broke off"
    return trouble_at(answer.head) or (None if answer.ended == "clean" else "broke off")
