"""Large bodies arrive whole, both ways and in every framing, while relay and agent stay small."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from tests.support.local import LocalProcess
from tests.support.longer import CHAOS
from tests.support.pattern import pieces
from tests.support.processes import Edge, Tunnel, tunnel
from tests.support.rawhttp import RawClient, chunk, exchange
from tests.support.transfer import download, upload
from tests.system.edges import EDGES

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("large")]

MIB = 2**20
SIZE = 1024 * MIB if CHAOS else 64 * MIB
GROWTH = 64 * MIB


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=EDGES if CHAOS else EDGES[:1])
async def through(request: pytest.FixtureRequest) -> AsyncIterator[Tunnel]:
    """A tunnel to a local service in a process of its own; in chaos one for each edge."""
    async with LocalProcess() as local, tunnel(local.port, edge=cast(Edge, request.param)) as t:
        await exchange(t.port, f"GET /status/200 HTTP/1.1\r\nHost: {t.host}\r\n\r\n".encode())
        yield t


class Growth:
    """How much relay and agent grow between entry and exit, at their highest."""

    def __init__(self, t: Tunnel) -> None:
        self._processes = (t.relay, t.agent)

    def __enter__(self) -> None:
        self._before = [process.rss() for process in self._processes]
        for process in self._processes:
            process.reset_peak()

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            pairs = zip(self._processes, self._before, strict=True)
            grown = {process.name: process.peak_rss() - before for process, before in pairs}
            assert max(grown.values()) < GROWTH, grown


@pytest.mark.chaos
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_large_download(through: Tunnel, framing: str) -> None:
    """64 MiB (chaos: 1 GiB) come whole, and neither relay nor agent grows by 64 MiB."""
    with Growth(through):
        transfer = await download(through.port, f"/bytes/{SIZE}?framing={framing}", host=through.host)
    assert (transfer.ended, transfer.meter.size, transfer.meter.intact) == ("clean", SIZE, True)


@pytest.mark.chaos
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_large_upload(through: Tunnel, framing: str) -> None:
    """64 MiB (chaos: 1 GiB) arrive whole, and neither relay nor agent grows by 64 MiB."""
    with Growth(through):
        told = await (upload_by_length if framing == "length" else upload_chunked)(through)
    assert (told["bytes"], told["intact"]) == (SIZE, True)


async def upload_by_length(t: Tunnel) -> dict[str, Any]:
    """What the sink tells of it."""
    transfer = await upload(t.port, "/sink?hash=none", SIZE, host=t.host)
    assert transfer.ended == "clean"
    return transfer.answer


async def upload_chunked(t: Tunnel) -> dict[str, Any]:
    """The same in chunks of uneven sizes."""
    async with await RawClient.connect(t.port, timeout=30.0) as client:
        head = f"POST /sink?hash=none HTTP/1.1\r\nHost: {t.host}\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(head.encode())
        for piece in pieces(SIZE, 100_003):
            await client.send_all(chunk(piece))
        client.send(b"0\r\n\r\n")
        response = await client.response(b"POST")
    assert response.ended == "clean"
    told: dict[str, Any] = json.loads(response.body)
    return told
