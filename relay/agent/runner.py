"""The agent's life: its links, each kept up for ever; signals; the exit code.

Decides when to try again and which refusal is the end. Knows no HTTP, and of keys only that `keyholder` has one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import signal
import time
from collections.abc import Awaitable, Callable

from relay.agent.addresses import AddressPolicy
from relay.agent.backoff import Backoff
from relay.agent.config import AgentSettings, Exit, KeyRefused
from relay.agent.forwarder import Forwarder, Report, Route
from relay.agent.keyholder import KeyHolder
from relay.agent.link import Link, LinkFailed, LinkRefused
from relay.agent.parsers import PARSERS
from relay.agent.pool import LocalPool
from relay.wire.hello import Hello, Refused, Welcome

# After a signal, open exchanges may go on this long: SIGTERM is a supervisor's, SIGINT a person's.
GRACE = {signal.SIGTERM: 30.0, signal.SIGINT: 1.0}
# After a link that lived shorter than this, the next attempt is not made at once.
STABLE_AFTER = 2.0
# Links that were closed may take this long to end, their WebSocket's close handshake included.
CLOSED_WITHIN = 2.5
_FINAL = {
    "bad_key": Exit.KEY_REFUSED,
    "expired": Exit.KEY_REFUSED,
    "revoked": Exit.KEY_REVOKED,
    "tunnel_closed": Exit.TUNNEL_CLOSED,
    "name_taken": Exit.NAME_REFUSED,
    "name_reserved": Exit.NAME_REFUSED,
    "version": Exit.VERSION_REFUSED,
    "bad_hello": Exit.UNEXPECTED,
}
# Final only without a time to wait: as long as the relay gives one, another agent's end may make room.
_FINAL_FOR_NOW = {"too_many": Exit.KEY_REFUSED}
# Tried again even without a time.
_PASSING = frozenset(("registry_unavailable",))
# Refusals that are events of their own.
_OWN_EVENTS = frozenset(("revoked", "tunnel_closed"))


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
        self._stopping = False
        self._exit: Exit | None = None
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._done = asyncio.Event()
        loop = asyncio.get_running_loop()
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
        self._forwarder = Forwarder(self._routes, settings.preserve_host, report, loop.time)

    async def run(self) -> int:
        """Until a signal or a final refusal; the exit code."""
        self._listen_to_signals()
        for slot in range(self._settings.links):
            self._spawn(self._keep_up(slot))
        self._spawn(self._keep_fresh())
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

    # ---- links

    async def _keep_up(self, slot: int) -> None:
        """Keeps one link up for ever."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(random.random)
        outage = loop.time()
        while not self._stopping:
            self._report({"event": "connecting", "slot": slot, "relay": self._settings.relay_url})
            reason, wait = "", None
            try:
                link, away = await self._open(slot)
                opened = loop.time()
                reason = await self._serve(link, away)
                outage = loop.time()  # a link that flaps is no long outage; it only is not tried again at once
                if outage - opened >= STABLE_AFTER:
                    backoff.reset()
            except LinkFailed as error:
                reason = str(error)
            except LinkRefused as error:
                reason = str(error)
                wait = self._on_refused(error.refused)
            except KeyRefused as error:
                self._stop(error.code)
            if self._exit is not None:
                return
            delay = backoff.next(loop.time() - outage)
            delay = max(delay, wait or 0.0)
            self._report({"event": "disconnected", "slot": slot, "reason": reason, "retry_in": round(delay, 3)})
            await asyncio.sleep(delay)

    async def _open(self, slot: int) -> tuple[Link, asyncio.Event]:
        """A link that was welcomed, and what is set when the relay says that it will end it. What another key or a
        claim can cure is cured on the way.

        Raises `LinkFailed`, `LinkRefused`, `KeyRefused`.
        """
        claimed = False
        while True:
            key, away = await self._keys.key(), asyncio.Event()
            link = Link(self._forwarder, away.set)
            try:
                welcome = await link.open(self._settings.relay_url, self._hello(slot, key))
            except LinkRefused as error:
                code = error.refused.code
                if code == "expired" and self._keys.replace(key):
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
            if self._stopping:
                link.go_away("the agent stops")
            return link, away

    async def _serve(self, link: Link, away: asyncio.Event) -> str:
        """Until the link has ended, or the relay said that it will: then the old one finishes beside a new one."""
        ended = asyncio.ensure_future(link.wait())
        leaving = asyncio.ensure_future(away.wait())
        try:
            await asyncio.wait((ended, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self._spawn(self._finish(link))
                self._hear(link)
                return link.parting or "the relay is going away"
            self._links.discard(link)
            self._hear(link)
            return ended.result().reason
        finally:
            ended.cancel()
            leaving.cancel()

    async def _finish(self, link: Link) -> None:
        """A link that takes no new streams, until it has ended."""
        await link.wait()
        self._links.discard(link)
        self._hear(link)

    async def _keep_fresh(self) -> None:
        """Replaces the key before it ends, on all links."""
        try:
            await self._keys.keep_fresh(lambda: self._links)
        except KeyRefused as error:
            self._stop(error.code)

    def _hello(self, slot: int, key: str) -> Hello:
        self._generation += 1
        access = self._settings.access
        return Hello(self._instance, slot, self._generation, key, tuple(self._routes), agent=self._name, access=access)

    def _on_welcome(self, slot: int, welcome: Welcome) -> None:
        self._report({"event": "connected", "slot": slot})
        if self._established:
            return
        self._established = True
        for name, url in welcome.tunnels:
            target = self._routes[name].target.url if name in self._routes else ""
            self._report({"event": "established", "subdomain": name, "url": url, "target": target})

    def _on_refused(self, refused: Refused) -> float | None:
        """Seconds to wait before the next attempt; None when there will be none."""
        final = _FINAL.get(refused.code)
        if refused.retry_after is not None and (self._established or final is None):
            self._report_refusal(refused)
            return refused.retry_after
        if refused.code in _PASSING:
            self._report_refusal(refused)
            return 0.0
        self._end(refused, final or _FINAL_FOR_NOW.get(refused.code, Exit.UNEXPECTED))
        return None

    def _hear(self, link: Link) -> None:
        """What a relay that ended a link meant for the agent. The end of a key that can be replaced is no verdict."""
        verdict = link.verdict
        if verdict is not None and not (verdict.code == "revoked" and self._keys.over(link.key)):
            self._end(verdict, _FINAL[verdict.code])

    def _end(self, refused: Refused, code: Exit) -> None:
        """A refusal for good, which all links hear and one tells."""
        if self._exit is not None:
            return
        if refused.code in _OWN_EVENTS:
            self._report({"event": refused.code, "message": refused.message})
        else:
            self._report_refusal(refused)
        self._stop(code)

    def _report_refusal(self, refused: Refused) -> None:
        told = {"code": refused.code, "message": refused.message, "retry_after": refused.retry_after}
        self._report({"event": "refused", **told})

    # ---- the end

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in GRACE:
            try:
                loop.add_signal_handler(number, self._on_signal, number)
            except NotImplementedError:  # Windows: asyncio has no handlers there
                signal.signal(number, lambda got, _: loop.call_soon_threadsafe(self._on_signal, signal.Signals(got)))

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping:
            self._done.set()
            return
        self._stopping = True
        self._report({"event": "stopping", "open": len(self._forwarder.active)})
        for link in self._links:
            link.go_away("the agent stops")
        if not self._forwarder.active:
            self._done.set()
            return
        self._forwarder.on_idle = self._done.set
        asyncio.get_running_loop().call_later(GRACE[number], self._done.set)

    def _stop(self, code: Exit) -> None:
        if self._exit is None:
            self._exit = code
        self._done.set()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._report({"event": "error", "message": repr(task.exception())})
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the agent failed", "exception": task.exception()}
            )
            self._stop(Exit.UNEXPECTED)


def run(settings: AgentSettings, report: Callable[[dict[str, object]], None]) -> int:
    """Runs an agent on an event loop of its own, uvloop where it exists. Blocks; the exit code."""
    from relay import __version__

    async def main() -> int:
        return await Agent(settings, report, f"tunnel-relay/{__version__}").run()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
