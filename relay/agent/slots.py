"""One slot: a link that is kept up for ever, and older ones that finish beside it.

Decides when to try again and when a link that the relay sent away is left. What a refusal means, which key is shown
and what the agent tells of itself is the runner's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from relay.agent.backoff import Backoff
from relay.agent.config import KeyRefused
from relay.agent.link import Link, LinkFailed, LinkRefused
from relay.wire.hello import Refused

# After a link that lived shorter than this, in seconds, the next attempt is not made at once.
STABLE_AFTER = 2.0
# After a link that a relay without room has ended, the next attempt is made after 1 to 2 times so many seconds.
NO_ROOM = 1.0
# A link that the relay has sent away, and on which nothing happened in so many looks, is told that it is left, and
# ended at the next look.
LOOK_EVERY = 15.0
IDLE_LOOKS = 4

Report = Callable[[dict[str, object]], None]


class Crew(Protocol):
    """The agent, as a slot sees it."""

    @property
    def stopping(self) -> bool:
        """Whether no new link is wanted."""

    async def open(self, slot: int) -> tuple[Link, asyncio.Event]:
        """A link that was welcomed, and what is set when the relay says that it will end it. Raises `LinkFailed`,
        `LinkRefused`, `KeyRefused`.
        """

    def ended(self, link: Link) -> None:
        """A link is over."""

    def hear(self, link: Link) -> None:
        """A relay has said, or will not say any more, what the end of a link means."""

    def on_refused(self, refused: Refused) -> float | None:
        """Seconds to wait before the next attempt; None when there will be none."""

    def on_key_refused(self, error: KeyRefused) -> None:
        """There is no key."""

    def spawn(self, work: Awaitable[None]) -> None:
        """Runs something beside, until the agent ends."""


class Slot:
    """One of an agent's slots, by its number."""

    def __init__(self, number: int, crew: Crew, report: Report, relay: str) -> None:
        self._number = number
        self._crew = crew
        self._report = report
        self._relay = relay
        self._loop = asyncio.get_running_loop()
        self._backoff = Backoff(random.random)
        self._outage = self._loop.time()
        self._up = False
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Something has changed for the better, perhaps: the next attempt is a first one, and is made now."""
        self._backoff.reset()
        self._outage = self._loop.time()
        self._hurry.set()

    async def keep_up(self) -> None:
        """Keeps the link up until the agent stops, or is refused for good."""
        while not self._crew.stopping:
            self._report({"event": "connecting", "slot": self._number, "relay": self._relay})
            self._hurry.clear()
            reason, wait = await self._live()
            if wait is None:
                return
            delay = max(self._backoff.next(self._loop.time() - self._outage), wait)
            told: dict[str, object] = {"slot": self._number, "reason": reason, "retry_in": round(delay, 3)}
            self._report({"event": "disconnected", **told})
            await self._pause(delay)

    async def _live(self) -> tuple[str, float | None]:
        """One link, from its attempt to its end: how it ended, and seconds to wait at least; None for no other try."""
        try:
            link, away = await self._crew.open(self._number)
        except LinkFailed as error:
            return str(error), error.wait
        except LinkRefused as error:
            return str(error), self._crew.on_refused(error.refused)
        except KeyRefused as error:
            self._crew.on_key_refused(error)
            return str(error), None
        opened = self._loop.time()
        self._up = True
        try:
            reason = await self._serve(link, away)
        finally:
            self._up = False
        self._outage = self._loop.time()  # a link that flaps is no long outage; it only is not tried again at once
        if self._outage - opened >= STABLE_AFTER:
            self._backoff.reset()
        return reason, NO_ROOM * (1 + random.random()) if link.overloaded else 0.0

    async def _serve(self, link: Link, away: asyncio.Event) -> str:
        """Until the link has ended, or the relay said that it will: then it finishes beside a new one."""
        ended = asyncio.ensure_future(link.wait())
        leaving = asyncio.ensure_future(away.wait())
        try:
            await asyncio.wait((ended, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self._crew.spawn(self._finish(link))
                self._crew.hear(link)
                return link.parting or "the relay is going away"
            self._crew.ended(link)
            return ended.result().reason
        finally:
            ended.cancel()
            leaving.cancel()

    async def _finish(self, link: Link) -> None:
        """Until a link that was sent away has ended: by the relay, or by us after a long silence beside a newer one."""
        idle, opened = 0, link.opened
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await link.wait()
                break
            used = link.busy or link.opened != opened or not self._up
            idle, opened = (0 if used else idle + 1), link.opened
            if idle == IDLE_LOOKS:
                link.go_away("a newer link took this one's place")
            elif idle > IDLE_LOOKS:
                link.close("a newer link took this one's place")
        self._crew.ended(link)
        if not self._up:  # a relay that has ended may be there again, or another one in its place
            self.hurry()

    async def _pause(self, seconds: float) -> None:
        """So long, or until there is reason to hurry."""
        if self._hurry.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
