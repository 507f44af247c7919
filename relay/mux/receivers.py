"""What becomes of a frame on an open stream, by its type: two tables, one for each side of a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from relay.mux.stream import Stream
from relay.wire import frames
from relay.wire.errors import RemoteProtocolError

Receiver = tuple[range, Callable[[Stream, memoryview], None]]
"""The lengths that the payload may have, in bytes, and what is done with it."""


def _refuse_head(stream: Stream, payload: memoryview) -> None:
    raise RemoteProtocolError("HEAD from the side that opens streams")


def _refuse_open(stream: Stream, payload: memoryview) -> None:
    raise RemoteProtocolError(f"OPEN on stream {stream.id}, which is open")


def _table(receivers: dict[int, Callable[[Stream, memoryview], None]]) -> dict[int, Receiver]:
    return {kind: (frames.lengths(kind), receive) for kind, receive in receivers.items()}


ACCEPTOR: Final = _table(
    {
        frames.OPEN: _refuse_open,
        frames.OPEN_END: _refuse_open,
        frames.DATA: Stream.receive_data,
        frames.DATA_END: Stream.receive_last,
        frames.END: Stream.receive_end,
        frames.RESET: Stream.receive_reset,
        frames.CREDIT: Stream.receive_credit,
        frames.HEAD: _refuse_head,
        frames.HEAD_END: _refuse_head,
    }
)
"""Of the side that accepts streams."""
OPENER: Final = ACCEPTOR | _table(
    {
        frames.DATA_END: Stream.receive_only,
        frames.HEAD: Stream.receive_head,
        frames.HEAD_END: Stream.receive_only_head,
    }
)
"""Of the side that opens them."""
