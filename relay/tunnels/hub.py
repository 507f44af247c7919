"""The hub: which names are alive, over which links, and by whose keys; which requests wait for an agent is `hold`'s.

It alone knows who owns a live name; which of two agents may have it is decided by `doorway`, before a link is attached.
Synchronous: nothing comes between the steps of a change. Knows sessions and names; no HTTP, and of keys only whose they
are. Every name that it puts in service is within the scope of the key that claimed it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from relay.limits.meter import Meter
from relay.mux.session import Session
from relay.tunnels.admission import Principal
from relay.tunnels.hold import Hold, HoldBounds
from relay.tunnels.metering import Metering
from relay.wire.access import AccessRules
from relay.wire.errors import AwayCode
from relay.wire.limits import TunnelLimits

# Two links differ in load when they moved this many bytes more or less lately; below it the lower slot wins, so that
# small exchanges share messages.
LOAD_STEP = 1024 * 1024
LOAD_SPAN = 0.05
# Loads are compared that often, in seconds: requests of one moment share a link, and its messages.
CHOICE_SPAN = 0.005


UNMEASURED = Meter(())
"""Of a link that is not in service yet."""


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
    limits: Mapping[str, TunnelLimits] = field(default_factory=dict)
    """How many requests a name takes, for names that have a limit of their own."""
    meter: Meter = UNMEASURED
    meters: Mapping[str, Meter] = field(default_factory=dict)
    """In place of `meter`, for the names in `limits`."""
    folded: tuple[int, int] = (0, 0)
    """Bytes that the session had sent and received when they were counted last."""
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
    _chosen: Link | None = None
    _until: float = 0.0

    def choose(self) -> Link | None:
        """The link with the least load that takes new streams, for `CHOICE_SPAN`; ties go to the lower slot."""
        link = self._chosen
        if link is None or link.session.leaving or self._until <= link.session.now():
            return self._choose()
        return link

    def relink(self, links: list[Link]) -> None:
        """It is served by these from now on."""
        self.links = sorted(links, key=lambda one: one.slot)
        self._chosen = None

    def _choose(self) -> Link | None:
        usable = [link for link in self.links if not link.session.leaving]
        if not usable:
            return None
        now = usable[0].session.now()
        link = self._chosen = min(usable, key=lambda link: (link.load(now), link.slot)) if usable[1:] else usable[0]
        self._until = now + CHOICE_SPAN
        return link


class Hub(Hold[Link]):
    """Live truth of this node."""

    def __init__(
        self, hold: HoldBounds, metering: Metering, report: Callable[[str, tuple[str, ...], Link], None]
    ) -> None:
        super().__init__(hold)
        self.metering = metering
        self.tunnels: dict[str, Tunnel] = {}
        self.links: dict[tuple[str, str, int], Link] = {}
        self.leaving: set[Link] = set()
        """Links out of service whose sessions have not ended: they may still carry what they began."""
        self.by_key: dict[str, set[Link]] = {}
        """Every link whose session has not ended, by the id of its key."""
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
        self.by_key.setdefault(link.principal.key_id, set()).add(link)
        self.metering.measure(link)
        came_up = []
        for name in link.names:
            tunnel = self.tunnels.get(name)
            if tunnel is None:
                tunnel = self.tunnels[name] = Tunnel(name, link.instance, link.project, link.session.now())
                came_up.append(name)
            tunnel.access = link.access.get(name)
            tunnel.relink([*tunnel.links, link])
        if came_up:
            self._report("agent_up", tuple(came_up), link)
        for name in link.names:
            self._release_held(name, link)

    def detach(self, link: Link) -> None:
        """Takes a link out of service; a name whose last link it was counts as just dropped."""
        if link.session.ended:
            self.leaving.discard(link)
            self._forget_key_of(link)
            self.metering.fold(link)
        else:
            self.leaving.add(link)
        if self.links.get(_place(link)) is link:
            del self.links[_place(link)]
        went_down = []
        for name in link.names:
            tunnel = self.tunnels.get(name)
            if tunnel is None or link not in tunnel.links:
                continue
            tunnel.relink([one for one in tunnel.links if one is not link])
            if not tunnel.links:
                del self.tunnels[name]
                went_down.append(name)
                self._drop(name, self._bounds.seconds)
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

    def names_below(self, id: str) -> set[str]:
        """Names alive by this key, by keys below it, or of this project."""
        links = self.by_key.get(id)
        if links is None:
            links = {link for link in self.links.values() if link.principal.is_below(id)}
        return {name for link in links if link not in self.leaving for name in link.names}

    def live_by(self, link: Link, principal: Principal) -> None:
        """A link lives by another key from now on."""
        self.metering.fold(link)
        self._forget_key_of(link)
        link.principal = principal
        self.by_key.setdefault(principal.key_id, set()).add(link)
        self.metering.remeasure(link)

    def carried(self) -> tuple[int, int]:
        """Bytes of bodies towards agents and from them, over all links that there were, those under way included."""
        sent, received = self.metering.carried
        for link in self.sessions():
            sent += link.session.outbox.moved - link.folded[0]
            received += link.session.window.received - link.folded[1]
        return sent, received

    def known(self, name: str) -> bool:
        """Whether the name is alive, or was and may come back, or is somebody's."""
        return name in self.tunnels or name in self._offline or name in self.reserved

    def _forget_key_of(self, link: Link) -> None:
        links = self.by_key.get(link.principal.key_id, set())
        links.discard(link)
        if not links:
            self.by_key.pop(link.principal.key_id, None)


def _place(link: Link) -> tuple[str, str, int]:
    return link.project, link.instance, link.slot
