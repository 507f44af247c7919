"""An agent that runs on the test's loop against a test's relay, and what it reported."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from relay.agent.config import AgentSettings, KeySource
from relay.agent.forwarder import Forwarder
from relay.agent.link import Link
from relay.agent.lookups import Lookups
from relay.agent.runner import Agent
from relay.agent.sparing import Sparing
from relay.exchange.heads import RequestHead, encode_request
from tests.agent.localside import within
from tests.agent.relayside import Relay, a_relay, settings, until
from tests.mux.ends import Owner
from tests.support.faults import FaultProxy


class Running:
    """An agent that runs, and what it reported."""

    def __init__(self, asked: AgentSettings, now: Callable[[], float] = time.time, *, quiet: bool = False) -> None:
        self.events: list[dict[str, Any]] = []
        self.proxy: FaultProxy | None = None
        """Between the agent and its relay, if there is one."""
        report = Sparing(self.events.append) if quiet else self.events.append
        self.agent = Agent(asked, report, "test-agent/1", now)
        self.task = asyncio.ensure_future(self.agent.run())

    def said(self, *kinds: str) -> list[dict[str, Any]]:
        """Events of these kinds, in order."""
        return [event for event in self.events if event["event"] in kinds]

    async def exits(self) -> int:
        """Its exit code, which is its last word as well."""
        code: int = await within(asyncio.shield(self.task))
        assert self.events[-1] == {"event": "stopped", "exit_code": code}
        return code

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """A signal, and its exit code."""
        signal.raise_signal(number)
        return await self.exits()


@asynccontextmanager
async def running(
    asked: AgentSettings, now: Callable[[], float] = time.time, *, quiet: bool = False
) -> AsyncIterator[Running]:
    """An agent that is stopped in the end, if it has not stopped by itself."""
    run = Running(asked, now, quiet=quiet)
    try:
        yield run
    finally:
        while not run.task.done():
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.005)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)


@asynccontextmanager
async def served(
    *,
    links: int = 1,
    names: tuple[str, ...] = ("demo",),
    keys: KeySource | None = None,
    port: int = 1,
    now: Callable[[], float] = time.time,
    through: type[FaultProxy] | None = None,
    quiet: bool = False,
) -> AsyncIterator[tuple[Relay, Running]]:
    """A relay, and an agent with all its links up, perhaps through a proxy; its local service is on `port`, by default
    there is none.
    """
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(a_relay())
        proxy = None if through is None else await stack.enter_async_context(through(port_of(relay)))
        url = relay.url if proxy is None else f"ws://127.0.0.1:{proxy.port}"
        asked = settings(url, links=links, names=names, keys=keys, port=port)
        run = await stack.enter_async_context(running(asked, now, quiet=quiet))
        run.proxy = proxy
        await until(lambda: len(relay.links) == len(run.said("connected")) == links)
        yield relay, run


def a_link(on_away: Callable[[], None] = lambda: None, names: Lookups | None = None) -> Link:
    """A link of an agent that has no tunnel."""
    forwarder = Forwarder({}, report=lambda event: None, now=asyncio.get_running_loop().time)
    return Link(forwarder, on_away, names)


async def connected(relay: Relay, run: Running, count: int) -> None:
    """Until the agent has connected so many times, and is in service."""
    await until(lambda: len(run.said("connected")) == count and relay.links)


def port_of(relay: Relay) -> int:
    """Where it listens."""
    return int(relay.url.rpartition(":")[2])


def request(relay: Relay, slot: int = 0, name: str = "demo", owner: Owner | None = None) -> Owner:
    """A visitor's request over a link."""
    owner = owner or Owner()
    (link,) = [link for link in relay.links if link.slot == slot]
    owner.stream = link.session.open(encode_request(RequestHead(b"GET", b"/", [], name)), True, owner)
    return owner
