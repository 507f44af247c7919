"""The WebSocket carrier, on picows: binary messages both ways. The only room that knows a frame of WebSocket.

Strict where docs/protocol.md is: text, reserved bits and oversized messages end the connection. Bytes are not
piled up in the transport: it reports full as soon as the kernel does not take all (and the kernel keeps little
unsent, by TCP_NOTSENT_LOWAT), so that the mux decides what leaves next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from relay.mux.carrier import ROOM, CarrierEvents
from relay.mux.pausing import never_read_ahead
from relay.mux.tcp import is_tls, keep_little_unsent, unconfirmed
from relay.wire.errors import RemoteProtocolError
from relay.wire.messages import Assembler

# Bytes that the kernel may hold unsent before it reports the socket full.
NOT_SENT_MOST = 128 * 1024
# A close handshake that takes longer than this is cut.
CLOSE_WITHIN = 2.0
LINGER_STEP = 0.02
"""Seconds between two looks whether all has arrived."""
# A fragment smaller than this brings little more than its header.
LEAST_FRAGMENT = 1024
# Bytes of reason in a close frame; RFC 6455 §5.5 has room for 123.
MOST_REASON = 100

# Codes of an end that the peer has brought upon itself.
_BREACHES = (WSCloseCode.PROTOCOL_ERROR, WSCloseCode.UNSUPPORTED_DATA, WSCloseCode.MESSAGE_TOO_BIG)
_BINARY = WSMsgType.BINARY
_NORMAL = 1000


class WebSocketCarrier(WSListener):
    """One WebSocket connection. `owner` is asked for when the handshake is done."""

    lingers = False
    """Whether a peer that broke the protocol is given time to take the reason, before the transport ends."""

    def __init__(self, owner: Callable[[WebSocketCarrier], CarrierEvents]) -> None:
        self._make_owner = owner
        self._owner: CarrierEvents | None = None
        self._transport: WSTransport | None = None
        self._assembler = Assembler()
        self._full = False
        self._closing = False
        self._reason = ""
        self._timer: asyncio.Handle | None = None

    # ---- Carrier

    def send(self, message: bytearray) -> bool:
        """See `Carrier.send`."""
        if self._transport is not None and not self._closing:
            self._transport.send_reuse_external_bytearray(_BINARY, message, ROOM)
        return not self._full

    def close(self, code: int, reason: str) -> None:
        """See `Carrier.close`."""
        if self._transport is None or self._closing:
            return
        self._closing = True
        self._reason = self._reason or reason
        text = reason.encode("utf-8", "replace")[:MOST_REASON]
        # Not cut in the middle of a character: it must be UTF-8, and picows refuses it if it is not.
        self._transport.send_close(_close_code(code), text.decode("utf-8", "ignore").encode())
        if self.lingers and _close_code(code) in _BREACHES:
            self.pause()
            self._timer = asyncio.get_running_loop().call_soon(self._linger, CLOSE_WITHIN)
        else:
            self._linger(0)

    def abort(self) -> None:
        """See `Carrier.abort`."""
        self._closing = True
        if self._transport is not None:
            self._transport.disconnect(False)

    def pause(self) -> None:
        """See `Carrier.pause`."""
        if self._transport is not None and not self._transport.underlying_transport.is_closing():
            self._transport.underlying_transport.pause_reading()

    def resume(self) -> None:
        """See `Carrier.resume`."""
        if self._transport is not None and not self._transport.underlying_transport.is_closing():
            self._transport.underlying_transport.resume_reading()

    @property
    def peer(self) -> str:
        """The address at the other end of the transport."""
        if self._transport is None:
            return ""
        name = self._transport.underlying_transport.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) else ""

    # ---- WSListener

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self._transport = transport
        raw = transport.underlying_transport
        never_read_ahead(raw)
        # A transport over TLS is full from `high` bytes on, any other above it: with 0 the former would always be full.
        raw.set_write_buffer_limits(high=1 if is_tls(raw) else 0)
        keep_little_unsent(raw, NOT_SENT_MOST)
        # Forgotten then, as is the transport at the end: what a connection read into is let go with it, and not when
        # somebody looks for circles.
        make, self._make_owner = self._make_owner, _no_owner
        self._owner = make(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One WebSocket frame."""
        if self._closing or self._owner is None:
            return
        kind = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._refuse(WSCloseCode.PROTOCOL_ERROR, "reserved bits without an extension")
        elif kind == WSMsgType.BINARY or kind == WSMsgType.CONTINUATION:
            self._on_fragment(kind == WSMsgType.BINARY, frame)
        elif kind == WSMsgType.PING:
            # Not while the transport is full: answers must not pile up for a peer that reads nothing.
            if not self._full:
                transport.send_pong(frame.get_payload_as_bytes())
            self._owner.on_noise()
        elif kind == WSMsgType.PONG:
            self._owner.on_noise()
        elif kind == WSMsgType.CLOSE:
            reason = frame.get_close_message()
            self._reason = self._reason or (reason or b"").decode("utf-8", "replace") or "closed by the other side"
            self.close(_NORMAL, "")
        elif kind == WSMsgType.TEXT:
            self._refuse(WSCloseCode.UNSUPPORTED_DATA, "text message")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The transport has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._closing = True
        self._transport = None
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.on_lost(self._reason or "the connection broke")

    def pause_writing(self) -> None:
        """The transport took less than it was given."""
        self._full = True

    def resume_writing(self) -> None:
        """All of it has gone to the kernel."""
        self._full = False
        if self._owner is not None:
            self._owner.on_writable()

    def _linger(self, left: float) -> None:
        """Ends the transport once its peer has what was sent, or in `left` seconds.

        Of a peer that floods there are bytes that nobody reads: the end is a reset then, which destroys what is still
        on its way, such as the reason.
        """
        if self._transport is None:
            return
        loop = asyncio.get_running_loop()
        raw = self._transport.underlying_transport
        if left > 0 and (raw.get_write_buffer_size() or unconfirmed(raw)):
            self._timer = loop.call_later(LINGER_STEP, self._linger, left - LINGER_STEP)
        else:
            self._transport.disconnect()
            self._timer = loop.call_later(CLOSE_WITHIN, self.abort)

    def _on_fragment(self, first: bool, frame: WSFrame) -> None:
        if first == self._assembler.pending:
            self._refuse(WSCloseCode.PROTOCOL_ERROR, "fragments out of order")
            return
        assert self._owner is not None
        if first and frame.fin:
            whole = frame.get_payload_as_memoryview()
            if not whole:
                self._owner.on_noise()
            self._owner.on_message(whole)
            return
        fragment = frame.get_payload_as_memoryview()
        if len(fragment) < LEAST_FRAGMENT:
            self._owner.on_noise()
        try:
            message = self._assembler.feed(fragment, bool(frame.fin))
        except RemoteProtocolError as error:
            self._refuse(WSCloseCode.MESSAGE_TOO_BIG, str(error))
            return
        if message is not None:
            self._owner.on_message(message)

    def _refuse(self, code: WSCloseCode, reason: str) -> None:
        self._reason = reason
        self.close(int(code.value), reason)


def _no_owner(_: WebSocketCarrier) -> CarrierEvents:
    raise AssertionError("a connection is made once")


def _close_code(code: int) -> WSCloseCode:
    return WSCloseCode(code)
