"""The two sockets of one proxied connection: what is read from one goes down a line and out of the other.

This room knows ends: half-close, reset, a cut of both sides, a socket that vanished, and that a cut is not told on.
When bytes leave and in what state is `delayline`'s, which connections there are `faults`'.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

from tests.support.delayline import Line, Path, Payload, Swallow
from tests.support.faultcontrols import How

HIGH_WATER = 1024 * 1024
FLUSH_POLL = 0.001
FLUSH_DEADLINE = 1.0
LINGER_ZERO = struct.pack("ii", 1, 0)
# All sides of a process read into the same 256 KiB: an event loop copies out of it before it reads again.
SCRATCH = memoryview(bytearray(256 * 1024))


class Side(asyncio.BufferedProtocol):
    """One socket of a pair: the inlet of one line and the outlet of the other."""

    def __init__(self, pair: Pair) -> None:
        self.ready = False
        self.lost = False
        self.outgoing: Line  # what is read here goes into this line
        self.incoming: Line  # and this one writes here
        self._pair = pair
        self._transport: asyncio.Transport | None = None
        self._held = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        transport.set_write_buffer_limits(high=HIGH_WATER)
        if self._held:
            transport.pause_reading()
        self.ready = True
        if self._pair.is_cut:
            self.reset()
        self.incoming.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return SCRATCH

    def buffer_updated(self, nbytes: int) -> None:
        self.outgoing.feed(bytes(SCRATCH[:nbytes]))

    def eof_received(self) -> bool:
        self.outgoing.feed_end("fin")
        return not self._pair.is_cut

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.ready = False
        self._pair.side_lost(self)

    def pause_writing(self) -> None:
        self.ready = False

    def resume_writing(self) -> None:
        self.ready = True
        self.incoming.flush()

    def hold(self) -> None:
        self._held = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def release(self) -> None:
        self._held = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: Payload) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def end(self, how: How) -> None:
        if how == "rst":
            self.reset_when_flushed()
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()
            self._pair.side_ended()

    def cut(self, how: How) -> None:
        self._pair.cut(how, flushed=True)

    def reset_when_flushed(self) -> None:
        """Reset once the bytes written before were handed to the kernel, or after a second."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + FLUSH_DEADLINE

        def poll() -> None:
            transport = self._transport
            if transport is not None and transport.get_write_buffer_size() and loop.time() < deadline:
                loop.call_later(FLUSH_POLL, poll)
            else:
                self.reset()

        poll()

    def reset(self) -> None:
        """Close with a TCP reset, dropping what was not sent."""
        if self._transport is not None and not self.lost:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            self._transport.abort()

    def close(self) -> None:
        """Close after what was written."""
        if self._transport is not None:
            self._transport.close()


class Pair:
    """The two sockets of one proxied connection and the two lines between them."""

    def __init__(self, up: Path, down: Path, seed: str, gone: Callable[[], None]) -> None:
        """`gone` is called once both sockets are."""
        self.is_cut = False
        self._gone = gone
        self.client = Side(self)
        self.upstream = Side(self)
        self.up = Line(up, self.client, self.upstream, f"{seed}/up")
        self.down = Line(down, self.upstream, self.client, f"{seed}/down")
        self.client.outgoing = self.upstream.incoming = self.up
        self.client.incoming = self.upstream.outgoing = self.down

    def side_lost(self, side: Side) -> None:
        """A socket is gone: unless we closed it, the other side learns by a reset, in its turn."""
        if not self.is_cut and not (self.up.finished and self.down.finished):
            side.outgoing.feed_end("rst")
        if self.client.lost and self.upstream.lost:
            self.forget()

    def side_ended(self) -> None:
        """Both directions half-closed: nothing is left to carry."""
        if self.up.finished and self.down.finished:
            self.client.close()
            self.upstream.close()

    def cut(self, how: How, *, flushed: bool = False) -> None:
        """End both sides: with resets, or with a FIN each while what still comes is read and forgotten."""
        if self.is_cut:
            return
        self.is_cut = True
        for line in (self.up, self.down):
            line.swallow("drop")
        for side in (self.client, self.upstream):
            if how == "fin":
                side.end("fin")
            elif flushed:
                side.reset_when_flushed()
            else:
                side.reset()

    def swallow(self, direction: str, mode: Swallow) -> None:
        """Set how each direction swallows."""
        self.up.swallow(mode if direction in ("up", "both") else "no")
        self.down.swallow(mode if direction in ("down", "both") else "no")

    def forget(self) -> None:
        """Stop timers and tell that the pair is gone."""
        self.up.clear()
        self.down.clear()
        self._gone()


def reset_socket(taken: socket.socket) -> None:
    """Close a bare socket with a TCP reset."""
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    taken.close()
