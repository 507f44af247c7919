"""The relay ends: which connections may still ask, which are told why, which are cut."""

from __future__ import annotations

import socket

import pytest

from relay.edge.leaver import FIRST_WITHIN
from relay.edge.websocketframes import close_frame
from relay.wire.errors import ResetCode
from tests.edge.visits import GET, HOST, Agent, Place, Visit, post, served
from tests.mux.ends import settle
from tests.support.clock import virtual

UPGRADE = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
LAST = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
RESTARTS = close_frame(1012)
TEXT = b"\x81\x05hello"
MASKED_TEXT = b"\x81\x85mask" + bytes(byte ^ b"mask"[place % 4] for place, byte in enumerate(b"hello"))


async def seasoned(place: Place, agent: Agent) -> Visit:
    """An idle connection that has had its first answer."""
    visit = place.visit()
    await visit.send(GET)
    await agent.answer(agent.opened()[-1][0])
    assert visit.sent == HELLO
    return visit


async def stops(place: Place) -> None:
    """Nobody comes after this process."""
    place.services.draining = place.services.stopping = True
    for visitor in list(place.services.visitors):
        visitor.shutdown()
    await settle()


async def parts(place: Place) -> None:
    """The grace time is over."""
    for visitor in list(place.services.visitors):
        visitor.part()
    await settle()


# ---- idle, and not


@virtual
async def test_a_relay_that_stops_finishes_what_runs() -> None:
    """Idle connections close, a running exchange and a request that has begun end with `Connection: close`."""
    place, agent, busy = await served()
    idle, begun = await seasoned(place, agent), place.visit()
    await begun.send(GET[:20])
    await stops(place)
    assert (idle.over, busy.over, begun.over) == (True, False, False)
    assert [visit.visitor.busy for visit in (busy, begun)] == [True, True]
    await agent.answer(1)
    await begun.send(GET[20:])
    await agent.answer(agent.opened()[-1][0])
    for visit in (busy, begun):
        assert visit.sent == LAST
        assert visit.transport.fin_sent
        assert not visit.visitor.busy


@virtual
async def test_a_connection_that_has_just_come_has_a_moment_for_its_first_request() -> None:
    """Its request is on the way, for all that is known; who says nothing is waited for no longer than that."""
    place = Place()
    agent = await place.agent()
    old = place.visit()
    await place.passes(FIRST_WITHIN)
    quick, silent = place.visit(), place.visit()
    await stops(place)
    assert (old.over, quick.over, silent.over) == (True, False, False)
    await quick.send(GET)
    await agent.answer(1)
    assert quick.sent == LAST
    await place.passes(FIRST_WITHIN + 0.5)
    assert silent.over
    assert silent.sent == b""


@virtual
async def test_what_waits_in_the_kernel_counts_as_come() -> None:
    """A connection that looks idle is not closed above a request that nobody has read yet."""
    place = Place()
    agent = await place.agent()
    visit = await seasoned(place, agent)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        visit.transport._extra["socket"] = ours  # type: ignore[attr-defined]
        assert visit.visitor.is_idle()
        theirs.send(GET)
        assert not visit.visitor.is_idle()
        await stops(place)
        assert not visit.over
        await visit.send(GET)
        await agent.answer(3)
        assert visit.sent == HELLO + LAST


@virtual
async def test_pipelined_requests_that_have_come_are_answered() -> None:
    """An answer that promised the next one is followed by it; the first that says close is the last."""
    place, agent, visit = await served()
    await agent.head(1, 200, [(b"Content-Length", b"5")])
    await visit.send(GET, GET)
    await stops(place)
    await agent.data(1, b"hello", ended=True)
    await agent.answer(3)
    assert visit.sent == HELLO + LAST
    assert visit.transport.fin_sent
    assert len(agent.opened()) == 2


@virtual
async def test_an_answer_that_promised_to_go_on_ends_without_a_next_request() -> None:
    """Its head left before the relay stopped: the connection is idle when it is complete, and closes like any other."""
    place, agent, visit = await served()
    await agent.head(1, 200, [(b"Content-Length", b"5")])
    await stops(place)
    await agent.data(1, b"hello", ended=True)
    assert visit.sent == HELLO
    assert visit.transport.fin_sent


@virtual
async def test_while_another_process_takes_over_idle_connections_are_kept() -> None:
    """Until their next request, whose answer says close; an answer that promised to go on does go on."""
    place, agent, visit = await served()
    idle = await seasoned(place, agent)
    await agent.head(1, 200, [(b"Content-Length", b"5")])
    place.services.draining = True
    await agent.data(1, b"hello", ended=True)
    assert visit.sent == HELLO
    assert not visit.transport.fin_sent
    for one in (visit, idle):
        assert one.visitor.busy
        await one.send(GET)
        await agent.answer(agent.opened()[-1][0])
        assert one.sent == HELLO + LAST
        assert one.transport.fin_sent


# ---- the end of the grace time


@virtual
async def test_what_outlives_the_grace_time_is_cut_as_an_abort() -> None:
    """The agent hears a cancel, the visitor a reset, and no clean end."""
    place, agent, visit = await served()
    await agent.head(1)
    await parts(place)
    assert visit.transport.aborted
    assert not visit.sent.endswith(b"0\r\n\r\n")
    assert agent.cut(1) is ResetCode.CANCEL
    assert place.services.exchanges == 0


@virtual
async def test_an_answer_that_is_complete_is_not_cut() -> None:
    """The grace time is over: what is written is written, and an idle connection is closed as at any other time."""
    place, agent, visit = await served()
    idle, begun = place.visit(), place.visit()
    await begun.send(GET[:20])
    place.services.draining = True
    visit.transport.stuck = True
    await agent.answer(1)
    await parts(place)
    assert not visit.transport.aborted
    visit.transport.take()
    assert visit.transport.fin_sent
    assert (idle.over, idle.transport.aborted) == (True, False)
    assert begun.over


@virtual
async def test_held_requests_are_told_that_the_relay_stops() -> None:
    """By their own code; a request that comes later is not even held."""
    place = Place()
    await (await place.agent()).leave()
    visit, later = place.visit(), place.visit()
    await visit.send(GET)
    place.services.draining = True
    place.services.hub.give_up()
    await later.send(GET)
    for one in (visit, later):
        assert one.code == "draining"
        assert one.transport.fin_sent


# ---- in the hands of another process


@virtual
async def test_a_request_that_is_held_is_handed_over() -> None:
    """With all that came of it and behind it, and the connection; here nothing is left of either."""
    place = Place()
    await (await place.agent()).leave()
    visit = place.visit()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        visit.transport._extra["socket"] = ours  # type: ignore[attr-defined]
        whole = post(b"hello") + GET
        await visit.send(whole)
        assert (place.services.hub.held, place.services.exchanges) == (1, 1)
        ((descriptor, sent),) = place.services.hand_over_held()
        await settle()
        assert sent == whole
        assert (place.services.hub.held, place.services.exchanges, place.services.visitors) == (0, 0, set())
        place.services.traffic.settle()
        assert place.services.traffic.requests == {}  # whoever answers it counts it
        assert visit.sent == b""
        with socket.socket(fileno=descriptor) as kept:
            kept.send(b"there")
            assert theirs.recv(5) == b"there"
    assert place.services.hub.held_bytes == 0


@virtual
async def test_the_same_request_again_is_held_and_handed_over_like_any_other() -> None:
    """What is known of its head from the last time does not stand in for its bytes."""
    place = Place()
    agent = await place.agent()
    visit = await seasoned(place, agent)
    await agent.leave()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        visit.transport._extra["socket"] = ours  # type: ignore[attr-defined]
        await visit.send(GET)
        assert (place.services.hub.held, visit.sent) == (1, HELLO)
        ((descriptor, sent),) = place.services.hand_over_held()
        socket.close(descriptor)
    assert sent == GET
    assert visit.sent == HELLO


@virtual
async def test_nothing_else_is_handed_over() -> None:
    """Idle, under way, or held by way of a password that was checked first: these have another end."""
    place, agent, _ = await served()
    await seasoned(place, agent)
    assert place.services.hand_over_held() == []
    assert len(place.services.visitors) == 2


@virtual
async def test_the_head_of_a_request_is_kept_while_it_is_held_only() -> None:
    """An idle connection holds little."""
    place = Place()
    await (await place.agent()).leave()
    visit = place.visit()
    await visit.send(GET)
    assert visit.visitor._held_head == GET
    agent = await place.agent(generation=2)
    await agent.answer(1)
    assert visit.sent == HELLO
    assert visit.visitor._held_head == b""


# ---- WebSockets


async def piped() -> tuple[Place, Agent, Visit]:
    """A connection that was switched to a pipe, through which a message has gone each way."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    await visit.send(UPGRADE)
    await agent.head(1, 101)
    await visit.send(MASKED_TEXT)
    await agent.data(1, TEXT)
    return place, agent, visit


def unmasked(frame: bytes) -> bytes:
    """The payload of a short frame from a client."""
    return bytes(byte ^ frame[2 + place % 4] for place, byte in enumerate(frame[6:]))


@virtual
async def test_a_websocket_is_closed_both_ways_and_told_why() -> None:
    """1012 to the visitor, 1001 to the local service, each with FIN behind it; what comes late goes nowhere; when both
    have ended nothing is left."""
    place, agent, visit = await piped()
    await parts(place)
    assert visit.sent.endswith(TEXT + RESTARTS)
    assert visit.transport.fin_sent
    farewell = agent.body(1).removeprefix(MASKED_TEXT)
    assert (farewell[0], farewell[1] & 0x80, unmasked(farewell)[:2]) == (0x88, 0x80, (1001).to_bytes(2, "big"))
    assert agent.kinds(1)[-1] in ("END", "DATA+END")
    before = visit.sent, agent.body(1)
    await visit.send(MASKED_TEXT)
    await agent.data(1, TEXT + b"\x88\x00")
    assert (visit.sent, agent.body(1)) == before
    assert place.services.exchanges == 1
    await agent.end(1)
    visit.transport.fin()
    await settle()
    assert (visit.over, visit.transport.aborted) == (True, False)
    assert place.services.exchanges == 0


@pytest.mark.parametrize("first", ["visitor", "local service"])
@virtual
async def test_either_end_may_be_first(first: str) -> None:
    """The other one is waited for."""
    place, agent, visit = await piped()
    await parts(place)
    if first == "visitor":
        visit.transport.fin()
    else:
        await agent.end(1)
    await settle()
    assert not visit.over
    if first == "visitor":
        await agent.end(1)
    else:
        visit.transport.fin()
    await settle()
    assert (visit.over, visit.transport.aborted, agent.cut(1)) == (True, False, None)


@virtual
async def test_a_frame_that_has_begun_is_finished_first() -> None:
    """In each direction by itself: the close frame stands behind it, and nothing behind the close frame."""
    place, agent, visit = await piped()
    await visit.send(MASKED_TEXT[:7])
    await agent.data(1, TEXT[:1])
    await parts(place)
    assert visit.sent.endswith(TEXT + TEXT[:1])
    assert agent.body(1) == MASKED_TEXT + MASKED_TEXT[:7]
    await visit.send(MASKED_TEXT[7:] + MASKED_TEXT)
    await agent.data(1, TEXT[1:] + TEXT)
    assert visit.sent.endswith(TEXT + TEXT + RESTARTS)
    assert agent.body(1).startswith(MASKED_TEXT * 2 + b"\x88")
    assert len(agent.body(1)) == len(MASKED_TEXT) * 2 + len(RESTARTS) + 4


@virtual
async def test_a_direction_that_has_ended_is_told_nothing() -> None:
    """Nothing may be written behind an end."""
    place, agent, visit = await piped()
    visit.transport.fin()
    await settle()
    await parts(place)
    assert agent.body(1) == MASKED_TEXT
    assert visit.sent.endswith(RESTARTS)
    place, agent, visit = await piped()
    await agent.end(1)
    await parts(place)
    assert visit.sent.endswith(TEXT)
    assert agent.body(1).startswith(MASKED_TEXT + b"\x88")


@virtual
async def test_a_pipe_that_is_no_websocket_is_cut() -> None:
    """Whoever took the upgrade and speaks something else would take a close frame for its own bytes."""
    place, agent, visit = await piped()
    await agent.data(1, b"\x05 is no frame")
    await parts(place)
    assert visit.transport.aborted
    assert agent.cut(1) is ResetCode.CANCEL
    assert place.services.exchanges == 0


@virtual
async def test_a_key_that_is_revoked_still_cuts_a_websocket_at_once() -> None:
    """That is no farewell."""
    _, agent, visit = await piped()
    visit.visitor.cut()
    await settle()
    assert visit.transport.aborted
    assert visit.sent.endswith(TEXT)
    assert agent.cut(1) is ResetCode.CANCEL


@virtual
async def test_an_http10_answer_by_close_is_reset() -> None:
    """There an end would look complete."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    await visit.send(b"GET / HTTP/1.0\r\n" + HOST + b"\r\n")
    await agent.head(1)
    await agent.data(1, b"half")
    await parts(place)
    assert visit.transport.aborted
