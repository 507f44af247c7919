"""The fault proxy: each fault does what it says, in this process and in its own, and nothing when not asked."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Unpack

import pytest

from tests.support.child import eventually
from tests.support.faultcontrols import Settings
from tests.support.faultprocess import FaultProcess
from tests.support.faults import FaultProxy
from tests.support.local import LocalService
from tests.support.pattern import whole
from tests.support.rawhttp import RawClient, exchange
from tests.support.rawstream import EndOfBytes, RawStream
from tests.support.transfer import download, upload

REQUEST = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"


class Upstream:
    """A server that keeps its connections for the test to hold on to."""

    def __init__(self) -> None:
        self.streams: list[RawStream] = []
        self.port = 0

    async def stream(self, index: int = 0) -> RawStream:
        """The connection with this index, once it is there."""
        await eventually(lambda: len(self.streams) > index)
        return self.streams[index]


@contextlib.asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    """An `Upstream` on a free port."""
    kept = Upstream()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: RawStream(kept.streams.append), "127.0.0.1", 0)
    kept.port = server.sockets[0].getsockname()[1]
    try:
        yield kept
    finally:
        server.close()
        for stream in kept.streams:
            stream.reset()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def proxied(**settings: Unpack[Settings]) -> AsyncIterator[tuple[FaultProxy, RawClient, RawStream]]:
    """A proxy with one connection through it: the client's end and the upstream's."""
    async with (
        upstream() as up,
        FaultProxy(up.port, seed=7, **settings) as proxy,
        await RawClient.connect(proxy.port) as client,
    ):
        yield proxy, client, await up.stream()


async def read(stream: RawStream, count: int) -> bytes:
    """`count` bytes within five seconds."""
    async with asyncio.timeout(5):
        return await stream.exactly(count)


async def ended(stream: RawStream) -> str:
    """How the stream ended, within five seconds."""
    async with asyncio.timeout(5):
        return (await stream.rest())[1]


async def test_without_faults_bytes_and_ends_pass_in_both_directions() -> None:
    """A proxy without conditions is a wire: bytes, half-closes and counts are right."""
    async with proxied() as (proxy, client, far):
        client.send(b"up")
        assert await read(far, 2) == b"up"
        client.fin()
        assert await ended(far) == "eof"
        far.write(b"still down")
        far.fin()
        assert await client.rest() == (b"still down", "eof")
        await eventually(lambda: not proxy.open_pairs)
        stats = await proxy.stats()
        assert (stats.connections, stats.open, stats.written_up, stats.written_down) == (1, 0, 2, 10)


async def test_a_reset_passes_as_a_reset() -> None:
    """An abort of one end is an abort at the other, never a clean end, and bytes sent before it arrive."""
    async with proxied(delay=0.01) as (_proxy, client, far):
        far.write(b"last words")
        await eventually(lambda: far.transport.get_write_buffer_size() == 0)
        assert await client.exactly(10) == b"last words"
        far.reset()
        assert await client.rest() == (b"", "reset")


@pytest.mark.parametrize("kind", [FaultProxy, FaultProcess])
async def test_delay_is_added_to_each_direction(kind: type[FaultProxy] | type[FaultProcess]) -> None:
    """A round trip through 40 ms each way takes 80 ms, and the delay can be taken away while running."""
    async with LocalService() as local, kind(local.port, delay=0.04) as proxy:
        start = time.monotonic()
        assert (await exchange(proxy.port, REQUEST)).status == 200
        slow = time.monotonic() - start
        await proxy.set("both", delay=0.0)
        start = time.monotonic()
        assert (await exchange(proxy.port, REQUEST)).status == 200
        fast = time.monotonic() - start
        assert 0.078 <= slow < 0.5
        assert fast < slow


async def test_jitter_keeps_the_order() -> None:
    """Bytes sent one by one through a jittering path arrive in their order."""
    async with proxied(delay=0.001, jitter=0.01) as (_proxy, client, far):
        sent = whole(300)
        for byte in sent:
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert await read(far, 300) == sent


async def test_rate_limits_the_path() -> None:
    """100 kB at 400 kB/s take a quarter of a second, whatever the size of the writes."""
    async with proxied(rate=400_000) as (_proxy, client, far):
        start = time.monotonic()
        client.send(whole(100_000))
        assert await read(far, 100_000) == whole(100_000)
        assert 0.23 <= time.monotonic() - start < 1.5


async def test_dribble_gives_small_pieces_and_all_bytes() -> None:
    """What was written at once arrives in many small pieces."""
    async with proxied(dribble=3) as (_proxy, client, far):
        client.send(whole(2000))
        sizes = []
        got = b""
        while len(got) < 2000:
            piece = await far.some()
            sizes.append(len(piece))
            got += piece
        assert got == whole(2000)
        assert len(sizes) > 100


@pytest.mark.parametrize("kind", [FaultProxy, FaultProcess])
async def test_cut_after_an_exact_count(kind: type[FaultProxy] | type[FaultProcess]) -> None:
    """A cut after N bytes lets exactly N through, then resets both sides."""
    async with upstream() as up, kind(up.port) as proxy, await RawClient.connect(proxy.port) as client:
        await proxy.cut_after(1000, "down")
        far = await up.stream()
        far.write(whole(5000))
        assert await client.rest() == (whole(1000), "reset")
        assert await ended(far) == "reset"


@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_cut_now_ends_both_sides(how: str) -> None:
    """A cut on command ends both sides as told, and the next connection works."""
    async with LocalService() as local, FaultProxy(local.port) as proxy, await RawClient.connect(proxy.port) as client:
        client.send(REQUEST)
        assert (await client.response()).status == 200
        assert await proxy.cut("rst" if how == "rst" else "fin") == 1
        assert await client.rest() == (b"", "reset" if how == "rst" else "eof")
        assert (await local.departure()).how == ("reset" if how == "rst" else "eof")
        client.close()
        assert (await exchange(proxy.port, REQUEST)).status == 200


async def test_one_pair_can_be_cut_alone() -> None:
    """Of two connections the one with the given number is cut and the other lives on."""
    async with LocalService() as local, FaultProxy(local.port) as proxy:
        first, second = await RawClient.connect(proxy.port), await RawClient.connect(proxy.port)
        await eventually(lambda: len(proxy.open_pairs) == 2)
        assert await proxy.pairs() == [1, 2]
        assert await proxy.cut(pair=1) == 1
        assert (await first.rest())[1] == "reset"
        second.send(REQUEST)
        assert (await second.response()).status == 200
        first.close()
        second.close()


@pytest.mark.parametrize("kind", [FaultProxy, FaultProcess])
async def test_refuse_and_accept_keep_the_port(kind: type[FaultProxy] | type[FaultProcess]) -> None:
    """A closed listener refuses, an open connection lives on, and the same port opens again."""
    async with LocalService() as local, kind(local.port) as proxy, await RawClient.connect(proxy.port) as client:
        client.send(REQUEST)
        assert (await client.response()).status == 200
        await proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await RawClient.connect(proxy.port)
        client.send(REQUEST)
        assert (await client.response()).status == 200
        await proxy.accept()
        assert (await exchange(proxy.port, REQUEST)).status == 200


async def test_an_upstream_that_is_not_there_resets_the_client() -> None:
    """A connection that cannot be passed on is reset and counted."""
    async with upstream() as up, FaultProxy(up.port) as proxy:
        pass
    async with FaultProxy(proxy.port) as nowhere, await RawClient.connect(nowhere.port) as client:
        assert (await client.rest())[1] == "reset"
        assert (await nowhere.stats()).unreachable == 1


async def test_swallow_is_silent_and_one_sided() -> None:
    """Swallowing one direction drops its bytes and its end, keeps both sockets open and lets the other pass."""
    async with proxied() as (proxy, client, far):
        await proxy.swallow("up")
        client.send(b"lost")
        await eventually(lambda: proxy.up.swallowed == 4)
        client.fin()
        far.write(b"heard")
        assert await client.exactly(5) == b"heard"
        assert not far.left.is_set()
        assert far.received == 0
        assert len(proxy.open_pairs) == 1


async def test_swallow_hides_a_reset_and_takes_new_connections_into_nothing() -> None:
    """While half-open a reset does not pass, and a new connection never reaches the upstream."""
    async with upstream() as up, FaultProxy(up.port) as proxy, await RawClient.connect(proxy.port) as client:
        far = await up.stream()
        await proxy.swallow("both")
        far.reset()
        await eventually(lambda: proxy.open_pairs[1].upstream.lost)
        assert not client.stream.left.is_set()
        async with await RawClient.connect(proxy.port) as late:
            late.send(REQUEST)
            await eventually(lambda: len(proxy._black_hole) == 1)
            await proxy.swallow("none")
            with pytest.raises(EndOfBytes, match="reset"):
                await late.head()
        assert len(up.streams) == 1


async def test_stalled_bytes_come_when_the_stall_ends() -> None:
    """Without `drop` nothing is lost: what waited comes, in order, when forwarding starts again."""
    async with proxied() as (proxy, client, far):
        client.send(b"one ")
        assert await read(far, 4) == b"one "
        await proxy.swallow("up", drop=False)
        client.send(b"two")
        far.write(b"other way")
        assert await client.exactly(9) == b"other way"
        assert far.received == 4
        await proxy.swallow("none")
        assert await read(far, 3) == b"two"


async def test_corruption_is_seeded_and_starts_after_its_offset() -> None:
    """Two runs with one seed flip the same bits, none of them before the offset, however the bytes are cut."""
    damaged = []
    for size in (1000, 10):
        async with proxied() as (proxy, client, far):
            await proxy.corrupt("down", after=500, every=100)
            sent = whole(5000)
            for start in range(0, 5000, size):
                far.write(sent[start : start + size])
            damaged.append(await client.exactly(5000))
    assert damaged[0] == damaged[1]
    assert damaged[0][:500] == whole(500)
    flips = sum((a ^ b).bit_count() for a, b in zip(damaged[0], whole(5000), strict=True))
    assert 20 <= flips <= 100


async def test_a_reader_that_stops_holds_the_sender_back() -> None:
    """Without a delay the proxy keeps little: a sender behind a stopped reader comes to a halt."""
    async with LocalService() as local, FaultProxy(local.port) as proxy, await RawClient.connect(proxy.port) as client:
        client.send(b"POST /gated HTTP/1.1\r\nHost: x\r\nContent-Length: 400000000\r\n\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_send_forever(client), 0.7)
        assert proxy.open_pairs[1].up.queued < 3 * 2**20
        assert proxy.up.read < 100_000_000


async def _send_forever(client: RawClient) -> None:
    while True:
        await client.send_all(whole(1_000_000))


async def test_bulk_through_a_delayed_process_is_whole_and_not_slowed_to_a_window() -> None:
    """64 MiB each way through 20 ms arrive intact, far faster than a window of a few MiB a round trip would allow."""
    size = 64 * 2**20
    async with LocalService() as local, FaultProcess(local.port, delay=0.02) as proxy:
        down = await download(proxy.port, f"/bytes/{size}")
        up = await upload(proxy.port, "/sink?hash=none", size)
        stats = await proxy.stats()
    assert (down.meter.size, down.meter.intact, down.ended) == (size, True, "clean")
    assert (up.answer["bytes"], up.answer["intact"]) == (size, True)
    assert min(down.meter.rate, size / up.answer["seconds"]) > 50e6
    assert stats.written_down > size
    assert stats.written_up > size


async def test_a_wrong_command_is_a_value_error_in_both_kinds() -> None:
    """A direction that does not exist is refused by name, also across the process border."""
    async with upstream() as up, FaultProxy(up.port) as near, FaultProcess(up.port) as far:
        for proxy in (near, far):
            with pytest.raises(ValueError, match="sideways"):
                await proxy.set("sideways", delay=1.0)  # type: ignore[arg-type]
