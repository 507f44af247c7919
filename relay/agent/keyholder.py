"""The key that an agent holds: one for all its links, minted when there is none, shown as long as it is valid, replaced
on every live session before it ends.

The life of a key is `lifetimes`'; here are the source, the sessions and the waiting. One mint at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from relay.agent.backoff import Backoff
from relay.agent.config import Claimant, KeyRefused, KeySource, MintedKey
from relay.agent.lifetimes import HeldKey, Moment, hold
from relay.agent.link import LinkFailed, LinkRefused
from relay.agent.lookups import Offload, in_thread
from relay.keys.forms import shown
from relay.wire.hello import Welcome

# The clocks are looked at so often, in seconds: the machine may have slept, or its clock been set.
CHECK_EVERY = 30.0
SHORTEST_PAUSE = 0.001
"""Seconds; a timer may fire a little early, and would again and again."""

Event = dict[str, object]
Report = Callable[[Event], None]


class LiveSession(Protocol):
    """A link that is up, as far as its key goes."""

    slot: int
    key: str

    async def renew(self, key: str) -> Welcome:
        """Raises `LinkRefused`, `LinkFailed`."""


Sessions = Callable[[], Iterable[LiveSession]]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a session does not live by the next key yet; `slot` is None where there is no next key."""

    message: str
    slot: int | None = None
    code: str = ""
    """Of the relay's refusal; empty without one."""
    again: bool = True
    """The same key may be offered again."""

    def event(self, retry_in: float | None) -> Event:
        """What is reported; `retry_in` is in seconds, None when another attempt comes with another key only."""
        if self.slot is None:
            return {"event": "mint_failed", "message": self.message, "retry_in": retry_in}
        told: Event = {"event": "renewal_failed", "slot": self.slot, "code": self.code or None}
        return {**told, "message": self.message, "retry_in": retry_in}


class KeyHolder:
    """Of one agent. `now` is the wall clock: seconds since the epoch."""

    def __init__(
        self, source: KeySource, report: Report, now: Callable[[], float], offload: Offload = in_thread
    ) -> None:
        self._source = source
        self._report = report
        self._now = now
        self._offload = offload
        self._loop = asyncio.get_running_loop()
        self._held: HeldKey | None = None
        self._next: HeldKey | None = None
        """Minted to replace the one held; no session has taken it yet."""
        self._one_mint = asyncio.Lock()
        self._news = asyncio.Event()
        self._refusal: KeyRefused | None = None
        self._replacement = False
        """The one held was minted because the relay called the one before expired, and was not welcomed yet."""
        self._one_claim = asyncio.Lock()
        self._claimed: bool | None = None

    # ---- for a link that connects

    async def key(self) -> str:
        """The key to show: the one held while it is valid, else a new one, for which the source is asked for ever.

        Raises `KeyRefused` when it said no for good.
        """
        if (held := self._valid()) is not None:
            return held.text
        async with self._one_mint:
            if (held := self._valid()) is None:
                if self._refusal is not None:
                    raise self._refusal
                held = await self._mint_at_last()
                self._hold(held)
            return held.text

    def welcomed(self, key: str) -> None:
        """The relay has admitted a link by it."""
        if self._held is not None and self._held.text == key:
            self._replacement = False

    def replace(self, key: str) -> bool:
        """The relay calls this key expired: whether to try again with another. Not twice in a row, or an agent would
        mint for ever at a relay whose clock is wrong.
        """
        held = self._held
        if held is None or held.text != key:
            return True  # for another link, it was replaced already
        if not held.renewable or self._replacement:
            return False
        self._held = None
        self._replacement = True
        return True

    def age(self, key: str) -> float:
        """Seconds since this key was minted; infinite for one that was not minted here, or is not held any more."""
        held = self._held
        return held.age(self._moment()) if held is not None and held.renewable and held.text == key else math.inf

    def over(self, key: str) -> bool:
        """Whether this key, whichever it is, is not the one held any more, or at its end: another one can be had."""
        held = self._held
        return held is None or (held.renewable and (held.text != key or held.over(self._moment())))

    def left(self) -> float | None:
        """Seconds until the key held ends; None: there is none, or it has no end."""
        held = self._held
        return None if held is None or not math.isfinite(held.life) else held.life - held.age(self._moment())

    @property
    def renewable(self) -> bool:
        """Whether the key held is replaced before it ends."""
        return self._held is not None and self._held.renewable

    async def claim(self, names: tuple[str, ...]) -> bool:
        """Whether the source has made one of the names its own; it is asked once in the agent's life."""
        source = self._source
        if not isinstance(source, Claimant):
            return False
        async with self._one_claim:
            if self._claimed is None:
                self._claimed = False
                try:
                    self._claimed = await self._offload(partial(source.claim_for_login, names))
                except KeyRefused as error:
                    self._report({"event": "hint", "message": str(error)})
                if self._claimed:
                    self._report({"event": "claimed", "subdomains": list(names)})
        return self._claimed

    # ---- while links are up

    async def keep_fresh(self, sessions: Sessions) -> None:
        """Replaces each key before it ends, for ever; returns when there is nothing to replace. Failures are reported
        and put off. Raises `KeyRefused` when a key has ended and the source said no for good.
        """
        while (old := await self._due()) is not None:
            if not old.renewable:
                self._warn(old)
                return
            while True:
                if self._held is old and old.over(self._moment()):
                    await self.key()
                failures = await self._replace(old, sessions)
                last = not failures or old.over(self._moment())
                delay = None if last else round(old.put_off(self._moment(), random.random()), 3)
                for failure in failures:
                    self._report(failure.event(delay))
                if last:
                    break
                while (left := old.due - old.age(self._moment())) > 0:
                    await self._pause(left)

    async def _due(self) -> HeldKey | None:
        """The key held, once something is to be done about it; None when that will never be."""
        while True:
            held = self._held
            if held is not None and not math.isfinite(held.due):
                return None
            left = math.inf if held is None else held.due - held.age(self._moment())
            if held is not None and left <= 0:
                return held
            await self._pause(left)

    async def _replace(self, old: HeldKey, sessions: Sessions) -> list[Failure]:
        """Offers the next key to every session that lives by another; what failed. The next key is the one held from
        then on, unless every session that answered refused it: then the old one still has the better prospects.
        """
        try:
            new = await self._successor(old)
        except KeyRefused as error:
            return [Failure(str(error))]
        offered = [session for session in sessions() if session.key != new.text]
        failures = [one for one in await asyncio.gather(*(self._offer(one, new) for one in offered)) if one]
        refused = [one for one in failures if one.code]
        if self._held is old:
            if len(failures) < len(offered) or not refused:
                self._hold(new)
            elif not any(one.again for one in refused):
                self._next = None
        return failures

    async def _successor(self, old: HeldKey) -> HeldKey:
        """What takes the place of `old`; asks the source once. Raises `KeyRefused`."""
        async with self._one_mint:
            if self._held is not None and self._held is not old:
                return self._held
            if self._next is None or self._next.over(self._moment()):
                self._next = await self._mint()
            return self._next

    async def _offer(self, session: LiveSession, new: HeldKey) -> Failure | None:
        try:
            await session.renew(new.text)
        except LinkRefused as error:
            return Failure(str(error), session.slot, error.refused.code, error.refused.retry_after is not None)
        except LinkFailed as error:
            return Failure(str(error), session.slot)
        self._report({"event": "renewed", "slot": session.slot, "expires_at": _date(new.expires_at)})
        return None

    def _warn(self, held: HeldKey) -> None:
        left = (held.life - held.age(self._moment())) / 60
        if left > 0:
            words = f"{left // 60:.0f} h {left % 60:.0f} min" if left >= 60 else f"{left:.0f} min"
            said = f"The key of this agent ends in {words}: start it anew with another one before, or with --project"
            self._report({"event": "hint", "message": f"{said} and a master key, and it replaces its keys by itself."})

    # ---- the source

    async def _mint_at_last(self) -> HeldKey:
        """Asks until there is a key. Raises `KeyRefused` when it was refused for good."""
        backoff, began = Backoff(random.random), self._loop.time()
        while True:
            try:
                return await self._mint()
            except KeyRefused as error:
                if error.final:
                    self._refusal = error
                    self._report(Failure(str(error)).event(None))
                    raise
                delay = max(backoff.next(self._loop.time() - began), error.retry_after)
                self._report(Failure(str(error)).event(round(delay, 3)))
            await asyncio.sleep(delay)

    async def _mint(self) -> HeldKey:
        asked = self._moment()
        minted: MintedKey = await self._offload(self._source.fresh)
        if minted.renewable:
            self._report({"event": "minted", "key": shown(minted.text), "expires_at": _date(minted.expires_at)})
        return hold(minted, asked, random.random())

    def _valid(self) -> HeldKey | None:
        """The key that may be shown."""
        moment = self._moment()
        if self._held is not None and not (self._held.renewable and self._held.over(moment)):
            return self._held
        if self._next is not None and not self._next.over(moment):
            self._hold(self._next)
            return self._held
        return None

    def _hold(self, key: HeldKey) -> None:
        self._held, self._next = key, None
        self._news.set()

    # ---- time

    def _moment(self) -> Moment:
        return Moment(self._now(), self._loop.time())

    async def _pause(self, seconds: float) -> None:
        """Until another key is held, at most so long, and never so long that a clock could run away."""
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(min(seconds, CHECK_EVERY), SHORTEST_PAUSE)):
                await self._news.wait()


def _date(seconds: float) -> str | None:
    """Seconds since the epoch as ISO 8601, UTC; None for what no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return None
