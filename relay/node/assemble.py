"""The composition root: settings in, a node's parts out. The only place where neighbours meet."""

from __future__ import annotations

import asyncio
import socket
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import relay
from relay.api.office import Office, Refusal
from relay.edge.adopted import Adopted
from relay.edge.gate import VisitorGate
from relay.edge.hosts import BadHost, normalise_host, subdomain_of
from relay.edge.services import KeyRefusal, Services, Timeouts
from relay.edge.visitor import Visitor
from relay.keys.tokens import TokenVerifier
from relay.limits.pacing import Pacer
from relay.mux.session import SessionOptions
from relay.node.bookkeeper import Bookkeeper, Uses
from relay.node.follower import Followed, Follower
from relay.node.ground import Ground
from relay.node.live import LiveTunnels
from relay.node.masterkeys import MasterKeys
from relay.node.memory import Memory, granted
from relay.node.pressure import Pressure, budget_of
from relay.node.projectplans import ProjectPlans
from relay.node.signing import Signing
from relay.node.usage import Usage
from relay.registry.audit import Action
from relay.registry.records import Actor, Note
from relay.settings import ServeSettings
from relay.telemetry.traffic import Traffic
from relay.tunnels.crowds import Crowd
from relay.tunnels.doorway import Doorway, DoorwayOptions
from relay.tunnels.hold import HoldBounds
from relay.tunnels.hub import Hub, Link
from relay.tunnels.journal import Journal
from relay.tunnels.keyadmission import KeyAdmission, KeyRoom
from relay.tunnels.metering import Metering
from relay.tunnels.revocations import Revocations

Report = Callable[[dict[str, object]], None]


@dataclass(frozen=True, slots=True)
class Node:
    """One node's parts, not yet listening."""

    hub: Hub
    doorway: Doorway
    services: Services
    live: LiveTunnels
    office: Office
    follower: Follower
    bookkeeper: Bookkeeper
    usage: Usage
    journal: Journal
    pressure: Pressure
    public_url: Callable[[str], str]

    def known_host(self, host: str) -> bool:
        """Whether a certificate for `host` makes sense."""
        try:
            name = normalise_host(host.encode("ascii", "replace")).name
        except BadHost:
            return False
        subdomain = subdomain_of(name, self.services.domain)
        return name == self.services.domain or (subdomain is not None and self.hub.known(subdomain))


def assemble(ground: Ground, report: Report) -> Node:
    """Joins the parts."""
    settings, registry = ground.settings, ground.registry
    loop = asyncio.get_running_loop()
    journal = Journal(time.time)
    plans = ProjectPlans(settings.plans, settings.default_plan)
    metering = Metering(plans.limits_of_project, Pacer(loop.time, loop.call_later), time.time, loop.time)
    plans.on_changed.append(metering.on_plan)
    hub = Hub(
        HoldBounds(settings.hold, per_name=max(settings.hold_most // 4, 1), in_all=settings.hold_most),
        metering,
        _teller(report, journal),
    )
    usage = Usage(registry, hub)

    def public_url(name: str) -> str:
        return settings.url_of(name, ground.public_port)

    revocations = Revocations()
    masters = MasterKeys(revocations)
    verifier = TokenVerifier(settings.domain, {ground.signer.kid: ground.signer.public})
    uses = Uses(time.time)
    gate = VisitorGate(verifier, lambda key_id: revocations.verdict(key_id) is not None, time.time)
    services = _services(ground, hub, gate, uses, journal)
    live = LiveTunnels(hub, services, revocations)
    signing = Signing(ground, verifier, live)
    room = KeyRoom(verifier, registry, revocations, journal, uses.used, hub.reserved, time.time, loop.time)
    office = Office(
        registry=registry,
        keyring=masters,
        verifier=verifier,
        signing=signing,
        issuer=settings.domain,
        audiences=settings.audiences,
        now=time.time,
        public_url=public_url,
        base_url=settings.base_url(ground.public_port),
        version=relay.__version__,
        live=live,
        used=uses.used,
        trusts=services.trusts,
        refused=lambda refusal: _note_refusal(journal, refusal, right=refusal.right),
        plans=plans,
        usage=usage,
    )
    return Node(
        hub=hub,
        doorway=Doorway(hub, KeyAdmission(room), _doorway_options(settings, public_url)),
        services=services,
        live=live,
        office=office,
        follower=Follower(Followed(registry, revocations, masters, signing, hub, live, plans, time.time, loop.time)),
        bookkeeper=Bookkeeper(registry, journal, uses, ground.heads, signing.key),
        usage=usage,
        journal=journal,
        pressure=Pressure(budget_of(settings.memory_budget, granted()), Memory(), services, report),
        public_url=public_url,
    )


def _services(ground: Ground, hub: Hub, gate: VisitorGate, uses: Uses, journal: Journal) -> Services:
    settings = ground.settings
    return Services(
        hub=hub,
        domain=settings.domain,
        timeouts=Timeouts(settings.head_timeout, settings.idle_timeout, settings.response_head_timeout),
        scheme=urllib.parse.urlsplit(settings.base_url(ground.public_port)).scheme,
        trusted=settings.trusted_proxies,
        crowd=Crowd(settings.max_connections, settings.max_connections_per_address),
        gate=gate,
        traffic=Traffic(settings.metrics_tunnels),
        on_key_used=uses.used,
        on_key_refused=lambda refusal: _note_refusal(journal, refusal, tunnel=refusal.name),
    )


def _doorway_options(settings: ServeSettings, public_url: Callable[[str], str]) -> DoorwayOptions:
    return DoorwayOptions(
        public_url=public_url,
        session=SessionOptions(
            opener=True,
            max_streams=settings.max_streams,
            session_window=settings.session_window,
            ping_interval=settings.ping_interval,
        ),
        most_connections=settings.max_agent_connections,
        most_connections_per_address=settings.max_agent_connections_per_address,
        relay=f"tunnel-relay/{relay.__version__}",
    )


def _teller(report: Report, journal: Journal) -> Callable[[str, tuple[str, ...], Link], None]:
    """Who hears of names that come up and go down: the operator, and the audit."""

    def tell(event: str, names: tuple[str, ...], link: Link) -> None:
        report({"event": event, "names": list(names)})
        principal = link.principal
        actor = Actor(principal.key_id, principal.lineage, link.address)
        action = Action.TUNNEL_OPEN if event == "agent_up" else Action.TUNNEL_CLOSE
        for name in names:
            journal.changed(Note(actor, action, name, principal.project, {}, time.time()))

    return tell


def _note_refusal(journal: Journal, refusal: Refusal | KeyRefusal, **what: str) -> None:
    if not refusal.key_id:
        journal.knocked(refusal.address, refusal.code)
        return
    actor = Actor(refusal.key_id, refusal.lineage, refusal.address)
    details = {"code": refusal.code, **what}
    note = Note(actor, Action.REQUEST_REFUSED, refusal.key_id, refusal.project, details, time.time())
    journal.refused(note, refusal.code)


async def adopt(services: Services, sock: socket.socket, sent: bytes) -> None:
    """Goes on with a visitor's connection that another process began, and that has sent this much. Raises `OSError`."""
    await asyncio.get_running_loop().connect_accepted_socket(lambda: Adopted(services, sent), sock)


def visitor_factory(services: Services) -> Callable[..., asyncio.BaseProtocol]:
    """What uvicorn calls for every connection to the public listener."""

    def make(config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> asyncio.BaseProtocol:  # noqa: ANN401
        return Visitor(services)

    return make
