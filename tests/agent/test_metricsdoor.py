"""The agent's listener for health and metrics: short answers, and bounds for whoever would hold it up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from relay.agent import metricsdoor
from relay.agent.config import CannotListen
from relay.agent.metricsdoor import MOST_CONNECTIONS, Page, address_of, bind, serving


def broken() -> Page:
    raise ValueError("a defect")


PAGES = {
    "/livez": lambda: Page(200, b"ok\n"),
    "/readyz": lambda: Page(503, b"no link\n"),
    "/metrics": lambda: Page(200, b"x 1\n" * 50_000, "text/plain; version=0.0.4"),
    "/broken": broken,
    "/large": lambda: Page(200, b"x" * 16_000_000),
}


@asynccontextmanager
async def door() -> AsyncIterator[int]:
    """Its port."""
    sock = bind("127.0.0.1", 0)
    async with serving(sock, PAGES):
        yield int(sock.getsockname()[1])


async def ask(port: int, said: bytes) -> bytes:
    """All that comes until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(said)
        return await reader.read()
    finally:
        writer.close()


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def test_pages() -> None:
    """Status, type and length; the connection ends with the answer. A query changes nothing."""
    async with door() as port:
        alive = await ask(port, get("/livez?x=1"))
        assert alive.startswith(b"HTTP/1.1 200 OK\r\n")
        assert alive.endswith(b"Content-Length: 3\r\nCache-Control: no-store\r\nConnection: close\r\n\r\nok\n")
        assert (await ask(port, get("/readyz"))).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        metrics = await ask(port, get("/metrics"))
        assert b"\r\nContent-Type: text/plain; version=0.0.4\r\n" in metrics
        assert metrics.count(b"x 1\n") == 50_000
        assert (await ask(port, get("/"))).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (get("/livez", "POST"), b"405"),
        (b"GET /livez\r\n\r\n", b"400"),
        (b"\x16\x03\x01\r\n\r\n", b"400"),
        (b"GET /livez SPDY/3\r\n\r\n", b"400"),
    ],
)
async def test_only_plain_get_requests_are_answered(said: bytes, status: bytes) -> None:
    """Anything else is told so."""
    async with door() as port:
        assert (await ask(port, said)).startswith(b"HTTP/1.1 " + status)


async def test_a_head_request_gets_no_body() -> None:
    """But its length."""
    async with door() as port:
        answer = await ask(port, get("/livez", "HEAD"))
    assert b"\r\nContent-Length: 3\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_a_defect_of_a_number_is_an_answer() -> None:
    """Neither silence nor a traceback."""
    loop, seen = asyncio.get_running_loop(), list[object]()
    loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))
    async with door() as port:
        answer = await ask(port, get("/broken"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"defect" not in answer
    assert len(seen) == 1


async def test_who_sends_no_head_in_time_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it says nothing or drips."""
    monkeypatch.setattr(metricsdoor, "HEAD_WITHIN", 0.05)
    async with door() as port:
        assert await asyncio.gather(*(ask_until_cut(port, said) for said in (b"", b"GET /livez HTTP/1.1\r\nX:"))) == [
            b"",
            b"",
        ]


async def ask_until_cut(port: int, said: bytes) -> bytes:
    try:
        return await ask(port, said)
    except ConnectionResetError:
        return b""


async def test_a_head_without_end_is_cut() -> None:
    """Its size has a bound."""
    async with door() as port:
        assert await ask_until_cut(port, b"GET /livez HTTP/1.1\r\nX: " + b"x" * 100_000) == b""


async def test_one_too_many_takes_the_place_of_who_asks_slowest() -> None:
    """So a health check is answered whoever holds connections; the others that are there go on."""
    async with door() as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST_CONNECTIONS)]
        held[0][1].write(b"GET /livez")
        assert (await ask_until_cut(port, get("/livez"))).endswith(b"ok\n")
        with contextlib.suppress(ConnectionResetError):
            assert await held[0][0].read() == b""
        reader, writer = held[1]
        writer.write(get("/livez"))
        assert (await reader.read()).endswith(b"ok\n")
        many = await asyncio.gather(*(ask_until_cut(port, get("/livez")) for _ in range(3 * MOST_CONNECTIONS)))
        assert any(answer.endswith(b"ok\n") for answer in many)
        for _, writer in held:
            writer.close()


async def test_who_reads_slowly_is_not_put_out() -> None:
    """While all are being answered one more is cut."""
    async with door() as port:
        held = []
        for _ in range(MOST_CONNECTIONS):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", port))
            sock.sendall(get("/large"))
            held.append(sock)
        reader, writer = await asyncio.open_connection(sock=held[-1])
        await reader.readexactly(64)  # the last one is being answered, so all are
        assert await ask_until_cut(port, get("/livez")) == b""
        writer.close()
        for sock in held[:-1]:
            sock.close()


async def test_the_end_leaves_no_connection() -> None:
    """Also of one that has said nothing yet."""
    async with door() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await ask(port, get("/livez"))).endswith(b"ok\n")
    try:
        assert await reader.read() == b""
    except ConnectionResetError:
        pass
    writer.close()


def test_an_address_that_is_taken_or_no_ones() -> None:
    """One sentence that names the option, the address, the cause and another address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen) as caught:
            bind("127.0.0.1", port)
        assert f"(--metrics, RELAY_METRICS) cannot be served at 127.0.0.1:{port}: Address already in use." in str(
            caught.value
        )
        assert str(caught.value).endswith(f"for example 127.0.0.1:{port + 1 if port < 65535 else 9091}.")
    with pytest.raises(CannotListen, match=r"a\.\.b:9091: no host has such a name\."):
        bind("a..b", 9091)
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1:9091: "):
        bind("192.0.2.1", 9091)


def test_addresses_are_shown_as_they_are_written() -> None:
    """With brackets where it is IPv6."""
    sock = bind("::1", 0)
    with sock:
        assert address_of(sock) == f"[::1]:{sock.getsockname()[1]}"


def test_an_agent_that_is_not_measured_loads_no_metrics_library() -> None:
    """It costs memory and the time of a start."""
    check = "import sys, relay.agent.runner; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], timeout=60, check=False).returncode == 0
