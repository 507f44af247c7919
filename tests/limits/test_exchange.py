"""An exchange whose stream is limited: it cannot tell the difference, but for the time and the reasons of a cut."""

from __future__ import annotations

import asyncio
import gc

import pytest

from relay.exchange.heads import EncodedRequest, Fields, RequestHead, ResponseHead, encode_response
from relay.exchange.outgoing import Exchange, Failure
from relay.keys.scopes import Scope
from relay.limits.allowances import Allowance
from relay.limits.meter import Ask, Meter
from relay.limits.pacedstream import PacedStream
from tests.limits.lanes import pacer
from tests.mux.ends import Ends, joined, settle
from tests.support.clock import virtual
from tests.support.pattern import matches, whole

LIMITS = Scope(bandwidth=100_000, body=50_000, streams=2)


class Visit:
    """`ExchangeEvents` that remembers, and the agent's stream."""

    def __init__(self, ends: Ends, method: bytes, *, upgrade: bool = False) -> None:
        self.exchange = Exchange(self, "r1")
        self.head: ResponseHead | None = None
        self.body = b""
        self.trailers: Fields | None = None
        self.failure: Failure | None = None
        self.lulls = 0
        self.writable = 0
        self.pacer = pacer()
        self.allowance = Allowance("key", LIMITS, 0.0)
        self.meter = Meter((self.allowance,))
        ask = Ask("192.0.2.1", None, upgrade)
        request = EncodedRequest(RequestHead(method, b"/", [(b"Host", b"demo.x")], "demo", "r1", upgrade))
        opener = self.meter.opener(ends.relay.session, self.pacer, ask)
        self.exchange.start(opener, request, method == b"GET" and not upgrade)
        self.ends = ends

    def respond(self, status: int, body: bytes, *, ended: bool = True) -> None:
        """The agent's answer."""
        stream = self.ends.agent.owners[-1].stream
        assert stream is not None
        stream.send_head(encode_response(ResponseHead(status, b"", [])))
        stream.write(body)
        if ended:
            stream.end()

    def on_informational(self, head: ResponseHead) -> None:
        raise AssertionError("no such head was sent")

    def on_head(self, head: ResponseHead, length: int | None) -> None:
        self.head = head

    def on_lull(self) -> None:
        self.lulls += 1

    def on_data(self, data: memoryview) -> bool:
        self.body += data
        return True

    def on_last(self, data: memoryview) -> None:
        self.on_data(data)
        self.on_end([])

    def on_end(self, trailers: Fields) -> None:
        self.trailers = trailers

    def on_failed(self, failure: Failure) -> None:
        self.failure = failure

    def on_writable(self) -> None:
        self.writable += 1


@virtual
async def test_an_answer_comes_whole() -> None:
    """Its head at once, its bytes at the limit, its end last."""
    visit = Visit(joined(), b"GET")
    await settle()
    visit.respond(200, whole(200_000))
    await settle()
    assert visit.head is not None
    assert visit.head.status == 200
    await asyncio.sleep(1.8)
    assert visit.trailers is None
    await asyncio.sleep(0.2)
    assert visit.trailers == []
    assert len(visit.body) == 200_000
    assert matches(0, visit.body)
    assert visit.allowance.streams == 0


@pytest.mark.parametrize("body", [b"", b"body"])
@virtual
async def test_a_head_does_not_wait_for_bytes_that_do(body: bytes) -> None:
    """It is told to be alone where nothing of its body came, or where none of it may pass yet."""
    visit = Visit(joined(), b"GET")
    await settle()
    while visit.pacer.grab(visit.meter.down, 1000):
        pass
    stream = visit.ends.agent.owners[-1].stream
    assert stream is not None
    stream.send_head(encode_response(ResponseHead(200, b"", [])))
    if body:
        stream.finish(body)
    await settle()
    assert visit.head is not None
    assert (visit.lulls, visit.body, visit.trailers) == (1, b"", None)
    await asyncio.sleep(0.1)
    assert (visit.lulls, visit.body, visit.trailers) == (1, body, [] if body else None)
    assert visit.allowance.streams == (0 if body else 1)


@virtual
async def test_an_answer_of_one_frame_passes_at_once() -> None:
    """Where the limit leaves room for it, there is no lull between its head and its body."""
    visit = Visit(joined(), b"GET")
    await settle()
    stream = visit.ends.agent.owners[-1].stream
    assert stream is not None
    stream.send_head(encode_response(ResponseHead(200, b"", [])))
    stream.finish(b"body")
    await settle()
    assert (visit.lulls, visit.body, visit.trailers) == (0, b"body", [])
    assert visit.allowance.streams == 0


@virtual
async def test_a_body_that_is_too_large_fails_by_name() -> None:
    """The visitor's side learns the contract's code and the limit."""
    visit = Visit(joined(), b"POST")
    visit.exchange.write(whole(50_000))
    visit.exchange.write(b"x")
    assert visit.failure == Failure("body_too_large", "this tunnel takes at most 50000 bytes in a request body")
    assert visit.allowance.streams == 0


@virtual
async def test_a_used_up_month_fails_by_name() -> None:
    """So does an exchange that runs when the month's bytes are used up."""
    visit = Visit(joined(), b"GET")
    visit.allowance.rescope(Scope(monthly_bytes=10), 0.0)
    visit.meter.fold("2026-10", 0, 10)
    visit.meter.enforce(1_793_000_000.0)
    assert visit.failure is not None
    assert visit.failure.code == "quota_exhausted"
    assert visit.failure.detail.startswith("the 10 bytes a month of this tunnel are used up")


@virtual
async def test_an_upgraded_connection_is_a_pipe_in_both_directions() -> None:
    """Each way at the limit, each end behind its own bytes."""
    visit = Visit(joined(), b"GET", upgrade=True)
    await settle()
    visit.respond(101, whole(100_000), ended=False)
    await settle()
    assert visit.exchange.upgraded
    visit.exchange.write(whole(100_000))
    visit.exchange.end([])
    await asyncio.sleep(1.1)
    there = visit.ends.agent.owners[-1]
    assert (there.size, there.trailers, len(visit.body)) == (100_000, b"", 100_000)
    assert visit.allowance.streams == 1
    assert there.stream is not None
    there.stream.end()
    await settle()
    assert visit.trailers == []
    assert visit.allowance.streams == 0


@pytest.mark.parametrize("size", [10, 50_000])
@virtual
async def test_what_is_over_leaves_no_circle(size: int) -> None:
    """A limited exchange that has ended is freed at once, not by the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        ends = joined()
        visit = Visit(ends, b"POST")
        visit.exchange.write(whole(size))
        visit.exchange.end([])
        await settle()
        visit.respond(200, whole(size))
        await asyncio.sleep(1.0)
        assert visit.trailers == []
        visit.exchange = Exchange(visit, "r2")  # as a visitor's connection goes on to its next request
        assert [one for one in gc.get_objects() if isinstance(one, PacedStream)] == []
    finally:
        gc.enable()
