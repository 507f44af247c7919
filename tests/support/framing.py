"""Frames out of a carrier message, for tests that stand on the other side of a session; read as a session does it."""

from __future__ import annotations

from collections.abc import Iterator

from relay.mux.reading import FrameReader
from relay.wire.errors import RemoteProtocolError

Frame = tuple[int, int, memoryview]


class _Frames(FrameReader):
    """A session without streams: every frame is strange to it, and kept."""

    def __init__(self) -> None:
        self.streams = {}
        self.receivers = {}
        self.ended = False
        self.found: list[Frame] = []

    def on_strange(self, kind: int, number: int, payload: memoryview) -> None:
        self.found.append((kind, number, payload))

    def on_empty(self) -> None:
        """An extension was passed over."""


def decode(message: memoryview) -> Iterator[Frame]:
    """(type, stream, payload) of each, in order. Raises `RemoteProtocolError` behind the frames before the bad one."""
    reader, failed = _Frames(), None
    try:
        reader.read(message, len(message))
    except RemoteProtocolError as error:
        failed = error
    yield from reader.found
    if failed is not None:
        raise failed
