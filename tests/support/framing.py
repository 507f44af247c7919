"""Frames out of a carrier message, for tests that stand on the other side of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from relay.wire import frames
from relay.wire.errors import RemoteProtocolError

Frame = tuple[int, int, memoryview]


def decode(message: memoryview, on_skipped: Callable[[], None] | None = None) -> Iterator[Frame]:
    """(type, stream, payload) of each, in order. Raises `RemoteProtocolError` as a session's reader does; frames before
    the bad one were yielded.
    """
    if len(message) > frames.MAX_MESSAGE:
        raise RemoteProtocolError(f"message of {len(message)} bytes, allowed are {frames.MAX_MESSAGE}")
    position = 0
    while position < len(message):
        body = position + frames.HEADER_SIZE
        if body > len(message):
            raise RemoteProtocolError("message ends inside a frame header")
        stream, word = frames.HEADER.unpack_from(message, position)
        kind, length = word >> 24, word & 0xFFFFFF
        position = body + length
        if position > len(message):
            raise RemoteProtocolError("message ends inside a frame")
        if frames.check(kind, stream, length):
            yield kind, stream, message[body:position]
        elif on_skipped is not None:
            on_skipped()
