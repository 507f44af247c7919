"""What 2,000 hostile connections make the relay hold: no more than the bound of the design, and others are served."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from tests.support.child import eventually
from tests.support.local import LocalService
from tests.support.longer import CHAOS
from tests.support.processes import Tunnel, tunnel
from tests.support.rawhttp import RawClient, exchange
from tests.support.rawstream import EndOfBytes
from tests.system.badheads import CHUNKED, WEBSOCKET, get, post

KIB = 1024
A_CONNECTION = 64 * KIB
A_STREAM = 16 * KIB
STREAM_WINDOW = 64 * KIB
FROM_ONE = 900
# Longer than the test takes, so that no connection ends before its time.
PATIENT = ["--head-timeout", "120", "--idle-timeout", "120"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to make the relay hold something: how many of it, what is sent, whether it takes a stream to the agent."""

    count: int
    first: bytes
    then: bytes = b""
    """Sent again and again until the relay takes no more for a while."""
    stream: bool = False
    reads: bool = True

    def bound(self) -> int:
        """Resident bytes that one such connection may cost."""
        return A_CONNECTION + (A_STREAM + 2 * STREAM_WINDOW if self.stream else 0)


# Where nobody reads, the kernels of three hops fill up first, some megabytes for each: of those there are fewer.
KINDS: dict[str, Kind] = {
    "silent": Kind(500, b""),
    "half a head": Kind(400, get()[:-2] + b"X: " + b"a" * 31_000),
    "half a head of small fields": Kind(300, get(*(b"X-%d: a" % number for number in range(90)))[:-2]),
    "a request without an answer": Kind(200, get(target=b"/gated"), stream=True),
    "requests behind one without an answer": Kind(
        250, get(target=b"/gated"), get(target=b"/behind") * 800, stream=True
    ),
    "bytes behind an unfinished upgrade": Kind(170, get(*WEBSOCKET, target=b"/gated"), b"a" * 64 * KIB, stream=True),
    "small chunks": Kind(60, post(CHUNKED, target=b"/gated") + b"1\r\na\r\n" * 4000, stream=True),
    "an upload that nobody reads": Kind(
        60, post(b"Content-Length: 100000000", target=b"/gated"), b"a" * 64 * KIB, stream=True
    ),
    "a download that is not read": Kind(60, get(target=b"/bytes/100000000"), stream=True, reads=False),
}
CONNECTIONS = sum(kind.count for kind in KINDS.values())


class Crowd:
    """Hostile visitors, all at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._all: list[RawClient] = []

    async def join(self, kind: Kind) -> None:
        """All of one kind, each sending until nothing more is taken."""
        for start in range(0, kind.count, 100):
            await asyncio.gather(*(self._one(kind) for _ in range(start, min(start + 100, kind.count))))

    async def _one(self, kind: Kind) -> None:
        # Not all from one address, of which a relay takes only so many.
        source = f"127.0.0.{2 + len(self._all) // FROM_ONE}"
        visitor = await RawClient.connect(self._port, timeout=30, source=source)
        self._all.append(visitor)
        if not kind.reads:
            visitor.stream.pause()
        visitor.send(kind.first)
        with contextlib.suppress(TimeoutError, EndOfBytes):
            while kind.then:
                async with asyncio.timeout(0.1):
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
    assert CONNECTIONS == 2000
    async with besieged() as (t, crowd):
        before = t.relay.rss()
        for kind in KINDS.values():
            await crowd.join(kind)
        await honest(t.port)
        grown = await settled(t.relay.rss) - before
        assert crowd.alive() == CONNECTIONS
        assert grown <= sum(kind.bound() * kind.count for kind in KINDS.values())
        await honest(t.port)
        crowd.leave()
        # The relay has noticed that they left: it takes a full measure of new ones.
        await eventually(lambda: t.relay.fds() < 100, timeout=20)
        await honest(t.port)


@pytest.mark.alone
@pytest.mark.chaos
@pytest.mark.skipif(not CHAOS, reason="the short version is the test above")
@pytest.mark.parametrize("name", KINDS)
async def test_each_kind_costs_no_more_than_its_bound(name: str) -> None:
    """One kind alone, a few hundred times: no kind hides behind the frugality of the others."""
    kind = replace(KINDS[name], count=200)
    async with besieged() as (t, crowd):
        before = t.relay.rss()
        await crowd.join(kind)
        grown = await settled(t.relay.rss) - before
        assert crowd.alive() == kind.count
        assert grown <= kind.bound() * kind.count
        await honest(t.port)
