"""One slot on virtual time: when it tries again, what makes it hurry, how long it keeps a link that was sent away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from relay.agent.config import Exit, KeyRefused
from relay.agent.link import Link, LinkFailed, LinkRefused, Lost
from relay.agent.slots import IDLE_LOOKS, LOOK_EVERY, NO_ROOM, Slot
from relay.wire.hello import Refused
from tests.support.clock import virtual

BROKEN = LinkFailed("connection refused")
DRAINING = LinkRefused(Refused("draining", "This relay ends.", 0.25))


class FakeLink:
    """What a slot sees of a link."""

    def __init__(self) -> None:
        self.parting = ""
        self.overloaded = False
        self.opened = 0
        self.busy = False
        self.away = asyncio.Event()
        self.told: list[str] = []
        self._ended: asyncio.Future[Lost] = asyncio.get_running_loop().create_future()

    async def wait(self) -> Lost:
        return await asyncio.shield(self._ended)

    def go_away(self, detail: str) -> None:
        self.told.append("away")

    def close(self, detail: str) -> None:
        self.told.append("closed")
        self.end()

    def end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(Lost("the connection broke", False))


class Crew:
    """An agent with one slot; `outcomes` says what becomes of its attempts, and after them a link each."""

    def __init__(self) -> None:
        self.stopping = False
        self.outcomes: list[Exception] = []
        self.always: Exception | None = None
        self.attempts: list[float] = []
        self.links: list[FakeLink] = []
        self.over: list[FakeLink] = []
        self.heard: list[FakeLink] = []
        self.refused: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.tasks: list[asyncio.Future[None]] = []
        self.slot = Slot(2, self, self.events.append, "wss://relay.example")

    async def open(self, slot: int) -> tuple[Link, asyncio.Event]:
        assert slot == 2
        self.attempts.append(asyncio.get_running_loop().time())
        failure = self.outcomes.pop(0) if self.outcomes else self.always
        if failure is not None:
            raise failure
        self.links.append(FakeLink())
        return cast("Link", self.links[-1]), self.links[-1].away

    def ended(self, link: Link) -> None:
        self.over.append(cast("FakeLink", link))

    def hear(self, link: Link) -> None:
        self.heard.append(cast("FakeLink", link))

    def on_refused(self, refused: Refused) -> float | None:
        self.refused.append(refused.code)
        return refused.retry_after

    def on_key_refused(self, error: KeyRefused) -> None:
        self.refused.append(str(error))

    def spawn(self, work: Awaitable[None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    def delays(self) -> list[float]:
        """What it said before each attempt but the first."""
        return [event["retry_in"] for event in self.events if event["event"] == "disconnected"]


@asynccontextmanager
async def a_slot() -> AsyncIterator[Crew]:
    crew = Crew()
    crew.spawn(crew.slot.keep_up())
    try:
        yield crew
    finally:
        for task in crew.tasks:
            task.cancel()
        await asyncio.gather(*crew.tasks, return_exceptions=True)


async def waiting(crew: Crew, holds: Callable[[], object]) -> None:
    """Until something is so; on this loop time costs nothing."""
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(crew.events[-5:])


@virtual
async def test_a_long_outage_is_tried_less_and_less_often() -> None:
    """At once, then within the caps of each stage, for ever."""
    async with a_slot() as crew:
        crew.always = BROKEN
        await asyncio.sleep(3600)
        delays = crew.delays()
        assert delays[0] == 0.0
        begun = crew.attempts[0]
        early = [delay for at, delay in zip(crew.attempts, delays, strict=False) if at - begun < 9]
        assert max(early) <= 0.25
        assert max(delays) <= 30.0
        assert max(delays) > 15.0
        assert len(crew.attempts) < 1000


@virtual
async def test_a_relay_that_is_busy_is_given_the_time_it_asks_for() -> None:
    """Also where the next attempt would be made at once."""
    async with a_slot() as crew:
        crew.outcomes = [LinkFailed("answered HTTP 503 instead of a WebSocket", 2.0)] * 2
        await asyncio.sleep(10)
        first, second, third = crew.attempts
        assert 2.0 <= second - first < 2.3
        assert 2.0 <= third - second < 2.3
        assert crew.links


@virtual
async def test_whoever_has_reason_to_hurry_is_not_kept_waiting() -> None:
    """A machine that woke, say: the next attempt is now, and is a first one."""
    async with a_slot() as crew:
        crew.always = BROKEN
        await asyncio.sleep(3600)
        count, now = len(crew.attempts), asyncio.get_running_loop().time()
        crew.slot.hurry()
        await asyncio.sleep(5)
        again = crew.attempts[count:]
        assert again[0] - now < 0.01
        assert again[1] - again[0] < 0.01
        assert len(again) > 10


@virtual
async def test_hurrying_without_end_is_no_storm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reason is worth a first attempt and the one after it, and no more."""
    monkeypatch.setattr(random, "random", lambda: 0.9)  # else a third one comes at once now and then
    async with a_slot() as crew:
        crew.always = BROKEN
        await asyncio.sleep(100)
        count = len(crew.attempts)
        for _ in range(20):
            crew.slot.hurry()
            await asyncio.sleep(0.001)
        assert len(crew.attempts) - count == 2 * 20


@virtual
async def test_the_end_of_an_old_link_is_a_reason_to_hurry() -> None:
    """A relay that restarts: while it finishes it takes no links, and nobody else may; at its end somebody does."""
    async with a_slot() as crew:
        await asyncio.sleep(10)
        old = crew.links[0]
        crew.always = DRAINING
        old.away.set()
        await asyncio.sleep(25)
        crew.always = BROKEN
        await asyncio.sleep(300)
        crew.always = None
        now, count = asyncio.get_running_loop().time(), len(crew.attempts)
        old.end()
        await waiting(crew, lambda: len(crew.links) == 2)
        assert crew.attempts[count] - now < 0.01
        assert crew.over == [old]


@virtual
async def test_a_relay_without_room_is_given_a_moment() -> None:
    """What it ended for that reason does not come back at once, and not all at the same time."""
    async with a_slot() as crew:
        waits = set()
        for count in range(1, 6):
            await asyncio.sleep(10)
            crew.links[-1].overloaded = True
            now = asyncio.get_running_loop().time()
            crew.links[-1].end()
            await asyncio.sleep(5)
            waits.add(round(crew.attempts[count] - now, 3))
        assert all(NO_ROOM <= wait <= 2 * NO_ROOM for wait in waits)
        assert len(waits) > 1


@virtual
async def test_an_old_link_that_ends_disturbs_no_new_one() -> None:
    """Nothing is tried while a link is up."""
    async with a_slot() as crew:
        await asyncio.sleep(10)
        crew.links[0].away.set()
        await waiting(crew, lambda: len(crew.links) == 2)
        assert crew.heard == [crew.links[0]]
        crew.links[0].end()
        await asyncio.sleep(100)
        assert len(crew.attempts) == 2
        assert crew.over == [crew.links[0]]


@virtual
async def test_a_link_that_was_sent_away_is_kept_as_long_as_it_is_used() -> None:
    """The relay may go on to open streams there: it is left only after a minute without any, and told so before."""
    async with a_slot() as crew:
        await asyncio.sleep(10)
        old = crew.links[0]
        old.busy = True
        old.away.set()
        await asyncio.sleep(600)
        old.busy = False
        for _ in range(20):
            old.opened += 1  # short ones, of which no look catches any
            await asyncio.sleep(2 * LOOK_EVERY)
        assert old.told == []
        await asyncio.sleep(60 - 2 * LOOK_EVERY)
        assert old.told == []
        await asyncio.sleep(2 * LOOK_EVERY + 1)
        assert old.told[0] == "away"
        await asyncio.sleep(LOOK_EVERY)
        assert old.told == ["away", "closed"]
        assert crew.over == [old]
        assert IDLE_LOOKS * LOOK_EVERY >= 60


@virtual
async def test_a_request_that_crosses_the_leave_taking_is_served() -> None:
    """The link that was told to be left is kept until that has ended too."""
    async with a_slot() as crew:
        await asyncio.sleep(10)
        old = crew.links[0]
        old.away.set()
        await asyncio.sleep(IDLE_LOOKS * LOOK_EVERY + 1)
        assert old.told == ["away"]
        old.busy = True
        await asyncio.sleep(600)
        assert old.told == ["away"]
        old.busy = False
        await asyncio.sleep(7 * LOOK_EVERY)
        assert old.told[-1] == "closed"


@pytest.mark.parametrize(
    "failure",
    [LinkRefused(Refused("bad_key", "No.")), KeyRefused("No.", True, Exit.KEY_REFUSED)],
    ids=["refused", "without a key"],
)
@virtual
async def test_what_is_refused_for_good_is_not_tried_again(failure: Exception) -> None:
    """The agent is told, and nothing else is said."""
    async with a_slot() as crew:
        crew.outcomes = [failure]
        await asyncio.sleep(1000)
        assert len(crew.attempts) == 1
        assert crew.refused
        assert crew.delays() == []


@virtual
async def test_nothing_is_tried_by_an_agent_that_stops() -> None:
    """The link that is up goes on until it ends."""
    async with a_slot() as crew:
        await asyncio.sleep(10)
        crew.stopping = True
        crew.links[0].end()
        await asyncio.sleep(100)
        assert len(crew.attempts) == 1
        assert crew.over == crew.links
