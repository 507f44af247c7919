"""The soak: a relay with two sets of agents, a load of every kind, faults on one path, and the accounts at the end.

`await soak(Plan(seconds, seed), say)` gives the checks. One path is calm: on it no visitor may see any error at all.
The other leads through a fault proxy, with a fault for every hundred exchanges.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from tests.soak.service import ServiceProcess
from tests.soak.verdict import (
    JUDGED_FROM,
    Check,
    Memory,
    check_baseline,
    check_credit,
    check_errors,
    check_kinds,
    check_memory,
)
from tests.soak.visits import KINDS, OK, Place, Visitor
from tests.soak.weather import Weather
from tests.support.child import Child
from tests.support.faultprocess import FaultProcess
from tests.support.processes import DOMAIN, RelayProcess
from tests.system.fleet import Fleet, Orders
from tests.system.numbers import OPEN, descriptors, numbers, until

CALM, ROUGH = "calm", "rough"
CROWD = {"small": 4, "echo": 2, "events": 3, "websocket": 2, "upload": 1, "download": 1, "leaver": 2, "breaker": 1}
"""Visitors of each kind, at each name."""
PAUSES = {"small": 0.03, "echo": 0.05, "upload": 0.3, "download": 0.3, "breaker": 0.2}
PAUSE = 0.1
REST_WITHIN = 25.0
"""Seconds for everything to come to rest: longer than a half-open link is believed."""
LONGER_BY = 10.0
"""Seconds by which a short load may be prolonged, until every kind of visit has gone well once."""
SAMPLES = 300
WINDOWS = {"given": "relay_credit_given_bytes", "left": "relay_credit_left_bytes", "held": "relay_window_held_bytes"}
WINDOWS |= {"waiting": "relay_outbox_bytes"}
AT_REST = ("relay_tasks", "relay_links_live", "relay_streams_open", "relay_exchanges_open", "relay_requests_held")


@dataclass(frozen=True, slots=True)
class Plan:
    """How long the load lasts (seconds), and the seed of all chance in it."""

    seconds: float
    seed: int


@dataclass
class Report:
    """What came of it."""

    plan: Plan
    checks: list[Check] = field(default_factory=list)
    exchanges: dict[str, int] = field(default_factory=dict)
    """By kind."""
    outcomes: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    memory: list[Memory] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all of it holds."""
        return bool(self.checks) and all(check.ok for check in self.checks)


@dataclass
class House:
    """Everything that runs."""

    relay: RelayProcess
    fleets: dict[str, Fleet]
    places: dict[str, Place]
    weather: Weather

    async def rest(self) -> dict[str, dict[str, int]]:
        """What is counted in each process, once it does nothing."""
        told = await numbers(self.relay)
        found = {"relay": {name: told[name] for name in AT_REST} | {"descriptors": descriptors(self.relay)}}
        for name, fleet in self.fleets.items():
            asked = await fleet.ask()
            found[f"agents, {name}"] = {each: asked[each] for each in ("links", "tasks", "streams", "exchanges")}
        return found

    async def credit(self) -> Check:
        """Both sides of every window."""
        agents = [await fleet.ask() for fleet in self.fleets.values()]
        told = await numbers(self.relay)
        return check_credit({short: told[name] for short, name in WINDOWS.items()}, agents)


async def soak(plan: Plan, say: Callable[[str], None]) -> Report:
    """Run it; `say` hears a line now and then. Raises what breaks the soak itself."""
    report = Report(plan)
    async with AsyncExitStack() as stack:
        house = await _build(stack, plan)
        await _load(house, plan.seed, 1.0, "first")  # pools are filled, code is warm
        before = await _at_rest(house, None)
        for place in house.places.values():
            place.visits.clear()
        report.memory = [Memory("relay"), Memory("agents, rough")]
        processes: list[Child] = [house.relay, house.fleets[ROUGH]]
        watching = asyncio.create_task(_watch(house, report.memory, processes, plan, say))
        try:
            await _load(house, plan.seed, plan.seconds, "load", house.weather)
        finally:
            watching.cancel()
            await asyncio.wait({watching})
        after = await _at_rest(house, before)
        await _judge(house, report, before, after)
    return report


async def _build(stack: AsyncExitStack, plan: Plan) -> House:
    local = await stack.enter_async_context(ServiceProcess())
    relay = await stack.enter_async_context(RelayProcess())
    proxy = await stack.enter_async_context(FaultProcess(relay.agents_port, seed=plan.seed))
    fleets = {}
    for name, port in ((CALM, relay.agents_port), (ROUGH, proxy.port)):
        tunnels = (f"{name}={local.port}", f"{name}-ws={local.ws_port}")
        fleets[name] = Fleet(Orders(port, str(relay.key_file), tunnels))
        await stack.enter_async_context(fleets[name])
    for fleet in fleets.values():
        await fleet.up()
    places = {name: Place(relay.public_port, name, DOMAIN) for name in (CALM, ROUGH)}
    rough, chance = places[ROUGH], random.Random(f"{plan.seed}/weather")
    weather = Weather(proxy, chance, lambda: rough.begun, patient=plan.seconds >= JUDGED_FROM)
    return House(relay, fleets, places, weather)


async def _load(house: House, seed: int, seconds: float, what: str, weather: Weather | None = None) -> None:
    """Visitors of every kind at every name, for so long or until each kind has gone well; then until the last visit
    has ended.
    """
    ending = asyncio.Event()

    async def end() -> None:
        await asyncio.sleep(seconds)
        over = time.monotonic() + LONGER_BY
        while not all(place.did_well(KINDS) for place in house.places.values()) and time.monotonic() < over:
            await asyncio.sleep(0.1)
        ending.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(end())
        for name, place in house.places.items():
            place.begun = 0
            for kind, count in CROWD.items():
                for number in range(count):
                    visitor = Visitor(place, kind, random.Random(f"{seed}/{what}/{name}/{kind}/{number}"))
                    group.create_task(visitor.run(ending, PAUSES.get(kind, PAUSE)))
        if weather is not None:
            group.create_task(weather.run(ending))


async def _at_rest(house: House, wanted: Mapping[str, Mapping[str, int]] | None) -> dict[str, dict[str, int]]:
    """What is counted, once nothing is under way and it is what is wanted; else as it is after a while."""
    over = time.monotonic() + REST_WITHIN
    await until(house.relay, dict.fromkeys(OPEN, 0), REST_WITHIN)
    while True:
        found = await house.rest()
        quiet = not any(counts["exchanges"] for name, counts in found.items() if name != "relay")
        if time.monotonic() > over or (quiet and wanted in (None, found) and (await house.credit()).ok):
            return found
        await asyncio.sleep(0.1)


async def _watch(
    house: House, memory: list[Memory], processes: list[Child], plan: Plan, say: Callable[[str], None]
) -> None:
    """Samples memory, and tells how far it is."""
    began, told = time.monotonic(), 0.0
    every = max(plan.seconds / SAMPLES, 0.2)
    while True:
        now = time.monotonic() - began
        for one, process in zip(memory, processes, strict=True):
            one.samples.append((now, process.rss()))
        if now - told >= max(plan.seconds / 20, 5.0):
            told = now
            visits = sum(len(place.visits) for place in house.places.values())
            faults = len(house.weather.spells)
            resident = ", ".join(f"{one.process} {one.samples[-1][1] / 2**20:.0f} MiB" for one in memory)
            say(f"{now:.0f} s: {visits} exchanges, {faults} faults; {resident}")
        await asyncio.sleep(every)


async def _judge(
    house: House, report: Report, before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]
) -> None:
    visits = [visit for place in house.places.values() for visit in place.visits]
    report.exchanges = dict(Counter(visit.kind for visit in visits))
    report.outcomes = dict(Counter(visit.outcome for visit in visits))
    report.faults = house.weather.counts
    report.checks = [
        check_kinds(visits, KINDS, (CALM, ROUGH)),
        check_errors(visits, {ROUGH: house.weather.spells}),
        *(check_memory(one) for one in report.memory),
        *(check_baseline(name, before[name], after[name]) for name in before),
        await house.credit(),
    ]
    ends = [await fleet.ask() for fleet in house.fleets.values()]
    stopped = [event for fleet in house.fleets.values() for event in fleet.events if event.get("event") in _BAD]
    seen = "; ".join(str(event) for event in stopped[:3]) or "none"
    report.checks.append(Check("agents", "none has ended or met a defect of its own", seen, ok=not stopped))
    said = house.relay.stderr
    report.checks.append(Check("the relay's log", "nothing", said[-500:] or "nothing", ok=not said))
    report.outcomes[OK] = report.outcomes.get(OK, 0)
    refused: Counter[str] = Counter()
    for end in ends:
        refused.update(end["refused"])
    report.outcomes |= {f"hello refused: {code}": count for code, count in refused.items()}


_BAD = frozenset(("stopped", "error"))


def as_json(report: Report) -> dict[str, Any]:
    """All of it, for a file."""
    return {
        "seconds": report.plan.seconds,
        "seed": report.plan.seed,
        "ok": report.ok,
        "exchanges": report.exchanges,
        "outcomes": report.outcomes,
        "faults": report.faults,
        "checks": [{"name": c.name, "asked": c.asked, "seen": c.seen, "ok": c.ok} for c in report.checks],
        "memory": {one.process: [[round(at, 2), size] for at, size in one.samples] for one in report.memory},
    }
