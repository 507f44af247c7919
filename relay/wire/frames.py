"""The frames: every number of the wire, what a frame may look like, and how one is written. No I/O, no clock.

A frame is an 8-byte header and a payload, big-endian:

    0       4    5          8
    +-------+----+----------+---------------+
    | stream|type|  length  |    payload    |
    |  u32  | u8 |   u24    | `length` bytes|
    +-------+----+----------+---------------+

A carrier message holds one or more whole frames. This room decides what a frame may look like on its own;
what it may mean at a given moment is decided by `states` and by the mux, whose `reading` takes messages apart.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from relay.wire.errors import LocalProtocolError, RemoteProtocolError

HEADER_SIZE: Final = 8
HEADER: Final = Struct(">II")
U32: Final = Struct(">I")
U64: Final = Struct(">Q")
RESET_HEAD: Final = Struct(">HB")
AWAY_HEAD: Final = Struct(">HI")

# Frame types. 0x40 is the END flag on the three types that may end a stream's direction.
HELLO: Final = 0x01
WELCOME: Final = 0x02
REFUSED: Final = 0x03
RENEW: Final = 0x04
RENEWED: Final = 0x05
OPEN: Final = 0x10
DATA: Final = 0x11
END: Final = 0x12
RESET: Final = 0x13
CREDIT: Final = 0x14
HEAD: Final = 0x15
PING: Final = 0x20
PONG: Final = 0x21
GOING_AWAY: Final = 0x22
END_FLAG: Final = 0x40
OPEN_END: Final = OPEN | END_FLAG
DATA_END: Final = DATA | END_FLAG
HEAD_END: Final = HEAD | END_FLAG
# Types from here on are extensions: a receiver that does not know one skips it.
FIRST_EXTENSION: Final = 0x80

MAX_MESSAGE: Final = 1024 * 1024
MAX_DATA: Final = 256 * 1024
MAX_HEAD: Final = 128 * 1024
MAX_HELLO: Final = 16 * 1024
# 64 names, each with an address of full length, do not fit into the bound of a hello.
MAX_WELCOME: Final = 64 * 1024
MAX_DETAIL: Final = 512
MAX_EXTENSION: Final = 16 * 1024
MAX_STREAM_ID: Final = 2**31 - 1
MAX_CREDIT: Final = 2**31 - 1
STREAM_WINDOW: Final = 64 * 1024
SESSION_WINDOW: Final = 1024 * 1024
MAX_SESSION_WINDOW: Final = 64 * 1024 * 1024

RESET_DELIVERED: Final = 0x01

# type -> (least length, greatest length, whether it belongs to a stream: True, False, or None for either)
_RULES: Final[dict[int, tuple[int, int, bool | None]]] = {
    HELLO: (2, MAX_HELLO, False),
    WELCOME: (2, MAX_WELCOME, False),
    REFUSED: (2, MAX_HELLO, False),
    RENEW: (2, MAX_HELLO, False),
    RENEWED: (2, MAX_WELCOME, False),
    OPEN: (1, MAX_HEAD, True),
    OPEN_END: (1, MAX_HEAD, True),
    DATA: (0, MAX_DATA, True),
    DATA_END: (0, MAX_DATA, True),
    END: (0, MAX_HEAD, True),
    RESET: (3, 3 + MAX_DETAIL, True),
    CREDIT: (4, 4, None),
    HEAD: (3, MAX_HEAD, True),
    HEAD_END: (3, MAX_HEAD, True),
    PING: (8, 8, False),
    PONG: (8, 8, False),
    GOING_AWAY: (6, 6 + MAX_DETAIL, False),
}

NAMES: Final = {
    HELLO: "HELLO",
    WELCOME: "WELCOME",
    REFUSED: "REFUSED",
    RENEW: "RENEW",
    RENEWED: "RENEWED",
    OPEN: "OPEN",
    OPEN_END: "OPEN+END",
    DATA: "DATA",
    DATA_END: "DATA+END",
    END: "END",
    RESET: "RESET",
    CREDIT: "CREDIT",
    HEAD: "HEAD",
    HEAD_END: "HEAD+END",
    PING: "PING",
    PONG: "PONG",
    GOING_AWAY: "GOING_AWAY",
}


def encode(kind: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame as bytes. Raises `LocalProtocolError` when the frame would break a rule of `check`."""
    rule = _RULES.get(kind)
    if rule is None:
        raise LocalProtocolError(f"no such frame type: {kind:#x}")
    least, most, on_stream = rule
    length = len(payload)
    if not least <= length <= most:
        raise LocalProtocolError(f"{NAMES[kind]} of {length} bytes, allowed are {least} to {most}")
    if not 0 <= stream <= MAX_STREAM_ID or (on_stream is not None and on_stream != bool(stream)):
        raise LocalProtocolError(f"{NAMES[kind]} on stream {stream}")
    return HEADER.pack(stream, kind << 24 | length) + payload


def check(kind: int, stream: int, length: int) -> bool:
    """Whether a frame with such a header is one of ours; False: an extension, to be passed over.

    Raises `RemoteProtocolError` for an unknown type below `FIRST_EXTENSION`, for a length or a stream number that its
    type does not allow.
    """
    rule = _RULES.get(kind)
    if rule is None:
        if kind < FIRST_EXTENSION:
            raise RemoteProtocolError(f"unknown frame type {kind:#04x}")
        if length > MAX_EXTENSION:
            raise RemoteProtocolError(f"extension frame of {length} bytes, allowed are {MAX_EXTENSION}")
        return False
    least, most, on_stream = rule
    if not least <= length <= most:
        raise RemoteProtocolError(f"{NAMES[kind]} of {length} bytes, allowed are {least} to {most}")
    if stream > MAX_STREAM_ID or (on_stream is not None and on_stream != (stream != 0)):
        raise RemoteProtocolError(f"{NAMES[kind]} on stream {stream}")
    return True


def lengths(kind: int) -> range:
    """The lengths that a frame's payload may have, in bytes."""
    least, most, _ = _RULES[kind]
    return range(least, most + 1)


def encode_reset(stream: int, code: int, detail: str = "", delivered: bool = False) -> bytes:
    """A RESET frame; `detail` is cut to `MAX_DETAIL` bytes of UTF-8."""
    return encode(RESET, stream, RESET_HEAD.pack(code, RESET_DELIVERED if delivered else 0) + _detail(detail))


def decode_reset(payload: memoryview) -> tuple[int, bool, str]:
    """(code, delivered, detail) of a RESET payload that `check` let through."""
    code, flags = RESET_HEAD.unpack_from(payload)
    return code, bool(flags & RESET_DELIVERED), str(payload[RESET_HEAD.size :], "utf-8", "replace")


def encode_going_away(code: int, last_stream: int, detail: str = "") -> bytes:
    """A GOING_AWAY frame; `last_stream` is the highest that the sender has opened or accepted."""
    return encode(GOING_AWAY, 0, AWAY_HEAD.pack(code, last_stream) + _detail(detail))


def decode_going_away(payload: memoryview) -> tuple[int, int, str]:
    """(code, last stream, detail) of a GOING_AWAY payload that `check` let through."""
    code, last = AWAY_HEAD.unpack_from(payload)
    return code, last, str(payload[AWAY_HEAD.size :], "utf-8", "replace")


def encode_credit(stream: int, increment: int) -> bytes:
    """A CREDIT frame: the peer may send `increment` more bytes of DATA (stream 0: on the session)."""
    if not 0 < increment <= MAX_CREDIT:
        raise LocalProtocolError(f"credit of {increment} bytes")
    return encode(CREDIT, stream, U32.pack(increment))


def decode_credit(payload: memoryview) -> int:
    """The increment in bytes. Raises `RemoteProtocolError` when it is 0 or above `MAX_CREDIT`."""
    (increment,) = U32.unpack(payload)
    if not 0 < increment <= MAX_CREDIT:
        raise RemoteProtocolError(f"credit of {increment} bytes")
    return int(increment)


def _detail(text: str) -> bytes:
    detail = text.encode("utf-8", "replace")
    if len(detail) <= MAX_DETAIL:
        return detail
    return detail[:MAX_DETAIL].decode("utf-8", "ignore").encode()  # not in the middle of a character
