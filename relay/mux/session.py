"""A session: the mux over one carrier. Frames go to streams by callback; what one turn of the loop queued is sent.

Decides which frame is legal now and what an illegal one costs (the session). Knows no HTTP, no keys and no names: the
handshake's frames are handed to the owner as they are.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from relay.mux.carrier import Carrier, close_code
from relay.mux.crowding import Crowding
from relay.mux.errors import SessionBusy, SessionGone
from relay.mux.events import SessionEvents
from relay.mux.heartbeat import Heartbeat
from relay.mux.inbox import OF_CARRIER, SMALL, Inbox, Noise, causes
from relay.mux.keepalive import Keepalive
from relay.mux.outbox import CONTROL_BUSY, CONTROL_MOST, EARLY, Outbox, Queued, split
from relay.mux.reading import FrameReader
from relay.mux.receivers import ACCEPTOR, OPENER
from relay.mux.stream import Stream
from relay.mux.streamevents import StreamEvents
from relay.wire import frames
from relay.wire.errors import AwayCode, LocalProtocolError, RemoteProtocolError, ResetCode
from relay.wire.frames import HEADER, HEADER_SIZE, U64, encode, encode_credit, encode_going_away, encode_reset
from relay.wire.states import State
from relay.wire.window import SessionWindow

_pack: Final = HEADER.pack
_LOCAL_ENDED: Final[State] = State.LOCAL_ENDED
_REMOTE_ENDED: Final[State] = State.REMOTE_ENDED
_HANDSHAKE: Final = frozenset((frames.HELLO, frames.WELCOME, frames.REFUSED, frames.RENEW, frames.RENEWED))
_ANY_TIME: Final = frozenset((frames.PING, frames.PONG, frames.GOING_AWAY))
_OPEN: Final = frozenset((frames.OPEN, frames.OPEN_END))
_DATA: Final = frozenset((frames.DATA, frames.DATA_END))
_LAST: Final = frames.MAX_STREAM_ID - 2


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session behaves. `opener`: this side opens streams (the relay), the other accepts them (an agent)."""

    opener: bool
    max_streams: int = 4096
    session_window: int = frames.MAX_SESSION_WINDOW
    stream_window: int = 48 * 1024 * 1024
    ping_interval: float = 5.0


class Session(FrameReader):
    """One side of a session. Every method is called on the event loop's thread."""

    def __init__(self, carrier: Carrier, owner: SessionEvents, options: SessionOptions) -> None:
        self.carrier = carrier
        self.owner = owner
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.streams = {}
        self.outbox = Outbox()
        self._inbox = Inbox(carrier, self.loop.call_soon, self.on_message)
        self._noise = Noise(self.now, self._causes)
        self._crowding = Crowding(self)
        self.window = SessionWindow(frames.SESSION_WINDOW, options.session_window)
        self.keepalive = Keepalive(options.ping_interval)
        self._heartbeat = Heartbeat(self.keepalive, self.send, lambda: self.abort("the other side does not answer"))
        self.established = self.ended = False
        self.writable = True
        self.leaving = False
        """Whether no new streams may be opened: the peer said so, no number is left, or the session has ended."""
        self.closed_with: AwayCode | None = None  # by this side
        self.receivers = OPENER if options.opener else ACCEPTOR
        self._last_id = -1
        self._scheduled = self._flushing = False
        self._reason = ""

    # ---- life

    def establish(self) -> None:
        """The handshake is done: streams are legal from here, and pings start."""
        self.established = True
        self._heartbeat.start()

    def open(self, payload: bytes, ended: bool, owner: StreamEvents) -> Stream:
        """Opens a stream with an encoded request head. Raises `SessionGone`, `SessionBusy`."""
        if self.leaving or not self.established:
            raise SessionGone(self._reason or "the session is going away")
        streams, options = self.streams, self.options
        if len(streams) >= options.max_streams or self.outbox.size > CONTROL_BUSY:
            raise SessionBusy(f"{len(streams)} streams are open")
        number = self._last_id = self._last_id + 2
        stream = streams[number] = Stream(self, number, options.stream_window)
        stream.owner = owner
        if ended:
            stream.state = _LOCAL_ENDED
        self.send_block(frames.OPEN_END if ended else frames.OPEN, number, payload)
        if number >= _LAST:
            self.leaving = True
            self.go_away(AwayCode.SHUTDOWN, "all stream numbers are used up")
        return stream

    def go_away(self, code: AwayCode, detail: str) -> None:
        """Tells the peer that this side will end the session. Until then it may still open streams itself."""
        if not self.ended:
            self.send(encode_going_away(code, max(self._last_id, 0), detail))

    def close(self, code: AwayCode, detail: str) -> None:
        """Ends the session with a named reason: the peer is told, every stream's owner sees a reset."""
        if self.ended:
            return
        self.closed_with = code
        self.go_away(code, detail)
        self._flush()
        self._end(detail)
        self.carrier.close(close_code(code), detail[:100])

    def abort(self, reason: str) -> None:
        """Ends the session at once, without a word to the peer."""
        if not self.ended:
            self._end(reason)
            self.carrier.abort()

    def now(self) -> float:
        """Loop time, in seconds."""
        return self.loop.time()

    def load(self) -> int:
        """Bytes under way, as far as this side knows: queued or moved. Grows for ever; compare differences."""
        return self.outbox.moved + self.window.received

    # ---- sending

    def send(self, frame: bytes) -> None:
        """Queues a frame for the message of this turn."""
        if not self.ended:
            outbox = self.outbox
            outbox.control.append(frame)
            outbox.size += len(frame)
            self._queued()

    def send_block(self, kind: int, number: int, payload: bytes) -> None:
        """See `StreamHost.send_block`."""
        length = len(payload)
        if length > frames.MAX_HEAD:
            raise LocalProtocolError(f"a head of {length} bytes, allowed are at most {frames.MAX_HEAD}")
        if not self.ended:
            outbox = self.outbox
            outbox.control += (_pack(number, kind << 24 | length), payload)
            size = outbox.size = outbox.size + HEADER_SIZE + length
            if not self._scheduled or size >= EARLY:
                self._queued()

    def _queued(self) -> None:
        if self.outbox.size > CONTROL_MOST:
            self.abort("the peer reads nothing and too much waits for it")
        else:
            self.schedule()

    def schedule(self) -> None:
        """Sends at the end of this turn of the loop; what many streams sent in it goes before that, so that the other
        side need not wait for the last of them.
        """
        if self.ended:
            return
        if self.outbox.size >= EARLY and self.writable and not self._flushing:
            self._flush()
        elif not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._flush_turn)

    def send_large(self) -> None:
        """See `StreamHost.send_large`."""
        if self.writable and not self._flushing and len(self.outbox.ready) == 1:
            self._flush()
        else:
            self.schedule()

    def _flush_turn(self) -> None:
        self._scheduled = False
        self._flush()

    def _flush(self) -> None:
        served: list[Queued] = []
        outbox = self.outbox
        self._flushing = True
        try:
            while (outbox.size or outbox.ready) and self.writable and not self.ended:
                message = outbox.next_message(served)
                if message is None:
                    break
                if len(message) <= frames.MAX_MESSAGE:
                    self.writable = self.carrier.send(message)
                else:
                    for part in split(message):
                        self.writable = self.carrier.send(part)
                if served:
                    for stream in served:
                        try:
                            stream.on_sent()
                        except Exception as error:
                            self.on_defect(stream, error)
                    served.clear()
        finally:
            self._flushing = False

    # ---- events of the carrier

    def on_writable(self) -> None:
        """See `CarrierEvents.on_writable`."""
        self.writable = True
        self._flush()

    def on_lost(self, reason: str) -> None:
        """See `CarrierEvents.on_lost`."""
        self._inbox.when_read(lambda: self._end(reason))

    def on_message(self, message: memoryview) -> None:
        """See `CarrierEvents.on_message`."""
        if self.ended:
            return
        inbox, size = self._inbox, message.nbytes
        if inbox.holding or size > SMALL:
            first = inbox.first(message)
            if first is None:
                return
            message, size = first, first.nbytes
        try:
            inbox.left -= self.read(message, size)
            if self.ended:
                return
            if inbox.left <= 0:
                inbox.hold()
            window = self.window
            if window.granted - window.received <= window.size * 7 // 8:
                self.grant()
        except RemoteProtocolError as error:
            self.close(AwayCode.PROTOCOL_ERROR, str(error))

    def grant(self) -> None:
        """Gives the peer credit on the session where that is worth a frame."""
        now = self.now()
        increment = self.window.grant(self.window.received, now, self.keepalive.trips)
        if increment:
            self.send(encode_credit(0, increment))
            if self.keepalive.wants_ping(now):
                self._heartbeat.ping()
        elif self.options.opener:
            self._crowding.notice()

    def on_noise(self) -> None:
        """See `CarrierEvents.on_noise`."""
        try:
            self._noise.heard(OF_CARRIER)
        except RemoteProtocolError as error:
            self.close(AwayCode.PROTOCOL_ERROR, str(error))

    def on_empty(self) -> None:
        """See `StreamHost.on_empty`."""
        self._noise.heard()

    def _causes(self) -> int:
        """The frames that carry nothing which the peer was given cause for, so far."""
        return causes((self._last_id + 1) // 2, self.outbox.moved + self.window.received)

    # ---- frames

    def on_strange(self, kind: int, number: int, payload: memoryview) -> None:
        """A frame for no open stream: the session's own, a new one, a late one (its data still counts), or an error."""
        if not number:
            self._on_session_frame(kind, payload)
            return
        if kind in _OPEN:
            self._on_open(number, bytes(payload), kind == frames.OPEN_END)
        elif not number & 1 or number > self._last_id:
            raise RemoteProtocolError(f"{frames.NAMES[kind]} on stream {number}, which was never opened")
        self.on_empty()
        if kind in _DATA:
            self.window.on_received(len(payload))
            self.window.consumed += len(payload)

    def _on_open(self, number: int, payload: bytes, ended: bool) -> None:
        if self.options.opener or not number & 1 or number <= self._last_id:
            raise RemoteProtocolError(f"OPEN of stream {number}")
        if not self.established:
            raise RemoteProtocolError("OPEN before the handshake is done")
        self._last_id = number
        if len(self.streams) >= self.options.max_streams:
            self.send(encode_reset(number, ResetCode.TOO_MANY_STREAMS))
            return
        stream = Stream(self, number, self.options.stream_window)
        self.streams[number] = stream
        if ended:
            stream.state = _REMOTE_ENDED
        try:
            stream.owner = self.owner.on_open(stream, payload, ended)
        except Exception as error:
            self.on_defect(stream, error)

    def _on_session_frame(self, kind: int, payload: memoryview) -> None:
        if kind not in _HANDSHAKE and not self.established and kind not in _ANY_TIME:
            raise RemoteProtocolError(f"{frames.NAMES[kind]} before the handshake is done")
        self._noise.heard()
        if kind == frames.PING:
            self.send(encode(frames.PONG, 0, bytes(payload)))
        elif kind == frames.PONG:
            self._heartbeat.on_pong(U64.unpack(payload)[0])
        elif kind == frames.CREDIT:
            self.outbox.credit += frames.decode_credit(payload)
            if self.outbox.credit > frames.MAX_CREDIT:
                raise RemoteProtocolError("more credit than 2^31-1 bytes on the session")
            self.schedule()
        elif kind == frames.GOING_AWAY:
            code, _, detail = frames.decode_going_away(payload)
            self.leaving = True
            self._reason = detail
            self.owner.on_going_away(code, detail)
        elif kind in _HANDSHAKE:
            self.owner.on_handshake(kind, bytes(payload))

    # ---- alive or dead

    async def probe(self, within: float) -> bool:
        """Pings now; whether an answer came within so many seconds."""
        return not self.ended and await self._heartbeat.probe(within) and not self.ended

    # ---- the end

    def _end(self, reason: str) -> None:
        if self.ended:
            return
        self.ended = self.leaving = True
        self._reason = self._reason or reason
        self._heartbeat.stop()
        for stream in list(self.streams.values()):
            try:
                stream.cut(-1, True, self._reason)
            except Exception as error:  # the others must be told all the same
                self.loop.call_exception_handler({"message": "an exchange failed", "exception": error})
        self.streams.clear()
        self._inbox.close()
        # At once, and not when the transport has ended as well: until then nobody must be sent here.
        self.owner.on_lost(self._reason)
