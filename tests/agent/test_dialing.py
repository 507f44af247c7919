"""A host is reached by whichever of its addresses answers: the others cost a moment at most, and leave nothing open."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator

import pytest

from relay.agent import dialing as dialing_room
from relay.agent.dialing import NEXT_AFTER, NoWay, find, in_turn, reach
from relay.agent.lookups import Lookups
from tests.agent.localside import on_every_loop, within

GONE, HERE = "127.0.0.2", "127.0.0.3"


@contextlib.contextmanager
def listening(ip: str, port: int = 0, *, answers: bool = True) -> Iterator[int]:
    """A port that takes connections, or one whose queue is full: connects to it hang, as to a host that is away."""
    with socket.socket() as wire, contextlib.ExitStack() as others:
        wire.bind((ip, port))
        wire.listen(16 if answers else 0)
        taken = wire.getsockname()[1]
        if not answers:
            for _ in range(2):
                other = others.enter_context(socket.socket())
                other.setblocking(False)
                other.connect_ex((ip, taken))
        yield taken


@on_every_loop
async def test_the_first_address_that_answers_is_taken() -> None:
    """It does not block, and sends small things at once."""
    with listening(HERE) as port:
        wire = await within(reach([HERE], port))
        with wire:
            assert wire.getpeername() == (HERE, port)
            assert not wire.getblocking()
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@on_every_loop
async def test_an_address_that_does_not_answer_costs_a_moment() -> None:
    """The next one is tried beside it, as after a change of the network, when one kind of address leads nowhere."""
    loop = asyncio.get_running_loop()
    with listening(GONE, answers=False) as port, listening(HERE, port):
        begun = loop.time()
        with await within(reach([GONE, HERE], port)) as wire:
            assert wire.getpeername()[0] == HERE
        assert NEXT_AFTER <= loop.time() - begun + 0.01 < 4 * NEXT_AFTER


@on_every_loop
async def test_an_address_that_refuses_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is tried at once."""
    monkeypatch.setattr(dialing_room, "NEXT_AFTER", 60.0)
    with listening(HERE) as port, await within(reach([GONE, HERE], port)) as wire:
        assert wire.getpeername()[0] == HERE


@on_every_loop
async def test_no_address_answers() -> None:
    """The last one's reason is told."""
    with listening(HERE) as port:
        pass
    with pytest.raises(NoWay) as caught:
        await within(reach([GONE, HERE], port))
    assert caught.value.cause.errno == errno.ECONNREFUSED  # type: ignore[union-attr]


@on_every_loop
async def test_attempts_that_are_given_up_leave_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the losers of a race nor any of them when nobody wants to connect any more."""
    monkeypatch.setattr(dialing_room, "NEXT_AFTER", 0.0)
    made: list[socket.socket] = []

    class Counted(socket.socket):
        def __init__(self, *given: int) -> None:
            super().__init__(*given)
            made.append(self)

    with listening(GONE, answers=False) as port, listening(HERE, port):
        monkeypatch.setattr(socket, "socket", Counted)
        won = await within(reach([GONE, HERE], port))
        waiting = asyncio.ensure_future(reach([GONE], port))
        while len(made) < 3:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert [one.fileno() >= 0 for one in made] == [one is won for one in made]
        won.close()


def test_families_take_turns() -> None:
    """The resolver's favourite comes first, the other kind of address second."""
    assert in_turn(["::1", "::2", "::3", "10.0.0.1"]) == ["::1", "10.0.0.1", "::2", "::3"]
    assert in_turn(["10.0.0.1", "10.0.0.2", "::1"]) == ["10.0.0.1", "::1", "10.0.0.2"]
    assert in_turn(["10.0.0.1"]) == ["10.0.0.1"]


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_NONAME, "x"), UnicodeError("label too long")])
async def test_a_name_that_leads_nowhere(error: Exception) -> None:
    """What the resolver says is the reason; a name without addresses is none."""

    def fails(host: str, port: int) -> list[str]:
        raise error

    with pytest.raises(NoWay) as caught:
        await find("relay.example", 443, Lookups(fails))
    assert caught.value.cause is error
    with pytest.raises(NoWay, match="no address"):
        await find("relay.example", 443, Lookups(lambda host, port: []))
