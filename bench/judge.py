"""How a target is judged: a figure as a function of a run, two limits, a verdict. Which targets there are: `targets`.

A figure is judged as it is shown, rounded to its digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from bench.results import Results

MIB = 1024.0**2
Verdict = Literal["wanted", "met", "missed", "not measured"]
Judged = Callable[[Results], float | None]


@dataclass(frozen=True, slots=True)
class Target:
    """`needed` and `wanted` are limits from below when `at_least`, else from above; `unit` stands behind the number."""

    what: str
    judged: Judged
    needed: float
    wanted: float
    at_least: bool = False
    unit: str = ""
    elsewhere: str = ""
    """What was seen of others on the same kind of machine, for the reader."""
    why: str = ""
    """Where the cost lies, said where the target is missed or only met."""

    @property
    def digits(self) -> int:
        """Digits behind the point."""
        return 0 if self.unit == "MiB" else 2 if not self.unit else 1

    def verdict(self, results: Results) -> tuple[float | None, Verdict]:
        """The figure and what it means."""
        exact = self.judged(results)
        if exact is None:
            return None, "not measured"
        value = round(exact, self.digits)

        def holds(limit: float) -> bool:
            return value >= limit if self.at_least else value <= limit

        return value, "wanted" if holds(self.wanted) else "met" if holds(self.needed) else "missed"

    def limit(self, value: float) -> str:
        """As people write it."""
        return f"{'≥' if self.at_least else '≤'} {value:g}{' ' + self.unit if self.unit else ''}"


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def against_nginx(workload: str, key: str, of_nginx: str = "") -> Judged:
    """The relay's figure over nginx's."""

    def judged(results: Results) -> float | None:
        return _ratio(results.median(workload, "relay", key), results.median(workload, "nginx", of_nginx or key))

    return judged


def between(numerator: tuple[str, str, str], denominator: tuple[str, str, str]) -> Judged:
    """One figure over another; each is (workload, system, key)."""

    def judged(results: Results) -> float | None:
        return _ratio(results.median(*numerator), results.median(*denominator))

    return judged


def single(workload: str, key: str, unit: float, system: str = "relay") -> Judged:
    """One figure in its unit."""

    def judged(results: Results) -> float | None:
        return _ratio(results.median(workload, system, key), unit)

    return judged


def peak(key: str, workloads: Iterable[str]) -> Judged:
    """The most memory above idle that the relay's side (or the agent's) held in any of these, in MiB."""
    names = tuple(workloads)

    def judged(results: Results) -> float | None:
        figures = [figure.most for name in names if (figure := results.figure(name, "relay", key))]
        return max(figures) / MIB if figures else None

    return judged


def added_time(results: Results) -> float | None:
    """One request at a time: what the relay adds to direct, over what nginx adds."""
    rates = [results.median("small-1", name, "rate") for name in ("direct", "nginx", "relay")]
    if not all(rates):
        return None
    direct, nginx, relay = (1 / rate for rate in rates if rate)
    return _ratio(relay - direct, nginx - direct) if nginx > direct else None


def added_delay(results: Results) -> float | None:
    """Median delay of an event: what the relay adds to direct, over what nginx adds."""
    direct, nginx, relay = (results.median("events", name, "p50") for name in ("direct", "nginx", "relay"))
    if direct is None or nginx is None or relay is None or nginx <= direct:
        return None
    return (relay - direct) / (nginx - direct)
