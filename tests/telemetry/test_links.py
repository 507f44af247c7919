"""Counts of links: bounded in what they remember, and in the words that they count by."""

from __future__ import annotations

import pytest

from relay.telemetry import links
from relay.telemetry.links import LOST, OTHER, REFUSED, LinkCounts


def test_what_can_be_counted_is_there_from_the_start() -> None:
    """With 0."""
    counts = LinkCounts()
    assert dict(counts.lost) == dict.fromkeys(LOST, 0)
    assert dict(counts.refused) == dict.fromkeys((*REFUSED, OTHER), 0)


def test_a_code_that_nobody_listed_is_another() -> None:
    """However many there are."""
    counts = LinkCounts()
    for code in ("name_form", "anything", "bad_key"):
        counts.on_refused(code)
    assert (counts.refused[OTHER], counts.refused["bad_key"]) == (2, 1)
    assert set(counts.refused) == {*REFUSED, OTHER}


def test_those_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that came least lately is forgotten, and counts as new when it comes again."""
    monkeypatch.setattr(links, "MOST_REMEMBERED", 2)
    counts = LinkCounts()
    for instance in ("a", "b", "a", "c", "a", "b"):
        counts.on_opened(("p", instance, 0))
    assert (counts.opened, counts.reopened) == (6, 2)
