"""A relay that is killed under load, and one to which a thousand agents come back at once.

Every answer carries its request's nonce, and the local service counts nonces: nothing is delivered twice, nobody gets
another's answer. A relay has returned when it says that it serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from relay.wire.hello import MAX_NAMES, Hello, Welcome
from tests.support.child import eventually
from tests.support.longer import CHAOS
from tests.support.processes import AgentProcess, Ports, RelayProcess
from tests.support.rawhttp import exchange
from tests.support.rawstream import EndOfBytes
from tests.support.reliability import Record, shown, spread
from tests.system.crowd import Crowd, Orders
from tests.system.handagent import HandAgent
from tests.system.nonces import Caller, Ledger, Nonces
from tests.system.numbers import nothing_left

pytestmark = [pytest.mark.chaos, pytest.mark.xdist_group("reliability-restarts")]

SEED = 6


class Phoenix:
    """A relay that is killed and comes back at the same place, with the same data."""

    def __init__(self, data: Path, args: Sequence[str] = ()) -> None:
        self._data = data
        self._args = args
        self._ports = Ports()
        self.relay = RelayProcess(data, args=args)

    async def __aenter__(self) -> Phoenix:
        await self.relay.__aenter__()
        self._ports = self.relay.ports
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.relay.__aexit__(kind, error, trace)

    @property
    def port(self) -> int:
        """The public port, of all its lives."""
        return self._ports.public

    async def die(self) -> None:
        """SIGKILL."""
        await self.relay.kill()

    async def rise(self) -> float:
        """Once it serves again: when that was (monotonic)."""
        self.relay = RelayProcess(self._data, args=self._args, ports=self._ports)
        await self.relay.start()
        return time.monotonic()


# ---- killed under load -----------------------------------------------------------------------------------------------

KILLS = 20 if CHAOS else 1
CHECKED = 100_000 if CHAOS else 600
AGENTS = 5 if CHAOS else 2
VISITORS = 8
AWAY = (0.0, 3.0) if CHAOS else (0.0, 0.3)
"""Seconds between a kill and the next start."""
BACK_WITHIN = 2.0 if CHAOS else 5.0
"""Seconds. A short run has other tests beside it."""
EXPECTED = frozenset(("refused", "broke off", "agent_lost"))
"""What a visitor of a relay that is being killed may see beside answers; never another's answer."""


@dataclass
class Kills:
    """Load, and what became of it."""

    phoenix: Phoenix
    names: list[str]
    ledger: Ledger = field(default_factory=Ledger)
    back: list[float] = field(default_factory=list)
    """Of each agent and kill: seconds from the relay's return to an answer of that agent."""

    async def visit(self, chance: random.Random) -> None:
        """Ask without end."""
        caller = Caller(self.phoenix.port, self.ledger, chance)
        try:
            while True:
                if await caller.ask(chance.choice(self.names)) != "served":
                    await asyncio.sleep(chance.uniform(0.005, 0.03))
        finally:
            caller.close()

    async def more(self, count: int) -> None:
        """Until so many more requests were served."""
        wanted = len(self.ledger.served) + count
        while len(self.ledger.served) < wanted:
            await asyncio.sleep(0.005)

    async def until_served(self, name: str, since: float, chance: random.Random) -> None:
        """One agent is back."""
        caller = Caller(self.phoenix.port, self.ledger, chance)
        while await caller.ask(name) != "served":
            await asyncio.sleep(0.01)
        self.back.append(time.monotonic() - since)
        caller.close()


@pytest.mark.timeout(900 if CHAOS else 60)
async def test_a_relay_killed_under_load(record: Record, tmp_path: Path) -> None:
    """Its agents serve again soon after it has returned; no POST is delivered twice, no answer goes astray."""
    chance = random.Random(SEED)
    async with AsyncExitStack() as stack:
        local = await stack.enter_async_context(Nonces())
        phoenix = await stack.enter_async_context(Phoenix(tmp_path))
        agents = [
            AgentProcess(
                local.port, relay_port=phoenix.relay.agents_port, key_file=phoenix.relay.key_file, subdomain=f"k{n}"
            )
            for n in range(AGENTS)
        ]
        for agent in agents:
            await stack.enter_async_context(agent)
        await asyncio.gather(*(agent.established() for agent in agents))
        kills = Kills(phoenix, [f"k{n}" for n in range(AGENTS)])
        visitors = [asyncio.create_task(kills.visit(random.Random(f"{SEED}/{n}"))) for n in range(VISITORS)]
        for _ in range(KILLS):
            await kills.more(CHECKED // (KILLS + 1) + chance.randrange(100))
            await phoenix.die()
            await asyncio.sleep(chance.uniform(*AWAY))
            since = await phoenix.rise()
            await asyncio.gather(*(kills.until_served(name, since, chance) for name in kills.names))
        await kills.more(max(0, CHECKED - len(kills.ledger.served)))
        for visitor in visitors:
            visitor.cancel()
        ends = await asyncio.gather(*visitors, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
        await nothing_left(phoenix.relay)
        alive = [agent.returncode for agent in agents]
        assert alive == [None] * AGENTS
    judge_kills(record, kills, local)


def judge_kills(record: Record, kills: Kills, local: Nonces) -> None:
    """The row of the report."""
    ledger, figures = kills.ledger, spread(kills.back)
    ends = {name: count for name, count in ledger.outcomes.items() if name != "served"}
    twice, astray, unexpected = ledger.delivered_twice(local), ledger.outcomes["wrong"], ledger.failures(EXPECTED)
    checked = len(ledger.served)
    record(
        name="SIGKILL of the relay under load",
        asked=f"{KILLS} kills: agents serve again within {BACK_WITHIN:g} s of its return (p99), no POST delivered "
        f"twice, no answer to the wrong visitor ({CHECKED} checked)",
        seen=f"served again after {shown(kills.back)}; {checked} answers checked, {astray} astray, {len(twice)} "
        f"delivered twice; other ends: {ends}, unexpected: {unexpected or 'none'} "
        f"{ledger.strange if unexpected else ''}",
        ok=figures["p99_s"] <= BACK_WITHIN
        and not twice
        and not unexpected
        and checked >= CHECKED
        and not ledger.served_undelivered(local),
        counts={"kills": KILLS, "checked": checked, "astray": astray, "twice": len(twice)} | figures,
        seed=SEED,
    )


# ---- a thousand agents at once ---------------------------------------------------------------------------------------

CROWD = 1000 if CHAOS else 60
CROWD_WITHIN = 15.0
RESPONSIVE = 0.5 if CHAOS else 2.0
"""Seconds that anything else may take at the 99th percentile while the crowd comes back."""
AT_ONCE = 100
BEHIND_A_PROXY = ("--trusted-proxies", "127.0.0.1/32")
"""Each agent of the crowd has an address of its own."""


@dataclass
class Beside:
    """How long a probe took while the crowd came back."""

    waits: list[float] = field(default_factory=list)
    """Without those until the first that went well: the probe's own agent comes back as well."""
    failed: list[str] = field(default_factory=list)
    began: bool = False

    async def every(self, seconds: float, ask: Callable[[], Awaitable[str]]) -> None:
        """Until cancelled; `ask` gives "" when all was well."""
        while True:
            began = time.monotonic()
            try:
                trouble = await ask()
            except (OSError, EndOfBytes) as error:
                trouble = repr(error)
            if self.began:
                self.waits.append(time.monotonic() - began)
                self.failed += [trouble] * bool(trouble)
            self.began = self.began or not trouble
            await asyncio.sleep(seconds)


async def ready(relay: RelayProcess) -> str:
    """Ask /readyz."""
    answer = await exchange(relay.internal_port, b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return "" if answer.status == 200 else f"/readyz {answer.status}"


async def trouble_of(caller: Caller, name: str) -> str:
    """Ask a tunnel."""
    outcome = await caller.ask(name, "GET")
    return "" if outcome == "served" else outcome


async def all_serve(phoenix: Phoenix, names: list[str], ledger: Ledger) -> None:
    """Every name answers, however often it must be asked; or four times the time that it may take is over."""
    todo = list(names)

    async def some(number: int) -> None:
        caller = Caller(phoenix.port, ledger, random.Random(f"{SEED}/{number}"))
        try:
            while todo:
                name = todo.pop()
                while await caller.ask(name, "GET") != "served":
                    await asyncio.sleep(0.5)  # it was held before that: who comes at once again is a flood
        finally:
            caller.close()

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(4 * CROWD_WITHIN), asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(some(number))


async def reserve(relay: RelayProcess, names: list[str]) -> None:
    """Make them the project's, many with each hello: what comes back after a restart claims nothing new."""
    key = relay.key_file.read_text().strip()
    for start in range(0, len(names), MAX_NAMES):
        some = tuple(names[start : start + MAX_NAMES])
        async with HandAgent(relay.agents_port, Hello(f"first{start}", 0, 1, key, some)) as agent:
            assert isinstance(agent.answer, Welcome)


@pytest.mark.timeout(300 if CHAOS else 60)
async def test_a_crowd_comes_back_at_once(record: Record, tmp_path: Path) -> None:
    """All of them serve in time after a restart of the relay, which has time for everybody else meanwhile."""
    names = [f"crowd{number}" for number in range(CROWD)]
    crowd, own = Ledger(), Ledger("p")
    beside, readiness = Beside(), Beside()
    async with AsyncExitStack() as stack:
        local = await stack.enter_async_context(Nonces())
        phoenix = await stack.enter_async_context(Phoenix(tmp_path, BEHIND_A_PROXY))
        at, key_file = phoenix.relay.agents_port, phoenix.relay.key_file
        await reserve(phoenix.relay, names)
        probe = await stack.enter_async_context(
            AgentProcess(local.port, relay_port=at, key_file=key_file, subdomain="p")
        )
        agents = await stack.enter_async_context(Crowd(Orders(at, str(key_file), tuple(names))))
        await agents.up()
        await probe.established()
        await phoenix.die()
        seen = len(agents.events)
        since = await phoenix.rise()
        caller = Caller(phoenix.port, own, random.Random(SEED))
        probes = [
            asyncio.create_task(beside.every(0.02, lambda: trouble_of(caller, "p"))),
            asyncio.create_task(readiness.every(0.05, lambda: ready(phoenix.relay))),
        ]
        await all_serve(phoenix, names, crowd)
        served = time.monotonic() - since
        up_at, refused = await agents.up(seen)
        await eventually(lambda: bool(beside.waits and readiness.waits))
        for task in probes:
            task.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        caller.close()
        peak, said = phoenix.relay.peak_rss() / 2**20, phoenix.relay.stderr[-300:]
    failed = beside.failed + readiness.failed
    linked = up_at - since
    figures = {"agents": CROWD, "all_serve_s": round(served, 3), "all_linked_s": round(linked, 3)}
    record(
        name=f"{CROWD} agents reconnecting at once",
        asked=f"all serve within {CROWD_WITHIN:g} s; the rest of the relay stays responsive (p99 ≤ {RESPONSIVE:g} s)",
        seen=f"all had a link after {linked:.2f} s and served after {served:.2f} s; another tunnel meanwhile "
        f"{shown(beside.waits)}; /readyz {shown(readiness.waits)}; failed {failed[:5] or 'none'}; refused "
        f"{refused or 'none'}; other ends {crowd.failures() or 'none'}; peak of the relay {peak:.0f} MiB; "
        f"it said {said or 'nothing'}",
        ok=len(crowd.served) == CROWD
        and served <= CROWD_WITHIN
        and not failed
        and max(spread(beside.waits)["p99_s"], spread(readiness.waits)["p99_s"]) <= RESPONSIVE,
        counts=figures | spread(beside.waits) | {"readyz_p99_s": spread(readiness.waits)["p99_s"]},
        seed=SEED,
    )
