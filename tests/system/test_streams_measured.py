"""What streams cost each other and how late they come, measured beside a reference in the same run.

Every figure is a ratio or a difference of two things measured in turns, by medians, so that a busy machine slows both.
RELAY_CHAOS=1 selects the thresholds of the design; the default run is content with a little less.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from typing import cast

import pytest
import pytest_asyncio

from tests.support.child import eventually
from tests.support.local import LocalProcess
from tests.support.longer import CHAOS
from tests.support.pattern import pieces
from tests.support.processes import Edge, Tunnel, tunnel
from tests.support.rawhttp import RawClient
from tests.support.transfer import download, events, upload
from tests.system.edges import EDGES, needs

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("streams"), pytest.mark.alone]

MIB = 2**20
MOST_DELAY = 0.005
KEPT = 0.9 if CHAOS else 0.75
ROUNDS = 9 if CHAOS else 5
QUIET = 10  # looks at it, 20 ms apart
OTHERS = 3
STALLED = 3
GROWTH = 64 * MIB
EACH = 32 * MIB if CHAOS else 16 * MIB


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local() -> AsyncIterator[LocalProcess]:
    """One local service, in a process of its own."""
    async with LocalProcess() as local:
        yield local


@pytest.fixture(scope="module", params=EDGES if CHAOS else EDGES[:1])
def edge(request: pytest.FixtureRequest) -> Edge:
    """In chaos each of them."""
    return cast(Edge, request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def through(edge: Edge, local: LocalProcess) -> AsyncIterator[Tunnel]:
    """A tunnel to it."""
    async with tunnel(local.port, edge=edge) as t:
        yield t


async def delays(port: int, host: str, count: int) -> list[float]:
    """How late each of so many events came, in seconds; one every 10 ms."""
    async with await RawClient.connect(port) as client:
        return [event.delay async for event in events(client, f"/sse?count={count}&every=0.01", host)]


async def test_events_are_hardly_later_than_without_us(through: Tunnel, local: LocalProcess) -> None:
    """Two equal event streams at once, one direct: the median event through the tunnel is less than 5 ms later."""
    direct, tunnelled = await asyncio.gather(
        delays(local.port, "localhost", 200), delays(through.port, through.host, 200)
    )
    assert len(direct) == len(tunnelled) == 200
    assert statistics.median(tunnelled) - statistics.median(direct) < MOST_DELAY


async def seconds_for_others(t: Tunnel, way: str) -> float:
    """How long a few equal transfers take, all at once."""
    started = time.monotonic()
    if way == "down":
        done = await asyncio.gather(*(download(t.port, f"/bytes/{EACH}", host=t.host) for _ in range(OTHERS)))
        assert all(transfer.meter.intact and transfer.meter.size == EACH for transfer in done)
    else:
        done = await asyncio.gather(*(upload(t.port, "/sink?hash=none", EACH, host=t.host) for _ in range(OTHERS)))
        assert all(transfer.answer["intact"] and transfer.answer["bytes"] == EACH for transfer in done)
    return time.monotonic() - started


@contextlib.asynccontextmanager
async def stalled(t: Tunnel, way: str) -> AsyncIterator[None]:
    """Transfers whose reader has stopped: the visitor, or (up) the local service; once they move no more."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(STALLED):
            client = await stack.enter_async_context(await RawClient.connect(t.port))
            stack.callback(client.reset)  # a close would wait for what nobody takes
            if way == "down":
                client.send(f"GET /bytes/{2**40} HTTP/1.1\r\nHost: {t.host}\r\n\r\n".encode())
                await client.head()
                client.stream.pause()
            else:
                client.send(f"POST /gated HTTP/1.1\r\nHost: {t.host}\r\nContent-Length: {2**40}\r\n\r\n".encode())
                pushing = asyncio.create_task(_push(client))
                stack.callback(pushing.cancel)
        await quiet(t)
        yield


async def _push(client: RawClient) -> None:
    for piece in pieces(2**40):
        await client.stream.send(piece)


async def quiet(t: Tunnel) -> None:
    """Return once neither relay nor agent does anything: what can be moved has been."""
    seen: list[float] = []

    def unchanged() -> bool:
        seen.append(t.relay.cpu_seconds() + t.agent.cpu_seconds())
        return len(seen) > QUIET and seen[-1] - seen[-QUIET] < 0.02

    await eventually(unchanged, timeout=10.0, every=0.02)


@pytest.mark.chaos
@pytest.mark.parametrize("way", ["down", "up"])
async def test_a_stalled_reader_stalls_only_itself(through: Tunnel, edge: Edge, way: str) -> None:
    """Beside three of them others keep 90 % of their rate (75 % in the default run), and what we hold is bounded.

    Rounds without and with them take turns; the median of their ratios is compared.
    """
    if way == "up":
        needs(edge, "aborts")  # else what stalls stays, and the agent waits for it at its end
    await seconds_for_others(through, way)
    processes = (through.relay, through.agent)
    before = [process.rss() for process in processes]
    ratios: list[float] = []
    for _ in range(ROUNDS):
        await quiet(through)
        alone = await seconds_for_others(through, way)
        async with stalled(through, way):
            ratios.append(alone / await seconds_for_others(through, way))
            grown = [process.rss() - least for process, least in zip(processes, before, strict=True)]
            assert max(grown) < GROWTH
    assert statistics.median(ratios) >= KEPT, ratios
