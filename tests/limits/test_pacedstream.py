"""A stream under limits over real sessions: what passes and when, how each end comes through, and what is counted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, cast

import pytest

from relay.exchange.outgoing import BODY_TOO_LARGE, QUOTA_EXHAUSTED
from relay.keys.scopes import Scope
from relay.limits.allowances import Allowance
from relay.limits.meter import Ask, Meter
from relay.limits.pacedstream import PacedStream
from relay.mux.errors import SessionBusy
from relay.wire.errors import AwayCode, LocalProtocolError, ResetCode
from tests.limits.lanes import pacer
from tests.mux.ends import Ends, Owner, joined, settle
from tests.support.clock import run_virtual, virtual
from tests.support.longer import CHAOS
from tests.support.pattern import matches, whole

RATE = 50_000
FAST = Scope(streams=1000)
"""Limits, but not how fast."""
SLOW = Scope(bandwidth=RATE, streams=1000)


class Both:
    """A limited stream between an exchange's owner, here, and an agent's, there."""

    def __init__(self, limits: Limited, paced: PacedStream, here: Owner, there: Owner) -> None:
        self.limits = limits
        self.paced = paced
        self.here = here
        self.there = there

    def answer(self, size: int, *, ended: bool = False) -> None:
        """The agent sends a body."""
        assert self.there.stream is not None
        self.there.stream.write(whole(size))
        if ended:
            self.there.stream.end()

    def upload(self, size: int, piece: int = 4096) -> None:
        """Writes a body as visitors do, as fast as it may, and then ends it."""
        left = size

        def go_on(event: str = "writable") -> None:
            nonlocal left
            while left and event == "writable":
                part = min(piece, left)
                left -= part
                if not self.paced.write(whole(part, start=size - left - part)):
                    return
            if not left:
                self.here.react = None
                self.paced.end(b"")

        self.here.react = go_on
        go_on()

    def assert_over(self) -> None:
        """It counts no longer, and nothing of it is left."""
        assert self.limits.allowance.streams == 0
        assert not self.limits.meter.open
        assert not self.limits.pacer.lanes
        assert self.limits.pacer._timer is None


class Limited:
    """Relay and agent, and a meter for the relay's side."""

    def __init__(self, scope: Scope, **options: Any) -> None:
        self.ends: Ends = joined(**options)
        self.pacer = pacer()
        self.allowance = Allowance("key", scope, self.now)
        self.meter = Meter((self.allowance,))

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def open(self, *, ended: bool = False, upgrade: bool = False, greedy: bool = True) -> Both:
        """A new stream."""
        here = Owner(greedy)
        opener = self.meter.opener(self.ends.relay.session, self.pacer, Ask("192.0.2.1", None, upgrade))
        paced = opener.open(b"request", ended, here)
        assert isinstance(paced, PacedStream)
        here.stream = cast("Any", paced)
        await settle()
        return Both(self, paced, here, self.ends.agent.owners[-1])


@virtual
async def test_a_small_exchange_passes_without_delay() -> None:
    """Head, body and end of a request and of its answer below the limit arrive in the same turns as without one."""
    one = await Limited(SLOW).open()
    start = one.limits.now
    one.paced.write(b"ping")
    one.paced.end()
    await settle()
    assert bytes(one.there.body) == b"ping"
    assert one.there.stream is not None
    one.there.stream.send_head(b"200")
    one.there.stream.write(b"pong")
    one.there.stream.end(b"trailers")
    await settle()
    assert one.here.names == ["head", "data", "end"]
    assert one.here.trailers == b"trailers"
    assert one.limits.now - start < 0.001
    one.assert_over()


@virtual
async def test_an_answer_comes_at_the_limit_and_its_end_behind_it() -> None:
    """A second's worth takes a second, less the first burst; the head comes at once, the end last, all in order."""
    one = await Limited(SLOW).open(ended=True)
    start = one.limits.now
    assert one.there.stream is not None
    one.there.stream.send_head(b"200")
    one.answer(2 * RATE, ended=True)
    await settle()
    assert one.here.heads == [b"200"]
    while one.here.trailers is None:
        assert one.limits.allowance.streams == 1
        await asyncio.sleep(0.005)
    assert one.here.names == ["head", "data", "end"]
    assert matches(0, bytes(one.here.body))
    assert one.here.size == 2 * RATE
    assert 1.85 <= one.limits.now - start <= 2.0
    one.assert_over()


@virtual
async def test_a_request_goes_at_the_limit_and_its_end_behind_it() -> None:
    """Its writer is told to wait and to go on, so that little waits in the relay; all arrives in order."""
    one = await Limited(SLOW).open()
    start = one.limits.now
    one.upload(2 * RATE)
    while one.there.trailers is None:
        await asyncio.sleep(0.005)
        assert sum(lane.queued for lane in one.limits.pacer.lanes) <= 8192
    assert matches(0, bytes(one.there.body))
    assert one.there.size == 2 * RATE
    assert 1.85 <= one.limits.now - start <= 2.01
    one.answer(1, ended=True)
    await settle()
    one.assert_over()


@virtual
async def test_the_two_ways_do_not_share() -> None:
    """The limit is for each way: an upload does not slow a download."""
    one = await Limited(SLOW).open()
    one.upload(10 * RATE)
    one.answer(RATE, ended=True)
    await asyncio.sleep(1.0)
    assert one.here.trailers is not None
    one.paced.reset(ResetCode.CANCEL)
    one.assert_over()


@virtual
async def test_what_waits_is_not_credited() -> None:
    """An agent that sends on cannot make the relay hold more than the stream's window."""
    one = await Limited(Scope(bandwidth=5_000)).open(ended=True)
    one.answer(10_000_000)
    most = 0
    for _ in range(500):
        await asyncio.sleep(0.01)
        most = max(most, *(lane.queued for lane in one.limits.pacer.lanes))
    (stream,) = one.limits.ends.relay.session.streams.values()
    assert most <= stream.window.most
    assert most <= 256 * 1024
    one.paced.reset(ResetCode.CANCEL)
    one.assert_over()


@virtual
async def test_a_link_that_takes_nothing_holds_only_its_own_stream() -> None:
    """A request whose agent reads nothing stalls, another of its key has the whole limit; then the first goes on."""
    limits = Limited(SLOW)
    stuck, free = await limits.open(), await limits.open()
    stuck.there.greedy = False
    stuck.upload(20 * RATE)
    await asyncio.sleep(10.0)
    held = stuck.there.size
    free.upload(5 * RATE)
    await asyncio.sleep(5.0)
    assert free.there.trailers is not None
    assert stuck.there.size == held
    stuck.there.greedy = True
    stuck.there.take()
    await asyncio.sleep(20.0)
    assert stuck.there.trailers is not None
    assert matches(0, bytes(stuck.there.body))
    assert stuck.there.size == 20 * RATE


# ---- ends


@virtual
async def test_a_cut_drops_what_waits() -> None:
    """An agent that resets in the middle of its answer: the exchange is told at once, and gets no more bytes."""
    one = await Limited(SLOW).open()
    one.upload(10 * RATE)
    one.answer(RATE)
    await settle()
    assert one.there.stream is not None
    one.there.stream.reset(ResetCode.LOCAL_RESET, "broke off")
    await settle()
    assert one.here.reset == (ResetCode.LOCAL_RESET, False, "broke off")
    assert one.here.size < RATE / 2
    one.assert_over()
    assert one.paced.write(b"more")  # into the void, as with any stream that was cut


@pytest.mark.parametrize("how", ["reset", "lost"])
@virtual
async def test_an_answer_that_has_come_whole_is_finished(how: str) -> None:
    """Cut behind its end, by a reset of the rest of the request or with the session: the answer first, then the cut."""
    one = await Limited(SLOW).open()
    one.upload(10 * RATE)
    one.answer(RATE, ended=True)
    await settle()
    assert one.there.stream is not None
    if how == "reset":
        one.there.stream.reset(ResetCode.CANCEL)
    else:
        one.limits.ends.agent.session.abort("gone")
    await asyncio.sleep(0.5)
    assert one.here.reset is None
    assert one.here.writable, "the rest of the request goes nowhere, and its writer must not wait"
    assert one.limits.allowance.streams == 1
    await asyncio.sleep(1.0)
    assert one.here.size == RATE
    assert one.here.trailers == b""
    assert one.here.reset is not None
    assert one.here.names.index("end") < one.here.names.index("reset")
    one.assert_over()


@virtual
async def test_the_exchange_cuts() -> None:
    """A visitor who leaves: the agent sees a reset at once, and nothing more comes."""
    one = await Limited(SLOW).open()
    one.upload(10 * RATE)
    one.answer(RATE)
    await asyncio.sleep(0.2)
    size = one.here.size
    one.paced.reset(ResetCode.CANCEL, "left")
    one.assert_over()
    await asyncio.sleep(1.0)
    assert one.here.size == size
    assert one.here.reset is None
    assert one.there.reset is not None
    assert one.there.reset[0] == ResetCode.CANCEL
    one.paced.reset(ResetCode.CANCEL)
    one.assert_over()


@virtual
async def test_an_upload_goes_on_behind_the_answer() -> None:
    """A local service that answers early still gets the rest of the request, and the stream counts until then."""
    one = await Limited(SLOW).open()
    one.upload(RATE)
    one.answer(10, ended=True)
    await settle()
    assert one.here.trailers == b""
    assert one.limits.allowance.streams == 1
    await asyncio.sleep(1.0)
    assert one.there.trailers == b""
    assert one.there.size == RATE
    one.assert_over()


@virtual
async def test_nothing_behind_an_end() -> None:
    """Writing or ending once more is our own mistake, and named as such, while bytes wait and when none do."""
    one = await Limited(SLOW).open()
    one.paced.write(whole(RATE))
    one.paced.end()
    with pytest.raises(LocalProtocolError):
        one.paced.write(b"x")
    with pytest.raises(LocalProtocolError):
        one.paced.end()
    await asyncio.sleep(1.0)
    assert one.there.size == RATE
    with pytest.raises(LocalProtocolError):
        one.paced.write(b"x")


@virtual
async def test_a_stream_that_cannot_be_opened_counts_nothing() -> None:
    """The session's own refusal comes through."""
    limits = Limited(SLOW, max_streams=1)
    await limits.open()
    with pytest.raises(SessionBusy):
        await limits.open()
    assert limits.allowance.streams == 1
    assert len(limits.meter.open) == 1


# ---- limits of what passes


@pytest.mark.parametrize("answered", [False, True])
@virtual
async def test_a_body_above_the_limit_is_cut(answered: bool) -> None:
    """Bytes are counted, not declared: one too many cuts the stream, and the exchange is told why."""
    one = await Limited(Scope(body=10_000, bandwidth=RATE)).open()
    assert one.paced.write(whole(10_000)) is not None
    await settle()
    if answered:
        one.answer(RATE, ended=True)
        await settle()
    one.paced.write(b"x")
    await settle()
    assert one.there.reset is not None
    assert one.there.reset[0] == ResetCode.BAD_BODY
    await asyncio.sleep(2.0 if answered else 0.0)
    sentence = "this tunnel takes at most 10000 bytes in a request body"
    assert one.here.reset == (BODY_TOO_LARGE, True, sentence)
    assert one.here.size == (RATE if answered else 0)
    one.assert_over()


@virtual
async def test_an_upgraded_connection_has_no_body() -> None:
    """Its bytes are no request's, and there may be any number of them."""
    one = await Limited(Scope(body=10)).open(upgrade=True)
    one.paced.write(whole(100_000))
    await settle()
    assert one.there.size == 100_000
    assert one.here.reset is None


@virtual
async def test_a_month_that_is_used_up_cuts_what_runs() -> None:
    """As soon as the bytes are counted every stream ends with the reason; an answer that had come whole is finished."""
    limits = Limited(Scope(bandwidth=RATE, monthly_bytes=1_000_000))
    runs, came = await limits.open(), await limits.open()
    runs.answer(RATE)
    came.answer(20_000, ended=True)
    await asyncio.sleep(0.1)
    wall = 1_793_000_000.0
    limits.meter.fold("2026-10", 400_000, 599_999)
    assert limits.meter.enforce(wall) == 0
    limits.meter.fold("2026-10", 1, 0)
    assert limits.meter.enforce(wall) == 2
    assert runs.here.reset is not None
    assert runs.here.reset[0] == QUOTA_EXHAUSTED
    assert "1000000 bytes a month" in runs.here.reset[2]
    assert came.here.reset is None
    await asyncio.sleep(2.0)
    assert came.here.size == 20_000
    assert came.here.names == ["data", "end", "reset"]
    runs.assert_over()


@virtual
async def test_a_defect_of_one_exchange_costs_no_other() -> None:
    """Whether its bytes pass at once or in a turn: its stream is cut, its count given back, the others go on."""

    def fail(event: str) -> None:
        raise RuntimeError("a defect of ours")

    for waiting in (False, True):
        limits = Limited(SLOW)
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        good, bad = await limits.open(ended=True), await limits.open(ended=True)
        if waiting:
            bad.answer(RATE)
            await settle()
        bad.here.react = fail
        good.answer(RATE, ended=True)
        if not waiting:
            bad.answer(10)
        await asyncio.sleep(0.5)
        assert limits.allowance.streams == 1
        assert bad.there.reset is not None
        assert bad.there.reset[0] == ResetCode.INTERNAL
        await asyncio.sleep(3.0)
        assert good.here.size == RATE
        good.assert_over()


# ---- any course of events


def deeds(one: Both, chance: random.Random, sent: dict[str, int], ended: set[str]) -> list[Callable[[], object]]:
    """What may happen next on either side."""

    def write(way: str, do: Callable[[bytes], object]) -> None:
        if way in ended:
            raise LocalProtocolError("no writer writes behind its own end")
        size = chance.choice((1, 100, 5_000, 40_000))
        do(whole(size, start=sent[way]))
        sent[way] += size

    def end(way: str, do: Callable[[], object]) -> None:
        ended.add(way)
        do()

    there = one.there.stream
    assert there is not None
    return [
        *[lambda: write("up", one.paced.write)] * 6,
        *[lambda: write("down", there.write)] * 6,
        lambda: end("up", one.paced.end),
        lambda: end("down", there.end),
        lambda: there.reset(ResetCode.LOCAL_RESET),
        lambda: one.paced.reset(ResetCode.CANCEL),
        lambda: one.limits.ends.agent.session.close(AwayCode.CLOSED, "bye"),
    ]


async def course(seed: int) -> None:
    chance = random.Random(seed)
    one = await Limited(SLOW).open()
    one.here.greedy = one.there.greedy = chance.random() < 0.7
    sent, ended = {"up": 0, "down": 0}, set[str]()
    for _ in range(chance.randrange(1, 30)):
        try:
            chance.choice(deeds(one, chance, sent, ended))()
        except LocalProtocolError:
            break  # a deed behind the end of its side
        await asyncio.sleep(chance.choice((0.0, 0.0, 0.001, 0.3)))
    for side in (one.here, one.there):
        side.greedy = True
        if side.stream is not None and side.reset is None:
            side.take()
    await asyncio.sleep(30.0)
    for side, way in ((one.here, "down"), (one.there, "up")):
        assert matches(0, bytes(side.body))
        assert side.size <= sent[way]
        if side.trailers is not None:
            assert side.size == sent[way]
    one.paced.reset(ResetCode.CANCEL)
    one.assert_over()
    await settle()
    assert not one.limits.ends.relay.session.streams


@pytest.mark.chaos
def test_any_course_of_events_ends_well() -> None:
    """Seeded: whatever both sides do, bytes come in order, an end only behind all of them, and the count to zero."""
    for seed in range(5_000 if CHAOS else 120):
        try:
            run_virtual(course(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
