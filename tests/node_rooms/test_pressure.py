"""Memory that gets short: when a level is reached and left, what each does, and that nothing stays of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from relay.edge.services import Services, Timeouts
from relay.node.pressure import PRESSED_WINDOW, TRIM_EVERY, Pressure, budget_of, next_level
from relay.tunnels.hub import Hub, Link
from tests.support.clock import virtual
from tests.tunnels.test_hub import a_hub, a_link

MIB = 1024 * 1024
BUDGET = 1000 * MIB


@pytest.mark.parametrize(
    ("shares", "levels"),
    [
        ((0.5, 0.79, 0.80, 0.89, 0.90, 0.94, 0.95, 1.5), (0, 0, 1, 1, 2, 2, 3, 3)),
        ((0.95, 0.91, 0.90, 0.899, 0.86, 0.85, 0.849, 0.76, 0.75, 0.749), (3, 3, 3, 2, 2, 2, 1, 1, 1, 0)),
        ((0.2, 0.99, 0.2), (0, 3, 0)),
        ((0.81, 0.79, 0.81, 0.76, 0.81), (1, 1, 1, 1, 1)),
    ],
)
def test_levels_are_reached_at_once_and_left_with_a_margin(shares: tuple[float, ...], levels: tuple[int, ...]) -> None:
    """So that a share which wavers about a border does not change what is done at every look."""
    level, found = 0, []
    for share in shares:
        level = next_level(share, level)
        found.append(level)
    assert tuple(found) == levels


@pytest.mark.parametrize(
    ("setting", "granted", "budget"), [(7, 100, 7), (None, 100, 75), (None, None, None), (7, None, 7)]
)
def test_the_budget(setting: int | None, granted: int | None, budget: int | None) -> None:
    """What was set, else three quarters of what there is."""
    assert budget_of(setting, granted) == budget


@dataclass
class Memory:
    """`used` is in use, `kept` was freed and is not given back until that is asked for."""

    used: int = 0
    kept: int = 0
    asked: int = 0
    takes: float = 0.001
    """Seconds, to give it back."""

    def resident(self) -> int:
        return self.used + self.kept

    def give_back(self) -> float:
        self.asked += 1
        self.kept = 0
        return self.takes


@dataclass
class Ear:
    """A listener."""

    said: list[str] = field(default_factory=list)
    fails: int = 0
    """So often it cannot be done."""

    def pause(self) -> None:
        self.said.append("pause")

    async def resume(self) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError("no descriptor is left")
        self.said.append("resume")


class Place:
    """A hub under pressure; `now` passes a second with every look."""

    def __init__(self, budget: int | None = BUDGET) -> None:
        self.memory = Memory()
        self.hub: Hub = a_hub()[0]
        self.services = Services(self.hub, "tunnels.localhost", Timeouts())
        self.reports: list[dict[str, object]] = []
        self.ear = Ear()
        self.pressure = Pressure(budget, self.memory, self.services, self.reports.append)
        self.pressure.listeners.append(self.ear)
        self.now = 100.0

    async def used(self, share: float, after: float = TRIM_EVERY) -> int:
        """The level once so much is in use."""
        self.memory.used = int(BUDGET * share)
        self.now += after
        await self.pressure.check(self.now)
        return self.services.level


def window_of(link: Link) -> int:
    return link.session.window.most


@virtual
async def test_each_change_is_reported_once() -> None:
    """With what is used, and of how much."""
    at = Place()
    for share in (0.5, 0.85, 0.85, 0.92, 0.3, 0.3):
        await at.used(share)
    assert [(report["level"], report["resident"]) for report in at.reports] == [
        (1, 850 * MIB),
        (2, 920 * MIB),
        (0, 300 * MIB),
    ]
    assert all((report["event"], report["budget"]) == ("pressure", BUDGET) for report in at.reports)


@virtual
async def test_nobody_is_accepted_at_the_last_level() -> None:
    """Until it is left; who comes meanwhile waits."""
    at = Place()
    await at.used(0.92)
    assert at.ear.said == []
    await at.used(0.96)
    await at.used(0.97)
    assert at.ear.said == ["pause"]
    await at.used(0.91)
    assert at.ear.said == ["pause"]
    await at.used(0.8)
    assert at.ear.said == ["pause", "resume"]


@virtual
async def test_accepting_again_is_tried_until_it_succeeds() -> None:
    """The system may be as short of something as we were."""
    at = Place()
    await at.used(0.96)
    at.ear.fails = 2
    for said in (["pause"], ["pause"], ["pause", "resume"], ["pause", "resume"]):
        assert await at.used(0.1) == 0
        assert at.ear.said == said


@virtual
async def test_a_relay_that_drains_decides_itself_who_is_let_in() -> None:
    """The level changes, its listeners are left alone."""
    at = Place()
    at.services.draining = True
    assert await at.used(0.99) == 3
    assert await at.used(0.1) == 0
    assert at.ear.said == []


@virtual
async def test_windows_are_small_while_memory_is_short() -> None:
    """Those of links that came meanwhile too; and what they were before when it is over."""
    at = Place()
    at.hub.attach(early := a_link("early"))
    whole = window_of(early)
    early.session.window.size = whole
    await at.used(0.7)
    assert window_of(early) == whole > PRESSED_WINDOW
    await at.used(0.8)
    assert (window_of(early), early.session.window.size) == (PRESSED_WINDOW, PRESSED_WINDOW)
    at.hub.attach(late := a_link("late", instance="b"))
    await at.used(0.8, after=0.1)
    assert window_of(late) == PRESSED_WINDOW
    await at.used(0.3)
    assert (window_of(early), window_of(late)) == (whole, whole)


@virtual
async def test_what_is_kept_and_not_used_is_given_back_first() -> None:
    """No level for that; and it is asked for now and then, not at every look."""
    at = Place()
    at.memory.kept = 600 * MIB
    assert await at.used(0.3) == 0
    assert (at.memory.asked, at.reports) == (1, [])
    at.memory.kept = 600 * MIB
    assert await at.used(0.3, after=0.1) == 2
    assert at.memory.asked == 1
    assert await at.used(0.3) == 0
    assert at.memory.asked == 2
    await at.used(0.3)
    assert at.memory.asked == 2


@virtual
async def test_a_large_heap_is_not_gone_through_all_the_time() -> None:
    """Nothing else goes on meanwhile: a twentieth of the time at the most."""
    at = Place()
    at.memory.takes = 0.4
    for _ in range(80):  # at a second each
        await at.used(0.85)
    assert at.memory.asked == 10


@pytest.mark.parametrize("nothing", [lambda at: None, lambda at: setattr(at.memory, "used", 0)])
@virtual
async def test_without_a_budget_there_is_no_pressure(nothing: Callable[[Place], None]) -> None:
    """On a machine that does not tell what it has."""
    at = Place(None)
    nothing(at)
    assert await at.used(50) == 0
    assert at.reports == []
