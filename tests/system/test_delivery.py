"""A POST is never delivered twice: counted requests while links are cut at random, by a seeded hand.

Each request carries a nonce that the local service counts. Whatever a visitor saw, the count is 0 or 1; it is 1 where
the local service's own answer came, and 0 where the relay said that nobody was there to deliver to.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from tests.support.faultcontrols import How
from tests.support.faultprocess import FaultProcess
from tests.support.longer import CHAOS
from tests.support.messages import Response
from tests.support.processes import Tunnel, tunnel
from tests.support.rawhttp import RawClient, RawServer, Request, Step, chunk, ok
from tests.support.rawstream import EndOfBytes
from tests.system.numbers import nothing_left

pytestmark = pytest.mark.xdist_group("delivery")

POSTS = 10_000 if CHAOS else 300
VISITORS = 8
SLOWEST_ANSWER = 0.1
LONGEST_WAIT = 30.0
CALM = 2.5
SEEDS = (1,)


class Counting(RawServer):
    """A local service that counts nonces (`deliveries`), reads each body whole and answers with nonce and length."""

    def __init__(self, seed: int) -> None:
        super().__init__(self._count, early=True)
        self._chance = random.Random(f"{seed}/answers")

    async def _count(self, request: Request) -> AsyncIterator[Step]:
        body = await request.read()
        await request.stream.left_within(self._chance.random() * SLOWEST_ANSWER)
        nonce = request.head.get("x-nonce") or b""
        yield ok(b"%b %d" % (nonce, len(body)))


@dataclass
class Seen:
    """What the visitors saw of their requests: nonces by what became of them."""

    answered: list[bytes] = field(default_factory=list)
    """The local service's answer came, whole."""
    undelivered: list[bytes] = field(default_factory=list)
    """The relay said that there was no agent."""
    unknown: list[bytes] = field(default_factory=list)
    """`agent_lost`, or the answer broke off."""
    codes: Counter[str] = field(default_factory=Counter)


async def visit(t: Tunnel, nonces: list[bytes], chance: random.Random, seen: Seen) -> None:
    """Post until no nonce is left, on one connection for as long as it lasts."""
    client: RawClient | None = None
    while nonces:
        nonce = nonces.pop()
        size = chance.choice((0, 1, 100, 3_000, 100_000, 400_000) if chance.random() < 0.3 else (10,))
        if client is None:
            client = await RawClient.connect(t.port, timeout=LONGEST_WAIT)
        response = await post(client, t.host, nonce, size, chunked=chance.random() < 0.5)
        judge(response, nonce, size, seen)
        if response.ended != "clean" or response.status != 200:
            client.close()
            client = None
    if client is not None:
        client.close()


async def post(client: RawClient, host: str, nonce: bytes, size: int, *, chunked: bool) -> Response:
    """One POST with a body of so many bytes."""
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    client.send(b"POST /count HTTP/1.1\r\nHost: %b\r\nX-Nonce: %b\r\n%b\r\n\r\n" % (host.encode(), nonce, framing))
    body = bytes(size)
    if chunked:
        body = (chunk(body) if body else b"") + b"0\r\n\r\n"
    try:
        await client.send_all(body)
    except EndOfBytes:
        pass  # answered and closed before the body was sent: the answer is still there to be read
    return await client.response(b"POST")


def judge(response: Response, nonce: bytes, size: int, seen: Seen) -> None:
    """Sort a request by its answer; raises AssertionError for an answer that nobody should give."""
    if response.head is None or response.ended != "clean":
        seen.codes["broke off"] += 1
        seen.unknown.append(nonce)
        return
    code = response.head.get("Relay-Error")
    seen.codes[code.decode() if code else str(response.status)] += 1
    if code is None:
        assert (response.status, response.body) == (200, b"%b %d" % (nonce, size))
        seen.answered.append(nonce)
    elif code == b"agent_offline":
        seen.undelivered.append(nonce)
    else:
        assert (response.status, code) == (502, b"agent_lost")
        seen.unknown.append(nonce)


async def cut_at_random(proxy: FaultProcess, chance: random.Random) -> None:
    """Until cancelled: cut one link or all, now or after some bytes; now and then let nobody connect for a while."""
    for number in itertools.count(1):
        # A calm now and then: links that never live long are an outage to the agent, which then tries ever less often.
        await asyncio.sleep(CALM if number % 50 == 0 else chance.uniform(0.02, 0.2))
        how: How = chance.choice(("rst", "fin"))
        what = chance.randrange(5)
        if what <= 1:
            pairs = await proxy.pairs()
            if pairs:
                await proxy.cut(how, pair=chance.choice(pairs))
        elif what == 2:
            await proxy.cut(how)
        elif what == 3:
            await proxy.cut_after(int(2 ** chance.uniform(10, 19)), chance.choice(("up", "down")), how)
        else:
            for direction in ("up", "down"):
                await proxy.cut_after(None, direction)
            await proxy.refuse()
            await asyncio.sleep(chance.uniform(0.0, 0.2))
            await proxy.accept()


@pytest.mark.chaos
@pytest.mark.timeout(1200 if CHAOS else 90)
@pytest.mark.parametrize("seed", SEEDS)
async def test_no_post_is_delivered_twice(seed: int) -> None:
    """See the first lines; and the faults were many, the answers too, and nothing is left in the relay."""
    nonces = [b"%d-%d" % (seed, number) for number in range(POSTS)]
    seen = Seen()
    async with AsyncExitStack() as stack:
        local = await stack.enter_async_context(Counting(seed))
        t = await stack.enter_async_context(tunnel(local.port, proxy=lambda port: FaultProcess(port, seed=seed)))
        todo = list(nonces)
        cutting = asyncio.create_task(cut_at_random(t.proxy, random.Random(f"{seed}/cuts")))
        async with asyncio.TaskGroup() as visitors:
            for number in range(VISITORS):
                visitors.create_task(visit(t, todo, random.Random(f"{seed}/{number}"), seen))
        cutting.cancel()
        connections = (await t.proxy.stats()).connections
        assert t.agent.returncode is None
        await nothing_left(t.relay)
    counts = local.deliveries
    assert [nonce for nonce in nonces if counts[nonce] > 1] == []
    assert [nonce for nonce in seen.answered if counts[nonce] != 1] == []
    assert [nonce for nonce in seen.undelivered if counts[nonce] != 0] == []
    assert len(seen.answered) + len(seen.undelivered) + len(seen.unknown) == POSTS
    told = f"{seen.codes}, {connections} connections of the agent"
    assert len(seen.answered) > POSTS // 5, told
    assert len(seen.unknown) > POSTS // 50, told
    assert connections > POSTS // 60, told
