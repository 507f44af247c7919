"""Answers that are known by their heads and come in one read: what keeps one of them from being taken whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from relay.agent.answers import AnswerHead
from relay.agent.phase import CLOSED, IDLE
from relay.agent.requests import LocalRequest
from tests.agent.localside import Log, on_every_loop, within
from tests.agent.test_local import GET, Joined, joined
from tests.agent.test_pool import pooled

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Whole(Log):
    """Remembers whether the answer came whole."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = False

    def on_whole(self, head: AnswerHead, body: bytes) -> None:
        self.whole = True
        super().on_whole(head, body)


def begin(local: Joined, request: LocalRequest = GET) -> Whole:
    log = Whole()
    local.connection.begin(request, log)
    return log


@asynccontextmanager
async def known() -> AsyncIterator[Joined]:
    """A connection on which the answer has come once, whole."""
    async with joined() as local:
        log = begin(local)
        await local.peer.head()
        await local.peer.send(ANSWER)
        await log.over()
        assert (log.whole, local.owner.free) == (True, 1)
        yield local


@pytest.mark.parametrize("behind", [b"x", ANSWER])
@on_every_loop
async def test_bytes_behind_a_known_answer_poison_the_connection(behind: bytes) -> None:
    """The answer stands; what is behind it is nobody's."""
    async with known() as local:
        log = begin(local)
        await local.peer.head()
        await local.peer.send(ANSWER + behind)
        await log.over()
        assert (log.whole, log.names, bytes(log.body)) == (False, ["head", "data", "end"], b"ok")
        await within(local.owner.closed.wait())
        assert local.owner.free == 1


@on_every_loop
async def test_half_of_a_known_answer_is_no_whole_one() -> None:
    """Its end is waited for."""
    async with known() as local:
        log = begin(local)
        await local.peer.head()
        await local.peer.send(ANSWER[:-1])
        await log.until(lambda: log.head)
        assert (log.whole, log.trailers, local.owner.free) == (False, None, 1)
        await local.peer.send(ANSWER[-1:])
        await log.over()
        assert (bytes(log.body), local.owner.free) == (b"ok", 2)


@on_every_loop
async def test_a_request_that_is_not_all_sent_keeps_nobody_waiting_behind_it() -> None:
    """The answer stands; the connection, on which the rest of the request still waits, is not used again."""
    async with known() as local:
        log = begin(local, LocalRequest(b"GET", b"/", [(b"Host", b"x"), (b"Large", b"x" * 2**25)]))
        await local.peer.send(ANSWER)
        await log.over()
        assert (log.whole, bytes(log.body)) == (False, b"ok")
        assert (local.connection.state, local.owner.free) == (CLOSED, 1)


@on_every_loop
async def test_a_connection_that_was_paused_idles_unpaused() -> None:
    """What had been read before the pause may be a whole answer: the connection must be read, or its end is missed."""
    async with known() as local:
        log = begin(local)
        await local.peer.head()
        local.connection.pause()
        local.connection.data_received(ANSWER)
        assert (log.whole, local.connection.state, local.owner.free) == (True, IDLE, 2)
        local.peer.close()
        await within(local.owner.closed.wait())


@on_every_loop
async def test_a_whole_answer_of_a_pool_that_was_left_meanwhile() -> None:
    """It is told, and the connection is not kept."""
    async with pooled() as local:
        peer = await local.answered()
        log = Whole()
        local.pool.start(GET, log, asyncio.get_running_loop().time())
        await peer.head()
        local.pool.retire()
        await peer.send(ANSWER)
        await log.over()
        assert (log.whole, bytes(log.body)) == (True, b"ok")
        assert local.pool.counts[1] == 0
        await peer.rest()
