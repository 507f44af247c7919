"""The guard alone, without a parser in front: what passes, what a head means, what is refused and with which code."""

from __future__ import annotations

from typing import Any

import h11
import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.edge.answers import Code
from relay.edge.guard import MAX_FIELDS, MAX_HEAD, METHODS, Body, Refusal, Request, check
from relay.edge.hosts import Host
from relay.exchange.heads import Fields

HOST = (b"Host", b"mcp.tunnels.localhost:8080")
WEBSOCKET: Fields = [HOST, (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"Sec-WebSocket-Key", b"eA==")]


def passed(*fields: tuple[bytes, bytes], method: bytes = b"GET", target: bytes = b"/", version: str = "1.1") -> Request:
    return check(method, target, version, [HOST, *fields])


def refused(
    *fields: tuple[bytes, bytes], method: bytes = b"GET", target: bytes = b"/", version: str = "1.1"
) -> tuple[Code, str]:
    with pytest.raises(Refusal) as caught:
        check(method, target, version, list(fields))
    return caught.value.code, caught.value.message


def names(request: Request) -> list[bytes]:
    return [name for name, _ in request.fields]


# ------------------------------------------------------------------------------------------- what passes unchanged


def test_order_case_and_duplicates_of_fields_are_kept() -> None:
    """End-to-end fields go on as they came, MCP's and unknown ones among them."""
    fields = [
        (b"x-B", b"2"), (b"X-b", b"1"), (b"Cookie", b"a=1"), (b"cookie", b"b=2"), (b"Mcp-Session-Id", b"s"),
        (b"Empty", b""), (b"Last-Event-ID", b"7"), (b"Authorization", b"Bearer t"), (b"MCP-Protocol-Version", b"v"),
        (b"Latin", b"\xe9"),
    ]  # fmt: skip
    request = passed(*fields)
    assert request.fields == [HOST, *fields]
    assert (request.body, request.length, request.upgrade) == (Body.NONE, None, False)
    assert request.host == Host("mcp.tunnels.localhost", 8080)


def test_white_space_around_a_value_is_not_part_of_it() -> None:
    """Optional white space goes, also where the value decides something (RFC 9112 §5)."""
    request = check(b"POST", b"/", "1.1", [(b"Host", b" a\t"), (b"Content-Length", b"5 "), (b"X", b"\t a b  ")])
    assert request.fields == [(b"Host", b"a"), (b"Content-Length", b"5"), (b"X", b"a b")]
    assert request.length == 5


@pytest.mark.parametrize("method", sorted(METHODS))
def test_methods_of_the_parser_are_carried(method: bytes) -> None:
    """Every method that llhttp reads in an HTTP request, CONNECT and TRACE apart, passes."""
    assert passed(method=method).method == method
    httptools.HttpRequestParser(object()).feed_data(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE", b"PRI", b"DESCRIBE", b"FOO", b"get", b"", b"GET ", b"G\x00T"])
def test_other_methods_are_not_supported(method: bytes) -> None:
    """CONNECT, TRACE and what no parser knows are 501."""
    assert refused(HOST, method=method)[0] == Code.METHOD_NOT_SUPPORTED


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"//",
        b"//other/x",
        b"/a/../b",
        b"/%2e%2E/%00",
        b"/a%zz",
        b"/?",
        b"/?q=a&q=%20",
        b'/"<>\\^`{|}',
        b"/http://x/",
    ],
)
def test_a_path_is_not_touched(target: bytes) -> None:
    """Escapes, double slashes, dots and odd characters reach the local service as they came."""
    assert passed(target=target).target == target


@pytest.mark.parametrize(
    ("method", "target", "meant"),
    [
        (b"GET", b"http://mcp.tunnels.localhost:8080/a?b", b"/a?b"),
        (b"GET", b"HTTP://MCP.tunnels.localhost.:8080", b"/"),
        (b"GET", b"https://mcp.tunnels.localhost:8080?b", b"/?b"),
        (b"GET", b"http://mcp.tunnels.localhost:8080//x", b"//x"),
        (b"OPTIONS", b"http://mcp.tunnels.localhost:8080", b"*"),
        (b"OPTIONS", b"http://mcp.tunnels.localhost:8080/", b"/"),
        (b"OPTIONS", b"*", b"*"),
    ],
)
def test_absolute_targets_of_the_same_host_become_paths(method: bytes, target: bytes, meant: bytes) -> None:
    """The local service sees origin-form, and `*` where RFC 9112 §3.2.4 says so."""
    assert passed(method=method, target=target).target == meant


def test_a_default_port_may_be_left_out() -> None:
    """`http://a:80/` and `Host: a` name the same; `https://a:80/` does not."""
    assert check(b"GET", b"http://a:80/x", "1.1", [(b"Host", b"a")]).target == b"/x"
    assert check(b"GET", b"https://a/x", "1.1", [(b"Host", b"a:443")]).target == b"/x"
    assert refused((b"Host", b"a"), target=b"https://a:80/x")[0] == Code.BAD_REQUEST


@pytest.mark.parametrize(
    "target",
    [
        b"", b"a", b"*", b"a:80", b"mcp.tunnels.localhost:8080", b"http://other/", b"http://mcp.tunnels.localhost/",
        b"http://user@mcp.tunnels.localhost:8080/", b"http://mcp.tunnels.localhost:8080@other/", b"ftp://a/",
        b"http:///x", b"http://mcp.tunnels.localhost:8080\\@other/", b"http:/x", b"ws://mcp.tunnels.localhost:8080/",
        b"http://mcp.tunnels.localhost:8080#x",
        b"?x", b"#x", b"%2f", b"/ ", b"/a b", b"/\t", b"/\x00", b"/\x7f", b"/\xc3\xa9", b"/\r\nX: y", b"/\n", b"/x\n",
    ],
)  # fmt: skip
def test_other_targets_are_bad_requests(target: bytes) -> None:
    """Authority-form, other hosts, other schemes, userinfo, blanks, controls and bytes above ASCII are 400."""
    assert refused(HOST, target=target)[0] == Code.BAD_REQUEST


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0", "3", "", "1.10", "1.1 "])
def test_only_two_versions_are_spoken(version: str) -> None:
    """HTTP/0.9, HTTP/2.0 in plain text and inventions are 400."""
    assert refused(HOST, version=version)[0] == Code.BAD_REQUEST


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [HOST, HOST],
        [HOST, (b"hOST", b"b")],
        [(b"Host", b"")],
        [(b"Host", b"a, b")],
        [(b"Host", b"u@a")],
        [(b"Host ", b"a")],
    ],
)
def test_exactly_one_valid_host(hosts: Fields, version: str) -> None:
    """None, two (equal ones included) or a malformed one are 400, in HTTP/1.0 as well."""
    assert refused(*hosts, version=version)[0] == Code.BAD_REQUEST


@pytest.mark.parametrize(
    "field",
    [
        (b"", b"x"), (b"A B", b"x"), (b"A:", b"x"), (b" A", b"x"), (b"A\x00", b"x"), (b"\xe9", b"x"), (b"A\r\nB", b"x"),
        (b"A", b"x\r\nB: y"), (b"A", b"x\ny"), (b"A", b"x\ry"), (b"A", b"\x00"), (b"A", b"\x7f"), (b"A", b"\x1b[2J"),
        (b"A", b"x\r\n folded"),
    ],
)  # fmt: skip
def test_fields_that_could_split_a_head_are_refused(field: tuple[bytes, bytes]) -> None:
    """Names are tokens, values hold no control character, folded lines are refused."""
    assert refused(HOST, field)[0] == Code.BAD_REQUEST


def test_floods_are_refused_by_count_and_by_bytes() -> None:
    """100 fields and 32 KiB pass, one more does not."""
    many = [(b"A", b"1")] * (MAX_FIELDS - 1)
    assert len(passed(*many).fields) == MAX_FIELDS
    assert refused(HOST, *many, (b"A", b"1"))[0] == Code.HEAD_TOO_LARGE
    room = MAX_HEAD - len(b"GET/") - len(b"Host: \r\n" + HOST[1]) - len(b"A: \r\n")
    assert passed((b"A", b"x" * room)).fields[1][1] == b"x" * room
    assert refused(HOST, (b"A", b"x" * (room + 1)))[0] == Code.HEAD_TOO_LARGE
    assert refused(HOST, target=b"/" * MAX_HEAD)[0] == Code.HEAD_TOO_LARGE


# ------------------------------------------------------------------------------------------------------- framing


@pytest.mark.parametrize(
    ("fields", "body", "length"),
    [
        ([], Body.NONE, None),
        ([(b"Content-Length", b"0")], Body.NONE, 0),
        ([(b"content-LENGTH", b"7")], Body.LENGTH, 7),
        ([(b"Content-Length", b"007")], Body.LENGTH, 7),
        ([(b"Transfer-Encoding", b"chunked")], Body.CHUNKED, None),
        ([(b"transfer-encoding", b"Chunked")], Body.CHUNKED, None),
    ],
)
def test_framing_is_read_once(fields: Fields, body: Body, length: int | None) -> None:
    """A declared length stays in the head that goes on, zero included; a transfer coding ends at this hop."""
    request = passed(*fields, method=b"POST")
    assert (request.body, request.length) == (body, length)
    assert request.fields == [HOST, *[field for field in fields if field[0].lower() == b"content-length"]]


@pytest.mark.parametrize(
    "fields",
    [
        [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")],
        [(b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"0")],
        [(b"Content-Length", b"5"), (b"Content-Length", b"5")],
        [(b"Content-Length", b"5"), (b"content-length", b"6")],
        *[
            [(b"Content-Length", value)]
            for value in (b"", b"+5", b"-1", b"5, 5", b"0x5", b"5a", b"5 5", b"1" * 19, b"\xb2")
        ],
        [(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked")],
        *[
            [(b"Transfer-Encoding", value)]
            for value in (b"", b"gzip", b"identity", b"gzip, chunked", b"chunked, chunked", b"chunked;q=1", b"xchunked")
        ],
    ],
)
def test_ambiguous_framing_is_refused(fields: Fields) -> None:
    """Whatever two parsers could read in two ways is 400."""
    assert refused(HOST, *fields, method=b"POST")[0] == Code.BAD_REQUEST


def test_http10_has_no_transfer_coding() -> None:
    """Transfer-Encoding in HTTP/1.0 is refused (RFC 9112 §6.1)."""
    assert refused(HOST, (b"Transfer-Encoding", b"chunked"), method=b"POST", version="1.0")[0] == Code.BAD_REQUEST


# ------------------------------------------------------------------------------------------------ connection options


@pytest.mark.parametrize(
    ("version", "connection", "keep"),
    [
        ("1.1", [], True),
        ("1.1", [b"keep-alive"], True),
        ("1.1", [b"close"], False),
        ("1.1", [b"keep-alive, CLOSE"], False),
        ("1.1", [b"x", b" Close "], False),
        ("1.0", [], False),
        ("1.0", [b"keep-alive"], False),
    ],
)
def test_whether_the_connection_stays(version: str, connection: list[bytes], keep: bool) -> None:
    """HTTP/1.1 stays unless told to close; HTTP/1.0 always closes."""
    assert passed(*[(b"Connection", value) for value in connection], version=version).keep_alive is keep


def test_proxy_connection_does_not_close() -> None:
    """Proxy-Connection is no HTTP field: its options end here and mean nothing."""
    request = passed((b"Proxy-Connection", b"close, X-Hop"), (b"X-Hop", b"1"))
    assert request.keep_alive
    assert names(request) == [b"Host"]


def test_hop_by_hop_fields_end_here() -> None:
    """What Connection lists goes in every spelling, and so does what is always of one hop."""
    request = passed(
        (b"CONNECTION", b"keep-alive, x-One,,"), (b"connection", b" X-TWO\t,te"), (b"X-One", b"1"), (b"x-two", b"2"),
        (b"Keep-Alive", b"5"), (b"TE", b"trailers"), (b"Proxy-Authorization", b"x"), (b"Trailer", b"X-Sum"),
        (b"X-Three", b"3"),
    )  # fmt: skip
    assert names(request) == [b"Host", b"Trailer", b"X-Three"]


def test_protected_fields_cannot_be_stripped() -> None:
    """`Connection: host, content-length, authorization` takes nothing away that changes what the request means."""
    fields = [(b"Content-Length", b"5"), (b"Authorization", b"x"), (b"Origin", b"https://a"), (b"Mcp-Session-Id", b"s")]
    request = passed((b"Connection", b"Host, content-length, AUTHORIZATION, origin, mcp-session-id"), *fields)
    assert request.fields == [HOST, *fields]


# --------------------------------------------------------------------------------------------------------- upgrades


@pytest.mark.parametrize("offer", [b"websocket", b"WebSocket", b"h2c, websocket", b" websocket ,h2c"])
def test_an_upgrade_to_websocket_is_carried(offer: bytes) -> None:
    """The request goes on with a Connection and an Upgrade of our own, whatever else was listed."""
    request = passed(
        (b"Connection", b"keep-alive, UPGRADE, X-Hop"), (b"Upgrade", offer), (b"X-Hop", b"1"),
        (b"Sec-WebSocket-Key", b"eA=="),
    )  # fmt: skip
    assert request.upgrade
    assert request.fields == [
        HOST, (b"Sec-WebSocket-Key", b"eA=="), (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "version", "fields"),
    [
        (
            b"GET",
            "1.1",
            [(b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"AAA")],
        ),
        (b"POST", "1.1", [(b"Connection", b"Upgrade"), (b"Upgrade", b"h2c"), (b"Content-Length", b"5")]),
        (b"GET", "1.1", [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket2")]),
        (b"GET", "1.1", [(b"Connection", b"Upgrade")]),
        (b"GET", "1.1", [(b"Upgrade", b"websocket")]),
        (b"GET", "1.1", [(b"Connection", b"keep-alive"), (b"Upgrade", b"websocket"), (b"Content-Length", b"5")]),
        (b"GET", "1.1", [(b"Proxy-Connection", b"Upgrade"), (b"Upgrade", b"websocket")]),
        (b"POST", "1.1", [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]),
        (b"GET", "1.0", [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]),
    ],
)
def test_other_upgrades_are_served_as_http(method: bytes, version: str, fields: Fields) -> None:
    """h2c, HTTP/1.0, other methods and half an upgrade lose their Upgrade and are plain requests (RFC 9110 §7.8)."""
    request = passed(*fields, method=method, version=version)
    assert not request.upgrade
    assert set(names(request)) <= {b"Host", b"Content-Length"}


@pytest.mark.parametrize("framing", [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_an_upgrade_with_a_body_is_refused(framing: tuple[bytes, bytes], method: bytes) -> None:
    """Where the body ends and the other protocol begins is not to be guessed."""
    assert refused(*WEBSOCKET, framing, method=method)[0] == Code.BAD_REQUEST


def test_an_upgrade_may_say_that_it_has_no_body() -> None:
    """Content-Length: 0 beside an upgrade is no body."""
    assert check(b"GET", b"/", "1.1", [*WEBSOCKET, (b"Content-Length", b"0")]).upgrade


# --------------------------------------------------------------------------------------------- what an answer must know


@pytest.mark.parametrize(
    ("version", "expect", "goes_on"),
    [
        ("1.1", [b"100-continue"], True),
        ("1.1", [b"something"], True),
        ("1.0", [b"something"], True),
        ("1.0", [b"100-Continue"], False),
        ("1.0", [b"something", b"100-continue"], False),
    ],
)
def test_expectations(version: str, expect: list[bytes], goes_on: bool) -> None:
    """They are passed on for the local service to meet, but for 100-continue in HTTP/1.0, which has none."""
    fields = [(b"Expect", value) for value in expect]
    request = passed(*fields, (b"Content-Length", b"5"), method=b"POST", version=version)
    assert (b"Expect" in names(request)) is goes_on


def test_facts_for_an_answer() -> None:
    """Accept, Content-Type and Origin are read in passing; JSON counts only in a POST."""
    browser = passed((b"Accept", b"text/html,application/xhtml+xml,*/*;q=0.8"), (b"Origin", b"https://page"))
    assert (browser.facts("r", b"").accept_html, browser.json_post, browser.origin) == (True, False, b"https://page")
    several = passed((b"Accept", b"image/png"), (b"accept", b"text/html"), (b"Origin", b"a"), (b"Origin", b"b"))
    assert (several.facts("r", b"").accept_html, several.origin) == (True, b"a")
    client = [
        (b"accept", b"application/json, text/event-stream"),
        (b"content-type", b"Application/JSON; charset=utf-8"),
    ]
    request = passed(*client, method=b"POST")
    assert (request.facts("r", b"").accept_html, request.json_post, request.origin) == (False, True, None)
    assert not passed(*client, method=b"PUT").json_post


@pytest.mark.parametrize(
    ("field", "claims"),
    [
        ((b"X-Forwarded-For", b"1.1.1.1"), True),
        ((b"x_forwarded_proto", b"https"), True),
        ((b"FORWARDED", b"for=x"), True),
        ((b"X-Forwarded", b"1"), False),
    ],
)
def test_a_head_that_says_how_it_came_is_marked(field: tuple[bytes, bytes], claims: bool) -> None:
    """Whoever sends the request on has to drop or to check that."""
    assert passed(field).claims is claims


def test_what_is_logged_is_the_first_of_each() -> None:
    """By lower-case name, where there are any."""
    assert passed().logged == {}
    request = passed((b"Traceparent", b"1"), (b"MCP-Method", b"tools/call"), (b"traceparent", b"2"))
    assert request.logged == {b"traceparent": b"1", b"mcp-method": b"tools/call"}


# ------------------------------------------------------------------------------------------------------- properties

INTERESTING = st.sampled_from(
    [
        HOST, (b"host", b"other"), (b"Host", b"a:b"), (b"Content-Length", b"5"), (b"content-length", b"0"),
        (b"CONTENT-LENGTH", b"+1"),
        (b"Transfer-Encoding", b"chunked"), (b"transfer-encoding", b"gzip, chunked"), (b"Connection", b"upgrade, host"),
        (b"Connection", b"close"), (b"connection", b"content-length, transfer-encoding, x"), (b"Upgrade", b"websocket"),
        (b"upgrade", b"h2c"), (b"Expect", b"100-continue"), (b"TE", b"trailers"), (b"X", b" padded "),
        (b"Proxy-Connection", b"x"), (b"Accept", b"text/html"), (b"Content-Type", b"application/json"),
        (b"Trailer", b"X"), (b"Set-Cookie", b"a"),
    ]
)  # fmt: skip
TOKENS = st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}", fullmatch=True)
FIELDS = st.lists(
    INTERESTING | st.tuples(TOKENS, st.binary(max_size=12)) | st.tuples(st.binary(max_size=6), st.binary(max_size=6)),
    max_size=8,
)
METHOD = st.sampled_from([*sorted(METHODS), b"CONNECT"]) | st.binary(max_size=8)
TARGET = st.sampled_from([b"/", b"*", b"http://mcp.tunnels.localhost:8080/x"]) | st.from_regex(
    rb"/[!-~]{0,20}", fullmatch=True
)
VERSION = st.sampled_from(["1.1", "1.0", "2.0"])


@given(METHOD, TARGET | st.binary(max_size=20), VERSION | st.text(max_size=4), FIELDS)
def test_any_bytes_give_a_request_or_a_refusal(method: bytes, target: bytes, version: str, fields: Fields) -> None:
    """Nothing else comes out; a refusal names a code of the guard and says why."""
    outcome: Request | Refusal
    try:
        outcome = check(method, target, version, fields)
    except Refusal as refusal:
        outcome = refusal
    if isinstance(outcome, Refusal):
        assert outcome.code in {Code.BAD_REQUEST, Code.METHOD_NOT_SUPPORTED, Code.HEAD_TOO_LARGE}
        assert outcome.message or not method
        return
    request = outcome
    assert request.target.startswith(b"/") or (request.target, request.method) == (b"*", b"OPTIONS")
    assert sum(name.lower() == b"host" for name in names(request)) == 1


def rewritten(request: Request) -> bytes:
    """The request as the far side writes it to a local service."""
    fields = [*request.fields, (b"Transfer-Encoding", b"chunked")] if request.body is Body.CHUNKED else request.fields
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (request.method, request.target, b"".join(b"%b: %b\r\n" % f for f in fields))


class Seen:
    """What llhttp reads of one request."""

    def __init__(self, raw: bytes) -> None:
        self.target = b""
        self.fields: Fields = []
        self.heads = self.ends = 0
        self.parser: Any = httptools.HttpRequestParser(self)
        self.upgraded = False
        try:
            self.parser.feed_data(raw)
        except httptools.HttpParserUpgrade:
            self.upgraded = True

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.heads += 1

    def on_message_complete(self) -> None:
        self.ends += 1


@given(st.sampled_from(sorted(METHODS)), TARGET, VERSION, st.lists(INTERESTING | st.tuples(TOKENS, TOKENS), max_size=6))
def test_an_accepted_request_means_the_same_to_everyone(
    method: bytes, target: bytes, version: str, more: Fields
) -> None:
    """Written anew, h11 and llhttp both read exactly one request with our target, our fields and our framing."""
    try:
        request = check(method, target, version, [HOST, *more])
    except Refusal:
        return
    raw = rewritten(request)
    seen = Seen(raw)
    assert (seen.heads, seen.target, seen.parser.get_method()) == (1, request.target, method)
    assert seen.fields[: len(request.fields)] == request.fields
    assert seen.upgraded is request.upgrade
    assert bool(seen.ends) is (request.body is Body.NONE)

    strict = h11.Connection(h11.SERVER)
    strict.receive_data(raw)
    event = strict.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (method, request.target)
    assert list(event.headers)[: len(request.fields)] == [(name.lower(), value) for name, value in request.fields]
    following = strict.next_event()
    assert isinstance(following, h11.EndOfMessage) is (request.body is Body.NONE)
