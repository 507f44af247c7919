"""uvicorn servers that leave signals alone, pause, and turn nobody away who came in time."""

from __future__ import annotations

import asyncio
import errno
import select
import signal
import socket
import sys
import threading
from typing import Any

import pytest

from relay.node.listeners import Listener, refuse_newcomers, waiting
from relay.node.sockets import bind
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
    await listener.stop_accepting()
    with pytest.raises(ConnectionRefusedError):
        await get(port)
    gate.set()
    assert (await within(reader.read())).endswith(b"hi")
    writer.close()
    await listener.aclose()


@on_every_loop
async def test_who_comes_while_a_listener_pauses_waits() -> None:
    """What is open goes on; whoever connects meanwhile is served afterwards, and so is whoever comes then."""
    with bind(HERE, "public") as sock:
        port = sock.getsockname()[1]
        listener = Listener(sock, hello, "httptools")
        await listener.listen()
        before, to_before = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            listener.pause()
            listener.pause()
            to_before.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await within(before.readuntil(b"hi"))).startswith(b"HTTP/1.1 200 ")
            late = asyncio.create_task(get(port))
            await until(lambda: waiting(sock) == 1)
            to_before.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await within(before.readuntil(b"hi"))
            assert not late.done()
            await listener.resume()
            await listener.resume()
            assert (await late).endswith(b"hi")
            assert (await get(port)).endswith(b"hi")
        to_before.close()
        await listener.aclose()


async def knock(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection with a request on it, which nobody may have accepted."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return reader, writer


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells what waits")
@on_every_loop
async def test_who_waits_when_it_stops_is_served() -> None:
    """Also where it had paused: the queue is emptied before it goes."""
    sock = bind(HERE, "public")
    port = sock.getsockname()[1]
    listener = Listener(sock, hello, "httptools")
    await listener.listen()
    listener.pause()
    knocking = [await knock(port) for _ in range(20)]
    await until(lambda: waiting(sock) == 20)
    await listener.stop_accepting()
    for reader, writer in knocking:
        assert (await within(reader.read())).endswith(b"hi")
        writer.close()
    with pytest.raises(ConnectionRefusedError):
        await get(port)
    await listener.aclose()


def call_on(port: int, answers: list[object]) -> None:
    """One after the other, each on a connection of its own, until no connection is to be had."""
    while True:
        try:
            sock = socket.create_connection(("127.0.0.1", port), timeout=10.0)
        except OSError:
            return
        with sock:
            try:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                with sock.makefile("rb") as answer:
                    answers.append(answer.read()[-2:])
            except OSError as error:
                answers.append(error)


@pytest.mark.skipif(sys.platform != "linux", reason="there is no such filter elsewhere")
@pytest.mark.parametrize("again", range(2))
@on_every_loop
async def test_whoever_got_a_connection_gets_an_answer(again: int) -> None:
    """Visitors that come all the time, until it has stopped: none is between the queue and the end of the socket."""
    sock = bind(HERE, "public")
    listener = Listener(sock, hello, "httptools")
    await listener.listen()
    answers: list[object] = []
    threads = [threading.Thread(target=call_on, args=(sock.getsockname()[1], answers)) for _ in range(16)]
    for thread in threads:
        thread.start()
    await until(lambda: len(answers) > 200)
    await listener.stop_accepting()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await listener.aclose()
    assert set(answers) == {b"hi"}


@pytest.mark.skipif(sys.platform != "linux", reason="there is no such filter elsewhere")
def test_newcomers_are_refused_and_nobody_else() -> None:
    """Who is in the queue stays there and is heard; who comes then gets no answer and tries again."""
    with bind(HERE, "public") as sock, socket.socket() as late:
        sock.listen()
        port = sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as early:
            refuse_newcomers(sock)
            late.setblocking(False)
            assert late.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
            assert select.select([], [late], [], 0.05)[1] == []
            assert waiting(sock) == 1
            accepted, _ = sock.accept()
            with accepted:
                early.send(b"hello")
                assert accepted.recv(5) == b"hello"


@on_every_loop
async def test_a_listener_that_lets_go_leaves_the_socket_to_others() -> None:
    """What another process accepts on is open there; nobody is lost in between."""
    sock = bind(HERE, "public")
    port = sock.getsockname()[1]
    listener, other = Listener(sock, hello, "httptools"), Listener(sock.dup(), hello, "httptools")
    await listener.listen()
    listener.let_go()
    reader, writer = await knock(port)
    await other.listen()
    assert (await within(reader.read())).endswith(b"hi")
    writer.close()
    await listener.aclose()
    assert (await get(port)).endswith(b"hi")
    await other.aclose()


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
