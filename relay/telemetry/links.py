"""What became of links: how many came, came again, were refused, and how they ended. Pure.

An agent chooses its own instance id, so those that are remembered are bounded; reasons and codes are lists of ours.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

# Agents' slots that are remembered, to know who comes again; the one that came least lately is forgotten first.
MOST_REMEMBERED = 10_000
LOST = (
    "lost",
    "dead",
    "agent_left",
    "closed",
    "revoked",
    "superseded",
    "overloaded",
    "protocol_error",
    "shutdown",
)
REFUSED = (
    "bad_hello",
    "bad_key",
    "draining",
    "expired",
    "name_reserved",
    "name_taken",
    "overloaded",
    "registry_unavailable",
    "revoked",
    "stale_generation",
    "too_many",
    "version",
)
OTHER = "other"


class LinkCounts:
    """One per node."""

    def __init__(self) -> None:
        self.opened = 0
        self.reopened = 0
        """Of these, by an agent that had a link in the same slot before."""
        self.lost: Counter[str] = Counter(dict.fromkeys(LOST, 0))
        self.refused: Counter[str] = Counter(dict.fromkeys((*REFUSED, OTHER), 0))
        self._known: OrderedDict[tuple[str, str, int], None] = OrderedDict()

    def on_opened(self, place: tuple[str, str, int]) -> None:
        """A link was admitted: its project, instance and slot."""
        self.opened += 1
        self.reopened += place in self._known
        self._known[place] = None
        self._known.move_to_end(place)
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)

    def on_lost(self, reason: str) -> None:
        """A link has ended; one of `LOST`."""
        self.lost[reason] += 1

    def on_refused(self, code: str) -> None:
        """A hello, or a new key."""
        self.refused[code if code in self.refused else OTHER] += 1
