"""A session's window that is full of what nobody takes: those who take nothing make room for those who do."""

from __future__ import annotations

import asyncio

import pytest

from relay.mux.crowding import PATIENCE
from relay.wire import frames
from relay.wire.errors import ResetCode
from relay.wire.frames import MAX_DATA, STREAM_WINDOW
from tests.mux.ends import Owner, RawPeer, Side, against, f_data, f_open, settle
from tests.support.clock import virtual

READERS = 16
WINDOW = READERS * STREAM_WINDOW


async def crowded(*, relays: bool) -> tuple[Side, RawPeer, list[Owner]]:
    """A session whose window is full of bytes for as many streams, none of which was taken."""
    side, peer = against(opener=relays, session_window=WINDOW)
    side.make = lambda: Owner(greedy=False)
    if relays:
        for _ in range(READERS):
            side.open()
        await settle()
    else:
        await peer.send(*(f_open(2 * number + 1) for number in range(READERS)))
    for number in range(READERS):
        await peer.send(f_data(2 * number + 1, bytes(STREAM_WINDOW)))
    assert side.session.window.held() == WINDOW
    return side, peer, list(side.owners)


def cut(owners: list[Owner]) -> list[int]:
    """Which of them were."""
    return [number for number, owner in enumerate(owners) if owner.reset is not None]


@virtual
async def test_who_takes_nothing_makes_room() -> None:
    """After the patience some are cut, on both sides, as few as are needed; then what waited for credit comes in."""
    side, peer, owners = await crowded(relays=True)
    await asyncio.sleep(PATIENCE * 0.9)
    assert cut(owners) == []
    await asyncio.sleep(PATIENCE * 0.2)
    gone = cut(owners)
    assert len(gone) == READERS * 3 // 4
    assert owners[gone[0]].reset == (ResetCode.CANCEL, True, "too much waits for readers that take nothing")
    resets = [number for kind, number, _ in peer.frames if kind == frames.RESET]
    assert sorted(resets) == [2 * number + 1 for number in gone]
    await asyncio.sleep(2 * PATIENCE)
    assert cut(owners) == gone
    reader = side.open(owner=Owner())
    await settle()
    await peer.send(f_data(2 * READERS + 1, bytes(STREAM_WINDOW)))
    assert (reader.size, side.session.ended) == (STREAM_WINDOW, False)


@virtual
async def test_who_takes_something_is_not_cut() -> None:
    """However little: a slow reader is none that has stopped. Nor is one that holds nothing."""
    _, _, owners = await crowded(relays=True)
    for _ in range(10):
        await asyncio.sleep(PATIENCE / 4)
        for owner in owners[: READERS // 2]:
            owner.take(1)
    assert cut(owners) == list(range(READERS // 2, READERS))


@virtual
async def test_who_holds_the_most_goes_first() -> None:
    """One whose share alone is as much as must go is cut alone."""
    side, peer = against(opener=True, session_window=WINDOW)
    side.make = lambda: Owner(greedy=False)
    first = side.open()
    for _ in range(READERS // 4):
        side.open()
    await settle()
    assert first.stream is not None
    first.stream.window.granted += WINDOW
    for _ in range(3):
        await peer.send(f_data(1, bytes(MAX_DATA)))
    for number in range(READERS // 4):
        await peer.send(f_data(2 * number + 3, bytes(STREAM_WINDOW)))
    await asyncio.sleep(2 * PATIENCE)
    assert cut(side.owners) == [0]


@virtual
async def test_an_agent_cuts_no_upload() -> None:
    """There it is the local service that takes nothing: it finds them all once it goes on."""
    side, _, owners = await crowded(relays=False)
    await asyncio.sleep(3 * PATIENCE)
    assert cut(owners) == []
    assert not side.session.ended


@pytest.mark.parametrize("last", ["ends", "is taken"])
@virtual
async def test_nothing_happens_once_there_is_room(last: str) -> None:
    """The session may end meanwhile, or its readers go on."""
    side, _, owners = await crowded(relays=True)
    await asyncio.sleep(PATIENCE / 2)
    if last == "ends":
        side.session.abort("the test says so")
    else:
        for owner in owners:
            owner.take()
    await asyncio.sleep(3 * PATIENCE)
    assert last == "ends" or cut(owners) == []
