"""How a command speaks: lines for people, one JSON object a line for programs, one sentence for a warning.

Colour only on a terminal; what came from the network is made harmless for one. Nothing here knows what an event means.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

Event = dict[str, object]
Report = Callable[[Event], None]

GREEN, YELLOW, RED, DIM, BOLD = "32", "33", "31", "2", "1"


_warned: set[str] = set()


class Lines:
    """Lines on one stream, each flushed. Goes silent, and never fails, once nobody reads them."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self.coloured = terminal and not os.environ.get("NO_COLOR")
        self._open = True

    def say(self, text: str = "", colour: str = "") -> None:
        """One line; `text` must be harmless already (see `harmless`)."""
        if not self._open:
            return
        try:
            self._stream.write(self.paint(text, colour) + "\n")
            self._stream.flush()
        except (BrokenPipeError, ValueError):  # ValueError: the stream was closed
            self._open = False
            _discard(self._stream)

    def paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.coloured and colour else text


def warn(text: str) -> None:
    """One sentence on standard error, once, about something that is not as it should be though the command goes on."""
    if text in _warned:
        return
    _warned.add(text)
    Lines(sys.stderr).say(f"relay: Warning: {harmless(text)}", YELLOW)


def say_json(value: object) -> None:
    """One JSON document on one line of standard output, ASCII."""
    Lines().say(json.dumps(value))


def _discard(stream: TextIO) -> None:
    """Lets the interpreter's own flush at exit succeed, as the Python documentation advises for SIGPIPE."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        pass


def json_lines(lines: Lines) -> Report:
    """Each event as one line of ASCII JSON."""

    def report(event: Event) -> None:
        lines.say(json.dumps(event, default=str))

    return report


def harmless(text: object) -> str:
    """Text that cannot steer a terminal or break a line: what is not printable is shown escaped."""
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in plain)


def clock() -> str:
    """The local time of day."""
    return time.strftime("%H:%M:%S")


def duration(seconds: object) -> str:
    """`0.012` is `12 ms`."""
    if not isinstance(seconds, int | float):
        return "-"
    if seconds < 0.0095:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds) // 60}m {int(seconds) % 60:02}s"


def size(amount: object) -> str:
    """`1400` is `1.4 kB`."""
    if not isinstance(amount, int | float):
        return "-"
    if amount < 1000:
        return f"{amount:.0f} B"
    value, units = amount / 1000, ["TB", "GB", "MB", "kB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop()
    return f"{value:.1f} {units[-1]}" if value < 99.95 else f"{value:.0f} {units[-1]}"


def sentence(text: object) -> str:
    """Harmless text that ends like a sentence."""
    plain = harmless(text).strip()
    return plain if plain.endswith((".", "!", "?")) else plain + "."
