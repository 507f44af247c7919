"""A node's life over real sockets: it serves, drains when it is told to stop, and leaves in the right order."""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ParamSpec

import pytest
import uvloop

from relay.agent.addresses import AddressPolicy
from relay.agent.forwarder import Forwarder, Route
from relay.agent.link import Link
from relay.agent.pool import LocalPool
from relay.agent.targets import parse_target
from relay.edge import connection
from relay.node import serve as serve_room
from relay.node.errors import StartError
from relay.node.live import LiveTunnels
from relay.node.serve import Serving, raise_descriptor_limit
from relay.settings import Address, ServeSettings
from relay.wire.hello import Hello
from tests.agent.localside import Peer, Service, within
from tests.agent.relayside import until
from tests.support.keys import Api, operator_of

P = ParamSpec("P")

HERE = Address("127.0.0.1", 0)
GET = b"GET / HTTP/1.1\r\nHost: demo.tunnels.localhost\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def on_the_nodes_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs an async test on the event loop that a node always uses."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(test(*args, **kwargs))

    return run


class Node:
    """A node that serves, its agent, and what it reported."""

    def __init__(self, data: Path, **settings: Any) -> None:
        self.events: list[dict[str, Any]] = []
        chosen = {"grace": 5.0, "hold": 5.0, "internal": HERE, **settings}
        self.data = data
        self.key = ""
        asked = ServeSettings(public=HERE, agents=HERE, data=data, **chosen)
        self.serving = Serving(asked, self.events.append)
        self.task = asyncio.ensure_future(self.serving.run())
        self.writers: list[asyncio.StreamWriter] = []
        self.pools: list[LocalPool] = []

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    async def up(self) -> dict[str, Any]:
        """What it says when it serves."""
        await until(lambda: self.said("serving") or self.task.done())
        if self.task.done():
            self.task.result()
        return self.said("serving")[0]

    async def agent(self, port: int, *, generation: int = 1) -> Link:
        """An agent that forwards `demo` to a port."""
        target = parse_target(str(port))
        pool = LocalPool(target, AddressPolicy())
        self.pools.append(pool)
        routes = {"demo": Route("demo", target, pool)}
        link = Link(Forwarder(routes, report=lambda event: None, now=lambda: 0.0), lambda: None)
        agents = (await self.up())["agents"]
        if not self.key:
            self.key = await Api(int(agents.rpartition(":")[2]), operator_of(self.data)).mint()
        await within(link.open(f"ws://{agents}", Hello("a", 0, generation, self.key, ("demo",))))
        return link

    async def visit(self, data: bytes = b"", listener: str = "public") -> asyncio.StreamReader:
        """A connection that has said this."""
        host, _, port = (await self.up())[listener].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        self.writers.append(writer)
        writer.write(data)
        return reader

    async def ask_inside(self, path: bytes) -> bytes:
        reader = await self.visit(b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path, "internal")
        answer: bytes = await within(reader.read())
        return answer

    async def exits(self) -> int:
        code: int = await within(asyncio.shield(self.task))
        return code


@asynccontextmanager
async def a_node(data: Path, **settings: Any) -> AsyncIterator[Node]:
    node = Node(data, **settings)
    try:
        yield node
    finally:
        while not node.task.done():
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0.01)
        for pool in node.pools:
            await pool.aclose()
        for writer in node.writers:
            writer.transport.abort()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)


async def begun(node: Node, service: Service) -> tuple[asyncio.StreamReader, Peer]:
    """A visitor whose request has reached the local service."""
    reader = await node.visit(GET)
    peer = await service.accept()
    await peer.head()
    return reader, peer


@on_the_nodes_loop
async def test_a_node_serves_what_it_says(tmp_path: Path) -> None:
    """Three listeners on free ports, named; a request goes through; the internal one answers."""
    async with Service() as service, a_node(tmp_path) as node:
        said = await node.up()
        assert said["domain"] == "tunnels.localhost"
        assert said["key_file"] == str(tmp_path / "operator.key")
        assert (tmp_path / "operator.key").read_text().strip() not in str(node.events)
        assert said["public_url"] == f"http://NAME.tunnels.localhost:{said['public'].rpartition(':')[2]}"
        await node.agent(service.port)
        assert node.said("agent_up") == [{"event": "agent_up", "names": ["demo"]}]
        reader, peer = await begun(node, service)
        await peer.send(OK)
        assert (await within(reader.readuntil(b"hello"))).startswith(b"HTTP/1.1 200 OK\r\n")
        assert (await node.ask_inside(b"/readyz")).endswith(b"ok\n")
        assert b"relay_visitor_connections 1.0\n" in await node.ask_inside(b"/metrics")
        assert (await node.ask_inside(b"/ask?domain=demo.tunnels.localhost")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@on_the_nodes_loop
async def test_an_idle_node_stops_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """Exit code 0; idle visitors and agents are sent away."""
    async with Service() as service, a_node(tmp_path) as node:
        link = await node.agent(service.port)
        reader = await node.visit()
        signal.raise_signal(number)
        assert await node.exits() == 0
        assert await within(reader.read()) == b""
        assert (await within(link.wait())).announced
        assert [event["event"] for event in node.events][-3:] == ["stopping", "agent_down", "stopped"]


@on_the_nodes_loop
async def test_a_node_that_drains_finishes_what_runs(tmp_path: Path) -> None:
    """A running exchange ends whole, with `Connection: close`; meanwhile nobody new is let in, and it says that it is
    not ready."""
    async with Service() as service, a_node(tmp_path) as node:
        await node.agent(service.port)
        reader, peer = await begun(node, service)
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: node.said("stopping"))
        assert node.said("stopping") == [{"event": "stopping", "open": 1, "grace": 5.0}]
        with pytest.raises(ConnectionRefusedError):
            await node.visit(GET)
        answer = await node.ask_inside(b"/readyz")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"draining\n")
        assert not node.task.done()
        await peer.send(OK)
        answer = await within(reader.read())
        node.writers[0].close()
        assert answer.endswith(b"hello")
        assert b"Connection: close\r\n" in answer
        assert await node.exits() == 0


@on_the_nodes_loop
async def test_answers_on_their_way_out_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A visitor that reads late gets all of an answer that was complete before the node stopped."""
    monkeypatch.setattr(connection, "LINGER", 0.1)
    body = bytes(150_000)  # more than a visitor that does not read lets through, and no more than the kernel keeps
    async with Service() as service, a_node(tmp_path) as node:
        await node.agent(service.port)
        reader, peer = await begun(node, service)
        late = node.writers[-1].transport
        late.pause_reading()  # type: ignore[attr-defined]
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: node.said("stopping"))
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert await node.exits() == 0
        late.resume_reading()  # type: ignore[attr-defined]
        answer = await within(reader.read())
        assert len(answer.partition(b"\r\n\r\n")[2]) == len(body)


@pytest.mark.parametrize("ends", ["the grace time", "a second signal", "Ctrl-C"])
@on_the_nodes_loop
async def test_what_outlives_its_time_is_cut_as_an_abort(
    tmp_path: Path, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The visitor sees a reset, not an end and not an answer about a lost agent; the local service sees it too."""
    monkeypatch.setattr(serve_room, "INTERACTIVE_GRACE", 0.05)
    async with Service() as service, a_node(tmp_path, grace=0.05 if ends == "the grace time" else 60.0) as node:
        await node.agent(service.port)
        reader, peer = await begun(node, service)
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await within(reader.readuntil(b"hello\r\n"))
        signal.raise_signal(signal.SIGINT if ends == "Ctrl-C" else signal.SIGTERM)
        if ends == "a second signal":
            await until(lambda: node.said("stopping"))
            assert not node.task.done()
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            await within(reader.read())
        assert await node.exits() == 0
        await peer.rest()


@on_the_nodes_loop
async def test_held_requests_do_not_use_up_the_grace_time(tmp_path: Path) -> None:
    """They are answered at once: their agent comes back to the next process."""
    async with Service() as service, a_node(tmp_path, grace=60.0) as node:
        link = await node.agent(service.port)
        link.abort("gone")
        await until(lambda: node.said("agent_down"))
        reader = await node.visit(GET)
        await until_held(node)
        signal.raise_signal(signal.SIGTERM)
        answer = await within(reader.read())
        for writer in node.writers:
            writer.close()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Relay-Error: draining\r\n" in answer
        assert await node.exits() == 0


async def until_held(node: Node) -> None:
    """Until the node says that a request waits."""
    for _ in range(1000):
        if b"relay_requests_held 1.0\n" in await node.ask_inside(b"/metrics"):
            return
    raise AssertionError("nobody is held")


@on_the_nodes_loop
async def test_a_part_that_fails_ends_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay without its deadlines is none: it says so, drains and ends by another exit code than that of a stop."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    async with a_node(tmp_path, grace=1.0) as node:
        await node.up()
        monkeypatch.setattr(LiveTunnels, "expire", lambda self, now: 1 / 0)
        assert await node.exits() == 1
    assert [context["exception"].__class__ for context in told] == [ZeroDivisionError]
    (error,) = [event for event in node.events if event["event"] == "error"]
    assert "ZeroDivisionError" in error["message"]


@on_the_nodes_loop
async def test_connections_are_swept_while_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A visitor that never says anything is closed by the node's own sweep."""
    monkeypatch.setattr(serve_room, "SWEEP_EVERY", 0.01)
    async with a_node(tmp_path, head_timeout=0.05) as node:
        reader = await node.visit()
        assert await within(reader.read()) == b""


@pytest.mark.parametrize("what", ["public", "agents"])
@on_the_nodes_loop
async def test_an_address_in_use_stops_the_start(tmp_path: Path, what: str) -> None:
    """With the operator's sentence, and nothing listens."""
    async with Service() as service:
        asked = ServeSettings(
            data=tmp_path,
            public=Address("127.0.0.1", service.port) if what == "public" else HERE,
            agents=Address("127.0.0.1", service.port) if what == "agents" else HERE,
        )
        events: list[dict[str, Any]] = []
        with pytest.raises(StartError, match=f"--{what}"):
            await Serving(asked, events.append).run()
        assert events == []


@pytest.mark.skipif(sys.platform == "win32", reason="descriptor limits are POSIX")
def test_the_descriptor_limit_is_raised() -> None:
    """The soft limit becomes the hard one; a limit that cannot be raised is no reason to stop."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[0]), before[1]))
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
        raise_descriptor_limit()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
