"""Some agents in one process that tells what they hold: each a whole `relay.agent` with links and a name of its own.

    async with Fleet(Orders(relay_port, key_file, ("name=3000",))) as fleet:
        await fleet.up()
        told = await fleet.ask()

It tells when all agents have a link (again), and the flow-control accounts of all their sessions. The process,
`python -m tests.system.fleet`, reads its orders from its arguments and from stdin.
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from relay.agent.config import AgentSettings, FixedKey
from relay.agent.runner import Agent
from relay.agent.targets import parse_target
from tests.support.child import Child
from tests.support.faultprocess import run_loop, say, stdin_lines

UP_WITHIN = 120.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What a fleet is told at its start. Each of `tunnels`, NAME=LOCAL_PORT, is an agent's with `links` links."""

    relay_port: int
    key_file: str
    tunnels: tuple[str, ...]
    links: int = 2


class Fleet(Child):
    """The process; `start` returns once it runs, not once its agents are up."""

    def __init__(self, orders: Orders) -> None:
        text = json.dumps(asdict(orders))
        super().__init__([sys.executable, "-m", "tests.system.fleet", text], name="fleet")
        self._asked = 0

    async def up(self, after: int = 0, timeout: float = UP_WITHIN) -> float:
        """When (monotonic) every agent had a link, from event `after` on."""
        return float((await self.wait_event("up", timeout, after))["at"])

    async def ask(self) -> dict[str, Any]:
        """Links, tasks, streams, and what the sessions of all agents have sent, hold and may send."""
        self._asked += 1
        assert self.process.stdin is not None
        self.process.stdin.write(b"%d\n" % self._asked)
        await self.process.stdin.drain()
        return await self.wait_event(lambda event: event.get("asked") == self._asked)


class Crew:
    """All agents of this process, and how many of them have a link."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._links: dict[str, set[int]] = {tunnel.partition("=")[0]: set() for tunnel in orders.tunnels}
        self._up = 0
        self._refused: Counter[str] = Counter()
        self._ends: Counter[str] = Counter()
        self.agents: list[Agent] = []

    def make(self) -> list[Agent]:
        """Every agent, not yet running."""
        orders = self._orders
        key, relay = FixedKey(Path(orders.key_file).read_text().strip()), f"ws://127.0.0.1:{orders.relay_port}"
        for tunnel in orders.tunnels:
            name, _, port = tunnel.partition("=")
            settings = AgentSettings(
                relay_url=relay, keys=key, tunnels=((name, parse_target(port)),), links=orders.links
            )
            self.agents.append(Agent(settings, partial(self._hear, name), "fleet"))
        return self.agents

    def _hear(self, name: str, event: dict[str, Any]) -> None:
        kind, links = event["event"], self._links[name]
        before = bool(links)
        if kind == "connected":
            links.add(event["slot"])
        elif kind == "disconnected":
            links.discard(event["slot"])
        elif kind == "refused":
            self._refused[event["code"]] += 1
        elif kind == "request" and "error" in event:
            self._ends[event["error"]] += 1
        elif kind in ("stopped", "error"):
            say(**event, name=name)
        self._up += bool(links) - before
        if not before and self._up == len(self._links):
            say(event="up", at=time.monotonic(), refused=dict(self._refused))

    def told(self) -> dict[str, Any]:
        """See `Fleet.ask`."""
        sessions = [link.session for agent in self.agents for link in agent.links if link.session is not None]
        streams = [stream for session in sessions for stream in session.streams.values()]
        return {
            "links": sum(len(links) for links in self._links.values()),
            "tasks": len(asyncio.all_tasks()),
            "streams": len(streams),
            "exchanges": sum(agent.exchanges for agent in self.agents),
            "held": sum(session.window.held() for session in sessions),
            "given": sum(session.window.granted - session.window.received for session in sessions),
            "left": sum(session.outbox.credit for session in sessions),
            "waiting": sum(session.outbox.size for session in sessions) + sum(stream.pending for stream in streams),
            "refused": dict(self._refused),
            "ends": dict(self._ends),
        }


async def _main(text: str) -> None:
    loop = asyncio.get_running_loop()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crew = Crew(Orders(**json.loads(text)))
    running = [asyncio.create_task(agent.run()) for agent in crew.make()]
    orders = asyncio.create_task(_obey(crew))
    await asyncio.sleep(0)  # each agent has taken the signals for itself
    loop.add_signal_handler(signal.SIGTERM, orders.cancel)
    say(event="started")
    await asyncio.wait([orders])
    for agent in crew.agents:
        agent.end()
    await asyncio.gather(*running)


async def _obey(crew: Crew) -> None:
    async for line in await stdin_lines():
        say(asked=int(line), **crew.told())


if __name__ == "__main__":
    run_loop(_main(sys.argv[1]))
