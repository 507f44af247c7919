"""Frames out of a message, each given to the stream that it is for. One loop, since it runs for every frame that comes.

A defect of one exchange ends its stream and no other; a breach by the peer is raised.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from struct import error as StructError
from typing import Final

from relay.mux.compiling import mypyc_attr
from relay.mux.outbox import Queued
from relay.mux.receivers import Receiver
from relay.mux.stream import Stream
from relay.wire import frames
from relay.wire.errors import RemoteProtocolError, ResetCode
from relay.wire.frames import HEADER, HEADER_SIZE

_unpack: Final = HEADER.unpack_from
_HEAD: Final = frames.HEAD
_FOLLOWS: Final = frozenset((frames.DATA, frames.DATA_END, frames.END))
"""What may follow a head and be written with it."""


@mypyc_attr(allow_interpreted_subclasses=True)
class FrameReader:
    """See `Session`, which makes it whole."""

    loop: asyncio.AbstractEventLoop
    streams: dict[int, Stream]
    receivers: dict[int, Receiver]
    ended: bool

    @abstractmethod
    def on_strange(self, kind: int, number: int, payload: memoryview) -> None:
        """A frame came that is for no open stream. Raises `RemoteProtocolError`."""

    @abstractmethod
    def on_empty(self) -> None:
        """A frame came that brought nothing. Raises `RemoteProtocolError`."""

    def read(self, message: memoryview, size: int) -> int:
        """Gives each frame to whom it is for; what that cost of the turn: one for the message and one for each frame.

        Raises `RemoteProtocolError`.
        """
        if size > frames.MAX_MESSAGE:
            raise RemoteProtocolError(f"message of {size} bytes, allowed are {frames.MAX_MESSAGE}")
        streams, receivers = self.streams, self.receivers
        headed: Stream | None = None
        position, count = 0, 1
        while position < size:
            try:
                number, word = _unpack(message, position)
            except StructError:
                raise RemoteProtocolError("message ends inside a frame header") from None
            body = position + HEADER_SIZE
            length = word & 0xFFFFFF
            position = body + length
            if position > size:
                raise RemoteProtocolError("message ends inside a frame")
            kind = word >> 24
            stream = streams.get(number)
            if headed is not None:
                if stream is not headed or kind not in _FOLLOWS:
                    self._tell_lull(headed)
                headed = None
            if stream is not None and (receiver := receivers.get(kind)) is not None:
                lengths, receive = receiver
                if length not in lengths:
                    frames.check(kind, number, length)
                try:
                    receive(stream, message[body:position])
                except RemoteProtocolError:
                    raise
                except Exception as error:
                    self.on_defect(stream, error)
                if kind == _HEAD:
                    headed = stream
            elif frames.check(kind, number, length):
                self.on_strange(kind, number, message[body:position])
            else:
                self.on_empty()
            if self.ended:
                return count
            count += 1
        if headed is not None:
            self._tell_lull(headed)
        return count

    def _tell_lull(self, stream: Stream) -> None:
        if stream.owner is not None:
            try:
                stream.owner.on_lull()
            except Exception as error:
                self.on_defect(stream, error)

    def on_defect(self, stream: Queued, error: Exception) -> None:
        """A defect of one exchange must not end its neighbours'."""
        self.loop.call_exception_handler({"message": "an exchange failed", "exception": error})
        stream.reset(ResetCode.INTERNAL)
