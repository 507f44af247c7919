"""The way to a relay: names that do not resolve, proxies that let through, refuse, hang or are away. Every failure of
it is one of the link, which is tried again, with words that name the proxy and no secret.
"""

from __future__ import annotations

import socket
import threading

import pytest

from relay.agent import link as link_room
from relay.agent.link import Link, LinkFailed
from relay.agent.lookups import Lookups
from tests.agent.localside import on_every_loop, within
from tests.agent.relayside import a_relay, hello
from tests.agent.running import a_link, port_of
from tests.support.connectproxy import ConnectProxy, SocksProxy, refusal

HOST = "relay.example:8081"
URL = f"ws://{HOST}"
SECRET = "p%40ss"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without proxies."""
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def by_way_of(proxy: ConnectProxy, environment: pytest.MonkeyPatch, user: str = "") -> None:
    environment.setenv("HTTP_PROXY", proxy.url.replace("//", f"//{user}"))


async def failure(url: str, link: Link | None = None) -> str:
    """Why a link to `url` failed."""
    link = link or a_link()
    with pytest.raises(LinkFailed) as caught:
        await within(link.open(url, hello()))
    assert link.session is None or link.session.ended
    assert SECRET not in str(caught.value)
    assert "p@ss" not in str(caught.value)
    return str(caught.value)


# ---- names


@on_every_loop
async def test_a_name_that_does_not_resolve() -> None:
    """By the system's own resolver, for which `.invalid` never does (RFC 6761 §6.4)."""
    assert (await failure("ws://relay.invalid")).startswith("the name does not resolve")


@on_every_loop
async def test_a_resolver_that_fails_at_first() -> None:
    """The same lookups serve the next attempt: it succeeds as soon as the name service is back."""
    said: list[list[str] | OSError] = [
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        ["127.0.0.1"],
    ]

    def ask(host: str, port: int) -> list[str]:
        answer = said.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    async with a_relay() as relay:
        names = Lookups(ask)
        url = f"ws://relay.example:{port_of(relay)}"
        words = [await failure(url, a_link(names=names)) for _ in range(2)]
        assert words == ["the name does not resolve: no name server answers", "the name does not resolve"]
        link = a_link(names=names)
        await within(link.open(url, hello()))
        assert link.peer == ("127.0.0.1", port_of(relay))
        link.close("enough")
        await within(link.wait())


@on_every_loop
async def test_a_resolver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt ends in its time, and says what it waited for."""
    monkeypatch.setattr(link_room, "ATTEMPT_WITHIN", 0.05)
    gate = threading.Event()

    def ask(host: str, port: int) -> list[str]:
        assert gate.wait(10)
        return []

    link = a_link(names=Lookups(ask))
    assert await failure(URL, link) == "the name was not resolved within 0.05 seconds"
    gate.set()


# ---- proxies


@pytest.mark.parametrize("user", ["", f"me:{SECRET}@"])
@on_every_loop
async def test_a_proxy_that_lets_through(user: str, environment: pytest.MonkeyPatch) -> None:
    """It is asked for the relay by name, which this machine need not resolve; with credentials where it wants them."""
    async with a_relay() as relay:
        demanded = ("me", "p@ss") if user else ("", "")
        async with ConnectProxy({HOST: port_of(relay)}, user=demanded[0], password=demanded[1]) as proxy:
            by_way_of(proxy, environment, user)
            link = a_link()
            await within(link.open(URL, hello()))
            assert proxy.asked == [HOST]
            assert link.peer == ("127.0.0.1", proxy.port)
            assert await link.answers(5)
            link.close("enough")
            await within(link.wait())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refusal(407), "wants a user and a password (HTTP 407)"),
        (refusal(403), f"does not allow connections to {HOST} (HTTP 403)"),
        (refusal(502), f"does not reach {HOST} (HTTP 502)"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", f"gave no way to {HOST}"),
        (b"HTTP/1.1 200", f"gave no way to {HOST}"),
        (b"HTTP/1.1 200 OK\r\n\r\nnonsense", "by way of the proxy"),
    ],
    ids=["407", "403", "502", "no HTTP", "cut off", "no relay behind it"],
)
@on_every_loop
async def test_a_proxy_that_says_no(answer: bytes, words: str, environment: pytest.MonkeyPatch) -> None:
    """Which one, and why; with a user and password in its address, which are not told."""
    async with ConnectProxy({}) as proxy:
        proxy.answer = answer
        by_way_of(proxy, environment, f"me:{SECRET}@")
        said = await failure(URL)
        assert words in said
        assert f"proxy 127.0.0.1:{proxy.port}" in said


@on_every_loop
async def test_wrong_credentials_for_a_proxy(environment: pytest.MonkeyPatch) -> None:
    """They are refused like none."""
    async with ConnectProxy({}, user="me", password="other") as proxy:
        by_way_of(proxy, environment, f"me:{SECRET}@")
        assert "HTTP 407" in await failure(URL)


@on_every_loop
async def test_a_proxy_that_does_not_answer(environment: pytest.MonkeyPatch) -> None:
    """The attempt ends in its time."""
    environment.setattr(link_room, "ATTEMPT_WITHIN", 0.1)
    async with ConnectProxy({}) as proxy:
        proxy.answer = b""
        by_way_of(proxy, environment)
        said = await failure(URL)
        assert said == f"no answer within 0.1 seconds, by way of the proxy 127.0.0.1:{proxy.port}"


@on_every_loop
async def test_a_proxy_that_is_away(environment: pytest.MonkeyPatch) -> None:
    """Nothing listens there, or its name does not resolve: the relay is not to blame."""
    async with ConnectProxy({}) as proxy:
        by_way_of(proxy, environment)
    assert await failure(URL) == f"the proxy 127.0.0.1:{proxy.port} cannot be reached: connection refused"
    environment.setenv("HTTP_PROXY", f"http://me:{SECRET}@proxy.invalid:3128")
    assert (await failure(URL)).startswith("the proxy proxy.invalid:3128 cannot be reached: the name does not resolve")


@on_every_loop
async def test_a_proxy_that_can_be_none(environment: pytest.MonkeyPatch) -> None:
    """Said as the command line would have said it."""
    environment.setenv("HTTP_PROXY", f"ftp://me:{SECRET}@proxy:3128")
    assert "HTTP_PROXY in the environment must be" in await failure(URL)


@on_every_loop
async def test_a_socks_proxy(environment: pytest.MonkeyPatch) -> None:
    """It speaks another language, and lets through or refuses alike."""
    async with a_relay() as relay, SocksProxy({HOST: port_of(relay)}) as proxy:
        environment.setenv("HTTP_PROXY", f"socks5h://127.0.0.1:{proxy.port}")
        link = a_link()
        await within(link.open(URL, hello()))
        assert proxy.asked == [HOST]
        link.close("enough")
        await within(link.wait())
        proxy.routes.clear()
        assert f"the proxy 127.0.0.1:{proxy.port} gave no way to {HOST}" in await failure(URL)
