"""Time in the hands of a test: a clock that is told to move, and an event loop that jumps to its next timer.

`ManualClock` is for pure rooms, which are given the time. `VirtualLoop` is for code that waits on asyncio's timers:
whenever nothing is ready its time jumps to the next timer, so an hour passes in a millisecond and always the same way.
Real sockets may be used on it only where no timer competes with them: the loop does not wait for the wire.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

STUCK_AFTER = 5.0  # real seconds without any timer, for threads and sockets that still answer


class ManualClock:
    """Seconds that pass when told to: `clock()` and `clock.now()` read, `advance` moves."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start

    def __call__(self) -> float:
        return self._now

    def now(self) -> float:
        """Seconds on this clock."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Move forward; raises ValueError for going back."""
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds}")
        self._now += seconds
        return self._now


class StuckError(AssertionError):
    """Everything waits and nothing is left that could wake it."""


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is not None:
            self._clock.advance(max(timeout, 0))
            return []
        ready = super().select(STUCK_AFTER)
        if not ready:
            raise StuckError("all tasks wait and no timer is set")
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a `ManualClock`; `loop.clock.advance` moves it by hand as well."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        super().__init__(_JumpingSelector(self.clock))

    def time(self) -> float:
        return self.clock.now()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Without the deadline that Python 3.12 and newer set: a thread takes real time, and this loop's would jump."""
        await super().shutdown_default_executor()


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a new `VirtualLoop`; raises StuckError when it could wait for ever."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def virtual(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Decorate an async test to run on a `VirtualLoop`."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_virtual(test(*args, **kwargs))

    return run


async def elapsed(waiting: Awaitable[Any]) -> float:
    """Seconds of the running loop's time that the awaitable took."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    await waiting
    return loop.time() - start
