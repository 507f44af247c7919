"""What an agent does by one set of settings: its slots, its key, its routes, from its first link to its last.

Decides which end is the end, and when a shift that was told to stop, or was relieved by another, has finished. Knows no
HTTP, of keys only that `keyholder` has one, and of trying again only that `slots` do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field

from relay.agent.config import AgentSettings, Exit, KeyRefused
from relay.agent.forwarder import Forwarder, Report
from relay.agent.keyholder import KeyHolder
from relay.agent.link import Link, LinkRefused
from relay.agent.lookups import Lookups
from relay.agent.refusals import FINAL, OWN_EVENTS, exit_for, wait_after
from relay.agent.routes import Routes
from relay.agent.slots import Slot
from relay.agent.surroundings import Event, Watch, is_gone
from relay.mux.glance import Carried
from relay.wire.errors import ResetCode
from relay.wire.hello import Hello, Refused, Welcome
from relay.wire.limits import not_kept

# A shift that finishes looks this often, in seconds, whether something is still under way.
LOOK_EVERY = 0.02
# Links that were closed may take this long to end, their WebSocket's close handshake included.
CLOSED_WITHIN = 2.5
# When something has befallen the machine, a link that does not answer within so many seconds is cut.
ANSWERS_WITHIN = 2.0
# A key that is this new, in seconds, may not be known yet to the node of the relay that it is shown to.
NEW_KEY = 10.0
KNOWN_AFTER = 1.0  # seconds to wait then
# Exchanges of a tunnel that was taken out of the settings may go on so many seconds.
REMOVED_GRACE = 30.0
# A link that was relieved and is busy is looked at this often, in seconds: an event stream may run for days.
RELIEVED_LOOK = 0.25
# So many seconds a relay may take to say that it has heard of a link's going away, before it is asked again.
HEARD_WITHIN = 5.0


@dataclass(slots=True)
class Process:
    """What the shifts of one process have in common."""

    report: Report
    name: str
    """Program and version, for people."""
    instance: str
    now: Callable[[], float] = time.time
    generations: Iterator[int] = field(default_factory=lambda: iter(range(1, 2**53)))
    established: set[tuple[str, str, str]] = field(default_factory=set)
    """Subdomains with their addresses and local services that were told as established."""
    carried: Carried = field(default_factory=Carried)


class Shift:
    """By `settings`, in these slots at first."""

    def __init__(self, settings: AgentSettings, process: Process, slots: Iterable[int]) -> None:
        self.settings = settings
        self.welcomed = asyncio.Event()
        """Set once the relay has admitted a link."""
        self.relieved = False
        """Another shift has taken this one's place."""
        self.stopping = False
        """No new link is wanted."""
        self.links: set[Link] = set()
        self.refusal = ""
        """Why it ended, in the words of who refused it."""
        self._process = process
        self._report = process.report
        self.keys = KeyHolder(settings.keys, process.report, process.now)
        self._exit: Exit | None = None
        self._watch = Watch(process.now, self._tend)
        self._tasks: set[asyncio.Task[None]] = set()
        self._done = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._names = Lookups()
        self.routes = Routes(settings)
        self.forwarder = Forwarder(self.routes.by_name, process.report, self._loop.time)
        self._wanted = tuple(slots)
        self._slots: dict[int, tuple[Slot, asyncio.Task[None]]] = {}

    async def run(self) -> Exit:
        """Until it is told to end, or is refused for good; by which exit code the agent ends, if this is its end."""
        for number in self._wanted:
            self.take(number)
        self.spawn(self._keep_fresh())
        self.spawn(self._watch.run())
        try:
            await self._done.wait()
        finally:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in list(self.links):
            link.close("the agent stops")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSED_WITHIN):
                await asyncio.gather(*(link.wait() for link in list(self.links)))
        await self.routes.aclose()
        return Exit.STOPPED if self._exit is None else self._exit

    @property
    def slots(self) -> list[int]:
        """The numbers of its slots at the relay, in order."""
        return sorted(self._slots)

    # ---- what the agent asks for

    def adopt(self, settings: AgentSettings) -> None:
        """Goes on by settings that ask the relay for the same: no link is touched, and no exchange."""
        assert settings.asks_the_same(self.settings)
        self.settings = settings
        self.routes.follow(settings)
        self.forwarder.lead(self.routes.by_name)

    def take(self, number: int) -> None:
        """One slot more."""
        slot = Slot(number, self, self._report, self.settings.relay_url)
        self._slots[number] = slot, self._start(slot.keep_up())

    async def give_up(self, number: int) -> None:
        """One slot less: returns once the relay knows, so that another link may take it without evicting this one,
        which finishes what it carries.
        """
        _, task = self._slots[number]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for link in [link for link in self.links if link.slot == number]:
            link.go_away("the agent has other settings")
            while not link.over and not await link.answers(HEARD_WITHIN):
                pass
            self.spawn(self._leave(link))
        self._report({"event": "released", "slot": number})
        del self._slots[number]

    async def relieve(self, kept: set[str]) -> None:
        """Another shift has taken this one's place: gives all slots up, and ends by itself when its last exchange has.
        Those of tunnels that are not `kept` have a grace time.
        """
        self.relieved = self.stopping = True
        await asyncio.gather(*(self.give_up(number) for number in self.slots))
        if removed := {name for name, _ in self.settings.tunnels} - kept:
            self.spawn(self._cut(removed))
        self.spawn(self._until_left())

    def finish(self, grace: float) -> None:
        """The process was told to stop: nothing new, and what runs has so many seconds."""
        self.stopping = True
        for link in self.links:
            link.go_away("the agent stops")
        self.spawn(self._finish(grace))

    def end(self) -> None:
        """Stops at once."""
        self.stopping = True
        self._done.set()

    # ---- what slots ask for

    async def open(self, slot: int) -> tuple[Link, asyncio.Event]:
        """See `Crew.open`. What another key, a claim or a moment's patience can cure is cured on the way."""
        claimed = waited = False
        while True:
            key, away = await self.keys.key(), asyncio.Event()
            link = Link(self.forwarder, away.set, self._names, self._process.carried)
            try:
                welcome = await link.open(self.settings.relay_url, self._hello(slot, key), lambda: not self.stopping)
            except LinkRefused as error:
                code = error.refused.code
                if code == "expired" and self.keys.replace(key):
                    continue
                if code == "bad_key" and not waited and self.keys.age(key) < NEW_KEY:
                    waited = True
                    await asyncio.sleep(KNOWN_AFTER)
                    continue
                # Never after it was up: two agents of one login would take a name from each other for ever.
                if code == "name_taken" and not claimed and not self.welcomed.is_set():
                    claimed = True
                    if await self.keys.claim(tuple(self.routes.by_name)):
                        continue
                raise
            self.keys.welcomed(key)
            self._on_welcome(slot, welcome)
            self.links.add(link)
            if link.peer is not None:
                self._watch.connected(link.peer, link.local)
            if self.stopping:
                link.go_away("the agent stops")
            return link, away

    def ended(self, link: Link) -> None:
        """See `Crew.ended`."""
        self.links.discard(link)
        self.hear(link)

    def hear(self, link: Link) -> None:
        """See `Crew.hear`. The end of a key that can be replaced is no verdict."""
        verdict = link.verdict
        if verdict is not None and not (verdict.code == "revoked" and self.keys.over(link.key)):
            self._end(verdict, FINAL[verdict.code])

    def on_refused(self, refused: Refused) -> float | None:
        """See `Crew.on_refused`."""
        wait = wait_after(refused, self.welcomed.is_set())
        if wait is None:
            self._end(refused, exit_for(refused))
        else:
            self._report_refusal(refused)
        return wait

    def on_key_refused(self, error: KeyRefused) -> None:
        """See `Crew.on_key_refused`."""
        self._stop(error.code, str(error))

    def spawn(self, work: Awaitable[None]) -> None:
        """See `Crew.spawn`."""
        self._start(work)

    def _start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _hello(self, slot: int, key: str) -> Hello:
        asked, process = self.settings, self._process
        return Hello(
            process.instance,
            slot,
            next(process.generations),
            key,
            tuple(self.routes.by_name),
            agent=process.name,
            access=asked.access,
            limits=asked.limits,
        )

    def _on_welcome(self, slot: int, welcome: Welcome) -> None:
        self._report({"event": "connected", "slot": slot})
        if self.welcomed.is_set():
            return
        self.welcomed.set()
        for name, url in welcome.tunnels:
            route = self.routes.by_name.get(name)
            target = "" if route is None else route.target.url
            if (name, url, target) not in self._process.established:
                self._process.established.add((name, url, target))
                self._report({"event": "established", "subdomain": name, "url": url, "target": target})
        if names := not_kept(self.settings.limits, welcome.limits):
            told = f"The relay is too old for --rate and --rate-per-address: requests to {', '.join(names)} are not "
            self._report({"event": "warning", "message": told + "limited. Upgrade the relay."})

    # ---- the world around

    async def _keep_fresh(self) -> None:
        """Replaces the key before it ends, on all links."""
        try:
            await self.keys.keep_fresh(lambda: self.links)
        except KeyRefused as error:
            self._stop(error.code, str(error))

    async def _tend(self, event: Event) -> None:
        """Something befell the machine: whoever waits to try again does so now, what idles is not used again, and links
        that are dead are cut.
        """
        if not self.relieved:
            self._report(event)
        self.routes.drop_idle()
        for slot, _ in self._slots.values():
            slot.hurry()
        await asyncio.gather(*map(_cut_if_dead, list(self.links)))

    # ---- the end

    def _end(self, refused: Refused, code: Exit) -> None:
        """A refusal for good, which all links hear and one tells."""
        if self._exit is not None:
            return
        if self.relieved:  # what ended here is over for this process anyway: a key that was replaced, say
            pass
        elif refused.code in OWN_EVENTS:
            self._report({"event": refused.code, "message": refused.message})
        else:
            self._report_refusal(refused)
        self._stop(code, refused.message)

    def _report_refusal(self, refused: Refused) -> None:
        told = {"code": refused.code, "message": refused.message, "retry_after": refused.retry_after}
        self._report({"event": "refused", **told})

    async def _finish(self, grace: float) -> None:
        """Until all that runs has ended and has arrived, at most so many seconds. What was said last still waits for
        its visitor to read when the local service has long been done.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self.forwarder.active or any(link.busy for link in self.links):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY)  # a stream tells its owner of its end, and nobody else
                await asyncio.gather(*(link.settle() for link in self.links))
        self._done.set()

    async def _leave(self, link: Link) -> None:
        """Until a link that was given up carries nothing more, and all has arrived; then ends it."""
        while link.busy:
            await asyncio.sleep(RELIEVED_LOOK)
            if not link.busy:
                await link.settle()
        link.close("a newer link took this one's place")
        await link.wait()
        self.links.discard(link)

    async def _until_left(self) -> None:
        while self.links:  # noqa: ASYNC110 - whichever way each of them ends
            await asyncio.sleep(RELIEVED_LOOK)
        self._done.set()

    async def _cut(self, removed: set[str]) -> None:
        await asyncio.sleep(REMOVED_GRACE)
        for forwarding in list(self.forwarder.active):
            if forwarding.name in removed:
                forwarding.cut(ResetCode.UNKNOWN_NAME, "the tunnel was taken out of the agent's settings")

    def _stop(self, code: Exit, why: str) -> None:
        if self._exit is None:
            self._exit, self.refusal = code, why
        self._done.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._report(
                {"event": "error", "message": f"A part of the agent failed: {type(task.exception()).__name__}."}
            )
            self._loop.call_exception_handler({"message": "the agent failed", "exception": task.exception()})
            self._stop(Exit.UNEXPECTED, "the agent failed")


async def _cut_if_dead(link: Link) -> None:
    if link.local and is_gone(link.local):
        link.abort("the address that it came from is gone")
    elif not await link.answers(ANSWERS_WITHIN):
        link.abort("the relay does not answer on it any more")
