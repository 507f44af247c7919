"""The agent's life: signals, settings that change while it runs, the exit code.

By each set of settings one shift works; another one relieves it when the relay must be asked for something else. A
relay lets links of one process claim what they like, so new ones are opened beside the old ones, which are given up
when they are: no name is without a link, and what an old link carries ends in its own time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import signal
import socket
import time
from collections.abc import Callable
from functools import partial

from relay.agent.config import MOST_LINKS, AgentSettings, BadChange, Changes, Exit
from relay.agent.forwarder import Report
from relay.agent.keyholder import KeyHolder
from relay.agent.link import Link
from relay.agent.lookups import in_thread
from relay.agent.metricsdoor import address_of, bind, serving
from relay.agent.shift import Process, Shift
from relay.agent.sparing import Sparing
from relay.agent.tally import Tally
from relay.mux.heap import keep_heap

# After a signal, open exchanges may go on this long: SIGTERM is a supervisor's, SIGINT a person's.
GRACE = {signal.SIGTERM: 30.0, signal.SIGINT: 1.0}
# Other settings are looked for this often, in seconds.
LOOK_EVERY = 0.5
# Shifts that were relieved and still carry something; of more, the oldest is ended.
MOST_RELIEVED = 8


class Agent:
    """One agent, whatever the number of its links and tunnels."""

    def __init__(
        self,
        settings: AgentSettings,
        report: Report,
        name: str,
        now: Callable[[], float] = time.time,
        changes: Changes | None = None,
    ) -> None:
        self.stopping = False
        self._report = report
        self._process = Process(report, name, secrets.token_hex(16), now)
        self._changes = changes
        self._current = Shift(settings, self._process, range(settings.links))
        self._shifts: dict[Shift, asyncio.Task[Exit]] = {}
        self._trial: asyncio.Task[None] | None = None
        """The change that is being made."""
        self._on_trial: Shift | None = None
        """The shift that will relieve the current one, unless it is refused."""
        self._asked = asyncio.Event()
        self._code: Exit | None = None
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def run(self) -> int:
        """Until a signal or a final refusal; the exit code."""
        self._listen_to_signals()
        self._begin(self._current)
        following = None if self._changes is None else asyncio.ensure_future(self._follow(self._changes))
        try:
            await self._over.wait()
        finally:
            tasks = [task for task in (following, self._trial) if task is not None]
            for task in tasks:
                task.cancel()
            for shift in self._shifts:
                shift.end()
        await asyncio.gather(*tasks, *self._shifts.values(), return_exceptions=True)
        code = Exit.STOPPED if self._code is None else self._code
        self._report({"event": "stopped", "exit_code": int(code)})
        return int(code)

    @property
    def links(self) -> list[Link]:
        """Those that are up, and those that finish."""
        return [link for shift in self._shifts for link in shift.links]

    @property
    def exchanges(self) -> int:
        """How many run."""
        return sum(len(shift.forwarder.active) for shift in self._shifts)

    @property
    def settings(self) -> AgentSettings:
        """By which it works now."""
        return self._current.settings

    @property
    def keys(self) -> KeyHolder:
        """Where its key is."""
        return self._current.keys

    def connections(self) -> tuple[int, int]:
        """To local services: open in all, and idle."""
        counts = [shift.routes.connections() for shift in self._shifts]
        return sum(open_ for open_, _ in counts), sum(idle for _, idle in counts)

    def carried(self) -> tuple[int, int]:
        """Bytes of bodies over all links that there were: sent, and received."""
        return self._process.carried.total(link.session for link in self.links if link.session is not None)

    def end(self) -> None:
        """Stops at once."""
        self._over.set()

    # ---- other settings

    async def _follow(self, changes: Changes) -> None:
        """Looks for other settings, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._asked.wait()
            asked = self._asked.is_set()
            self._asked.clear()
            try:
                settings = await in_thread(partial(changes.look, asked))
            except BadChange as error:
                self._report({"event": "reload_failed", "message": str(error)})
                continue
            except Exception as error:  # a defect there must neither end what runs, nor the looking
                self._report({"event": "reload_failed", "message": f"Unexpected: {type(error).__name__}"})
                self._loop.call_exception_handler({"message": "a look for changes failed", "exception": error})
                continue
            if settings is None or self.stopping:
                continue
            if self._trial is not None:
                if self._on_trial is not None:  # not admitted yet, and not wanted any more
                    self._trial.cancel()
                await asyncio.gather(self._trial, return_exceptions=True)
            self._trial = asyncio.ensure_future(self._change(settings))
            self._trial.add_done_callback(self._changed)

    async def _change(self, settings: AgentSettings) -> None:
        """Goes on by other settings, or, if the relay refuses them, by those that were."""
        old = self._current
        before = old.settings
        if settings.asks_the_same(before):
            old.adopt(settings)
        else:
            new = await self._admitted(old, settings)
            if new is None:
                return
            self._fill(new)
            if old in self._shifts:
                await old.relieve({name for name, _ in settings.tunnels})
                self._fill(new)
            self._make_room()
        self._report({"event": "reloaded", **_differences(before, settings)})
        if settings.metrics != before.metrics:
            self._report({"event": "hint", "message": "Where metrics are served changes at the next start."})

    async def _admitted(self, old: Shift, settings: AgentSettings) -> Shift | None:
        """The shift of other settings, once it is the current one; None if it was refused."""
        lent = old.slots[-1] if not self._free() and old.slots else None
        if lent is not None:
            await old.give_up(lent)
        new = self._on_trial = Shift(settings, self._process, self._free()[:1])
        working = self._begin(new)
        welcomed = asyncio.ensure_future(new.welcomed.wait())
        try:
            await asyncio.wait((working, welcomed), return_when=asyncio.FIRST_COMPLETED)
            if new.welcomed.is_set() and not working.done():
                self._current, self._code = new, None
                return new
            self._report({"event": "reload_failed", "message": new.refusal})
            return None
        finally:
            self._on_trial = None
            welcomed.cancel()
            if self._current is not new:
                new.end()
                if lent is not None and old in self._shifts:
                    old.take(lent)

    def _changed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report({"event": "error", "message": f"A part of the agent failed: {type(error).__name__}."})
            self._loop.call_exception_handler({"message": "the agent failed", "exception": error})
            self._code = Exit.UNEXPECTED
            self._over.set()
        elif self._current not in self._shifts:  # it ended while the other settings were tried
            self._over.set()

    def _fill(self, shift: Shift) -> None:
        """As many links as it wants, as far as there are slots."""
        for number in self._free()[: shift.settings.links - len(shift.slots)]:
            shift.take(number)

    def _free(self) -> list[int]:
        """Numbers of slots that no shift has."""
        taken = {number for shift in self._shifts for number in shift.slots}
        return [number for number in range(MOST_LINKS) if number not in taken]

    def _make_room(self) -> None:
        relieved = [shift for shift in self._shifts if shift.relieved]
        for shift in relieved[: max(len(relieved) - MOST_RELIEVED, 0)]:
            shift.end()

    # ---- shifts

    def _begin(self, shift: Shift) -> asyncio.Task[Exit]:
        task = self._shifts[shift] = asyncio.ensure_future(shift.run())
        task.add_done_callback(partial(self._ended, shift))
        return task

    def _ended(self, shift: Shift, task: asyncio.Task[Exit]) -> None:
        if not self._over.is_set():
            del self._shifts[shift]
        if task.cancelled():
            return
        if task.exception() is not None:
            self._loop.call_exception_handler({"message": "the agent failed", "exception": task.exception()})
            self._code = Exit.UNEXPECTED
            self._over.set()
        elif self.stopping:
            if not self._shifts:
                self._over.set()
        elif shift is self._current:
            self._code = task.result()
            if self._on_trial is None:
                self._over.set()

    # ---- signals

    def _listen_to_signals(self) -> None:
        for number in GRACE:
            try:
                self._loop.add_signal_handler(number, self._on_signal, number)
            except NotImplementedError:  # Windows: asyncio has no handlers there
                signal.signal(
                    number, lambda got, _: self._loop.call_soon_threadsafe(self._on_signal, signal.Signals(got))
                )
        if self._changes is not None and hasattr(signal, "SIGHUP"):
            self._loop.add_signal_handler(signal.SIGHUP, self._asked.set)

    def _on_signal(self, number: signal.Signals) -> None:
        if self.stopping:
            self._over.set()
            return
        self.stopping = True
        self._report({"event": "stopping", "open": self.exchanges})
        if self._trial is not None:
            self._trial.cancel()
        for shift in self._shifts:
            shift.finish(GRACE[number])


def _differences(before: AgentSettings, after: AgentSettings) -> dict[str, list[str]]:
    """Names of tunnels that came, went, and lead elsewhere or are open to others."""
    old, new = dict(before.tunnels), dict(after.tunnels)

    def facets(settings: AgentSettings, name: str) -> tuple[object, ...]:
        own = (dict(settings.tunnels)[name], settings.access.get(name), settings.limits.get(name))
        return (*own, settings.upstream.get(name), name in settings.preserve_host)

    return {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and facets(before, name) != facets(after, name)],
    }


def run(settings: AgentSettings, report: Report, changes: Changes | None = None, *, quiet: bool = False) -> int:
    """Runs an agent on an event loop of its own, uvloop where it exists. Blocks; the exit code.

    `quiet`: of requests that went well, one after another, only the first is reported; all are counted.
    Raises `CannotListen`.
    """
    from relay import __version__

    name, door = f"tunnel-relay/{__version__}", settings.metrics and bind(*settings.metrics)
    told = Sparing(report) if quiet else report

    async def main() -> int:
        gc.freeze()  # what was imported stays: looking through it again and again would halt every stream
        keep_heap()
        if door is None:
            return await Agent(settings, told, name, changes=changes).run()
        report({"event": "metrics", "address": address_of(door)})
        tally = Tally()
        agent = Agent(settings, tally.listening(told), name, changes=changes)
        return await _measured(agent, tally, door)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main())


async def _measured(agent: Agent, tally: Tally, door: socket.socket) -> int:
    """Runs it while it tells how it is."""
    from relay.agent.measuring import pages  # which needs prometheus_client

    async with serving(door, pages(agent, tally)):
        return await agent.run()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
