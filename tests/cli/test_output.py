"""Lines, numbers and escapes: how things are written, whatever they mean."""

from __future__ import annotations

import io

import pytest

from relay.cli.output import GREEN, Lines, duration, harmless, json_lines, sentence, size


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A pipe whose reader left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 ms"),
        (0.0042, "4.2 ms"),
        (0.0123, "12 ms"),
        (0.99951, "1.0 s"),
        (12.34, "12.3 s"),
        (61, "1m 01s"),
        (None, "-"),
    ],
)
def test_durations(seconds: object, text: str) -> None:
    """Three digits at most, in the unit that fits."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1400, "1.4 kB"),
        (99_960, "100 kB"),
        (999_600, "1.0 MB"),
        (5 * 10**15, "5000 TB"),
        ("x", "-"),
    ],
)
def test_sizes(amount: object, text: str) -> None:
    """Decimal units, three digits as long as there are units."""
    assert size(amount) == text


def test_harmless_text() -> None:
    """Letters of every script pass; controls, line ends and lone surrogates are shown escaped."""
    assert harmless("wörld → 世界") == "wörld → 世界"
    assert harmless("a\x1b[31m\r\nb\udc80") == r"a\x1b[31m\r\nb\udc80"


def test_sentences_end() -> None:
    """A full stop is added where there is none."""
    assert [sentence(text) for text in ("a", "a.", "a? ")] == ["a.", "a.", "a?"]


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Escapes go to a terminal, unless NO_COLOR or a dumb one asks for none; never to a pipe."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = Terminal(), io.StringIO()
    Lines(terminal).say("ok", GREEN)
    Lines(pipe).say("ok", GREEN)
    assert (terminal.getvalue(), pipe.getvalue()) == ("\x1b[32mok\x1b[0m\n", "ok\n")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Lines(Terminal()).coloured
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not Lines(Terminal()).coloured


def test_a_reader_that_left_is_not_written_to_again() -> None:
    """An agent goes on when nobody reads what it prints."""
    lines = Lines(Gone())
    lines.say("one")
    lines.say("two")


def test_json_is_ascii_on_one_line() -> None:
    """Whatever an event holds, it is one line that any reader can decode."""
    stream = io.StringIO()
    json_lines(Lines(stream))({"event": "hint", "message": "a\nb → \udc80", "path": io})
    assert stream.getvalue().isascii()
    assert stream.getvalue().count("\n") == 1
