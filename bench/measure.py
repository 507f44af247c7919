"""Each workload as one function: a running system in, a sample out. Nothing here compares or repeats.

CPU is what the kernel counted for the system's two processes while the load ran; peaks are resident bytes above the
idle ones. Load makers run as processes of their own, so that their interpreter does not disturb the measuring one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from bench.nginxconf import SMALL, bulk_path
from bench.place import Door, Unavailable, program
from bench.results import Sample
from bench.systems import Running
from tests.support.child import KEEP_MEMORY, Child, ChildError

GIB = 2**30
VARIED = Path(__file__).parent / "loads" / "varied.lua"
FIRST_STREAMS = 16
LONGER = 0.8  # seconds that a bulk stream outlasts what is measured beside it
SLACK = 45.0  # seconds that a load maker may take beyond its own time
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_LATENCY = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)\s*$", re.MULTILINE)
_REQUESTS = re.compile(r"^\s*(\d+) requests in ", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)", re.MULTILINE)
_WRONG = re.compile(r"(?:Non-2xx or 3xx responses:\s+(\d+)|Socket errors: connect (\d+), read (\d+), write (\d+))")


class Cost:
    """CPU seconds that a system's processes use from here to `stop`, and what load maker and origin use meanwhile."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._before = self._now()

    def stop(self, units: float, seconds: float) -> Sample:
        """Up to here: divided by so many units of work; of load maker and origin the cores that were used, on average.

        The load maker has ended before, and was the only process that did; its load took so many seconds.
        """
        relay, agent, origin, load = (now - before for now, before in zip(self._now(), self._before, strict=True))
        sample: Sample = {}
        if self._running.relay:
            sample["relay_cpu"] = relay / units
        if self._running.agent:
            sample["agent_cpu"] = agent / units
        return sample | {"load_busy": load / seconds, "origin_busy": origin / seconds}

    def _now(self) -> tuple[float, float, float, float]:
        relay, agent = self._running.relay, self._running.agent
        origin = sum(child.cpu_seconds() for child in self._running.origins)
        own = os.times()
        ended = own.children_user + own.children_system
        return relay.cpu_seconds() if relay else 0.0, agent.cpu_seconds() if agent else 0.0, origin, ended


class Peaks:
    """The most that a system's processes hold from here to `stop`, above what they held before any load."""

    def __init__(self, running: Running) -> None:
        self._running = running
        for part in (running.relay, running.agent):
            if part:
                part.reset_peak()

    def stop(self) -> Sample:
        """Up to here, in bytes."""
        relay, agent = self._running.relay, self._running.agent
        sample: Sample = {}
        if relay:
            sample["relay_peak"] = max(0, relay.peak_rss() - self._running.relay_idle)
        if agent:
            sample["agent_peak"] = max(0, agent.peak_rss() - self._running.agent_idle)
        return sample


def live_door(running: Running) -> Door:
    """Raises Unavailable where a system has only the static door."""
    if running.live is None:
        raise Unavailable(f"{running.name} has no door to the live origin")
    return running.live


# ------------------------------------------------------------------------------------------------ load makers


@contextlib.asynccontextmanager
async def loading(name: str, door: Door, path: str, *more: object) -> AsyncIterator[Child]:
    """A load maker under way: `bench.loads.NAME`."""
    argv = [sys.executable, "-m", f"bench.loads.{name}"]
    argv += ["--port", str(door.port), "--host", door.host, "--path", path, *map(str, more)]
    async with Child(argv, name=f"load maker {name}", env=KEEP_MEMORY) as child:
        yield child


async def result(child: Child, seconds: float) -> Sample:
    """What a load maker found. Raises ChildError when it failed or took much longer than `seconds`."""
    event = await child.wait_event("result", seconds + SLACK)
    await child.wait()
    return {key: float(value) for key, value in event.items() if key != "event"}


async def made(seconds: float, name: str, door: Door, path: str, *more: object) -> Sample:
    """A load from its start to its result."""
    async with loading(name, door, path, *more) as child:
        return await result(child, seconds)


# ------------------------------------------------------------------------------------------------ small requests


async def small(running: Running, connections: int, seconds: int, script: Path | None = None) -> Sample:
    """Small GETs on keep-alive connections as fast as they are answered, by wrk; `script` makes its requests."""
    argv = [program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    argv += ["-s", str(script)] if script else []
    argv += ["-H", f"Host: {running.static.host}", f"http://127.0.0.1:{running.static.port}{SMALL}"]
    cost = Cost(running)
    async with Child(argv, name="wrk") as child:
        code = await child.wait(seconds + SLACK)
        said = "\n".join(child.lines)
        requests, rate = _REQUESTS.search(said), _RATE.search(said)
        if code or requests is None or rate is None or not int(requests[1]):
            raise ChildError(f"wrk failed\n{said}\n{child.report()}")
    sample: Sample = {"rate": float(rate[1]), "requests": float(requests[1])}
    sample |= cost.stop(int(requests[1]) / 1000, seconds)
    for share, number, unit in _LATENCY.findall(said):
        sample[f"p{share}"] = float(number) * _UNITS[unit]
    sample["wrong"] = float(sum(int(number) for match in _WRONG.findall(said) for number in match if number))
    return sample


async def probe(running: Running, seconds: float, connections: int = 1, interval: float = 0.002) -> Sample:
    """The time of small GETs at a gentle rate: p50 and p99."""
    more = ("--seconds", seconds, "--connections", connections, "--interval", interval)
    return await made(seconds, "probe", running.static, SMALL, *more)


# ------------------------------------------------------------------------------------------------ bulk


@dataclass(frozen=True, slots=True)
class Bulk:
    """A bulk transfer: `size` bytes on each of `streams`, or `seconds` of it, sustained behind `since`."""

    direction: str
    size: int = 0
    streams: int = 1
    seconds: float = 0.0
    since: float = 0.0
    rate: float = 0.0

    def options(self) -> list[object]:
        """For the load maker."""
        given: list[object] = [self.direction, "--streams", self.streams]
        for flag, value in (("--bytes", self.size if self.direction == "up" else 0), ("--seconds", self.seconds)):
            if value:
                given += [flag, value]
        return [*given, "--since", self.since, "--rate", self.rate]


async def bulk(running: Running, kind: Bulk) -> Sample:
    """Bytes per second, CPU seconds per GiB, peak memory above idle."""
    door, path = (running.static, bulk_path(kind.size)) if kind.direction == "down" else (live_door(running), "/sink")
    peaks, cost = Peaks(running), Cost(running)
    sample = await made(kind.seconds, "bulk", door, path, *kind.options())
    return sample | cost.stop(sample["bytes"] / GIB, sample["seconds"]) | peaks.stop()


async def beside(running: Running, rate: float, seconds: float, connections: int = 1) -> Sample:
    """Small GETs while a bulk download runs, held at `rate` bytes/s (0: at full speed)."""
    more = ("down", "--seconds", seconds + LONGER, "--rate", rate)
    peaks = Peaks(running)
    async with loading("bulk", running.static, bulk_path(0), *more) as child:
        await child.wait_event("flowing", SLACK)
        interval = 0.002 if connections == 1 else 0.05
        sample = await probe(running, seconds, connections, interval)
        moved = await result(child, seconds)
    return sample | {"bulk": moved["rate"]} | peaks.stop()


# ------------------------------------------------------------------------------------------------ streams


async def events(running: Running, seconds: float, rate: int = 100) -> Sample:
    """Delay of server-sent events, and the time to the first."""
    return await made(seconds, "events", live_door(running), f"/events?rate={rate}", "read", "--seconds", seconds)


async def echo(running: Running, seconds: float, connections: int = 32) -> Sample:
    """WebSocket messages echoed per second."""
    more = ("--seconds", seconds, "--connections", connections)
    cost = Cost(running)
    sample = await made(seconds, "websocket", live_door(running), "/echo", *more)
    return sample | cost.stop(sample["count"] / 1000, seconds)


async def idle_streams(running: Running, streams: int) -> Sample:
    """Resident bytes for each silent event stream; a few before them use up what was free by chance, but not more than
    one address may hold beside them.
    """
    async with holding_streams(running, FIRST_STREAMS):
        before = _resident(running)
        async with holding_streams(running, streams):
            after = _resident(running)
    return {key: (after[key] - before[key]) / streams for key in after}


@contextlib.asynccontextmanager
async def holding_streams(running: Running, streams: int) -> AsyncIterator[Child]:
    """So many silent event streams."""
    async with loading("events", live_door(running), "/events?rate=0", "hold", "--streams", streams) as child:
        await child.wait_event("holding", SLACK)
        yield child
        await let_go(child)


@contextlib.asynccontextmanager
async def holding_agents(running: Running, target: int, agents: int, names: int) -> AsyncIterator[Child]:
    """So many further agents with one link and so many names each, in one process."""
    prefix = f"n{time.monotonic_ns():x}"
    argv = [sys.executable, "-m", "bench.loads.agents", "--agents", str(agents), "--names", str(names)]
    argv += ["--relay", f"ws://127.0.0.1:{running.agents_port}", "--key-file", running.key_file]
    async with Child([*argv, "--prefix", prefix, "--target", str(target)], name="agents") as child:
        await child.wait_event("holding", 60.0 + SLACK)
        for event in child.events:
            if event["event"] == "trouble":
                raise ChildError(f"an agent was refused: {event['detail']}")
        yield child
        await let_go(child)


async def let_go(child: Child) -> None:
    """Ends a load maker that holds things until its stdin ends."""
    assert child.process.stdin is not None
    child.process.stdin.close()
    await child.wait_event("result", SLACK)
    await child.wait()


def _resident(running: Running) -> Sample:
    sample: Sample = {}
    if running.relay:
        sample["relay_memory"] = running.relay.rss()
    if running.agent:
        sample["agent_memory"] = running.agent.rss()
    return sample


async def idle_memory(running: Running) -> Sample:
    """Resident bytes before any load."""
    sample: Sample = {"relay_memory": running.relay_idle}
    if running.agent:
        sample["agent_memory"] = running.agent_idle
    return sample


async def settle(seconds: float = 0.1) -> float:
    """Lets what the last load left behind go its way; the time that took."""
    began = time.monotonic()
    await asyncio.sleep(seconds)
    return time.monotonic() - began
