"""Links that are cut and come back, and links that look alive and are dead: what visitors see, and how soon it is over.

Every path of an agent goes through a fault proxy in this process. Seeded; the seed stands in each row of the report.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

import pytest

from tests.support.child import Event
from tests.support.faultcontrols import How
from tests.support.faults import FaultProxy
from tests.support.longer import CHAOS
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess
from tests.support.rawhttp import RawServer
from tests.support.reliability import Record, shown, spread
from tests.system.inprogress import Begun, Holding
from tests.system.nonces import Caller, Ledger, Nonces, lateness
from tests.system.numbers import descriptors, nothing_left, numbers

pytestmark = [pytest.mark.chaos, pytest.mark.xdist_group("reliability-links")]

SEED = 5
CUTS = 50 if CHAOS else 3
AWAY = (0.5, 8.0) if CHAOS else (0.5, 0.8)
CALM = (0.05, 3.0) if CHAOS else (0.05, 0.2)
"""Seconds that a path is whole between two cuts."""
BACK_WITHIN = 0.3 if CHAOS else 1.0
"""Seconds. A short run has other tests beside it, which take the agent's turns on the processor."""
EVERY = 0.2 if CHAOS else 0.05
"""Seconds from one visitor to the next while a path is cut."""
LATE_TIMES = 4
"""The bound is for a machine with a processor free: so many turns of other processes lie on an agent's way back."""


@dataclass(frozen=True, slots=True)
class Path:
    """One agent behind a fault proxy of its own; its name is also its public one."""

    relay: RelayProcess
    agent: AgentProcess
    proxy: FaultProxy
    name: str
    links: int

    async def connected(self, after: int = 0, timeout: float = 10.0) -> None:
        """Wait until all links are up."""
        for slot in range(self.links):
            await self.agent.wait_event(partial(_is_connected, slot), timeout, after)


def _is_connected(slot: int, event: Event) -> bool:
    return (event.get("event"), event.get("slot")) == ("connected", slot)


@asynccontextmanager
async def path(relay: RelayProcess, local: RawServer, name: str, links: int) -> AsyncIterator[Path]:
    """Up, with all of its links."""
    async with FaultProxy(relay.agents_port, seed=SEED) as proxy:
        agent = AgentProcess(
            local.port, relay_port=proxy.port, key_file=relay.key_file, subdomain=name, args=["--links", str(links)]
        )
        async with agent:
            found = Path(relay, agent, proxy, name, links)
            await found.connected()
            yield found


# ---- cut and back ----------------------------------------------------------------------------------------------------


@dataclass
class Cuts:
    """What became of the cuts of one path."""

    path: Path
    chance: random.Random
    ledger: Ledger
    back: list[float] = field(default_factory=list)
    """Seconds from the path's return to the first answer."""
    all_back: list[float] = field(default_factory=list)
    """… and to the last answer of those who had waited."""
    late: list[float] = field(default_factory=list)
    """How late this machine's timers were at worst, in each of these."""
    waited: int = 0

    async def run(self) -> None:
        """All cuts."""
        for _ in range(CUTS):
            seen = len(self.path.agent.events)
            await self._round()
            await self.path.connected(seen)
            await asyncio.sleep(self.chance.uniform(*CALM))

    async def _round(self) -> None:
        """Cut; visitors come all the while and wait; the path comes back, and each has its answer."""
        proxy, ledger = self.path.proxy, self.ledger
        how: How = self.chance.choice(("rst", "fin"))
        await proxy.refuse()
        await proxy.cut(how)
        await self._noticed()
        waiting: set[asyncio.Task[str]] = set()
        over = time.monotonic() + self.chance.uniform(*AWAY)
        while time.monotonic() < over:
            caller = Caller(self.path.relay.public_port, ledger, self.chance)
            waiting.add(task := asyncio.create_task(caller.ask(self.path.name)))
            task.add_done_callback(lambda _, caller=caller: caller.close())  # type: ignore[misc]
            await asyncio.sleep(EVERY)
        early = [task.result() for task in waiting if task.done()]
        assert early == [], f"answered while the path was cut: {early}, {ledger.strange}"
        late = [0.0]
        watch = asyncio.create_task(lateness(late))
        back = time.monotonic()
        await proxy.accept()
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        self.back.append(time.monotonic() - back)
        await asyncio.wait(waiting)
        self.all_back.append(time.monotonic() - back)
        watch.cancel()
        self.late.append(max(late))
        self.waited += len(waiting)

    async def _noticed(self) -> None:
        """The relay has read that the links ended: what it wrote to them before may have reached the agent for all it
        knows, and is `agent_lost`."""
        path = self.path
        while any(one["name"] == path.name for one in (await path.relay.api.do("GET", "/tunnels"))["items"]):
            await asyncio.sleep(0.01)

    def tell(self, record: Record, local: Nonces) -> None:
        """The row of the report."""
        errors, twice = self.ledger.failures(), self.ledger.delivered_twice(local)
        late = [one for one, worst in zip(self.back, self.late, strict=True) if one > BACK_WITHIN + LATE_TIMES * worst]
        links = self.path.links
        record(
            name=f"a link cut and back, {links} link{'s' * (links > 1)}",
            asked=f"{CUTS} cuts, away {AWAY[0]:g}–{AWAY[1]:g} s: no visitor sees an error; served within "
            f"{BACK_WITHIN} s",
            seen=f"{self.waited} visitors waited, errors {errors or 'none'}; served after {shown(self.back)}; "
            f"all after {shown(self.all_back)}; timers late by at most {max(self.late):.3f} s",
            ok=not errors and not twice and not late and not self.ledger.served_undelivered(local),
            counts={"cuts": CUTS, "visitors": self.waited, "errors": sum(errors.values()), "twice": len(twice)}
            | spread(self.back),
            seed=SEED,
        )


@pytest.mark.timeout(900 if CHAOS else 60)
async def test_a_link_cut_and_back(record: Record) -> None:
    """Refused, not swallowed; by an agent with one link and one with two, all of which are cut at once."""
    async with AsyncExitStack() as stack:
        local = await stack.enter_async_context(Nonces())
        relay = await stack.enter_async_context(RelayProcess())
        runs: list[Cuts] = []
        for links in (1, 2):
            found = await stack.enter_async_context(path(relay, local, f"cut{links}", links))
            runs.append(Cuts(found, random.Random(f"{SEED}/{links}"), Ledger(f"{links}-")))
        async with asyncio.TaskGroup() as group:
            for one in runs:
                group.create_task(one.run())
        await nothing_left(relay)
        for one in runs:
            one.tell(record, local)


# ---- half-open -------------------------------------------------------------------------------------------------------

Kind = Literal["agent gone", "relay gone", "up", "down", "both"]
KINDS: tuple[Kind, ...] = get_args(Kind) if CHAOS else ("agent gone",)
"""Who is gone without the other's knowledge; or nobody is, and nothing passes in a direction. All but the first of them
last as long as a verdict takes."""
PATHS = 10 if CHAOS else 1
TIMES = 1 if CHAOS else 2
NOTICED_WITHIN = 15.0
SUPERSEDED_WITHIN = 1.0


@dataclass
class HalfOpen:
    """What became of the half-open links of one path. All are seconds."""

    path: Path
    begun: Begun
    chance: random.Random
    noticed: list[float] = field(default_factory=list)
    """From the fault until the visitor and the local service of an exchange under way were told."""
    superseded: list[float] = field(default_factory=list)
    """From the agent's return, with all links, until that visitor was told."""
    wrong: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Each kind, in some order."""
        kinds = list(KINDS * TIMES)
        self.chance.shuffle(kinds)
        for kind in kinds:
            await asyncio.sleep(self.chance.uniform(0.0, 5.0 if CHAOS else 0.1))  # anywhere between two pings
            await self._round(kind)

    async def _round(self, kind: Kind) -> None:
        proxy, agent = self.path.proxy, self.path.agent
        seen = len(agent.events)
        exchange = await self.begun.begin("head", f"{self.path.name}.{DOMAIN}")
        old = dict(proxy.open_pairs)
        since = time.monotonic()
        for pair in old.values():
            pair.swallow("both" if kind in ("agent gone", "relay gone") else kind, "drop")
            if kind == "agent gone":
                pair.client.reset()
            elif kind == "relay gone":
                pair.upstream.reset()

        back, outcome, left = await asyncio.gather(
            self._agent_back(seen),
            exchange.outcome(NOTICED_WITHIN + 5.0),
            exchange.request.stream.left_within(NOTICED_WITHIN + 5.0),
        )
        self.superseded.append(max(0.0, outcome.at - back))
        if (outcome.status, outcome.code) != (502, b"agent_lost") or not left:
            self.wrong.append(f"{kind}: {outcome}, the local service was told: {left}")
        self.noticed.append(max(outcome.at, exchange.request.stream.ended_at) - since)
        exchange.client.close()
        for pair in old.values():
            pair.cut("rst")

    async def _agent_back(self, seen: int) -> float:
        await self.path.connected(seen, timeout=NOTICED_WITHIN + 5.0)
        return time.monotonic()


def baseline(relay: RelayProcess, paths: list[Path], told: dict[str, int]) -> dict[str, int]:
    """What must be as before: descriptors of all processes, tasks, links and streams of the relay."""
    kept = {name: told[name] for name in ("relay_links_live", "relay_streams_open", "relay_tasks")}
    return kept | {
        "relay_descriptors": descriptors(relay),
        "agents_descriptors": sum(descriptors(path.agent) for path in paths),
    }


async def settled(relay: RelayProcess, paths: list[Path], wanted: dict[str, int] | None) -> dict[str, int]:
    """The baseline, once it is what is wanted, or as it is after a few seconds."""
    await nothing_left(relay)
    over = time.monotonic() + 5.0
    while True:
        found = baseline(relay, paths, await numbers(relay))
        if found == wanted or time.monotonic() > over or wanted is None:
            return found
        await asyncio.sleep(0.05)


@pytest.mark.timeout(600 if CHAOS else 60)
async def test_half_open_links(record: Record) -> None:
    """Noticed in time, ended at once when the agent is back, and nothing is left of them in any process."""
    async with AsyncExitStack() as stack:
        local = await stack.enter_async_context(Holding())
        relay = await stack.enter_async_context(RelayProcess())
        entered = (stack.enter_async_context(path(relay, local, f"half{number}", 2)) for number in range(PATHS))
        paths = [await each for each in entered]
        begun = Begun(local, relay.public_port)
        runs = [HalfOpen(each, begun, random.Random(f"{SEED}/{each.name}")) for each in paths]
        before = await settled(relay, paths, None)
        async with asyncio.TaskGroup() as group:
            for one in runs:
                group.create_task(one.run())
        begun.close()
        after = await settled(relay, paths, before)
    noticed, superseded = [t for one in runs for t in one.noticed], [t for one in runs for t in one.superseded]
    wrong = [text for one in runs for text in one.wrong]
    record(
        name="half-open links, both directions",
        asked=f"{len(noticed)} times: noticed ≤ {NOTICED_WITHIN:g} s, superseded ≤ {SUPERSEDED_WITHIN:g} s after the "
        "agent is back; descriptors, tasks and sessions as before",
        seen=f"noticed by both ends after {shown(noticed)}; superseded after {shown(superseded)}; wrong ends "
        f"{wrong or 'none'}; before {before}, after {after}",
        ok=not wrong and max(noticed) <= NOTICED_WITHIN and max(superseded) <= SUPERSEDED_WITHIN and before == after,
        counts={"half_open": len(noticed)} | spread(noticed) | {"superseded_max_s": round(max(superseded), 4)},
        seed=SEED,
    )
