"""Where one WebSocket frame ends and the next begins, in a pipe that is otherwise opaque (RFC 6455 §5.2). Pure.

Known so that the relay, when it has to end such a pipe, can say why with a close frame of its own between two frames,
and need not break it off in the middle of one. What goes through is never changed, and nothing of it is kept.
"""

from __future__ import annotations

from typing import Final

RESTARTING: Final = 1012
GOING_AWAY: Final = 1001
_WHY: Final = b"the relay restarts"
_MASK: Final = 0x80
# A length of so much stands for one of two bytes, or eight, behind it.
_TWO: Final = 126
# The length of a frame that is longer than any read: with a head before it, it is still the length of none.
_NOT_HERE: Final = -1000
_CLOSE: Final = 0x88
_CONTROL: Final = frozenset((0x88, 0x89, 0x8A))
# Whatever its first four bits: extensions may use the reserved ones.
_DATA: Final = frozenset(bits | kind for bits in range(0, 256, 16) for kind in (0, 1, 2))


def close_frame(code: int, mask: bytes = b"") -> bytes:
    """A close frame with this code. From a client to a server it must have a mask of four random bytes."""
    payload = code.to_bytes(2, "big") + _WHY
    if not mask:
        return bytes((_CLOSE, len(payload))) + payload
    masked = bytes([byte ^ mask[place % 4] for place, byte in enumerate(payload)])
    return bytes((_CLOSE, _MASK | len(payload))) + mask + masked


class Way:
    """One direction of a pipe. `masked`: the one from a client, whose frames all have a mask."""

    __slots__ = ("_base", "_extra", "_farewell", "_head", "_left", "_parting", "_said", "lost", "over")

    def __init__(self, masked: bool) -> None:
        self.lost = False
        """What goes through is no WebSocket: a frame of ours would not be understood."""
        self.over = False
        """It was ended: nothing more goes through."""
        self._base = _MASK if masked else 0
        self._extra = 6 if masked else 2
        self._head = b""
        """The head of a frame, while it is not whole."""
        self._left = 0
        """Bytes until the frame ends, once its head is known."""
        self._said = False
        """A close frame went through: there must be no other."""
        self._parting = False
        self._farewell = b""

    def pass_on(self, data: bytes) -> bytes:
        """What goes on of `data`: all of it, until this direction is ended."""
        if self._parting:
            return self._pass_last(data)
        size = len(data)
        if self._left >= size:
            self._left -= size
        elif not self._left and not self._head and size > 4 and not self.lost:
            length = data[1] - self._base
            whole = length if length < _TWO else (data[2] << 8 | data[3]) + 2 if length == _TWO else _NOT_HERE
            # Mostly it is one whole frame.
            if size != whole + self._extra or length < 0 or data[0] not in _DATA:
                self._follow(data, stop=False)
        elif not self.lost:
            self._follow(data, stop=False)
        return data

    def part(self, farewell: bytes) -> bytes:
        """Ends this direction at the next border of frames, with `farewell`: what to send now."""
        self._parting = True
        self._farewell = farewell
        return self._pass_last(b"")

    def _pass_last(self, data: bytes) -> bytes:
        if self.over or self.lost:
            return b""
        passed = data[: self._follow(data, stop=True)]
        if self._left or self._head or self.lost:
            return passed
        self.over = True
        return passed if self._said else passed + self._farewell

    def _follow(self, data: bytes, stop: bool) -> int:
        """Reads heads of frames; how far: to the end of `data`, or with `stop` to the first border."""
        begun = len(self._head)
        if begun:
            data, self._head = self._head + data, b""
        at, size = self._left, len(data)  # where a frame begins
        while at < size and not (stop and (at or not begun)):
            end = self._end_of_frame(data, at, size)
            if not end:
                return size - begun
            at = end
        self._left = max(at - size, 0)
        return min(at, size) - begun

    def _end_of_frame(self, data: bytes, at: int, size: int) -> int:
        """Where the frame that begins at `at` ends; 0 when its head is not whole, or none."""
        width = 0
        whole = at + self._extra <= size
        length = data[at + 1] & 0x7F if whole else 0
        if length >= _TWO:
            width = 2 if length == _TWO else 8
            whole = at + self._extra + width <= size
        if not whole:
            self._head, self._left = data[at:], 0
            return 0
        kind = data[at]
        known = kind in _DATA or (kind in _CONTROL and not width)
        self.lost = not known or data[at + 1] & _MASK != self._base
        self._said = kind == _CLOSE
        if width:
            length = int.from_bytes(data[at + 2 : at + 2 + width], "big")
        return 0 if self.lost else at + self._extra + width + length


class Pipe:
    """Both directions of an upgraded connection."""

    __slots__ = ("to_local", "to_visitor")

    def __init__(self) -> None:
        self.to_local = Way(masked=True)
        self.to_visitor = Way(masked=False)

    @property
    def known(self) -> bool:
        """Whether it is a WebSocket, for all that was seen."""
        return not (self.to_local.lost or self.to_visitor.lost)
