"""Errors of the wire: ours and theirs differ by type, and each carries what to tell the peer.

`LocalProtocolError` means that our own code broke the protocol (a bug here); `RemoteProtocolError` that the
peer did. Any bytes that a peer sends give frames or a `RemoteProtocolError`, nothing else.
"""

from __future__ import annotations

from enum import IntEnum


class ResetCode(IntEnum):
    """Why a stream was cut: the number in a RESET frame (docs/protocol.md, "Reset codes")."""

    CANCEL = 0
    INTERNAL = 1
    NOT_DELIVERED = 2
    LOCAL_REFUSED = 3
    LOCAL_RESET = 4
    BAD_RESPONSE = 5
    HEAD_TIMEOUT = 6
    BAD_BODY = 7
    UNKNOWN_NAME = 8
    STREAM_PROTOCOL = 9
    TOO_MANY_STREAMS = 10


class AwayCode(IntEnum):
    """Why a session ends: the number in a GOING_AWAY frame (docs/protocol.md, "Going away")."""

    SHUTDOWN = 0
    PROTOCOL_ERROR = 1
    SUPERSEDED = 2
    REVOKED = 3
    DEAD_PEER = 4
    OVERLOADED = 5
    CLOSED = 6


class ProtocolError(Exception):
    """Base of both; never raised itself."""


class LocalProtocolError(ProtocolError):
    """We were about to break the protocol: a bug on this side."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; the session cannot go on. The text is safe to show to the peer."""
