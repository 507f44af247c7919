"""The contract of the relay's own answers: every row, in every form, and nothing that could be smuggled into one."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.edge.answers import (
    TABLE,
    Code,
    Extra,
    Facts,
    accepts_html,
    closes,
    facts_of,
    is_json,
    parts,
    render,
    rpc_id,
)

PROMISES = Path(__file__).resolve().parents[2] / "docs" / "promises.md"
DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"

# (code, status, Retry-After in seconds, whether the connection ends)
CONTRACT = [
    ("unknown_host", 404, None, False),
    ("agent_offline", 503, 5, False),
    ("agent_lost", 502, None, False),
    ("local_refused", 502, None, False),
    ("local_reset", 502, None, False),
    ("bad_response", 502, None, False),
    ("head_timeout", 504, None, False),
    ("bad_request", 400, None, True),
    ("request_timeout", 408, None, True),
    ("method_not_supported", 501, None, True),
    ("overloaded", 503, 5, False),
    ("draining", 503, 5, True),
    ("body_too_large", 413, None, True),
    ("head_too_large", 431, None, True),
    ("rate_limited", 429, 10, False),
    ("quota_exhausted", 429, 3600, False),
    ("too_many_streams", 429, 5, False),
    ("unauthorized", 401, None, False),
    ("forbidden", 403, None, False),
    ("internal", 500, None, False),
]
CODES = list(Code)


def read(raw: bytes, method: str = "GET") -> tuple[h11.Response, dict[str, str], bytes]:
    """The answer as a strict client reads it; exactly one, complete, with nothing behind it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data[0] == b""
    fields = [(name.decode(), value.decode()) for name, value in response.headers]
    assert len(fields) == len(dict(fields))
    return response, dict(fields), body


def answer(code: Code, facts: Facts, detail: str = "") -> tuple[dict[str, str], bytes]:
    _, fields, body = read(render(code, facts, detail, now_http_date=DATE), facts.method.decode())
    return fields, body


def test_the_contract_is_complete() -> None:
    """Every code has a row here, a row in the table, and a place in the order of the enumeration."""
    assert [row[0] for row in CONTRACT] == [str(code) for code in Code] == [str(code) for code in TABLE]


@pytest.mark.parametrize(("name", "status", "retry", "ends"), CONTRACT)
def test_every_row_as_json(name: str, status: int, retry: int | None, ends: bool) -> None:
    """For curl: status, Relay-Error, request id, Retry-After, and a JSON object of four members."""
    facts = Facts(request_id="r-1", host="mcp.tunnels.localhost", keep_alive=True)
    response, fields, body = read(render(Code(name), facts, "127.0.0.1:3000", now_http_date=DATE))
    assert response.status_code == status
    assert response.http_version == b"1.1"
    assert (fields["relay-error"], fields["relay-request-id"]) == (name, "r-1")
    assert fields.get("retry-after") == (None if retry is None else str(retry))
    assert fields.get("connection") == ("close" if ends else None)
    assert (fields["cache-control"], fields["content-type"]) == ("no-store", "application/json")
    assert fields["date"] == DATE.decode()
    assert ("www-authenticate" in fields) is (status == 401)
    said = json.loads(body)
    assert set(said) == {"error", "message", "next_action", "request_id"}
    assert (said["error"], said["request_id"]) == (name, "r-1")
    assert said["message"].endswith("(127.0.0.1:3000).")
    assert len(said["next_action"]) > 10


@pytest.mark.parametrize("code", CODES)
def test_every_row_as_json_rpc(code: Code) -> None:
    """For a POST with a JSON body: an error object with the request's id, a code of its own, and the next step."""
    prefix = b'{"jsonrpc":"2.0","id":7,"method":"tools/call"}'
    facts = Facts(b"POST", "r-1", "mcp.tunnels.localhost", accept_html=True, json_post=True, body_prefix=prefix)
    fields, body = answer(code, facts, "127.0.0.1:3000")
    assert fields["content-type"] == "application/json"
    said = json.loads(body)
    assert (said["jsonrpc"], said["id"], set(said)) == ("2.0", 7, {"jsonrpc", "id", "error"})
    error = said["error"]
    assert error["code"] == TABLE[code].rpc
    assert error["data"]["error"] == str(code)
    assert error["data"]["request_id"] == "r-1"
    assert "127.0.0.1:3000" in error["message"]
    assert error["message"].endswith(error["data"]["next_action"])


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onload"}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("code", CODES)
def test_every_row_as_a_page(code: Code) -> None:
    """For a browser: a page that loads nothing, and says what happened, what to do, and the request id."""
    facts = Facts(request_id="r-1", host="mcp.tunnels.localhost", accept_html=True)
    fields, body = answer(code, facts, "127.0.0.1:3000")
    assert fields["content-type"] == "text/html; charset=utf-8"
    assert fields["content-security-policy"].startswith("default-src 'none'")
    page = Page(body.decode())
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    for text in (str(TABLE[code].status), str(code), "(127.0.0.1:3000)", TABLE[code].visitor, "r-1"):
        assert text in page.text
    assert ("If this tunnel is yours, " in page.text) is bool(TABLE[code].owner)


def test_json_rpc_codes_are_our_own() -> None:
    """Each row has its own number, outside the range that JSON-RPC keeps for itself."""
    numbers = [row.rpc for row in TABLE.values()]
    assert len(set(numbers)) == len(numbers)
    assert not [number for number in numbers if -32768 <= number <= -32000]


def test_the_documented_table_is_the_table() -> None:
    """docs/promises.md shows each code with its status, its JSON-RPC number and its Retry-After."""
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (-\d+) \| (\d+ s|–) \|", PROMISES.read_text(encoding="utf-8"), re.M)
    shown = [
        (str(row.status), str(code), str(row.rpc), "–" if row.retry_after is None else f"{row.retry_after} s")
        for code, row in TABLE.items()
    ]
    assert rows == shown


def test_names_stand_in_the_text() -> None:
    """The host called and the command to run are spelled out; without a host the text still reads."""
    message = parts(Code.UNKNOWN_HOST, Facts(host="x.tunnels.localhost"))[2]
    assert b"There is no tunnel at x.tunnels.localhost." in message
    assert b"relay http PORT --subdomain mcp" in parts(Code.AGENT_OFFLINE, Facts(host="mcp.tunnels.localhost"))[2]
    assert b"There is no tunnel at this address." in parts(Code.UNKNOWN_HOST, Facts())[2]
    assert b"--subdomain NAME" in parts(Code.AGENT_OFFLINE, Facts())[2]


def test_head_has_the_length_but_no_body() -> None:
    """An answer to HEAD announces what GET would bring."""
    whole = render(Code.UNKNOWN_HOST, Facts(b"GET"), now_http_date=DATE)
    head = render(Code.UNKNOWN_HOST, Facts(b"HEAD"), now_http_date=DATE)
    assert whole.startswith(head)
    assert head.endswith(b"\r\n\r\n")
    assert read(head, "HEAD")[2] == b""


@pytest.mark.parametrize(
    ("given_seconds", "shown"),
    [(None, "5"), (0, "1"), (-3, "1"), (0.2, "1"), (7.1, "8"), (30, "30"), (float("inf"), "2678400")],
)
def test_retry_after_is_whole_seconds(given_seconds: float | None, shown: str) -> None:
    """What the caller knows goes before the table's value, rounded up, at least one second, at most a month."""
    assert answer(Code.AGENT_OFFLINE, Facts(extra=Extra(retry_after=given_seconds)))[0]["retry-after"] == shown
    assert answer(Code.UNKNOWN_HOST, Facts(extra=Extra(retry_after=3)))[0]["retry-after"] == "3"


@pytest.mark.parametrize(
    ("facts", "ends"),
    [(Facts(keep_alive=True), False), (Facts(keep_alive=False), True), (Facts(keep_alive=True, http10=True), True)],
)
def test_connection_close_is_said(facts: Facts, ends: bool) -> None:
    """Where the connection does not stay, or is HTTP/1.0, the answer says so; a refused head always ends it."""
    assert (answer(Code.AGENT_OFFLINE, facts)[0].get("connection") == "close") is ends
    assert closes(Code.AGENT_OFFLINE, facts) is ends
    assert closes(Code.BAD_REQUEST, facts)


def test_a_page_elsewhere_can_read_an_answer() -> None:
    """The Origin is echoed, without credentials, and the fields that matter are exposed."""
    fields, _ = answer(Code.AGENT_OFFLINE, Facts(origin=b"https://app.example"))
    assert fields["access-control-allow-origin"] == "https://app.example"
    assert fields["vary"] == "Origin"
    assert (
        fields["access-control-expose-headers"]
        == "Relay-Error, Retry-After, Relay-Request-Id, RateLimit, RateLimit-Policy"
    )
    assert "access-control-allow-credentials" not in fields
    assert not [name for name in answer(Code.AGENT_OFFLINE, Facts())[0] if name.startswith("access-control")]


@pytest.mark.parametrize("origin", [b"", b"a b", b"https://a\r\nX: y", b"\xe9", b"x" * 600])
def test_an_impossible_origin_is_not_echoed(origin: bytes) -> None:
    """What is no visible ASCII of sensible length is left out."""
    assert "access-control-allow-origin" not in answer(Code.INTERNAL, Facts(origin=origin))[0]


ANYTHING = st.text(max_size=40) | st.sampled_from(
    ["<script>alert(1)</script>", "a\r\nSet-Cookie: x", "{host}", "\ud800", "\u202e"]
)


@given(st.sampled_from(CODES), ANYTHING, ANYTHING, ANYTHING, st.binary(max_size=20), st.booleans(), st.booleans())
def test_nothing_can_be_smuggled_into_an_answer(
    code: Code, detail: str, host: str, request_id: str, origin: bytes, accept_html: bool, json_post: bool
) -> None:  # fmt: skip
    """Whatever stands in the free texts, it is one answer, with our fields only and without foreign markup."""
    facts = Facts(b"POST", request_id, host, accept_html, json_post, origin)
    fields, body = answer(code, facts, detail)
    assert "set-cookie" not in fields
    text = body.decode()
    if fields["content-type"] == "application/json":
        assert isinstance(json.loads(text), dict)
    else:
        expected = [
            "html",
            "meta",
            "meta",
            "meta",
            "title",
            "style",
            "h1",
            *["p"] * (1 + bool(TABLE[code].owner)),
            "footer",
        ]
        assert Page(text).tags == expected


def test_a_long_detail_is_cut() -> None:
    """A text from elsewhere takes at most 300 characters."""
    assert len(parts(Code.BAD_RESPONSE, Facts(), "x" * 100_000)[2]) < 1000


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"a"}', 1),
        (b' {"id":"\\u00e9-\\ud800","method":"a"}\n', "é-\ud800"),
        (b'{"id":-1.5,"method":"a"}', -1.5),
        (b'{"id":0,"method":"a"}', 0),
        (b'{"id":"","method":"a"}', ""),
        (b"", None),
        (b'{"id":1,"method":"a"', None),
        (b'{"id":1}', None),
        (b'{"id":1,"result":{}}', None),
        (b'{"method":"a"}', None),
        (b'[{"id":1,"method":"a"}]', None),
        (b'{"id":1,"method":"a"}{}', None),
        *[
            (b'{"id":%b,"method":"a"}' % value, None)
            for value in (b"true", b"null", b"[]", b"{}", b"NaN", b"1e999", b"-Infinity")
        ],
        (b'{"id":' + b"9" * 5000 + b',"method":"a"}', None),
        (b"[" * 50_000, None),
        (b'{"id":1,"method":"' + b"a" * 70_000 + b'"}', None),
        (b"\xff\xfe\x00", None),
    ],
)  # fmt: skip
def test_the_id_of_a_json_rpc_request(prefix: bytes, found: Any) -> None:
    """It is read from a complete request, as a text or a number; anything else, a response's id included, is null."""
    assert rpc_id(prefix) == found
    _, body = answer(Code.AGENT_LOST, Facts(b"POST", json_post=True, body_prefix=prefix))
    assert json.loads(body)["id"] == found


@given(st.binary(max_size=60) | st.from_regex(rb'\{"id":[0-9eE+.\-"a-z]{0,8},"method":"x"\}', fullmatch=True))
def test_any_body_prefix_gives_an_answer(prefix: bytes) -> None:
    """Foreign JSON never breaks an answer, which stays JSON in the strict sense."""

    def no_constants(name: str) -> Any:
        raise AssertionError(name)

    _, body = answer(Code.AGENT_OFFLINE, Facts(b"POST", json_post=True, body_prefix=prefix))
    json.loads(body, parse_constant=no_constants)


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (b"text/html", True),
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        (b"application/json, TEXT/HTML ; q=0.5", True),
        (b"*/*", False),
        (b"text/*", False),
        (b"application/json, text/event-stream", False),
        (b"text/html;q=0", False),
        (b"text/html; q=0.000, */*", False),
        (b"text/html;q=0.1", True),
        (b"text/htmlx", False),
        (b"application/x;a=text/html", False),
        (b"", False),
    ],
)
def test_who_is_a_browser(accept: bytes, html: bool) -> None:
    """Only who names text/html, and does not rule it out, gets a page."""
    assert accepts_html(accept) is html


def test_what_is_json() -> None:
    """application/json with or without parameters, in any case, and nothing that resembles it."""
    assert is_json(b"application/json")
    assert is_json(b"Application/JSON ; charset=utf-8")
    assert not is_json(b"application/json-patch+json")
    assert not is_json(b"text/plain, application/json")


def test_facts_of_a_refused_head() -> None:
    """A head that was refused still tells in which form its answer is wanted; the connection ends."""
    fields = [
        (b"ACCEPT", b"text/html"),
        (b"content-type", b"application/json"),
        (b"Origin", b"https://a"),
        (b"Origin", b"b"),
    ]
    assert facts_of(b"POST", fields, "r") == Facts(b"POST", "r", "", True, True, b"https://a")
    assert facts_of(b"PUT", fields, "r", "h") == Facts(b"PUT", "r", "h", True, False, b"https://a")
    assert closes(Code.AGENT_OFFLINE, facts_of(b"GET", [], ""))


def test_an_id_that_is_a_huge_number_is_given_back() -> None:
    """No float holds it, and none is needed."""
    assert rpc_id(b'{"method": "x", "id": %d}' % 10**400) == 10**400
