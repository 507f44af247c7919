"""Windows over a path: they grow until the path is full, settle where bytes would queue in it, shrink, keep bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from relay.mux.carrier import ROOM
from relay.wire.frames import MAX_SESSION_WINDOW, SESSION_WINDOW, STREAM_WINDOW
from relay.wire.window import CAUTIOUS_STEPS, HEADROOM
from tests.mux.ends import Ends, Owner, between, joined, settle
from tests.support.carriers import MemoryCarrier, pair
from tests.support.clock import virtual

MIB = 1024 * 1024
PIECE = bytes(256 * 1024)


class DeepPath(MemoryCarrier):
    """A path that takes everything at once and lets it wait in a queue of its own, in front of its narrow place."""

    def send(self, message: bytearray) -> bool:
        if self.closed is not None:
            return True
        payload = bytes(message[ROOM:])
        assert self.rate is not None
        loop = asyncio.get_running_loop()
        self._free_at = max(self._free_at, loop.time()) + len(payload) / self.rate
        self._under_way.append(payload)
        loop.call_at(self._free_at + self.delay, self._deliver)
        return True

    @property
    def queued(self) -> float:
        """Seconds that a new message waits in the path."""
        return max(self._free_at - asyncio.get_running_loop().time(), 0.0)


def deep(delay: float, rate: float) -> tuple[DeepPath, DeepPath]:
    one, other = DeepPath(delay, rate), DeepPath(delay, rate)
    one.peer, other.peer = other, one
    return one, other


def keep_writing(owner: Owner) -> Callable[[], None]:
    """Writes zeros for ever, as fast as `write` lets it; the result begins it."""

    def go() -> None:
        assert owner.stream is not None
        while owner.stream.write(PIECE):
            pass

    owner.react = lambda name: go() if name == "writable" else None
    return go


async def a_download(ends: Ends) -> tuple[Owner, Owner]:
    """A stream on which the agent sends without end; (receiver, sender)."""
    relay, agent = await ends.opened(ended=True)
    relay.keep = False
    keep_writing(agent)()
    return relay, agent


async def rate_of(owner: Owner, seconds: float) -> float:
    """Bytes a second that arrive from now on."""
    before = owner.size
    await asyncio.sleep(seconds)
    return (owner.size - before) / seconds


@virtual
async def test_a_long_fast_path_is_filled_within_two_seconds() -> None:
    """100 ms and 200 MB/s: after two seconds of one stream the path is what limits, not the window."""
    ends = joined(delay=0.05, rate=200e6)
    relay, _ = await a_download(ends)
    await asyncio.sleep(2.0)
    assert await rate_of(relay, 0.5) > 0.8 * 200e6


@virtual
async def test_both_directions_are_filled() -> None:
    """An upload and a download at once on a path of 60 ms and 50 MB/s each way: neither starves."""
    ends = joined(delay=0.03, rate=50e6)
    relay, agent = await ends.opened()
    relay.keep = agent.keep = False
    relay.react = agent.react = None
    keep_writing(relay)()
    keep_writing(agent)()
    await asyncio.sleep(1.5)
    before = relay.size, agent.size
    await asyncio.sleep(0.5)
    assert relay.size - before[0] > 0.8 * 25e6
    assert agent.size - before[1] > 0.8 * 25e6


@virtual
async def test_a_window_settles_where_the_path_would_queue() -> None:
    """A path that queues (40 ms, 20 MB/s): the session's window settles near 1.25 × rate × round trip, and pings
    come back soon, so a small request need not wait behind what is under way."""
    delay, rate = 0.02, 20e6
    one, other = deep(delay, rate)
    ends = between(one, other)
    relay, _ = await a_download(ends)
    await asyncio.sleep(4.0)
    waits: list[float] = []
    before = relay.size
    for _ in range(100):
        await asyncio.sleep(0.02)
        waits.append(other.queued)
    needed = rate * 2 * delay
    assert (relay.size - before) / 2.0 > 0.8 * rate
    assert ends.relay.session.window.size < needed * HEADROOM * 1.4
    assert sorted(waits)[50] < 2 * delay * (HEADROOM * 1.4 - 1)


@virtual
async def test_growth_overshoots_for_a_moment_only() -> None:
    """While the window doubles it may pass what the path holds; two seconds later the queue in the path is short."""
    one, other = deep(0.01, 10e6)
    relay, _ = await a_download(between(one, other))
    await asyncio.sleep(2.0)
    assert other.queued < 0.02
    assert await rate_of(relay, 1.0) > 0.8 * 10e6


@virtual
async def test_a_window_follows_a_path_that_becomes_faster() -> None:
    """A settled window grows again, by small steps first, when the path carries more."""
    one, other = deep(0.02, 5e6)
    relay, _ = await a_download(between(one, other))
    await asyncio.sleep(3.0)
    other.rate = 50e6
    await asyncio.sleep(CAUTIOUS_STEPS * 0.2 + 3.0)
    assert await rate_of(relay, 1.0) > 0.8 * 50e6


@virtual
async def test_the_window_of_a_slow_reader_shrinks() -> None:
    """A stream that was fast and whose reader becomes slow holds little memory soon, and the reader is never idle."""
    ends = joined(delay=0.05, rate=100e6)
    relay, _ = await a_download(ends)
    assert relay.stream is not None
    await asyncio.sleep(1.5)
    grown = relay.stream.window.size
    relay.greedy = False
    taken = 0
    for _ in range(2000):
        await asyncio.sleep(0.01)
        taken += min(relay.held, 10_000)
        relay.take(10_000)
    assert grown > 5 * MIB
    assert relay.stream.window.size < grown // 4
    assert taken == 2000 * 10_000


@virtual
async def test_windows_never_pass_their_bounds() -> None:
    """However fast and far: the window of a stream, and of a session, stays below its bound, and so do their bytes."""
    ends = joined(delay=0.5, rate=1e9, stream_window=MIB, session_window=3 * MIB)
    relays = [await a_download(ends) for _ in range(5)]
    for relay, _ in relays:
        relay.greedy = False
    for _ in range(40):
        await asyncio.sleep(0.25)
        session = ends.relay.session
        assert session.window.size <= 3 * MIB
        assert session.window.granted - session.window.consumed <= 3 * MIB
        for relay, _ in relays:
            assert relay.stream is not None
            assert relay.stream.window.size <= MIB
            assert relay.held <= MIB
            relay.take()
    assert sum(relay.size for relay, _ in relays) > 20 * MIB


@virtual
async def test_a_session_window_is_never_above_what_the_protocol_allows() -> None:
    """By default no more than 64 MiB are granted beyond what was consumed."""
    ends = joined(delay=0.2, rate=2e9)
    assert ends.relay.session.window.most == MAX_SESSION_WINDOW
    relay, _ = await a_download(ends)
    for _ in range(4):
        await asyncio.sleep(0.5)
        window = ends.relay.session.window
        assert window.granted - window.consumed <= MAX_SESSION_WINDOW
    assert relay.size > SESSION_WINDOW


@virtual
async def test_small_exchanges_need_no_credit_frames() -> None:
    """A thousand exchanges of a few bytes are not answered by a credit frame each."""
    one, other = pair()
    ends = between(one, other)
    for _ in range(1000):
        relay, agent = await ends.opened(ended=True)
        assert agent.stream is not None
        agent.stream.send_head(b"200")
        agent.stream.write(b"hello")
        agent.stream.end()
        await settle()
        assert relay.trailers == b""
    window = ends.relay.session.window
    assert window.received == window.consumed == 5000
    assert window.granted == SESSION_WINDOW
    assert STREAM_WINDOW > 5
