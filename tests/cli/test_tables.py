"""Tables and facts: on a terminal they fit it, in a pipe every row is one line."""

from __future__ import annotations

import io
import sys

import pytest

from relay.cli.tables import cell, facts, many, table, when


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_row_is_one_line_in_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """However wide it is; no escape, no space at the end."""
    monkeypatch.setenv("COLUMNS", "40")
    table(("A", "B"), [("x" * 300, "y"), ("", "z")], none="Nothing.")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1] == "x" * 300 + "   y"
    assert not any(line.endswith(" ") or "\x1b" in line for line in lines)


def test_a_terminal_is_filled_and_not_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long cells go on below themselves; nothing is cut off."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    table(("A", "B"), [("x" * 60, "y" * 10)], none="Nothing.")
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= 40
    assert sum(line.count("x") for line in lines) == 60


def test_facts_leave_out_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said of what is empty; 0 and no are something."""
    facts([("a", None), ("b", ""), ("c", 0), ("d", False), ("e", ["x", "y"])])
    assert [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()] == [
        ["c", "0"], ["d", "no"], ["e", "x, y"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (True, "yes"), (("a", None), "a, "), ("\x1b[m\n", r"\x1b[m\n"), (3, "3")]
)
def test_cells(value: object, text: str) -> None:
    """As a person reads it, and harmless."""
    assert cell(value) == text


def test_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own, to the minute; what is no time is shown as it is, harmless."""
    import time

    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert when("2027-01-15T20:00:59.999999Z") == "2027-01-16 05:00"
    finally:
        monkeypatch.undo()
        time.tzset()
    assert when("\x1b[2J") == r"\x1b[2J"
    assert when(None) == ""


def test_numbers_of_things() -> None:
    """One is one, all else are many."""
    assert [many(count, "key") for count in (0, 1, 2)] == ["0 keys", "1 key", "2 keys"]
