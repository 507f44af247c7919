"""An agent is authenticated, not trusted: what could split or forge a response never reaches a visitor.

Both ways in are tried: a local service behind an honest agent, and an agent made by hand that sends raw frames.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from relay.exchange.heads import Fields
from relay.wire.errors import ResetCode
from relay.wire.frames import DATA, DATA_END, END, HEAD, HEAD_END, RESET_HEAD
from tests.support.child import eventually
from tests.support.messages import Response
from tests.support.processes import AgentProcess, Tunnel, tunnel
from tests.support.rawhttp import RawClient, RawServer, exchange, ok
from tests.system.badheads import WEBSOCKET, get
from tests.system.hostileagent import HostileAgent, fields_of, frame, head_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

FINE_ANSWER = ok(b"fine")
INJECTED = b"Set-Cookie: injected=1"
SECOND = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ninjected"


@dataclass(slots=True)
class House:
    """One relay with three agents: `t` honest, `h` honest with the other parser, `m` made by hand."""

    tunnel: Tunnel
    local: RawServer
    agent: HostileAgent
    answer: bytes = FINE_ANSWER
    """What the local service says."""

    async def ask(self, name: str, request: bytes = get()) -> Response:
        return await exchange(self.tunnel.port, request.replace(b"t.tunnels", name.encode() + b".tunnels"))

    async def others_are_fine(self) -> None:
        """Both kinds of agent still serve, on the sessions they have."""
        self.answer = FINE_ANSWER
        self.agent.script = honest
        for name in ("t", "h", "m"):
            response = await self.ask(name)
            assert (response.status, response.body, response.ended) == (200, b"fine", "clean")
        assert not self.agent.ended.is_set()


def honest(stream: int, _: object) -> list[bytes]:
    """What an agent with nothing to hide sends."""
    return [frame(HEAD, stream, head_of(200, [(b"Content-Length", b"4")])), frame(DATA_END, stream, b"fine")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """All of it, for all tests here."""
    houses: list[House] = []
    async with (
        RawServer(lambda _: houses[0].answer) as local,
        tunnel(local.port, "t") as t,
        AgentProcess(
            local.port,
            relay_port=t.relay.agents_port,
            key_file=t.relay.key_file,
            subdomain="h",
            args=["--http-parser", "h11"],
        ) as other,
        HostileAgent(t.relay, "m", honest) as agent,
    ):
        await other.established()
        houses.append(House(t, local, agent))
        yield houses[0]


def refused(response: Response) -> None:
    """It is the relay's own 502 and nothing else."""
    assert response.head is not None
    assert (response.status, response.head.get("relay-error"), response.ended) == (502, b"bad_response", "clean")
    assert b"injected" not in response.raw


# ------------------------------------------------------------------------------------------------- the local service

BAD_ANSWERS: dict[str, bytes] = {
    "a bare CR in a value": b"HTTP/1.1 200 OK\r\nX: a\r" + INJECTED + b"\r\nContent-Length: 0\r\n\r\n",
    "a bare LF in a value": b"HTTP/1.1 200 OK\r\nX: a\n" + INJECTED + b"\r\nContent-Length: 0\r\n\r\n",
    "NUL in a value": b"HTTP/1.1 200 OK\r\nX: a\0" + INJECTED + b"\r\nContent-Length: 0\r\n\r\n",
    "a control character in a value": b"HTTP/1.1 200 OK\r\nX: a\x0binjected\r\nContent-Length: 0\r\n\r\n",
    "a folded line": b"HTTP/1.1 200 OK\r\nX: a\r\n " + INJECTED + b"\r\nContent-Length: 0\r\n\r\n",
    "a space in a name": b"HTTP/1.1 200 OK\r\nX injected: a\r\nContent-Length: 0\r\n\r\n",
    "white space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "a field without a name": b"HTTP/1.1 200 OK\r\n: injected\r\nContent-Length: 0\r\n\r\n",
    "a field without a colon": b"HTTP/1.1 200 OK\r\ninjected\r\nContent-Length: 0\r\n\r\n",
    "a bare LF in the status line": b"HTTP/1.1 200 O\nK\r\nContent-Length: 0\r\n\r\n",
    "a bare CR in the status line": b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/0.9": b"<html>injected</html>\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(SECOND) + SECOND,
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 0, 5\r\n\r\n",
    "a signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "a length with chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a 101 that nobody asked for": b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" + SECOND,
    "a head of 70 KiB": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70 * 1024 + b"\r\nContent-Length: 0\r\n\r\n",
    "300 fields": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 300 + b"Content-Length: 0\r\n\r\n",
    "33 interim heads": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 33 + ok(b"injected"),
}


@pytest.mark.parametrize("name", ["t", "h"], ids=["httptools", "h11"])
@pytest.mark.parametrize("what", BAD_ANSWERS)
async def test_a_local_service_cannot_split_a_response(house: House, what: str, name: str) -> None:
    """Heads that two readers would read in two ways are 502, whichever parser the agent uses."""
    house.answer = BAD_ANSWERS[what]
    response = await house.ask(name)
    refused(response)
    assert f"127.0.0.1:{house.local.port}".encode() in response.body
    await house.others_are_fine()


@pytest.mark.parametrize("name", ["t", "h"], ids=["httptools", "h11"])
async def test_bytes_behind_an_answer_are_nobodys(house: House, name: str) -> None:
    """A second answer that nobody asked for is dropped, and given to no later request."""
    house.answer = ok(b"fine") + SECOND
    for _ in range(3):
        response = await house.ask(name)
        assert (response.status, response.body) == (200, b"fine")
        assert b"injected" not in response.raw
    await house.others_are_fine()


# ------------------------------------------------------------------------------------------------ an agent made by hand

FINE: Fields = [(b"Content-Length", b"4")]
BAD_HEADS: dict[str, bytes] = {
    "CRLF in a value": head_of(200, [*FINE, (b"X", b"a\r\n" + INJECTED)]),
    "LF in a value": head_of(200, [*FINE, (b"X", b"a\n" + INJECTED)]),
    "CR in a value": head_of(200, [*FINE, (b"X", b"a\r" + INJECTED)]),
    "NUL in a value": head_of(200, [*FINE, (b"X", b"a\0injected")]),
    "a whole response in a value": head_of(200, [*FINE, (b"X", b"a\r\n\r\nfine" + SECOND)]),
    "CRLF in a name": head_of(200, [*FINE, (b"X: a\r\nSet-Cookie", b"injected=1")]),
    "a colon in a name": head_of(200, [*FINE, (b"X: injected", b"a")]),
    "a space in a name": head_of(200, [*FINE, (b"Content-Length ", b"4")]),
    "an empty name": head_of(200, [*FINE, (b"", b"injected")]),
    "a name beyond ASCII": head_of(200, [*FINE, (b"X\xe9", b"injected")]),
    "CRLF in the reason": head_of(200, FINE, b"OK\r\n" + INJECTED),
    "NUL in the reason": head_of(200, FINE, b"OK\0injected"),
    "status 0": head_of(0, FINE),
    "status 99": head_of(99, FINE),
    "status 1000": head_of(1000, FINE),
    "status 65535": head_of(65535, FINE),
    "two lengths": head_of(200, [*FINE, (b"content-length", b"4")]),
    "a list of lengths": head_of(200, [(b"Content-Length", b"4, 4")]),
    "a signed length": head_of(200, [(b"Content-Length", b"+4")]),
    "a length with white space": head_of(200, [(b"Content-Length", b"4 ")]),
    "a negative length": head_of(200, [(b"Content-Length", b"-4")]),
    "257 fields": head_of(200, [*FINE, *[(b"X", b"a")] * 256]),
    "a head that is cut short": head_of(200, FINE)[:-1],
    "a head with a rest": head_of(200, FINE) + b"injected",
    "a count too high": head_of(200, FINE).replace(b"\0\x01\0\x0e", b"\0\x02\0\x0e"),
    "a 101 that nobody asked for": head_of(101, [(b"Upgrade", b"websocket")]),
}


@pytest.mark.parametrize("what", BAD_HEADS)
async def test_an_agent_cannot_split_a_response(house: House, what: str) -> None:
    """A head that cannot be written as it is costs its stream: 502 for the visitor, a reset for the agent."""
    house.agent.resets.clear()
    house.agent.script = lambda stream, _: [frame(HEAD, stream, BAD_HEADS[what]), frame(DATA_END, stream, b"fine")]
    refused(await house.ask("m"))
    await eventually(lambda: house.agent.resets == [ResetCode.BAD_RESPONSE])
    await house.others_are_fine()


Sent = list[tuple[int, bytes]]
HEAD_200 = (HEAD, head_of(200, FINE))
BAD_ORDERS: dict[str, Sent] = {
    "data before a head": [(DATA, b"fine"), HEAD_200],
    "an end without a head": [(END, b"")],
    "33 interim heads": [(HEAD, head_of(103, []))] * 33 + [HEAD_200, (DATA_END, b"fine")],
}
BAD_BODIES: dict[str, Sent] = {
    "more than was declared": [HEAD_200, (DATA, b"fine"), (DATA_END, SECOND)],
    "much more than was declared": [HEAD_200, (DATA_END, b"fine" + SECOND)],
    "less than was declared": [HEAD_200, (DATA_END, b"fin")],
    "a second head": [HEAD_200, (DATA, b"fi"), (HEAD, head_of(200, [*FINE, (b"Set-Cookie", b"injected=1")]))],
    "an interim head too late": [HEAD_200, (DATA, b"fi"), (HEAD, head_of(103, [(b"Link", b"injected")]))],
    "a reset in the middle": [HEAD_200, (DATA, b"fi"), (0x13, RESET_HEAD.pack(ResetCode.LOCAL_RESET, 1))],
    "trailers with CRLF": [
        (HEAD, head_of(200, [])),
        (DATA, b"fi"),
        (END, fields_of([(b"X", b"a\r\n" + INJECTED)])),
    ],
    "trailers that are no fields": [(HEAD, head_of(200, [])), (DATA, b"fi"), (END, b"injected")],
    "chunks in a body by length": [HEAD_200, (DATA_END, b"4\r\nfine\r\n0\r\n\r\n" + SECOND)],
}


@pytest.mark.parametrize("what", BAD_ORDERS)
async def test_an_agent_cannot_speak_out_of_order(house: House, what: str) -> None:
    """What comes in a wrong order before an answer has begun is 502."""
    house.agent.script = lambda stream, _: [frame(kind, stream, payload) for kind, payload in BAD_ORDERS[what]]
    response = await house.ask("m")
    refused(response)
    await house.others_are_fine()


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize("what", BAD_BODIES)
async def test_an_agent_cannot_stretch_a_response(house: House, what: str, version: bytes) -> None:
    """Once an answer has begun, more or other than was declared breaks it off; nothing of it reaches the visitor."""
    house.agent.script = lambda stream, _: [frame(kind, stream, payload) for kind, payload in BAD_BODIES[what]]
    request = get(version=version).replace(b"t.tunnels", b"m.tunnels")
    async with await RawClient.connect(house.tunnel.port) as visitor:
        visitor.send(request)
        response = await visitor.response()
        rest = await visitor.rest()
    assert b"injected" not in response.raw
    assert rest[0] == b""
    if response.status == 502:
        refused(response)
    else:
        assert b"fine".startswith(response.body)
        broken_off = ("reset",) if response.framing == "close" else ("eof", "reset")
        assert response.ended in broken_off or response.body == b"fine"
    await house.others_are_fine()


async def test_framing_is_the_relays_own(house: House) -> None:
    """Hop-by-hop fields of an agent do not reach a visitor, and the body is framed by the relay."""
    fields: Fields = [
        (b"Transfer-Encoding", b"gzip"), (b"Connection", b"close, X-Gone"), (b"X-Gone", b"1"),
        (b"Keep-Alive", b"timeout=1"), (b"Upgrade", b"h2c"), (b"Proxy-Authenticate", b"Basic"), (b"X-Kept", b"1"),
    ]  # fmt: skip
    trailers = fields_of([(b"X-Sum", b"1"), (b"Content-Length", b"9"), (b"Transfer-Encoding", b"gzip")])
    house.agent.script = lambda stream, _: [
        frame(HEAD, stream, head_of(200, fields)), frame(DATA, stream, b"fine"), frame(END, stream, trailers),
    ]  # fmt: skip
    response = await house.ask("m")
    assert (response.body, response.framing, response.ended) == (b"fine", "chunked", "clean")
    assert response.headers == [(b"X-Kept", b"1"), (b"Transfer-Encoding", b"chunked")]
    assert response.trailers == [(b"X-Sum", b"1")]


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_stays_without(house: House, status: int) -> None:
    """Data behind a 204 or 304, or for HEAD, would be read as the next answer: it is never written."""
    house.agent.script = lambda stream, _: [
        frame(HEAD, stream, head_of(status, [])), frame(DATA, stream, SECOND), frame(END, stream),
    ]  # fmt: skip
    async with await RawClient.connect(house.tunnel.port) as visitor:
        visitor.send(get().replace(b"t.tunnels", b"m.tunnels") + get())
        got, _ = await visitor.rest() if (await visitor.response()).status == status else (b"", "eof")
    head = await house.ask("m", get().replace(b"GET", b"HEAD"))
    assert b"injected" not in got + head.raw
    await house.others_are_fine()


async def test_a_session_that_breaks_the_protocol_ends_alone(house: House) -> None:
    """An agent that sends what is no frame loses its session; the others keep theirs."""
    for bad in (b"\0\0\0\x01", frame(0x41, 1), frame(HEAD, 8, head_of(200, [])), frame(HEAD_END, 0, head_of(200, []))):
        async with HostileAgent(house.tunnel.relay, "broken", lambda *_, bad=bad: [bad]) as agent:
            response = await house.ask("broken")
            assert (response.status, response.head and response.head.get("relay-error")) == (502, b"agent_lost")
            await asyncio.wait_for(agent.ended.wait(), 5)
    await house.others_are_fine()


async def test_a_pipe_is_opened_only_by_both(house: House) -> None:
    """An upgrade that an agent answers with 101 is a pipe, written with the relay's own Connection and Upgrade."""
    head = head_of(101, [(b"Upgrade", b"h2c"), (b"Sec-WebSocket-Accept", b"x")], b"Switching Protocols")
    house.agent.script = lambda stream, _: [frame(HEAD, stream, head), frame(DATA, stream, b"hello")]
    async with await RawClient.connect(house.tunnel.port) as visitor:
        visitor.send(get(*WEBSOCKET).replace(b"t.tunnels", b"m.tunnels"))
        answered = await visitor.head()
        assert (answered.status, answered.all("upgrade")) == (101, [b"websocket"])
        assert await visitor.exactly(5) == b"hello"
        visitor.reset()
        await eventually(lambda: bool(house.agent.resets))
    await house.others_are_fine()
