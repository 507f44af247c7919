"""All that passes a tunnel, through Caddy and both databases: from the first project to the last revoked key.

One stack for each database; agents and visitors are on this machine and come over TLS.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator

import pytest
import websockets.asyncio.client

from tests.compose.conftest import Start, Told
from tests.compose.engine import DOMAIN, ROOT, Stack
from tests.compose.outside import Outside, eventually, http3, mcp_session
from tests.support.child import Child
from tests.support.local import LocalProcess, LocalService
from tests.system.wspeers import CLOSE, local_service

pytestmark = [pytest.mark.compose, pytest.mark.timeout(400)]
GIB = 2**30
DATABASES = {
    "sqlite": Stack,
    "postgres": lambda: Stack(profiles=["postgres"], extra={"RELAY_DATABASE_URL_FILE": "/secrets/database-url"}),
}
RECOVERED_WITHIN = 30.0
# A visitor among the containers, with these fields.
BESIDE = "import urllib.request as u; print(u.urlopen(u.Request('http://relay:8080/echo', headers=%r)).read().decode())"


@pytest.fixture(scope="module", params=DATABASES)
def outside(request: pytest.FixtureRequest, started: Start, told: Told) -> Iterator[Outside]:
    """One stack, healthy."""
    began = time.monotonic()
    found = started(DATABASES[request.param]())
    told(f"{request.param}: all containers healthy {time.monotonic() - began:.1f} s after docker compose up")
    yield found
    found.stack.down()


def test_a_project_and_its_key(outside: Outside) -> None:
    """The operator's first command works without any option, and what the relay keeps is where it was asked to be."""
    made = outside.stack.json("projects", "create", "first")
    assert made["master_key"].startswith("mtk_master_")
    said = outside.stack.relay("db", "current")
    assert "which is this relay's" in said
    kept = set(outside.stack("exec", "-T", "relay", "ls", "/data").split())
    assert ("relay.db" in kept) == (outside.stack.profiles == ())


async def test_an_mcp_session(outside: Outside) -> None:
    """The official SDK's client and server, with progress while a tool runs."""
    server = Child([str(ROOT / ".venvs/mcp2/bin/python"), str(ROOT / "scripts/demo_server.py")], name="MCP server")
    async with server:
        port = (await server.wait_event("serving", 20))["port"]
        async with outside.agent(port, "mcp", outside.key("--subdomain", "mcp")[1]):
            told = await asyncio.to_thread(mcp_session, outside.url("mcp", "/mcp"), outside.authority)
    assert [one.get("answer") for one in told if one["event"] == "called"] == ["42", "counted to 5"]
    assert told[-2]["progress"] == ["1", "2", "3", "4", "5"]


async def test_events_arrive_one_by_one(outside: Outside, told: Told) -> None:
    """Each server-sent event reaches the visitor within 100 ms of being sent."""
    key = outside.key("--subdomain", "sse")[1]
    async with LocalProcess() as local, outside.agent(local.port, "sse", key), outside.session() as session:
        await outside.recovered("sse")
        late: list[float] = []
        async with session.get(outside.url("sse", "/sse?count=20&every=0.05")) as answer:
            async for line in answer.content:
                if line.startswith(b"data: "):
                    late.append(time.monotonic() - json.loads(line[6:])["at"])
    assert len(late) == 20
    middle, most = sorted(late)[10] * 1e3, max(late) * 1e3
    told(f"events: {middle:.1f} ms from the local service to the visitor (median), {most:.1f} at most")
    assert sorted(late)[10] < 0.1


async def test_a_body_with_a_length_is_not_held(outside: Outside) -> None:
    """What was sent of an answer arrives while the rest is not there yet, also where its length is known."""
    gate = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nfirst")
        await asyncio.wait_for(gate.wait(), 20)
        writer.write(b"later")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    agent = outside.agent(port, "slow", outside.key("--subdomain", "slow")[1])
    async with server, agent, outside.session() as session, session.get(outside.url("slow")) as answer:
        assert await asyncio.wait_for(answer.content.readexactly(5), 10) == b"first"
        gate.set()
        assert await answer.content.read() == b"later"


async def test_a_websocket(outside: Outside) -> None:
    """Messages of both kinds pass both ways, and so do the code and reason of the end."""
    key = outside.key("--subdomain", "ws")[1]
    async with local_service("websockets") as local, outside.agent(local.port, "ws", key):
        await outside.recovered_socket("ws")
        url = outside.url("ws").replace("https", "wss")
        dialled = websockets.asyncio.client.connect(url, host="127.0.0.1", ssl=outside.context, proxy=None)
        async with dialled as socket:
            for message in ("text ✓", bytes(range(256)) * 4096):
                await socket.send(message)
                assert await socket.recv() == message
            await socket.close(*CLOSE)
        await eventually(lambda: CLOSE in local.closed, 5)


async def test_a_gibibyte_each_way_over_http2(outside: Outside, told: Told) -> None:
    """Whole, unchanged, and through containers that have less memory than that."""
    key = outside.key("--subdomain", "bulk")[1]
    async with LocalProcess() as local, outside.agent(local.port, "bulk", key):
        await outside.recovered("bulk")
        began = time.monotonic()
        meter = await outside.download(outside.url("bulk", f"/bytes/{GIB}"))
        down = time.monotonic() - began
        assert (meter.size, meter.intact) == (GIB, True)
        began = time.monotonic()
        sunk = await outside.upload(outside.url("bulk", "/sink?hash=none"), GIB)
        up = time.monotonic() - began
        assert (sunk["bytes"], sunk["intact"]) == (GIB, True)
    told(f"1 GiB through Caddy by HTTP/2: down {GIB / down / 1e6:.0f} MB/s, up {GIB / up / 1e6:.0f} MB/s")
    for service in ("relay", "caddy"):
        state = outside.stack.container(service)
        assert (state["State"]["OOMKilled"], state["RestartCount"]) == (False, 0)


async def test_http2_and_3_are_spoken(outside: Outside) -> None:
    """To visitors that want it; an answer says that HTTP/3 is there, and it is."""
    key = outside.key("--subdomain", "two")[1]
    async with LocalProcess() as local, outside.agent(local.port, "two", key):
        await outside.recovered("two")
        said = await outside.curl("--http2", "-D", "-", "-o", "/dev/null", outside.url("two", "/echo"))
        by_udp = await asyncio.to_thread(http3, outside.url("two", "/bytes/1000000"), outside.authority)
    assert said.startswith(b"HTTP/2 200")
    assert b'h3=":' in said
    assert by_udp == {"status": 200, "length": 1_000_000}


async def test_the_local_service_sees_the_visitor_and_not_what_it_claims(outside: Outside) -> None:
    """A visitor's own X-Forwarded-* and Forwarded are dropped, another container's too; scheme and host are right."""
    claims = {"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-Forwarded-Host": "evil.example"}
    key = outside.key("--subdomain", "who")[1]
    async with LocalProcess() as local, outside.agent(local.port, "who", key), outside.session() as session:
        await outside.recovered("who")
        headers = claims | {"X-Forwarded-Proto": "http", "Accept-Encoding": "identity"}
        async with session.get(outside.url("who", "/echo"), headers=headers) as answer:
            fields = {name.lower(): value for name, value in (await answer.json())["headers"]}
        program = BESIDE % ({"Host": f"who.{DOMAIN}", **claims},)
        beside = await asyncio.to_thread(outside.stack, "exec", "-T", "relay", "python", "-c", program)
    assert "6.6.6.6" not in str(fields)
    assert f"who.{DOMAIN}" in beside
    assert "6.6.6.6" not in beside
    assert "evil" not in str(fields)
    assert (fields["x-forwarded-proto"], fields["x-forwarded-host"]) == ("https", f"who.{DOMAIN}:{outside.stack.https}")
    assert fields["accept-encoding"] == "identity"


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_a_visitor_who_leaves_is_noticed(outside: Outside, version: str, told: Told) -> None:
    """Within a second, by a local service that has nothing to say meanwhile; an upload that breaks off too."""
    gone, busy = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        busy.set()
        while await reader.read(65536):
            pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, outside.agent(port, "left", outside.key("--subdomain", "left")[1]):
        argv = ["curl", "-sN", version, "--cacert", str(outside.authority), outside.url("left", "/")]
        visitor = await asyncio.create_subprocess_exec(*argv, stdout=-1)
        await asyncio.wait_for(busy.wait(), 20)
        assert visitor.stdout is not None
        assert await asyncio.wait_for(visitor.stdout.readline(), 5) == b"data: 1\n"
        visitor.kill()
        began = time.monotonic()
        await asyncio.wait_for(gone.wait(), 5)
        took = time.monotonic() - began
        await visitor.wait()
    told(f"a visitor ({version}) who left was noticed by the local service after {took * 1e3:.0f} ms")
    assert took < 1


async def test_an_answer_that_breaks_off_is_no_end(outside: Outside) -> None:
    """Where a length was told, by HTTP/1.1 and HTTP/2; without one as well, by a Caddy from 2.7.6 on."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/chunked" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        await writer.drain()
        await asyncio.sleep(0.2)  # what was written is on its way, and not thrown away by the reset
        writer.transport.abort()

    version = outside.stack("exec", "-T", "caddy", "caddy", "version").strip().lstrip("v").split()[0]
    recent = tuple(int(one) for one in version.split("-")[0].split(".")) >= (2, 7, 6)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, outside.agent(port, "cut", outside.key("--subdomain", "cut")[1]):
        for path in ("/", "/chunked") if recent else ("/",):
            for spoken in ("--http1.1", "--http2"):
                argv = ["curl", "-s", spoken, "--cacert", str(outside.authority), outside.url("cut", path)]
                done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, timeout=30)
                assert (done.stdout, done.returncode != 0) == (b"first", True), (path, spoken)


async def test_a_revoked_key_is_cut_at_once(outside: Outside, told: Told) -> None:
    """Within a second of the answer to the command; the agent ends, and the name has no agent."""
    made = outside.stack.json("projects", "create", "gone")
    master = outside.folder / "master.key"
    master.touch(mode=0o600)
    master.write_text(made["master_key"])
    async with LocalService() as local, outside.session() as session:
        agent = outside.agent(local.port, "gone", master)
        await agent.start()
        async with session.get(outside.url("gone", "/sse?count=1000&every=0.02")) as answer:
            assert await answer.content.readline()
            last = [time.monotonic()]

            async def read() -> None:
                async for _ in answer.content:
                    last[0] = time.monotonic()

            reading = asyncio.create_task(read())
            said = await asyncio.to_thread(outside.stack.relay, "keys", "revoke", "--cascade", made["key"]["id"])
            acknowledged = time.monotonic()
            await asyncio.wait([reading], timeout=5)
            assert reading.done()
            reading.exception()
        assert "Revoked 1 master key." in said
        assert last[0] - acknowledged < 1
        told(f"last byte {(acknowledged - last[0]) * 1e3:.0f} ms before the command that revoked the key had ended")
        assert await agent.wait(10) != 0
        assert await outside.visit("gone") == 503


async def test_every_container_may_restart(outside: Outside, told: Told) -> None:
    """One after the other, and each time visitors are served again, by the same agent; PostgreSQL's is not noticed."""
    key = outside.key("--subdomain", "back")[1]
    services = ["caddy", "relay", *(["postgres"] if outside.stack.profiles else [])]
    async with LocalProcess() as local, outside.agent(local.port, "back", key):
        await outside.recovered("back")
        for service in services:
            began = time.monotonic()
            await asyncio.to_thread(outside.stack, "restart", service)
            restarted = time.monotonic()
            await outside.recovered("back", seconds=RECOVERED_WITHIN)
            after = time.monotonic() - restarted
            told(f"restart of {service}: {restarted - began:.1f} s, served again {after:.1f} s later")
        # The registry too: whoever comes new is let in.
        await asyncio.to_thread(outside.stack.up)
        second = outside.key("--subdomain", "anew")[1]
        async with outside.agent(local.port, "anew", second):
            assert await outside.visit("anew") == 200


async def test_no_visitor_is_refused_while_the_relay_restarts(outside: Outside, told: Told) -> None:
    """Caddy waits for the relay, the relay for the agent: requests that come meanwhile take longer, and no more."""
    key = outside.key("--subdomain", "kept")[1]
    statuses: list[int] = []
    longest = 0.0
    async with LocalProcess() as local, outside.agent(local.port, "kept", key):
        await outside.recovered("kept")
        restart = asyncio.create_task(asyncio.to_thread(outside.stack, "restart", "relay"))
        while not restart.done() or len(statuses) < 5 or statuses[-1] != 200:
            began = time.monotonic()
            statuses.append(await outside.visit("kept"))
            longest = max(longest, time.monotonic() - began)
            assert len(statuses) < 10_000
        await restart
    told(f"restart of the relay under {len(statuses)} visits: all answered with 200, the longest after {longest:.1f} s")
    assert set(statuses) == {200}
