"""Findings, and how they are made: each look has a deadline, and one that fails keeps no other from being taken.

No secret stands in a finding: a key goes by its id, a database by its kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from relay.cli.doctoring.errors import Trouble
from relay.cli.output import DIM, GREEN, RED, YELLOW, Lines, harmless, sentence

OK, WARN, FAIL, SKIPPED = "ok", "warn", "fail", "skipped"
ALL_WITHIN = 28.0
"""Seconds for everything."""
_COLOURS = {OK: GREEN, WARN: YELLOW, FAIL: RED, SKIPPED: DIM}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look has found."""

    check: str
    """What was looked at; it stays the same from version to version."""
    level: str
    message: str
    next_step: str = ""
    details: Mapping[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "check": self.check,
            "level": self.level,
            "message": self.message,
            "next_step": self.next_step or None,
            "details": dict(self.details),
        }


class Examination:
    """Everything that is found, in the order of finding; `tell` hears of each at once."""

    def __init__(self, tell: Callable[[Finding], None]) -> None:
        self.findings: list[Finding] = []
        self._tell = tell

    @property
    def failed(self) -> bool:
        """Whether anything is not as it must be."""
        return any(one.level == FAIL for one in self.findings)

    def note(self, check: str, level: str, message: str, next_step: str = "", **details: object) -> None:
        """Adds a finding."""
        step = sentence(next_step) if next_step else ""
        found = Finding(check, level, sentence(_begun(message)), step, details)
        self.findings.append(found)
        self._tell(found)

    def skip(self, check: str, because: str) -> None:
        """It could not be looked at."""
        self.note(check, SKIPPED, because)

    async def look(self, check: str, within: float, work: Coroutine[Any, Any, T]) -> T | None:
        """What the work gives; None if it was in trouble, or took longer than so many seconds."""
        try:
            async with asyncio.timeout(within):
                return await work
        except Trouble as trouble:
            self.note(check, trouble.level, str(trouble), trouble.next_step)
        except TimeoutError:
            self.note(check, FAIL, f"There was no answer within {within:g} seconds", "Look whether it is overloaded")
        except Exception as error:  # a defect here, or a peer that does what nobody foresaw: the other looks go on
            self.note(check, FAIL, f"This could not be looked at ({type(error).__name__})", "Report this as a defect")
        return None

    async def all_of(self, work: Coroutine[Any, Any, None]) -> None:
        """The work, within the time for everything."""
        try:
            async with asyncio.timeout(ALL_WITHIN):
                await work
        except TimeoutError:
            self.note("doctor", FAIL, f"Not all could be looked at within {ALL_WITHIN:g} seconds", "Try again")


def _begun(text: str) -> str:
    """A sentence's beginning, unless that is a name or an address."""
    return text[:1].upper() + text[1:] if text.partition(" ")[0].isalpha() else text


def people(lines: Lines, checks: Sequence[str]) -> Callable[[Finding], None]:
    """Findings as lines for people, in columns as wide as the longest of the checks."""
    wide = max(map(len, checks))

    def tell(found: Finding) -> None:
        level = lines.paint(f"{found.level:<7}", _COLOURS[found.level])
        lines.say(f"{level}  {found.check:<{wide}}  {harmless(found.message)}")
        if found.next_step:
            lines.say(f"{'':<{9 + wide}}  → {harmless(found.next_step)}")

    return tell
