"""The relay's own answers by the front door: every row of the contract whose cause exists, for each kind of caller."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.support.child import eventually
from tests.support.faults import FaultProxy
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess, tunnel
from tests.support.rawhttp import CLOSE, RESET, RawClient, RawServer, Request, Step, Wait, exchange, ok
from tests.system.callers import BROWSER, CALLERS, CURL, RPC, RPC_BODY, Caller, ask_all, check

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOLD = 1.0
SHORT = ["--hold", str(HOLD), "--head-timeout", "1", "--idle-timeout", "1", "--response-head-timeout", "1"]


def host(name: str) -> str:
    return f"{name}.{DOMAIN}"


def closed_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def misbehave(request: Request) -> AsyncIterator[Step]:
    """A local service that fails as its path says; any other path is answered with what was sent."""
    body = await request.read()
    match request.target:
        case b"/reset":
            yield RESET
        case b"/close":
            yield CLOSE
        case b"/half":
            yield b"HTTP/1.1 200 OK\r\nContent-"
            yield CLOSE
        case b"/nonsense":
            yield b"SSH-2.0-OpenSSH_9.6\r\n\r\n"
            yield CLOSE
        case b"/never":
            yield Wait(asyncio.Event())
            yield CLOSE
        case _:
            yield ok(body or b"fine")


@dataclass(frozen=True, slots=True)
class House:
    """A relay without patience; the tunnels `t` (a local service that misbehaves) and `dead` (nothing listens)."""

    relay: RelayProcess
    local: RawServer
    dead_port: int

    @property
    def port(self) -> int:
        return self.relay.public_port

    def agent(self, name: str, relay_port: int = 0) -> AgentProcess:
        """One more agent for the same local service."""
        return AgentProcess(
            self.local.port,
            relay_port=relay_port or self.relay.agents_port,
            key_file=self.relay.key_file,
            subdomain=name,
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """All of it, for most tests here."""
    dead = closed_port()
    async with RawServer(misbehave, early=True) as local, RelayProcess(args=SHORT) as relay:
        names = [f"t={local.port}", f"dead={dead}"]
        async with AgentProcess(None, relay_port=relay.agents_port, key_file=relay.key_file, subdomain=names) as agent:
            await agent.established()
            yield House(relay, local, dead)


# ------------------------------------------------------------------------------------------------- nobody is there


@pytest.mark.parametrize("called", ["nobody", "a.t", "t.elsewhere"])
async def test_unknown_host(house: House, called: str) -> None:
    """A name that nobody has opened, and what is no name of this relay: said at once, with how to open it."""
    began = time.monotonic()
    for caller, response in zip(CALLERS, await ask_all(house.port, host(called)), strict=True):
        check(
            caller, response, "unknown_host", f"There is no tunnel at {called}.{DOMAIN}", "relay http PORT --subdomain"
        )
    assert time.monotonic() - began < HOLD


async def test_the_domain_itself_and_other_domains_are_unknown(house: House) -> None:
    """Whoever calls the relay by another name gets the same answer, and its name back without markup."""
    for called in (DOMAIN, "127.0.0.1", "[::1]:80", "example.com"):
        for caller, response in zip(CALLERS, await ask_all(house.port, called), strict=True):
            check(caller, response, "unknown_host", called)


async def test_agent_offline(house: House) -> None:
    """A tunnel whose agent has gone: requests wait for it as long as they are held, later ones not at all."""
    async with house.agent("away") as agent:
        await agent.established()
        assert await agent.stop() == 0
    chunked = RPC.request(host("away")).replace(b"Content-Length: %d" % len(RPC_BODY), b"Transfer-Encoding: chunked")
    chunked = chunked.replace(RPC_BODY, b"%x\r\n%b\r\n0\r\n\r\n" % (len(RPC_BODY), RPC_BODY))
    began = time.monotonic()
    *answers, last = await asyncio.gather(
        *(exchange(house.port, caller.request(host("away")), 15) for caller in CALLERS),
        exchange(house.port, chunked, 15),
    )
    assert HOLD / 2 < time.monotonic() - began < HOLD + 3
    said = (f"The tunnel {host('away')} exists", "relay http PORT --subdomain away")
    for caller, response in zip((*CALLERS, RPC), (*answers, last), strict=True):
        check(caller, response, "agent_offline", *said)
    began = time.monotonic()
    for caller, response in zip(CALLERS, await ask_all(house.port, host("away")), strict=True):
        check(caller, response, "agent_offline", *said)
    assert time.monotonic() - began < HOLD


async def test_agent_lost(house: House) -> None:
    """The link breaks after the delivery: said as it is, and the request is not delivered again."""
    async with FaultProxy(house.relay.agents_port) as proxy, house.agent("lost", proxy.port) as agent:
        await agent.established()
        before = len(house.local.requests)
        asking = asyncio.create_task(ask_all(house.port, host("lost"), b"/never"))
        await house.local.received(before + len(CALLERS))
        await proxy.cut()
        for caller, response in zip(CALLERS, await asking, strict=True):
            check(caller, response, "agent_lost", "after the request had been delivered", "was not repeated")
        # The agent has come back, and whatever it could repeat would have come before this one.
        assert (await exchange(house.port, CURL.request(host("lost")), 15)).body == b"fine"
        assert len(house.local.requests) == before + len(CALLERS) + 1


# ------------------------------------------------------------------------------------------------- the local service


async def test_local_refused(house: House) -> None:
    """Nothing listens at the local address: it is named, and what to start."""
    for caller, response in zip(CALLERS, await ask_all(house.port, host("dead")), strict=True):
        check(caller, response, "local_refused", f"127.0.0.1:{house.dead_port}", "start the local service")


@pytest.mark.parametrize("how", [b"/reset", b"/close", b"/half"])
async def test_local_reset(house: House, how: bytes) -> None:
    """The local service breaks off before its head is whole, by a reset or an end."""
    for caller, response in zip(CALLERS, await ask_all(house.port, host("t"), how), strict=True):
        check(caller, response, "local_reset", f"127.0.0.1:{house.local.port}", "local service's own log")


async def test_bad_response(house: House) -> None:
    """The local service does not speak HTTP: its address is named, and how to look."""
    for caller, response in zip(CALLERS, await ask_all(house.port, host("t"), b"/nonsense"), strict=True):
        check(caller, response, "bad_response", f"127.0.0.1:{house.local.port}", "curl -i")


async def test_head_timeout(house: House) -> None:
    """No response head in time: answered then, and the local service sees its caller leave."""
    house.local.departures.clear()
    began = time.monotonic()
    answers = await ask_all(house.port, host("t"), b"/never")
    assert 0.9 < time.monotonic() - began < 4
    for caller, response in zip(CALLERS, answers, strict=True):
        check(caller, response, "head_timeout", "1 second", "local service")
    await eventually(lambda: len(house.local.departures) == len(CALLERS))


# ------------------------------------------------------------------------------------------------------- the guard


async def ask(house: House, request: bytes) -> object:
    return await exchange(house.port, request, 15)


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.name)
async def test_bad_request(house: House, caller: Caller) -> None:
    """A head that the guard refuses: the message says why, in the form of the caller; no id, since nothing was read."""
    response = await exchange(house.port, caller.request(host("t"), b"/", b"Host: elsewhere"))
    check(caller, response, "bad_request", "more than one Host field", rpc_id=None)
    assert response.head is not None
    assert response.head.get("connection") == b"close"


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.name)
async def test_head_too_large(house: House, caller: Caller) -> None:
    """More fields than allowed, or cookies that outgrew a head: the message names the bounds."""
    many = [b"X-%d: a" % number for number in range(100)]
    for fields in (many, [b"Cookie: " + b"a" * 33 * 1024]):
        response = await exchange(house.port, caller.request(host("t"), b"/", *fields))
        check(caller, response, "head_too_large", "32 KiB", "100 fields", "Send fewer or shorter headers", rpc_id=None)


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT", b"BREW"])
@pytest.mark.parametrize("caller", [BROWSER, CURL], ids=lambda caller: caller.name)
async def test_method_not_supported(house: House, caller: Caller, method: bytes) -> None:
    """A method that is not carried, known or not, is named with what to do."""
    target = b"t.tunnels.localhost:80" if method == b"CONNECT" else b"/"
    response = await exchange(house.port, caller.request(host("t"), target, method=method).replace(b"CONNECT", method))
    check(caller, response, "method_not_supported", "method of HTTP")


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.name)
async def test_request_timeout(house: House, caller: Caller) -> None:
    """A body that stops: answered in the caller's form; the id of a request that was cut short is not known."""
    body = caller.body or b"0123456789"
    whole = caller.request(host("t"), b"/", *([] if caller.body else [b"Content-Length: 10"]), method=b"POST")
    async with await RawClient.connect(house.port) as visitor:
        visitor.send(whole.removesuffix(caller.body) + body[:5])
        response = await visitor.response(b"POST")
    check(caller, response, "request_timeout", "did not arrive in time", "Send it again", rpc_id=None)


# --------------------------------------------------------------------------------------------------- the relay itself


async def test_too_many_streams(house: House) -> None:
    """As many requests at once as the relay allows, and one more of each kind; then there is room again."""
    async with (
        tunnel(house.local.port, "t", ["--max-streams", "1"], ["--links", "1"]) as t,
        await RawClient.connect(t.port) as first,
    ):
        before = len(house.local.requests)
        first.send(CURL.request(host("t"), b"/never"))
        await house.local.received(before + 1)
        for caller, response in zip(CALLERS, await ask_all(t.port, host("t")), strict=True):
            check(caller, response, "too_many_streams", "as many requests at once as it may", "end idle event streams")
        assert len(house.local.requests) == before + 1
        departed = len(house.local.departures)
        first.reset()
        await eventually(lambda: len(house.local.departures) > departed)
        assert (await exchange(t.port, CURL.request(host("t")))).status == 200


async def test_overloaded() -> None:
    """A connection more than the relay takes is told so and closed, whatever it would have asked."""
    async with RelayProcess(args=["--max-connections", "2"]) as relay:
        first, second = await RawClient.connect(relay.public_port), await RawClient.connect(relay.public_port)
        async with first, second, await RawClient.connect(relay.public_port) as third:
            response = await third.response()
            check(CURL, response, "overloaded", "too many connections", "Try again in a few seconds")
            assert (await third.rest()) == (b"", "eof")


async def test_held_and_served_then_held_and_draining() -> None:
    """Requests wait for an agent that went, and are served when one is back; when the relay stops, they are told."""
    async with RawServer(misbehave, early=True) as local, RelayProcess(args=["--hold", "60"]) as relay:

        def agent() -> AgentProcess:
            return AgentProcess(local.port, relay_port=relay.agents_port, key_file=relay.key_file)

        async with agent() as gone:
            await gone.established()
            await gone.kill()
        await relay.wait_event("agent_down")
        asking = [asyncio.create_task(ask_all(relay.public_port, host("t"), target)) for target in (b"/a", b"/b")]
        async with agent() as back:
            await back.established()
            for answers in await asyncio.gather(*asking):
                assert [(response.status, response.body) for response in answers] == [
                    (200, b"fine"), (200, b"fine"), (200, RPC_BODY),
                ]  # fmt: skip
            assert len(local.requests) == 2 * len(CALLERS)
            await back.kill()
        await relay.wait_event("agent_down", after=len(relay.events) - 1)
        async with (
            await RawClient.connect(relay.public_port) as browser,
            await RawClient.connect(relay.public_port) as curl,
            await RawClient.connect(relay.public_port) as rpc,
        ):
            visitors = dict(zip(CALLERS, (browser, curl, rpc), strict=True))
            for caller, visitor in visitors.items():
                visitor.send(caller.request(host("t")))
            await eventually(lambda: _held(relay) == len(CALLERS))
            relay.signal(signal.SIGTERM)
            for caller, visitor in visitors.items():
                response = await visitor.response(caller.method)
                check(caller, response, "draining", "about to restart", "Try again in a few seconds")
                assert (await visitor.rest())[0] == b""
        assert await relay.wait() == 0


def _held(relay: RelayProcess) -> int:
    """Requests that the relay holds, from its internal metrics."""
    with socket.create_connection(("127.0.0.1", relay.internal_port), timeout=5) as asked:
        asked.sendall(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
        text = b"".join(iter(lambda: asked.recv(65536), b"")).decode()
    return next(int(float(line.split()[-1])) for line in text.splitlines() if line.startswith("relay_requests_held"))


# ----------------------------------------------------------------------------------------------------- the connection


async def test_a_connection_goes_on_after_an_answer_of_the_relay(house: House) -> None:
    """Whatever is no fault of the visitor's costs it its request, not its connection; HEAD has no body."""
    async with await RawClient.connect(house.port) as visitor:
        for name, status in (("nobody", 404), ("dead", 502), ("t", 200), ("dead", 502)):
            visitor.send(CURL.request(host(name)))
            assert (await visitor.response()).status == status
        visitor.send(CURL.request(host("nobody"), method=b"HEAD") + RPC.request(host("nobody")))
        head = await visitor.response(b"HEAD")
        assert (head.status, head.body) == (404, b"")
        check(RPC, await visitor.response(b"POST"), "unknown_host")
        visitor.send(CURL.request(host("t")))
        assert (await visitor.response()).body == b"fine"


async def test_no_origin_gets_no_permission(house: House) -> None:
    """Without an Origin no CORS field is said, and an Origin that is none is not echoed."""
    response = await exchange(house.port, CURL.request(host("nobody")))
    assert not [name for name, _ in response.headers if name.lower().startswith(b"access-control")]
    response = await exchange(house.port, CURL.request(host("nobody"), b"/", b"Origin: a b\xff"))
    assert not [name for name, _ in response.headers if name.lower().startswith(b"access-control")]


@pytest.mark.parametrize("sent", [7, "x" * 200, None, [1], {"a": 1}, True, 2**70])
async def test_the_id_of_a_request_is_echoed_where_it_is_one(house: House, sent: object) -> None:
    """A number or string comes back as it was sent; what JSON-RPC does not allow comes back as null."""
    body = json.dumps({"jsonrpc": "2.0", "id": sent, "method": "ping"}).encode()
    caller = Caller("JSON-RPC client", RPC.method, RPC.fields, body)
    told = json.loads((await exchange(house.port, caller.request(host("dead")))).body)
    allowed = isinstance(sent, int | str) and not isinstance(sent, bool)
    assert told["id"] == (sent if allowed else None)
