"""An event store in memory, so that a sample MCP server's streams can be resumed by `Last-Event-ID`.

One list for the process: a stream's events are those with its identifier that came after the one the client names.
Event identifiers count up, sessions come one after another, and so an older session's events are never replayed.
"""

from __future__ import annotations

from typing import Any

from mcp.server.streamable_http import EventMessage, EventStore


class MemoryEventStore(EventStore):
    """Keeps every event of every stream."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        """Keep one message (None for the first event of a stream, which carries only an identifier)."""
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        """Send what came on the same stream after that event; returns the stream, or None if it is unknown."""
        last = int(last_event_id)
        if not 1 <= last <= len(self._events):
            return None
        stream = self._events[last - 1][0]
        for number, (name, message) in enumerate(self._events[last:], start=last + 1):
            if name == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream
