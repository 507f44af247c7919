"""Heads in their binary form: any bytes give a head or `MalformedHead`, and what was encoded decodes to itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.exchange import heads
from relay.exchange.errors import MalformedHead
from relay.exchange.heads import RequestHead, ResponseHead


def some_bytes(alphabet: bytes, least: int, most: int) -> st.SearchStrategy[bytes]:
    return st.text(alphabet.decode("latin-1"), min_size=least, max_size=most).map(lambda text: text.encode("latin-1"))


WORD = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VISIBLE = bytes(range(0x21, 0x7F))
TOKENS = some_bytes(WORD + b"!#$%&'*+-.^_`|~", 1, 30)
VALUES = some_bytes(b"\t " + VISIBLE + bytes(range(0x80, 0x100)), 0, 60)
FIELDS = st.lists(st.tuples(TOKENS, VALUES), max_size=8)
REQUESTS = st.builds(
    RequestHead,
    method=TOKENS,
    target=some_bytes(VISIBLE, 1, 80),
    fields=FIELDS,
    name=some_bytes(WORD + b"-", 0, 63).map(bytes.decode),
    request_id=some_bytes(WORD + b"-_", 0, 40).map(bytes.decode),
    upgrade=st.booleans(),
)
RESPONSES = st.builds(ResponseHead, status=st.integers(100, 999), reason=VALUES, fields=FIELDS)
PLAIN = RequestHead(b"GET", b"/", [(b"Host", b"a")], "demo", "r1")
DECODERS: list[Callable[[bytes], Any]] = [
    heads.decode_request,
    heads.decode_response,
    lambda payload: heads.decode_fields(payload, 0),
]


@given(REQUESTS)
def test_a_request_head_decodes_to_itself(head: RequestHead) -> None:
    """Method, target, names, values, their order, case and duplicates, name, request id and flag come back."""
    assert heads.decode_request(heads.encode_request(head)) == head


@given(REQUESTS, FIELDS)
def test_fields_that_many_heads_share_are_encoded_apart(head: RequestHead, more: heads.Fields) -> None:
    """Fields that were encoded before stand behind the head's own, as if they had been its last."""
    whole = replace(head, fields=[*head.fields, *more])
    payload = heads.EncodedRequest(head, heads.encode_part(more)).payload(head.request_id)
    assert payload == heads.encode_request(whole)


def test_shared_fields_count_as_others_do() -> None:
    """Together they are no more than a head may have."""
    head = replace(PLAIN, fields=[(b"a", b"")] * 253)
    assert heads.EncodedRequest(head, heads.encode_part([(b"b", b"")] * 3)).payload("r1")
    with pytest.raises(MalformedHead):
        heads.EncodedRequest(head, heads.encode_part([(b"b", b"")] * 4))


@given(REQUESTS, st.text("0123456789abcdef", max_size=20))
def test_a_head_means_the_same_under_any_request_id(head: RequestHead, request_id: str) -> None:
    """What stands around the id is the same for equal heads, and is decoded without it."""
    before, found, after = heads.split_request_id(heads.EncodedRequest(head).payload(request_id))
    assert found == request_id
    assert heads.decode_split(before, after) == replace(head, request_id="")


@given(RESPONSES)
def test_a_response_head_decodes_to_itself(head: ResponseHead) -> None:
    """Status, reason and fields come back."""
    assert heads.decode_response(heads.encode_response(head)) == head


@given(FIELDS, st.binary(max_size=20))
def test_fields_decode_to_themselves_from_any_offset(fields: heads.Fields, before: bytes) -> None:
    """Fields come back, wherever they begin in their payload."""
    assert heads.decode_fields(before + heads.encode_fields(fields), len(before)) == fields


def written(head: RequestHead | ResponseHead | heads.Fields) -> tuple[list[bytes], heads.Fields]:
    """(the parts of the first line, the fields) as they would be written to a socket."""
    if isinstance(head, RequestHead):
        return [head.method, head.target], head.fields
    if isinstance(head, ResponseHead):
        return [b"%d" % head.status, head.reason.replace(b" ", b"_")], head.fields
    return [], head


@pytest.mark.parametrize("decode", DECODERS, ids=["request", "response", "fields"])
@given(data=st.data())
def test_any_bytes_give_a_head_that_is_safe_to_write_or_malformed_head(
    decode: Callable[[bytes], Any], data: st.DataObject
) -> None:
    """Noise, and good heads with a byte changed, put in or cut off, give nothing that could split a message."""
    good = data.draw(
        REQUESTS.map(heads.encode_request) | RESPONSES.map(heads.encode_response) | FIELDS.map(heads.encode_fields)
    )
    at = data.draw(st.integers(0, len(good)))
    noise = data.draw(st.sampled_from([b"", b"\r", b"\n", b"\0", b" ", b":", b"\xff"]) | st.binary(max_size=4))
    skip = data.draw(st.integers(0, 4))
    payload = data.draw(st.sampled_from([good[:at] + noise + good[at + skip :], noise]))
    try:
        head = decode(payload)
    except MalformedHead as error:
        assert str(error).isprintable()
        return
    line, fields = written(head)
    for part in line:
        assert re.search(rb"[\x00-\x08\x0a-\x20\x7f]", part) is None
    for name, value in fields:
        assert re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name)
        assert re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value) is None
    assert len(fields) <= heads.MAX_FIELDS


@given(st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=4)), max_size=4))
def test_a_group_of_fields_is_good_when_each_is(fields: heads.Fields) -> None:
    """Checking all at once finds exactly what checking one by one finds."""
    bad = 0
    for field in fields:
        try:
            heads.check_fields([field])
        except MalformedHead:
            bad += 1
    try:
        heads.check_fields(fields)
    except MalformedHead:
        assert bad
    else:
        assert not bad


@given(REQUESTS, st.data())
def test_a_request_head_cut_short_is_malformed(head: RequestHead, data: st.DataObject) -> None:
    """No proper part of an encoded head is a head."""
    payload = heads.encode_request(head)
    with pytest.raises(MalformedHead):
        heads.decode_request(payload[: data.draw(st.integers(0, len(payload) - 1))])


@pytest.mark.parametrize(
    "head",
    [
        RequestHead(b"M" * 256, b"/", [], "demo"),
        RequestHead(b"GET", b"/" * 65536, [], "demo"),
        RequestHead(b"GET", b"/", [], "d" * 256),
        RequestHead(b"GET", b"/", [], "dämo"),
        RequestHead(b"GET", b"/", [], "demo", "r" * 256),
        RequestHead(b"GET", b"/", [(b"a", b"v" * 65536)], "demo"),
        RequestHead(b"GET", b"/", [(b"n" * 65536, b"")], "demo"),
        RequestHead(b"GET", b"/", [(b"a", b"")] * 257, "demo"),
    ],
    ids=["method", "target", "name", "name beyond ASCII", "request id", "value", "field name", "count"],
)
def test_a_request_head_that_does_not_fit_is_malformed(head: RequestHead) -> None:
    """What no length on the wire can say is refused by the encoder, with the error that its callers expect."""
    with pytest.raises(MalformedHead):
        heads.encode_request(head)


@pytest.mark.parametrize(
    "head",
    [
        ResponseHead(200, b"r" * 256, []),
        ResponseHead(65536, b"", []),
        ResponseHead(-1, b"", []),
        ResponseHead(200, b"", [(b"a", b"")] * 257),
        ResponseHead(200, b"", [(b"a", b"v" * 65536)]),
    ],
    ids=["reason", "status", "negative status", "count", "value"],
)
def test_a_response_head_that_does_not_fit_is_malformed(head: ResponseHead) -> None:
    """A local service's odd answer is told apart from a defect of ours."""
    with pytest.raises(MalformedHead):
        heads.encode_response(head)


def test_the_longest_parts_come_back() -> None:
    """Every part at the limit of its length on the wire."""
    fields = [(b"n" * 1000, b"v" * 65535), *[(b"a", b"")] * 255]
    head = RequestHead(b"M" * 255, b"/" * 65535, fields, "d" * 255, "r" * 255, True)
    assert heads.decode_request(heads.encode_request(head)) == head
    answer = ResponseHead(999, b"r" * 255, fields)
    assert heads.decode_response(heads.encode_response(answer)) == answer
