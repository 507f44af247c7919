"""What the mux asks of a transport: three methods down, three events up. Whole messages, in order, or the end."""

from __future__ import annotations

from typing import Protocol

ROOM = 14
"""A message to be sent begins with this many bytes of room, in which a carrier may write its own header."""


class Carrier(Protocol):
    """One transport between an agent and a relay."""

    def send(self, message: bytearray) -> bool:
        """Sends one message, which begins behind `ROOM` bytes and is the carrier's from here on.

        False: the transport is full; wait for `on_writable` before sending data again.
        """

    def close(self, code: int, reason: str) -> None:
        """Ends the transport after what was sent; `code` is a WebSocket close code. `on_lost` follows."""

    def abort(self) -> None:
        """Ends the transport at once, dropping what was not sent. `on_lost` follows."""


class CarrierEvents(Protocol):
    """What a carrier tells its owner."""

    def on_message(self, message: memoryview) -> None:
        """One whole message; valid only during the call."""

    def on_writable(self) -> None:
        """The transport has room again after `send` returned False."""

    def on_lost(self, reason: str) -> None:
        """The transport has ended; the last event. `reason` is for people."""
