"""The virtual clock: waits take their time on it, none of ours, and always in the same order."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support import clock
from tests.support.clock import ManualClock, StuckError, elapsed, run_virtual, virtual


def test_a_manual_clock_moves_when_told_and_never_back() -> None:
    """now() is what advance() made it."""
    hands = ManualClock(5.0)
    assert hands.advance(2.5) == hands.now() == hands() == 7.5
    with pytest.raises(ValueError, match="back"):
        hands.advance(-1)


@virtual
async def test_an_hour_passes_at_once() -> None:
    """A wait of an hour takes an hour of the loop's time and none of ours."""
    real = time.monotonic()
    assert await elapsed(asyncio.wait_for(asyncio.gather(_nap(3600), _nap(60)), 4000)) == pytest.approx(3600)
    assert time.monotonic() - real < 1.0


@virtual
async def test_timers_fire_in_order_and_timeouts_at_their_time() -> None:
    """Deadlines expire exactly when due, in order."""
    seen: list[int] = []
    loop = asyncio.get_running_loop()
    for due in (3, 1, 2):
        loop.call_later(due, seen.append, due)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.5):
            await asyncio.Event().wait()
    assert seen == [1, 2]


@virtual
async def test_a_thread_is_waited_for_when_no_timer_competes() -> None:
    """Work in a thread wakes the loop as usual."""
    assert await asyncio.to_thread(sum, [1, 2]) == 3


def test_waiting_for_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every task waits and no timer is set the loop raises instead of hanging."""
    monkeypatch.setattr(clock, "STUCK_AFTER", 0.01)
    with pytest.raises(StuckError):
        run_virtual(_forever())


async def _forever() -> None:
    await asyncio.Event().wait()


async def _nap(seconds: float) -> None:
    await asyncio.sleep(seconds)
