"""The line for handshakes: order, turns, and who is told that it will not have its own in time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay.api.line import LOOK_EVERY, MOST_IN_LINE, MOST_OF_ONE, MOST_WAIT, TURN, Line
from tests.support.clock import ManualClock


class Loop:
    """Callbacks that wait for the next turn, and a clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.soon: list[Callable[[], None]] = []
        self.waits: list[float] = []
        """Seconds after which the line wanted to be called."""
        self.told: list[str] = []
        self.busy = False
        self.line = Line(self.clock, self.call_later, lambda: self.busy)

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        self.waits.append(seconds)
        self.soon.append(call)

    def turn(self) -> None:
        """Once round."""
        soon, self.soon[:] = list(self.soon), []
        for each in soon:
            each()


class Agent:
    """One who waits; its handshake takes so many seconds."""

    def __init__(self, loop: Loop, name: str, cost: float = 0.001) -> None:
        self.loop = loop
        self.name = name
        self.cost = cost

    def on_turn(self) -> None:
        self.loop.told.append(self.name)
        self.loop.clock.advance(self.cost)

    def on_too_long(self) -> None:
        self.loop.told.append(f"not {self.name}")


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_one_alone_has_its_turn_in_the_next(loop: Loop) -> None:
    """Not at once: whoever is read in this turn of the event loop comes first."""
    loop.line.join(Agent(loop, "a"), "1")
    assert loop.told == []
    loop.turn()
    assert loop.told == ["a"]
    assert loop.soon == []


def test_a_turn_takes_a_few_in_their_order(loop: Loop) -> None:
    """As many as there is time for, the first first; the others in the turns after it."""
    for number in range(30):
        loop.line.join(Agent(loop, str(number), cost=TURN / 10), str(number))
    turns = []
    while loop.soon:
        before = len(loop.told)
        loop.turn()
        turns.append(len(loop.told) - before)
    assert loop.told == [str(number) for number in range(30)]
    assert max(turns) <= 11
    assert len(turns) >= 3


def test_one_handshake_a_turn_at_least(loop: Loop) -> None:
    """However long it takes."""
    for name in "ab":
        loop.line.join(Agent(loop, name, cost=10 * TURN), name)
    loop.turn()
    assert loop.told == ["a"]
    loop.turn()
    assert loop.told == ["a", "b"]


def test_who_has_waited_too_long_is_told(loop: Loop) -> None:
    """Instead of having a turn for nothing; those behind who came later have theirs."""
    loop.line.join(Agent(loop, "early"), "1")
    loop.clock.advance(MOST_WAIT / 2)
    loop.line.join(Agent(loop, "late"), "2")
    loop.clock.advance(MOST_WAIT * 0.75)
    loop.turn()
    assert loop.told == ["not early", "late"]


def test_a_line_is_bounded_for_each_network_and_in_all(loop: Loop) -> None:
    """One too many is told at once, and there is room again when others have had their turns."""
    for number in range(MOST_OF_ONE + 1):
        loop.line.join(Agent(loop, f"a{number}", cost=0), "a")
    assert loop.told == [f"not a{MOST_OF_ONE}"]
    for number in range(MOST_IN_LINE):
        loop.line.join(Agent(loop, f"b{number}", cost=0), "")
    assert len(loop.told) == 1 + MOST_OF_ONE
    loop.turn()
    loop.told.clear()
    for number in range(MOST_OF_ONE):
        loop.line.join(Agent(loop, f"c{number}", cost=0), "a")
    loop.turn()
    assert loop.told == [f"c{number}" for number in range(MOST_OF_ONE)]


def test_who_leaves_is_told_nothing(loop: Loop) -> None:
    """And its place is free; leaving twice, or after a turn, is nothing."""
    agents = [Agent(loop, str(number)) for number in range(3)]
    for one in agents:
        loop.line.join(one, "1")
    loop.line.leave(agents[1])
    loop.line.leave(agents[1])
    loop.turn()
    loop.line.leave(agents[0])
    assert loop.told == ["0", "2"]
    for number in range(MOST_OF_ONE):
        loop.line.join(Agent(loop, f"again{number}", cost=0), "1")
    assert len(loop.told) == 2


def test_nobody_has_a_turn_while_those_before_are_judged(loop: Loop) -> None:
    """The line is looked after now and then, without using up the turns; who has waited too long is told even so."""
    loop.busy = True
    loop.line.join(Agent(loop, "a"), "1")
    for _ in range(3):
        loop.turn()
    assert loop.told == []
    assert loop.waits == [0.0, LOOK_EVERY, LOOK_EVERY, LOOK_EVERY]
    loop.clock.advance(MOST_WAIT / 2)
    loop.line.join(Agent(loop, "b"), "2")
    loop.clock.advance(MOST_WAIT * 0.75)
    loop.turn()
    assert loop.told == ["not a"]
    loop.busy = False
    loop.turn()
    assert loop.told == ["not a", "b"]
    assert loop.soon == []
