"""The golden vectors hold, both ways: bytes give their meaning, and the meaning gives the bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from relay.exchange import heads
from relay.exchange.errors import MalformedHead
from relay.wire import frames, hello
from relay.wire.errors import RemoteProtocolError
from tests.wire.golden import TYPES, Vector, interpret, load, unhex

FRAMES, HANDSHAKE, HEADS, EXAMPLE = load("frames"), load("handshake"), load("heads"), load("example")

Decoder = Callable[[bytes], Any]
Encoder = Callable[[Any], bytes]


def spread(group: dict[str, Any], kind: str) -> list[Any]:
    """Every vector of a file in groups, as (group, vector)."""
    return [
        pytest.param(part, vector, id=f"{part}: {vector['name']}")
        for part, both in group.items()
        if isinstance(both, dict)
        for vector in both[kind]
    ]


def by_name(vectors: list[Vector]) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in vectors]


def expected(vector: Vector) -> list[Vector]:
    return [{**frame, "payload": unhex(frame["payload"])} for frame in vector["frames"]]


# ---------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("vector", by_name(FRAMES["valid"]))
def test_message_means_its_frames(vector: Vector) -> None:
    """A valid message decodes to exactly the frames of its vector, and to what their payloads say."""
    assert interpret(unhex(vector["message"])) == (expected(vector), None)


@pytest.mark.parametrize("vector", by_name(FRAMES["valid"]))
def test_frames_give_their_message(vector: Vector) -> None:
    """Encoding the frames of a vector gives its bytes, extensions aside, which nobody here sends."""
    message = unhex(vector["message"])
    encoded = b"".join(
        frames.encode(TYPES[frame["type"]], frame["stream"], unhex(frame["payload"])) for frame in vector["frames"]
    )
    assert encoded == message or "extension" in vector["name"]


@pytest.mark.parametrize("vector", by_name([v for v in FRAMES["valid"] if any(len(f) > 3 for f in v["frames"])]))
def test_what_a_payload_says_gives_its_frame(vector: Vector) -> None:
    """Code, flag, detail and increment give the bytes of the frame, unless they are of a later time or no UTF-8."""
    (frame,) = vector["frames"]
    stream = frame["stream"]
    if "credit" in frame:
        encoded = frames.encode_credit(stream, frame["credit"])
    elif "away" in frame:
        encoded = frames.encode_going_away(*frame["away"].values())
    else:
        said = frame["reset"]
        encoded = frames.encode_reset(stream, said["code"], said["detail"], said["delivered"])
    assert encoded == unhex(vector["message"]) or "later time" in vector["name"] or "not UTF-8" in vector["name"]


@pytest.mark.parametrize("vector", by_name(FRAMES["invalid"]))
def test_invalid_message_is_the_peers_error(vector: Vector) -> None:
    """An invalid message gives the frames before the fault, then a `RemoteProtocolError`."""
    found, error = interpret(unhex(vector["message"]))
    assert found == expected(vector)
    assert error is not None, vector["why"]


def test_every_type_of_frame_has_a_vector() -> None:
    """No type is missing among the valid vectors."""
    assert {frame["type"] for vector in FRAMES["valid"] for frame in vector["frames"]} == set(frames.NAMES.values())


def test_every_message_of_the_example_means_its_frames() -> None:
    """The worked example decodes to its frames, and its frames encode to it."""
    assert len(EXAMPLE["messages"]) >= 5
    for message in EXAMPLE["messages"]:
        whole = unhex(message["message"])
        found, error = interpret(whole)
        assert error is None
        assert [(f["type"], f["stream"], f["payload"].hex()) for f in found] == [
            (f["type"], f["stream"], f["payload"]) for f in message["frames"]
        ]
        assert b"".join(frames.encode(TYPES[f["type"]], f["stream"], f["payload"]) for f in found) == whole


# ---------------------------------------------------------------------------------------------------- handshake


def plain_welcome(welcome: hello.Welcome) -> dict[str, Any]:
    plain = asdict(welcome)
    access = plain.pop("access")
    tunnels: list[dict[str, Any]] = [{"name": name, "url": url} for name, url in welcome.tunnels]
    for tunnel in tunnels:
        if tunnel["name"] in access:
            tunnel["access"] = list(access[tunnel["name"]])
    return {**plain, "tunnels": tunnels, "limits": list(welcome.limits)}


def plain_hello(said: hello.Hello) -> dict[str, Any]:
    access = {name: {**asdict(rules), "basic": dict(rules.basic)} for name, rules in said.access.items()}
    return {**asdict(said), "names": list(said.names), "versions": list(said.versions), "access": access}


BODIES: dict[str, tuple[Decoder, Encoder, Callable[[Any], dict[str, Any]]]] = {
    "hello": (hello.decode_hello, hello.encode_hello, plain_hello),
    "welcome": (hello.decode_welcome, hello.encode_welcome, plain_welcome),
    "refused": (hello.decode_refused, hello.encode_refused, asdict),
    "renew": (hello.decode_renew, hello.encode_renew, asdict),
}


@pytest.mark.parametrize(("kind", "vector"), spread(HANDSHAKE, "valid"))
def test_body_means_what_its_vector_says(kind: str, vector: Vector) -> None:
    """A valid body decodes to its meaning; encoded again it means the same, and is the same where canonical."""
    decode, encode, plain = BODIES[kind]
    payload = unhex(vector["payload"])
    said = decode(payload)
    assert plain(said) == vector["meaning"]
    assert decode(encode(said)) == said
    if vector["canonical"]:
        assert encode(said) == payload


@pytest.mark.parametrize(("kind", "vector"), spread(HANDSHAKE, "invalid"))
def test_malformed_body_is_the_peers_error(kind: str, vector: Vector) -> None:
    """A malformed body is a `RemoteProtocolError`, whose text names the member where one is at fault."""
    with pytest.raises(RemoteProtocolError) as caught:
        BODIES[kind][0](unhex(vector["payload"]))
    member = vector["why"].split()[0]
    if member in hello.Hello.__dataclass_fields__ | hello.Welcome.__dataclass_fields__:
        assert member.removesuffix("s") in str(caught.value) or "JSON" in str(caught.value)


# ---------------------------------------------------------------------------------------------------- heads


def text(value: bytes) -> str:
    return value.decode("latin-1")


def plain_fields(fields: heads.Fields) -> list[list[str]]:
    return [[text(name), text(value)] for name, value in fields]


def plain_request(head: heads.RequestHead) -> dict[str, Any]:
    return {
        "method": text(head.method),
        "target": text(head.target),
        "fields": plain_fields(head.fields),
        "name": head.name,
        "request_id": head.request_id,
        "upgrade": head.upgrade,
    }


def plain_response(head: heads.ResponseHead) -> dict[str, Any]:
    return {"status": head.status, "reason": text(head.reason), "fields": plain_fields(head.fields)}


def decode_fields(payload: bytes) -> heads.Fields:
    return heads.decode_fields(payload, 0)


HEAD_KINDS: dict[str, tuple[Decoder, Encoder, Callable[[Any], Any]]] = {
    "request": (heads.decode_request, heads.encode_request, plain_request),
    "response": (heads.decode_response, heads.encode_response, plain_response),
    "fields": (decode_fields, heads.encode_fields, plain_fields),
}


@pytest.mark.parametrize(("kind", "vector"), spread(HEADS, "valid"))
def test_head_means_what_its_vector_says(kind: str, vector: Vector) -> None:
    """A valid head decodes to its meaning, and its meaning encodes to the same bytes."""
    decode, encode, plain = HEAD_KINDS[kind]
    payload = unhex(vector["payload"])
    head = decode(payload)
    assert plain(head) == vector["meaning"]
    assert encode(head) == payload or vector.get("canonical") is False


@pytest.mark.parametrize(("kind", "vector"), spread(HEADS, "invalid"))
def test_malformed_head_is_told_apart(kind: str, vector: Vector) -> None:
    """A malformed head is a `MalformedHead`, which costs its stream and not the session."""
    with pytest.raises(MalformedHead):
        HEAD_KINDS[kind][0](unhex(vector["payload"]))
