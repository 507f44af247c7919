"""The three ends of a tunnel in memory: a visitor's transport, the carrier between the sides, the local service.

They do what a transport must and nothing more, at once or in the next turn of the loop; what they do is not counted.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

from relay.mux.carrier import ROOM, CarrierEvents

Respond = Callable[["FakeTransport"], None]


class FakeTransport(asyncio.Transport):
    """The transport that a protocol is given; `written` is what it wrote, `tell` is called after each write."""

    def __init__(self, context: contextvars.Context, tell: Respond | None = None) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.context = context
        self.protocol: Any = None
        self.written = bytearray()
        self.total = 0
        self.keep = True
        """Whether written bytes are kept, or only counted."""
        self.paused = False
        self.closing = False
        self._tell = tell

    def attach(self, protocol: asyncio.BaseProtocol) -> None:
        """The protocol sees its connection made."""
        self.protocol = protocol
        self.context.run(protocol.connection_made, self)

    def feed(self, data: bytes) -> None:
        """Bytes come in from the far side, as a real loop hands them over."""
        if not isinstance(self.protocol, asyncio.BufferedProtocol):
            self.context.run(self.protocol.data_received, data)
            return
        while data:
            self.context.run(self._feed_some, data)
            data = data[self._took :]

    def _feed_some(self, data: bytes) -> None:
        buffer = memoryview(self.protocol.get_buffer(-1))
        self._took = min(len(buffer), len(data))
        buffer[: self._took] = data[: self._took]
        self.protocol.buffer_updated(self._took)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See `asyncio.WriteTransport`."""
        self.total += len(data)
        if self.keep:
            self.written += data
        if self._tell is not None:
            self._tell(self)

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport`."""
        return self.closing

    def close(self) -> None:
        """See `asyncio.BaseTransport`."""
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None, context=self.context)

    def abort(self) -> None:
        """See `asyncio.WriteTransport`."""
        self.close()

    def pause_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self.paused = True

    def resume_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self.paused = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See `asyncio.WriteTransport`."""

    def get_write_buffer_size(self) -> int:
        """See `asyncio.WriteTransport`."""
        return 0

    def can_write_eof(self) -> bool:
        """See `asyncio.WriteTransport`."""
        return True

    def write_eof(self) -> None:
        """See `asyncio.WriteTransport`."""


class FakeCarrier:
    """One end of a carrier: a message arrives at the other end in the next turn, in the context of that side."""

    def __init__(self, context: contextvars.Context) -> None:
        self.context = context
        self.owner: CarrierEvents | None = None
        self.far: FakeCarrier | None = None
        self.messages = 0

    def send(self, message: bytearray) -> bool:
        """See `Carrier.send`."""
        self.messages += 1
        far = self.far
        if far is not None:
            asyncio.get_running_loop().call_soon(far.deliver, memoryview(message)[ROOM:], context=far.context)
        return True

    def deliver(self, payload: memoryview) -> None:
        """A message came in."""
        if self.owner is not None:
            self.owner.on_message(payload)

    def pause(self) -> None:
        """See `Carrier.pause`."""

    def resume(self) -> None:
        """See `Carrier.resume`."""

    def close(self, code: int, reason: str) -> None:
        """See `Carrier.close`."""
        for end in (self, self.far):
            if end is not None and end.owner is not None:
                owner, end.owner = end.owner, None
                asyncio.get_running_loop().call_soon(owner.on_lost, reason, context=end.context)

    def abort(self) -> None:
        """See `Carrier.abort`."""
        self.close(1006, "aborted")
