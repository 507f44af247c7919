"""The life of a key that an agent holds: how old it is, when to replace it, when to try that again. Pure.

Only a key's length of life is believed, not its dates: it is counted from when the key was asked for, on this machine.
So a clock that is wrong costs nothing. Two clocks count, and the one that saw more time pass is right: the wall clock
misses what it was set back by, the steady clock misses the sleep of the machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from relay.agent.config import MintedKey

# All of these are shares of a key's life.
REPLACE_AT = 2 / 3
SPREAD = 0.01
"""A key is replaced up to so much earlier: agents that were started together do not all come at once."""
LAST_CALL = 0.9
"""Whatever was put off is tried again here."""
USABLE = 0.99
"""From here on the key is not shown any more: it could end on its way."""
FIRST_RETRY = 0.01
LONGEST_RETRY = 0.05

SHORTEST_LIFE = 1.0
"""Seconds, for a source that gives keys which are over at once: they must not be minted without a pause."""
_MOST_DOUBLINGS = 8


class Moment(NamedTuple):
    """An instant on both clocks, in seconds."""

    wall: float
    steady: float


@dataclass(slots=True, eq=False)
class HeldKey:
    """A key and its age. Times are in seconds."""

    text: str = field(repr=False)
    renewable: bool
    life: float
    began: Moment
    expires_at: float
    """What the key says of itself, to be told only."""
    due: float
    """The age at which to replace it, or to try that again; of one that cannot be replaced, to warn."""
    retries: int = 0

    def age(self, moment: Moment) -> float:
        """Seconds since it was asked for; of a key that was given by hand, since it was issued."""
        return max(moment.wall - self.began.wall, moment.steady - self.began.steady)

    def over(self, moment: Moment) -> bool:
        """Whether to show it no more."""
        return self.age(moment) >= self.life * USABLE

    def put_off(self, moment: Moment, chance: float) -> float:
        """Sets `due` after a failure; seconds until then. `chance` is from [0, 1)."""
        age = self.age(moment)
        share = min(FIRST_RETRY * 2.0 ** min(self.retries, _MOST_DOUBLINGS), LONGEST_RETRY)
        delay = self.life * share * (1 + chance) / 2
        ahead = [self.life * mark - age for mark in (LAST_CALL, USABLE) if self.life * mark > age]
        delay = max(min(delay, *ahead[:1]), SHORTEST_LIFE * FIRST_RETRY) if ahead else delay
        self.retries += 1
        self.due = age + delay
        return delay


def hold(minted: MintedKey, asked: Moment, chance: float) -> HeldKey:
    """The key as it is from now on; `asked` is when it was asked for, `chance` is from [0, 1)."""
    life = max(minted.expires_at - minted.issued_at, SHORTEST_LIFE)
    if minted.renewable:
        due = life * (REPLACE_AT - SPREAD * chance)
        return HeldKey(minted.text, True, life, asked, minted.expires_at, due)
    issued = minted.issued_at if math.isfinite(life) else asked.wall
    began = Moment(issued, asked.steady - (asked.wall - issued))
    return HeldKey(minted.text, False, life, began, minted.expires_at, life * LAST_CALL)
