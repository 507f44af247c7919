"""The load makers against origins of their own: they count what moved, time what was asked, and say what failed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import pytest

from bench import measure
from bench.measure import Bulk
from bench.place import Door, free_ports
from bench.systems import Running
from tests.support.child import Child, ChildError
from tests.support.local import LocalService

MIB = 2**20


@contextlib.asynccontextmanager
async def live_origin() -> AsyncIterator[Running]:
    """A system that is nothing but the live origin."""
    async with Child([sys.executable, "-m", "bench.live"], name="live origin") as child:
        port = int((await child.wait_event("listening"))["port"])
        yield Running("direct", Door(port), Door(port), relay=child)


async def test_a_download_is_counted_to_its_end() -> None:
    """Every byte of the body, and none of the head, on each stream."""
    async with LocalService() as local:
        more = ("down", "--streams", 2)
        sample = await measure.made(5, "bulk", Door(local.port), f"/bytes/{3 * MIB}?framing=length", *more)
    assert sample["bytes"] == 6 * MIB
    assert sample["rate"] > 0


async def test_a_download_can_be_held_at_a_rate() -> None:
    """A reader that is told to be slow takes its time, and leaves when it is up."""
    async with LocalService() as local:
        more = ("down", "--seconds", 0.5, "--rate", 4 * MIB)
        sample = await measure.made(5, "bulk", Door(local.port), f"/bytes/{64 * MIB}?framing=length", *more)
    assert 0.3 * 4 * MIB < sample["rate"] < 1.6 * 4 * MIB


async def test_a_download_that_is_refused_is_no_figure() -> None:
    """A status other than 200 ends the load maker with an error, not with a number."""
    async with LocalService() as local:
        with pytest.raises(ChildError):
            await measure.made(5, "bulk", Door(local.port), "/status/503", "down")


async def test_an_upload_is_answered_before_it_counts() -> None:
    """All streams are sent whole; CPU and memory of the system are counted beside it."""
    async with live_origin() as running:
        running.note_idle()
        sample = await measure.bulk(running, Bulk("up", 2 * MIB, streams=2))
    assert sample["bytes"] == 4 * MIB
    assert sample["relay_cpu"] >= 0
    assert sample["relay_peak"] >= 0


async def test_events_are_timed_from_their_sending() -> None:
    """At 100 events/s a third of a second brings about thirty, each with a delay that can be true."""
    async with live_origin() as running:
        sample = await measure.events(running, 0.35)
    assert 10 <= sample["count"] <= 36
    assert 0 < sample["p50"] <= sample["p99"] < 0.3
    assert sample["first"] > 0


async def test_silent_streams_are_held_open() -> None:
    """Memory is read while so many streams are open, and they end with the measurement."""
    async with live_origin() as running:
        assert running.relay is not None
        idle = running.relay.fds()
        async with measure.holding_streams(running, 20):
            assert running.relay.fds() >= idle + 20
        sample = await measure.idle_streams(running, 20)
    assert set(sample) == {"relay_memory"}


async def test_websocket_messages_come_back() -> None:
    """The echo is checked byte by byte and counted."""
    async with live_origin() as running:
        sample = await measure.echo(running, 0.3, connections=3)
    assert sample["count"] > 10
    assert sample["rate"] > 10


async def test_the_live_origin_unmasks_what_it_echoes() -> None:
    """A frame with a mask comes back without it, also when it comes in pieces."""
    async with live_origin() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.static.port)
        writer.write(b"GET /echo HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # RFC 6455 §1.3
        frame = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"  # RFC 6455 §5.7: "Hello", masked
        for byte in frame:
            writer.write(bytes((byte,)))
            await writer.drain()
        assert await reader.readexactly(7) == b"\x81\x05Hello"
        writer.close()


async def test_small_requests_are_timed() -> None:
    """A probe asks at its interval on each connection, and tells median and tail."""
    async with LocalService() as local:
        more = ("--seconds", 0.4, "--connections", 2, "--interval", 0.01)
        sample = await measure.made(1, "probe", Door(local.port), "/bytes/128", *more)
    assert 10 < sample["count"] <= 82
    assert 0 < sample["p50"] <= sample["p99"] <= sample["most"]


def test_free_ports_differ() -> None:
    """Programs that are given ports are given different ones."""
    ports = free_ports(8)
    assert len(set(ports)) == 8
