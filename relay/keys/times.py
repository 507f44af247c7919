"""Times as the API and the audit write them: ISO 8601, UTC, microseconds, Z."""

from __future__ import annotations

import datetime

_LATEST = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC).timestamp()


def text_of(seconds: float) -> str:
    """Seconds since the epoch as text."""
    moment = datetime.datetime.fromtimestamp(min(max(seconds, 0.0), _LATEST), datetime.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def text_or_none(seconds: float | None) -> str | None:
    """The same, for a moment that may not have come."""
    return None if seconds is None else text_of(seconds)
