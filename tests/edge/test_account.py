"""What is told of an exchange once it is over: exactly once, whoever ended it, and however."""

from __future__ import annotations

from relay.edge.account import BROKEN_OFF, COMPLETE, CUT, VISITOR_LEFT, Account
from relay.edge.services import Timeouts
from relay.wire.errors import ResetCode
from tests.edge.visits import GET, HOST, Agent, Place, Visit, post
from tests.support.clock import virtual

UPGRADE = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"


class Book(list[Account]):
    """All accounts so far."""

    @property
    def last(self) -> tuple[int, str, str, int, int]:
        """(status, error, ended, bytes in, bytes out) of the only one since the last look."""
        (one,) = self
        self.clear()
        return one.status, one.error, one.ended, one.bytes_in, one.bytes_out


async def place(**options: object) -> tuple[Place, Agent, Visit, Book]:
    made, book = Place(**options), Book()  # type: ignore[arg-type]
    made.services.on_exchange = book.append
    agent = await made.agent()
    return made, agent, made.visit(), book


@virtual
async def test_a_whole_exchange() -> None:
    """Told when it is over and not before, with its tunnel, the agent's key and the bytes of both bodies."""
    made, agent, visit, book = await place()
    await visit.send(post(b"0123456789"))
    assert not book
    await agent.answer(1)
    one = book[0]
    assert (one.tunnel, one.request_id, one.client) == ("demo", agent.opened()[0][1].request_id, visit.visitor.address)
    assert one.key_id == made.services.hub.tunnels["demo"].links[0].principal.key_id != ""
    assert 0 < one.began <= one.head_at <= one.over_at
    assert one.request is not None
    assert one.request.method == b"POST"
    assert book.last == (200, "", COMPLETE, 10, 5)
    made.services.traffic.settle()
    assert made.services.traffic.requests == {(2, ""): 1}


@virtual
async def test_each_of_several_on_one_connection() -> None:
    """Pipelined ones too."""
    made, agent, visit, book = await place()
    await visit.send(GET + GET)
    await agent.answer(1)
    await agent.answer(3, b"")
    assert [(one.status, one.bytes_out) for one in book] == [(200, 5), (200, 0)]
    assert made.services.exchanges == 0


@virtual
async def test_an_answer_that_breaks_off() -> None:
    """With the status that it had begun with."""
    made, agent, visit, book = await place()
    await visit.send(GET)
    await agent.head(1)
    await agent.data(1, b"abc")
    await agent.reset(1, ResetCode.LOCAL_RESET)
    assert book.last == (200, "", BROKEN_OFF, 0, 3)
    assert made.services.traffic.broken_off == 1


@virtual
async def test_a_visitor_who_leaves() -> None:
    """Before an answer there is no status; in the middle of one there is."""
    made, agent, visit, book = await place()
    await visit.send(GET)
    await agent.head(1)
    await agent.data(1, b"abc")
    visit.transport.reset()
    await made.passes(0.3)
    assert book.last == (200, "", VISITOR_LEFT, 0, 3)
    visit = made.visit()
    await visit.send(GET)
    visit.transport.reset()
    await made.passes(0.3)
    assert book.last == (0, "", VISITOR_LEFT, 0, 0)
    made.services.traffic.settle()
    assert made.services.traffic.requests == {(2, ""): 1, (0, ""): 1}


@virtual
async def test_the_relays_own_answers() -> None:
    """By their code; one that waited too long, or whose body is bad, is told once and not twice."""
    made, agent, visit, book = await place(hold=0.0, timeouts=Timeouts(response_head=1.0))
    await visit.send(GET.replace(b"demo", b"nobody"))
    status, error, ended, _, out = book.last
    assert (status, error, ended) == (404, "unknown_host", COMPLETE)
    assert visit.sent.endswith(b"\r\n\r\n" + visit.sent[-out:])
    await visit.send(GET)
    await agent.reset(1, ResetCode.LOCAL_REFUSED)
    assert book.last[:3] == (502, "local_refused", COMPLETE)
    await visit.send(GET)
    await made.passes(2.0)
    assert book.last[:3] == (504, "head_timeout", COMPLETE)
    visit = made.visit()
    await visit.send(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert book.last[:3] == (400, "bad_request", COMPLETE)
    assert made.services.exchanges == 0


@virtual
async def test_what_is_no_request() -> None:
    """A head that is refused or never comes to its end was asked by somebody, too."""
    made, _, visit, book = await place()
    await visit.send(b"GARBAGE\r\n\r\n")
    assert book[0].request is None
    assert book.last[:3] == (400, "bad_request", COMPLETE)
    visit = made.visit()
    await visit.send(b"GET / HT")
    await made.passes(11.0)
    assert book.last[:3] == (408, "request_timeout", COMPLETE)
    made.visit()
    await made.passes(11.0)  # a connection on which nothing came asked for nothing
    assert not book


@virtual
async def test_an_upgraded_connection() -> None:
    """Told at its end, with what went through each way; cut, it says so."""
    made, agent, visit, book = await place()
    await visit.send(UPGRADE)
    await agent.head(1, 101, [], b"Switching Protocols")
    await visit.send(b"ping!")
    await agent.data(1, b"pong")
    assert not book
    visit.visitor.cut()
    await made.passes(0.3)
    assert book.last == (101, "", CUT, 5, 4)
