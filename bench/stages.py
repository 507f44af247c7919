"""The order of a run: systems in turn within each workload, rounds around the workloads; three stages.

`near`: all systems on loopback. `far`: a round trip of 100 ms between agent and relay. `growth`: what the relay alone
costs as tunnels and streams become many. A step that fails is told in the notes and does not end the run.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import measure
from bench.effort import Clock, Effort
from bench.loads.wire import LoadError
from bench.measure import Bulk
from bench.place import Door, Place, Unavailable, answers
from bench.results import Results, Sample
from bench.systems import RELAY, Running, System, agent_argv
from tests.support.child import ChildError
from tests.support.processes import DOMAIN

ONE_WAY = 0.05  # seconds: half of the 100 ms
HELD = 100e6  # bytes/s of the bulk stream that is held back
FAR_CONNECTIONS = 8
STARTS = 3
FULL_UP = 0.9  # cores of a load maker or an origin, each with one thread, from which on it may be what limits
NAMING_AGENTS = 30
MOST_NAMES = 64  # that one agent may have
REGISTERED_SECONDS = 1
Work = Callable[[Running], Awaitable[Sample]]


@dataclass(frozen=True, slots=True)
class Workload:
    """A name, the work, and who is spared it."""

    name: str
    work: Work
    but: tuple[str, ...] = ()
    headline: str = ""
    """The key of the sample that is shown while the run goes on."""
    times: int = 1
    """So often in each round: more where small differences are compared."""
    minor: bool = False
    """Who is in no ratio of a target, direct and the rivals, is asked for it in the first round only."""


class Run:
    """One run: what it measured so far, and how much time is left."""

    def __init__(self, results: Results, effort: Effort, verbose: bool = True) -> None:
        self.results = results
        self.effort = effort
        self.clock = Clock(effort.limit)
        self._verbose = verbose
        self._late = False

    async def step(self, workload: Workload, running: Running) -> None:
        """One sample, or a note why there is none."""
        if self.clock.is_over():
            if not self._late:
                self._late = True
                self.note(f"The time was up after {self.clock.passed():.0f} s, before {workload.name} of this round.")
            return
        try:
            sample = await workload.work(running)
        except Unavailable:
            return
        except (ChildError, LoadError, ValueError, OSError) as error:
            self.note(f"{workload.name} failed with {running.name}: {str(error).splitlines()[0]}")
            return
        self.results.add(workload.name, running.name, sample)
        if running.name != "direct" and max(sample.get("load_busy", 0.0), sample.get("origin_busy", 0.0)) > FULL_UP:
            self.note(f"{workload.name}: the load maker or the origin may have limited {running.name}.")
        if sample.get("wrong"):
            self.note(f"{workload.name}: {sample['wrong']:.0f} answers of {running.name} were errors or never came.")
        key = workload.headline or next(iter(sample))
        self.say(f"{workload.name:<18} {running.name:<8} {key} {sample[key]:.6g}")
        await measure.settle()

    def note(self, text: str) -> None:
        """Something that a reader of the figures must know."""
        self.results.notes.append(text)
        self.say(text)

    def say(self, text: str) -> None:
        """A line of progress."""
        if self._verbose:
            sys.stdout.write(f"[{self.clock.passed():4.0f} s] {text}\n")
            sys.stdout.flush()


async def start(run: Run, place: Place, systems: Sequence[System], stage: str) -> list[Running]:
    """Those that can be started here; the others leave a note."""
    started: list[Running] = []
    for system in systems:
        folder = f"{stage}-{system.name}"
        try:
            running = await system.start(place.inner(folder, place.stack, place.one_way))
        except Unavailable as why:
            run.note(f"{system.name} was skipped: {why}.")
            continue
        except ChildError as error:
            run.note(f"{system.name} was skipped, it did not start: {str(error).splitlines()[0]}.")
            continue
        running.origins = place.origins
        started.append(running)
        run.results.systems.setdefault(system.name, system.describe())
    await measure.settle(0.5)
    for running in started:
        running.note_idle()
    return started


def _small(connections: int, seconds: int, script: Path | None = None) -> Work:
    return lambda running: measure.small(running, connections, seconds, script)


def _bulk(kind: Bulk) -> Work:
    return lambda running: measure.bulk(running, kind)


# ------------------------------------------------------------------------------------------------ near


def near_workloads(effort: Effort) -> list[Workload]:
    """Everything that all systems are asked for on loopback."""
    one, spared = effort, ("asgi", "direct")
    # What ASGI costs is told by one row; at one connection and at many it would say no more.
    found = [
        Workload("small-1", _small(1, one.small), ("asgi",), "rate", times=one.again),
        Workload("small-32", _small(32, one.small), (), "rate"),
        Workload("small-256", _small(256, one.small), ("asgi",), "rate", minor=True),
        Workload("varied-32", _small(32, one.small, measure.VARIED), ("asgi",), "rate", minor=True),
        Workload("down-1", _bulk(Bulk("down", one.down)), ("asgi",), "rate"),
        Workload("up-1", _bulk(Bulk("up", one.up)), ("asgi",), "rate"),
    ]
    if one.many:
        found.append(Workload("down-8", _bulk(Bulk("down", one.many, 8)), ("asgi",), "rate"))
        found.append(Workload("up-8", _bulk(Bulk("up", one.many, 8)), ("asgi",), "rate", minor=True))
    found += [
        Workload("probe", lambda r: measure.probe(r, one.beside), spared, "p99", times=one.again),
        Workload("beside-held", lambda r: measure.beside(r, HELD, one.beside), spared, "p99", times=one.again),
        Workload("beside-full", lambda r: measure.beside(r, 0, one.beside), spared, "p99"),
        Workload("events", lambda r: measure.events(r, one.events), ("asgi",), "p50", times=one.again),
    ]
    if one.echo:
        found.append(Workload("echo", lambda r: measure.echo(r, one.echo), ("asgi",), "rate", minor=True))
    return found


async def near(run: Run, place: Place, systems: Sequence[System]) -> None:
    """All systems on loopback."""
    rounds = run.effort.rounds
    async with contextlib.AsyncExitStack() as stack:
        inner = place.inner("near", stack)
        running = await start(run, inner, systems, "near")
        rivals = {system.name for system in systems if system.rival}
        for one in running:
            if one.relay and one.name != "asgi":
                await run.step(Workload("idle", measure.idle_memory), one)
                if one.name == "relay":
                    for _ in range(STARTS if rounds > 1 else 1):
                        await run.step(Workload("in-service", lambda r: _in_service(r, inner)), one)
        spent = {True: 0.0, False: 0.0}  # seconds of a round, by whether it was for a rival
        for number in range(rounds):
            left = (rounds - number) * spent[False] + spent[True] + run.effort.reserve
            joining = not number or run.clock.passed() + left < run.effort.limit
            if rivals and not joining:
                run.note(f"The others were left out of round {number + 1}: the time does not suffice for all.")
            turn = number % max(len(running), 1)
            taking = [one for one in running[turn:] + running[:turn] if joining or one.name not in rivals]
            took = await _round(run, taking, rivals, first=not number)
            spent = took if joining else spent


async def _round(run: Run, taking: Sequence[Running], rivals: set[str], first: bool) -> dict[bool, float]:
    """Every workload, the systems in turn; the seconds that rivals took, and all others."""
    spent = {True: 0.0, False: 0.0}
    for workload in near_workloads(run.effort):
        for _ in range(workload.times):
            for one in taking:
                is_rival = one.name in rivals
                spared = workload.minor and not first and (is_rival or one.name == "direct")
                if spared or one.name in workload.but:
                    continue
                before = run.clock.passed()
                await run.step(workload, one)
                spent[is_rival] += run.clock.passed() - before
    return spent


# ------------------------------------------------------------------------------------------------ far


def far_workloads(effort: Effort) -> list[Workload]:
    """Asked for over the path with a delay."""
    down, up = (Bulk(way, seconds=effort.far_bulk, since=effort.far_since) for way in ("down", "up"))
    return [
        Workload("far-small-32", lambda r: measure.small(r, 32, effort.far_small), headline="rate"),
        Workload("far-down", _bulk(down), ("direct",), "sustained"),
        Workload("far-up", _bulk(up), ("direct",), "sustained"),
        Workload("far-beside", lambda r: measure.beside(r, 0, effort.far_beside, FAR_CONNECTIONS), ("direct",), "p99"),
    ]


def undelayed_workloads(effort: Effort) -> list[Workload]:
    """The same path without its delay: what the far ones are compared with."""
    down, up = (Bulk(way, seconds=effort.far_bulk / 2, since=effort.far_since / 2) for way in ("down", "up"))
    return [
        Workload("path-down", _bulk(down), ("direct",), "sustained"),
        Workload("path-up", _bulk(up), ("direct",), "sustained"),
    ]


async def far(run: Run, place: Place, systems: Sequence[System], rounds: int) -> None:
    """Each system twice over a path of its own, with the delay and without, in turn."""
    async with contextlib.AsyncExitStack() as stack:
        chosen = [one for one in systems if one.delayable]
        if not chosen or run.clock.is_over():
            return
        inner = place.inner(f"far-{chosen[0].name}", stack)
        stands: list[tuple[list[Workload], list[Running]]] = []
        for delay, workloads in ((0.0, undelayed_workloads(run.effort)), (ONE_WAY, far_workloads(run.effort))):
            running: list[Running] = []
            needed = {name for work in workloads for name in {one.name for one in chosen} - set(work.but)}
            for system in (one for one in chosen if one.name in needed):
                running += await start_one(run, inner.inner(f"{system.name}-{delay:g}", stack, delay), system)
            stands.append((workloads, running))
        for _ in range(rounds):
            for workloads, running in stands:
                for workload in workloads:
                    for one in running:
                        if one.name not in workload.but:
                            await run.step(workload, one)


async def start_one(run: Run, own: Place, system: System) -> list[Running]:
    """One system on a place of its own; empty when it cannot run."""
    try:
        running = await system.start(own)
    except (Unavailable, ChildError):
        return []  # noted when it was started near
    run.results.systems.setdefault(system.name, system.describe())
    running.origins = own.origins
    await measure.settle()
    running.note_idle()
    return [running]


# ------------------------------------------------------------------------------------------------ growth


async def growth(run: Run, place: Place, systems: Sequence[System]) -> None:
    """Freshly started: idle streams; of the relay alone tunnels, names, and requests as tunnels become many."""
    effort = run.effort
    if effort.streams:
        holding = [one for one in systems if one.name in ("nginx", "relay", *run.results.systems)]
        holding = [one for one in holding if one.name not in ("direct", "asgi")]
        async with contextlib.AsyncExitStack() as stack:
            for one in await start(run, place.inner("streams", stack), holding, "streams"):
                await run.step(Workload("idle-streams", lambda r: measure.idle_streams(r, effort.streams)), one)
    if effort.agents:
        async with contextlib.AsyncExitStack() as stack:
            for one in await start(run, place.inner("growth", stack), [RELAY], "growth"):
                await run.step(Workload("idle-agents", _idle_agents(place, effort.agents)), one)
                await run.step(Workload("idle-names", _idle_names(place)), one)
    if effort.registered:
        async with contextlib.AsyncExitStack() as stack:
            await registered(run, place, stack)


async def registered(run: Run, place: Place, stack: contextlib.AsyncExitStack) -> None:
    """Small GETs on one tunnel while so many are registered, fifty names to an agent: a relay for each number, all at
    once, asked in turn, since a machine changes its pace more than these differ.
    """
    stands: list[tuple[Workload, Running]] = []
    for tunnels in run.effort.registered:
        workload = Workload(f"registered-{tunnels}", _small(32, REGISTERED_SECONDS), headline="rate")
        for one in await start(run, place.inner(f"registered-{tunnels}", stack), [RELAY], "registered"):
            agents, names = max(tunnels // 50, 1), min(tunnels, 50)
            if tunnels > 1:
                await stack.enter_async_context(measure.holding_agents(one, place.static, agents, names))
            stands.append((workload, one))
    for _ in range(run.effort.registered_rounds):
        for workload, one in stands:
            await run.step(workload, one)


async def _in_service(running: Running, place: Place) -> Sample:
    """Seconds from starting an agent to the first answer through it."""
    name = f"new-{time.monotonic_ns():x}"
    async with contextlib.AsyncExitStack() as stack:
        began = time.monotonic()
        argv = agent_argv(running.agents_port, running.key_file, f"{name}={place.static}")
        agent = await place.inner("new", stack).run(argv, "agent")
        await agent.wait_event("established", 15.0)
        welcomed = time.monotonic() - began
        await answers(Door(running.static.port, f"{name}.{DOMAIN}"), "/small", every=0.002)
        return {"established": welcomed, "answered": time.monotonic() - began}


def _idle_agents(place: Place, agents: int) -> Work:
    """Resident bytes of the relay for each further agent; a few before them use up what was free by chance."""

    async def work(running: Running) -> Sample:
        assert running.relay is not None
        async with measure.holding_agents(running, place.static, agents // 4, 1):
            before = running.relay.rss()
            async with measure.holding_agents(running, place.static, agents, 1):
                await measure.settle(0.5)
                return {"relay_memory": (running.relay.rss() - before) / agents}

    return work


def _idle_names(place: Place) -> Work:
    """Resident bytes of the relay for each further name: what agents with many cost more than agents with one."""

    async def work(running: Running) -> Sample:
        assert running.relay is not None
        seen = [running.relay.rss()]
        async with contextlib.AsyncExitStack() as stack:
            for names in (1, MOST_NAMES):
                await stack.enter_async_context(measure.holding_agents(running, place.static, NAMING_AGENTS, names))
                await measure.settle(0.5)
                seen.append(running.relay.rss())
        few, many = seen[1] - seen[0], seen[2] - seen[1]
        return {"relay_memory": max(0, many - few) / (NAMING_AGENTS * (MOST_NAMES - 1))}

    return work
