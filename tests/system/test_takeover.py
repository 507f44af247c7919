"""One relay takes over from another under strict visitors, and none of them notices; who may take over, and who not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from relay.settings import ServeSettings
from tests.support.child import ChildError, eventually
from tests.support.local import LocalProcess
from tests.support.longer import CHAOS
from tests.support.processes import DOMAIN, RELAY, AgentProcess, Ports, RelayProcess
from tests.support.rawhttp import RawClient, exchange
from tests.support.reliability import Record
from tests.system.numbers import until
from tests.system.strict import Strict
from tests.system.wspeers import LocalWebSocket, dial, local_service

RATE = 300.0
SHORT_REQUESTS, TAKEOVERS = (20_000, 5) if CHAOS else (1_500, 1)
GRACE = 3.0
WS = f"ws.{DOMAIN}"
GET = b"GET /echo HTTP/1.1\r\nHost: t.tunnels.localhost\r\n\r\n"
CLOSE = GET[:-2] + b"Connection: close\r\n\r\n"


def successor(relay: RelayProcess, *args: str) -> RelayProcess:
    """Another relay for the same place."""
    return RelayProcess(relay.data, ports=relay.ports, args=["--take-over", *args])


@dataclass(slots=True)
class Place:
    """Relays one after the other, and an agent that serves `t` (HTTP) and `ws` (an echo)."""

    relays: list[RelayProcess]
    agent: AgentProcess
    sockets: LocalWebSocket
    stack: contextlib.AsyncExitStack

    @property
    def relay(self) -> RelayProcess:
        """The one that serves."""
        return self.relays[-1]

    async def replaced(self, *args: str) -> RelayProcess:
        """Another relay takes over; the one before, which drains."""
        before = self.relay
        self.relays.append(await self.stack.enter_async_context(successor(before, *args)))
        assert (await self.relay.wait_event("took_over"))["pid"] == before.pid
        handed = await before.wait_event("handed_over")
        assert handed["pid"] == self.relay.pid
        return before


@contextlib.asynccontextmanager
async def place(data: Path, *args: str) -> AsyncIterator[Place]:
    async with contextlib.AsyncExitStack() as stack:
        local = await stack.enter_async_context(LocalProcess())
        sockets = await stack.enter_async_context(local_service("websockets"))
        relay = await stack.enter_async_context(RelayProcess(data, args=args))
        names = [f"t={local.port}", f"ws={sockets.port}"]
        agent = AgentProcess(None, relay_port=relay.agents_port, key_file=relay.key_file, subdomain=names)
        await stack.enter_async_context(agent)
        await agent.established()
        yield Place([relay], agent, sockets, stack)


# ---- nobody notices


@pytest.mark.chaos
async def test_a_takeover_loses_no_request(tmp_path: Path, record: Record) -> None:
    """Short requests on kept connections, uploads, event streams and WebSockets: each is answered whole, and no
    connection closes that was not told so. The relays before end by themselves with 0."""
    async with place(tmp_path / "data", "--grace", f"{GRACE}") as at:
        strict = await at.stack.enter_async_context(Strict(at.relay.public_port, f"t.{DOMAIN}", WS, RATE))
        for number in range(TAKEOVERS):
            await strict.asked(SHORT_REQUESTS * (2 * number + 1) // (2 * TAKEOVERS + 1), timeout=120.0)
            before = await at.replaced("--grace", f"{GRACE}")
            assert await before.wait(GRACE + 10.0) == 0
        await strict.asked(SHORT_REQUESTS, timeout=120.0)
        seen = await strict.told()
    assert seen.told_to_close > 0
    record(
        name="restart by take-over",
        asked=f"0 failed of {SHORT_REQUESTS} short requests at {RATE:g}/s, and of uploads, events and WebSockets",
        seen=f"{sum(seen.failed.values())} of {seen.short}, {sum(seen.long_failed.values())} of "
        f"{sum(seen.long.values())} long ones, {TAKEOVERS} take-overs, {seen.failed}, {seen.long_failed}",
        ok=seen.short >= SHORT_REQUESTS and not seen.failed and not seen.long_failed,
        counts={"short": seen.short, "p99_s": round(seen.p99, 3), "worst_s": round(seen.worst, 3), **seen.long},
    )


async def test_what_a_takeover_leaves_to_the_relay_before(tmp_path: Path) -> None:
    """A kept connection is served there until its next request, whose answer says close; an event stream and a
    WebSocket go on until the grace time is over, and then end as when a relay stops. Who comes is the new one's."""
    async with place(tmp_path / "data", "--grace", "2") as at, dial("websockets", at.relay.public_port, WS) as visitor:
        port = at.relay.public_port
        kept, events = await RawClient.connect(port), await RawClient.connect(port)
        kept.send(GET)
        assert (await kept.response()).status == 200
        events.send(b"GET /sse?count=10000&every=0.05 HTTP/1.1\r\nHost: t.tunnels.localhost\r\n\r\n")
        await events.head()
        before = await at.replaced()
        began = time.monotonic()
        for _ in range(5):
            assert (await exchange(port, CLOSE)).status == 200
        kept.send(GET)
        last = await kept.response()
        assert (last.status, last.head is not None and last.head.get("connection")) == (200, b"close")
        await visitor.send("still there")
        assert await visitor.receive() == "still there"
        assert await visitor.closed() == (1012, "the relay restarts")
        assert time.monotonic() - began > 1.0
        told, ended = await events.rest()
        assert (told.endswith(b"0\r\n\r\n"), ended) == (False, "reset")
        assert await before.wait(10.0) == 0
        assert before.events[-1] == {"event": "stopped"}
        await eventually(lambda: at.sockets.closed == [(1001, "the relay restarts")])
        kept.close()
        events.close()


async def test_a_request_that_waits_for_its_agent_waits_on(tmp_path: Path) -> None:
    """Its connection goes to the new relay with all that was sent: a body that is there and one that comes later, and a
    request behind it. The agent is back after the take-over, and all are answered there."""
    async with RelayProcess(tmp_path / "data") as relay, LocalProcess() as local, contextlib.AsyncExitStack() as stack:
        agent = AgentProcess(local.port, relay_port=relay.agents_port, key_file=relay.key_file)
        async with agent:
            await agent.established()
        await relay.wait_event("agent_down")
        visitors = [await RawClient.connect(relay.public_port) for _ in range(3)]
        post = b"POST /echo HTTP/1.1\r\nHost: t.tunnels.localhost\r\nContent-Length: 5\r\n\r\n"
        for visitor, sent in zip(visitors, (GET, post + b"he", post + b"hello" + CLOSE), strict=True):
            visitor.send(sent)
        await until(relay, {"relay_requests_held": 3})
        new = await stack.enter_async_context(successor(relay))
        assert await relay.wait(10.0) == 0
        await until(new, {"relay_requests_held": 3})
        visitors[1].send(b"llo")
        await stack.enter_async_context(AgentProcess(local.port, relay_port=new.agents_port, key_file=new.key_file))
        answers = [await visitor.response() for visitor in visitors]
        assert [answer.status for answer in answers] == [200] * 3
        assert [json.loads(answer.body)["length"] for answer in answers] == [0, 5, 5]
        assert (await visitors[2].response()).status == 200
        for visitor in visitors:
            visitor.close()


async def test_one_after_the_other_leaves_one_and_nothing_behind(tmp_path: Path) -> None:
    """After three take-overs there is one process, with as many descriptors as after one; the socket in the data
    directory is closed to others all the time, and is gone when the last one ends."""
    data = tmp_path / "data"
    async with place(data, "--grace", "1") as at:
        descriptors: list[int] = []
        for _ in range(3):
            before = await at.replaced("--grace", "1")
            assert stat.S_IMODE((data / "relay.sock").stat().st_mode) == 0o600
            assert await before.wait(10.0) == 0
            assert (await exchange(at.relay.public_port, CLOSE)).status == 200
            await eventually(lambda: len(links_of(at)) == 2)
            descriptors.append(await settled(at.relay))
        assert descriptors == descriptors[:1] * 3
        running = [one for one in psutil.Process().children() if one.name() == "relay serve"]
        assert [one.pid for one in running] == [at.relay.pid]
        assert await at.relay.stop() == 0
        assert not (data / "relay.sock").exists()


def links_of(at: Place) -> list[str]:
    """The agent's connections to the agents' port."""
    found = psutil.Process(at.agent.pid).net_connections("tcp")
    return [one.status for one in found if one.raddr and one.raddr.port == at.relay.agents_port]


async def settled(relay: RelayProcess) -> int:
    """Its descriptors, once their number stays the same for half a second."""
    counts = [0]
    until = time.monotonic() + 10.0
    while counts.count(counts[-1]) < 10:
        assert time.monotonic() < until, counts
        await asyncio.sleep(0.05)
        counts = [*counts[-9:], relay.fds()]
    return counts[-1]


async def test_a_signal_to_the_relay_before(tmp_path: Path) -> None:
    """It waits for idle connections no longer: they close, and it ends."""
    async with RelayProcess(tmp_path) as relay, await RawClient.connect(relay.public_port) as kept:
        kept.send(b"GET / HTTP/1.1\r\nHost: nobody.tunnels.localhost\r\n\r\n")
        assert (await kept.response()).status == 404
        async with successor(relay):
            await relay.wait_event("stopping")
            assert relay.returncode is None
            relay.signal(signal.SIGTERM)
            assert await kept.rest() == (b"", "eof")
            assert await relay.wait(5.0) == 0


# ---- who may, and who may not


async def failed(relay: RelayProcess) -> str:
    """Why it did not start, as it said itself."""
    with pytest.raises(ChildError):
        await relay.start()
    assert relay.returncode == 1
    (error,) = relay.events
    assert error["event"] == "error"
    return str(error["message"])


@contextlib.asynccontextmanager
async def asked(path: Path, line: bytes) -> AsyncIterator[tuple[bytes, list[int]]]:
    """What a relay answers to a line on its socket, and the descriptors that came along."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as talk:
        talk.setblocking(False)
        await loop.sock_connect(talk, str(path))
        await loop.sock_sendall(talk, line)
        talk.settimeout(5.0)
        data, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, talk, 65536, 8)
        yield data, list(descriptors)


GARBAGE = (b"\n", b"garbage\n", b"[" * 4000 + b"\n", b'{"ask": "ready"}\n', b'{"ask": ["who"]}\n', b"x" * 100_000)


async def test_who_is_refused(tmp_path: Path) -> None:
    """A second relay on the same directory, in a sentence that names the process and both ways out; a successor whose
    settings name other addresses, with both; whoever says empty, nested, untimely or endless lines: no answer and no
    descriptor. The relay serves on."""
    async with RelayProcess(tmp_path) as relay:
        ports = Ports(1, relay.agents_port, relay.internal_port)
        second, moved = await asyncio.gather(
            failed(RelayProcess(tmp_path)), failed(RelayProcess(tmp_path, ports=ports, args=["--take-over"]))
        )
        assert second == (
            f"A relay with pid {relay.pid} already runs on {tmp_path}. Take over from it without losing a request: "
            f"relay serve --take-over. Or stop it first: kill {relay.pid}."
        )
        for text in (f"127.0.0.1:{relay.public_port}", "127.0.0.1:1", "--public"):
            assert text in moved
        for line in GARBAGE:
            with contextlib.suppress(ConnectionError):
                async with asked(tmp_path / "relay.sock", line) as nothing:
                    assert nothing == (b"", [])
        async with asked(tmp_path / "relay.sock", b'{"ask": "who"}\n') as (told, _):
            assert json.loads(told) == {"is": "serving", "pid": relay.pid}
        assert (await relay.api.do("GET", "/whoami"))["kind"] == "operator"


async def test_a_successor_that_dies_before_it_is_ready_changes_nothing(tmp_path: Path) -> None:
    """It had all the sockets: the relay serves on, tells a third one that it is busy, and is taken over from later."""
    data = tmp_path / "data"
    async with place(data, "--grace", "1") as at:
        async with asked(data / "relay.sock", b'{"ask": "take-over"}\n') as (told, descriptors):
            assert json.loads(told)["sockets"] == ["public", "agents", "internal", "control"]
            assert len(descriptors) == 4
            assert (await exchange(at.relay.public_port, CLOSE)).status == 200
            assert "just being taken over" in await failed(successor(at.relay))
            for descriptor in descriptors:
                os.close(descriptor)
        assert (await exchange(at.relay.public_port, CLOSE)).status == 200
        before = await at.replaced("--grace", "1")
        assert await before.wait(10.0) == 0
        assert (await exchange(at.relay.public_port, CLOSE)).status == 200


# ---- sockets of a service manager


class Activated(RelayProcess):
    """A relay that is given its sockets by whoever starts it."""

    def __init__(self, data: Path, given: dict[str, socket.socket], *args: str) -> None:
        ports = Ports(
            *(given[name].getsockname()[1] if name in given else 0 for name in ("public", "agents", "internal"))
        )
        super().__init__(data, ports=ports, args=args)
        self.pass_fds = tuple(one.fileno() for one in given.values())
        named = [f"{name}={one.fileno()}" for name, one in given.items()]
        self.argv = (sys.executable, "-m", "tests.system.activation", *named, "--", *self.argv)


async def test_sockets_of_a_service_manager(tmp_path: Path) -> None:
    """The relay serves on what it is given, and so does its successor. Between two of them nobody is turned away: who
    comes then is answered by the next."""
    request = b"GET / HTTP/1.1\r\nHost: nobody.tunnels.localhost\r\nConnection: close\r\n\r\n"
    with contextlib.ExitStack() as sockets:
        given = {name: sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for name in ("agents", "public")}
        port = given["public"].getsockname()[1]
        async with Activated(tmp_path, given) as relay, successor(relay) as later:
            assert (later.public_port, later.agents_port) == (port, given["agents"].getsockname()[1])
            assert await relay.wait(10.0) == 0
            assert (await exchange(port, request)).status == 404
            assert await later.stop() == 0
        async with await RawClient.connect(port) as between:
            between.send(request)
            async with Activated(tmp_path, given):
                assert (await between.response()).status == 404


# ---- as the operator's page says


PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text(encoding="utf-8")


class Unit(RelayProcess):
    """The command of the page's service unit, with another settings file."""

    def __init__(self, config: Path, data: Path, notify: str) -> None:
        super().__init__(data, env={"NOTIFY_SOCKET": notify})
        [line] = re.findall(r"^ExecStart=(.*)$", PAGE, re.MULTILINE)
        words = line.split()
        assert f"```\n{' '.join(['relay', *words[1:]])}\n```" in PAGE
        self.argv = (*RELAY, *[str(config) if word == "/etc/relay.toml" else word for word in words[1:]], "--json")


async def test_the_units_of_the_page(tmp_path: Path) -> None:
    """Two of a kind take turns: each is ready when it serves, the one before ends by itself with 0."""
    config = tmp_path / "relay.toml"
    data = tmp_path / "data"
    config.write_text(f'domain = "{DOMAIN}"\ndata = "{data}"\npublic = "127.0.0.1:0"\nagents = "127.0.0.1:0"\n')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5.0)
        blue, green = (Unit(config, data, str(tmp_path / "notify")) for _ in range(2))
        async with blue:
            assert await blue.wait_event("took_over") == {"event": "took_over", "pid": None}
            assert await asyncio.to_thread(manager.recv, 100) == b"READY=1"
            async with green:
                assert {await asyncio.to_thread(manager.recv, 100) for _ in range(2)} == {b"READY=1", b"STOPPING=1"}
                assert (green.public_port, green.agents_port) == (blue.public_port, blue.agents_port)
                assert await blue.wait(10.0) == 0
                assert (await green.api.do("GET", "/whoami"))["kind"] == "operator"


def test_the_socket_unit_of_the_page() -> None:
    """It names a listener, and the address that the relay has by default."""
    [name] = re.findall(r"^FileDescriptorName=(.*)$", PAGE, re.MULTILINE)
    [address] = re.findall(r"^ListenStream=(.*)$", PAGE, re.MULTILINE)
    assert str(getattr(ServeSettings(data=Path("/tmp")), name)) == address
