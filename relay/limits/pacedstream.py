"""A stream under limits: it sits between an exchange and its stream, and is what each of them takes for the other.

It alone decides what of a limited exchange passes when: heads at once, bytes in order as the pacer lets them, an end
behind the bytes before it. A cut drops what waits, but an answer that had come whole is finished first. It counts for
its tunnel from the opening to its end, which comes once, whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from relay.exchange.outgoing import BODY_TOO_LARGE
from relay.limits.pacing import Lane, Pacer
from relay.limits.refusals import too_large
from relay.limits.ways import Way
from relay.mux.session import Session
from relay.mux.stream import Stream
from relay.mux.streamevents import StreamEvents
from relay.wire.errors import LocalProtocolError, ResetCode
from relay.wire.states import State

_CLOSED = State.CLOSED
_What = TypeVar("_What")


class Terms(Protocol):
    """What a stream asks of its tunnel's meter."""

    up: Way
    down: Way
    body: int | None
    """Bytes that a request may bring."""

    def on_opened(self, stream: PacedStream) -> None:
        """It counts from now on."""

    def on_over(self, stream: PacedStream) -> None:
        """It counts no longer."""


class PacedStream:
    """To the exchange a `Stream`, to the stream its owner (`StreamEvents`)."""

    __slots__ = (
        "_body", "_cut", "_dead", "_down", "_down_done", "_down_end", "_most", "_over", "_owner", "_pacer", "_stream",
        "_terms", "_up", "_up_done", "_up_end", "_waits",
    )  # fmt: skip

    def __init__(self, terms: Terms, pacer: Pacer, owner: StreamEvents, most: int | None) -> None:
        self._terms = terms
        self._pacer = pacer
        self._owner: StreamEvents | None = owner
        self._most = most
        """Bytes that the request may bring; None: any number."""
        self._body = 0
        self._stream: Stream
        self._up: Lane | None = None
        self._down: Lane | None = None
        self._up_end: bytes | None = None
        """Trailers of an end that waits in the lane; b"" without."""
        self._down_end: bytes | None = None
        self._up_done = False
        self._down_done = False
        self._waits = False
        """The owner was told to wait."""
        self._dead = False
        """The stream below has been cut."""
        self._cut: tuple[int, bool, str] | None = None
        """What the owner is told of that when the answer is finished."""
        self._over = False

    def open(self, session: Session, payload: bytes, ended: bool) -> None:
        """Opens the stream below; raises what `Session.open` does."""
        self._up_done = ended
        self._terms.on_opened(self)
        try:
            self._stream = session.open(payload, ended, self)
        except Exception:
            self._end_counting()
            raise

    # ---- the request, called by the exchange

    def write(self, data: bytes) -> bool:
        """See `Stream.write`."""
        if self._dead:
            return True  # the rest of the request goes nowhere
        size = len(data)
        if self._most is not None:
            self._body += size
            if self._body > self._most:
                self.cut(BODY_TOO_LARGE, too_large(self._most).sentence, ResetCode.BAD_BODY)
                return True
        lane = self._up
        if lane is None or not (lane.queued or lane.stalled):
            passed = self._pacer.grab(self._terms.up, size)
            if passed and not self._stream.write(data if passed == size else data[:passed]):
                lane = self._up_lane()
                lane.stalled = self._waits = True
            if passed == size:
                return not self._waits
            data = data[passed:]
        elif self._up_end is not None:
            raise LocalProtocolError("data behind the end of a request")
        if lane is None:
            lane = self._up_lane()
        self._pacer.add(lane, data)
        if lane.stalled or lane.queued > lane.way.low:
            self._waits = True
        return not self._waits

    def write_view(self, data: memoryview) -> bool:
        """See `Stream.write_view`."""
        return self.write(bytes(data))

    def end(self, trailers: bytes = b"") -> None:
        """See `Stream.end`."""
        if self._dead:
            return
        lane = self._up
        if lane is None or not lane.queued:
            self._end_up(trailers)
        elif self._up_end is None:
            self._up_end = trailers
        else:
            raise LocalProtocolError("a second end of a request")

    def reset(self, code: ResetCode, detail: str = "", delivered: bool = False) -> None:
        """See `Stream.reset`."""
        self._owner = None
        self._drop()
        self._stream.reset(code, detail, delivered)

    def consumed(self, amount: int) -> None:
        """See `Stream.consumed`."""
        self._stream.consumed(amount)

    # ---- called by the meter

    def cut(self, code: int, sentence: str, wire_code: ResetCode = ResetCode.CANCEL) -> None:
        """A limit ends it: the agent sees a reset, the exchange `on_reset` with this code and sentence."""
        if not self._dead:
            self._stream.reset(wire_code)
            self.on_reset(code, True, sentence)

    # ---- StreamEvents

    def on_head(self, payload: bytes) -> None:
        """See `StreamEvents.on_head`."""
        if self._owner is not None:
            self._guarded(self._owner.on_head, payload)

    def on_lull(self) -> None:
        """See `StreamEvents.on_lull`."""
        if self._owner is not None:
            self._guarded(_lull, self._owner)

    def on_data(self, data: memoryview) -> bool:
        """See `StreamEvents.on_data`."""
        lane = self._down
        size = len(data)
        if lane is None or not lane.queued:
            passed = self._pacer.grab(self._terms.down, size)
            if passed:
                self._guarded(self._pass_now, data[:passed])
            else:
                self.on_lull()  # a head must not wait for bytes that do
            if passed == size or self._owner is None:
                return False
            data = data[passed:]
            if lane is None:
                lane = self._down = _Down(self, self._terms.down)
        if size:
            self._pacer.add(lane, bytes(data))
        return False

    def on_last(self, data: memoryview) -> None:
        """See `StreamEvents.on_last`."""
        self.on_data(data)
        self.on_end(b"")

    def on_end(self, trailers: bytes) -> None:
        """See `StreamEvents.on_end`."""
        if self._down is not None and self._down.queued:
            self._down_end = trailers
        else:
            self._guarded(self._end_down, trailers)

    def on_reset(self, code: int, delivered: bool, detail: str) -> None:
        """See `StreamEvents.on_reset`."""
        self._dead = self._up_done = True
        if self._up is not None:
            self._pacer.drop(self._up)
        owner = self._owner
        if self._down_end is not None:
            self._cut = code, delivered, detail
            if owner is not None and self._waits:
                self._waits = False
                owner.on_writable()
            return
        self._owner = None
        self._drop()
        if owner is not None:
            owner.on_reset(code, delivered, detail)

    def on_writable(self) -> None:
        """See `StreamEvents.on_writable`."""
        lane = self._up
        if lane is not None and lane.stalled:
            self._guarded(self._pacer.resume, lane)

    # ---- called by the lanes

    def pass_up(self, data: bytes) -> bool:
        """Bytes of the request whose turn it is."""
        return self._dead or self._stream.write(data)

    def on_up_low(self, lane: Lane) -> None:
        """Little of the request waits any more."""
        if self._dead:
            return
        if self._up_end is None:
            if self._waits and self._owner is not None:
                self._waits = False
                self._owner.on_writable()
        elif not lane.queued:
            trailers, self._up_end = self._up_end, None
            self._end_up(trailers)

    def pass_down(self, data: bytes) -> None:
        """Bytes of the answer whose turn it is."""
        self._pass_now(memoryview(data))

    def _pass_now(self, data: memoryview) -> None:
        if self._owner is not None and self._owner.on_data(data):
            self._stream.consumed(len(data))

    def on_down_low(self, lane: Lane) -> None:
        """Little of the answer waits any more."""
        if self._down_end is None or lane.queued:
            return
        trailers, self._down_end = self._down_end, None
        self._end_down(trailers)
        if self._cut is not None:
            owner, self._owner = self._owner, None
            self._up = self._down = None
            if owner is not None:
                owner.on_reset(*self._cut)

    def on_defect(self) -> None:
        """The owner raised: its neighbours go on, its stream does not."""
        self._abandon()
        self._stream.reset(ResetCode.INTERNAL)

    # ---- ends

    def _up_lane(self) -> Lane:
        if self._up is None:
            self._up = _Up(self, self._terms.up)
        return self._up

    def _end_up(self, trailers: bytes) -> None:
        self._stream.end(trailers)
        self._up_done = True
        if self._down_done:
            self._end_counting()
            self._part()

    def _end_down(self, trailers: bytes) -> None:
        self._down_done = True
        if self._up_done:
            self._end_counting()
        if self._owner is not None:
            self._owner.on_end(trailers)
        if self._up_done and self._cut is None:
            self._part()

    def _part(self) -> None:
        """Leaves no circle behind for the garbage collector. A stream that still sends may be cut, and tells it."""
        if self._stream.state is _CLOSED:
            self._owner = self._up = self._down = None

    def _guarded(self, tell: Callable[[_What], None], what: _What) -> None:
        """The session cuts the stream of an owner that raises, and tells nobody of it."""
        try:
            tell(what)
        except Exception:
            self._abandon()
            raise

    def _abandon(self) -> None:
        self._owner = None
        self._drop()

    def _drop(self) -> None:
        """Nothing is left to be done here."""
        self._dead = self._up_done = self._down_done = True
        self._down_end = self._up_end = None
        for lane in (self._up, self._down):
            if lane is not None:
                self._pacer.drop(lane)
        self._up = self._down = None
        self._end_counting()

    def _end_counting(self) -> None:
        if not self._over:
            self._over = True
            self._terms.on_over(self)


def _lull(owner: StreamEvents) -> None:
    owner.on_lull()


class _Half(Lane):
    __slots__ = ("_stream",)

    def __init__(self, stream: PacedStream, way: Way) -> None:
        super().__init__(way)
        self._stream = stream

    def on_defect(self) -> None:
        self._stream.on_defect()


class _Up(_Half):
    __slots__ = ()

    def pass_on(self, data: bytes) -> bool:
        return self._stream.pass_up(data)

    def on_low(self) -> None:
        self._stream.on_up_low(self)


class _Down(_Half):
    __slots__ = ()

    def pass_on(self, data: bytes) -> bool:
        self._stream.pass_down(data)
        return True

    def on_low(self) -> None:
        self._stream.on_down_low(self)
