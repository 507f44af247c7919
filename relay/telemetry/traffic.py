"""What visitors asked and got: counted at the end of each exchange, by status class, the relay's own errors, and time.

Pure. Per-tunnel numbers are bounded: beyond `most_tunnels` names all others are counted together.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, Protocol

from relay.telemetry.histograms import Histogram

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Bounds of durations: from an answer within the machine to an event stream of minutes."""
CLASSES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx", "other")
"""Labels of status classes: by the first digit of a status, 0 for none; all that HTTP does not know are other."""
AT_ONCE: Final = 64
"""Exchanges that are counted together."""
OTHERS: Final = ""
"""The name under which tunnels beyond the cap are counted."""


def class_of(digit: int) -> str:
    """The label of a status that begins with this digit."""
    return CLASSES[min(digit, len(CLASSES) - 1)]


@dataclass(slots=True)
class TunnelTraffic:
    """What one tunnel carried in exchanges that are over. Bytes are those of bodies, `bytes_in` from visitors."""

    requests: int = 0
    errors: int = 0
    """Answered by the relay itself, or by the local service with 5xx."""
    bytes_in: int = 0
    bytes_out: int = 0


class Exchanged(Protocol):
    """An exchange that is over. Times are in seconds, of one clock."""

    tunnel: str
    status: int
    error: str
    began: float
    head_at: float
    over_at: float
    bytes_in: int
    bytes_out: int


class Traffic:
    """One per node. `most_tunnels`: so many tunnels get numbers of their own; 0: none does."""

    def __init__(self, most_tunnels: int = 0) -> None:
        self.requests: Counter[tuple[int, str]] = Counter()
        """By status class (1 to 5; 0: the visitor left before an answer) and the relay's error code, if it answered."""
        self.broken_off = 0
        """Answers that began and were not completed, whoever it was that did not want to go on."""
        self.duration = Histogram(SECONDS)
        self.first_byte = Histogram(SECONDS)
        """From the end of a request's head to the first byte of the local service's final answer."""
        self.tunnels: dict[str, TunnelTraffic] = {}
        self._most_tunnels = most_tunnels
        self._fresh: list[Exchanged] = []

    def count(self, one: Exchanged, complete: bool) -> None:
        """Counts an exchange, which does not change any more. `complete`: its answer was written to the end."""
        if one.status and not complete:
            self.broken_off += 1
        fresh = self._fresh
        fresh.append(one)
        if len(fresh) >= AT_ONCE:
            self.settle()

    def settle(self) -> None:
        """Counts what came since the last time: many together cost a fraction. Called before the numbers are read, and
        now and then, so that the last ones are not kept."""
        fresh, self._fresh = self._fresh, []
        self.requests.update([(one.status // 100, one.error) for one in fresh])
        self.duration.observe_all([one.over_at - one.began for one in fresh])
        self.first_byte.observe_all([one.head_at - one.began for one in fresh if one.status and not one.error])
        if self._most_tunnels:
            for one in fresh:
                if one.tunnel:
                    self._count_for(self.tunnel(one.tunnel), one)

    def _count_for(self, tunnel: TunnelTraffic, one: Exchanged) -> None:
        tunnel.requests += 1
        tunnel.errors += one.status >= 500 or bool(one.error)
        tunnel.bytes_in += one.bytes_in
        tunnel.bytes_out += one.bytes_out

    def tunnel(self, name: str) -> TunnelTraffic:
        """Where a tunnel's exchanges are counted."""
        found = self.tunnels.get(name)
        if found is None:
            if len(self.tunnels) >= self._most_tunnels:
                name = OTHERS
            found = self.tunnels.setdefault(name, TunnelTraffic())
        return found
