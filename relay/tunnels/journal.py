"""What happens to sessions and has to be in the audit, until it is written there: traffic never waits for the audit.

Bounded: when what waits is too much, because the registry is away, new sessions are not admitted. Refusals without a
proven key are counted, not listed, and those of a proven one are listed once a minute; of the tunnels that one key
opens and closes within a minute the first are listed and the rest counted. So nobody fills the audit, whether by
knocking, with a key that nobody made or one that was revoked, or by coming and going with a good one.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address, ip_network

from relay.registry.audit import Action
from relay.registry.records import RELAY, Actor, Note

MOST_WAITING = 10_000
MOST_PREFIXES = 1000
MOST_KEYS = 1000
"""Keys whose refusals are told apart within one minute; those of further ones count with their addresses."""
MOST_CHANGES = 60
"""Rows about tunnels that one key opened or closed, within one minute."""
MOST_OPENERS = 10_000
"""Keys whose tunnels are told apart within one minute."""
SUMMARY_EVERY = 60.0
_OTHERS = "others"


@dataclass(slots=True)
class _Refusals:
    """Of one key within this minute: how often again, for each code that has its row."""

    project: str
    again: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Changes:
    """Of one key's tunnels within this minute: rows, and what has none."""

    actor: Actor
    project: str
    rows: int = 0
    more: Counter[str] = field(default_factory=Counter)


class Journal:
    """Filled here, emptied by the node. `now`: seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._notes: deque[Note] = deque()
        self._knocks: dict[str, Counter[str]] = {}
        self._refusals: dict[str, _Refusals] = {}
        self._changes: dict[str, _Changes] = {}
        self._summed_at = now()

    @property
    def backlog(self) -> int:
        """Rows that are not written yet."""
        return len(self._notes)

    @property
    def full(self) -> bool:
        """Whether so much waits that nothing should happen that would add to it."""
        return len(self._notes) >= MOST_WAITING

    def note(self, note: Note) -> None:
        """One row of the audit."""
        self._notes.append(note)

    def changed(self, note: Note) -> None:
        """The actor's key opened or closed a tunnel: a row, or a count where this minute has enough of them."""
        key_id = note.actor.key_id
        changes = self._changes.get(key_id)
        if changes is None:
            if len(self._changes) >= MOST_OPENERS:
                key_id = _OTHERS
            first = _Changes(RELAY, "") if key_id == _OTHERS else _Changes(note.actor, note.project)
            changes = self._changes.setdefault(key_id, first)
        if key_id == _OTHERS or changes.rows >= MOST_CHANGES or self.full:
            changes.more["opened" if note.action == Action.TUNNEL_OPEN else "closed"] += 1
        else:
            changes.rows += 1
            self._notes.append(note)

    def refused(self, note: Note, code: str) -> None:
        """The actor's key, which was proven, was refused: a row, or a count where this minute has one with the code."""
        key_id = note.actor.key_id
        refusals = self._refusals.get(key_id)
        if refusals is None:
            if len(self._refusals) >= MOST_KEYS:
                self.knocked(note.actor.address, code)
                return
            refusals = self._refusals[key_id] = _Refusals(note.project)
        if code in refusals.again or self.full:
            refusals.again[code] += 1
        else:
            refusals.again[code] = 0
            self._notes.append(note)

    def knocked(self, address: str, reason: str) -> None:
        """Somebody without a proven key was refused."""
        prefix = _prefix(address)
        if prefix not in self._knocks and len(self._knocks) >= MOST_PREFIXES:
            prefix = _OTHERS
        self._knocks.setdefault(prefix, Counter())[reason] += 1

    def waiting(self, most: int = MOST_WAITING) -> list[Note]:
        """What is to be written now, oldest first, not more than so much. It stays until `written`."""
        now = self._now()
        due = now - self._summed_at >= SUMMARY_EVERY or now < self._summed_at  # a clock that was set back
        if due and not self.full:  # counts wait in less room than rows
            self.sum_up()
        return list(itertools.islice(self._notes, most))

    def written(self, amount: int) -> None:
        """So many of the oldest notes are in the audit."""
        for _ in range(amount):
            self._notes.popleft()

    def sum_up(self) -> None:
        """One row for each prefix and each key that was refused, again where it is a key, since the last time; and one
        for each key that opened and closed more tunnels than have their rows.
        """
        self._summed_at = self._now()
        knocks, self._knocks = self._knocks, {}
        for prefix, reasons in knocks.items():
            self._sum(prefix, "", reasons)
        refusals, self._refusals = self._refusals, {}
        for key_id, one in refusals.items():
            if again := +one.again:
                self._sum(key_id, one.project, again)
        changes, self._changes = self._changes, {}
        for key_id, each in changes.items():
            if each.more:
                more = {"opened": each.more["opened"], "closed": each.more["closed"]}
                note = Note(each.actor, Action.TUNNEL_SUMMARY, key_id, each.project, more, self._summed_at)
                self._notes.append(note)

    def _sum(self, subject: str, project: str, counts: Counter[str]) -> None:
        self._notes.append(Note(RELAY, Action.REFUSALS_SUMMARY, subject, project, dict(counts), self._summed_at))


@lru_cache(maxsize=4096)
def _prefix(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"
    return str(ip_network(f"{address}/{24 if parsed.version == 4 else 48}", strict=False))
