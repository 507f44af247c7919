"""One accepted stream and one call to the local service, joined; the pool is a fake that remembers, the relay raw."""

from __future__ import annotations

import pytest

from relay.agent.answers import AnswerHead
from relay.agent.forwarder import Forwarder, Route
from relay.agent.requests import LocalEvents, LocalRequest
from relay.agent.sparing import Sparing
from relay.agent.targets import parse_target
from relay.exchange.heads import (
    Fields,
    RequestHead,
    ResponseHead,
    decode_fields,
    decode_response,
    encode_fields,
    encode_request,
)
from relay.mux.outbox import CONTROL_STREAM
from relay.wire import frames
from relay.wire.errors import ResetCode
from relay.wire.frames import decode_reset
from tests.mux.ends import Side, against, f_credit, f_data, f_end, f_open, f_reset, settle
from tests.support.clock import virtual

HOST = (b"Host", b"demo.tunnels.localhost:8080")
OWN = b"http://demo.tunnels.localhost:8080"


class Call:
    """A call to the local service, as far as a forwarding sees one; `events` are told by the test."""

    def __init__(self, request: LocalRequest, events: LocalEvents) -> None:
        self.request = request
        self.events = events
        self.body = b""
        self.takes = True
        self.trailers: Fields | None = None
        self.paused = 0
        self.resumed = 0
        self.aborted = 0

    def write(self, data: bytes | memoryview) -> bool:
        self.body += data
        return self.takes

    def end(self, trailers: Fields) -> None:
        assert self.trailers is None, "ended twice"
        self.trailers = trailers

    def pause(self) -> None:
        self.paused += 1

    def resume(self) -> None:
        self.resumed += 1

    def abort(self) -> None:
        self.aborted += 1


class Pool:
    """Starts calls and remembers them."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def start(self, request: LocalRequest, events: LocalEvents, now: float) -> Call:
        assert now
        self.calls.append(Call(request, events))
        return self.calls[-1]


class Agents:
    """The agent's side of a link with a forwarder behind it, and the relay's, which is raw."""

    def __init__(
        self,
        target: str = "3000",
        *,
        preserve_host: bool = False,
        upstream: Fields | None = None,
        private: bool = False,
        quiet: bool = False,
    ) -> None:
        self.pool = Pool()
        self.reports: list[dict[str, object]] = []
        self.time = 100.0
        route = Route("demo", parse_target(target), self.pool, upstream or [], private, preserve_host)
        report = Sparing(self.reports.append) if quiet else self.reports.append
        self.forwarder = Forwarder({"demo": route}, report, lambda: self.time)
        self.side: Side
        self.side, self.relay = against(opener=False)
        self.side.on_open = self.forwarder.accept  # type: ignore[method-assign]

    async def open(
        self,
        number: int = 1,
        method: bytes = b"GET",
        fields: Fields | None = None,
        *,
        ended: bool = True,
        upgrade: bool = False,
        name: str = "demo",
        target: bytes = b"/path?q",
    ) -> Call:
        """The call that became of a request."""
        head = RequestHead(method, target, [HOST, *(fields or [])], name, f"r{number}", upgrade)
        await self.relay.send(f_open(number, encode_request(head), ended=ended))
        return self.pool.calls[-1]

    def heads(self, number: int = 1) -> list[ResponseHead]:
        """Heads of the answer."""
        kinds = (frames.HEAD, frames.HEAD_END)
        return [decode_response(payload) for kind, on, payload in self.relay.frames if kind in kinds and on == number]

    def body(self, number: int = 1) -> bytes:
        """Body of the answer."""
        kinds = (frames.DATA, frames.DATA_END)
        return b"".join(payload for kind, on, payload in self.relay.frames if kind in kinds and on == number)

    def reset(self, number: int = 1) -> tuple[ResetCode, bool, str] | None:
        """How the stream was cut."""
        for kind, on, payload in self.relay.frames:
            if kind == frames.RESET and on == number:
                code, delivered, detail = decode_reset(memoryview(payload))
                return ResetCode(code), delivered, detail
        return None


def a_head(status: int = 200, fields: Fields | None = None) -> AnswerHead:
    return AnswerHead(ResponseHead(status, b"OK", fields or []), b"HTTP/1.1", bodiless=False)


# ---- the request


@virtual
async def test_a_request_without_a_body() -> None:
    """Method, target and fields go on; nothing follows."""
    agents = Agents()
    call = await agents.open(fields=[(b"X-A", b"1"), (b"x-a", b"2"), (b"Accept", b"*/*")])
    request = call.request
    assert (request.method, request.target, request.body, request.upgrade) == (b"GET", b"/path?q", "none", False)
    assert request.fields == [(b"Host", b"127.0.0.1:3000"), (b"X-A", b"1"), (b"x-a", b"2"), (b"Accept", b"*/*")]
    assert call.trailers is None


@pytest.mark.parametrize(("fields", "body"), [([(b"Content-Length", b"9")], "length"), ([], "chunked")])
@virtual
async def test_a_request_with_a_body(fields: Fields, body: str) -> None:
    """By length where one is declared, chunked where not; bytes and trailers go on as they come."""
    agents = Agents()
    call = await agents.open(method=b"POST", fields=fields, ended=False)
    assert call.request.body == body
    await agents.relay.send(f_data(1, b"half "), f_data(1, b"rest"))
    assert call.body == b"half rest"
    assert call.trailers is None
    await agents.relay.send(f_end(1, encode_fields([(b"Digest", b"x")])))
    assert call.trailers == [(b"Digest", b"x")]


@virtual
async def test_what_belongs_to_one_hop_stays_behind() -> None:
    """Fields of the relay's hop, and those that Connection lists, do not reach the local service."""
    agents = Agents()
    fields = [
        (b"Connection", b"x-b"),
        (b"X-B", b"1"),
        (b"Transfer-Encoding", b"chunked"),
        (b"TE", b"gzip"),
        (b"A", b"b"),
    ]
    call = await agents.open(fields=fields)
    assert call.request.fields == [(b"Host", b"127.0.0.1:3000"), (b"A", b"b")]


@pytest.mark.parametrize(
    ("target", "preserve", "origin", "host", "expected"),
    [
        ("3000", False, OWN, b"127.0.0.1:3000", b"http://127.0.0.1:3000"),
        ("3000", False, OWN.upper(), b"127.0.0.1:3000", b"http://127.0.0.1:3000"),
        ("3000", False, b"https://evil.example", b"127.0.0.1:3000", b"https://evil.example"),
        (
            "3000",
            False,
            b"https://demo.tunnels.localhost:8080",
            b"127.0.0.1:3000",
            b"https://demo.tunnels.localhost:8080",
        ),
        ("3000", False, b"null", b"127.0.0.1:3000", b"null"),
        ("https://box.internal", False, OWN, b"box.internal", b"https://box.internal"),
        ("3000", True, OWN, HOST[1], OWN),
    ],
)
@virtual
async def test_host_and_origin(target: str, preserve: bool, origin: bytes, host: bytes, expected: bytes) -> None:
    """Host becomes the local service's own; Origin only where it is the tunnel's, scheme included; or both stay."""
    agents = Agents(target, preserve_host=preserve)
    call = await agents.open(fields=[(b"Origin", origin), (b"X-Forwarded-Proto", b"http")])
    sent = dict(call.request.fields)
    assert (sent[b"Host"], sent[b"Origin"]) == (host, expected)


@virtual
async def test_the_local_services_own_fields_replace_the_visitors() -> None:
    """In every spelling that some service reads as the same name; all others stay in order, and nothing is reported."""
    own: Fields = [(b"Authorization", b"Bearer canary"), (b"X-Api-Key", b"a"), (b"X-Api-Key", b"b")]
    agents = Agents(upstream=own)
    fields: Fields = [(b"authorization", b"Basic x"), (b"A", b"1"), (b"x_api_key", b"y"), (b"X-API-KEY", b"z")]
    for number in (1, 3):
        call = await agents.open(number, fields=fields)
        assert call.request.fields == [(b"Host", b"127.0.0.1:3000"), (b"A", b"1"), *own]
        assert b"Authorization: Bearer canary\r\n" in call.request.encoded
        call.events.on_answer(a_head(204))
        call.events.on_answered(b"", [], True)
    assert len(agents.reports) == 2
    assert "canary" not in repr((agents.reports, call.request, agents.forwarder.routes))


@virtual
async def test_equal_requests_are_equal_but_for_their_id() -> None:
    """What is remembered of a head mixes up nothing: names, bodies and ids are each request's own."""
    agents = Agents()
    first = await agents.open(1, method=b"POST")
    second = await agents.open(3, method=b"POST", ended=False)
    third = await agents.open(5, method=b"POST")
    assert (first.request.body, second.request.body, third.request.body) == ("none", "chunked", "none")
    for call in (first, second, third):
        call.events.on_answer(a_head())
        call.events.on_answered(b"", [], True)
    assert [report["request_id"] for report in agents.reports] == ["r1", "r3", "r5"]


@virtual
async def test_what_the_local_service_does_not_take_is_not_credited() -> None:
    """Bytes of a body count as consumed when they were taken on, and not before."""
    agents = Agents()
    call = await agents.open(method=b"POST", ended=False)
    call.takes = False
    await agents.relay.send(f_data(1, bytes(60_000)))
    window = agents.side.session.streams[1].window
    assert window.held() == 60_000
    call.takes = True
    call.events.on_taken()
    assert window.held() == 0
    await agents.relay.send(f_data(1, bytes(1000)))
    assert window.held() == 0
    assert "CREDIT" in agents.relay.kinds(1)


@pytest.mark.parametrize(
    ("payload", "ended", "code"),
    [
        (b"\0", True, ResetCode.STREAM_PROTOCOL),
        (b"\0\x04demo\0\x03GET\0\x01/\0\x01", True, ResetCode.STREAM_PROTOCOL),
        (encode_request(RequestHead(b"G T", b"/", [], "demo")), True, ResetCode.STREAM_PROTOCOL),
        (encode_request(RequestHead(b"GET", b"/ x", [], "demo")), True, ResetCode.STREAM_PROTOCOL),
        (encode_request(RequestHead(b"GET", b"/", [(b"A", b"b\r\nC: d")], "demo")), True, ResetCode.STREAM_PROTOCOL),
        (
            encode_request(RequestHead(b"PUT", b"/", [(b"Content-Length", b"x")], "demo")),
            False,
            ResetCode.STREAM_PROTOCOL,
        ),
        (
            encode_request(RequestHead(b"PUT", b"/", [(b"Content-Length", b"1")] * 2, "demo")),
            False,
            ResetCode.STREAM_PROTOCOL,
        ),
        (
            encode_request(RequestHead(b"PUT", b"/", [(b"Content-Length", b"5")], "demo")),
            True,
            ResetCode.STREAM_PROTOCOL,
        ),
        (encode_request(RequestHead(b"GET", b"/", [], "other")), True, ResetCode.UNKNOWN_NAME),
        (encode_request(RequestHead(b"GET", b"/", [], "")), True, ResetCode.UNKNOWN_NAME),
    ],
)
@virtual
async def test_a_request_that_cannot_be_forwarded_is_cut(payload: bytes, ended: bool, code: ResetCode) -> None:
    """Malformed, or for a name that is not ours: costs its stream only; nothing reaches the local service."""
    agents = Agents()
    await agents.relay.send(f_open(1, payload, ended=ended))
    reset = agents.reset()
    assert reset is not None
    assert reset[:2] == (code, False)
    assert agents.pool.calls == []
    assert agents.forwarder.active == set()
    assert not agents.side.session.ended
    await agents.open(3)


@virtual
async def test_malformed_trailers_cut_both_sides() -> None:
    """The local service must not take the request for whole."""
    agents = Agents()
    call = await agents.open(method=b"POST", ended=False)
    await agents.relay.send(f_end(1, b"\0\1"))
    reset = agents.reset()
    assert reset is not None
    assert reset[0] is ResetCode.STREAM_PROTOCOL
    assert (call.aborted, call.trailers) == (1, None)
    assert agents.forwarder.active == set()


# ---- the answer


@virtual
async def test_an_answer_goes_back_as_it_comes() -> None:
    """Informational heads, the head, each part of the body, the end with its trailers; hop-by-hop fields stay."""
    agents = Agents()
    call = await agents.open()
    call.events.on_informational(a_head(103, [(b"Link", b"</a>")]))
    await settle()
    fields = [
        (b"Set-Cookie", b"a"),
        (b"set-cookie", b"b"),
        (b"Connection", b"x-h"),
        (b"X-H", b"1"),
        (b"Keep-Alive", b"5"),
    ]
    call.events.on_answer(a_head(200, fields))
    await settle()
    call.events.on_body(b"hello ")
    call.events.on_body(b"world")
    await settle()
    assert agents.body() == b"hello world"
    call.events.on_answered(b"", [(b"Digest", b"x"), (b"Content-Length", b"9")], True)
    await settle()
    assert [head.status for head in agents.heads()] == [103, 200]
    assert agents.heads()[1] == ResponseHead(200, b"OK", [(b"Set-Cookie", b"a"), (b"set-cookie", b"b")])
    assert decode_fields(agents.relay.frames[-1][2], 0) == [(b"Digest", b"x")]
    assert agents.side.session.streams == {}


@virtual
async def test_what_the_relay_does_not_take_is_not_read() -> None:
    """The local service is paused when the queue is full, and read again when there is room."""
    agents = Agents()
    call = await agents.open()
    call.events.on_answer(a_head())
    call.events.on_body(bytes(65_536))
    await settle()
    assert (call.paused, call.resumed) == (call.resumed, call.paused)
    call.events.on_body(bytes(100_000))
    assert call.paused == call.resumed + 1
    await settle()
    assert call.paused == call.resumed + 1
    await agents.relay.send(f_credit(1, 200_000))
    assert call.paused == call.resumed
    assert len(agents.body()) == 165_536


@virtual
async def test_an_upgrade_is_a_pipe() -> None:
    """Both ways, and each end by itself."""
    agents = Agents()
    call = await agents.open(ended=False, upgrade=True)
    assert call.request.upgrade
    assert call.request.body == "upgrade"
    assert not call.trailers
    call.events.on_answer(a_head(101))
    await agents.relay.send(f_data(1, b"ping"))
    call.events.on_body(b"pong")
    call.events.on_answered(b"", [], False)
    await settle()
    assert (call.body, agents.body()) == (b"ping", b"pong")
    await agents.relay.send(f_data(1, b" more"), f_end(1))
    assert (call.body, call.trailers) == (b"ping more", [])
    assert agents.side.session.streams == {}


@virtual
async def test_an_upload_may_outlive_its_answer() -> None:
    """The local service has answered; what still comes of the request goes on to it."""
    agents = Agents()
    call = await agents.open(method=b"POST", ended=False)
    call.events.on_answer(a_head(413))
    call.events.on_answered(b"", [], False)
    await agents.relay.send(f_data(1, b"still coming"), f_end(1))
    assert (call.body, call.trailers) == (b"still coming", [])
    assert agents.side.session.streams == {}


@virtual
async def test_what_is_over_at_both_ends_is_not_touched_again() -> None:
    """The connection may serve another exchange by then: a refused upgrade, to which something still comes."""
    agents = Agents()
    call = await agents.open(ended=False, upgrade=True)
    call.events.on_answer(a_head(403))
    call.events.on_answered(b"no", [], True)
    await agents.relay.send(f_data(1, b"late"))
    await agents.relay.send(f_reset(1))
    assert agents.body() == b"no"
    assert (call.body, call.trailers, call.aborted) == (b"", None, 0)
    assert len(agents.reports) == 1


@virtual
async def test_an_upload_that_ended_after_its_answer_is_not_touched_again() -> None:
    """Its connection is free with its end, though the visitor may not have read the answer yet."""
    agents = Agents()
    call = await agents.open(method=b"POST", ended=False)
    call.events.on_answer(a_head())
    call.events.on_answered(bytes(300_000), [], False)
    await agents.relay.send(f_end(1))
    assert call.trailers == []
    await agents.relay.send(f_reset(1))
    assert call.aborted == 0
    assert agents.side.session.streams == {}


@pytest.mark.parametrize(("body", "kinds"), [(b"hello", ["HEAD", "DATA+END"]), (b"", ["HEAD+END"])])
@virtual
async def test_a_whole_answer_is_few_frames(body: bytes, kinds: list[str]) -> None:
    """Its end goes with its last bytes, or with its head."""
    agents = Agents()
    call = await agents.open()
    agents.time += 0.5
    call.events.on_whole(a_head(200), body)
    await settle()
    assert agents.relay.kinds(1) == kinds
    assert (agents.heads()[0].status, agents.body()) == (200, body)
    (report,) = agents.reports
    assert (report["status"], report["bytes"], report["duration"]) == (200, len(body), 0.5)
    assert agents.side.session.streams == {}
    assert agents.forwarder.active == set()


@virtual
async def test_a_whole_answer_that_finds_no_room() -> None:
    """When too much waits for the relay already, the stream is cut at the head, and that is all."""
    agents = Agents()
    call = await agents.open()
    agents.side.session.outbox.size += CONTROL_STREAM + 1
    call.events.on_whole(a_head(200), b"hello")
    assert call.aborted == 0
    assert agents.side.session.streams == {}
    (report,) = agents.reports
    assert report["error"] == "cancelled"


@virtual
async def test_another_connection_takes_the_rest() -> None:
    """What comes of the request goes to whoever has it now."""
    agents = Agents()
    first = await agents.open(method=b"POST", ended=False)
    second = Call(first.request, first.events)
    first.events.on_connected(second)
    await agents.relay.send(f_data(1, b"body"), f_end(1))
    assert (first.body, second.body, second.trailers) == (b"", b"body", [])


# ---- ends


@pytest.mark.parametrize(
    ("kind", "code", "delivered"),
    [
        ("local_refused", ResetCode.LOCAL_REFUSED, False),
        ("local_reset", ResetCode.LOCAL_RESET, True),
        ("bad_response", ResetCode.BAD_RESPONSE, True),
    ],
)
@pytest.mark.parametrize("answered", [False, True])
@virtual
async def test_a_failure_of_the_local_service_is_told(
    kind: str, code: ResetCode, delivered: bool, answered: bool
) -> None:
    """As a reset, never as an end, with the address tried and whether anything may have arrived there."""
    agents = Agents()
    call = await agents.open(method=b"POST", ended=False)
    if answered:
        call.events.on_answer(a_head())
        call.events.on_body(b"half")
    call.events.on_failed(kind, "http://127.0.0.1:3000: why", answered)  # type: ignore[arg-type]
    await settle()
    assert agents.reset() == (code, delivered, "http://127.0.0.1:3000: why")
    assert "END" not in agents.relay.kinds(1)
    await agents.relay.send(f_data(1, b"late"), f_end(1))
    assert (call.body, call.aborted) == (b"", 0)
    (report,) = agents.reports
    assert (report["error"], report["detail"], report["status"]) == (kind, "http://127.0.0.1:3000: why", 200 * answered)


@pytest.mark.parametrize("how", ["reset", "lost"])
@virtual
async def test_when_nobody_listens_the_local_service_sees_it(how: str) -> None:
    """A reset by the relay, or the end of the link, aborts the call at once."""
    agents = Agents()
    call = await agents.open()
    call.events.on_answer(a_head())
    if how == "reset":
        await agents.relay.send(f_reset(1))
    else:
        agents.relay.carrier.abort()
        await settle()
    assert call.aborted == 1
    assert agents.forwarder.active == set()
    (report,) = agents.reports
    assert report["error"] == ("cancelled" if how == "reset" else "agent_lost")


# ---- reports


@virtual
async def test_each_exchange_is_reported_once() -> None:
    """With what a person wants to know of it, when the answer is complete."""
    agents = Agents()
    call = await agents.open(target=b"/caf\xc3\xa9".replace(b"\xc3\xa9", b"%C3%A9"))
    agents.time += 1.25
    call.events.on_answer(a_head(204))
    call.events.on_body(b"12345")
    assert agents.reports == []
    call.events.on_answered(b"", [], True)
    await agents.relay.send(f_reset(1))
    assert agents.reports == [
        {
            "event": "request",
            "subdomain": "demo",
            "method": "GET",
            "path": "/caf%C3%A9",
            "status": 204,
            "duration": 1.25,
            "bytes": 5,
            "request_id": "r1",
        }
    ]


@virtual
async def test_quiet_reports_what_changes() -> None:
    """The first that went well, each that did not, and the first that goes well again."""
    agents = Agents(quiet=True)
    for number, status in enumerate((200, 302, 404, 404, 200, 204, 0, 200, 200)):
        call = await agents.open(2 * number + 1)
        if status:
            call.events.on_whole(a_head(status), b"")
        else:
            call.events.on_failed("local_reset", "why", False)
    told = [report.get("error", report["status"]) for report in agents.reports]
    assert told == [200, 404, 404, 200, "local_reset", 200]
    assert agents.forwarder.active == set()


@virtual
async def test_exchanges_that_run_are_known() -> None:
    """An agent that stops waits for them: each until it has ended, whoever ended it."""
    agents = Agents()
    first, second = await agents.open(1), await agents.open(3)
    assert len(agents.forwarder.active) == 2
    first.events.on_answer(a_head())
    first.events.on_answered(b"", [], True)
    assert len(agents.forwarder.active) == 1
    await agents.relay.send(f_reset(3))
    assert not agents.forwarder.active
    assert second.aborted == 1


@virtual
async def test_hints_are_taken_from_answers() -> None:
    """A 421, and metadata that names the local address."""
    agents = Agents()
    (await agents.open(1)).events.on_answer(a_head(421))
    call = await agents.open(3, target=b"/.well-known/oauth-protected-resource")
    call.events.on_answer(a_head())
    call.events.on_body(b'{"resource":"http://127.0.0.1:3000/mcp"}')
    assert [report["event"] for report in agents.reports] == ["hint", "hint"]


INITIALIZE = b'{"jsonrpc":"2.0","id":0,"method":"initialize"}'
JSON = (b"Content-Type", b"application/json")


@pytest.mark.parametrize(
    ("fields", "body", "status", "private", "warned"),
    [
        ([JSON], [INITIALIZE], 200, False, True),
        ([JSON], [INITIALIZE[:-1], INITIALIZE[-1:]], 200, False, True),
        ([JSON], [b"{}", INITIALIZE], 200, False, False),
        ([JSON], [INITIALIZE], 401, False, False),
        ([JSON], [INITIALIZE], 200, True, False),
        ([JSON, (b"Authorization", b"Bearer x")], [INITIALIZE], 200, False, False),
        ([], [INITIALIZE], 200, False, False),
    ],
)
@virtual
async def test_a_server_that_lets_everybody_in_is_warned_of(
    fields: Fields, body: list[bytes], status: int, private: bool, warned: bool
) -> None:
    """Where the tunnel asks for nothing, the visitor showed nothing, and the server took it; once, and only then."""
    agents = Agents(private=private)
    for number in (1, 3):
        call = await agents.open(number, b"POST", fields, ended=False)
        for part in body:
            await agents.relay.send(f_data(number, part))
        assert agents.reports == [] or number == 3
        call.events.on_answer(a_head(status))
        assert call.body == b"".join(body)
    assert [event["event"] for event in agents.reports] == ["warning"] * warned
