"""What a stream tells its owner. What a session tells its own stands in `events`."""

from __future__ import annotations

from typing import Protocol


class StreamEvents(Protocol):
    """What a stream tells its owner. After `on_end` of both sides, `on_reset` or `reset()`, nothing more comes."""

    def on_head(self, payload: bytes) -> None:
        """A response head arrived (opener's side only)."""

    def on_lull(self) -> None:
        """Nothing of this stream followed its head at once (opener's side only)."""

    def on_data(self, data: memoryview) -> bool:
        """Bytes arrived; valid only during the call. True: all of them are consumed. Else answer with
        `stream.consumed(n)`, now or later.
        """

    def on_last(self, data: memoryview) -> None:
        """All that the peer sends after its head arrived at once, and the stream has ended (opener's side only)."""

    def on_end(self, trailers: bytes) -> None:
        """The peer sends no more; `trailers` is b"" without."""

    def on_reset(self, code: int, delivered: bool, detail: str) -> None:
        """The stream was cut, by the peer or because its session ended (then `code` is -1)."""

    def on_writable(self) -> None:
        """There is room again after `write` returned False."""
