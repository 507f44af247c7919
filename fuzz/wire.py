"""Target: messages in fragments to frames to handshake bodies. Only frames and `RemoteProtocolError` may come out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import atheris

from fuzz.harness import pieces, run, unhex, vectors

with atheris.instrument_imports(include=["relay.wire", "relay.mux.reading"]):
    from relay.wire import frames, hello
    from relay.wire.errors import RemoteProtocolError
    from relay.wire.messages import Assembler
    from tests.support.framing import decode as frames_of

BODIES: dict[int, Any] = {
    frames.HELLO: (hello.decode_hello, hello.encode_hello),
    frames.WELCOME: (hello.decode_welcome, hello.encode_welcome),
    frames.REFUSED: (hello.decode_refused, hello.encode_refused),
    frames.RENEW: (hello.decode_renew, hello.encode_renew),
    frames.RENEWED: (hello.decode_welcome, hello.encode_welcome),
}
Meaning = list[tuple[int, int, bytes]]


def understand(message: memoryview) -> tuple[Meaning, bool]:
    """(the frames, whether an error ended them), with every decoder applied that a session would apply."""
    found: Meaning = []
    try:
        for kind, stream, payload in frames_of(message):
            body = bytes(payload)
            found.append((kind, stream, body))
            assert frames.encode(kind, stream, body) in bytes(message)
            if kind in BODIES:
                decode, encode = BODIES[kind]
                said = decode(body)
                assert decode(encode(said)) == said
            elif kind == frames.CREDIT:
                assert frames.encode_credit(stream, frames.decode_credit(payload)).endswith(body)
            elif kind == frames.RESET:
                frames.encode_reset(stream, *reset_said(payload))
            elif kind == frames.GOING_AWAY:
                code, last, detail = frames.decode_going_away(payload)
                frames.encode_going_away(code, last, detail)
    except RemoteProtocolError as error:
        assert str(error)
        return found, True
    return found, False


def reset_said(payload: memoryview) -> tuple[int, str, bool]:
    code, delivered, detail = frames.decode_reset(payload)
    return code, detail, delivered


def check(data: bytes) -> None:
    """Whole and in fragments the message means the same."""
    whole, parts = pieces(data)
    expected = understand(memoryview(whole))
    assembler = Assembler()
    for number, part in enumerate(parts, 1):
        message = assembler.feed(memoryview(part), number == len(parts))
        assert (message is None) == (number < len(parts))
        if message is not None:
            assert understand(message) == expected
    assert not assembler.pending


def seeds() -> Iterator[bytes]:
    """Every vector of frames, and every body in its frame."""
    for kind in ("valid", "invalid"):
        for vector in vectors("frames")[kind]:
            yield b"\xff" + unhex(vector["message"])
    for message in vectors("example")["messages"]:
        yield b"\x10" + unhex(message["message"])
    types = {"hello": frames.HELLO, "welcome": frames.WELCOME, "refused": frames.REFUSED, "renew": frames.RENEW}
    for name, number in types.items():
        group = vectors("handshake")[name]
        for vector in group["valid"] + group["invalid"]:
            payload = unhex(vector["payload"])
            yield b"\xff" + frames.HEADER.pack(0, number << 24 | len(payload)) + payload


if __name__ == "__main__":
    run("wire", check, seeds())
