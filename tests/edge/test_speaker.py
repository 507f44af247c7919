"""How an answer is written: in how many pieces, when its head leaves, and what an upload beside it changes."""

from __future__ import annotations

import pytest

from relay.exchange.heads import Fields, ResponseHead, encode_response
from relay.wire import frames
from relay.wire.frames import encode, encode_credit
from tests.edge.visits import Place, post, served
from tests.mux.ends import settle
from tests.support.clock import virtual

BY_LENGTH: Fields = [(b"Content-Length", b"5")]
LENGTH_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def head(fields: Fields) -> bytes:
    return encode(frames.HEAD, 1, encode_response(ResponseHead(200, b"OK", fields)))


LAST = encode(frames.DATA_END, 1, b"hello")


@pytest.mark.parametrize(
    ("fields", "written", "last"),
    [(BY_LENGTH, LENGTH_HEAD, b"hello"), ([], CHUNKED_HEAD, b"5\r\nhello\r\n0\r\n\r\n")],
    ids=["by length", "chunked"],
)
@virtual
async def test_an_answer_of_one_message_is_one_write(fields: Fields, written: bytes, last: bytes) -> None:
    """Head, body and end; where the head came alone, it left alone."""
    _, agent, visit = await served()
    await agent.send(head(fields), LAST)
    assert (visit.sent, visit.transport.writes) == (written + last, 1)
    _, agent, visit = await served()
    await agent.send(head(fields))
    assert (visit.sent, visit.transport.writes) == (written, 1)
    await agent.send(LAST)
    assert (visit.sent, visit.transport.writes) == (written + last, 2)


@virtual
async def test_credit_behind_a_head_does_not_keep_it() -> None:
    """A local service that answers while it reads the upload: the visitor has the head at once."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    await visit.send(post(b"half", length=8))
    await agent.send(head([]), encode_credit(1, 4))
    assert visit.sent == CHUNKED_HEAD


@virtual
async def test_an_answered_upload_that_waited_may_be_silent() -> None:
    """Once the head of its answer was sent no body is asked for, not behind a pause either: no 408 is in the answer."""
    place = Place()
    agent = await place.agent()
    visit = place.visit()
    await visit.send(post(bytes(200_000), length=400_000))
    assert not visit.transport.reading
    await place.passes(1)
    await agent.head(1)
    await place.passes(1)
    await agent.credit(1, 1_000_000)
    await settle()
    assert visit.transport.reading
    await place.passes(100)
    assert (visit.sent, visit.over) == (CHUNKED_HEAD, False)
    await visit.send(bytes(200_000))
    assert len(agent.body(1)) == 400_000
    await agent.send(LAST)
    assert visit.sent == CHUNKED_HEAD + b"5\r\nhello\r\n0\r\n\r\n"
    assert not visit.over
