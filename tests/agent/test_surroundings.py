"""What befalls a machine is told from two looks at its clocks and its network, and nothing is told that did not."""

from __future__ import annotations

import asyncio
import math
import socket
from typing import Any

import pytest

from relay.agent import surroundings as surroundings_room
from relay.agent.surroundings import LOOK_EVERY, Look, Watch, befallen, counting_sleep, is_gone, way_to
from tests.support.clock import virtual

PEER = ("198.51.100.7", 443)
HOME = (PEER, "192.168.1.20")
BEFORE = Look(1000.0, 5000.0, 1.7e9, HOME)


def after(
    steady: float = LOOK_EVERY, asleep: float = 0.0, wall: float = 0.0, way: tuple[tuple[str, int], str] | None = HOME
) -> Look:
    """A look so many seconds later, `asleep` of which no steady clock saw; the wall clock was set forward by `wall`."""
    passed = steady + asleep
    return Look(BEFORE.steady + steady, BEFORE.awake_or_not + passed, BEFORE.wall + passed + wall, way)


WOKE: dict[str, tuple[Look, float]] = {
    "asleep for an hour": (after(asleep=3600), 3600),
    "asleep, and the clock was set": (after(asleep=3600, wall=-7200), 3600),
    "stopped for 12 s": (after(13.0), 12.0),
    "asleep in another network": (after(asleep=60, way=(PEER, "10.0.0.5")), 60),
}
OTHERS: dict[str, tuple[Look, dict[str, object] | None]] = {
    "nothing": (after(), None),
    "a busy moment": (after(9.0), None),
    "a short sleep": (after(asleep=4.0), None),
    "another network": (
        after(way=(PEER, "10.0.0.5")),
        {"event": "network_changed", "address": "10.0.0.5"},
    ),
    "no network": (after(way=(PEER, "")), None),
    "another relay": (after(way=(("203.0.113.9", 443), "10.0.0.5")), None),
    "no relay": (after(way=None), None),
    "clock set forward by a year": (after(wall=365 * 86400.0), {"event": "clock_changed", "by": 365 * 86400.0}),
    "clock set back by an hour": (after(wall=-3600), {"event": "clock_changed", "by": -3600}),
    "clock corrected by a second": (after(wall=1), None),
}


@pytest.mark.parametrize("name", WOKE)
def test_a_machine_that_slept(name: str) -> None:
    """The clock that counts sleep tells, or that nothing happened for long; whatever the wall clock says."""
    look, asleep = WOKE[name]
    told = befallen(BEFORE, look)
    assert told is not None
    assert told["event"] == "woke"
    assert math.isclose(float(str(told["asleep"])), asleep, abs_tol=0.11)


@pytest.mark.parametrize("name", OTHERS)
def test_what_else_befalls_a_machine(name: str) -> None:
    """A clock that was set is no sleep; a network that went is no other one."""
    look, told = OTHERS[name]
    assert befallen(BEFORE, look) == told


def test_a_network_that_comes_back() -> None:
    """It is told even if it is the same one."""
    gone = BEFORE._replace(way=(PEER, ""))
    assert befallen(gone, after()) == {"event": "network_changed", "address": HOME[1]}


def test_the_first_connection_is_no_change() -> None:
    """Before it nobody knew where the relay is."""
    assert befallen(BEFORE._replace(way=None), after()) is None


def test_the_way_to_a_peer() -> None:
    """On this machine it is loopback's own address; an address that is none leads nowhere."""
    assert way_to(("127.0.0.1", 443)) == "127.0.0.1"
    assert way_to(("255.255.255.255", 443)) == ""
    with socket.socket(socket.AF_INET6) as wire:
        if wire.connect_ex(("::1", 9)) != 99:  # EADDRNOTAVAIL: no IPv6 here
            assert way_to(("::1", 443)) == "::1"


@pytest.mark.parametrize(("address", "gone"), [("127.0.0.1", False), ("192.0.2.77", True), ("2001:db8::77", True)])
def test_an_address_that_this_machine_has(address: str, gone: bool) -> None:
    """Its own are not gone; those for documentation nobody has (RFC 5737, RFC 3849)."""
    assert is_gone(address) is gone


def test_the_clock_that_counts_sleep_runs() -> None:
    """It is a clock of this machine: it does not go back."""
    assert counting_sleep() <= counting_sleep()


@virtual
async def test_looks_are_taken_for_ever_and_what_befell_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that the telling takes is no sleep; what befalls the machine meanwhile is not missed."""
    loop = asyncio.get_running_loop()
    asleep = 0.0
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(surroundings_room, "counting_sleep", lambda: loop.time() + asleep)

    async def tell(event: dict[str, object]) -> None:
        nonlocal asleep
        told.append(event)
        await asyncio.sleep(5)
        if len(told) == 2:
            asleep += 30

    watching = asyncio.ensure_future(Watch(lambda: loop.time() + asleep, tell).run())
    await asyncio.sleep(100)
    assert told == []
    asleep += 600
    await asyncio.sleep(500)
    assert told == [{"event": "woke", "asleep": 600.0}]
    asleep += 600
    await asyncio.sleep(500)
    assert [event["asleep"] for event in told] == [600.0, 600.0, 35.0]
    watching.cancel()


@virtual
async def test_the_network_is_compared_with_that_of_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that changed before the first look at it is told too; whom nobody speaks to is not asked for."""
    loop = asyncio.get_running_loop()
    asked: list[tuple[str, int]] = []
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(surroundings_room, "counting_sleep", loop.time)

    def way(peer: tuple[str, int]) -> str:
        asked.append(peer)
        return "10.0.0.5"

    monkeypatch.setattr(surroundings_room, "way_to", way)

    async def tell(event: dict[str, object]) -> None:
        told.append(event)

    watch = Watch(loop.time, tell)
    watching = asyncio.ensure_future(watch.run())
    await asyncio.sleep(10.5)
    assert (asked, told) == ([], [])
    watch.connected(PEER, "192.168.1.20")
    await asyncio.sleep(10)
    assert told == [{"event": "network_changed", "address": "10.0.0.5"}]
    assert set(asked) == {PEER}
    watching.cancel()
