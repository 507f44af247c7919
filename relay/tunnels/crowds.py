"""How many come from one network (see `network_of`), and how often they come in vain. Pure: no sockets, and the time is
passed in. What is done with one too many is decided by whoever asks.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from relay.limits.buckets import Bucket

# Above so many times a bound a connection is worth no answer.
FAR = 2
# Networks that failed lately are remembered up to this many; the one that failed least lately is forgotten first.
MOST_REMEMBERED = 4096
FAILURES_AT_ONCE = 20.0
FAILURES_A_SECOND = 2.0


class Crowd:
    """Those that are there now, in all and by network, within bounds."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self.most = most
        self.most_of_one = most_of_one
        self.refused = 0
        """Those that were one too many, so far."""
        self._all = 0
        self._of: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._all

    def enter(self, network: str) -> int:
        """Counts one in. 0: there was room; 1: it is one too many; 2: far too many. An empty network has no bound of
        its own (a proxy that is trusted stands for many).
        """
        self._all += 1
        here = 0
        if network:
            here = self._of[network] = self._of[network] + 1
        if self._all <= self.most and here <= self.most_of_one:
            return 0
        self.refused += 1
        return 2 if self._all > FAR * self.most or here > FAR * self.most_of_one else 1

    def leave(self, network: str) -> None:
        """Counts one out that was counted in."""
        self._all -= 1
        if network:
            self._of[network] -= 1
            if self._of[network] <= 0:
                del self._of[network]


class Failures:
    """How often each network failed of late. `now` is a steady clock's, in seconds."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def wait(self, network: str, now: float) -> float:
        """Seconds until it may try again; 0: now."""
        bucket = self._buckets.get(network)
        return 0.0 if bucket is None else bucket.wait(1.0, now)

    def failed(self, network: str, now: float, weight: float = 1.0) -> None:
        """It has failed; less than 1 for what is hardly its fault."""
        bucket = self._buckets.get(network)
        if bucket is None:
            while len(self._buckets) >= MOST_REMEMBERED:
                self._buckets.popitem(last=False)
            bucket = self._buckets[network] = Bucket(FAILURES_A_SECOND, FAILURES_AT_ONCE)
        self._buckets.move_to_end(network)
        # Into debt: those that were let in together, before the first of them failed, are paid for by those after them.
        bucket.spend(weight, now)
