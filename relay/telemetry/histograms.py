"""A histogram as the path of a request can afford it: one search in a short list and two additions. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence


class Histogram:
    """How often values fell between `bounds`, which rise; a value counts below the first bound that is not less."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        """For each bound the values up to it and above the one before; the last: those above all bounds."""
        self.total = 0.0
        """The sum of all values."""

    def observe(self, value: float) -> None:
        """Counts one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: list[float]) -> None:
        """Counts many at once, and sorts them."""
        values.sort()
        counts, before = self.counts, 0
        for at, bound in enumerate(self.bounds):
            upto = bisect_right(values, bound)
            counts[at] += upto - before
            before = upto
        counts[-1] += len(values) - before
        self.total += sum(values)
