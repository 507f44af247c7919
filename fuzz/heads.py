"""Target: request heads, response heads, trailers. Only heads that are safe to write and `MalformedHead` come out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import atheris

from fuzz.harness import run, unhex, vectors

with atheris.instrument_imports(include=["relay.exchange"]):
    from relay.exchange import heads
    from relay.exchange.errors import MalformedHead


def decode_fields(payload: bytes) -> heads.Fields:
    return heads.decode_fields(payload, 0)


KINDS: list[tuple[str, Callable[[bytes], Any], Callable[[Any], bytes]]] = [
    ("request", heads.decode_request, heads.encode_request),
    ("response", heads.decode_response, heads.encode_response),
    ("fields", decode_fields, heads.encode_fields),
]
SPLITTERS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def check(data: bytes) -> None:
    """The first byte chooses the kind of head."""
    if not data:
        return
    _, decode, encode = KINDS[data[0] % len(KINDS)]
    payload = data[1:]
    try:
        head = decode(payload)
    except MalformedHead as error:
        assert str(error).isprintable()
        return
    again = encode(head)
    assert decode(again) == head
    # A request's flags of a later time are read and not written.
    assert again[1:] == payload[1:]
    fields = head if isinstance(head, list) else head.fields
    for name, value in fields:
        assert re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name)
        assert not SPLITTERS.search(value)
    if isinstance(head, heads.RequestHead):
        assert not SPLITTERS.search(head.method + head.target)
        assert b" " not in head.method + head.target
        assert (head.name + head.request_id).isprintable()
    elif isinstance(head, heads.ResponseHead):
        assert 100 <= head.status <= 999
        assert not SPLITTERS.search(head.reason)


def seeds() -> Iterator[bytes]:
    """Every vector of heads."""
    for number, (name, _, _) in enumerate(KINDS):
        group = vectors("heads")[name]
        for vector in group["valid"] + group["invalid"]:
            yield bytes((number,)) + unhex(vector["payload"])


if __name__ == "__main__":
    run("heads", check, seeds())
