"""The composition root: settings in, a node's parts out. The only place where neighbours meet."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import relay
from relay.edge.hosts import BadHost, normalise_host, subdomain_of
from relay.edge.services import Services, Timeouts
from relay.edge.visitor import Visitor
from relay.mux.session import SessionOptions
from relay.node.agentkey import agent_key
from relay.settings import ServeSettings
from relay.tunnels.agentkey import AgentKeyAdmission
from relay.tunnels.doorway import Doorway, DoorwayOptions
from relay.tunnels.hub import HoldBounds, Hub

Report = Callable[[dict[str, object]], None]


@dataclass(frozen=True, slots=True)
class Node:
    """One node's parts, not yet listening."""

    hub: Hub
    doorway: Doorway
    services: Services
    public_url: Callable[[str], str]

    def known_host(self, host: str) -> bool:
        """Whether a certificate for `host` makes sense."""
        try:
            name = normalise_host(host.encode("ascii", "replace")).name
        except BadHost:
            return False
        subdomain = subdomain_of(name, self.services.domain)
        return name == self.services.domain or (subdomain is not None and self.hub.known(subdomain))


def assemble(settings: ServeSettings, public_port: int, report: Report) -> Node:
    """Joins the parts. Raises `StartError`."""

    def public_url(name: str) -> str:
        return settings.url_of(name, public_port)

    def tell(event: str, names: tuple[str, ...]) -> None:
        report({"event": event, "names": list(names)})

    hub = Hub(HoldBounds(settings.hold, per_name=max(settings.hold_most // 4, 1), in_all=settings.hold_most), tell)
    doorway = Doorway(
        hub,
        AgentKeyAdmission(agent_key(settings)),
        DoorwayOptions(
            public_url=public_url,
            session=SessionOptions(
                opener=True,
                max_streams=settings.max_streams,
                session_window=settings.session_window,
                ping_interval=settings.ping_interval,
            ),
            relay=f"tunnel-relay/{relay.__version__}",
        ),
    )
    services = Services(
        hub=hub,
        domain=settings.domain,
        timeouts=Timeouts(settings.head_timeout, settings.idle_timeout, settings.response_head_timeout),
        scheme=urllib.parse.urlsplit(settings.base_url(public_port)).scheme,
        trusted=settings.trusted_proxies,
        most_connections=settings.max_connections,
    )
    return Node(hub, doorway, services, public_url)


def visitor_factory(services: Services) -> Callable[..., asyncio.BaseProtocol]:
    """What uvicorn calls for every connection to the public listener."""

    def make(config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> asyncio.BaseProtocol:  # noqa: ANN401
        return Visitor(services)

    return make
