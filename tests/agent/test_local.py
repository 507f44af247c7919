"""One connection to the local service, over real sockets, on every event loop and with both parsers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from relay.agent.answers import AnswerHead, AnswerReader
from relay.agent.local import LocalConnection
from relay.agent.parsers import PARSERS, H11Parser, HttptoolsParser, ResponseHeadParser
from relay.agent.phase import IDLE
from relay.agent.requests import LocalEvents, LocalRequest
from relay.exchange.heads import MOST_INFORMATIONAL
from relay.mux.inbox import TURN_BYTES
from tests.agent.localside import Log, Peer, Service, on_every_loop, within

both = pytest.mark.parametrize("parser", [make() for make in PARSERS.values()], ids=list(PARSERS))
TRIED = "http://127.0.0.1:1"
GET = LocalRequest(b"GET", b"/", [(b"Host", b"x")])
HANDSHAKE = LocalRequest(b"GET", b"/ws", [(b"Host", b"x")], "upgrade")
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Owner:
    """Counts what a connection tells its owner."""

    def __init__(self) -> None:
        self.free = 0
        self.unanswered = 0
        self.closed = asyncio.Event()

    def on_free(self, connection: LocalConnection) -> None:
        assert connection.state == IDLE
        self.free += 1

    def on_unanswered(self, connection: LocalConnection, request: LocalRequest, events: LocalEvents) -> bool:
        self.unanswered += 1
        return False

    def on_closed(self, connection: LocalConnection) -> None:
        self.closed.set()


class Joined:
    """A connection, the local service's end of it, and who listens."""

    def __init__(self, connection: LocalConnection, peer: Peer, owner: Owner) -> None:
        self.connection = connection
        self.peer = peer
        self.owner = owner
        self.log = Log()

    def begin(self, request: LocalRequest = GET) -> Log:
        self.log = Log()
        self.connection.begin(request, self.log)
        return self.log

    async def exchange(self, answer: bytes, request: LocalRequest = GET) -> Log:
        """A request without a body, and what becomes of it when `answer` is sent."""
        log = self.begin(request)
        await self.peer.head()
        await self.peer.send(answer)
        await log.over()
        return log


@asynccontextmanager
async def joined(parser: ResponseHeadParser | None = None) -> AsyncIterator[Joined]:
    owner = Owner()
    async with Service() as service:
        made: list[LocalConnection] = []

        def factory() -> LocalConnection:
            return LocalConnection(AnswerReader((parser or HttptoolsParser()).parse), TRIED, owner, made.append)

        await asyncio.get_running_loop().create_connection(factory, "127.0.0.1", service.port)
        yield Joined(made[0], await service.accept(), owner)
        made[0].abort()
        await within(owner.closed.wait())


def post(body: str, *fields: tuple[bytes, bytes]) -> LocalRequest:
    host = (b"Host", b"x")
    if body == "chunked":
        return LocalRequest(b"POST", b"/in", [host, *fields], "chunked")
    return LocalRequest(b"POST", b"/in", [host, *fields], "length", int(dict(fields)[b"Content-Length"]))


# ---- requests ------------------------------------------------------------------------------------------------------


def test_request_head_is_written_as_given() -> None:
    """Fields keep case and order, HTTP/1.1 needs no Connection field."""
    request = LocalRequest(b"M-SEARCH", b"//a/../%2f?q#", [(b"hOst", b"a:1"), (b"X", b"1"), (b"x", b"")])
    assert request.encoded == b"M-SEARCH //a/../%2f?q# HTTP/1.1\r\nhOst: a:1\r\nX: 1\r\nx: \r\n\r\n"


def test_request_head_says_how_its_body_comes() -> None:
    """A chunked body and an upgrade get the fields of this hop."""
    assert post("chunked").encoded.endswith(b"Host: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert HANDSHAKE.encoded.endswith(b"Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")


@on_every_loop
async def test_body_by_length() -> None:
    """Bytes pass as they are, also from a memoryview that changes after the call."""
    async with joined() as local:
        log = local.begin(post("length", (b"Content-Length", b"6")))
        buffer = bytearray(b"def")
        assert local.connection.write(b"abc")
        assert local.connection.write(memoryview(buffer))
        buffer[:] = b"!!!"
        local.connection.end([])
        await local.peer.head()
        assert await local.peer.exactly(6) == b"abcdef"
        await local.peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await log.over()
        assert log.names == ["head", "end"]
        assert local.owner.free == 1


@on_every_loop
async def test_chunked_body_with_trailers() -> None:
    """Each write is a chunk, an empty one is none, trailers follow the last."""
    async with joined() as local:
        local.begin(post("chunked"))
        local.connection.write(b"abc")
        local.connection.write(b"")
        local.connection.write(memoryview(b"x" * 17))
        local.connection.end([(b"T", b"1")])
        await local.peer.head()
        assert await local.peer.until(b"\r\n\r\n") == b"3\r\nabc\r\n11\r\n" + b"x" * 17 + b"\r\n0\r\nT: 1\r\n\r\n"


class Spied:
    """A transport whose writes are remembered."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.transport.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self.transport, name)


@pytest.mark.parametrize(
    ("request_", "writes"),
    [
        (post("length", (b"Content-Length", b"3")), [b"abc"]),
        (post("chunked"), [b"3\r\nabc\r\n", b"0\r\n\r\n"]),
    ],
)
@on_every_loop
async def test_a_body_that_comes_at_once_leaves_with_its_head(request_: LocalRequest, writes: list[bytes]) -> None:
    """What comes in the same turn of the loop is one write; a head that nothing follows leaves at the end of it."""
    async with joined() as local:
        spied = Spied(local.connection._transport)
        local.connection._transport = spied  # type: ignore[assignment]
        for at_once in (True, False):
            spied.written.clear()
            log = local.begin(request_)
            if not at_once:
                assert await local.peer.head() == request_.encoded
            local.connection.write(b"abc")
            local.connection.end([])
            assert spied.written == (
                [request_.encoded + writes[0], *writes[1:]] if at_once else [request_.encoded, *writes]
            )
            await local.peer.until(writes[-1])
            await local.peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            await log.over()
        assert local.owner.free == 2


@on_every_loop
async def test_a_request_that_is_given_up_at_once_is_not_sent() -> None:
    """Its head, which waited for the body, does not leave any more."""
    async with joined() as local:
        local.begin(post("chunked"))
        local.connection.abort()
        assert await local.peer.rest() == b""


@on_every_loop
async def test_a_head_that_has_not_left_does_not_leave_for_the_next_request() -> None:
    """An upgrade that was refused before it was asked, and another request in the same turn: its head alone leaves."""
    async with joined() as local:
        local.begin(HANDSHAKE)
        local.connection.data_received(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        assert local.connection.state == IDLE
        local.begin(post("length", (b"Content-Length", b"2")))
        assert (await local.peer.head()).startswith(b"POST /in ")


@on_every_loop
async def test_empty_bodies() -> None:
    """A length of nought sends nothing, an empty chunked body its last chunk."""
    async with joined() as local:
        log = local.begin(post("length", (b"Content-Length", b"0")))
        local.connection.end([])
        await local.peer.head()
        await local.peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await log.over()
        log = local.begin(post("chunked"))
        local.connection.end([])
        await local.peer.head()
        assert await local.peer.exactly(5) == b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("length", "sent", "says"),
    [(b"3", b"abcd", "more came than was announced"), (b"9", b"abcd", "ended 5 bytes early")],
)
@on_every_loop
async def test_body_that_breaks_its_length(length: bytes, sent: bytes, says: str) -> None:
    """The local service must not take it for whole: the connection breaks, and nothing is sent a second time."""
    async with joined() as local:
        log = local.begin(post("length", (b"Content-Length", length)))
        local.connection.write(sent)
        local.connection.end([])
        await log.over()
        assert log.failure is not None
        assert log.failure[0] == "local_reset"
        assert says in log.failure[1]
        assert local.owner.unanswered == 0
        await local.peer.rest()
        assert local.connection.write(b"more")  # goes nowhere, and says so to nobody


@on_every_loop
async def test_slow_reader_is_felt() -> None:
    """`write` says stop while the local service does not read, and `on_writable` says go on when it does."""
    async with joined() as local:
        log = local.begin(post("chunked"))
        await local.peer.head()
        written = 0
        while local.connection.write(b"x" * 65536):
            written += 1
            assert written < 1000, "a local service that reads nothing took 64 MiB"
            await asyncio.sleep(0)
        assert log.writable == 0
        local.connection.end([])
        await local.peer.until(b"0\r\n\r\n")
        await log.until(lambda: log.writable)
        assert log.names == []


# ---- answers -------------------------------------------------------------------------------------------------------


@both
@on_every_loop
async def test_answer_byte_by_byte(parser: ResponseHeadParser) -> None:
    """However an answer is cut, the same comes out."""
    async with joined(parser) as local:
        log = local.begin()
        await local.peer.head()
        await local.peer.drip(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nsEt-Cookie: a\r\nSet-cookie: b\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n"
        )
        await log.over()
        assert log.names == ["informational", "head", "data", "end"]
        assert log.informational[0].fields == [(b"Link", b"</a>")]
        assert log.head is not None
        assert log.head.fields[:2] == [(b"sEt-Cookie", b"a"), (b"Set-cookie", b"b")]
        assert (bytes(log.body), log.trailers, log.upgraded) == (b"abcde", [(b"T", b"1")], False)
        assert local.owner.free == 1


@both
@on_every_loop
async def test_whole_answer_at_once(parser: ResponseHeadParser) -> None:
    """Informational head, head and body in one read; a hundred small chunks are one event."""
    async with joined(parser) as local:
        answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        log = await local.exchange(answer + b"1\r\nx\r\n" * 100 + b"0\r\n\r\n")
        assert log.names == ["informational", "head", "data", "end"]
        assert bytes(log.body) == b"x" * 100
        assert log.pieces < 10


@on_every_loop
async def test_every_piece_arrives_on_its_own() -> None:
    """A head leaves before its body, and each event before the next is written."""

    def came(log: Log, pieces: int) -> bool:
        return log.pieces == pieces

    async with joined() as local:
        log = local.begin()
        await local.peer.head()
        await local.peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await log.until(lambda: log.head)
        for number in range(1, 4):
            await local.peer.send(b"3\r\nabc\r\n")
            await log.until(functools.partial(came, log, number))
        assert bytes(log.body) == b"abcabcabc"


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
@both
@on_every_loop
async def test_answers_without_a_body(parser: ResponseHeadParser, method: bytes, answer: bytes) -> None:
    """They end with their head, and the connection serves the next exchange."""
    async with joined(parser) as local:
        for _ in range(3):
            log = await local.exchange(answer, LocalRequest(method, b"/", [(b"Host", b"x")]))
            assert log.names == ["head", "end"]
        assert local.owner.free == 3


@on_every_loop
async def test_answer_until_close() -> None:
    """An answer without a length ends with the connection."""
    async with joined() as local:
        log = local.begin()
        await local.peer.head()
        await local.peer.send(b"HTTP/1.0 200 OK\r\n\r\nabc")
        await log.until(lambda: log.body)
        local.peer.close()
        await log.over()
        assert log.names == ["head", "data", "end"]
        assert local.owner.free == 0
        await within(local.owner.closed.wait())


@pytest.mark.parametrize("parser", [HttptoolsParser(), H11Parser()], ids=["httptools", "h11"])
@pytest.mark.parametrize("count", [MOST_INFORMATIONAL, MOST_INFORMATIONAL + 1])
@on_every_loop
async def test_flood_of_informational_heads(parser: ResponseHeadParser, count: int) -> None:
    """32 pass, one more is a bad response."""
    async with joined(parser) as local:
        log = await local.exchange(b"HTTP/1.1 102 P\r\n\r\n" * count + b"HTTP/1.1 204 No Content\r\n\r\n")
        assert len(log.informational) == MOST_INFORMATIONAL
        if count > MOST_INFORMATIONAL:
            assert log.failure == ("bad_response", f"{TRIED} sent more than 32 informational heads", False)
        else:
            assert log.names[-2:] == ["head", "end"]


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x03\x00\x02\x02\x46",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000,
        SWITCH,
    ],
)
@both
@on_every_loop
async def test_nonsense_is_a_bad_response(parser: ResponseHeadParser, answer: bytes) -> None:
    """Said with the address tried, before any head was handed on; the connection closes."""
    async with joined(parser) as local:
        log = await local.exchange(answer)
        assert log.names == ["failed"]
        assert log.failure is not None
        assert log.failure[0] == "bad_response"
        assert log.failure[1].startswith(TRIED + " ")
        assert log.failure[2] is False
        await within(local.owner.closed.wait())


@on_every_loop
async def test_malformed_chunk() -> None:
    """A body that breaks its framing is an abort, with what came before it delivered."""
    async with joined() as local:
        log = local.begin()
        await local.peer.head()
        await local.peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await log.until(lambda: log.body)
        await local.peer.send(b"nonsense\r\n")
        await log.over()
        assert log.names == ["head", "data", "failed"]
        assert log.failure is not None
        assert (log.failure[0], log.failure[2]) == ("bad_response", True)


# ---- ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    "framing", [b"Content-Length: 10\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"]
)
@on_every_loop
async def test_local_service_dies_in_the_middle_of_a_body(framing: bytes, how: str) -> None:
    """An abort, never a clean end; only a plain close of an answer without a length is one."""
    async with joined() as local:
        log = local.begin()
        await local.peer.head()
        await local.peer.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n5\r\nab")
        await log.until(lambda: len(log.body) >= 2)
        if how == "close":
            local.peer.close()
        else:
            local.peer.reset()
        await log.over()
        if how == "close" and framing.startswith(b"Connection"):
            assert log.names == ["head", "data", "end"]
        else:
            assert log.names == ["head", "data", "failed"]
            assert log.failure is not None
            assert (log.failure[0], log.failure[2]) == ("local_reset", True)
        await within(local.owner.closed.wait())


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nA:", b"HTTP/1.1 100 C\r\n\r\n"])
@pytest.mark.parametrize("how", ["close", "reset"])
@on_every_loop
async def test_local_service_dies_before_its_head(sent: bytes, how: str) -> None:
    """Told as not answered; the owner is asked only when not one byte had come."""
    async with joined() as local:
        log = local.begin()
        await local.peer.head()
        await local.peer.send(sent)
        if b"100" in sent:
            await log.until(lambda: log.informational)
        if how == "close":
            local.peer.close()
        else:
            local.peer.reset()
        await log.over()
        assert log.failure is not None
        assert (log.failure[0], log.failure[2]) == ("local_reset", False)
        assert local.owner.unanswered == (0 if sent else 1)


@pytest.mark.parametrize("keep", [True, False])
@on_every_loop
async def test_keep_alive_is_the_answers_decision(keep: bool) -> None:
    """A connection is used again unless the answer says close."""
    async with joined() as local:
        log = await local.exchange(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + (b"" if keep else b"Connection: close\r\n") + b"\r\nok"
        )
        assert bytes(log.body) == b"ok"
        assert local.owner.free == int(keep)
        if keep:
            assert (await local.exchange(b"HTTP/1.1 204 No Content\r\n\r\n")).names == ["head", "end"]
        else:
            assert await local.peer.rest() == b""


@on_every_loop
async def test_bytes_behind_an_answer_poison_the_connection() -> None:
    """With the answer or later: the connection is not used again, the answer stands."""
    async with joined() as local:
        log = await local.exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n")
        assert log.names == ["head", "data", "end"]
        assert local.owner.free == 0
        await within(local.owner.closed.wait())
    async with joined() as local:
        await local.exchange(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert local.connection.state == IDLE
        await local.peer.send(b"x")
        await within(local.owner.closed.wait())


@on_every_loop
async def test_early_answer_while_the_upload_runs() -> None:
    """It is delivered at once, the upload goes on, and the connection is free when both are over."""
    async with joined() as local:
        log = local.begin(post("length", (b"Content-Length", b"6")))
        local.connection.write(b"abc")
        await local.peer.head()
        await local.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await log.over()
        assert log.names == ["head", "data", "end"]
        assert not log.over_at_both_ends
        assert local.owner.free == 0
        assert local.connection.write(b"def")
        local.connection.end([])
        assert await local.peer.exactly(6) == b"abcdef"
        assert local.owner.free == 1


@on_every_loop
async def test_upload_after_an_early_answer_waits_for_nobody() -> None:
    """When the local service leaves after its answer, the rest of the upload goes nowhere without a stall."""
    async with joined() as local:
        log = local.begin(post("chunked"))
        await local.peer.head()
        await local.peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await log.over()
        while local.connection.write(b"x" * 65536):
            await asyncio.sleep(0)
        assert log.writable == 0
        local.peer.reset()
        await within(local.owner.closed.wait())
        await log.until(lambda: log.writable)
        assert local.connection.write(b"x" * 65536)
        local.connection.end([])
        assert log.names == ["head", "end"]


@on_every_loop
async def test_answer_before_a_reset_is_not_lost_to_a_failing_write() -> None:
    """An answer that lies in the kernel while our write fails is delivered: an early 413, say."""
    for _ in range(5):
        async with joined() as local:
            log = local.begin(post("chunked"))
            await local.peer.head()
            local.connection.pause()  # nobody reads while the reset comes in
            await asyncio.sleep(0)
            await local.peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            local.peer.reset()
            while not local.owner.closed.is_set():
                local.connection.write(b"x" * 65536)
                await asyncio.sleep(0)
            assert log.names == ["head", "data", "end"]
            assert bytes(log.body) == b"no"


@on_every_loop
async def test_abort_is_seen_by_the_local_service() -> None:
    """At once, in every phase, and no event comes after it."""
    for sent in (b"", b"HTTP/1.1 200 OK\r\n\r\nabc", SWITCH):
        async with joined() as local:
            log = local.begin(HANDSHAKE)
            await local.peer.head()
            if sent:
                await local.peer.send(sent)
                await log.until(functools.partial(getattr, log, "head"))
            before = list(log.names)
            local.connection.abort()
            await local.peer.rest()
            await within(local.owner.closed.wait())
            assert log.names == before


@on_every_loop
async def test_abort_from_within_an_event() -> None:
    """Whoever aborts while being told something is told no more."""

    class Leaves(Log):
        def on_answer(self, head: AnswerHead) -> None:
            self.names.append("head")
            connection.abort()

    async with joined() as local:
        connection = local.connection
        log = Leaves()
        connection.begin(GET, log)
        await local.peer.head()
        await local.peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        await within(local.owner.closed.wait())
        assert log.names == ["head"]


@on_every_loop
async def test_pause_holds_the_local_service_back() -> None:
    """While paused, bytes stay with the local service; after `resume` all of them come."""
    async with joined() as local:
        log = local.begin()
        await local.peer.head()
        await local.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 33554432\r\n\r\n")
        await log.until(lambda: log.head)
        local.connection.pause()
        sending = asyncio.ensure_future(local.peer.send(b"x" * 2**25))
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert len(log.body) <= 256 * 1024
        assert not sending.done()
        local.connection.resume()
        await log.over()
        await sending
        assert len(log.body) == 2**25
        assert local.owner.free == 1


@pytest.mark.parametrize("upgrade", [False, True])
@on_every_loop
async def test_a_bulk_answer_lets_others_have_their_turn(upgrade: bool) -> None:
    """What is read in one turn of the loop is bounded, although the kernel has more; all of it comes, of a pipe too."""
    size = 2**24
    async with joined() as local:
        log = local.begin(HANDSHAKE if upgrade else GET)
        await local.peer.head()
        head = SWITCH if upgrade else b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
        sending = asyncio.ensure_future(local.peer.send(head + bytes(size)))
        turns = [0]
        while len(log.body) < size:
            await asyncio.sleep(0)
            turns.append(len(log.body))
        await within(sending)
        most = max(after - before for before, after in pairwise(turns))
        assert most <= TURN_BYTES + 2 * 256 * 1024  # a read that began before the turn was over, and one of the loop


@on_every_loop
async def test_whoever_pauses_while_others_have_their_turn_is_heard() -> None:
    """The end of the rest resumes nothing that was paused at the same time."""

    class Pauses(Log):
        def on_body(self, data: bytes) -> None:
            super().on_body(data)
            if len(self.body) >= TURN_BYTES:
                asyncio.get_running_loop().call_soon(connection.pause)

    async with joined() as local:
        connection = local.connection
        log = Pauses()
        connection.begin(GET, log)
        await local.peer.head()
        sending = asyncio.ensure_future(
            local.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % 2**25 + bytes(2**25))
        )
        await log.until(lambda: len(log.body) >= TURN_BYTES)
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert len(log.body) <= TURN_BYTES + 2 * 256 * 1024
        connection.abort()
        with contextlib.suppress(OSError):
            await within(sending)


@on_every_loop
async def test_connection_that_was_paused_is_free_unpaused() -> None:
    """Whoever paused during the last bytes leaves an idle connection that is read, so that its end is noticed."""

    class Pauses(Log):
        def on_answer(self, head: AnswerHead) -> None:
            super().on_answer(head)
            connection.pause()

    async with joined() as local:
        connection = local.connection
        log = Pauses()
        connection.begin(GET, log)
        await local.peer.head()
        await local.peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        await log.over()
        assert local.owner.free == 1
        local.peer.close()
        await within(local.owner.closed.wait())


# ---- upgrades ------------------------------------------------------------------------------------------------------


@both
@on_every_loop
async def test_upgrade_becomes_a_pipe(parser: ResponseHeadParser) -> None:
    """Bytes behind the 101 are not lost, anything passes both ways, and each side ends by itself."""
    async with joined(parser) as local:
        log = local.begin(HANDSHAKE)
        await local.peer.head()
        await local.peer.send(SWITCH + b"hello\r\n\r\n")
        await log.until(lambda: log.body)
        assert log.upgraded
        assert bytes(log.body) == b"hello\r\n\r\n"
        assert local.connection.write(b"\x00\xff\r\n")
        assert await local.peer.exactly(4) == b"\x00\xff\r\n"
        local.connection.end([])
        assert await local.peer.rest() == b""
        assert not local.peer.reset_seen
        await local.peer.send(b" after our end")
        await log.until(lambda: len(log.body) > 20)
        local.peer.close()
        await log.over()
        assert log.names == ["head", "data", "end"]
        assert local.owner.free == 0
        await within(local.owner.closed.wait())


@on_every_loop
async def test_pipe_half_closed_by_the_local_service() -> None:
    """After its end the other direction still passes."""
    async with joined() as local:
        log = local.begin(HANDSHAKE)
        await local.peer.head()
        await local.peer.send(SWITCH)
        local.peer.fin()
        await log.over()
        assert log.names == ["head", "end"]
        assert local.connection.write(b"still here")
        local.connection.end([])
        assert await local.peer.rest() == b"still here"
        await within(local.owner.closed.wait())


@on_every_loop
async def test_pipe_reset() -> None:
    """A reset of the pipe is a failure, not an end."""
    async with joined() as local:
        log = local.begin(HANDSHAKE)
        await local.peer.head()
        await local.peer.send(SWITCH)
        await log.until(lambda: log.head)
        local.peer.reset()
        await log.over()
        assert log.failure == ("local_reset", f"{TRIED} reset the connection", True)


@on_every_loop
async def test_refused_upgrade_is_an_answer() -> None:
    """Any status with its body reaches the visitor; the connection may be used again."""
    async with joined() as local:
        log = await local.exchange(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", HANDSHAKE)
        assert (log.upgraded, bytes(log.body), log.names) == (False, b"no", ["head", "data", "end"])
        assert log.over_at_both_ends
        assert local.owner.free == 1
        assert (await local.exchange(b"HTTP/1.1 204 No Content\r\n\r\n")).names == ["head", "end"]


@on_every_loop
async def test_nothing_passes_before_the_upgrade_is_answered() -> None:
    """Bytes ahead of the 101 would be a second request to a service that refuses: the exchange breaks instead."""
    async with joined() as local:
        log = local.begin(HANDSHAKE)
        local.connection.write(b"GET /smuggled HTTP/1.1\r\n\r\n")
        await log.over()
        assert log.failure is not None
        assert log.failure[0] == "local_reset"
        assert b"smuggled" not in await local.peer.rest()


@on_every_loop
async def test_end_ahead_of_the_upgrades_answer() -> None:
    """A half-close that came first is done once the pipe is there."""
    async with joined() as local:
        log = local.begin(HANDSHAKE)
        local.connection.end([])
        await local.peer.head()
        await local.peer.send(SWITCH + b"x")
        assert await local.peer.rest() == b""
        local.peer.close()
        await log.over()
        assert log.names == ["head", "data", "end"]


@on_every_loop
async def test_expect_continue_passes_through() -> None:
    """The 100 comes back before a byte of the body is sent."""
    async with joined() as local:
        request = post("length", (b"Content-Length", b"2"), (b"Expect", b"100-continue"))
        log = local.begin(request)
        assert b"Expect: 100-continue\r\n" in await local.peer.head()
        await local.peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await log.until(lambda: log.informational)
        local.connection.write(b"ok")
        local.connection.end([])
        assert await local.peer.exactly(2) == b"ok"
        await local.peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await log.over()
        assert log.names == ["informational", "head", "end"]
