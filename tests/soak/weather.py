"""The faults of a soak: one for every hundred exchanges begun, of a seeded kind, and from when to when each is felt.

A spell is what a visitor may blame: an exchange that failed at no time of a spell failed without a reason.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.support.faultcontrols import Direction, How
from tests.support.faultprocess import FaultProcess

EXCHANGES_A_FAULT = 100
AFTER = 1.0
"""Seconds after a fault in which an exchange may still fail by it: the answer of a request that was under way."""
UNNOTICED = 15.0
"""Seconds after which both ends must have noticed a half-open link."""
LOOK_EVERY = 0.02


@dataclass(frozen=True, slots=True)
class Spell:
    """One fault: its kind, and from when to when it was there (monotonic seconds)."""

    kind: str
    began: float
    ended: float

    def covers(self, began: float, ended: float) -> bool:
        """Whether something that took from `began` to `ended` may have suffered from it."""
        return began <= self.ended + AFTER and ended >= self.began


class Weather:
    """Makes the faults of one path; `begun` tells how many exchanges went that way so far."""

    def __init__(self, proxy: FaultProcess, chance: random.Random, begun: Callable[[], int], *, patient: bool) -> None:
        """`patient`: some half-open links are left to be noticed, which takes up to 15 s each."""
        self.spells: list[Spell] = []
        self._proxy = proxy
        self._chance = chance
        self._begun = begun
        self._kinds = [
            "cut one",
            "cut one",
            "cut all",
            "cut after",
            "refuse",
            "half-open",
            "half-open",
            "delay",
            "slow",
        ]
        self._kinds += ["unnoticed"] * patient

    @property
    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        return dict(Counter(spell.kind for spell in self.spells))

    async def run(self, ending: asyncio.Event) -> None:
        """Until `ending` is set; what was begun is ended."""
        while not ending.is_set():
            if self._begun() < EXCHANGES_A_FAULT * (len(self.spells) + 1):
                await asyncio.sleep(LOOK_EVERY)
                continue
            kind, began = self._chance.choice(self._kinds), time.monotonic()
            await getattr(self, "_" + kind.replace(" ", "_").replace("-", "_"))()
            self.spells.append(Spell(kind, began, time.monotonic()))

    def _how(self) -> How:
        return self._chance.choice(("rst", "fin"))

    async def _one(self) -> int | None:
        pairs = await self._proxy.pairs()
        return self._chance.choice(pairs) if pairs else None

    async def _cut_one(self) -> None:
        if (pair := await self._one()) is not None:
            await self._proxy.cut(self._how(), pair)

    async def _cut_all(self) -> None:
        await self._proxy.cut(self._how())

    async def _cut_after(self) -> None:
        directions: tuple[Literal["up"], Literal["down"]] = ("up", "down")
        direction, how = self._chance.choice(directions), self._how()
        await self._proxy.cut_after(int(2 ** self._chance.uniform(8, 20)), direction, how)
        await asyncio.sleep(self._chance.uniform(0.1, 0.5))
        await self._proxy.cut_after(None, direction)

    async def _refuse(self) -> None:
        await self._proxy.refuse()
        await self._proxy.cut(self._how())
        await asyncio.sleep(self._chance.uniform(0.0, 1.0))
        await self._proxy.accept()

    async def _half_open(self) -> None:
        """Nothing passes for a while; then the connection is seen to be gone."""
        if (pair := await self._one()) is not None:
            await self._swallow(pair)
            await asyncio.sleep(self._chance.uniform(0.1, 1.0))
            await self._proxy.cut("rst", pair)

    async def _unnoticed(self) -> None:
        """Nothing passes any more, and nobody is told: both ends must find out."""
        if (pair := await self._one()) is not None:
            await self._swallow(pair)
            over = time.monotonic() + UNNOTICED
            while pair in await self._proxy.pairs() and time.monotonic() < over:
                await asyncio.sleep(0.2)
            await self._proxy.cut("rst", pair)

    async def _swallow(self, pair: int) -> None:
        direction: Direction = self._chance.choice(("up", "down", "both"))
        await self._proxy.swallow(direction, new=False, pair=pair)

    async def _delay(self) -> None:
        await self._proxy.set(delay=self._chance.uniform(0.005, 0.1), jitter=0.01)
        await asyncio.sleep(self._chance.uniform(0.2, 1.0))
        await self._proxy.set(delay=0.0, jitter=0.0)

    async def _slow(self) -> None:
        await self._proxy.set(rate=self._chance.uniform(200_000, 2_000_000))
        await asyncio.sleep(self._chance.uniform(0.2, 0.6))
        await self._proxy.set(rate=0.0)
