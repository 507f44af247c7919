"""Meters of links: what admission said of a key, and the operator of its project, made into limits that count.

It alone knows the chain of a link: its key, the keys above that, the project; and which chains have something to be
written. No I/O: the node writes what was counted, and tells what others counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from relay.keys.scopes import Scope
from relay.limits.allowances import Allowance, Allowances, Totals
from relay.limits.brakes import Brakes
from relay.limits.meter import Meter
from relay.limits.months import period_of
from relay.limits.pacing import Pacer
from relay.mux.session import Session
from relay.tunnels.admission import Principal
from relay.wire.limits import TunnelLimits

# Keys that have left are remembered with what they used up to this many; the one that left first is forgotten first.
MOST_ABSENT = 4096


class Measured(Protocol):
    """A link, as far as it is measured."""

    session: Session
    principal: Principal
    limits: Mapping[str, TunnelLimits]
    meter: Meter
    meters: Mapping[str, Meter]
    folded: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Count:
    """What one key used in one month and is not written yet."""

    project: str
    key_id: str
    period: str
    totals: Totals


class Metering:
    """One per node. `now` is in seconds since the epoch, `clock` is loop time."""

    def __init__(
        self, plan_of: Callable[[str], Scope], pacer: Pacer, now: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        self.pacer = pacer
        self.now = now
        self.clock = clock
        self.allowances = Allowances()
        self.fresh: set[str] = set()
        """Ids whose use so far nobody has told yet."""
        self.carried = [0, 0]
        """Bytes towards agents and from them, by whatever key, as far as they were folded."""
        self._plan_of = plan_of
        self._brakes = Brakes()
        self._chains: dict[str, tuple[Allowance, ...]] = {}
        """By the id of a key that links live or lived by: its allowance, those above it, that of its project."""
        self._absent: dict[str, Allowance] = {}
        """By the id of a key that has no link: what it has used of its month. Who comes back does not begin anew."""

    # ---- links

    def ceilings(self, principal: Principal) -> list[tuple[str, Scope]]:
        """What bounds a key: (id, scope) of itself, of the keys above it, nearest first, and of its project."""
        project = principal.project, self._plan_of(principal.project)
        return [(principal.key_id, principal.scope), *principal.above, project]

    def measure(self, link: Measured) -> None:
        """Gives a link its meter, and one for each of its names that has limits of its own."""
        chain = self._chain(link.principal)
        link.meter = Meter(chain)
        link.meters = {name: Meter(chain, self._brakes.of(name, one)) for name, one in link.limits.items()}

    def remeasure(self, link: Measured) -> None:
        """The same for a link that lives by another key now; what runs on it is under the limits of that one, too."""
        before, before_of = link.meter, link.meters
        self.measure(link)
        link.meter.open = before.open
        for name, meter in link.meters.items():
            meter.open = before_of[name].open

    def fold(self, link: Measured) -> None:
        """Counts what a link has carried since the last time."""
        self._fold(link, period_of(self.now()))

    def _fold(self, link: Measured, period: str) -> None:
        session = link.session
        sent, received = session.outbox.moved, session.window.received
        bytes_in, bytes_out = sent - link.folded[0], received - link.folded[1]
        self.carried[0] += bytes_in
        self.carried[1] += bytes_out
        link.meter.fold(period, bytes_in, bytes_out)
        link.folded = sent, received
        for meter in link.meters.values():
            meter.fold(period, 0, 0)

    def fold_all(self, links: Iterable[Measured]) -> None:
        """The same for all of them; where the bytes of a month are used up, what runs is cut."""
        wall = self.now()
        period = period_of(wall)
        for link in links:
            self._fold(link, period)
            link.meter.enforce(wall)
            for meter in link.meters.values():
                meter.enforce(wall)

    # ---- plans

    def on_plan(self, project: str, limits: Scope) -> None:
        """The project may use so much from now on."""
        allowance = self.allowances.get(project)
        if allowance is not None:
            allowance.rescope(limits, self.clock())

    # ---- books

    def unwritten(self) -> list[Count]:
        """What the registry does not know yet."""
        return [
            Count(chain[-1].id, key_id, period, totals)
            for key_id, chain in self._chains.items()
            for period, totals in chain[0].unwritten()
        ]

    def written(self, counts: Iterable[Count]) -> None:
        """The registry knows these now."""
        for count in counts:
            for allowance in self._chains[count.key_id]:
                allowance.written(count.period, count.totals)

    def learn(self, period: str, known: Mapping[str, Totals], ids: Iterable[str]) -> None:
        """What the registry knows of these ids in a month; of one that is not in `known`: nothing was used."""
        for one in ids:
            allowance = self.allowances.get(one)
            if allowance is not None:
                allowance.learn(period, known.get(one, Totals()))
            self.fresh.discard(one)

    def projects_of_keys(self) -> dict[str, str]:
        """The keys that are counted here, with their projects."""
        return {key_id: chain[-1].id for key_id, chain in self._chains.items()}

    def ids(self) -> set[str]:
        """Whatever is counted here: keys, those above them, projects."""
        return {allowance.id for chain in self._chains.values() for allowance in chain}

    def forget(self, key_ids: Iterable[str]) -> None:
        """No link lives by these keys. What is above them stays: it would begin anew otherwise."""
        for key_id in key_ids:
            own = self._chains[key_id][0]
            if own.unwritten():
                continue
            del self._chains[key_id]
            self.allowances.forget([key_id])
            if own.scope.monthly_requests or own.scope.monthly_bytes:
                self._absent[key_id] = own
                if len(self._absent) > MOST_ABSENT:
                    del self._absent[next(iter(self._absent))]

    def _chain(self, principal: Principal) -> tuple[Allowance, ...]:
        now, ceilings = self.clock(), self.ceilings(principal)
        self.fresh.update(one for one, _ in ceilings if self.allowances.get(one) is None)
        chain = tuple(self.allowances.of(one, scope, now) for one, scope in ceilings)
        self._chains[principal.key_id] = chain
        self._absent.pop(principal.key_id, None)
        return chain
