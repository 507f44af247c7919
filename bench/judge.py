"""How a target is judged: a figure as a function of a run and a system, two limits, a verdict. Which: `targets`.

The relay is judged; for any other system the same figure is what stands beside it. A figure is judged as it is shown,
rounded to its digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from bench.results import Results

MIB = 1024.0**2
Verdict = Literal["wanted", "met", "missed", "not measured"]
Judged = Callable[[Results, str], float | None]
"""Of a run, for a system by its name; None where something that it needs was not measured."""
Why = Callable[[Results], str]
Cell = tuple[str, str]
"""(workload, key)"""


@dataclass(frozen=True, slots=True)
class Target:
    """`needed` and `wanted` are limits from below when `at_least`, else from above; `unit` stands behind the number."""

    what: str
    judged: Judged
    needed: float
    wanted: float
    at_least: bool = False
    unit: str = ""
    why: Why | None = None
    """Where the cost lies in this run, said where the target is missed or only met."""

    @property
    def digits(self) -> int:
        """Digits behind the point."""
        return 0 if self.unit == "MiB" else 2 if not self.unit else 1

    def value(self, results: Results, system: str = "relay") -> float | None:
        """The figure, rounded as it is shown."""
        exact = self.judged(results, system)
        return None if exact is None else round(exact, self.digits)

    def verdict(self, results: Results) -> Verdict:
        """What the relay's figure means."""
        value = self.value(results)
        if value is None:
            return "not measured"
        return (
            "wanted"
            if self.is_within(value, self.wanted)
            else "met"
            if self.is_within(value, self.needed)
            else "missed"
        )

    def is_within(self, value: float, limit: float) -> bool:
        """Whether a figure is at least as good as another."""
        return value >= limit if self.at_least else value <= limit

    def show(self, value: float | None) -> str:
        """As people read it."""
        return "–" if value is None else f"{value:,.{self.digits}f}{' ' + self.unit if self.unit else ''}"

    def limit(self, value: float) -> str:
        """As people write it."""
        return f"{'≥' if self.at_least else '≤'} {value:g}{' ' + self.unit if self.unit else ''}"


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def against_nginx(workload: str, key: str, of_nginx: str = "") -> Judged:
    """A system's figure over nginx's."""

    def judged(results: Results, system: str) -> float | None:
        return _ratio(results.median(workload, system, key), results.median(workload, "nginx", of_nginx or key))

    return judged


def between(numerator: Cell, denominator: Cell, below: str = "") -> Judged:
    """One figure over another of the same system, or of the system `below`."""

    def judged(results: Results, system: str) -> float | None:
        above = results.median(numerator[0], system, numerator[1])
        return _ratio(above, results.median(denominator[0], below or system, denominator[1]))

    return judged


def single(workload: str, key: str, unit: float) -> Judged:
    """One figure in its unit."""

    def judged(results: Results, system: str) -> float | None:
        return _ratio(results.median(workload, system, key), unit)

    return judged


def peak(key: str, workloads: Iterable[str]) -> Judged:
    """The most memory above idle that the relay's side (or the agent's) held in any of these, in MiB."""
    names = tuple(workloads)

    def judged(results: Results, system: str) -> float | None:
        figures = [figure.most for name in names if (figure := results.figure(name, system, key))]
        return max(figures) / MIB if figures else None

    return judged


def added_time(results: Results, system: str) -> float | None:
    """One request at a time: what a system adds to direct, over what nginx adds."""
    rates = [results.median("small-1", name, "rate") for name in ("direct", "nginx", system)]
    if not all(rates):
        return None
    direct, nginx, one = (1 / rate for rate in rates if rate)
    return _ratio(one - direct, nginx - direct) if nginx > direct else None


def added_delay(results: Results, system: str) -> float | None:
    """Median delay of an event: what a system adds to direct, over what nginx adds."""
    direct, nginx, one = (results.median("events", name, "p50") for name in ("direct", "nginx", system))
    if direct is None or nginx is None or one is None or nginx <= direct:
        return None
    return (one - direct) / (nginx - direct)
