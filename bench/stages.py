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

from bench import measure
from bench.effort import Clock, Effort
from bench.loads.wire import LoadError
from bench.measure import Bulk
from bench.place import Door, Place, Unavailable, answers
from bench.results import Results, Sample
from bench.systems import REFERENCES, RELAY, Running, System, agent_argv
from tests.support.child import ChildError
from tests.support.processes import DOMAIN

ONE_WAY = 0.05  # seconds: half of the 100 ms
HELD = 100e6  # bytes/s of the bulk stream that is held back
FAR_CONNECTIONS = 8
STARTS = 3
REGISTERED_SECONDS = 3
Work = Callable[[Running], Awaitable[Sample]]


@dataclass(frozen=True, slots=True)
class Workload:
    """A name, the work, and who is spared it."""

    name: str
    work: Work
    but: tuple[str, ...] = ()
    headline: str = ""
    """The key of the sample that is shown while the run goes on."""


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
        started.append(running)
        run.results.systems.setdefault(system.name, system.about)
    await measure.settle(0.5)
    for running in started:
        running.note_idle()
    return started


# ------------------------------------------------------------------------------------------------ near


def near_workloads(effort: Effort) -> list[Workload]:
    """Everything that all systems are asked for on loopback."""
    one = effort
    found = [
        Workload(f"small-{number}", lambda r, n=number: measure.small(r, n, one.small), headline="rate")
        for number in one.connections
    ]
    bulk = [("down-1", Bulk("down", one.down)), ("up-1", Bulk("up", one.up))]
    bulk += [("down-8", Bulk("down", one.many_down, 8))] if one.many_down else []
    bulk += [("up-8", Bulk("up", one.many_up, 8))] if one.many_up else []
    found += [Workload(name, lambda r, b=b: measure.bulk(r, b), ("asgi",), "rate") for name, b in bulk]
    spared = ("asgi", "direct")
    found += [
        Workload("probe", lambda r: measure.probe(r, one.beside / 2), spared, "p99"),
        Workload("beside-held", lambda r: measure.beside(r, HELD, one.beside), spared, "p99"),
        Workload("beside-full", lambda r: measure.beside(r, 0, one.beside), spared, "p99"),
        Workload("events", lambda r: measure.events(r, one.events), ("asgi",), "p50"),
    ]
    if one.echo:
        found.append(Workload("echo", lambda r: measure.echo(r, one.echo), ("asgi",), "rate"))
    return found


async def near(run: Run, place: Place, systems: Sequence[System]) -> None:
    """All systems on loopback."""
    async with contextlib.AsyncExitStack() as stack:
        inner = place.inner("near", stack)
        running = await start(run, inner, systems, "near")
        rivals = {system.name for system in systems if system.rival}
        for one in running:
            if one.relay and one.name != "asgi":
                await run.step(Workload("idle", measure.idle_memory), one)
        for number in range(run.effort.rounds):
            for workload in near_workloads(run.effort):
                turn = number % max(len(running), 1)
                for one in running[turn:] + running[:turn]:
                    if one.name not in workload.but and (number == 0 or one.name not in rivals):
                        await run.step(workload, one)


# ------------------------------------------------------------------------------------------------ far


def far_workloads(effort: Effort) -> list[Workload]:
    """Asked for over the path with a delay."""
    sustained = {"seconds": effort.far_bulk, "since": effort.far_since}
    return [
        Workload("far-small-32", lambda r: measure.small(r, 32, effort.far_small), headline="rate"),
        Workload("far-down", lambda r: measure.bulk(r, Bulk("down", **sustained)), headline="sustained"),
        Workload("far-up", lambda r: measure.bulk(r, Bulk("up", **sustained)), headline="sustained"),
        Workload(
            "far-beside", lambda r: measure.beside(r, 0, effort.far_beside, FAR_CONNECTIONS), ("direct",), "p99"
        ),
    ]


def undelayed_workloads(effort: Effort) -> list[Workload]:
    """The same path without its delay: what the far ones are compared with."""
    brief = {"seconds": effort.far_bulk / 2, "since": effort.far_since / 2}
    return [
        Workload("path-down", lambda r: measure.bulk(r, Bulk("down", **brief)), ("direct",), "sustained"),
        Workload("path-up", lambda r: measure.bulk(r, Bulk("up", **brief)), ("direct",), "sustained"),
    ]


async def far(run: Run, place: Place, systems: Sequence[System]) -> None:
    """Each system over a path of its own, in turn; the delay is switched on and off on the live tunnel."""
    async with contextlib.AsyncExitStack() as stack:
        inner = place.inner("far", stack, 0.0)
        chosen = [one for one in systems if one.delayable and one.name != "nginx"]
        rivals = {system.name for system in chosen if system.rival}
        running: list[tuple[Running, Place]] = []
        for system in chosen:
            own = inner.inner(system.name, stack, 0.0)
            running += [(one, own) for one in await start_one(run, own, system)]
        for number in range(run.effort.far_rounds):
            for delay, workloads in ((0.0, undelayed_workloads(run.effort)), (ONE_WAY, far_workloads(run.effort))):
                for one, own in running:
                    await own.delay(delay)
                for workload in workloads:
                    for one, _own in running:
                        if one.name not in workload.but and (number == 0 or one.name not in rivals):
                            await run.step(workload, one)


async def start_one(run: Run, own: Place, system: System) -> list[Running]:
    """One system on a place whose paths it keeps; empty when it cannot run."""
    try:
        running = await system.start(own)
    except (Unavailable, ChildError):
        return []  # noted when it was started near
    await measure.settle()
    running.note_idle()
    return [running]


# ------------------------------------------------------------------------------------------------ growth


async def growth(run: Run, place: Place) -> None:
    """The relay alone, freshly started: idle streams, tunnels, names; requests as tunnels become many."""
    effort = run.effort
    if effort.streams:
        async with contextlib.AsyncExitStack() as stack:
            for one in await start(run, place.inner("streams", stack), [*REFERENCES[1:2], RELAY], "streams"):
                await run.step(Workload("idle-streams", lambda r: measure.idle_streams(r, effort.streams)), one)
    async with contextlib.AsyncExitStack() as stack:
        [running] = await start(run, place.inner("growth", stack), [RELAY], "growth")
        for _ in range(STARTS if effort.rounds > 1 else 1):
            await run.step(Workload("in-service", lambda r: _in_service(r, place)), running)
        if effort.agents:
            for name, agents, names in (("idle-agents", effort.agents, 1), ("idle-names", 1, effort.agents)):
                await run.step(Workload(name, lambda r, a=agents, n=names: _idle_tunnels(r, place, a, n)), running)
    for number in range(effort.rounds if effort.registered else 0):
        for tunnels in effort.registered:
            async with contextlib.AsyncExitStack() as stack:
                inner = place.inner(f"registered-{number}-{tunnels}", stack)
                [running] = await start(run, inner, [RELAY], "registered")
                await run.step(
                    Workload(f"registered-{tunnels}", lambda r, t=tunnels: _registered(r, place, t), headline="rate"),
                    running,
                )


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


async def _idle_tunnels(running: Running, place: Place, agents: int, names: int) -> Sample:
    """Resident bytes of the relay for each further agent or name."""
    assert running.relay is not None
    before = running.relay.rss()
    async with measure.holding_agents(running, place.static, agents, names):
        await measure.settle(0.5)
        return {"relay_memory": (running.relay.rss() - before) / (agents * names)}


async def _registered(running: Running, place: Place, tunnels: int) -> Sample:
    """Small GETs on one tunnel while so many are registered, a hundred names to an agent."""
    agents, names = max(tunnels // 100, 1), min(tunnels, 100)
    async with contextlib.AsyncExitStack() as stack:
        if tunnels > 1:
            await stack.enter_async_context(measure.holding_agents(running, place.static, agents, names))
        return await measure.small(running, 32, REGISTERED_SECONDS)

