"""Waiting for a future that somebody else sets, and that others may wait for too: giving up leaves it as it is.

`asyncio.shield` does so as well, but since Python 3.14 it reports an error that comes once nobody waits any more. Here
whoever sets an error marks it as known.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


async def outcome(shared: asyncio.Future[T]) -> T:
    """What it brings, or raises. Waits for as long as it takes; is cancelled alone."""
    await asyncio.wait((shared,))
    return shared.result()
