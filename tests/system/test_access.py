"""Tunnels that are not for everybody, by the front door: keys, passwords, what passes without, what is cut.

One relay; an agent with two private tunnels, `t` and `u`, behind which the local service wants a credential of its own;
and one with the tunnel `open`, that everybody may call.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from argon2 import PasswordHasher
from websockets.utils import accept_key

from relay.wire.access import AccessRules
from relay.wire.hello import Hello, Welcome
from tests.support.child import eventually
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess
from tests.support.rawhttp import RawClient, RawServer, Request, Step, Wait, chunk, exchange, ok
from tests.system.callers import CALLERS, CURL, ORIGIN, RPC, ask_all, check
from tests.system.handagent import HandAgent

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "canary-sw\u00f6rdfish:1"
UPSTREAM = "canary-upstream-c0ffee"
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)
WEBSOCKET = (b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAA")
INITIALIZE = json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}).encode()


def basic(password: str, user: str = "ann") -> bytes:
    """The field that a browser, or curl -u, sends."""
    return b"Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode())


def stranger(number: int) -> bytes:
    """Says, as a proxy in front would, who asks: an address that guesses is slowed down, and no other."""
    return b"X-Forwarded-For: 198.51.100.%d" % number


def bearer(key: str) -> bytes:
    return b"Authorization: Bearer " + key.encode()


async def serve(request: Request) -> AsyncIterator[Step]:
    """Answers with what was asked; streams for ever, or upgrades, as the path says."""
    await request.read()
    if request.target == b"/stream":
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"first")
        yield Wait(asyncio.Event())
    elif request.target == b"/ws":
        yield SWITCH % accept_key((request.head.get("sec-websocket-key") or b"").decode()).encode() + b"hello"
        yield Wait(asyncio.Event())
    elif request.target == b"/.well-known/closed":
        yield ok(b"mine", ("WWW-Authenticate", "Bearer of-the-local-service"), status="401 Unauthorized")
    else:
        yield ok(request.method + b" " + request.target)


@dataclass(frozen=True, slots=True)
class House:
    """All of it."""

    relay: RelayProcess
    agent: AgentProcess
    other: AgentProcess
    local: RawServer
    options: list[str]
    keys: dict[str, str]
    """The visitor key that was minted for a tunnel at first."""

    @property
    def port(self) -> int:
        return self.relay.public_port

    async def ask(self, *fields: bytes, name: str = "t", target: bytes = b"/", method: bytes = b"GET") -> int:
        """The status of a request of curl's."""
        return (await exchange(self.port, CURL.request(host(name), target, *fields, method=method), 15)).status

    async def mint(self, name: str = "t") -> tuple[str, str]:
        """(id, text) of a new visitor key."""
        minted = await self.relay.api.do("POST", "/keys", {"kind": "visitor", "tunnel": name})
        return minted["key"]["id"], minted["text"]

    def seen(self, name: str) -> list[list[bytes]]:
        """Values of a field in each request that reached the local service."""
        return [request.head.all(name) for request in self.local.requests]


def host(name: str) -> str:
    return f"{name}.{DOMAIN}"


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return str(path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """All of it, for most tests here."""
    folder = tmp_path_factory.mktemp("access")
    dear = PasswordHasher(parallelism=1).hash("x")
    people = written(folder / "people", f"# who may come in\nann:{PASSWORD}\ndear:{dear}\n")
    fields = written(folder / "fields", f"Authorization: Bearer {UPSTREAM}\nX-Service: a\n")
    args = ["--log-level", "debug", "--trusted-proxies", "127.0.0.1"]
    options = ["--private", "--basic-auth-file", people, "--upstream-header-file", fields]
    async with contextlib.AsyncExitStack() as stack:
        local = await stack.enter_async_context(RawServer(serve, early=True))
        relay = await stack.enter_async_context(RelayProcess(args=args))
        both = [f"{name}={local.port}" for name in ("t", "u")]
        port, key_file = relay.agents_port, relay.key_file
        agent = AgentProcess(None, relay_port=port, key_file=key_file, subdomain=both, args=options)
        other = AgentProcess(local.port, relay_port=port, key_file=key_file, subdomain="open")
        await asyncio.gather(stack.enter_async_context(agent), stack.enter_async_context(other))
        await asyncio.gather(agent.established(), other.established())
        house = House(relay, agent, other, local, options, {})
        for name in ("t", "u"):
            house.keys[name] = (await house.mint(name))[1]
        short = await relay.api.do("POST", "/keys", {"kind": "visitor", "tunnel": "t", "life": 2})
        house.keys["short"] = short["text"]
        yield house


# ---------------------------------------------------------------------------------------------- without a credential


async def test_nobody_comes_in_without_a_credential(house: House) -> None:
    """401 for each kind of caller in its own form, and for every method; nothing reaches the local service."""
    before = len(house.local.requests)
    for caller, response in zip(CALLERS, await ask_all(house.port, host("t")), strict=True):
        check(caller, response, "unauthorized", "no Authorization field", "a visitor key", "a user with a password")
        assert response.head is not None
        realm = f'realm="{host("t")}"'.encode()
        assert response.head.all("www-authenticate") == [b"Bearer " + realm, b"Basic " + realm + b', charset="UTF-8"']
        if caller is RPC:
            assert b"WWW-Authenticate" in (response.head.get("access-control-expose-headers") or b"")
    methods = [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"QUERY", b"PROPFIND"]
    assert await asyncio.gather(*(house.ask(method=method) for method in methods)) == [401] * len(methods)
    head = await exchange(house.port, CURL.request(host("t"), method=b"HEAD"))
    assert (head.body, head.ended) == (b"", "clean")
    assert len(house.local.requests) == before


async def test_an_open_tunnel_asks_for_nothing_and_touches_nothing(house: House) -> None:
    """The same relay, another tunnel: whatever Authorization a visitor sends is the local service's."""
    for field in (basic("x"), bearer(house.keys["t"]), b"authorization: Digest x"):
        assert await house.ask(field, name="open") == 200
        assert house.seen("authorization")[-1] == [field.partition(b": ")[2]]


async def test_preflights_and_metadata_pass(house: House) -> None:
    """As browsers and the MCP authorization rules need; the local service's own 401 is its own, and paths are taken
    by the letter.
    """
    preflight = [b"Origin: " + ORIGIN, b"Access-Control-Request-Method: POST"]
    assert await house.ask(*preflight, method=b"OPTIONS", target=b"/mcp") == 200
    assert await house.ask(target=b"/.well-known/oauth-protected-resource/mcp") == 200
    own = await exchange(house.port, CURL.request(host("t"), b"/.well-known/closed"))
    assert own.head is not None
    assert (own.status, own.body) == (401, b"mine")
    assert own.head.all("www-authenticate") == [b"Bearer of-the-local-service"]
    assert own.head.get("relay-error") is None
    before = len(house.local.requests)
    for target in (b"/.well-known/../mcp", b"/.well-known/%2e%2e/mcp", b"/.well-known/..;/mcp", b"/.well-known"):
        assert await house.ask(target=target) == 401
    assert await house.ask(b"X-Original-URL: /mcp", target=b"/.well-known/x") == 401
    assert await house.ask(*preflight, b"X-HTTP-Method-Override: POST", method=b"OPTIONS") == 401
    assert len(house.local.requests) == before


# ---------------------------------------------------------------------------------------------- with one


@pytest.mark.parametrize("way", ["key", "password"])
async def test_a_credential_lets_in_and_stays_behind(house: House, way: str) -> None:
    """The local service gets its own credential in its place, on every request of a connection."""
    field = bearer(house.keys["t"]) if way == "key" else basic(PASSWORD)
    async with await RawClient.connect(house.port) as visitor:
        for caller in (CURL, RPC):
            visitor.send(caller.request(host("t"), b"/in", field))
            assert (await visitor.response(caller.method)).body == caller.method + b" /in"
            assert house.seen("authorization")[-1] == [b"Bearer " + UPSTREAM.encode()]
            assert house.seen("x-service")[-1] == [b"a"]
        before = len(house.local.requests)
        visitor.send(CURL.request(host("t"), b"/in"))
        assert (await visitor.response()).status == 401
        visitor.send(CURL.request(host("t"), b"/in", field))
        assert (await visitor.response()).status == 200
        assert len(house.local.requests) == before + 1


async def test_a_key_for_another_tunnel_is_forbidden(house: House) -> None:
    """Each opens its own, and is told 403 at the other."""
    assert await house.ask(bearer(house.keys["u"]), name="u") == 200
    responses = [
        await exchange(house.port, caller.request(host("t"), b"/", bearer(house.keys["u"]))) for caller in CALLERS
    ]
    for caller, response in zip(CALLERS, responses, strict=True):
        check(caller, response, "forbidden", "the visitor key is for another tunnel")


async def test_what_is_no_valid_credential_is_unauthorized(house: House) -> None:
    """Wrong passwords and users, a child key, a mistyped key, two credentials at once."""
    child, key = house.relay.key_file.read_text().strip(), house.keys["t"]
    for field in (basic("guess"), basic(PASSWORD, "bob"), basic(""), bearer(child), bearer(key[:-1]), bearer("x")):
        assert await house.ask(field, stranger(2)) == 401
    response = await exchange(house.port, CURL.request(host("t"), b"/", bearer(key[:-2] + "00")))
    assert response.head is not None
    assert response.head.all("www-authenticate")[0].endswith(b', error="invalid_token"')
    assert key.encode() not in response.raw
    assert await house.ask(bearer(key), basic(PASSWORD)) == 400


async def test_many_wrong_passwords_hold_nobody_up(house: House) -> None:
    """Checks are made beside the traffic, and what one address asks for beyond its share is told 503 at once."""
    guesses = [asyncio.create_task(house.ask(basic(f"guess {n}", "dear"), stranger(1))) for n in range(12)]
    await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
    assert [await house.ask(name="open"), await house.ask(bearer(house.keys["t"]))] == [200, 200]
    assert not all(guess.done() for guess in guesses)
    assert sorted(await asyncio.gather(*guesses)) == [401] * 8 + [503] * 4


# ---------------------------------------------------------------------------------------------- while it lasts


async def test_a_held_request_is_judged_when_its_agent_is_back(house: House) -> None:
    """Nobody knows a tunnel's rules while its agent is away; they count before anything is delivered."""

    _, key = await house.mint("held")
    hello = Hello("gone", 0, 1, house.relay.key_file.read_text().strip(), ("held",), access={"held": AccessRules(True)})
    async with HandAgent(house.relay.agents_port, hello) as gone:
        assert isinstance(gone.answer, Welcome)
        assert await house.ask(name="held") == 401
    await house.relay.wait_event(lambda event: event["event"] == "agent_down" and event["names"] == ["held"])
    before = len(house.local.requests)
    asked = [b"Accept: */*", bearer(key), basic(PASSWORD), basic("guess")]
    asking = [asyncio.create_task(house.ask(field, stranger(3), name="held")) for field in asked]
    back = AgentProcess(
        house.local.port,
        relay_port=house.relay.agents_port,
        key_file=house.relay.key_file,
        subdomain="held",
        args=house.options,
    )
    async with back:
        assert await asyncio.gather(*asking) == [401, 200, 200, 401]
    assert len(house.local.requests) == before + 2


async def test_a_websocket_is_judged_like_a_request(house: House) -> None:
    """No upgrade without a credential; with one the pipe opens, and breaks when the key is revoked."""
    handshake = CURL.request(host("t"), b"/ws", *WEBSOCKET)
    assert (await exchange(house.port, handshake)).status == 401
    key_id, key = await house.mint()
    async with await RawClient.connect(house.port) as visitor:
        visitor.send(CURL.request(host("t"), b"/ws", *WEBSOCKET, bearer(key)))
        assert (await visitor.head()).status == 101
        assert await visitor.exactly(5) == b"hello"
        assert house.seen("authorization")[-1] == [b"Bearer " + UPSTREAM.encode()]
        await house.relay.api.do("POST", f"/keys/{key_id}/revoke", {})
        assert (await visitor.rest())[1] == "reset"


async def test_a_revoked_key_cuts_its_streams_and_opens_nothing_more(house: House) -> None:
    """Within a second, as an abort; what others are doing goes on."""
    key_id, key = await house.mint()
    async with await RawClient.connect(house.port) as cut, await RawClient.connect(house.port) as goes_on:
        for visitor, field in ((cut, bearer(key)), (goes_on, bearer(house.keys["t"]))):
            visitor.send(CURL.request(host("t"), b"/stream", field))
            assert (await visitor.head()).status == 200
            assert (await visitor.until(b"first\r\n")).endswith(b"first\r\n")
        departed = len(house.local.departures)
        await house.relay.api.do("POST", f"/keys/{key_id}/revoke", {})
        began = time.monotonic()
        rest, how = await cut.rest()
        assert time.monotonic() - began < 1
        assert not rest.endswith(b"0\r\n\r\n")
        assert how == "reset"
        await eventually(lambda: len(house.local.departures) == departed + 1)
        response = await exchange(house.port, CURL.request(host("t"), b"/", bearer(key)))
        check(CURL, response, "unauthorized", "the visitor key was revoked")
        assert await house.ask(bearer(house.keys["t"])) == 200


async def test_an_expired_key_opens_nothing(house: House) -> None:
    """Minted for two seconds when all this began."""
    request = CURL.request(host("t"), b"/", bearer(house.keys["short"]))
    async with asyncio.timeout(5):
        while (response := await exchange(house.port, request)).status == 200:
            await asyncio.sleep(0.05)
    check(CURL, response, "unauthorized", "the visitor key has expired")


@pytest.mark.parametrize("name", ["open", "t"])
async def test_an_mcp_server_that_lets_everybody_in_is_warned_of(house: House, name: str) -> None:
    """The agent says so once, where the tunnel is open; a private one is not spoken of."""
    agent = house.other if name == "open" else house.agent
    fields = [b"Content-Type: application/json", b"Content-Length: %d" % len(INITIALIZE)]
    if name == "t":
        fields.append(bearer(house.keys["t"]))
    for _ in range(2):
        after = len(agent.events)
        assert (
            await exchange(house.port, CURL.request(host(name), b"/mcp", *fields, method=b"POST") + INITIALIZE)
        ).status == 200
        await agent.wait_event("request", after=after)
    warnings = [event["message"] for event in agent.events if event["event"] == "warning"]
    assert len(warnings) == (name == "open")
    assert all("open" in warning and "--private" in warning for warning in warnings)


async def test_no_secret_shows_anywhere(house: House) -> None:
    """Password, keys and the upstream credential stand in no event, log or argument of relay and agent."""
    assert await house.ask(bearer(house.keys["t"])) == 200
    assert await house.ask(basic(PASSWORD)) == 200
    assert await house.ask(basic("canary-guess"), stranger(4)) == 401
    told = [house.relay.report(), house.agent.report(), json.dumps(house.relay.events), json.dumps(house.agent.events)]
    told += house.relay.lines + house.agent.lines
    told += [Path(f"/proc/{one.pid}/cmdline").read_text() for one in (house.relay, house.agent)]
    for canary in (PASSWORD, "canary", basic(PASSWORD).split()[-1].decode(), house.keys["t"][:60], UPSTREAM):
        assert not [text for text in told if canary in text]


# ---------------------------------------------------------------------------------------------- another ASGI server


async def test_the_asgi_application_asks_the_same(tmp_path: Path) -> None:
    """Keys, passwords, what passes without, and a stream that breaks when its key is revoked."""
    people = written(tmp_path / "people", f"ann:{PASSWORD}\n")
    async with RawServer(serve, early=True) as local, RelayProcess(edge="asgi-uvicorn") as relay:
        args = ["--private", "--basic-auth-file", people]
        agent = AgentProcess(local.port, relay_port=relay.agents_port, key_file=relay.key_file, args=args)
        async with agent:
            await agent.established()
            house = House(relay, agent, agent, local, args, {})
            key_id, key = await house.mint()
            _, other = await house.mint("other")
            assert [await house.ask(), await house.ask(bearer(other)), await house.ask(basic("guess"))] == [
                401,
                403,
                401,
            ]
            assert await house.ask(basic(PASSWORD)) == 200
            assert await house.ask(target=b"/.well-known/x") == 200
            assert [values for values in house.seen("authorization") if values] == []
            async with await RawClient.connect(relay.public_port) as visitor:
                visitor.send(CURL.request(host("t"), b"/stream", bearer(key)))
                assert (await visitor.head()).status == 200
                await visitor.until(b"first\r\n")
                await relay.api.do("POST", f"/keys/{key_id}/revoke", {})
                rest, _ = await visitor.rest()
                assert not rest.endswith(b"0\r\n\r\n")
            assert await house.ask(bearer(key)) == 401
