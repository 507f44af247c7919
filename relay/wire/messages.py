"""Fragments of a carrier message back into one message, bounded. No I/O.

A carrier such as WebSocket may cut a message into fragments; frames are read from whole messages only.
"""

from __future__ import annotations

from relay.wire.errors import RemoteProtocolError
from relay.wire.frames import MAX_MESSAGE


class Assembler:
    """Joins fragments; holds at most `MAX_MESSAGE` bytes."""

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def pending(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._parts)

    def feed(self, fragment: memoryview, last: bool) -> memoryview | None:
        """The whole message when `last`, else None. Raises `RemoteProtocolError` when it grows past the bound."""
        self._size += len(fragment)
        if self._size > MAX_MESSAGE:
            raise RemoteProtocolError(f"message above {MAX_MESSAGE} bytes")
        if last and not self._parts:
            self._size = 0
            return fragment
        self._parts.append(bytes(fragment))
        if len(self._parts) > 4096:
            self._parts = [b"".join(self._parts)]
        if not last:
            return None
        message = memoryview(b"".join(self._parts))
        self._parts = []
        self._size = 0
        return message
