"""One link to the relay: dialled, welcomed or refused, served until it breaks; every way to fail says why."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable

import picows
import pytest

from relay.agent import link as link_room
from relay.agent.link import ATTEMPT_WITHIN, LONGEST_WAIT, LinkFailed, LinkRefused
from relay.exchange.heads import RequestHead, encode_request
from relay.mux.errors import SessionGone
from relay.wire import frames
from relay.wire.errors import AwayCode, ResetCode
from relay.wire.hello import Refused
from tests.agent.localside import on_every_loop, within
from tests.agent.relayside import REFUSED, WELCOME, a_relay, a_socket, a_websocket, hello, saying, until
from tests.agent.running import a_link
from tests.mux.ends import Owner


async def failure(url: str) -> str:
    """Why a link to `url` failed."""
    link = a_link()
    with pytest.raises(LinkFailed) as caught:
        await within(link.open(url, hello()))
    assert link.session is None or link.session.ended
    return str(caught.value)


@on_every_loop
async def test_a_link_is_welcomed_and_serves() -> None:
    """The hello arrives as it was given, the welcome comes back, streams of the relay reach the forwarder."""
    async with a_relay() as relay:
        link = a_link()
        welcome = await within(link.open(relay.url + "/", hello()))
        assert welcome.tunnels == (("demo", "http://demo.tunnels.localhost:8080"),)
        assert relay.answers.hellos == [hello()]
        (served,) = relay.links
        owner = Owner()
        served.session.open(encode_request(RequestHead(b"GET", b"/", [], "demo")), True, owner)
        await until(lambda: owner.reset)
        assert owner.reset is not None
        assert owner.reset[0] == ResetCode.UNKNOWN_NAME
        link.close("bye")
        lost = await within(link.wait())
        assert (lost.reason, lost.announced) == ("bye", False)
        await until(lambda: not relay.links)


@on_every_loop
async def test_the_welcome_says_how_often_to_ping() -> None:
    """The relay's interval is the agent's as well."""
    body = b'{"session":"s","tunnels":[],"ping_interval":0.75,"max_streams":5,"version":1}'
    async with a_websocket(saying(WELCOME, body)) as url:
        link = a_link()
        await within(link.open(url, hello()))
        assert link.session is not None
        assert link.session.keepalive.interval == 0.75
        link.abort("enough")
        await within(link.wait())


@on_every_loop
async def test_a_refusal_is_told_as_it_is() -> None:
    """With its code, its sentence and its time; nothing of the link is left."""
    async with a_relay() as relay:
        said = Refused("later", "Come back – soon.", 7.5)
        relay.answers.refusals = [said]
        link = a_link()
        with pytest.raises(LinkRefused) as caught:
            await within(link.open(relay.url, hello()))
        assert caught.value.refused == said
        await within(link.wait())


@on_every_loop
async def test_a_relay_that_does_not_close_behind_a_refusal_is_left() -> None:
    """The agent ends the connection by itself: a link that was refused is not kept."""
    async with a_websocket(saying(REFUSED, b'{"code":"bad_key","message":"No."}')) as url:
        link = a_link()
        with pytest.raises(LinkRefused):
            await within(link.open(url, hello()))
        assert link.session is not None
        assert link.session.ended
        await within(link.wait())


# ---- relays that are none


@on_every_loop
async def test_nobody_listens() -> None:
    """Said in words."""
    async with a_relay() as relay:
        url = relay.url
    assert await failure(url) == "connection refused"


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def answers(response: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        writer.close()

    return serve


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (hangs_up, "closed"),
        (answers(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), "answered HTTP 404 instead of a WebSocket"),
        (
            answers(b"HTTP/1.1 302 Found\r\nLocation: ws://example.com/\r\n\r\n"),
            "answered HTTP 302 instead of a WebSocket",
        ),
        (answers(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "answered HTTP 200 instead of a WebSocket"),
        (answers(b"SSH-2.0-OpenSSH_9\r\n\r\n"), ""),
    ],
    ids=["hangs up", "404", "redirect", "200", "no HTTP"],
)
@on_every_loop
async def test_something_else_listens(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], words: str
) -> None:
    """Whatever it says is a failure of the link, in words, and no redirect is followed."""
    async with a_socket(serve) as url:
        said = await failure(url)
        assert words in said
        assert said


@pytest.mark.parametrize(
    ("asked", "wait"), [(b"2", 2.0), (b"86400", LONGEST_WAIT), (b"soon", 0.0), (b"-1", 0.0), ("²".encode(), 0.0)]
)
@on_every_loop
async def test_a_relay_that_is_busy_says_when_to_come_again(asked: bytes, wait: float) -> None:
    """In seconds, and not longer than visitors should have to wait by the word of a proxy."""
    async with a_socket(answers(b"HTTP/1.1 503 Busy\r\nRetry-After: %b\r\nContent-Length: 0\r\n\r\n" % asked)) as url:
        with pytest.raises(LinkFailed, match="answered HTTP 503") as caught:
            await within(a_link().open(url, hello()))
        assert caught.value.wait == wait


@pytest.mark.parametrize("speaks", ["nothing", "a WebSocket only"])
@on_every_loop
async def test_a_relay_that_does_not_answer_is_given_up(speaks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time of an attempt, wherever it stands; its socket is not kept."""
    monkeypatch.setattr(link_room, "ATTEMPT_WITHIN", 0.1)
    if speaks == "nothing":
        seen: list[bytes] = []

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.read())

        async with a_socket(silent) as url:
            assert "no answer within" in await failure(url)
            await until(lambda: seen)
    else:
        async with a_websocket(lambda transport: None) as url:
            assert "no answer within" in await failure(url)


@pytest.mark.parametrize("chosen", [None, "other.v1", "relay.v10"])
@on_every_loop
async def test_a_websocket_that_does_not_choose_our_protocol_is_left(chosen: str | None) -> None:
    """The key is not sent to it."""
    heard: list[int] = []
    async with a_websocket(lambda transport: heard.append(1), subprotocol=chosen) as url:
        assert "relay.v1" in await failure(url)
    assert heard == []


def close_with(code: int, reason: bytes) -> Callable[[picows.WSTransport], None]:
    def say(transport: picows.WSTransport) -> None:
        transport.send(picows.WSMsgType.CLOSE, struct.pack(">H", code) + reason)

    return say


@pytest.mark.parametrize(
    ("say", "words"),
    [
        (lambda transport: transport.disconnect(False), "the connection broke"),
        (close_with(1001, b"restarting"), "restarting"),
        (lambda transport: transport.send(picows.WSMsgType.TEXT, b"hello"), "text message"),
        (lambda transport: transport.send(picows.WSMsgType.BINARY, b"\0"), "inside a frame header"),
        (saying(frames.HELLO, b"{}"), "HELLO out of place"),
        (saying(frames.RENEWED, b"{}"), "RENEWED out of place"),
        (saying(frames.WELCOME, b"{}"), "welcome"),
        (saying(frames.REFUSED, b"[]"), "object"),
    ],
)
@on_every_loop
async def test_a_relay_that_breaks_the_protocol_before_its_welcome(
    say: Callable[[picows.WSTransport], None], words: str
) -> None:
    """A failure of the link, with what was wrong."""
    async with a_websocket(say) as url:
        assert words in await failure(url)


@on_every_loop
async def test_a_version_that_was_not_offered_is_a_refusal() -> None:
    """The agent closes, and there is no use in trying again."""
    body = b'{"session":"s","tunnels":[],"ping_interval":5,"max_streams":5,"version":2}'
    async with a_websocket(saying(WELCOME, body)) as url:
        link = a_link()
        with pytest.raises(LinkRefused) as caught:
            await within(link.open(url, hello()))
        assert (caught.value.refused.code, caught.value.refused.retry_after) == ("version", None)
        assert "version 2" in caught.value.refused.message
        await within(link.wait())


@on_every_loop
async def test_a_second_welcome_breaks_the_protocol() -> None:
    """The link ends."""
    body = b'{"session":"s","tunnels":[],"ping_interval":5,"max_streams":5,"version":1}'

    def twice(transport: picows.WSTransport) -> None:
        for _ in range(2):
            saying(WELCOME, body)(transport)

    async with a_websocket(twice) as url:
        link = a_link()
        await within(link.open(url, hello()))
        assert "WELCOME out of place" in (await within(link.wait())).reason


# ---- ends


@on_every_loop
async def test_a_link_that_breaks_says_so() -> None:
    """`wait` may be asked by several, before and after."""
    async with a_relay() as relay:
        link = a_link()
        await within(link.open(relay.url, hello()))
        waiting = asyncio.ensure_future(link.wait())
        relay.sessions[0].abort("cut")
        assert await within(waiting) == await within(link.wait())
        assert waiting.result().reason == "the connection broke"
        assert not waiting.result().announced


@on_every_loop
async def test_a_relay_that_goes_away_is_heard() -> None:
    """The owner is told at once; the link lives on until it ends, and then that end was announced."""
    async with a_relay() as relay:
        told: list[int] = []
        link = a_link(lambda: told.append(1))
        await within(link.open(relay.url, hello()))
        relay.sessions[0].go_away(AwayCode.SHUTDOWN, "restarting")
        await until(lambda: told)
        assert link.session is not None
        assert not link.session.ended
        relay.sessions[0].close(AwayCode.SHUTDOWN, "restarting")
        assert (await within(link.wait())).announced


@on_every_loop
async def test_an_agent_that_goes_away_is_given_nothing_new() -> None:
    """The relay opens no more streams, and the name goes down, while the link still lives."""
    async with a_relay() as relay:
        link = a_link()
        await within(link.open(relay.url, hello()))
        link.go_away("stopping")
        await until(lambda: not relay.links)
        with pytest.raises(SessionGone):
            relay.sessions[0].open(b"x", True, Owner())
        assert not relay.sessions[0].ended
        link.close("stopped")
        await within(link.wait())


@on_every_loop
async def test_a_link_that_was_never_opened_may_be_ended() -> None:
    """Every way to end it is harmless before there is a session."""
    link = a_link()
    link.go_away("x")
    link.close("x")
    link.abort("x")
    assert link.session is None


@on_every_loop
async def test_giving_up_an_attempt_leaves_nothing() -> None:
    """An agent that stops while it dials: no session lives on."""
    async with a_websocket(lambda transport: None) as url:
        link = a_link()
        opening = asyncio.ensure_future(link.open(url, hello()))
        await until(lambda: link.session is not None)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(opening)
        await within(link.wait())


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"])
@on_every_loop
async def test_giving_up_while_waiting_hangs_up(answer: bytes) -> None:
    """The other end hears of it at once, and not when some deadline has passed; an answer that just came is unread."""
    hung_up = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        opening.cancel()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        hung_up.set()
        writer.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        opening = asyncio.ensure_future(a_link().open(f"ws://127.0.0.1:{port}", hello()))
        async with asyncio.timeout(ATTEMPT_WITHIN / 2):
            await hung_up.wait()
        with pytest.raises(asyncio.CancelledError):
            await opening


@on_every_loop
async def test_a_link_that_is_not_wanted_any_more_says_no_hello() -> None:
    """The agent was told to stop while it dialled: a relay that never heard of the link sends no request over it."""
    async with a_relay() as relay:
        link = a_link()
        with pytest.raises(LinkFailed, match="the agent stops"):
            await within(link.open(relay.url, hello(), lambda: False))
        await until(lambda: relay.sessions and relay.sessions[0].ended)
        assert relay.answers.hellos == []
        await within(link.wait())
