"""Large pieces of a stream: sent at once where it has the link to itself, copied only where they have to wait."""

from __future__ import annotations

import asyncio

from relay.mux.sending import LARGE
from relay.wire.frames import STREAM_WINDOW
from tests.mux.ends import against, f_credit, joined
from tests.support.clock import virtual


@virtual
async def test_what_has_to_wait_of_a_view_is_copied() -> None:
    """The caller's bytes are gone after the call; what the peer gets is what they were, whatever credit let pass."""
    ends = joined(delay=0.001)
    relay, agent = await ends.opened()
    assert relay.stream is not None
    for size in (LARGE - 1, LARGE, 3 * STREAM_WINDOW):
        before = agent.size
        there = bytearray(b"a" * size)
        relay.stream.write_view(memoryview(there))
        there[:] = b"b" * size
        await asyncio.sleep(1.0)
        assert agent.size == before + size
    assert set(agent.body) == {ord("a")}


@virtual
async def test_a_lone_stream_does_not_wait_for_the_end_of_the_turn() -> None:
    """Its large piece is sent within the call; beside another one that waits it takes its turn."""
    side, peer = against(opener=True)
    await peer.send(f_credit(0, 8 * LARGE))
    first, second = side.open(), side.open()
    await peer.send(f_credit(1, 8 * LARGE))
    assert first.stream is not None
    assert second.stream is not None
    sent = side.carrier.sent
    assert first.stream.write(bytes(LARGE))
    assert side.carrier.sent > sent
    second.stream.send_credit = 0
    second.stream.write(bytes(LARGE))
    second.stream.send_credit = LARGE
    side.session.outbox.wait(second.stream)
    sent = side.carrier.sent
    first.stream.write(bytes(LARGE))
    assert side.carrier.sent == sent
