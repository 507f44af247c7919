"""The hub: which names are alive, over which links, and which requests wait for an agent to come back.

It alone knows who owns a live name; which of two agents may have it is decided by `doorway`, before a link is attached.
Synchronous: nothing comes between the steps of a change. Knows sessions and names; no HTTP, and of keys only whose they
are. Every name that it puts in service is within the scope of the key that claimed it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from relay.mux.session import Session
from relay.tunnels.admission import Principal
from relay.wire.access import AccessRules
from relay.wire.errors import AwayCode

# Two links differ in load when they moved this many bytes more or less lately; below it the lower slot wins, so that
# small exchanges share messages.
LOAD_STEP = 1024 * 1024
LOAD_SPAN = 0.05
# Names remembered as "reserved, but offline"; the oldest is forgotten first.
MOST_OFFLINE = 10_000


@dataclass(eq=False, slots=True)
class Link:
    """One admitted session of an agent."""

    session: Session
    instance: str
    slot: int
    generation: int
    principal: Principal
    names: tuple[str, ...]
    address: str = ""
    """The agent's, for the audit."""
    access: Mapping[str, AccessRules] = field(default_factory=dict)
    """What visitors of a name must show, for names that are not open to everybody."""
    _mark: float = 0.0
    _mark_load: int = 0
    _recent: int = 0

    @property
    def project(self) -> str:
        """The project of its key."""
        return self.principal.project

    def load(self, now: float) -> int:
        """Steps of `LOAD_STEP` bytes moved per `LOAD_SPAN` seconds since the last call, plus the message being made."""
        moved = self.session.load()
        elapsed = now - self._mark
        if elapsed >= LOAD_SPAN:
            # Over the whole time: a transfer that has run for a minute counts for the first request of that minute.
            self._recent = int((moved - self._mark_load) * LOAD_SPAN / elapsed)
            self._mark = now
            self._mark_load = moved
        return (max(self._recent, moved - self._mark_load) + self.session.outbox.size) // LOAD_STEP


@dataclass(eq=False, slots=True)
class Tunnel:
    """A name that is alive."""

    name: str
    instance: str
    project: str
    since: float
    """Loop time."""
    links: list[Link] = field(default_factory=list)
    access: AccessRules | None = None
    """What its visitors must show, by the link that was attached last; None: open to everybody."""

    def choose(self) -> Link | None:
        """The link with the least load that takes new streams; ties go to the lower slot."""
        usable = [link for link in self.links if not link.session.leaving]
        if len(usable) < 2:
            return usable[0] if usable else None
        now = usable[0].session.now()
        return min(usable, key=lambda link: (link.load(now), link.slot))


class Waiter(Protocol):
    """A request that is held while its name has no link."""

    def on_ready(self, link: Link) -> None:
        """An agent is there."""

    def on_given_up(self) -> None:
        """Nobody came in time."""


@dataclass(eq=False, slots=True)
class _Offline:
    """A name without a link: until when requests are held for it (None: no longer), and which."""

    timer: asyncio.TimerHandle | None
    waiting: dict[Waiter, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HoldBounds:
    """How long requests are held after a name dropped (seconds), and how many, per name and in all."""

    seconds: float = 10.0
    per_name: int = 256
    in_all: int = 1000


class Hub:
    """Live truth of this node."""

    def __init__(self, hold: HoldBounds, report: Callable[[str, tuple[str, ...], Link], None]) -> None:
        self.tunnels: dict[str, Tunnel] = {}
        self.links: dict[tuple[str, str, int], Link] = {}
        self.leaving: set[Link] = set()
        """Links out of service whose sessions have not ended: they may still carry what they began."""
        self.held = 0
        self.reserved: dict[str, str] = {}
        """Every name that the registry knows to be reserved, with its project."""
        self._hold = hold
        self._offline: dict[str, _Offline] = {}
        self._report = report

    # ---- agents

    def rivals(self, link: Link) -> list[Tunnel]:
        """Live tunnels of other agents that `link` claims."""
        found = [self.tunnels.get(name) for name in link.names]
        agent = link.project, link.instance  # an instance chooses its own id: only its project's key proves whose
        return [tunnel for tunnel in found if tunnel is not None and (tunnel.project, tunnel.instance) != agent]

    def twin(self, link: Link) -> Link | None:
        """The live link of the same instance and slot."""
        return self.links.get(_place(link))

    def attach(self, link: Link) -> None:
        """Puts a link in service. The caller has cleared its rivals and its twin.

        Raises `ValueError` for a name outside the scope of its key, and puts none of its names in service then.
        """
        outside = [name for name in link.names if not link.principal.scope.allows(name)]
        if outside:
            raise ValueError(f"{outside[0]} is outside the scope of {link.principal.key_id}")
        self.links[_place(link)] = link
        came_up = []
        for name in link.names:
            tunnel = self.tunnels.get(name)
            if tunnel is None:
                tunnel = self.tunnels[name] = Tunnel(name, link.instance, link.project, link.session.now())
                came_up.append(name)
            tunnel.access = link.access.get(name)
            tunnel.links.append(link)
            tunnel.links.sort(key=lambda one: one.slot)
        if came_up:
            self._report("agent_up", tuple(came_up), link)
        for name in link.names:
            self._release_held(name, link)

    def detach(self, link: Link) -> None:
        """Takes a link out of service; a name whose last link it was counts as just dropped."""
        (self.leaving.discard if link.session.ended else self.leaving.add)(link)
        if self.links.get(_place(link)) is link:
            del self.links[_place(link)]
        went_down = []
        for name in link.names:
            tunnel = self.tunnels.get(name)
            if tunnel is None or link not in tunnel.links:
                continue
            tunnel.links.remove(link)
            if not tunnel.links:
                del self.tunnels[name]
                went_down.append(name)
                self._drop(name)
        if went_down:
            self._report("agent_down", tuple(went_down), link)

    def dismiss(self, link: Link, code: AwayCode, sentence: str) -> None:
        """Ends a link for good: its agent is told why, its streams are cut, and nobody waits for it to come back."""
        names = [name for name in link.names if name in self.tunnels and link in self.tunnels[name].links]
        self.detach(link)
        for name in names:
            if name in self._offline:
                self._give_up(name)
        link.session.close(code, sentence)

    def sessions(self) -> list[Link]:
        """Every link that may carry something, in service or leaving."""
        return [*self.links.values(), *self.leaving]

    def bearers(self, name: str) -> list[Link]:
        """The links that may carry something of this name."""
        tunnel = self.tunnels.get(name)
        serving = [] if tunnel is None else tunnel.links
        return [*serving, *(link for link in self.leaving if name in link.names)]

    def forget(self, name: str) -> None:
        """A name without a link is nobody's any more: visitors are told so, and not that its agent is away."""
        if name in self._offline:
            self._give_up(name)
            del self._offline[name]

    def names_of_key(self, key_id: str) -> set[str]:
        """Names alive by this key."""
        return {name for link in self.links.values() if link.principal.key_id == key_id for name in link.names}

    def open_streams(self) -> int:
        """Streams open on all links."""
        return sum(len(link.session.streams) for link in self.sessions())

    # ---- requests

    def known(self, name: str) -> bool:
        """Whether the name is alive, or was and may come back, or is somebody's."""
        return name in self.tunnels or name in self._offline or name in self.reserved

    def hold(self, name: str, waiter: Waiter) -> bool:
        """Holds a request until a link comes up. False: not held (nobody just dropped, or too many wait)."""
        offline = self._offline.get(name)
        if offline is None or offline.timer is None:
            return False
        if self.held >= self._hold.in_all or len(offline.waiting) >= self._hold.per_name:
            return False
        offline.waiting[waiter] = None
        self.held += 1
        return True

    def release(self, name: str, waiter: Waiter) -> None:
        """The request no longer waits."""
        offline = self._offline.get(name)
        if offline is not None and waiter in offline.waiting:
            del offline.waiting[waiter]
            self.held -= 1

    def give_up(self) -> None:
        """Nobody will come any more (the relay stops): every held request is told."""
        for name in list(self._offline):
            self._give_up(name)

    def _drop(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        self._offline.pop(name, None)
        while len(self._offline) >= MOST_OFFLINE:
            oldest = next(iter(self._offline))
            self._give_up(oldest)
            del self._offline[oldest]
        self._offline[name] = _Offline(loop.call_later(self._hold.seconds, self._give_up, name))

    def _release_held(self, name: str, link: Link) -> None:
        offline = self._offline.pop(name, None)
        if offline is None:
            return
        if offline.timer is not None:
            offline.timer.cancel()
        self.held -= len(offline.waiting)
        _tell_all(offline.waiting, lambda waiter: waiter.on_ready(link))

    def _give_up(self, name: str) -> None:
        offline = self._offline[name]
        if offline.timer is not None:
            offline.timer.cancel()
            offline.timer = None
        waiting, offline.waiting = offline.waiting, {}
        self.held -= len(waiting)
        _tell_all(waiting, lambda waiter: waiter.on_given_up())


def _tell_all(waiting: Iterable[Waiter], tell: Callable[[Waiter], None]) -> None:
    """A defect of one request must not leave those behind it waiting for ever."""
    for waiter in waiting:
        try:
            tell(waiter)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler({"message": "a held request failed", "exception": error})


def _place(link: Link) -> tuple[str, str, int]:
    return link.project, link.instance, link.slot
