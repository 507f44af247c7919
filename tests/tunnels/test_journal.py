"""What waits for the audit: in order, kept until it is written, bounded; strangers are counted, not listed."""

from __future__ import annotations

import pytest

from relay.registry.records import RELAY, Actor, Note
from relay.tunnels import journal as journal_room
from relay.tunnels.journal import MOST_CHANGES, MOST_KEYS, MOST_PREFIXES, MOST_WAITING, SUMMARY_EVERY, Journal


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def refusal(key_id: str, code: str, address: str = "192.0.2.1") -> tuple[Note, str]:
    """What `refused` takes."""
    return Note(Actor(key_id, (), address), "session.refused", key_id, f"project of {key_id}", {"code": code}), code


def told(notes: list[Note]) -> list[tuple[str, str, dict[str, object]]]:
    return [(note.action, note.subject, dict(note.details)) for note in notes]


def test_notes_stay_until_they_are_written() -> None:
    """What could not be written is there the next time."""
    journal = Journal(Clock())
    first, second = Note(RELAY, "a", "1"), Note(RELAY, "b", "2")
    journal.note(first)
    assert journal.waiting() == [first]
    journal.note(second)
    journal.written(1)
    assert journal.waiting() == [second]


def test_a_full_journal_says_so() -> None:
    """So that nothing is admitted that would add to it."""
    journal = Journal(Clock())
    for _ in range(MOST_WAITING - 1):
        journal.note(Note(RELAY, "a", "1"))
    assert not journal.full
    journal.note(Note(RELAY, "a", "1"))
    assert journal.full


def test_strangers_are_summed_up_by_prefix_and_minute() -> None:
    """One row each, with how often and why; nothing before the minute is over, nothing twice."""
    clock = Clock()
    journal = Journal(clock)
    for address in ("192.0.2.1", "192.0.2.77", "192.0.3.1", "2001:db8:1:2::3", "2001:db8:1:9::3", "nonsense"):
        journal.knocked(address, "signature")
    journal.knocked("192.0.2.1", "expired")
    assert journal.waiting() == []
    clock.time += SUMMARY_EVERY
    rows = {note.subject: dict(note.details) for note in journal.waiting()}
    assert rows == {
        "192.0.2.0/24": {"signature": 2, "expired": 1},
        "192.0.3.0/24": {"signature": 1},
        "2001:db8:1::/48": {"signature": 2},
        "unknown": {"signature": 1},
    }
    journal.written(4)
    clock.time += SUMMARY_EVERY
    assert journal.waiting() == []


def test_the_number_of_prefixes_is_bounded() -> None:
    """Whoever comes from everywhere gets one row for what is too much."""
    clock = Clock()
    journal = Journal(clock)
    for number in range(MOST_PREFIXES + 50):
        journal.knocked(f"10.{number // 256}.{number % 256}.1", "checksum")
    journal.sum_up()
    rows = journal.waiting()
    assert len(rows) == MOST_PREFIXES + 1
    assert [row.details for row in rows if row.subject == journal_room._OTHERS] == [{"checksum": 50}]


def test_a_known_key_has_one_row_for_each_code_and_minute() -> None:
    """How often it came again stands in one more row when the minute is over; then it may have another."""
    clock = Clock()
    journal = Journal(clock)
    for _ in range(5):
        journal.refused(*refusal("one", "revoked"))
    journal.refused(*refusal("one", "expired"))
    journal.refused(*refusal("two", "revoked"))
    rows = [
        ("session.refused", "one", {"code": "revoked"}),
        ("session.refused", "one", {"code": "expired"}),
        ("session.refused", "two", {"code": "revoked"}),
    ]
    assert told(journal.waiting()) == rows
    clock.time += SUMMARY_EVERY
    summary = ("refusals.summary", "one", {"revoked": 4})
    assert told(journal.waiting()) == [*rows, summary]
    assert journal.waiting()[-1].project == "project of one"
    journal.refused(*refusal("one", "revoked"))
    assert told(journal.waiting()) == [*rows, summary, rows[0]]
    clock.time += SUMMARY_EVERY
    assert told(journal.waiting()) == [*rows, summary, rows[0]]


def test_the_number_of_known_keys_is_bounded() -> None:
    """Whoever has minted a great many keys and shows each of them is counted by where that comes from."""
    journal = Journal(Clock())
    for number in range(MOST_KEYS + 20):
        for _ in range(2):
            journal.refused(*refusal(str(number), "revoked", "198.51.100.9"))
    assert len(journal.waiting()) == MOST_KEYS
    journal.sum_up()
    rows = told(journal.waiting())
    assert len(rows) == 2 * MOST_KEYS + 1
    assert ("refusals.summary", "198.51.100.0/24", {"revoked": 40}) in rows


def test_what_waits_does_not_grow_while_the_registry_is_away() -> None:
    """However long that takes and however many knock: once it is full nothing is added, and nothing is forgotten."""
    clock = Clock()
    journal = Journal(clock)
    for _ in range(MOST_WAITING):
        journal.note(Note(RELAY, "a", "1"))
    for minute in range(3):
        journal.knocked(f"192.0.{minute}.1", "signature")
        journal.refused(*refusal("one", "revoked"))
        clock.time += SUMMARY_EVERY
        assert len(journal.waiting()) == MOST_WAITING
    journal.written(MOST_WAITING)
    assert told(journal.waiting()) == [
        ("refusals.summary", "192.0.0.0/24", {"signature": 1}),
        ("refusals.summary", "192.0.1.0/24", {"signature": 1}),
        ("refusals.summary", "192.0.2.0/24", {"signature": 1}),
        ("refusals.summary", "one", {"revoked": 3}),
    ]


def change(key_id: str, number: int, action: str = "tunnel.open") -> Note:
    """What `changed` takes."""
    return Note(Actor(key_id, ("above",), "192.0.2.1"), action, f"name-{number}", f"project of {key_id}")


def test_tunnels_of_one_key_have_so_many_rows_a_minute() -> None:
    """The first are listed, the rest is counted in one row when the minute is over; then there is room again."""
    clock = Clock()
    journal = Journal(clock)
    for number in range(MOST_CHANGES // 2 + 100):
        journal.changed(change("busy", number))
        journal.changed(change("busy", number, "tunnel.close"))
    journal.changed(change("busy", 0))
    journal.changed(change("calm", 7))
    rows = told(journal.waiting())
    assert len(rows) == MOST_CHANGES + 1
    assert rows[-1] == ("tunnel.open", "name-7", {})
    clock.time += SUMMARY_EVERY
    summary = journal.waiting()[-1]
    assert (summary.action, summary.subject, summary.project) == ("tunnel.summary", "busy", "project of busy")
    assert dict(summary.details) == {"opened": 101, "closed": 100}
    assert summary.actor.lineage == ("above",)
    assert len(journal.waiting()) == len(rows) + 1
    journal.changed(change("busy", 1))
    assert told(journal.waiting())[-1] == ("tunnel.open", "name-1", {})


def test_the_number_of_keys_whose_tunnels_are_told_apart_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of further ones are summed up together: none is left out."""
    monkeypatch.setattr(journal_room, "MOST_OPENERS", 3)
    journal = Journal(Clock())
    for number in range(5):
        journal.changed(change(str(number), number))
    journal.changed(change("0", 9, "tunnel.close"))
    journal.sum_up()
    rows = told(journal.waiting())
    assert rows[:4] == [("tunnel.open", f"name-{number}", {}) for number in range(3)] + [("tunnel.close", "name-9", {})]
    assert rows[4:] == [("tunnel.summary", journal_room._OTHERS, {"opened": 2, "closed": 0})]


def test_tunnels_do_not_fill_a_journal_that_is_full() -> None:
    """They are counted until there is room."""
    clock = Clock()
    journal = Journal(clock)
    for _ in range(MOST_WAITING):
        journal.note(Note(RELAY, "a", "1"))
    for number in range(10):
        journal.changed(change("one", number, "tunnel.close"))
    clock.time += SUMMARY_EVERY
    assert len(journal.waiting()) == MOST_WAITING
    journal.written(MOST_WAITING)
    assert told(journal.waiting()) == [("tunnel.summary", "one", {"opened": 0, "closed": 10})]
