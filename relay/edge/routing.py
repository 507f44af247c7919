"""From a parsed request to a link: which name was called, what is done when nobody serves it, what goes on the stream.

Shared by the protocol class and the ASGI callable, so that both decide alike, and on the same parsed value.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.edge.answers import Code
from relay.edge.guard import Body, Request
from relay.edge.hosts import subdomain_of
from relay.edge.services import Services
from relay.exchange.errors import MalformedHead
from relay.exchange.headers import Visit, add_forwarded
from relay.exchange.heads import RequestHead
from relay.exchange.outgoing import Exchange
from relay.mux.errors import SessionBusy, SessionGone
from relay.tunnels.hub import Link


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the peer's address, whether it is a trusted proxy, and what its request is called in logs."""

    address: str
    trusted: bool
    request_id: str


class Unroutable(Exception):
    """The relay answers by itself."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


def find(services: Services, request: Request) -> tuple[str, Link | None]:
    """(name, its link); None for the link: the name has none now and the request may be held. Raises `Unroutable`."""
    name = subdomain_of(request.host.name, services.domain)
    hub = services.hub
    if name is None:
        raise Unroutable(Code.UNKNOWN_HOST)
    tunnel = hub.tunnels.get(name)
    if tunnel is not None:
        link = tunnel.choose()
        if link is not None:
            return name, link
    elif hub.known(name):
        return name, None
    raise Unroutable(Code.UNKNOWN_HOST if tunnel is None else Code.AGENT_OFFLINE)


def begin(services: Services, request: Request, caller: Caller, exchange: Exchange, link: Link) -> None:
    """Opens the exchange on a stream of `link`. Raises `Unroutable`."""
    visit = Visit(caller.address, services.scheme, request.host.authority)
    head = RequestHead(
        method=request.method,
        target=request.target,
        fields=add_forwarded(request.fields, visit, caller.trusted),
        name=subdomain_of(request.host.name, services.domain) or "",
        request_id=caller.request_id,
        upgrade=request.upgrade,
    )
    try:
        exchange.start(link.session, head, request.body is Body.NONE and not request.upgrade)
    except SessionBusy as error:
        raise Unroutable(Code.TOO_MANY_STREAMS, str(error)) from None
    except MalformedHead as error:
        raise Unroutable(Code.HEAD_TOO_LARGE, str(error)) from None
    except SessionGone:
        raise Unroutable(Code.AGENT_OFFLINE) from None
