"""Requests that can be told apart at both ends: each carries a nonce, its answer must bring it back, deliveries count.

`Nonces` is the local service, `Caller` a visitor that asks one thing after another, `Ledger` what all of them saw.
Whatever a visitor saw, a nonce was delivered at most once; exactly once where the local service's own answer came.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

from tests.support.messages import Response
from tests.support.processes import DOMAIN
from tests.support.rawhttp import RawClient, RawServer, Request, Step, chunk, ok
from tests.support.rawstream import EndOfBytes

PATIENCE = 15.0
"""Seconds that a visitor waits for an answer: more than a request is ever held."""
SIZES = (0, 1, 100, 3_000, 40_000)

Outcome = str
"""`served`, `wrong` (another's answer), `broke off`, `refused` (no connection), `late`, else the relay's own code."""
Method = Literal["GET", "POST"]
METHODS: tuple[Method, ...] = ("GET", "POST")


class Nonces(RawServer):
    """A local service that counts nonces (`deliveries`) and answers with the nonce and the length of the body."""

    def __init__(self) -> None:
        super().__init__(self._count, early=True)

    async def _count(self, request: Request) -> AsyncIterator[Step]:
        body = await request.read()
        yield ok(b"%b %d" % (request.head.get("x-nonce") or b"", len(body)))


@dataclass
class Ledger:
    """Outcomes of all requests so far; `prefix` keeps its nonces apart from those of another at the same service."""

    prefix: str = ""
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    served: list[bytes] = field(default_factory=list)
    waits: list[tuple[float, float]] = field(default_factory=list)
    """Of those served: when the request began (monotonic), and the seconds to its whole answer."""
    strange: list[str] = field(default_factory=list)
    """What came in place of an answer that was expected; for the message of a failure."""
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def nonce(self) -> bytes:
        """One that no other request has."""
        return f"{self.prefix}{next(self._numbers)}".encode()

    def add(self, outcome: Outcome, nonce: bytes, began: float, told: str) -> None:
        """One request is over."""
        self.outcomes[outcome] += 1
        if outcome == "served":
            self.served.append(nonce)
            self.waits.append((began, time.monotonic() - began))
        elif len(self.strange) < 20:
            self.strange.append(f"{outcome}: {told}"[:300])

    def failures(self, allowed: frozenset[Outcome] = frozenset()) -> dict[Outcome, int]:
        """Outcomes other than `served` and those."""
        return {name: count for name, count in self.outcomes.items() if name != "served" and name not in allowed}

    def delivered_twice(self, local: RawServer) -> list[bytes]:
        """Nonces that the local service saw more than once."""
        return [nonce for nonce, count in local.deliveries.items() if count > 1]

    def served_undelivered(self, local: RawServer) -> list[bytes]:
        """Nonces whose answer came though the local service never saw them."""
        return [nonce for nonce in self.served if local.deliveries[nonce] != 1]


class Caller:
    """One visitor, on one connection for as long as that lasts."""

    def __init__(self, port: int, ledger: Ledger, chance: random.Random) -> None:
        self._port = port
        self._ledger = ledger
        self._chance = chance
        self._client: RawClient | None = None

    async def ask(self, name: str, method: Method | None = None) -> Outcome:
        """One request to the tunnel of this name, by chance a GET or a POST with some body."""
        chance, nonce, began = self._chance, self._ledger.nonce(), time.monotonic()
        way = chance.choice(METHODS) if method is None else method
        size = chance.choice(SIZES) if way == "POST" else 0
        told = f"{way} of {size} bytes"
        try:
            client = self._client = self._client or await RawClient.connect(self._port, timeout=PATIENCE)
            client.send(self._head(name, way, nonce, size))
            response = await client.response(way.encode())
            outcome = judge(response, b"%b %d" % (nonce, size))
            told += f" → {response.ended} {response.raw[:200]!r}"
        except (OSError, EndOfBytes, TimeoutError) as error:
            outcome = "late" if isinstance(error, TimeoutError) else "refused"
            told += f" → {error!r}"
        if outcome != "served" or chance.random() < 0.02:
            self.close()
        self._ledger.add(outcome, nonce, began, told)
        return outcome

    def _head(self, name: str, method: Method, nonce: bytes, size: int) -> bytes:
        head = f"{method} /{'x' * self._chance.randrange(20)} HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\n".encode()
        head += b"X-Nonce: %b\r\n" % nonce
        if method == "GET":
            return head + b"\r\n"
        if size and self._chance.random() < 0.5:
            return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(bytes(size)) + b"0\r\n\r\n"
        return head + b"Content-Length: %d\r\n\r\n" % size + bytes(size)

    def close(self) -> None:
        """Leave; the next request comes on a new connection."""
        if self._client is not None:
            self._client.close()
        self._client = None


def judge(response: Response, expected: bytes) -> Outcome:
    """What an answer is, to whoever waits for this body."""
    if response.head is None or response.ended != "clean":
        return "broke off"
    code = response.head.get("Relay-Error")
    if code is not None:
        return code.decode()
    return "served" if (response.status, response.body) == (200, expected) else "wrong"


async def lateness(worst: list[float], every: float = 0.01) -> None:
    """Until cancelled: how many seconds late each timer of this process fires, for bounds on a machine that is busy."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every
        await asyncio.sleep(every)
        worst.append(max(loop.time() - due, 0.0))
