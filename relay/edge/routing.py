"""From a parsed request to a link: which name was called, what is done when nobody serves it, what goes on the stream.

Shared by the protocol class and the ASGI callable, so that both decide alike, and on the same parsed value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from relay.edge import access
from relay.edge.answers import NOTHING_MORE, Code, Extra
from relay.edge.guard import Body, Request
from relay.edge.hosts import subdomain_of
from relay.edge.services import REFUSING, KeyRefusal, Services
from relay.exchange.errors import MalformedHead
from relay.exchange.headers import Visit, add_forwarded, address_of, own_hop
from relay.exchange.heads import NO_FIELDS, EncodedRequest, RequestHead
from relay.exchange.outgoing import Exchange, Opener
from relay.limits.meter import Ask, Meter
from relay.mux.errors import SessionBusy, SessionGone
from relay.tunnels.hub import Link, Tunnel

# An encoded head above this is not kept for the next request: an idle connection should hold little.
MOST_KEPT: Final = 4096


@dataclass(slots=True)
class Caller:
    """Who asks: the peer's address, and whether it is a trusted proxy."""

    services: Services
    address: str
    trusted: bool
    _request: Request | None = None
    _encoded: EncodedRequest | None = None

    def who(self, request: Request) -> str:
        """The visitor's address, as far as it is known: behind a trusted proxy the one that the proxy names."""
        if not self.trusted:
            return self.address
        chain = [value for name, value in request.fields if name.lower() == b"x-forwarded-for"]
        return address_of(self.address, b",".join(chain).decode("latin-1"), self.services.trusts)

    def encode(self, request: Request) -> EncodedRequest:
        """What goes on the stream; the very same request is encoded once. Raises `MalformedHead`."""
        if self._encoded is None or request is not self._request:
            services, host = self.services, request.host
            fields, own = request.fields, NO_FIELDS
            if request.claims:
                fields = add_forwarded(fields, Visit(self.address, services.scheme, host.authority), self.trusted)
            else:
                own = own_hop(self.address, services.scheme, host.authority)
            name = request.called or _tell_name(services, request)
            head = RequestHead(request.method, request.target, fields, name, "", request.upgrade)
            encoded = EncodedRequest(head, own)
            if len(encoded) > MOST_KEPT:
                self._encoded = self._request = None
                return encoded
            self._encoded, self._request = encoded, request
        return self._encoded


class Unroutable(Exception):
    """The relay answers by itself."""

    def __init__(self, code: Code, detail: str = "", extra: Extra = NOTHING_MORE) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.extra = extra


def find(services: Services, request: Request) -> tuple[Tunnel | None, Link | None]:
    """(the tunnel that is called, a link of it), and the name is on the request from here on; None: the name has none
    now, and the request may be held. Raises `Unroutable`.
    """
    hub = services.hub
    name = request.called or _tell_name(services, request)
    if services.level >= REFUSING:
        raise Unroutable(Code.OVERLOADED, "short of memory")
    tunnel = hub.tunnels.get(name)
    if tunnel is not None:
        link = tunnel.choose()
        if link is not None:
            return tunnel, link
    elif name and hub.known(name):
        return None, None
    raise Unroutable(Code.UNKNOWN_HOST if tunnel is None else nobody(services))


def _tell_name(services: Services, request: Request) -> str:
    request.called = subdomain_of(request.host.name, services.domain) or ""
    return request.called


def nobody(services: Services) -> Code:
    """What is said when a name has no link and none is waited for: of a relay that drains no agent takes a new one."""
    return Code.DRAINING if services.draining else Code.AGENT_OFFLINE


def size_of(request: Request) -> int:
    """About how many bytes a request makes us hold, without its body."""
    return len(request.target) + sum(len(name) + len(value) for name, value in request.fields)


def judge(
    request: Request, caller: Caller, tunnel: Tunnel, proved: access.Password | None
) -> access.Let | access.No | access.Password:
    """What the tunnel's rules make of the request (see `access.decide`); whoever keeps the books is told of keys."""
    services = caller.services
    decision = access.decide(request, tunnel, services.gate, proved)
    if isinstance(decision, access.Let):
        if decision.key_id:
            services.on_key_used(decision.key_id, caller.who(request))
    elif isinstance(decision, access.No):
        verdict = decision.verdict
        if verdict is not None:
            who = caller.who(request)
            refusal = KeyRefusal(verdict.key_id, verdict.lineage, verdict.code, tunnel.name, tunnel.project, who)
            services.on_key_refused(refusal)
    return decision


def begin(request: Request, caller: Caller, exchange: Exchange, tunnel: Tunnel, link: Link) -> None:
    """Opens the exchange on a stream of `link`. Raises `Unroutable`."""
    meter = link.meters.get(tunnel.name, link.meter) if link.meters else link.meter
    opener: Opener = _pass(request, caller, meter, link) if meter.limited else link.session
    try:
        exchange.start(opener, caller.encode(request), request.body is Body.NONE and not request.upgrade)
    except SessionBusy as error:
        raise Unroutable(Code.TOO_MANY_STREAMS, str(error)) from None
    except MalformedHead as wrong:
        raise Unroutable(Code.HEAD_TOO_LARGE, str(wrong)) from None
    except SessionGone:
        raise Unroutable(Code.AGENT_OFFLINE) from None
    if not meter.limited:
        meter.requests += 1


def _pass(request: Request, caller: Caller, meter: Meter, link: Link) -> Opener:
    """What opens the stream of a request that the limits let through. Raises `Unroutable`."""
    metering = caller.services.hub.metering
    ask = Ask(caller.who(request), request.length, request.upgrade)
    refusal = meter.admit(ask, metering.clock(), metering.now())
    if refusal is not None:
        extra = Extra(retry_after=refusal.retry_after, fields=refusal.policy)
        raise Unroutable(Code(refusal.code), refusal.sentence, extra)
    return meter.opener(link.session, metering.pacer, ask)
