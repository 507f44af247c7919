"""What a user of a session can catch."""

from __future__ import annotations


class MuxError(Exception):
    """Base of this package's errors."""


class SessionGone(MuxError):
    """The session has ended or is going away: no stream can be opened on it."""


class SessionBusy(MuxError):
    """The session has as many streams, or as much waiting to be sent, as it may have."""
