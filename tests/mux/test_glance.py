"""What waits on sessions, as it is read at a glance: which windows are used up, and on which side."""

from __future__ import annotations

import asyncio

from relay.mux.glance import Carried, Glance, look, round_trips
from tests.mux.ends import Owner, against, f_data, f_head, joined, settle
from tests.support.clock import virtual


@virtual
async def test_nothing_waits_on_a_session_that_is_idle() -> None:
    """No stream, nothing held, credit on both sides."""
    ends = joined()
    await settle()
    found = look([ends.relay.session])
    assert (found.streams, found.held, found.waiting, found.stalled_sent, found.stalled_received) == (0, 0, 0, 0, 0)
    assert found.credit_given > 0
    assert found.credit_left > 0
    assert look([]) == Glance()


@virtual
async def test_a_reader_that_does_not_take_stalls_its_stream_at_both_ends() -> None:
    """The sender has bytes without credit, the receiver has given all the credit that there is; the others go on."""
    ends = joined()
    ends.agent.make = lambda: Owner(greedy=False)
    mine, theirs = await ends.opened()
    assert mine.stream is not None
    while not mine.stream.pending:
        mine.stream.write(b"x" * 65536)
        await settle()
    sender, receiver = look([ends.relay.session]), look([ends.agent.session])
    assert (sender.stalled_sent, sender.stalled_received, sender.sessions_stalled_sent) == (1, 0, 0)
    assert sender.waiting >= mine.stream.pending > 0
    assert (receiver.stalled_received, receiver.stalled_sent) == (1, 0)
    assert receiver.held == theirs.held
    theirs.greedy = True
    theirs.take()
    await settle()
    assert (look([ends.relay.session]).stalled_sent, look([ends.agent.session]).stalled_received) == (0, 0)


@virtual
async def test_a_look_changes_nothing() -> None:
    """A stream that was looked at before its answer takes it whole as any other does."""
    side, peer = against(opener=True)
    owner = side.open(ended=True)
    await settle()
    assert look([side.session]).streams == 1
    wholes: list[bytes] = []
    owner.on_last = lambda data: wholes.append(bytes(data))  # type: ignore[method-assign]
    await peer.send(f_head(1), f_data(1, b"x", ended=True))
    assert wholes == [b"x"]


@virtual
async def test_a_session_stalls_when_its_own_window_is_used_up() -> None:
    """Then all its streams that have something to send do."""
    ends = joined()
    mine, _ = await ends.opened()
    session = ends.relay.session
    session.outbox.credit = 0
    assert mine.stream is not None
    mine.stream.write(b"x" * 100)
    await settle()
    found = look([session])
    assert (found.sessions_stalled_sent, found.stalled_sent) == (1, 1)
    session.window.received = session.window.granted
    assert look([session]).sessions_stalled_received == 1


@virtual
async def test_round_trips_of_those_that_have_one() -> None:
    """The shortest first."""
    far, near, fresh = joined(delay=0.05), joined(delay=0.01), joined(delay=1.0)
    await asyncio.sleep(0.5)
    found = round_trips([far.relay.session, near.relay.session, fresh.relay.session])
    assert [round(one, 3) for one in found] == [0.02, 0.1]


@virtual
async def test_carried_counts_a_session_once() -> None:
    """While it goes on by what it says, and once it has ended by what was folded."""
    carried, ends = Carried(), joined()
    mine, _ = await ends.opened()
    assert mine.stream is not None
    mine.stream.write(b"x" * 1000)
    await settle()
    sessions = [ends.relay.session, ends.agent.session]
    assert carried.total(sessions) == (1000, 1000)
    ends.relay.session.abort("over")
    carried.fold(ends.relay.session)
    assert carried.total(sessions) == (1000, 1000)
    assert carried.total([]) == (1000, 0)
