"""A link over TLS, as most links are: what either side says leaves at once and all of it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from relay.agent.link import LinkFailed
from relay.exchange.heads import RequestHead, encode_request
from tests.agent.localside import Service, on_every_loop, within
from tests.agent.relayside import Relay, a_relay, hello, settings, until
from tests.agent.running import a_link, port_of, request, running
from tests.mux.ends import Owner
from tests.support.connectproxy import ConnectProxy
from tests.support.tlsfront import TlsFront, certificate

HOST = "localhost"


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate that this process trusts."""
    file = certificate(tmp_path, HOST)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return file


@asynccontextmanager
async def over_tls(file: Path) -> AsyncIterator[tuple[Relay, str]]:
    """A relay, and its address."""
    async with a_relay() as relay, TlsFront(port_of(relay), file) as front:
        yield relay, f"wss://{HOST}:{front.port}"


@asynccontextmanager
async def agent_over_tls(file: Path) -> AsyncIterator[tuple[Service, Relay]]:
    """A local service, and a relay with its agent."""
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(Service())
        relay, url = await stack.enter_async_context(over_tls(file))
        run = await stack.enter_async_context(running(settings(url, port=service.port)))
        await until(lambda: relay.links and run.said("connected"))
        yield service, relay


@on_every_loop
async def test_pings_are_answered_again_and_again(trusted: Path) -> None:
    """Each at once, without a word from the other side in between."""
    async with over_tls(trusted) as (_, url):
        link = a_link()
        await within(link.open(url, hello()))
        for _ in range(5):
            assert await link.answers(2.0)
            await asyncio.sleep(0.01)
        link.close("enough")
        await within(link.wait())


@on_every_loop
async def test_each_event_of_a_stream_arrives_when_it_is_said(trusted: Path) -> None:
    """The local service speaks, the visitor only listens: nothing waits for the relay's next ping."""
    async with agent_over_tls(trusted) as (service, relay):
        owner = request(relay)
        peer = await service.accept()
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(1, 30):
            said = asyncio.get_running_loop().time()
            await peer.send(b"data: x\n\n")
            await until(lambda number=number: owner.size == 9 * number)  # type: ignore[misc]
            assert asyncio.get_running_loop().time() - said < 1.0
        peer.close()
        await until(lambda: owner.trailers is not None)


@on_every_loop
async def test_bulk_goes_both_ways(trusted: Path) -> None:
    """More than fits into any window or buffer, and the tail of it as well."""
    size = 8 * 2**20
    async with agent_over_tls(trusted) as (service, relay):
        owner = Owner()
        fields = [(b"Content-Length", b"%d" % size)]
        head = encode_request(RequestHead(b"POST", b"/", fields, "demo"))
        owner.stream = relay.links[0].session.open(head, False, owner)
        peer = await service.accept()
        await peer.head()
        owner.stream.write(bytes(size))
        owner.stream.end()
        assert await peer.exactly(size) == bytes(size)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        await peer.send(bytes(size))
        await until(lambda: owner.trailers is not None)
        assert owner.size == size


@on_every_loop
async def test_behind_a_proxy_too(trusted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS begins inside the tunnel that it makes; an idle agent stops at once."""
    name = "relay.example"
    file = certificate(trusted.parent, name)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(a_relay())
        front = await stack.enter_async_context(TlsFront(port_of(relay), file))
        proxy = await stack.enter_async_context(ConnectProxy({f"{name}:443": front.port}))
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        run = await stack.enter_async_context(running(settings(f"wss://{name}", links=2)))
        await until(lambda: len(run.said("connected")) == 2)
        begun = asyncio.get_running_loop().time()
        assert await run.stop() == 0
        assert asyncio.get_running_loop().time() - begun < 1.5


@on_every_loop
async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    """The key is not sent, and the reason is said."""
    async with over_tls(certificate(tmp_path, HOST)) as (relay, url):
        link = a_link()
        with pytest.raises(LinkFailed, match="its certificate is not trusted: self-signed"):
            await within(link.open(url, hello()))
        assert relay.answers.hellos == []
