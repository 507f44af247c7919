"""What a line of the access log holds, and what it never does."""

from __future__ import annotations

import json

import pytest

from relay.edge.account import COMPLETE, Account
from relay.edge.answers import Code
from relay.edge.guard import check
from relay.exchange.heads import Fields
from relay.node.accesslines import FORMATS, MOST, as_json, as_text, record_of

NOW = 1_795_302_000.123
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def an_account(target: bytes = b"/mcp?key=secret", fields: Fields = ()) -> Account:  # type: ignore[assignment]
    given = [(b"Host", b"demo.tunnels.localhost"), (b"Authorization", b"Bearer secret"), *fields]
    made = Account(check(b"POST", target, "1.1", given), "r1", 10.0)
    made.client, made.tunnel, made.key_id, made.status, made.ended = "192.0.2.7", "demo", "mtk_child_1", 200, COMPLETE
    made.head_at, made.over_at, made.bytes_in, made.bytes_out = 10.25, 11.5, 3, 5
    return made


def test_a_line_for_programs() -> None:
    """Seconds, bytes, names; no value of a header field, and no query."""
    line = as_json(record_of(an_account(), NOW, with_query=False))
    assert line.endswith("}\n")
    assert json.loads(line) == {
        "time": "2026-11-21T23:00:00.123Z",
        "level": "info",
        "logger": "relay.access",
        "request_id": "r1",
        "client": "192.0.2.7",
        "tunnel": "demo",
        "key_id": "mtk_child_1",
        "status": 200,
        "answered_by": "local",
        "ended": "complete",
        "bytes_in": 3,
        "bytes_out": 5,
        "duration": 1.5,
        "time_to_first_byte": 0.25,
        "method": "POST",
        "host": "demo.tunnels.localhost",
        "path": "/mcp",
        "http": "1.1",
    }


def test_a_line_for_people() -> None:
    """The same in one glance."""
    assert as_text(record_of(an_account(), NOW, with_query=False)) == (
        '2026-11-21T23:00:00.123Z 192.0.2.7 "POST demo.tunnels.localhost/mcp" 200 local 1500.0ms in=3 out=5 '
        "request=r1 key=mtk_child_1\n"
    )


@pytest.mark.parametrize("form", FORMATS)
def test_a_query_stands_there_only_if_it_was_asked_for(form: str) -> None:
    """It may hold secrets."""
    write = FORMATS[form]
    assert "secret" not in write(record_of(an_account(), NOW, with_query=False))
    assert "key=secret" in write(record_of(an_account(), NOW, with_query=True))


@pytest.mark.parametrize("form", FORMATS)
def test_the_relays_own_answer_names_its_error(form: str) -> None:
    """And one that never was a request says so."""
    account = Account(None, "r2", 1.0)
    account.refuse(Code.BAD_REQUEST, 1.0)
    line = FORMATS[form](record_of(account, NOW, with_query=False))
    assert "bad_request" in line
    assert "400" in line
    left = Account(an_account().request, "r3", 1.0)
    assert "visitor_left" in FORMATS[form](record_of(left, NOW, with_query=False))


@pytest.mark.parametrize("form", FORMATS)
def test_what_was_made_to_be_logged(form: str) -> None:
    """Trace and MCP fields, as they were sent; a trace that is none is left out (W3C Trace Context §3.2)."""
    fields = [(b"traceparent", TRACE), (b"Mcp-Method", b"tools/call"), (b"Mcp-Name", b"add")]
    line = FORMATS[form](record_of(an_account(fields=fields), NOW, with_query=False))
    for word in ("0af7651916cd43dd8448eb211c80319c", "tools/call", "add"):
        assert word in line
    for bad in (b"00-" + b"0" * 32 + TRACE[35:], TRACE[:-1], TRACE.upper(), b"secret"):
        line = FORMATS[form](record_of(an_account(fields=[(b"traceparent", bad)]), NOW, with_query=False))
        assert "trace" not in line


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_that_a_visitor_sends_makes_a_line_or_a_colour(form: str) -> None:
    """Nor a long one."""
    fields = [(b"Mcp-Name", b"a\tb\xc2\x9b31m\xff" + b"x" * 5000)]
    line = FORMATS[form](record_of(an_account(b"/" + b"%0a" * 3000, fields), NOW, with_query=True))
    assert len(line.splitlines()) == 1
    assert line[:-1].isprintable()
    assert len(line) < 8 * MOST


KEY = b"mtk_master_3fGh8KqLm2Np_" + b"s3cr3t" * 8


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_a_key_in_a_path_is_not_told(form: str) -> None:
    """Nor in a query or another word of the visitor's: its kind is, and what is around it."""
    fields = [(b"Mcp-Name", KEY), (b"Mcp-Method", b"a " + KEY)]
    line = FORMATS[form](record_of(an_account(b"/a/" + KEY + b"/b?k=" + KEY + b"&c", fields), NOW, with_query=True))
    plain = line.encode().decode("unicode_escape") if form == "json" else line
    assert "s3cr3t" not in line
    assert "/a/mtk_master_…/b" in plain
    assert "k=mtk_master_…&c" in plain
