"""How a session behaves: which side it is, and its bounds."""

from __future__ import annotations

from dataclasses import dataclass

from relay.wire.frames import MAX_SESSION_WINDOW

STREAM_WINDOW_MOST = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session behaves. `opener`: this side opens streams (the relay), the other accepts them (an agent)."""

    opener: bool
    max_streams: int = 4096
    session_window: int = MAX_SESSION_WINDOW
    stream_window: int = STREAM_WINDOW_MOST
    ping_interval: float = 5.0
