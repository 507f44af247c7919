"""What 2,000 hostile connections make the relay hold: no more than the bound of the design, and others are served."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from tests.support.child import eventually
from tests.support.local import LocalService
from tests.support.processes import Tunnel, tunnel
from tests.support.rawhttp import RawClient, exchange
from tests.support.rawstream import EndOfBytes
from tests.system.badheads import CHUNKED, WEBSOCKET, get, post

KIB = 1024
CONNECTIONS = 2000
A_CONNECTION = 64 * KIB
A_STREAM = 16 * KIB
STREAM_WINDOW = 64 * KIB
# Longer than the test takes, so that no connection ends before its time.
PATIENT = ["--head-timeout", "120", "--idle-timeout", "120"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to make the relay hold something: what is sent, and whether it takes a stream to the agent."""

    first: bytes
    then: bytes = b""
    """Sent again and again until the relay takes no more for a while."""
    stream: bool = False
    reads: bool = True

    def bound(self) -> int:
        """Resident bytes that one such connection may cost."""
        return A_CONNECTION + (A_STREAM + 2 * STREAM_WINDOW if self.stream else 0)


KINDS: dict[str, Kind] = {
    "silent": Kind(b""),
    "half a head": Kind(get()[:-2] + b"X: " + b"a" * 31_000),
    "half a head of small fields": Kind(get(*(b"X-%d: a" % number for number in range(90)))[:-2]),
    "a request without an answer": Kind(get(target=b"/gated") + b"", stream=True),
    "requests behind one without an answer": Kind(
        post(b"Content-Length: 0", target=b"/gated"), get(target=b"/behind") * 800, stream=True
    ),
    "an upload that nobody reads": Kind(
        post(b"Content-Length: 100000000", target=b"/gated"), b"a" * 64 * KIB, stream=True
    ),
    "an upload in small chunks": Kind(post(CHUNKED, target=b"/gated"), b"1\r\na\r\n" * 8000, stream=True),
    "a download that is not read": Kind(get(target=b"/bytes/100000000"), stream=True, reads=False),
    "bytes behind an unfinished upgrade": Kind(get(*WEBSOCKET, target=b"/gated"), b"a" * 64 * KIB, stream=True),
}


class Crowd:
    """Hostile visitors, all at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._all: list[RawClient] = []

    async def join(self, kind: Kind, count: int) -> None:
        """So many more of one kind, each sending until nothing more is taken."""
        for start in range(0, count, 50):
            await asyncio.gather(*(self._one(kind) for _ in range(start, min(start + 50, count))))

    async def _one(self, kind: Kind) -> None:
        visitor = await RawClient.connect(self._port, timeout=30)
        self._all.append(visitor)
        if not kind.reads:
            visitor.stream.pause()
        visitor.send(kind.first)
        with contextlib.suppress(TimeoutError, EndOfBytes):
            while kind.then:
                async with asyncio.timeout(0.25):
                    await visitor.stream.send(kind.then)

    def alive(self) -> int:
        """How many are still connected."""
        return sum(not visitor.stream.left.is_set() for visitor in self._all)

    def leave(self) -> None:
        """All at once, with a reset."""
        for visitor in self._all:
            visitor.reset()


@contextlib.asynccontextmanager
async def besieged() -> AsyncIterator[tuple[Tunnel, Crowd]]:
    """A tunnel, and a crowd before it that is gone at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000) if hard > 0 else 20_000, hard))
    try:
        async with LocalService() as local, tunnel(local.port, "t", PATIENT) as t:
            # What is loaded and allocated once, by the first requests, is no hostile connection's cost.
            await asyncio.gather(*(exchange(t.port, get(target=b"/bytes/1000000")) for _ in range(20)))
            crowd = Crowd(t.port)
            try:
                yield t, crowd
            finally:
                crowd.leave()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def settled(measure: Callable[[], int]) -> int:
    """What is measured, once it has stopped growing: the same three times, a tenth of a second apart."""
    seen: list[int] = []
    pause = asyncio.Event()
    while len(seen) < 100 and not (len(seen) > 2 and max(seen[-3:]) - min(seen[-3:]) < 256 * KIB):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(pause.wait(), 0.1)
        seen.append(measure())
    return max(seen)


async def honest(port: int) -> None:
    """Requests of an honest visitor, which is served as if it were alone."""
    answers: list[Awaitable[object]] = [exchange(port, get(target=b"/echo"), timeout=10) for _ in range(5)]
    big = await exchange(port, get(target=b"/bytes/2000000"), timeout=20)
    assert (big.status, len(big.body), big.ended) == (200, 2_000_000, "clean")
    for answer in await asyncio.gather(*answers):
        assert getattr(answer, "status", 0) == 200


@pytest.mark.alone
@pytest.mark.timeout(240)
async def test_two_thousand_hostile_connections() -> None:
    """All kinds at once: the relay's memory stays within the bound, and an honest visitor is served all the while."""
    each = CONNECTIONS // len(KINDS) + 1
    async with besieged() as (t, crowd):
        before = t.relay.rss()
        for kind in KINDS.values():
            await crowd.join(kind, each)
        await honest(t.port)
        grown = await settled(t.relay.rss) - before
        print(grown // 1024, sum(kind.bound() for kind in KINDS.values()) * each // 1024)
        assert crowd.alive() >= CONNECTIONS
        assert grown <= sum(kind.bound() for kind in KINDS.values()) * each
        await honest(t.port)
        crowd.leave()
        # The relay has noticed that they left: it takes a full measure of new ones.
        await eventually(lambda: t.relay.fds() < 100, timeout=20)
        await honest(t.port)


@pytest.mark.alone
@pytest.mark.parametrize("name", KINDS)
async def test_each_kind_costs_no_more_than_its_bound(name: str) -> None:
    """One kind alone, a few hundred times: no kind hides behind the frugality of the others."""
    kind, count = KINDS[name], 150
    async with besieged() as (t, crowd):
        before = t.relay.rss()
        await crowd.join(kind, count)
        grown = await settled(t.relay.rss) - before
        print(name, grown // count // 1024, kind.bound() // 1024)
        assert crowd.alive() == count
        assert grown <= kind.bound() * count
        await honest(t.port)
