"""Listening sockets, and uvicorn servers on them that leave signals alone."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Any

import pytest

from relay.node.errors import StartError
from relay.node.listeners import Listener, bind, name_of
from relay.settings import Address
from tests.agent.localside import on_every_loop, within
from tests.agent.relayside import until

HERE = Address("127.0.0.1", 0)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


async def get(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer: bytes = await within(reader.read())
    writer.close()
    return answer


def test_a_free_port_is_found_and_named() -> None:
    """Port 0 becomes a real one; the name is host and port."""
    with bind(HERE, "public") as sock:
        assert name_of(sock) == f"127.0.0.1:{sock.getsockname()[1]}"
        assert sock.getsockname()[1] > 0
        assert not sock.getblocking()


def test_an_ipv6_address_is_named_in_brackets() -> None:
    """As in a URL."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        sock = bind(Address("::1", 0), "public")
    except StartError:
        pytest.skip("no IPv6 loopback here")
    with sock:
        assert name_of(sock) == f"[::1]:{sock.getsockname()[1]}"


def test_an_address_in_use_is_said() -> None:
    """One sentence: the address, what it was for, why, and the option that changes it."""
    with bind(HERE, "agents") as sock:
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(StartError) as caught:
            bind(Address("127.0.0.1", port), "agents")
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "in use" in str(caught.value)
    assert "--agents" in str(caught.value)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_here_is_said(host: str) -> None:
    """An address of another machine, a name that does not resolve."""
    with pytest.raises(StartError, match="--public"):
        bind(Address(host, 0), "public")


@on_every_loop
async def test_a_listener_serves_until_it_is_closed() -> None:
    """From the return of `listen` on; nobody connects after `aclose`."""
    sock = bind(HERE, "public")
    port = sock.getsockname()[1]
    listener = Listener(sock, hello, "httptools")
    await listener.listen()
    answer = await get(port)
    assert answer.endswith(b"\r\n\r\nhi")
    assert b"\r\nserver:" not in answer.lower()
    await listener.aclose()
    with pytest.raises(ConnectionRefusedError):
        await get(port)


@on_every_loop
async def test_a_listener_that_accepts_no_more_finishes_what_is_open() -> None:
    """A connection from before is served, a new one refused."""
    asked, gate = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        asked.set()
        await gate.wait()
        await hello(scope, receive, send)

    sock = bind(HERE, "public")
    port = sock.getsockname()[1]
    listener = Listener(sock, slow, "httptools")
    await listener.listen()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await within(asked.wait())
    listener.stop_accepting()
    with pytest.raises(ConnectionRefusedError):
        await get(port)
    gate.set()
    assert (await within(reader.read())).endswith(b"hi")
    writer.close()
    await listener.aclose()


@on_every_loop
async def test_signals_are_not_the_listeners() -> None:
    """What was installed before is there while it serves, and after."""
    heard: list[int] = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, heard.append, 1)
    listener = Listener(bind(HERE, "public"), hello, "httptools")
    await listener.listen()
    signal.raise_signal(signal.SIGTERM)
    await until(lambda: heard == [1])
    await listener.aclose()
    signal.raise_signal(signal.SIGTERM)
    await until(lambda: heard == [1, 1])
    loop.remove_signal_handler(signal.SIGTERM)


def test_closing_a_listener_that_never_listened_is_nothing() -> None:
    """A start that failed half-way is cleaned up like any other."""

    async def main() -> None:
        with bind(HERE, "public") as sock:
            await Listener(sock, hello, "httptools").aclose()

    asyncio.run(main())
