"""A live link and its key: a new one taken or refused, and the words with which a relay ends a session for good."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import picows
import pytest

from relay.agent import link as link_room
from relay.agent.link import Link, LinkFailed, LinkRefused
from relay.wire import frames
from relay.wire.access import AccessRules
from relay.wire.errors import AwayCode
from relay.wire.hello import Refused
from tests.agent.localside import on_every_loop, within
from tests.agent.relayside import REFUSED, WELCOME, Say, a_relay, a_websocket, hello, saying, until
from tests.agent.running import a_link

WELCOMED = b'{"session":"s","tunnels":[{"name":"demo","url":"http://x"}],"ping_interval":5,"max_streams":5,"version":1}'
RENEWED = WELCOMED.replace(b":5,", b":0.75,", 1)
NO = b'{"code":"bad_key","message":"No."}'


class Speaker:
    """A relay that is told what to say after its welcome."""

    def __init__(self) -> None:
        self.transport: picows.WSTransport | None = None
        self.url = ""

    def welcome(self, transport: picows.WSTransport) -> None:
        self.transport = transport
        saying(WELCOME, WELCOMED)(transport)

    def say(self, kind: int, payload: bytes) -> None:
        assert self.transport is not None
        saying(kind, payload)(self.transport)

    def hang_up(self) -> None:
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.disconnect(False)


@asynccontextmanager
async def a_speaker() -> AsyncIterator[Speaker]:
    """Its connection is closed in the end, because uvloop does not close while one is open."""
    speaker = Speaker()
    async with a_websocket(speaker.welcome) as speaker.url:
        try:
            yield speaker
        finally:
            speaker.hang_up()
            await asyncio.sleep(0)


# ---- a new key


@on_every_loop
async def test_a_new_key_is_taken() -> None:
    """It reaches the relay, and is the one that the link lives by."""
    async with a_relay() as relay:
        link = a_link()
        await within(link.open(relay.url, hello(key="first")))
        assert link.key == "first"
        welcome = await within(link.renew("second"))
        assert welcome.tunnels == (("demo", "http://demo.tunnels.localhost:8080"),)
        assert relay.answers.renewals == ["second"]
        assert link.key == "second"
        await within(link.renew("third"))
        assert relay.answers.renewals == ["second", "third"]
        link.abort("enough")
        await within(link.wait())


@on_every_loop
async def test_a_new_key_is_refused() -> None:
    """The link lives on by the old one, and another may be offered."""
    async with a_relay() as relay:
        relay.answers.renewal_refusals = [Refused("bad_key", "No.", None)]
        link = a_link()
        await within(link.open(relay.url, hello(key="first")))
        with pytest.raises(LinkRefused) as caught:
            await within(link.renew("second"))
        assert caught.value.refused == Refused("bad_key", "No.")
        assert link.key == "first"
        assert relay.links
        await within(link.renew("third"))
        assert link.key == "third"
        link.abort("enough")
        await within(link.wait())


@on_every_loop
async def test_an_answer_that_comes_late_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second key is offered before it, and the same one is not sent twice."""
    monkeypatch.setattr(link_room, "RENEWED_WITHIN", 0.05)
    async with a_speaker() as speaker:
        link = a_link()
        await within(link.open(speaker.url, hello(key="first")))
        with pytest.raises(LinkFailed, match=r"no answer within 0\.05 seconds"):
            await within(link.renew("second"))
        with pytest.raises(LinkFailed, match="not answered"):
            await within(link.renew("third"))
        monkeypatch.setattr(link_room, "RENEWED_WITHIN", 10.0)
        again = asyncio.ensure_future(link.renew("second"))
        await asyncio.sleep(0)
        speaker.say(frames.RENEWED, RENEWED)
        await within(again)
        assert link.key == "second"
        assert link.session is not None
        assert link.session.keepalive.interval == 0.75
        link.abort("enough")
        await within(link.wait())


@on_every_loop
async def test_a_link_that_breaks_answers_no_renewal() -> None:
    """Whoever waits is told, and whoever comes after."""
    async with a_speaker() as speaker:
        link = a_link()
        await within(link.open(speaker.url, hello()))
        waiting = asyncio.ensure_future(link.renew("second"))
        await asyncio.sleep(0)
        speaker.hang_up()
        with pytest.raises(LinkFailed, match="broke"):
            await within(waiting)
        with pytest.raises(LinkFailed, match="ended"):
            await within(link.renew("second"))
    with pytest.raises(LinkFailed, match="ended"):
        await a_link().renew("second")


@pytest.mark.parametrize(("kind", "payload"), [(frames.RENEWED, RENEWED), (REFUSED, NO)])
@on_every_loop
async def test_an_answer_to_no_question_breaks_the_protocol(kind: int, payload: bytes) -> None:
    """The link ends."""
    async with a_speaker() as speaker:
        link = a_link()
        await within(link.open(speaker.url, hello()))
        speaker.say(kind, payload)
        assert "out of place" in (await within(link.wait())).reason


@pytest.mark.parametrize(("kind", "payload"), [(frames.RENEWED, b"{}"), (REFUSED, b"[]"), (WELCOME, WELCOMED)])
@on_every_loop
async def test_an_answer_that_is_none_breaks_the_protocol(kind: int, payload: bytes) -> None:
    """The renewal fails with the link."""
    async with a_speaker() as speaker:
        link = a_link()
        await within(link.open(speaker.url, hello(key="first")))
        waiting = asyncio.ensure_future(link.renew("second"))
        await asyncio.sleep(0)
        speaker.say(kind, payload)
        with pytest.raises(LinkFailed):
            await within(waiting)
        assert link.key == "first"
        await within(link.wait())


# ---- verdicts


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (AwayCode.REVOKED, "revoked"),
        (AwayCode.CLOSED, "tunnel_closed"),
        (AwayCode.SHUTDOWN, None),
        (AwayCode.SUPERSEDED, None),
        (AwayCode.OVERLOADED, None),
    ],
)
@on_every_loop
async def test_what_a_relay_means_by_its_last_word(code: AwayCode, verdict: str | None) -> None:
    """Some ends are what a refusal would be, with its sentence; after others the agent comes back."""
    async with a_relay() as relay:
        link = a_link()
        await within(link.open(relay.url, hello()))
        relay.sessions[0].close(code, "Because.")
        await within(link.wait())
        assert link.verdict == (None if verdict is None else Refused(verdict, "Because."))
        assert link.overloaded == (code == AwayCode.OVERLOADED)


@on_every_loop
async def test_a_verdict_stands() -> None:
    """Said before a shutdown or after it."""
    for codes in ((AwayCode.REVOKED, AwayCode.SHUTDOWN), (AwayCode.SHUTDOWN, AwayCode.REVOKED)):
        async with a_relay() as relay:
            link = a_link()
            await within(link.open(relay.url, hello()))
            for code in codes:
                relay.sessions[0].go_away(code, str(int(code)))
            await until(lambda link=link: link.verdict)  # type: ignore[misc]
            relay.sessions[0].close(codes[1], "Bye.")
            await within(link.wait())
            assert link.verdict == Refused("revoked", "3")


@on_every_loop
async def test_a_verdict_in_place_of_a_welcome_is_a_refusal() -> None:
    """The key was revoked between the question and the answer."""

    def say(transport: picows.WSTransport) -> None:
        gone = frames.encode_going_away(AwayCode.REVOKED, 0, "Revoked.")
        transport.send(picows.WSMsgType.BINARY, gone)
        transport.send_close(picows.WSCloseCode.POLICY_VIOLATION, b"")

    async with a_websocket(say) as url:
        link = a_link()
        with pytest.raises(LinkRefused) as caught:
            await within(link.open(url, hello()))
        assert caught.value.refused == Refused("revoked", "Revoked.")
        await within(link.wait())


# ---- what visitors must show


def asking_for(link: Link, url: str, **rules: AccessRules) -> asyncio.Future[object]:
    return asyncio.ensure_future(link.open(url, dataclasses.replace(hello(), access=rules)))


def welcoming(access: bytes) -> Say:
    return saying(WELCOME, WELCOMED.replace(b'"http://x"', b'"http://x"' + access))


@pytest.mark.parametrize(
    "access", [b"", b',"access":[]', b',"access":["basic"]', b',"access":["visitor_key","basic"]'], ids=bytes.decode
)
@on_every_loop
async def test_a_relay_that_would_ask_for_something_else_is_left(access: bytes) -> None:
    """The tunnel would be more open than was asked for: no stream is served, and there is no use in trying again."""
    async with a_websocket(welcoming(access)) as url:
        link = a_link()
        with pytest.raises(LinkRefused, match="visitors of demo") as caught:
            await within(asking_for(link, url, demo=AccessRules(visitor_keys=True)))
        assert (caught.value.refused.code, caught.value.refused.retry_after) == ("version", None)
        assert link.session is not None
        assert not link.session.established
        await within(link.wait())


@on_every_loop
async def test_a_relay_that_asks_for_what_it_should_is_served() -> None:
    """In whatever order it names the ways in."""
    async with a_websocket(welcoming(b',"access":["basic","visitor_key"]')) as url:
        link = a_link()
        rules = AccessRules(visitor_keys=True, basic=(("me", "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$" + "a" * 22),))
        await within(asking_for(link, url, demo=rules))
        assert link.session is not None
        assert link.session.established
        link.abort("enough")
        await within(link.wait())
