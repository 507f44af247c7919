"""A future that several wait for: each has what it brings, and giving up is nobody else's affair."""

from __future__ import annotations

import asyncio

import pytest

from relay.agent.sharing import outcome
from tests.agent.localside import on_every_loop


@on_every_loop
async def test_everybody_has_the_result() -> None:
    """Those who came before it, and those who come later."""
    shared: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    early = [asyncio.ensure_future(outcome(shared)) for _ in range(2)]
    await asyncio.sleep(0)
    shared.set_result(3)
    assert [await one for one in early] == [3, 3]
    assert await outcome(shared) == 3


@on_every_loop
async def test_who_gives_up_does_so_alone() -> None:
    """The others have the error, and the event loop is told nothing of it."""
    shared: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    patient, other = (asyncio.ensure_future(outcome(shared)) for _ in range(2))
    await asyncio.sleep(0)
    other.cancel()
    await asyncio.wait((other,))
    assert other.cancelled()
    assert not shared.done()
    shared.set_exception(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        await patient
