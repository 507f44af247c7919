"""Calendar months in UTC, by which requests and bytes are counted. Pure; times are seconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple


class Month(NamedTuple):
    """A month: its name, such as `2026-11`, and when it begins and when the next one does."""

    name: str
    starts: float
    ends: float


def month_of(epoch: float) -> Month:
    """The month of a time."""
    when = datetime.fromtimestamp(epoch, UTC)
    start = datetime(when.year, when.month, 1, tzinfo=UTC)
    end = datetime(when.year + when.month // 12, when.month % 12 + 1, 1, tzinfo=UTC)
    return Month(f"{when.year:04d}-{when.month:02d}", start.timestamp(), end.timestamp())


def period_of(epoch: float) -> str:
    """The name of the month of a time. Names of later months are greater."""
    return month_of(epoch).name


def as_text(epoch: float) -> str:
    """A time as people and programs read it: `2026-12-01T00:00:00Z`."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
