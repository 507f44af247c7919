"""From a parsed request to a link: whose name it is, what is said where nobody serves it, what goes on the stream."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from relay.edge.answers import Code
from relay.edge.guard import Request, check
from relay.edge.routing import MOST_KEPT, Caller, Unroutable, begin, find
from relay.edge.services import Services, Timeouts
from relay.exchange.heads import Fields
from relay.tunnels.hold import HoldBounds
from relay.tunnels.hub import Hub
from tests.edge.visits import Place
from tests.exchange.test_outgoing import Log
from tests.mux.ends import settle
from tests.support.clock import virtual
from tests.tunnels.agents import a_metering


def a_request(host: bytes = b"demo.tunnels.localhost", method: bytes = b"GET", fields: Fields | None = None) -> Request:
    return check(method, b"/path?q", "1.1", [(b"Host", host), *(fields or [])])


def begin_there(place: Place, request: Request, caller: Caller) -> None:
    """Begins on the first link of `demo`."""
    tunnel = place.services.hub.tunnels["demo"]
    begin(request, caller, Log().exchange, tunnel, tunnel.links[0])


@virtual
async def test_a_live_name_is_found_however_it_is_written() -> None:
    """Case, a trailing dot and a port make no difference."""
    place = Place()
    await place.agent()
    tunnel = place.services.hub.tunnels["demo"]
    for host in (b"demo.tunnels.localhost", b"DEMO.Tunnels.LocalHost.:8080", b"demo.tunnels.localhost:1"):
        request = a_request(host)
        assert find(place.services, request) == (tunnel, tunnel.links[0])
        assert request.called == "demo"


@pytest.mark.parametrize(
    "host",
    [
        b"tunnels.localhost",
        b"other.tunnels.localhost",
        b"a.demo.tunnels.localhost",
        b"demo.example.com",
        b"demo",
        b"demotunnels.localhost",
        b"127.0.0.1",
        b"[::1]:80",
    ],
)
@virtual
async def test_any_other_host_is_unknown(host: bytes) -> None:
    """The domain itself, a deeper name, another domain, an address, a name that never was."""
    place = Place()
    await place.agent()
    with pytest.raises(Unroutable) as caught:
        find(place.services, a_request(host))
    assert caught.value.code is Code.UNKNOWN_HOST


@virtual
async def test_a_name_that_was_alive_may_be_held() -> None:
    """It is found without a link; after its agent is back with one."""
    place = Place()
    agent = await place.agent()
    await agent.leave()
    request = a_request()
    assert find(place.services, request) == (None, None)
    assert request.called == "demo"
    await place.agent(generation=2)
    assert find(place.services, a_request())[1] is not None


@virtual
async def test_links_that_take_nothing_new_are_no_reason_to_say_unknown() -> None:
    """A tunnel whose only link is on its way out is offline for the moment."""
    place = Place()
    await place.agent()
    place.services.hub.tunnels["demo"].links[0].session.leaving = True
    with pytest.raises(Unroutable) as caught:
        find(place.services, a_request())
    assert caught.value.code is Code.AGENT_OFFLINE


@virtual
async def test_what_goes_on_the_stream() -> None:
    """The head as the guard let it through, this hop's own fields added, the name and the request's id."""
    place = Place(scheme="https")
    agent = await place.agent()
    request = a_request(b"Demo.tunnels.localhost:8080", fields=[(b"X-Forwarded-For", b"6.6.6.6"), (b"Accept", b"*/*")])
    begin_there(place, request, Caller(place.services, "192.0.2.7", trusted=False))
    await settle()
    ((number, head, ended),) = agent.opened()
    assert (number, ended) == (1, True)
    assert (head.method, head.target, head.name, head.request_id) == (b"GET", b"/path?q", "demo", "r1")
    assert not head.upgrade
    assert head.fields[:2] == [(b"Host", b"Demo.tunnels.localhost:8080"), (b"Accept", b"*/*")]
    assert dict(head.fields[2:]) == {
        b"X-Forwarded-For": b"192.0.2.7",
        b"X-Forwarded-Proto": b"https",
        b"X-Forwarded-Host": b"demo.tunnels.localhost:8080",
        b"Forwarded": b'for=192.0.2.7;proto=https;host="demo.tunnels.localhost:8080"',
    }


@virtual
async def test_a_trusted_proxy_is_believed() -> None:
    """Its own X-Forwarded fields are kept and extended."""
    place = Place()
    agent = await place.agent()
    fields: Fields = [(b"X-Forwarded-For", b"203.0.113.5"), (b"X-Forwarded-Proto", b"https")]
    caller = Caller(place.services, "10.0.0.1", trusted=True)
    begin_there(place, a_request(fields=fields), caller)
    await settle()
    sent = dict(agent.opened()[0][1].fields)
    assert sent[b"X-Forwarded-For"] == b"203.0.113.5, 10.0.0.1"
    assert sent[b"X-Forwarded-Proto"] == b"https"


@pytest.mark.parametrize(
    ("fields", "method", "ended"),
    [
        ([], b"GET", True),
        ([], b"POST", True),
        ([(b"Content-Length", b"0")], b"POST", True),
        ([(b"Content-Length", b"1")], b"POST", False),
        ([(b"Transfer-Encoding", b"chunked")], b"POST", False),
        ([(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")], b"GET", False),
    ],
)
@virtual
async def test_whether_a_body_follows(fields: Fields, method: bytes, ended: bool) -> None:
    """OPEN says that nothing follows where the request has no body; an upgrade is left open."""
    place = Place()
    agent = await place.agent()
    request = a_request(method=method, fields=fields)
    begin_there(place, request, Caller(place.services, "192.0.2.7", trusted=False))
    await settle()
    assert agent.opened()[0][2] is ended
    assert agent.opened()[0][1].upgrade is request.upgrade


@virtual
async def test_why_a_stream_could_not_be_opened() -> None:
    """A link that is full, one that goes, a head that the wire does not carry: each by its own code."""
    place = Place()
    await place.agent()
    link = place.services.hub.tunnels["demo"].links[0]

    def code_of(request: Request) -> Code:
        with pytest.raises(Unroutable) as caught:
            begin_there(place, request, Caller(place.services, "192.0.2.7", trusted=False))
        return caught.value.code

    long = a_request()
    long.fields = [(b"X", b"y" * 70_000)]
    assert code_of(long) is Code.HEAD_TOO_LARGE
    for _ in range(link.session.options.max_streams):
        begin_there(place, a_request(), Caller(place.services, "192.0.2.7", trusted=False))
    assert code_of(a_request()) is Code.TOO_MANY_STREAMS
    link.session.leaving = True
    assert code_of(a_request()) is Code.AGENT_OFFLINE


@pytest.mark.parametrize(
    ("trusted", "chain", "address"),
    [
        (False, [], "192.0.2.7"),
        (False, [b"203.0.113.5"], "192.0.2.7"),
        (True, [], "192.0.2.7"),
        (True, [b"6.6.6.6, 203.0.113.5"], "203.0.113.5"),
        (True, [b"6.6.6.6", b" 203.0.113.5 "], "203.0.113.5"),
        (True, [b"6.6.6.6, 203.0.113.5, 192.0.2.8"], "203.0.113.5"),
    ],
)
def test_who_asks(trusted: bool, chain: list[bytes], address: str) -> None:
    """The peer, or behind trusted proxies the visitor that they name last; nobody else is believed."""
    hub = Hub(HoldBounds(), a_metering(), lambda *_: None)
    services = Services(hub, "tunnels.localhost", Timeouts(), trusted=(ip_network("192.0.2.0/24"),) * trusted)
    request = a_request(fields=[(b"X-Forwarded-For", value) for value in chain])
    assert Caller(services, "192.0.2.7", trusted).who(request) == address


@virtual
async def test_a_large_head_is_not_kept() -> None:
    """What a small head became is there for the next request that is the same; a large one is let go."""
    place = Place()
    await place.agent()
    caller = Caller(place.services, "192.0.2.7", trusted=False)
    small, large = a_request(), a_request(fields=[(b"Cookie", bytes(65 for _ in range(MOST_KEPT)))])
    assert caller.encode(small) is caller.encode(small)
    assert caller.encode(large) is not caller.encode(large)
