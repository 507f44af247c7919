"""What this node knows of revoked keys, and whether it still hears the registry. In memory; asked on every admission.

The registry's sequence is the truth: whoever follows it tells this room, which tells those who have sessions to cut. A
key that is learned here is refused from the same moment on, so that no session slips in between.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

# Without word from the registry for so many seconds, a node admits no new session: it may have missed a revocation.
DEAF_AFTER = 5.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """By whom (a key's id) and when (seconds since the epoch) a key was revoked."""

    by: str
    at: float

    def sentence(self, key_id: str) -> str:
        """What an agent is told."""
        when = datetime.datetime.fromtimestamp(self.at, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"The key {key_id} was revoked by {self.by or 'the relay'} at {when}."


class Revocations:
    """Revoked keys that have not expired. `now` in `heard` and `deaf` is a steady clock's, in seconds."""

    def __init__(self) -> None:
        self._known: dict[str, Verdict] = {}
        self._heard = -math.inf
        self.on_revoked: list[Callable[[Mapping[str, Verdict]], None]] = []
        """Called with the keys that are newly revoked, before `learn` returns."""

    def learn(self, found: Mapping[str, Verdict]) -> None:
        """These keys are revoked. Keys that were known before change nothing."""
        fresh = {key_id: verdict for key_id, verdict in found.items() if key_id not in self._known}
        self._known.update(fresh)
        if fresh:
            for tell in self.on_revoked:
                tell(fresh)

    def forget(self, ids: Iterable[str]) -> None:
        """These keys have expired: nobody needs to know of them any more."""
        for key_id in ids:
            self._known.pop(key_id, None)

    def known(self) -> set[str]:
        """Every key that is not forgotten."""
        return set(self._known)

    def verdict(self, key_id: str) -> Verdict | None:
        """How the key was revoked; None: it was not."""
        return self._known.get(key_id)

    def heard(self, now: float) -> None:
        """The registry answered, and all that it said has been learned."""
        self._heard = now

    def silence(self, now: float) -> float:
        """Seconds since the registry was heard; infinite before the first time."""
        return now - self._heard

    def deaf(self, now: float) -> bool:
        """Whether a revocation may have been missed."""
        return self.silence(now) > DEAF_AFTER
