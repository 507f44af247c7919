"""What an agent asks the relay to ask of visitors: told in its hello, and never served by a relay that would not."""

from __future__ import annotations

import asyncio
import dataclasses

import picows
import pytest

from relay.agent.forwarder import Forwarder, Route
from relay.agent.link import Link, LinkRefused
from relay.agent.requests import LocalEvents, LocalRequest
from relay.agent.targets import parse_target
from relay.exchange.heads import RequestHead, encode_request
from relay.wire import frames
from relay.wire.access import AccessRules
from relay.wire.hello import Hello, Welcome, encode_welcome
from tests.agent.localside import on_every_loop, within
from tests.agent.relayside import a_relay, a_websocket, hello, until

RULES = AccessRules(True)


class Pool:
    """A local service that only counts who comes."""

    def __init__(self) -> None:
        self.started = 0

    def start(self, request: LocalRequest, events: LocalEvents, now: float) -> None:
        self.started += 1


def a_link() -> tuple[Link, Pool]:
    pool = Pool()
    route = Route("demo", parse_target("1"), pool)  # type: ignore[arg-type]
    clock = asyncio.get_running_loop().time
    return Link(Forwarder({"demo": route}, lambda event: None, clock), lambda: None), pool


def private() -> Hello:
    return dataclasses.replace(hello(), access={"demo": RULES})


@on_every_loop
async def test_a_relay_that_keeps_the_rules_is_served() -> None:
    """They arrive with the hello, hold for the tunnel, and are repeated in the welcome."""
    async with a_relay() as relay:
        link, _ = a_link()
        welcome = await within(link.open(relay.url, private()))
        assert welcome.access == {"demo": ("visitor_key",)}
        assert relay.house.hub.tunnels["demo"].access == RULES
        link.close("bye")
        await until(lambda: not relay.links)


@pytest.mark.parametrize("access", [{}, {"demo": ("basic",)}, {"demo": ("visitor_key", "anybody")}])
@on_every_loop
async def test_a_relay_that_would_not_keep_the_rules_is_left_at_once(access: dict[str, tuple[str, ...]]) -> None:
    """Nothing is served, not even what came in the same message; the sentence says why, and it is final."""
    welcome = Welcome("s", (("demo", "http://demo.example"),), 5.0, 10, access=access)
    opened = frames.encode(frames.OPEN_END, 1, encode_request(RequestHead(b"GET", b"/", [], "demo")))
    message = frames.encode(frames.WELCOME, 0, encode_welcome(welcome)) + opened

    async with a_websocket(lambda transport: transport.send(picows.WSMsgType.BINARY, message)) as url:
        link, pool = a_link()
        with pytest.raises(LinkRefused) as caught:
            await within(link.open(url, private()))
        await within(link.wait())
        assert pool.started == 0
        assert (caught.value.refused.code, caught.value.refused.retry_after) == ("version", None)
        assert "would not ask visitors of demo" in str(caught.value)
