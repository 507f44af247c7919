"""The agent's life: its slots, its key, what befalls its machine, signals, the exit code.

Decides which end is the end, and when an agent that was told to stop has finished. Knows no HTTP, of keys only that
`keyholder` has one, and of trying again only that `slots` do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import signal
import time
from collections.abc import Awaitable, Callable

from relay.agent.addresses import AddressPolicy
from relay.agent.config import AgentSettings, Exit, KeyRefused
from relay.agent.forwarder import Forwarder, Report, Route
from relay.agent.keyholder import KeyHolder
from relay.agent.link import Link, LinkRefused
from relay.agent.lookups import Lookups
from relay.agent.parsers import PARSERS
from relay.agent.pool import LocalPool
from relay.agent.refusals import FINAL, OWN_EVENTS, exit_for, wait_after
from relay.agent.slots import Slot
from relay.agent.surroundings import Event, Watch, is_gone
from relay.wire.hello import Hello, Refused, Welcome
from relay.wire.limits import not_kept

# After a signal, open exchanges may go on this long: SIGTERM is a supervisor's, SIGINT a person's.
GRACE = {signal.SIGTERM: 30.0, signal.SIGINT: 1.0}
# An agent that finishes looks this often, in seconds, whether something is still under way.
LOOK_EVERY = 0.02
# Links that were closed may take this long to end, their WebSocket's close handshake included.
CLOSED_WITHIN = 2.5
# When something has befallen the machine, a link that does not answer within so many seconds is cut.
ANSWERS_WITHIN = 2.0
# A key that is this new, in seconds, may not be known yet to the node of the relay that it is shown to.
NEW_KEY = 10.0
KNOWN_AFTER = 1.0
"""Seconds to wait then."""


class Agent:
    """One agent, whatever the number of its links and tunnels."""

    def __init__(
        self, settings: AgentSettings, report: Report, name: str, now: Callable[[], float] = time.time
    ) -> None:
        self._keys = KeyHolder(settings.keys, report, now)
        self._settings = settings
        self._report = report
        self._name = name
        self._instance = secrets.token_hex(16)
        self._generation = 0
        self._established = False
        self.stopping = False
        self._exit: Exit | None = None
        self._links: set[Link] = set()
        self._watch = Watch(now, self._tend)
        self._tasks: set[asyncio.Task[None]] = set()
        self._done = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._names = Lookups()
        policy = AddressPolicy(settings.allow_upstream)
        parser = PARSERS[settings.http_parser]
        self._routes = {
            subdomain: Route(
                subdomain,
                target,
                LocalPool(target, policy, parser),
                settings.upstream.get(subdomain, []),
                private=subdomain in settings.access,
            )
            for subdomain, target in settings.tunnels
        }
        self._forwarder = Forwarder(self._routes, settings.preserve_host, report, self._loop.time)
        self._slots = [Slot(number, self, report, settings.relay_url) for number in range(settings.links)]

    async def run(self) -> int:
        """Until a signal or a final refusal; the exit code."""
        self._listen_to_signals()
        for slot in self._slots:
            self.spawn(slot.keep_up())
        self.spawn(self._keep_fresh())
        self.spawn(self._watch.run())
        await self._done.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in list(self._links):
            link.close("the agent stops")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSED_WITHIN):
                await asyncio.gather(*(link.wait() for link in list(self._links)))
        for route in self._routes.values():
            await route.pool.aclose()
        code = Exit.STOPPED if self._exit is None else self._exit
        self._report({"event": "stopped", "exit_code": int(code)})
        return int(code)

    # ---- what slots ask for

    async def open(self, slot: int) -> tuple[Link, asyncio.Event]:
        """See `Crew.open`. What another key, a claim or a moment's patience can cure is cured on the way."""
        claimed = waited = False
        while True:
            key, away = await self._keys.key(), asyncio.Event()
            link = Link(self._forwarder, away.set, self._names)
            try:
                welcome = await link.open(self._settings.relay_url, self._hello(slot, key), self._wants_links)
            except LinkRefused as error:
                code = error.refused.code
                if code == "expired" and self._keys.replace(key):
                    continue
                if code == "bad_key" and not waited and self._keys.age(key) < NEW_KEY:
                    waited = True
                    await asyncio.sleep(KNOWN_AFTER)
                    continue
                # Never after it was up: two agents of one login would take a name from each other for ever.
                if code == "name_taken" and not claimed and not self._established:
                    claimed = True
                    if await self._keys.claim(tuple(self._routes)):
                        continue
                raise
            self._keys.welcomed(key)
            self._on_welcome(slot, welcome)
            self._links.add(link)
            if link.peer is not None:
                self._watch.connected(link.peer, link.local)
            if self.stopping:
                link.go_away("the agent stops")
            return link, away

    def ended(self, link: Link) -> None:
        """See `Crew.ended`."""
        self._links.discard(link)
        self.hear(link)

    def hear(self, link: Link) -> None:
        """See `Crew.hear`. The end of a key that can be replaced is no verdict."""
        verdict = link.verdict
        if verdict is not None and not (verdict.code == "revoked" and self._keys.over(link.key)):
            self._end(verdict, FINAL[verdict.code])

    def on_refused(self, refused: Refused) -> float | None:
        """See `Crew.on_refused`."""
        wait = wait_after(refused, self._established)
        if wait is None:
            self._end(refused, exit_for(refused))
        else:
            self._report_refusal(refused)
        return wait

    def on_key_refused(self, error: KeyRefused) -> None:
        """See `Crew.on_key_refused`."""
        self._stop(error.code)

    def spawn(self, work: Awaitable[None]) -> None:
        """See `Crew.spawn`."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _wants_links(self) -> bool:
        return not self.stopping

    def _hello(self, slot: int, key: str) -> Hello:
        self._generation += 1
        asked, names = self._settings, tuple(self._routes)
        return Hello(
            self._instance,
            slot,
            self._generation,
            key,
            names,
            agent=self._name,
            access=asked.access,
            limits=asked.limits,
        )

    def _on_welcome(self, slot: int, welcome: Welcome) -> None:
        self._report({"event": "connected", "slot": slot})
        if self._established:
            return
        self._established = True
        for name, url in welcome.tunnels:
            target = self._routes[name].target.url if name in self._routes else ""
            self._report({"event": "established", "subdomain": name, "url": url, "target": target})
        if names := not_kept(self._settings.limits, welcome.limits):
            told = f"The relay is too old for --rate and --rate-per-address: requests to {', '.join(names)} are not "
            self._report({"event": "warning", "message": told + "limited. Upgrade the relay."})

    # ---- the world around

    async def _keep_fresh(self) -> None:
        """Replaces the key before it ends, on all links."""
        try:
            await self._keys.keep_fresh(lambda: self._links)
        except KeyRefused as error:
            self._stop(error.code)

    async def _tend(self, event: Event) -> None:
        """Something befell the machine: whoever waits to try again does so now, what idles is not used again, and links
        that are dead are cut.
        """
        self._report(event)
        for route in self._routes.values():
            route.pool.drop_idle()
        for slot in self._slots:
            slot.hurry()
        await asyncio.gather(*map(_cut_if_dead, list(self._links)))

    # ---- the end

    def _end(self, refused: Refused, code: Exit) -> None:
        """A refusal for good, which all links hear and one tells."""
        if self._exit is not None:
            return
        if refused.code in OWN_EVENTS:
            self._report({"event": refused.code, "message": refused.message})
        else:
            self._report_refusal(refused)
        self._stop(code)

    def _report_refusal(self, refused: Refused) -> None:
        told = {"code": refused.code, "message": refused.message, "retry_after": refused.retry_after}
        self._report({"event": "refused", **told})

    def _listen_to_signals(self) -> None:
        for number in GRACE:
            try:
                self._loop.add_signal_handler(number, self._on_signal, number)
            except NotImplementedError:  # Windows: asyncio has no handlers there
                signal.signal(
                    number, lambda got, _: self._loop.call_soon_threadsafe(self._on_signal, signal.Signals(got))
                )

    def _on_signal(self, number: signal.Signals) -> None:
        if self.stopping:
            self._done.set()
            return
        self.stopping = True
        self._report({"event": "stopping", "open": len(self._forwarder.active)})
        for link in self._links:
            link.go_away("the agent stops")
        self.spawn(self._finish(GRACE[number]))

    async def _finish(self, grace: float) -> None:
        """Until all that runs has ended and has arrived, at most so many seconds. What was said last still waits for
        its visitor to read when the local service has long been done.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self._forwarder.active or any(link.busy for link in self._links):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY)  # a stream tells its owner of its end, and nobody else
                await asyncio.gather(*(link.settle() for link in self._links))
        self._done.set()

    def _stop(self, code: Exit) -> None:
        if self._exit is None:
            self._exit = code
        self._done.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._report({"event": "error", "message": repr(task.exception())})
            self._loop.call_exception_handler({"message": "the agent failed", "exception": task.exception()})
            self._stop(Exit.UNEXPECTED)


async def _cut_if_dead(link: Link) -> None:
    if link.local and is_gone(link.local):
        link.abort("the address that it came from is gone")
    elif not await link.answers(ANSWERS_WITHIN):
        link.abort("the relay does not answer on it any more")


def run(settings: AgentSettings, report: Callable[[dict[str, object]], None]) -> int:
    """Runs an agent on an event loop of its own, uvloop where it exists. Blocks; the exit code."""
    from relay import __version__

    async def main() -> int:
        gc.freeze()  # what was imported stays: looking through it again and again would halt every stream
        return await Agent(settings, report, f"tunnel-relay/{__version__}").run()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
