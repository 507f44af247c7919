"""A relay with a certificate of its own keeps the promises of plain connections, as far as TLS can."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import ssl
import time
from asyncio import to_thread
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio
import websockets.asyncio.client

from relay.edge.connection import LINGER
from tests.support.child import ROOT
from tests.support.localws import CLOSE_CODE, websockets_echo
from tests.support.processes import DOMAIN
from tests.support.rawhttp import CLOSE, RawServer, Request, Step, chunk
from tests.system.tlshouse import NAMES, TlsHouse, TlsVisitor, tls_house

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("tls")]

SIZE = 30_000_000
SCANNER = ROOT / ".venvs/tls/bin/python"  # scripts/sdk-envs makes it


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TlsHouse]:
    """One for all."""
    async with tls_house(tmp_path_factory.mktemp("tls")) as house:
        yield house


async def test_a_visit(house: TlsHouse) -> None:
    """The local service is told of https; ALPN has HTTP/1.1 and nothing else."""

    def visit() -> tuple[str | None, dict[str, str]]:
        with TlsVisitor(house) as visitor:
            visitor.ask("/echo")
            told = json.loads(visitor.answer()[1])
            return visitor.wire.selected_alpn_protocol(), {name.lower(): value for name, value in told["headers"]}

    spoken, fields = await to_thread(visit)
    assert spoken == "http/1.1"
    assert fields["x-forwarded-proto"] == "https"


async def test_bodies_each_way(house: TlsHouse) -> None:
    """30 MB up and down arrive as they were, by TLS 1.2 as well."""

    def visit() -> bytes:
        old = house.authority.trusting()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with TlsVisitor(house, old) as visitor:
            visitor.ask("/echo", f"Content-Length: {SIZE}", method="POST")
            sent = os.urandom(SIZE)
            visitor.wire.sendall(sent)
            assert json.loads(visitor.answer()[1])["sha256"] == hashlib.sha256(sent).hexdigest()
            visitor.ask(f"/bytes/{SIZE}")
            return visitor.answer()[1]

    assert len(await to_thread(visit)) == SIZE


async def test_a_visitor_may_take_its_last_answer_slowly(house: TlsHouse) -> None:
    """The end of the connection waits behind the answer, also behind what the transport no longer counts."""

    def visit() -> int:
        with TlsVisitor(house) as visitor:
            visitor.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            visitor.ask("/bytes/600000", "Connection: close")
            time.sleep(2 * LINGER)
            return len(visitor.answer()[1])

    assert await to_thread(visit) == 600_000


async def test_events_arrive_one_by_one(house: TlsHouse) -> None:
    """Each before the next one is sent."""

    def visit() -> list[float]:
        came = []
        with TlsVisitor(house) as visitor:
            visitor.ask("/sse?count=4&every=0.05")
            visitor.until(b"\r\n\r\n")
            for _ in range(4):
                visitor.until(b"data:")
                came.append(time.monotonic())
        return came

    came = await to_thread(visit)
    assert min(later - earlier for earlier, later in pairwise(came)) > 0.02


async def test_a_websocket(house: TlsHouse) -> None:
    """Through both listeners, each way, with its close code."""
    async with websockets_echo() as port, house.agent(port, "ws") as agent:
        assert (await agent.established())["url"] == f"https://ws.{DOMAIN}:{house.relay.public_port}"
        where = f"wss://ws.{DOMAIN}:{house.relay.public_port}"
        tls = house.authority.trusting()
        async with websockets.asyncio.client.connect(where, ssl=tls, host="127.0.0.1", max_size=None) as wire:
            for message in ("hello", bytes(1_000_000)):
                await wire.send(message)
                assert await wire.recv() == message
            await wire.send("close")
            await wire.wait_closed()
            assert wire.close_code == CLOSE_CODE


async def test_an_abort_looks_like_one(house: TlsHouse) -> None:
    """Where the end of an answer is the end of the connection, TLS says which of the two it was."""

    async def answer(request: Request) -> AsyncIterator[Step]:
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"some")
        yield chunk(b"") if request.target == b"/whole" else CLOSE

    def visit(target: str) -> tuple[bytes, str]:
        with TlsVisitor(house, name="dying") as visitor:
            visitor.ask(target, version="1.0")
            return visitor.rest().partition(b"\r\n\r\n")[2], visitor.ended

    async with RawServer(answer) as local, house.agent(local.port, "dying"):
        assert await to_thread(visit, "/whole") == (b"some", "notified")
        assert await to_thread(visit, "/half") == (b"some", "cut")


async def test_a_visitor_who_leaves_is_seen(house: TlsHouse) -> None:
    """By the local service within a second, whether it said so by TLS or not."""
    left: asyncio.Queue[float] = asyncio.Queue()

    async def hold(request: Request) -> AsyncIterator[Step]:
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"some")
        await request.left.wait()
        left.put_nowait(time.monotonic())

    def visit(notify: bool) -> float:
        with TlsVisitor(house, name="held") as visitor:
            visitor.ask("/")
            visitor.until(b"some")
            if notify:
                visitor.wire.setblocking(False)
                with contextlib.suppress(ssl.SSLError):
                    visitor.wire.unwrap()
            return time.monotonic()

    async with RawServer(hold) as local, house.agent(local.port, "held"):
        for notify in (True, False):
            gone = await to_thread(visit, notify)
            async with asyncio.timeout(5):
                assert await left.get() - gone < 1.0


async def test_a_replaced_certificate_is_served_in_five_seconds(house: TlsHouse) -> None:
    """To whoever comes then, on both listeners; who was there goes on, and an agent keeps its links."""

    def visits() -> None:
        with TlsVisitor(house) as before:
            first = before.serial()
            before.ask("/sse?count=1000000&every=0.1")
            before.until(b"data:")
            house.authority.issue(*NAMES, days=60, into=house.files)
            began = time.monotonic()
            while (serial := seen()) == first:
                assert time.monotonic() - began < 5.0
                before.until(b"data:")
            for _ in range(3):
                before.until(b"data:")
            assert before.serial() == first
            assert serial == seen(house.relay.agents_port)

    def seen(port: int = 0) -> int:
        with TlsVisitor(house, port=port) as visitor:
            return visitor.serial()

    await to_thread(visits)
    told = await house.relay.wait_event("certificate")
    assert told["expires"] == pytest.approx(time.time() + 60 * 86400, abs=60)
    assert not [one for one in house.relay.events if one["event"] == "agent_down" and "t" in one["names"]]


@pytest.mark.interpreted
async def test_a_scan_finds_mozillas_intermediate(house: TlsHouse) -> None:
    """On both listeners, by sslyze."""
    ports = [str(house.relay.public_port), str(house.relay.agents_port)]
    program = [SCANNER, str(ROOT / "tests/support/tlsscan.py"), DOMAIN, str(house.authority.ca), *ports]
    scan = await asyncio.create_subprocess_exec(*map(str, program), stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        said, _ = await scan.communicate()
    assert json.loads(said) == {port: {} for port in ports}


async def test_an_ending_relay_lets_a_request_finish(tmp_path: Path) -> None:
    """After SIGTERM what is under way is answered whole, and TLS ends in order."""
    async with tls_house(tmp_path) as house:

        def visit() -> tuple[int, str]:
            with TlsVisitor(house) as visitor:
                visitor.ask("/sse?count=5&every=0.2")
                visitor.until(b"data:")
                house.relay.signal(signal.SIGTERM)
                return visitor.rest().count(b"data:"), visitor.ended

        assert await to_thread(visit) == (4, "notified")
        assert await house.relay.wait() == 0
