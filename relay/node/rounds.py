"""Work that goes on beside requests: one round every so often, and a last one once nothing new can come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Rounds:
    """Iterated over by who does the work: each round tells whether it is the last. `every` is in seconds."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._ending = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bool]:
        """Never cancelled by whoever ends it, or nobody would know what was done."""
        ended = False
        while not ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._ending.wait()
            ended = self._ending.is_set()
            yield ended

    def finish(self) -> None:
        """The next round is the last, and comes at once."""
        self._ending.set()
