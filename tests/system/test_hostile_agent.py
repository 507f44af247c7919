"""An agent that has a key and means harm: it is cut with a named reason, and nobody beside it notices.

Heads and bodies that would forge an answer are in `test_splitting`; names, streams and keys that are not its own in
`test_scope`. Here are the frames, the WebSocket under them, and what it makes the relay hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from relay.wire import frames
from tests.support.child import eventually
from tests.support.local import LocalProcess
from tests.support.longer import CHAOS, LONGER
from tests.support.messages import Response
from tests.support.processes import DOMAIN, RelayProcess, Tunnel, tunnel
from tests.support.rawhttp import RawClient, exchange
from tests.support.rawstream import EndOfBytes
from tests.support.reliability import Record
from tests.system.flooding import FLOODS, POURED, TOO_MUCH, WORDS, Flooding, full
from tests.system.hostileagent import frame, head_of
from tests.system.rawlink import CONTINUATION, CUT, PING, TEXT, UPGRADE, OnOpen, RawLink, header, message
from tests.system.steady import Steady

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("hostile agent")]

KIB, MIB = 2**10, 2**20
RATE = 100.0
# What the slowest of the honest may wait while one is cut, beside whatever else runs on this machine.
AT_MOST = 2.0
WINDOW = 10.0 if CHAOS else 2.0
FLOODERS = 4
BYTES = 10_000
# Below `FLOOR` seconds a p99 is as good as none, where agents, visitors and relay share two processors.
TIMES, FLOOR = 3.0, 0.015
GIB = 2**30
HELD = 16 * MIB
"""What the relay may hold for a link that misbehaves, about: 8 MiB of control frames, a read, a message."""
_numbers = itertools.count(1)


@dataclass(slots=True)
class House:
    """A relay with an honest tunnel and its steady visitors."""

    tunnel: Tunnel
    steady: Steady

    @property
    def relay(self) -> RelayProcess:
        return self.tunnel.relay

    def link(self, on_open: OnOpen | None = None) -> tuple[str, RawLink]:
        """A link of a hostile agent with a name of its own, not opened yet."""
        name = f"bad{next(_numbers)}"
        return name, RawLink(self.relay.agents_port, self.relay.key_file.read_text().strip(), name, on_open)

    async def ask(self, name: str, target: str = "/") -> Response:
        request = f"GET {target} HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\nConnection: close\r\n\r\n"
        return await exchange(self.relay.public_port, request.encode())

    async def others_are_fine(self) -> None:
        """All the honest were served since the last time, and none waited long."""
        seen = await self.steady.mark()
        assert not seen.failed
        assert seen.worst < AT_MOST


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[House]:
    """All of it, for all tests here."""
    async with (
        LocalProcess() as local,
        tunnel(local.port, "t", ["--hold", "0"]) as t,
        Steady(t.port, t.host, RATE) as steady,
    ):
        yield House(t, steady)


@pytest_asyncio.fixture(loop_scope="module")
async def house(started: House) -> AsyncIterator[House]:
    """The same; what its visitors saw before is not this test's."""
    await started.steady.mark()
    yield started
    await started.others_are_fine()


# ------------------------------------------------------------------------------------------------------ what is cut


BREACHES: dict[str, tuple[bytes, str]] = {
    "a stream of its own": (message(frame(frames.OPEN, 2, b"x")), "PROTOCOL_ERROR: OPEN of stream 2"),
    "a stream as the relay's": (message(frame(frames.OPEN_END, 9, b"x")), "PROTOCOL_ERROR: OPEN of stream 9"),
    "3 GiB of credit": (message(frames.encode_credit(0, GIB) * 3), "PROTOCOL_ERROR: more credit than 2^31-1 bytes"),
    "credit of nothing": (message(frame(frames.CREDIT, 0, bytes(4))), "PROTOCOL_ERROR: credit of 0 bytes"),
    "two renewals at once": (
        message(frame(frames.RENEW, 0, b'{"key": "a"}') * 2), "PROTOCOL_ERROR: RENEW out of place",
    ),
    "renewals without end": (
        message(frame(frames.RENEW, 0, b'{"key": "a"}')) * 100, "PROTOCOL_ERROR: RENEW out of place",
    ),
    "a text message": (message(b"{}", kind=TEXT), "1003: text message"),
    "a reserved bit": (message(b"", rsv=4), "1002: "),
    "a reserved kind": (message(b"", kind=3), "1002: "),
    "a frame that is not masked": (message(b"", masked=False), "1002: "),
    "a frame of 2^40 bytes": (header(2**40), "1009: "),
    "a message above 1 MiB": (header(MIB + 1) + bytes(MIB), "1009: "),
    "a message above 1 MiB in fragments": (
        message(bytes(MIB), fin=False) + message(b"a" * KIB, kind=CONTINUATION), "1009: ",
    ),
    "a fragment of nothing": (message(b"", kind=CONTINUATION), "1002: "),
    "a fragmented ping": (message(b"", kind=PING, fin=False), "1002: "),
    "bytes that are no WebSocket": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "1002: "),
}  # fmt: skip


@pytest.mark.parametrize("what", BREACHES)
async def test_a_breach_is_cut_with_its_reason(house: House, what: str) -> None:
    """By a GOING_AWAY that says what was wrong or, where not even frames were spoken, by the WebSocket's close."""
    said, reason = BREACHES[what]
    async with house.link()[1] as link:
        link.client.send(said)
        assert (await link.verdict()).startswith(reason)


def answer(link: RawLink, number: int) -> None:
    """An answer without a body."""
    link.say(frame(frames.HEAD_END, number, head_of(200, [(b"Content-Length", b"0")])))


@pytest.mark.parametrize("what", FLOODS)
async def test_a_flood_is_cut_before_it_costs_much(house: House, what: str) -> None:
    """Frames that are legal one by one are a breach by their number: the session ends, after a fraction of them."""
    name, link = house.link(on_open=answer)
    async with link:
        assert (await house.ask(name)).status == 200
        before = house.relay.cpu_seconds()
        await link.pour(FLOODS[what], POURED)
        assert await link.verdict() == TOO_MUCH
        assert house.relay.cpu_seconds() - before < 0.5
    assert (await house.ask(name)).status == 503


async def test_answers_without_end_are_cut(house: House) -> None:
    """An agent that goes on with informational heads: 502 for its visitor, and the end of its session."""
    heads = full(frame(frames.HEAD, 1, head_of(103, [])))
    name, link = house.link(on_open=lambda link, _: link.client.send(heads))
    async with link:
        response = await house.ask(name)
        assert (response.status, response.head and response.head.get("relay-error")) == (502, b"bad_response")
        await link.pour(heads, POURED)
        assert await link.verdict() == TOO_MUCH


# --------------------------------------------------------------------------------------------------- what it may cost


async def push(visitor: RawClient, data: bytes) -> None:
    """Send until nothing more is taken for a while."""
    with contextlib.suppress(TimeoutError, EndOfBytes):
        while True:
            async with asyncio.timeout(0.3):
                await visitor.stream.send(data)


@pytest.mark.alone
@pytest.mark.chaos
async def test_an_agent_that_gives_credit_and_never_reads(house: House, record: Record) -> None:
    """1 GiB of credit for each stream, and then not a byte is read: what visitors send waits with them, not here; and
    once 1 MiB of requests wait for it, later ones are refused at once."""

    def give(link: RawLink, number: int) -> None:
        link.say(frames.encode_credit(number, GIB))
        if link.heard[frames.OPEN] == uploads:
            link.say(frames.encode_credit(0, GIB))
            link.deaf()

    uploads, large = 8, b"X: " + b"a" * 30_000
    name, link = house.link(on_open=give)
    host = f"Host: {name}.{DOMAIN}".encode()
    before = house.relay.rss()
    async with link, contextlib.AsyncExitStack() as stack:
        visitors = [await RawClient.connect(house.relay.public_port) for _ in range(uploads + 100)]
        for visitor in visitors:
            stack.callback(visitor.reset)
        for visitor in visitors[:uploads]:
            visitor.send(b"POST / HTTP/1.1\r\n" + host + b"\r\nContent-Length: %d\r\n\r\n" % GIB)
        await eventually(lambda: link.heard[frames.OPEN] == uploads)
        await asyncio.gather(*(push(visitor, bytes(MIB)) for visitor in visitors[:uploads]))
        for visitor in visitors[uploads:]:
            visitor.send(b"GET / HTTP/1.1\r\n" + host + b"\r\n" + large + b"\r\n\r\n")
        await house.others_are_fine()
        refused = [await visitor.response() for visitor in visitors[-20:]]
        grown = house.relay.rss() - before
    allowed = 16 * MIB + len(visitors) * 80 * KIB
    record(
        name="hostile agent: gives credit, never reads",
        asked="the relay holds 1 MiB of requests, 256 KiB of each upload, 80 KiB a visitor; later requests: 429",
        seen=f"{grown / MIB:.1f} MiB of {allowed / MIB:.0f} allowed, {refused[0].status} for the rest",
        ok=grown <= allowed and all(one.status == 429 for one in refused),
        counts={"grown_bytes": grown, "allowed_bytes": allowed},
    )


@pytest.mark.alone
@pytest.mark.chaos
async def test_others_beside_floods_without_end(house: House, record: Record) -> None:
    """Several hostile agents that come back as soon as they were cut: the honest are served as before."""
    alone = await house.steady.seconds(WINDOW)
    before = house.relay.rss()
    async with Flooding(house.relay, FLOODERS) as flooding:
        beside = await house.steady.seconds(WINDOW)
        grown = house.relay.rss() - before
        told = await flooding.stopped()
    allowed = TIMES * max(alone.p99, FLOOR)
    p99s = f"p99 {1000 * beside.p99:.1f} ms, without {1000 * alone.p99:.1f} ms"
    record(
        name=f"hostile agents: {FLOODERS} that flood and come back",
        asked=f"each cut by name; the others without error, p99 ≤ 3 × that without them (at least {FLOOR} s)",
        seen=f"{told['cut']} cut; {p99s}; failed {beside.failed or 'none'}; {grown / MIB:.1f} MiB more",
        ok=not beside.failed and beside.p99 <= allowed and grown < FLOODERS * HELD,
        counts={"p99_s": beside.p99, "alone_p99_s": alone.p99, "cut": told["cut"], "grown_bytes": grown},
    )
    # Whoever is late with reading what it was told hears it from the WebSocket, or finds the connection reset.
    assert set(told["verdicts"]) <= {TOO_MUCH, f"1002: {WORDS}", CUT}


async def read_all(visitor: RawClient) -> None:
    with contextlib.suppress(EndOfBytes, TimeoutError):
        while await visitor.stream.some():
            pass


@pytest.mark.alone
@pytest.mark.chaos
@pytest.mark.skipif(not CHAOS, reason="turns are shown in tests/mux/test_inbox.py")
async def test_others_beside_an_answer_byte_by_byte(house: House, record: Record) -> None:
    """A frame for each byte, as many at once as windows allow, to a visitor who reads them: legal, and only its own
    tunnel's time.
    """
    alone = await house.steady.seconds(WINDOW)
    numbers: list[int] = []

    def begin(link: RawLink, number: int) -> None:
        numbers.append(number)
        link.say(frame(frames.HEAD, number, head_of(200, [])))

    name, link = house.link(begin)
    async with link, await RawClient.connect(house.relay.public_port) as visitor:
        visitor.send(f"GET / HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\n\r\n".encode())
        await visitor.head()
        reading, sent = asyncio.create_task(read_all(visitor)), 0
        bytes_of, most = message(frames.encode(frames.DATA, numbers[0], b"x") * BYTES), frames.STREAM_WINDOW

        def room() -> bool:
            return sent + BYTES <= most + link.credit[numbers[0]]

        async def pour() -> None:
            nonlocal sent
            while True:
                await eventually(room, 20)
                await link.client.send_all(bytes_of)
                sent += BYTES

        pouring = asyncio.create_task(pour())
        beside = await house.steady.seconds(WINDOW)
        for task in (pouring, reading):
            task.cancel()
        assert not link.ended.is_set(), await link.verdict()
    allowed = TIMES * max(alone.p99, FLOOR)
    record(
        name="hostile agent: an answer byte by byte",
        asked=f"the others without error, p99 ≤ 3 × that without it (at least {FLOOR} s)",
        seen=f"{sent} frames; p99 {1000 * beside.p99:.1f} ms, without {1000 * alone.p99:.1f} ms",
        ok=not beside.failed and beside.p99 <= allowed and sent > BYTES,
        counts={"p99_s": beside.p99, "alone_p99_s": alone.p99, "frames": sent},
    )


async def test_renewals_one_after_the_other(house: House) -> None:
    """Each is answered, and none of them ends the session."""
    async with house.link()[1] as link:
        renew = frame(frames.RENEW, 0, b'{"key": "another"}')
        for number in range(200):
            link.say(renew)
            await eventually(lambda number=number: link.heard[frames.REFUSED] > number)  # type: ignore[misc]
        assert not link.ended.is_set()


# ------------------------------------------------------------------------------------------------- what takes its time


@pytest.mark.parametrize("what", [pytest.param(what, marks=LONGER) for what in ("half a message", "nothing at all")])
async def test_a_link_that_stalls_is_dead_in_time(house: House, what: str) -> None:
    """A message that never ends, or no answer to a ping: within 15 s the link is ended, and its visitor told."""
    name, link = house.link()
    async with link:
        link.client.send(header(MIB) + bytes(1000) if what == "half a message" else b"")
        link.deaf()
        asking = asyncio.create_task(house.ask(name))
        response = await asyncio.wait_for(asking, 20)
        assert (response.status, response.head and response.head.get("relay-error")) == (502, b"agent_lost")


@pytest.mark.parametrize("what", [pytest.param(what, marks=LONGER) for what in ("dripped", "never")])
async def test_a_hello_that_takes_too_long(house: House, what: str) -> None:
    """It has five seconds, whatever arrives of it by then."""
    async with await RawClient.connect(house.relay.agents_port) as client:
        client.send(UPGRADE)
        await client.head()
        ended = False
        for _ in range(80):
            client.send((header(1000) if not ended else b"") if what == "dripped" else b"")
            ended = await client.stream.left_within(0.1)
            if ended:
                break
        rest, _ = await client.rest()
        assert b'"code":"bad_hello"' in rest.replace(b" ", b"")
