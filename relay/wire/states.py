"""A stream's life as one table: (state, signal) -> state. A step that is not in the table is illegal.

The table is symmetric: what one side may send is what the other may receive. The diagram in docs/protocol.md and the
tests are derived from it. A HEAD counts as data here: it needs a direction that has not ended. That it comes before the
responder's first data is the exchange's rule, not the stream's. OPEN makes a stream; CREDIT moves none.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class State(IntEnum):
    """Where a stream stands, seen from this side. Half-closed states are named by who has ended."""

    OPEN = 0
    LOCAL_ENDED = 1
    REMOTE_ENDED = 2
    CLOSED = 3


class Signal(IntEnum):
    """What happens to a stream: a frame sent or received, without what it carries."""

    SEND_DATA = 0
    SEND_END = 1
    SEND_RESET = 2
    RECV_DATA = 3
    RECV_END = 4
    RECV_RESET = 5


TRANSITIONS: Final[dict[State, dict[Signal, State]]] = {
    State.OPEN: {
        Signal.SEND_DATA: State.OPEN,
        Signal.RECV_DATA: State.OPEN,
        Signal.SEND_END: State.LOCAL_ENDED,
        Signal.RECV_END: State.REMOTE_ENDED,
        Signal.SEND_RESET: State.CLOSED,
        Signal.RECV_RESET: State.CLOSED,
    },
    State.LOCAL_ENDED: {
        Signal.RECV_DATA: State.LOCAL_ENDED,
        Signal.RECV_END: State.CLOSED,
        Signal.SEND_RESET: State.CLOSED,
        Signal.RECV_RESET: State.CLOSED,
    },
    State.REMOTE_ENDED: {
        Signal.SEND_DATA: State.REMOTE_ENDED,
        Signal.SEND_END: State.CLOSED,
        Signal.SEND_RESET: State.CLOSED,
        Signal.RECV_RESET: State.CLOSED,
    },
    State.CLOSED: {},
}
