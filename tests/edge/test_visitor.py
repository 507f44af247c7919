"""A visitor's requests, one after the other: what reaches the agent, what is written back, how long it may take."""

from __future__ import annotations

import asyncio
import json
from ipaddress import ip_network

import pytest

from relay.edge.connection import LINGER
from relay.edge.patience import RATE_SPAN
from relay.edge.services import PRESSED, REFUSING, Timeouts
from relay.tunnels.crowds import Crowd
from relay.tunnels.hold import HoldBounds
from relay.wire.errors import ResetCode
from tests.edge.visits import GET, HIGH_WATER, HOST, Agent, Place, Visit, post, served
from tests.mux.ends import settle
from tests.support.clock import virtual

UPGRADE = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CLOSE = GET[:-2] + b"Connection: close\r\n\r\n"


# ---- one exchange


@virtual
async def test_a_request_and_its_answer() -> None:
    """The head goes out as it came, and the answer comes back as it was given; the connection waits for the next."""
    place, agent, visit = await served()
    ((number, head, ended),) = agent.opened()
    assert (number, head.method, head.target, head.name, ended) == (1, b"GET", b"/", "demo", True)
    assert place.services.exchanges == 1
    await agent.answer(1)
    assert visit.sent == HELLO
    assert (place.services.exchanges, visit.over) == (0, False)
    await visit.send(GET)
    await agent.answer(3)
    assert visit.sent == HELLO * 2


@pytest.mark.parametrize("size", [1, 7, 40])
@virtual
async def test_a_request_may_come_in_any_pieces(size: int) -> None:
    """Byte by byte too, body included."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    whole = post(b"0123456789" * 10)
    await visit.send(*[whole[at : at + size] for at in range(0, len(whole), size)])
    assert agent.body(1) == b"0123456789" * 10
    await agent.answer(1)
    assert visit.sent == HELLO


@virtual
async def test_the_head_leaves_before_the_body() -> None:
    """A head that comes alone is written alone; with data of the same message in one piece."""
    _, agent, visit = await served()
    await agent.head(1, 200)
    assert visit.sent == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    await agent.data(1, b"event")
    assert visit.sent.endswith(b"\r\n\r\n5\r\nevent\r\n")
    await agent.end(1, [(b"Trailer-A", b"1")])
    assert visit.sent.endswith(b"event\r\n0\r\nTrailer-A: 1\r\n\r\n")
    assert not visit.over


@virtual
async def test_informational_heads_are_passed_on() -> None:
    """100 and 103 as they come; not to HTTP/1.0, which does not know them."""
    _, agent, visit = await served()
    await agent.head(1, 103, [(b"Link", b"</a>")], b"Early Hints")
    assert visit.sent == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    await agent.answer(1)
    assert visit.sent.endswith(HELLO)
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    await visit.send(b"GET / HTTP/1.0\r\n" + HOST + b"\r\n")
    await agent.head(1, 103)
    assert visit.sent == b""


@virtual
async def test_http10_is_answered_and_closed() -> None:
    """By length where there is one, by the end of the connection where there is none."""
    for declared in (True, False):
        place = Place()
        agent = await place.agent()
        visit = place.visit()
        await visit.send(b"GET / HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n\r\n")
        if declared:
            await agent.answer(1)
        else:
            await agent.head(1)
            await agent.data(1, b"hello", ended=True)
        assert visit.sent.endswith(b"Connection: close\r\n\r\nhello")
        assert visit.transport.fin_sent
        assert not visit.transport.aborted


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
@virtual
async def test_answers_without_a_body_keep_the_connection(method: bytes, status: int) -> None:
    """Whatever length they declare, the next answer stands right behind the head."""
    _, agent, visit = await served(method)
    await agent.head(1, status, [(b"Content-Length", b"99")] if status != 204 else [])
    await agent.end(1)
    await visit.send(GET)
    await agent.answer(3)
    assert visit.sent.count(b"HTTP/1.1 ") == 2
    assert visit.sent.endswith(b"\r\n\r\n" + HELLO)


@virtual
async def test_a_visitor_that_asks_to_close_is_closed_behind_its_answer() -> None:
    """FIN behind the last byte; nothing that comes later is served."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    await visit.send(CLOSE + GET)
    await agent.answer(1)
    assert visit.sent == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    assert visit.transport.fin_sent
    await visit.send(GET)
    assert len(agent.opened()) == 1
    await place.passes(LINGER + 0.5)
    assert visit.over


# ---- several on one connection


@virtual
async def test_pipelined_requests_are_served_in_order_one_at_a_time() -> None:
    """The second waits unparsed until the first is answered; empty lines between them are passed over."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    await visit.send(GET + b"\r\n" + post(b"body") + GET)
    for number in (1, 3, 5):
        assert len(agent.opened()) == (number + 1) // 2
        await agent.answer(number, b"%d" % number)
    assert [head.method for _, head, _ in agent.opened()] == [b"GET", b"POST", b"GET"]
    assert agent.body(3) == b"body"
    assert visit.sent == b"".join(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number for number in (1, 3, 5))


@virtual
async def test_a_thousand_pipelined_requests() -> None:
    """Not by recursion, and all are answered; those of the relay's own too."""
    place = Place()
    visit = place.visit()
    await visit.send(GET * 1000)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert visit.statuses == [404] * 1000
    assert place.services.exchanges == 0


@virtual
async def test_what_waits_unparsed_is_bounded() -> None:
    """Behind a request that is not answered no more than about 64 KiB are read."""
    _, agent, visit = await served()
    for _ in range(100):
        visit.transport.arrive(GET * 100)
    waiting = sum(map(len, visit.transport.arrived))
    assert 100 * 100 * len(GET) - waiting < 4 * 64 * 1024
    assert not visit.transport.reading
    await agent.answer(1)
    assert len(agent.opened()) == 2


@virtual
async def test_a_visitor_that_reads_no_answers_is_not_served_more() -> None:
    """Pipelined requests whose answers pile up in the transport wait, until the visitor reads: what it can make us
    hold is bounded."""
    place = Place()
    visit = place.visit()
    visit.transport.stuck = True
    for _ in range(40):
        await visit.send(GET * 100)
        for _ in range(100):
            await asyncio.sleep(0)
    assert visit.transport.unsent < 4 * HIGH_WATER
    while visit.transport.unsent:
        visit.transport.take()
        for _ in range(200):
            await asyncio.sleep(0)
    assert visit.statuses == [404] * 4000


# ---- request bodies


@virtual
async def test_a_body_is_passed_on_as_it_comes() -> None:
    """By length and in chunks; what stands behind it is the next request."""
    for framing, wire in (
        (b"Content-Length: 10", [b"01234", b"56789"]),
        (b"Transfer-Encoding: chunked", [b"5;ext=1\r\n01234\r\n", b"5\r\n56789\r\n0\r\nA: b\r\n\r\n"]),
    ):
        place = Place()
        agent = await place.agent()
        visit = place.visit()
        await visit.send(b"POST / HTTP/1.1\r\n" + HOST + framing + b"\r\n\r\n", wire[0])
        assert agent.body(1) == b"01234"
        await visit.send(wire[1] + GET)
        assert agent.body(1) == b"0123456789"
        assert agent.kinds(1)[-1] == ("END" if b"chunked" in framing else agent.kinds(1)[-1])
        await agent.answer(1)
        assert len(agent.opened()) == 2


@virtual
async def test_a_body_that_nobody_takes_is_not_read() -> None:
    """The connection pauses when the agent takes no more, for as long as it likes, and goes on with its credit."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    body = bytes(400_000)
    await visit.send(post(body))
    assert not visit.transport.reading
    assert len(agent.body(1)) == 65_536
    await place.passes(1000)
    assert not visit.over
    await agent.credit(1, 1_000_000)
    await settle()
    assert agent.body(1) == body
    await agent.answer(1)
    assert visit.sent == HELLO


@virtual
async def test_an_early_answer_does_not_end_the_upload() -> None:
    """The answer is passed on while the body still comes; the next request is read behind the body."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    await visit.send(post(b"half", length=8))
    await agent.answer(1)
    assert visit.sent == HELLO
    assert place.services.exchanges == 1
    await visit.send(b"rest" + GET)
    assert agent.body(1) == b"halfrest"
    await agent.answer(3)
    assert visit.sent == HELLO * 2


@virtual
async def test_an_upload_that_waits_ends_when_its_link_does() -> None:
    """The answer is complete, the upload waits for room, the link breaks: the connection is not left hanging."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    body = bytes(300_000)
    await visit.send(post(body))
    await agent.answer(1)
    await agent.leave()
    await settle()
    assert visit.sent == HELLO
    assert place.services.exchanges == 0
    await visit.send(GET)
    await place.agent(generation=2)
    assert len(visit.statuses) == 1


@pytest.mark.parametrize("answered", [False, True])
@virtual
async def test_a_body_that_turns_bad_cuts_its_stream(answered: bool) -> None:
    """400 where nothing was answered yet, an abort where it was; the agent hears `bad_body`."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    await visit.send(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n")
    if answered:
        await agent.head(1)
    await visit.send(b"zz\r\n")
    assert agent.cut(1) is ResetCode.BAD_BODY
    if answered:
        assert visit.statuses == [200]
        assert not visit.sent.endswith(b"0\r\n\r\n")
        assert visit.over
    else:
        assert visit.code == "bad_request"
        assert visit.transport.fin_sent


# ---- ends of one side


@virtual
async def test_a_visitor_that_leaves_cuts_its_stream() -> None:
    """By FIN or by a broken connection, before the answer or in it, with a body under way or without."""
    for leaves in ("fin", "reset"):
        for answered in (False, True):
            for request in (GET, post(b"half", length=8)):
                place = Place()
                agent = await place.agent()
                visit = place.visit()
                await visit.send(request)
                if answered:
                    await agent.head(1)
                    await agent.data(1, b"event")
                getattr(visit.transport, leaves)()
                await settle()
                assert agent.cut(1) is ResetCode.CANCEL
                assert (visit.over, place.services.exchanges, place.services.visitors) == (True, 0, set())


FAILURES = [
    (ResetCode.LOCAL_REFUSED, "local_refused", 502),
    (ResetCode.LOCAL_RESET, "local_reset", 502),
    (ResetCode.BAD_RESPONSE, "bad_response", 502),
    (ResetCode.HEAD_TIMEOUT, "head_timeout", 504),
    (ResetCode.INTERNAL, "agent_lost", 502),
    (ResetCode.TOO_MANY_STREAMS, "too_many_streams", 429),
]


@pytest.mark.parametrize(("reset", "code", "status"), FAILURES)
@virtual
async def test_a_failure_before_the_answer_is_answered(reset: ResetCode, code: str, status: int) -> None:
    """With the row of the contract; the connection goes on where the request is complete."""
    _, agent, visit = await served()
    await agent.reset(1, reset, "http://127.0.0.1:3000")
    assert (visit.statuses, visit.code) == ([status], code)
    assert b"http://127.0.0.1:3000" in visit.sent
    assert not visit.over
    await visit.send(GET)
    await agent.answer(3)
    assert visit.sent.endswith(HELLO)


@pytest.mark.parametrize("framing", ["length", "chunked", "http10"])
@virtual
async def test_a_failure_in_the_answer_is_an_abort(framing: str) -> None:
    """Never a clean end: no last chunk, fewer bytes than declared, or a reset where the end is the connection's."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    await visit.send(b"GET / HTTP/1.%d\r\n%b\r\n" % (framing != "http10", HOST))
    await agent.head(1, 200, [(b"Content-Length", b"9")] if framing == "length" else [])
    await agent.data(1, b"hello")
    await agent.reset(1, ResetCode.LOCAL_RESET)
    assert visit.statuses == [200]
    assert visit.sent.endswith(b"hello\r\n" if framing == "chunked" else b"hello")
    assert visit.over
    assert not visit.transport.fin_sent
    assert visit.transport.aborted == (framing == "http10")
    assert place.services.exchanges == 0


@virtual
async def test_a_bad_answer_is_never_written() -> None:
    """What an agent may not say becomes `bad_response`, and nothing of it reaches the visitor."""
    _, agent, visit = await served()
    await agent.head(1, 200, [(b"A", b"b\r\nSet-Cookie: c=d")])
    assert (visit.statuses, visit.code) == ([502], "bad_response")
    assert b"Set-Cookie" not in visit.sent


# ---- the relay's own answers


@virtual
async def test_refusals_of_the_guard_and_the_reader() -> None:
    """Answered and closed; nothing reaches an agent, whatever stands behind."""
    for request, code in (
        (b"GET / HTTP/1.1\r\n\r\n", "bad_request"),
        (b"GET / HTTP/1.1\r\n" + HOST * 2 + b"\r\n", "bad_request"),
        (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", "method_not_supported"),
        (b"GET / HTTP/0.9\r\n\r\n", "bad_request"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n", "head_too_large"),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 40_000, "head_too_large"),
    ):
        place = Place()
        agent = await place.agent()
        visit = place.visit()
        await visit.send(request + GET)
        assert visit.code == code
        assert len(visit.statuses) == 1
        assert visit.transport.fin_sent
        assert agent.opened() == []
        assert place.services.exchanges == 0
        await place.passes(LINGER + 0.5)
        assert visit.over


@virtual
async def test_an_unknown_host_is_answered_and_the_connection_goes_on() -> None:
    """Also for a request with a body that came along: it is passed over."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    other = b"Host: other.tunnels.localhost\r\n"
    await visit.send(GET.replace(HOST, other), post(b"body").replace(HOST, other), GET)
    assert visit.statuses == [404, 404]
    assert visit.code == "unknown_host"
    await agent.answer(1)
    assert visit.sent.endswith(HELLO)


@virtual
async def test_a_json_rpc_request_is_refused_with_its_id() -> None:
    """Whether the request had been sent on or not."""
    body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call"}).encode()
    for known in (True, False):
        place = Place()
        agent = await place.agent()
        visit = place.visit()
        request = post(body, kind=b"application/json")
        await visit.send(request if known else request.replace(b"demo.", b"other."))
        if known:
            await agent.reset(1, ResetCode.LOCAL_REFUSED)
        answer = json.loads(visit.sent.partition(b"\r\n\r\n")[2])
        assert answer["id"] == 7
        assert answer["error"]["data"]["error"] == ("local_refused" if known else "unknown_host")


@virtual
async def test_a_body_that_has_not_come_is_not_waited_for() -> None:
    """A request that is refused before its body: answered and closed, since what follows is the body."""
    place = Place()
    visit = place.visit()
    await visit.send(post(b"half", length=1000))
    assert visit.code == "unknown_host"
    assert visit.transport.fin_sent


@virtual
async def test_too_many_connections_are_told_so() -> None:
    """One above the bound is answered and closed; others are served."""
    place = Place(crowd=Crowd(2, 2))
    agent = await place.agent()
    visits = [place.visit() for _ in range(3)]
    await settle()
    assert [visit.code for visit in visits] == [None, None, "overloaded"]
    assert visits[2].transport.fin_sent
    await visits[0].send(GET)
    await agent.answer(1)
    assert visits[0].sent == HELLO


@virtual
async def test_far_too_many_connections_are_reset() -> None:
    """Above twice the bound none is worth an answer; room comes back as they leave."""
    place = Place(crowd=Crowd(10, 2))
    visits = [place.visit() for _ in range(6)]
    await settle()
    assert [(visit.code, visit.transport.aborted) for visit in visits] == [
        *[(None, False)] * 2,
        *[("overloaded", False)] * 2,
        *[(None, True)] * 2,
    ]
    assert place.visit(peer=("192.0.2.8", 1)).code is None
    for visit in visits:
        visit.transport.abort()
    await settle()
    assert len(place.services.crowd) == len(place.services.visitors) == 1
    assert place.visit().code is None


@virtual
async def test_the_bound_of_an_address_is_not_one_of_a_proxy() -> None:
    """Those of a trusted proxy are bounded in all only; those of one IPv6 network together."""
    place = Place(crowd=Crowd(10, 2), trusted=(ip_network("192.0.2.7"),))
    assert [place.visit().code for _ in range(4)] == [None] * 4
    several = [place.visit(peer=(f"2001:db8::{number}", 1)).code for number in range(3)]
    assert several == [None, None, "overloaded"]


# ---- short of memory


@virtual
async def test_while_memory_is_short_each_answer_is_the_last() -> None:
    """Its own `Connection: close` says so, also of an answer of the relay's; what was promised before is kept."""
    place, agent, visit = await served()
    await agent.head(1, 200, [(b"Content-Length", b"5")])
    place.services.level = PRESSED
    await agent.data(1, b"hello")
    await agent.end(1)
    assert not visit.transport.fin_sent
    await visit.send(GET)
    await agent.answer(3)
    assert visit.sent.count(b"Connection: close\r\n") == 1
    assert visit.transport.fin_sent
    other = place.visit()
    await other.send(GET.replace(b"demo", b"none"))
    assert other.code == "unknown_host"
    assert b"Connection: close\r\n" in other.sent
    place.services.level = 0
    again = place.visit()
    await again.send(GET)
    await agent.answer(5)
    assert again.sent == HELLO


@virtual
async def test_while_memory_is_shorter_no_request_is_taken() -> None:
    """What began before goes on, also a request that is held."""
    place, agent, _ = await served()
    await agent.leave()
    held = place.visit()
    await held.send(GET)
    place.services.level = REFUSING
    new = place.visit()
    await new.send(GET)
    assert (new.code, new.statuses, new.transport.fin_sent) == ("overloaded", [503], True)
    assert b"Retry-After: " in new.sent
    agent = await place.agent(generation=2)
    await agent.answer(1)
    assert held.statuses == [200]


# ---- held requests


@virtual
async def test_a_request_is_held_while_its_agent_is_away() -> None:
    """It goes to the agent that comes back, with what was read of its body, and the rest follows."""
    place = Place()
    await (await place.agent()).leave()
    visit = place.visit()
    await visit.send(post(b"first ", length=11))
    assert place.services.hub.held == 1
    await place.passes(5)
    assert visit.sent == b""
    agent = await place.agent(generation=2)
    await visit.send(b"later")
    assert agent.body(1) == b"first later"
    await agent.answer(1)
    assert visit.sent == HELLO
    assert place.services.hub.held == 0


@virtual
async def test_a_held_request_is_given_up_in_the_end() -> None:
    """503 with a time to come back; too many at once are told so at once."""
    place = Place(hold=10.0)
    await (await place.agent()).leave()
    visits = [place.visit() for _ in range(5)]
    for visit in visits:
        await visit.send(GET)
    assert [visit.code for visit in visits] == [None] * 4 + ["agent_offline"]
    await place.passes(11)
    assert all(visit.code == "agent_offline" for visit in visits)
    assert b"Retry-After: " in visits[0].sent
    assert place.services.hub.held == place.services.exchanges == 0


@virtual
async def test_a_visitor_that_leaves_is_not_held() -> None:
    """Its place is free at once, and the agent that comes back hears nothing of it."""
    place = Place()
    await (await place.agent()).leave()
    visit = place.visit()
    await visit.send(GET)
    visit.transport.fin()
    await settle()
    assert place.services.hub.held == 0
    agent = await place.agent(generation=2)
    assert agent.opened() == []


@virtual
async def test_what_a_held_request_makes_us_keep_is_bounded() -> None:
    """Its body is read up to a bound, and waits in the visitor's kernel beyond."""
    place = Place()
    await (await place.agent()).leave()
    visit = place.visit()
    for _ in range(100):
        visit.transport.arrive(post(bytes(100_000)) if not _ else bytes(10_000))
    assert not visit.transport.reading
    assert sum(map(len, visit.transport.arrived)) > 1_000_000 - 5 * 64 * 1024


@virtual
async def test_the_bytes_of_held_requests_are_bounded() -> None:
    """Whatever each of them sends: all that is kept is counted, and who finds no room waits without being read."""
    bounds = HoldBounds(10.0, bytes_per_name=200_000, bytes_in_all=300_000)
    place = Place(hold=bounds)
    await (await place.agent("demo", "other")).leave()
    visits = [place.visit() for _ in range(16)]
    for number, visit in enumerate(visits):
        await visit.send(post(b"", length=60_000).replace(b"demo", b"demo" if number % 2 else b"other"))
    for visit in visits:
        for _ in range(20):
            await visit.send(bytes(3000))
    kept = {name: sum(len(v.visitor._buffer) for v in visits[at::2]) for at, name in enumerate(("other", "demo"))}
    assert max(kept.values()) <= 200_000
    assert 250_000 < sum(kept.values()) <= place.services.hub.held_bytes <= 300_000
    assert not all(visit.transport.reading for visit in visits)
    agent = await place.agent("demo", "other", generation=2)
    await place.passes(1)
    assert [len(agent.body(stream)) for stream, _, _ in agent.opened()] == [60_000] * 16
    assert place.services.hub.held_bytes == 0


@virtual
async def test_a_request_for_which_there_is_no_room_is_not_held() -> None:
    """It is told that its agent is away; a small one still finds room."""
    place = Place(hold=HoldBounds(10.0, bytes_per_name=70_000))
    await (await place.agent()).leave()
    first, large, small = place.visit(), place.visit(), place.visit()
    await first.send(post(bytes(40_000), length=50_000))
    await large.send(post(bytes(40_000), length=50_000))
    await small.send(GET)
    assert [visit.code for visit in (first, large, small)] == [None, "agent_offline", None]


# ---- upgrades


async def piped() -> tuple[Place, Agent, Visit]:
    """A connection that was switched to a pipe."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    await visit.send(UPGRADE)
    await agent.head(1, 101, [(b"Sec-WebSocket-Accept", b"y")], b"Switching Protocols")
    return place, agent, visit


@virtual
async def test_an_upgrade_becomes_a_pipe() -> None:
    """After 101 bytes pass both ways; each end is passed on by itself; then nothing is left."""
    place, agent, visit = await piped()
    assert visit.sent == (
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: y\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    await visit.send(b"ping")
    await agent.data(1, b"pong")
    assert agent.body(1) == b"ping"
    assert visit.sent.endswith(b"\r\n\r\npong")
    await place.passes(1000)
    assert not visit.over
    visit.transport.fin()
    await settle()
    assert agent.kinds(1)[-1] == "END"
    await agent.data(1, b"last")
    assert visit.sent.endswith(b"ponglast")
    await agent.end(1)
    assert visit.over
    assert place.services.exchanges == 0


@virtual
async def test_a_pipe_that_the_local_service_ends_first() -> None:
    """The visitor sees FIN and may still send; its own end is the end of all, and its last bytes are not lost."""
    place, agent, visit = await piped()
    await agent.end(1)
    assert visit.transport.fin_sent
    assert not visit.over
    await visit.send(bytes(100_000))
    visit.transport.fin()
    await settle()
    assert visit.over
    assert place.services.exchanges == 0
    await agent.credit(1, 200_000)
    assert len(agent.body(1)) == 100_000
    assert agent.kinds(1)[-1] in ("END", "DATA+END")


@virtual
async def test_bytes_behind_an_upgrade_wait_for_its_answer() -> None:
    """They pass once the local service has switched, and not before; a refused upgrade makes them the next request."""
    for switched in (True, False):
        place = Place()
        agent = await place.agent()
        visit = place.visit()
        await visit.send(UPGRADE + GET)
        assert agent.body(1) == b""
        if switched:
            await agent.head(1, 101)
            assert agent.body(1) == GET
        else:
            await agent.answer(1, b"no", 403)
            assert visit.statuses == [403]
            assert agent.body(1) == b""
            assert len(agent.opened()) == 2


@virtual
async def test_a_pipe_is_paused_when_the_other_end_takes_nothing() -> None:
    """Both ways: what the agent does not take is not read, what the visitor does not read is not consumed."""
    place, agent, visit = await piped()
    await visit.send(bytes(200_000))
    assert not visit.transport.reading
    await agent.credit(1, 300_000)
    assert visit.transport.reading
    visit.transport.stuck = True
    window = place.services.hub.tunnels["demo"].links[0].session.streams[1].window
    await agent.data(1, bytes(65_536))
    await agent.data(1, b"more")
    assert visit.visitor.full
    assert window.held() == 4
    visit.transport.take()
    assert window.held() == 0


@virtual
async def test_a_pipe_that_breaks_is_a_reset() -> None:
    """It has no other end than the connection's."""
    _, agent, visit = await piped()
    await agent.data(1, b"half a mess")
    await agent.reset(1, ResetCode.LOCAL_RESET)
    assert visit.transport.aborted


# ---- how long anything may take


@virtual
async def test_a_head_that_drips_is_timed_out() -> None:
    """Ten seconds from its first byte, however many bytes come; a connection that says nothing is closed quietly."""
    place = Place()
    drip, silent = place.visit(), place.visit()
    for at in range(25):
        if not drip.transport.fin_sent:
            await drip.send(GET[at : at + 1])
        await place.passes(0.5)
    assert drip.code == "request_timeout"
    assert drip.over
    assert (silent.over, silent.sent) == (True, b"")


@virtual
async def test_an_idle_connection_is_closed_quietly() -> None:
    """After an exchange it may be silent for the idle time."""
    place, agent, visit = await served()
    await agent.answer(1)
    await place.passes(59)
    assert not visit.over
    await place.passes(2)
    assert visit.over
    assert visit.sent == HELLO


@virtual
async def test_a_silent_or_slow_body_is_timed_out() -> None:
    """Sixty seconds of silence, or less than the least rate over its span; 408, and the agent hears a cancel."""
    for rate in (0, 10):
        place = Place()
        agent = await place.agent()
        visit = place.visit()
        await visit.send(post(b"", length=100_000))
        for _ in range(int(RATE_SPAN) + 5):
            if rate and not visit.transport.fin_sent:
                await visit.send(bytes(rate))
            await place.passes(1)
        assert visit.code == "request_timeout"
        assert agent.cut(1) is ResetCode.CANCEL


@virtual
async def test_a_body_that_flows_has_no_total() -> None:
    """Ten minutes of upload at little more than the least rate are served."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    await visit.send(post(b"", length=100 * 600))
    for _ in range(600):
        await visit.send(bytes(100))
        await place.passes(1)
    assert len(agent.body(1)) == 100 * 600
    assert visit.sent == b""


@virtual
async def test_an_answer_that_does_not_come_is_timed_out() -> None:
    """504 after the time for a head, counted from the end of the request; the agent hears why."""
    place, agent, visit = await served()
    await place.passes(299)
    assert visit.sent == b""
    await place.passes(2)
    assert (visit.statuses, visit.code) == ([504], "head_timeout")
    assert agent.cut(1) is ResetCode.HEAD_TIMEOUT
    assert place.services.exchanges == 0


@virtual
async def test_an_event_stream_may_be_silent_for_ever() -> None:
    """Once the head was sent nothing is timed."""
    place, agent, visit = await served(timeouts=Timeouts(head=1.0, idle=2.0, response_head=3.0))
    await agent.head(1)
    await place.passes(2000)
    assert not visit.over
    await agent.data(1, b"late")
    assert visit.sent.endswith(b"4\r\nlate\r\n")


@virtual
async def test_a_visitor_that_does_not_read_its_answer_stalls_only_itself() -> None:
    """What it does not read is not consumed, so its stream stops; it is cut after the idle time without a byte."""
    place, agent, visit = await served()
    visit.transport.stuck = True
    await agent.head(1)
    await agent.data(1, bytes(65_536))
    stream = place.services.hub.tunnels["demo"].links[0].session.streams[1]
    assert visit.visitor.full
    await agent.send()
    assert stream.window.held() == 65_536
    other = place.visit()
    await other.send(GET)
    await agent.answer(3)
    assert other.sent == HELLO
    visit.transport.take()
    assert stream.window.held() == 0
    await agent.data(1, bytes(100_000))
    await place.passes(61)
    assert visit.transport.aborted
    assert agent.cut(1) is ResetCode.CANCEL


@virtual
async def test_an_answered_upload_may_not_hang_for_ever() -> None:
    """The answer is complete; a visitor that never sends the rest of its body is closed after the idle time."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    await visit.send(post(b"half", length=8))
    await agent.answer(1)
    await place.passes(1000)
    assert visit.over
    assert place.services.exchanges == 0
