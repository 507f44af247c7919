"""Target: chunked bodies and trailers. Any chunking gives the same, and nothing but `MalformedBody` comes out."""

from __future__ import annotations

from collections.abc import Iterator

import atheris

from fuzz.harness import pieces, run

with atheris.instrument_imports(include=["relay.exchange"]):
    from relay.exchange import framing
    from relay.exchange.errors import MalformedBody
    from relay.exchange.heads import Fields, decode_fields, encode_fields

Outcome = tuple[bytes, bytes, bool, Fields] | None


def read(parts: list[bytes]) -> Outcome:
    """(body, what is behind it, done, trailers); None: malformed."""
    decoder = framing.ChunkedBody()
    body, rest = [], b""
    try:
        for part in parts:
            if decoder.done:
                rest += part
                continue
            found, rest = decoder.feed(part)
            assert all(found)
            assert decoder.done or not rest
            body += found
    except MalformedBody as error:
        assert str(error)
        return None
    return b"".join(body), rest, decoder.done, decoder.trailers


def check(data: bytes) -> None:
    """Whole and in pieces the same; what is complete can be written anew and read again."""
    whole, parts = pieces(data)
    outcome = read([whole])
    assert read(parts) == outcome
    if outcome is None or not outcome[2]:
        return
    body, _, _, trailers = outcome
    assert decode_fields(encode_fields(trailers), 0) == trailers
    again = (framing.encode_chunk(body) if body else b"") + framing.encode_last_chunk(trailers)
    assert read([again]) == (body, b"", True, trailers)


def seeds() -> Iterator[bytes]:
    """Bodies in the spellings that the RFC allows, and some that it does not."""
    for body in (
        b"0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;a=b\r\nhello\r\n00000A ;x\r\n0123456789\r\n000\r\n\r\nrest",
        b'1;q="\xe4"\r\nx\r\n0\r\nX-Sum: 1\r\nempty:\r\nx-sum:\t2 \r\n\r\n',
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"0\r\na: b\r\n folded\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"5\r\nhello\r0\r\n\r\n",
    ):
        yield b"\xff" + body
        yield b"\x01" + body


if __name__ == "__main__":
    run("framing", check, seeds())
