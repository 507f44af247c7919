"""The local services: each path does what its page says, with bodies of every framing."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError
from websockets.typing import Subprotocol

from tests.support.local import LocalProcess, LocalService
from tests.support.localws import aiohttp_echo, websockets_echo
from tests.support.pattern import PERIOD, Meter, matches, pieces, whole
from tests.support.rawhttp import RawClient, exchange
from tests.support.transfer import download, events, upload


def test_the_pattern_finds_lost_doubled_and_moved_bytes() -> None:
    """Pieces of any size match where they stand and nowhere near."""
    data = whole(3 * PERIOD + 5)
    assert b"".join(pieces(3 * PERIOD + 5, 777_777)) == data
    assert matches(0, data)
    assert matches(PERIOD - 3, data[PERIOD - 3 : PERIOD + 100])
    assert not matches(1, data[:100])
    meter = Meter()
    meter.add(data[:1000])
    meter.add(data[1001:2000])
    assert not meter.intact


def test_a_meter_tells_the_rate_of_a_window() -> None:
    """Rates are those between two times, not of the whole."""
    meter = Meter(samples=[(0.0, 0), (1.0, 1000), (2.0, 5000), (3.0, 9000)])
    assert meter.rate_between(1.0, 3.0) == 4000
    assert meter.rate_between(5.0, 6.0) == 0


async def test_echo_shows_what_came() -> None:
    """Method, target, headers with case and order, trailers and the body's hash."""
    async with LocalService() as local:
        response = await exchange(
            local.port,
            b"PATCH /echo/%2f?x HTTP/1.1\r\nhOst: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nT: v\r\n\r\n",
        )
    told = json.loads(response.body)
    assert (told["method"], told["target"], told["length"]) == ("PATCH", "/echo/%2f?x", 1)
    assert told["headers"][0] == ["hOst", "h"]
    assert told["trailers"] == [["T", "v"]]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("size", [0, 1, 3_000_000])
async def test_bodies_of_every_framing_are_whole(framing: str, size: int) -> None:
    """Downloads arrive intact and end cleanly, by length, chunked and until close."""
    async with LocalService() as local:
        transfer = await download(local.port, f"/bytes/{size}?framing={framing}")
    assert (transfer.meter.size, transfer.meter.intact, transfer.ended) == (size, True, "clean")


async def test_uploads_are_counted_checked_and_hashed() -> None:
    """The sink of a service in its own process tells size, intactness and SHA-256."""
    async with LocalProcess() as local:
        told = (await upload(local.port, "/sink", 2_000_000)).answer
        timed = await upload(local.port, "/sink?hash=none", None, seconds=0.05)
    assert (told["bytes"], told["intact"]) == (2_000_000, True)
    meter = Meter(hashing=True)
    meter.add(whole(2_000_000))
    assert told["sha256"] == meter.sha256
    assert timed.answer["bytes"] == timed.meter.size > 0


async def test_a_gated_sink_reads_nothing_before_its_gate_opens() -> None:
    """The slow reader holds the uploader back until told to read."""
    async with LocalService() as local:
        task = asyncio.create_task(upload(local.port, "/gated", 30_000_000))
        await local.received()
        assert not task.done()
        assert local.sinks[0].size == 0
        await exchange(local.port, b"POST /gate HTTP/1.1\r\n\r\n")
        assert (await task).answer["bytes"] == 30_000_000


async def test_events_come_one_by_one_with_their_time() -> None:
    """Each event tells when it was sent; its delay is small on a direct path."""
    async with LocalService() as local, await RawClient.connect(local.port) as client:
        arrivals = [event async for event in events(client, "/sse?count=4&every=0.02")]
    assert [event.fields["id"] for event in arrivals] == ["0", "1", "2", "3"]
    assert arrivals[-1].at - arrivals[0].at >= 0.05
    assert all(0 <= event.delay < 0.5 for event in arrivals)


async def test_counts_are_by_nonce() -> None:
    """Each delivery of a nonce counts."""
    async with LocalService() as local:
        for _ in range(2):
            response = await exchange(local.port, b"POST /count HTTP/1.1\r\nX-Nonce: a\r\nContent-Length: 0\r\n\r\n")
        assert json.loads(response.body) == {"nonce": "a", "deliveries": 2}
        assert json.loads((await exchange(local.port, b"GET /counts HTTP/1.1\r\n\r\n")).body) == {"a": 2}


@pytest.mark.parametrize("echo", [websockets_echo, aiohttp_echo])
async def test_websocket_echoes(echo: type) -> None:
    """Both echoes return text and bytes, agree on a subprotocol, deflate, and close as asked."""
    async with echo(["b"]) as port:
        async with connect(
            f"ws://127.0.0.1:{port}/", subprotocols=[Subprotocol("a"), Subprotocol("b")], proxy=None
        ) as socket:
            assert socket.subprotocol == "b"
            assert socket.response is not None
            assert "permessage-deflate" in socket.response.headers["Sec-WebSocket-Extensions"]
            for message in ("text", b"bytes", bytes(100_000)):
                await socket.send(message)
                assert await socket.recv() == message
            await socket.send("close")
            with pytest.raises(ConnectionClosedError):
                await socket.recv()
            assert (socket.close_code, socket.close_reason) == (4321, "as you wish")
        async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{port}/") as other:
            await other.send_bytes(b"x")
            assert await other.receive_bytes() == b"x"
