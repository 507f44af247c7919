"""Which requests wait for an agent to come back: how long, how many, how many bytes, and that each is told once."""

from __future__ import annotations

import asyncio

import pytest

from relay.tunnels import hold as hold_room
from relay.tunnels.hold import HoldBounds
from relay.tunnels.hub import Hub, Link
from relay.wire.errors import AwayCode
from tests.support.clock import virtual
from tests.tunnels.agents import a_metering
from tests.tunnels.test_hub import Waiting, a_link


def a_hub(seconds: float = 10.0, per_name: int = 256, in_all: int = 1000, **sizes: int) -> tuple[Hub, list[str]]:
    reports: list[str] = []
    bounds = HoldBounds(seconds, per_name, in_all, **sizes)
    return Hub(bounds, a_metering(), lambda event, names, _: reports.append(event)), reports


@virtual
async def test_a_request_is_held_until_an_agent_is_back() -> None:
    """After the drop it waits; the new link gets it, whoever the agent is; it is counted as long as it waits."""
    hub, _ = a_hub()
    hub.attach(link := a_link())
    hub.detach(link)
    waiting = [Waiting() for _ in range(3)]
    assert all(hub.hold("demo", one, 100) for one in waiting)
    assert hub.held == 3
    await asyncio.sleep(9.9)
    back = a_link(instance="b")
    hub.attach(back)
    assert [one.link for one in waiting] == [back] * 3
    assert hub.held == 0
    await asyncio.sleep(60)
    assert not any(one.given_up for one in waiting)


@virtual
async def test_a_held_request_is_given_up_when_nobody_comes() -> None:
    """All that wait are told when the time since the drop is over; nobody is held for the name any more."""
    hub, _ = a_hub(seconds=10.0)
    hub.attach(link := a_link())
    hub.detach(link)
    early, late = Waiting(), Waiting()
    assert hub.hold("demo", early, 100)
    await asyncio.sleep(9.0)
    assert hub.hold("demo", late, 100)
    await asyncio.sleep(0.9)
    assert early.given_up == 0
    await asyncio.sleep(0.2)
    assert (early.given_up, late.given_up, hub.held) == (1, 1, 0)
    assert not hub.hold("demo", Waiting(), 100)
    assert hub.known("demo")
    hub.attach(a_link())
    assert (early.link, late.link) == (None, None)


@virtual
async def test_nobody_is_held_for_a_name_that_never_was() -> None:
    """Nor for one that is alive."""
    hub, _ = a_hub()
    assert not hub.hold("demo", Waiting(), 100)
    hub.attach(a_link())
    assert not hub.hold("demo", Waiting(), 100)
    assert hub.held == 0


@virtual
async def test_the_time_begins_anew_with_each_drop() -> None:
    """An agent that comes and goes: the second drop holds for its whole time."""
    hub, _ = a_hub(seconds=10.0)
    for _ in range(3):
        hub.attach(link := a_link())
        hub.detach(link)
        await asyncio.sleep(8.0)
        waiting = Waiting()
        assert hub.hold("demo", waiting, 100)
        assert waiting.given_up == 0
    await asyncio.sleep(2.1)
    assert hub.held == 0


@virtual
async def test_what_is_held_is_bounded_per_name_and_in_all() -> None:
    """One more is not held; room comes back when one is released, and only for who waits."""
    hub, _ = a_hub(per_name=2, in_all=3)
    for name in ("x", "y"):
        hub.attach(link := a_link(name))
        hub.detach(link)
    first, second, third = Waiting(), Waiting(), Waiting()
    assert hub.hold("x", first, 100)
    assert hub.hold("x", second, 100)
    assert not hub.hold("x", third, 100)
    assert hub.hold("y", third, 100)
    assert not hub.hold("y", Waiting(), 100)
    hub.release("x", third)
    hub.release("z", first)
    assert hub.held == 3
    hub.release("x", first)
    hub.release("x", first)
    assert hub.held == 2
    assert hub.hold("y", first, 100)
    hub.attach(link := a_link("x", "y"))
    assert (first.link, second.link, third.link, hub.held) == (link, link, link, 0)


@pytest.mark.parametrize("seconds", [0.0])
@virtual
async def test_holding_can_be_switched_off(seconds: float) -> None:
    """With no time at all a request is not held beyond the turn of the loop."""
    hub, _ = a_hub(seconds=seconds)
    hub.attach(link := a_link())
    hub.detach(link)
    waiting = Waiting()
    if hub.hold("demo", waiting, 100):
        await asyncio.sleep(0.001)
        assert waiting.given_up == 1
    assert hub.held == 0


@virtual
async def test_giving_up_tells_everybody_now() -> None:
    """When the relay stops nobody waits for its time; agents that still come find nobody."""
    hub, _ = a_hub()
    waiting = []
    for name in ("x", "y", "z"):
        hub.attach(link := a_link(name))
        hub.detach(link)
        waiting.append(Waiting())
        assert hub.hold(name, waiting[-1], 100)
    hub.give_up()
    hub.give_up()
    assert [one.given_up for one in waiting] == [1, 1, 1]
    assert hub.held == 0
    assert not hub.hold("x", Waiting(), 100)
    await asyncio.sleep(60)
    assert [one.given_up for one in waiting] == [1, 1, 1]


@virtual
async def test_names_that_are_offline_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten first, and who still waits for it is told."""
    monkeypatch.setattr(hold_room, "MOST_OFFLINE", 3)
    hub, _ = a_hub()
    waiting = Waiting()
    for name in ("a", "b", "c", "d", "e"):
        hub.attach(link := a_link(name))
        hub.detach(link)
        if name == "a":
            assert hub.hold("a", waiting, 100)
    assert [hub.known(name) for name in ("a", "b", "c", "d", "e")] == [False, False, True, True, True]
    assert waiting.given_up == 1
    assert hub.held == 0
    await asyncio.sleep(11)
    assert hub.known("e")


@virtual
async def test_a_waiter_may_leave_while_others_are_told() -> None:
    """A request that is told may cause another one's release in the same turn."""
    hub, _ = a_hub()
    hub.attach(link := a_link())
    hub.detach(link)
    last = Waiting()

    class Pushing(Waiting):
        def on_given_up(self) -> None:
            super().on_given_up()
            hub.release("demo", last)

        def on_ready(self, link: Link) -> None:
            super().on_ready(link)
            hub.release("demo", last)

    pushing = Pushing()
    assert hub.hold("demo", pushing, 100)
    assert hub.hold("demo", last, 100)
    await asyncio.sleep(11)
    assert pushing.given_up == 1
    assert hub.held == 0


@virtual
async def test_a_forgotten_name_is_nobodys() -> None:
    """Who was held for it is told, and the next visitor that there is no such tunnel."""
    hub, _ = a_hub()
    link, waiter = a_link(), Waiting()
    hub.attach(link)
    hub.detach(link)
    assert hub.hold("demo", waiter, 100)
    hub.forget("demo")
    assert (waiter.given_up, hub.held, hub.known("demo")) == (1, 0, False)
    hub.forget("demo")


# ---- bytes


@virtual
async def test_the_bytes_that_wait_are_bounded_per_name() -> None:
    """A request that is too much is not held, one that grows too much is told so; what leaves makes room."""
    hub, _ = a_hub(bytes_per_name=1000, bytes_in_all=10_000)
    hub.attach(link := a_link("x", "y"))
    hub.detach(link)
    first, second, third = Waiting(), Waiting(), Waiting()
    assert hub.hold("x", first, 600)
    assert not hub.hold("x", second, 401)
    assert hub.hold("x", second, 300)
    assert not hub.grow("x", second, 101)
    assert hub.grow("x", second, 100)
    assert not hub.hold("x", third, 1)
    assert hub.hold("y", third, 1000)
    assert (hub.held, hub.held_bytes) == (3, 2000)
    hub.release("x", first)
    assert (hub.held, hub.held_bytes) == (2, 1400)
    assert hub.grow("x", second, 600)
    hub.attach(a_link("x"))
    assert second.link is not None
    assert (hub.held, hub.held_bytes) == (1, 1000)
    await asyncio.sleep(11)
    assert (third.given_up, hub.held, hub.held_bytes) == (1, 0, 0)


@virtual
async def test_the_bytes_that_wait_are_bounded_in_all() -> None:
    """However they are spread over names."""
    hub, _ = a_hub(bytes_per_name=1000, bytes_in_all=1500)
    hub.attach(link := a_link("x", "y", "z"))
    hub.detach(link)
    first, second = Waiting(), Waiting()
    assert hub.hold("x", first, 800)
    assert hub.hold("y", second, 700)
    assert not hub.hold("z", Waiting(), 1)
    assert not hub.grow("y", second, 1)
    hub.release("x", first)
    assert hub.grow("y", second, 300)
    assert hub.hold("z", Waiting(), 500)
    assert hub.held_bytes == 1500


@virtual
async def test_what_does_not_wait_does_not_grow() -> None:
    """Neither before, nor elsewhere, nor after it was told."""
    hub, _ = a_hub()
    hub.attach(link := a_link("x"))
    hub.detach(link)
    waiter = Waiting()
    assert not hub.grow("x", waiter, 1)
    assert not hub.grow("y", waiter, 1)
    assert hub.hold("x", waiter, 1)
    hub.attach(a_link("x"))
    assert not hub.grow("x", waiter, 1)
    assert hub.held_bytes == 0


def test_the_bounds_unless_others_are_set() -> None:
    """Ten seconds; a thousand requests, 256 of them for one name; 16 MiB, of which 4."""
    bounds, mib = HoldBounds(), 1024 * 1024
    assert (bounds.seconds, bounds.per_name, bounds.in_all) == (10.0, 256, 1000)
    assert (bounds.bytes_per_name, bounds.bytes_in_all) == (4 * mib, 16 * mib)


# ---- after a start


@virtual
async def test_after_a_start_every_reserved_name_counts_as_just_dropped() -> None:
    """From the start on, not from the first request; and for none that is nobody's."""
    hub, _ = a_hub(seconds=10.0)
    hub.reserved |= {"early": "p", "late": "p", "served": "p"}
    hub.expect_all()
    early, late = Waiting(), Waiting()
    assert hub.hold("early", early, 1)
    assert not hub.hold("nobody's", Waiting(), 1)
    await asyncio.sleep(9.0)
    assert hub.hold("late", late, 1)
    link = a_link("early")
    hub.attach(link)
    assert (early.link, early.given_up) == (link, 0)
    await asyncio.sleep(1.1)
    assert (late.link, late.given_up) == (None, 1)
    assert not hub.hold("late", Waiting(), 1)
    assert not hub.hold("served", Waiting(), 1)
    assert hub.known("late")


@virtual
async def test_a_name_that_was_closed_after_a_start_is_not_waited_for() -> None:
    """Nor one that was released, nor any when the relay stops again."""
    hub, _ = a_hub()
    hub.reserved |= {"closed": "p", "released": "p", "other": "p"}
    hub.expect_all()
    waiter = Waiting()
    assert hub.hold("released", waiter, 1)
    del hub.reserved["released"]
    hub.forget("released")
    assert waiter.given_up == 1
    assert not hub.hold("released", Waiting(), 1)
    hub.attach(link := a_link("closed"))
    hub.dismiss(link, AwayCode.CLOSED, "closed")
    assert not hub.hold("closed", Waiting(), 1)
    hub.give_up()
    assert not hub.hold("other", Waiting(), 1)


@virtual
async def test_names_that_are_expected_take_no_room_until_somebody_asks() -> None:
    """And those asked for are remembered up to the bound, however many are reserved."""
    hub, _ = a_hub(in_all=2)
    hub.reserved |= {str(number): "p" for number in range(100)}
    hub.expect_all()
    assert not hub._offline
    held = [hub.hold(str(number), Waiting(), 1) for number in range(100)]
    assert held == [True, True] + [False] * 98
    assert len(hub._offline) == 2
