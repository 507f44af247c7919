"""Months in UTC: their names, ends and order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from relay.limits.months import as_text, month_of, period_of

TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2999, 12, 31)).map(lambda one: one.replace(tzinfo=UTC))


def epoch(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]


def test_the_last_second_of_a_month_is_in_it() -> None:
    """The next one begins at midnight, also at the end of a year and of a leap February."""
    assert period_of(epoch(2026, 11, 30, 23, 59, 59)) == "2026-11"
    assert month_of(epoch(2026, 11, 5)).ends == epoch(2026, 12, 1)
    assert month_of(epoch(2026, 12, 31, 23, 59, 59)).ends == epoch(2027, 1, 1)
    assert month_of(epoch(2028, 2, 29)).ends - month_of(epoch(2028, 2, 29)).starts == 29 * 86400
    assert as_text(month_of(epoch(2026, 11, 5)).ends) == "2026-12-01T00:00:00Z"


@given(TIMES, TIMES)
def test_months_follow_one_another(one: datetime, other: datetime) -> None:
    """A time lies in its month, the end of a month is the start of the next, and names are ordered as times are."""
    month = month_of(one.timestamp())
    assert month.starts <= one.timestamp() < month.ends
    assert month.name == f"{one:%Y-%m}"
    assert month_of(month.ends).starts == month.ends
    if one <= other:
        assert month.name <= period_of((other + timedelta(0)).timestamp())
