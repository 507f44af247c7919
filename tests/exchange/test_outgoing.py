"""The opener's side of an exchange: which answers of an agent pass, and what every kind of end is called."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay.exchange.errors import MalformedHead
from relay.exchange.heads import (
    MOST_INFORMATIONAL,
    EncodedRequest,
    Fields,
    RequestHead,
    ResponseHead,
    decode_fields,
    decode_request,
    encode_fields,
    encode_response,
)
from relay.exchange.outgoing import Exchange, Failure
from relay.mux.errors import SessionBusy, SessionGone
from relay.wire import frames
from relay.wire.errors import ResetCode
from relay.wire.frames import decode_reset, encode_reset
from tests.mux.ends import RawPeer, Side, against, f_credit, f_data, f_end, f_head, settle
from tests.support.clock import virtual

LENGTH_3 = [(b"Content-Length", b"3")]


class Log:
    """`ExchangeEvents` that remembers, and consumes at once."""

    def __init__(self) -> None:
        self.exchange = Exchange(self, "r1")
        self.names: list[str] = []
        self.informational: list[int] = []
        self.head: ResponseHead | None = None
        self.length: int | None = -1
        self.body = b""
        self.trailers: Fields | None = None
        self.failure: Failure | None = None
        self.writable = 0
        self.react: Callable[[str], None] | None = None

    def _note(self, name: str) -> None:
        assert self.trailers is None or name in ("end", "writable"), f"{name} after the end"
        assert self.failure is None or name in ("failed", "writable"), f"{name} after the failure"
        self.names.append(name)
        if self.react is not None:
            self.react(name)

    def on_informational(self, head: ResponseHead) -> None:
        self.informational.append(head.status)
        self._note("informational")

    def on_head(self, head: ResponseHead, length: int | None) -> None:
        self.head, self.length = head, length
        self._note("head")

    def on_lull(self) -> None:
        assert self.head is not None

    def on_data(self, data: memoryview) -> bool:
        self.body += data
        self._note("data")
        return True

    def on_last(self, data: memoryview) -> None:
        self.on_data(data)
        self.on_end([])

    def on_end(self, trailers: Fields) -> None:
        self.trailers = trailers
        self._note("end")

    def on_failed(self, failure: Failure) -> None:
        self.failure = failure
        self._note("failed")

    def on_writable(self) -> None:
        self.writable += 1
        self._note("writable")


class Asked:
    """One exchange over a session, with a raw agent."""

    def __init__(self, method: bytes, *, ended: bool, upgrade: bool) -> None:
        self.side: Side
        self.agent: RawPeer
        self.side, self.agent = against(opener=True)
        self.log = Log()
        self.exchange = self.log.exchange
        self.head = RequestHead(method, b"/path?q", [(b"Host", b"demo.x")], "demo", "r1", upgrade)
        self.exchange.start(self.side.session, EncodedRequest(self.head), ended)

    async def says(self, *parts: bytes) -> None:
        """The agent's frames, in one message."""
        await self.agent.send(*parts)

    @property
    def reset(self) -> ResetCode | None:
        """How the relay cut the stream."""
        for kind, _, payload in self.agent.frames:
            if kind == frames.RESET:
                return ResetCode(decode_reset(memoryview(payload))[0])
        return None

    @property
    def gone(self) -> bool:
        """Whether nothing is left of the stream, and the session goes on."""
        return not self.side.session.streams and not self.side.session.ended


async def ask(method: bytes = b"GET", *, ended: bool = True, upgrade: bool = False) -> Asked:
    asked = Asked(method, ended=ended, upgrade=upgrade)
    await settle()
    return asked


def answer(status: int = 200, fields: Fields | None = None, *, ended: bool = False) -> bytes:
    return f_head(1, encode_response(ResponseHead(status, b"Fine", fields or [])), ended=ended)


# ---- the request


@virtual
async def test_the_request_leaves_as_it_was_given() -> None:
    """The head in OPEN, the body as data, trailers with the end; without a body OPEN says so."""
    asked = await ask(ended=False)
    assert asked.exchange.write(b"bo")
    assert asked.exchange.write(b"dy")
    asked.exchange.end([(b"Digest", b"x"), (b"Content-Length", b"9"), (b"Connection", b"close")])
    await settle()
    (_, number, payload), *body, (_, _, trailers) = [one for one in asked.agent.frames if one[1]]
    assert decode_request(payload) == asked.head
    assert number == 1
    assert b"".join(data for _, _, data in body) == b"body"
    assert decode_fields(trailers, 0) == [(b"Digest", b"x")]
    assert (await ask()).agent.kinds(1) == ["OPEN+END"]


@virtual
async def test_a_writer_is_told_to_wait_and_to_go_on() -> None:
    """`write` is False while the agent takes nothing; `on_writable` comes when it does."""
    asked = await ask(b"POST", ended=False)
    assert not asked.exchange.write(bytes(200_000))
    await settle()
    assert asked.log.writable == 0
    await asked.says(f_credit(1, 200_000))
    assert asked.log.writable == 1


@virtual
async def test_what_cannot_be_opened_is_said_by_type() -> None:
    """A session that goes, one that is full, a head that the wire cannot carry: three errors, and no event."""
    side, _ = against(opener=True, max_streams=1)
    head = RequestHead(b"GET", b"/", [], "demo")
    Exchange(Log(), "r1").start(side.session, EncodedRequest(head), True)
    log = Log()
    with pytest.raises(SessionBusy):
        log.exchange.start(side.session, EncodedRequest(head), True)
    side.session.leaving = True
    with pytest.raises(SessionGone):
        log.exchange.start(side.session, EncodedRequest(head), True)
    side, _ = against(opener=True)
    with pytest.raises(MalformedHead):
        log.exchange.start(side.session, EncodedRequest(RequestHead(b"M" * 300, b"/", [], "demo")), True)
    assert side.session.streams == {}
    # Before a start, and after one that failed, nothing is sent.
    assert log.exchange.write(b"x")
    log.exchange.end([])
    log.exchange.consumed(5)
    log.exchange.abort()
    assert log.names == []


@pytest.mark.parametrize("count", [257, 65_536])
@virtual
async def test_a_head_above_the_wires_bound_is_a_malformed_head(count: int) -> None:
    """More than a frame may hold is refused before anything leaves, and by the documented error."""
    side, peer = against(opener=True)
    fields = [(b"X-Field", b"v" * 600)] * count
    with pytest.raises(MalformedHead):
        Exchange(Log(), "r1").start(side.session, EncodedRequest(RequestHead(b"GET", b"/", fields, "demo")), True)
    await settle()
    assert peer.kinds() == []
    assert side.session.streams == {}


# ---- answers that pass


@virtual
async def test_an_answer_with_a_length() -> None:
    """Head with its declared length, data, end."""
    asked = await ask()
    await asked.says(answer(200, LENGTH_3), f_data(1, b"a"), f_data(1, b"bc"), f_end(1))
    assert asked.log.names == ["head", "data", "data", "end"]
    assert (asked.log.length, asked.log.body, asked.log.trailers) == (3, b"abc", [])
    assert asked.log.head == ResponseHead(200, b"Fine", LENGTH_3)
    assert asked.exchange.complete
    assert asked.gone


@virtual
async def test_an_answer_without_a_length_has_trailers() -> None:
    """Trailers that frame, route or authenticate are dropped, the others are told with the end."""
    asked = await ask()
    trailers: Fields = [(b"Grpc-Status", b"0"), (b"host", b"x"), (b"Transfer-Encoding", b"chunked"), (b"x-b", b"2")]
    await asked.says(answer(), f_data(1, b"abc"), f_end(1, encode_fields(trailers)))
    assert asked.log.length is None
    assert asked.log.trailers == [(b"Grpc-Status", b"0"), (b"x-b", b"2")]


@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304), (b"HEAD", 404)], ids=lambda value: str(value)
)
@virtual
async def test_answers_that_have_no_body_whatever_they_declare(method: bytes, status: int) -> None:
    """A Content-Length there is about another answer: the end may follow at once, and data may not."""
    asked = await ask(method)
    await asked.says(answer(status, LENGTH_3, ended=True))
    assert asked.log.names == ["head", "end"]
    asked = await ask(method)
    await asked.says(answer(status, LENGTH_3), f_data(1, b"x"))
    assert asked.log.failure == Failure("bad_response", "a body longer than declared")


@virtual
async def test_informational_heads_come_before_the_final_one() -> None:
    """As many as the protocol allows, each told as it comes."""
    asked = await ask()
    await asked.says(*[answer(100 + 3 * (at % 2)) for at in range(MOST_INFORMATIONAL)], answer(ended=True))
    assert asked.log.informational == [100, 103] * (MOST_INFORMATIONAL // 2)
    assert asked.log.names[-2:] == ["head", "end"]


@virtual
async def test_an_upgrade_becomes_a_pipe() -> None:
    """After 101 bytes go both ways without a length, whatever the head declares, and each way ends by itself."""
    asked = await ask(ended=False, upgrade=True)
    assert asked.agent.kinds(1) == ["OPEN"]
    await asked.says(answer(101, LENGTH_3), f_data(1, b"more than three bytes"))
    assert asked.exchange.upgraded
    assert asked.exchange.answered
    asked.exchange.write(b"hello")
    await asked.says(f_end(1))
    assert asked.log.names == ["head", "data", "end"]
    asked.exchange.write(b" and bye")
    asked.exchange.end([])
    await settle()
    assert b"".join(data for kind, _, data in asked.agent.frames if kind == frames.DATA) == b"hello and bye"
    assert asked.agent.kinds(1)[-1] == "END"
    assert asked.gone


@virtual
async def test_a_refused_upgrade_is_an_answer_like_any_other() -> None:
    """Any other final head ends the request's side, and the body follows its own length."""
    asked = await ask(ended=False, upgrade=True)
    await asked.says(answer(403, LENGTH_3))
    assert asked.agent.kinds(1)[-1] == "END"
    assert not asked.exchange.upgraded
    await asked.says(f_data(1, b"no!", ended=True))
    assert (asked.log.names, asked.log.body) == (["head", "data", "end"], b"no!")
    assert asked.gone


@virtual
async def test_an_early_answer_leaves_the_upload_alone() -> None:
    """The answer is complete while the body still goes out; then neither an end of the link nor a cut is a failure."""
    for last in (encode_reset(1, ResetCode.CANCEL), b""):
        asked = await ask(b"POST", ended=False)
        await asked.says(answer(413, ended=True))
        assert asked.exchange.complete
        assert asked.exchange.write(b"still")
        if last:
            await asked.says(last)
        else:
            asked.side.session.abort("the link broke")
        assert asked.log.names == ["head", "end", "writable"]
        assert asked.exchange.write(b"going")
        asked.exchange.end([])
        asked.exchange.consumed(10)
        asked.exchange.abort()


@pytest.mark.parametrize("how", ["cut", "lost"])
@virtual
async def test_a_writer_that_waits_is_told_when_nobody_takes_the_rest(how: str) -> None:
    """The answer is complete, the upload waits for room, and the stream goes: the writer must not wait for ever."""
    asked = await ask(b"POST", ended=False)
    assert not asked.exchange.write(bytes(200_000))
    await asked.says(answer(413, ended=True))
    assert asked.log.writable == 0
    if how == "cut":
        await asked.says(encode_reset(1, ResetCode.CANCEL))
    else:
        asked.side.session.abort("the link broke")
    assert asked.log.writable == 1
    assert asked.exchange.write(bytes(200_000))
    assert asked.log.failure is None


# ---- answers that do not pass

BAD: list[tuple[str, list[bytes], str]] = [
    ("a body without a head", [f_data(1)], "a body before its head"),
    ("an end without a head", [f_end(1)], "an end without a head"),
    ("an end after an informational head", [answer(100), f_end(1)], "an end without a head"),
    ("a second final head", [answer(), answer()], "a second final head"),
    ("an informational head after the final one", [answer(), answer(103)], "a second final head"),
    ("too many informational heads", [answer(103)] * (MOST_INFORMATIONAL + 1), "informational heads"),
    ("101 without an upgrade", [answer(101)], "101 to a request without an upgrade"),
    ("a body that is too long", [answer(200, LENGTH_3), f_data(1, b"abcd")], "longer than declared"),
    ("a body that is too short", [answer(200, LENGTH_3), f_data(1, b"ab"), f_end(1)], "shorter than declared"),
    ("no body where one was declared", [answer(200, LENGTH_3, ended=True)], "shorter than declared"),
    ("two lengths", [answer(200, LENGTH_3 * 2)], "Content-Length"),
    ("a length that is no number", [answer(200, [(b"content-length", b"+3")])], "Content-Length"),
    ("bad trailers", [answer(), f_end(1, encode_fields([(b"a b", b"c")]))], "trailers: "),
    ("trailers that are no fields", [answer(), f_end(1, b"\0")], "trailers: "),
    ("a head that is no head", [f_head(1, b"\0\0\0")], ""),
    ("a head that would split", [answer(200, [(b"A", b"b\r\nSet-Cookie: x")])], "control character"),
    ("a name that is no token", [answer(200, [(b"A:", b"b")])], "token"),
    ("a reason that would split", [f_head(1, b"\0\xc8\x03a\r\n\0\0")], ""),
]


@pytest.mark.parametrize(("frames_said", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
@virtual
async def test_a_bad_answer_costs_its_stream_only(frames_said: list[bytes], words: str) -> None:
    """The visitor's side hears `bad_response` once, the agent a reset with that code, the session goes on."""
    asked = await ask(ended=False)
    await asked.says(*frames_said, f_data(1, b"more"), answer())
    assert asked.log.failure is not None
    assert asked.log.failure.code == "bad_response"
    assert words in asked.log.failure.detail
    assert asked.log.names[-1] == "failed"
    assert asked.reset is ResetCode.BAD_RESPONSE
    assert asked.gone


@virtual
async def test_the_whole_body_before_a_bad_byte_is_passed_on() -> None:
    """What was legal until then has been told."""
    asked = await ask()
    await asked.says(answer(200, LENGTH_3), f_data(1, b"abc"), f_data(1, b"d"))
    assert (asked.log.body, asked.log.names) == (b"abc", ["head", "data", "failed"])


# ---- ends

FAILURES = {
    ResetCode.CANCEL: "agent_lost",
    ResetCode.INTERNAL: "agent_lost",
    ResetCode.NOT_DELIVERED: "agent_lost",
    ResetCode.LOCAL_REFUSED: "local_refused",
    ResetCode.LOCAL_RESET: "local_reset",
    ResetCode.BAD_RESPONSE: "bad_response",
    ResetCode.HEAD_TIMEOUT: "head_timeout",
    ResetCode.BAD_BODY: "bad_request",
    ResetCode.UNKNOWN_NAME: "agent_lost",
    ResetCode.STREAM_PROTOCOL: "agent_lost",
    ResetCode.TOO_MANY_STREAMS: "too_many_streams",
}


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("code", [*ResetCode, 999, 65_535])
@virtual
async def test_what_an_agents_reset_is_called(code: int, answered: bool) -> None:
    """Each code has its place in the contract; one that is not known yet is a lost agent."""
    asked = await ask()
    if answered:
        await asked.says(answer())
    await asked.says(encode_reset(1, code, "at 127.0.0.1:3000"))
    expected = FAILURES[ResetCode(code)] if code in list(ResetCode) else "agent_lost"
    assert asked.log.failure == Failure(expected, "at 127.0.0.1:3000")
    assert asked.exchange.answered == answered
    asked.exchange.write(b"into the void")
    asked.exchange.end([])
    asked.exchange.consumed(3)
    asked.exchange.abort()
    assert asked.reset is None


@virtual
async def test_a_link_that_breaks_is_a_lost_agent() -> None:
    """In the middle of an answer, with the reason of the session."""
    asked = await ask()
    await asked.says(answer(), f_data(1, b"abc"))
    asked.agent.carrier.abort()
    await settle()
    assert asked.log.failure == Failure("agent_lost", "aborted")
    assert asked.log.names == ["head", "data", "failed"]


@pytest.mark.parametrize("code", [ResetCode.CANCEL, ResetCode.BAD_BODY])
@virtual
async def test_a_visitor_that_leaves_cuts_the_stream_and_hears_no_more(code: ResetCode) -> None:
    """`abort` says the code to the agent, once; what crosses it on the way is not told."""
    asked = await ask(b"POST", ended=False)
    asked.exchange.write(b"half")
    asked.exchange.abort(code)
    asked.exchange.abort()
    await asked.says(answer(), f_data(1, b"late"), f_end(1))
    assert asked.log.names == []
    assert asked.reset is code
    assert asked.agent.kinds(1).count("RESET") == 1
    assert asked.gone


@pytest.mark.parametrize("event", ["informational", "head", "data", "end"])
@virtual
async def test_a_visitor_may_leave_in_any_event(event: str) -> None:
    """Aborting inside an event is the end of it, also where the same message holds more."""
    asked = await ask(ended=False, upgrade=True)
    asked.log.react = lambda name: asked.exchange.abort() if name == event else None
    await asked.says(answer(103), answer(), f_data(1, b"x"), f_end(1))
    order = ["informational", "head", "data", "end"]
    assert asked.log.names == order[: order.index(event) + 1]
    assert asked.gone
