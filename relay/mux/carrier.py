"""What the mux asks of a transport: five methods down, four events up. Whole messages, in order, or the end."""

from __future__ import annotations

from typing import Final, Protocol

from relay.wire.errors import AwayCode

ROOM: Final = 14
"""A message to be sent begins with this many bytes of room, in which a carrier may write its own header."""

_CLOSE_CODES: Final = {AwayCode.PROTOCOL_ERROR: 1002, AwayCode.SHUTDOWN: 1001, AwayCode.OVERLOADED: 1013}
_POLICY_VIOLATION: Final = 1008


def close_code(code: AwayCode) -> int:
    """The close code of a WebSocket that is ended for this reason."""
    return _CLOSE_CODES.get(code, _POLICY_VIOLATION)


class Carrier(Protocol):
    """One transport between an agent and a relay."""

    def send(self, message: bytearray) -> bool:
        """Sends one message, which begins behind `ROOM` bytes and is the carrier's from here on.

        False: the transport is full; wait for `on_writable` before sending data again.
        """

    def close(self, code: int, reason: str) -> None:
        """Ends the transport after what was sent; `code` is a WebSocket close code. `on_lost` follows."""

    def pause(self) -> None:
        """Reads no more for now; messages that were read already may still come."""

    def resume(self) -> None:
        """Reads again."""

    def abort(self) -> None:
        """Ends the transport at once, dropping what was not sent. `on_lost` follows."""


class CarrierEvents(Protocol):
    """What a carrier tells its owner."""

    def on_message(self, message: memoryview) -> None:
        """One whole message; valid only during the call."""

    def on_noise(self) -> None:
        """Something came that is no message, or an empty one."""

    def on_writable(self) -> None:
        """The transport has room again after `send` returned False."""

    def on_lost(self, reason: str) -> None:
        """The transport has ended; the last event. `reason` is for people."""
