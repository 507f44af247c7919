"""A local service that means harm, in the tests' process or its own: what it says never ends, or bursts its framing.

/NAME     the offence of that name (a space is %20)
/any      the next one, in turn
/fine     nothing wrong

async with HostileProcess() as local: ... local.port
"""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote

from tests.support.child import Child
from tests.support.faultprocess import run_loop, say, stdin_lines
from tests.support.rawhttp import RawServer, Request, Step, ok
from tests.system.noise import nice

KIB, MIB = 2**10, 2**20
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n"
DRIP_EVERY = 0.05

Outcome = Literal["bad_response", "head_timeout", "broken off", "without body"]


@dataclass(frozen=True, slots=True)
class Offence:
    """What is said first, what is said again and again behind it, and what the visitor sees."""

    first: bytes
    more: bytes
    seen: Outcome
    words: bytes = b""
    """Of the error that the visitor is told."""
    every: float = 0.0
    """Seconds between two repetitions; 0: as fast as they are taken."""
    method: str = "GET"


_garbage = random.Random(5)
OFFENCES: dict[str, Offence] = {
    "endless heads": Offence(HEAD, b"X-Field: a value of some length\r\n" * 2000, "bad_response", b"above 65536 bytes"),
    "one endless header": Offence(HEAD + b"X: ", b"a" * 64 * KIB, "bad_response", b"above 65536 bytes"),
    "an endless status line": Offence(b"HTTP/1.1 200 ", b"O" * 64 * KIB, "bad_response", b"above 65536 bytes"),
    "endless bare line feeds": Offence(HEAD, b"X: a\n" * 8192, "bad_response"),
    "endless 103": Offence(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 500, "bad_response", b"more than 32"),
    "endless 100": Offence(b"", b"HTTP/1.1 100 Continue\r\nX: " + b"a" * 8192 + b"\r\n\r\n", "bad_response"),
    "endless empty lines": Offence(b"", b"\r\n" * 8192, "bad_response", b"no status line"),
    "garbage": Offence(b"", _garbage.randbytes(64 * KIB), "bad_response", b"it is not HTTP/1"),
    "garbage behind a status line": Offence(HEAD, _garbage.randbytes(64 * KIB), "bad_response"),
    "a page without a head": Offence(b"<!doctype html>", b"<p>text</p>" * 6000, "bad_response", b"it is not HTTP/1"),
    "a dripping head": Offence(HEAD + b"X: ", b"a", "head_timeout", b"1 second", every=DRIP_EVERY),
    "dripping 103": Offence(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", "head_timeout", b"1 second", every=0.5),
    "an endless chunk extension": Offence(CHUNKED + b"3;", b"a" * 64 * KIB, "broken off"),
    "an endless chunk size": Offence(CHUNKED, b"0" * 64 * KIB, "broken off"),
    "endless trailers": Offence(CHUNKED + b"0\r\n", b"X: a\r\n" * 8192, "broken off"),
    "a chunk of 2^64 bytes": Offence(CHUNKED + b"10000000000000000\r\n", b"a" * 64 * KIB, "broken off"),
    "a negative chunk": Offence(CHUNKED + b"-5\r\n", b"a" * 64 * KIB, "broken off"),
    "a chunk in hexadecimal notation": Offence(CHUNKED + b"0x5\r\n", b"a" * 64 * KIB, "broken off"),
    "a chunk longer than it says": Offence(CHUNKED + b"5\r\n", b"a" * 64 * KIB, "broken off"),
    "a body for HEAD": Offence(HEAD + b"Content-Length: 5\r\n\r\n", b"a" * 64 * KIB, "without body", method="HEAD"),
    "a body for 204": Offence(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b"a" * 64 * KIB, "without body"),
    "chunks for 304": Offence(
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n" * 4096, "without body"
    ),
}


def target_of(name: str) -> str:
    """The path of an offence."""
    return "/" + quote(name)


class HostileLocal(RawServer):
    """`taken` counts the bytes that were taken of the last offence, about."""

    def __init__(self) -> None:
        super().__init__(self._offend, early=True)
        self.taken = 0
        self.last: Request | None = None
        """Of the last offence."""
        self._turns = itertools.cycle(OFFENCES.values())

    async def _offend(self, request: Request) -> AsyncIterator[Step]:
        name = unquote(request.target.decode()).removeprefix("/")
        if name == "fine":
            yield ok(b"fine")
            return
        offence = next(self._turns) if name == "any" else OFFENCES[name]
        self.taken, self.last = 0, request
        yield offence.first
        while not request.left.is_set():
            yield offence.more
            self.taken += len(offence.more)
            if offence.every:
                await request.stream.left_within(offence.every)


class HostileProcess(Child):
    """The same in its own process, with little claim to a processor."""

    def __init__(self) -> None:
        super().__init__([sys.executable, "-m", "tests.system.hostilelocal"], name="hostile local service")
        self.port = 0

    async def start(self) -> None:
        await super().start()
        self.port = int((await self.wait_event("listening"))["port"])


async def _main() -> None:
    async with HostileLocal() as local:
        say(event="listening", port=local.port)
        await (await stdin_lines()).read()


if __name__ == "__main__":
    nice(os.getpid())
    run_loop(_main())
