"""Passwords against hashes: what is remembered and for how long, how many run and wait, and how guessing is slowed."""

from __future__ import annotations

import asyncio
import threading

import argon2
import pytest

from relay.edge import passwords as room
from relay.edge.access import TooManyChecks
from relay.edge.passwords import Passwords, fits, prefix_of
from tests.support.clock import ManualClock, virtual

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
HASH = CHEAP.hash("swordfish")


class Work:
    """Checks that a test lets go on, one turn for each; remembers how many ran at once."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.turns = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __call__(self, known: str, password: str) -> bool:
        with self._lock:
            self.calls.append(password)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.turns.acquire(timeout=10)
        with self._lock:
            self.at_once -= 1
        return password == "swordfish"

    async def begun(self, count: int) -> None:
        """Until so many checks were begun in all."""
        async with asyncio.timeout(10):
            while len(self.calls) < count:
                await asyncio.sleep(0.001)

    def let(self, count: int) -> None:
        """So many may end."""
        for _ in range(count):
            self.turns.release()


def test_argon2_decides() -> None:
    """Right, wrong, empty and very long ones; a hash that argon2 cannot read fits nothing."""
    assert fits(HASH, "swordfish")
    for wrong in ("", "Swordfish", "swordfish ", "ß" * 1000):
        assert not fits(HASH, wrong)
    assert fits(CHEAP.hash("pä55 wörd:"), "pä55 wörd:")
    assert not fits("$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAB$AAAAAAAAAAAAAAAAAAAAAB", "x")


def test_no_memory_is_no_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay short of memory is busy; the visitor is not told that its password is wrong."""

    def fails(*_: object) -> bool:
        raise argon2.exceptions.VerificationError("Memory allocation error")

    monkeypatch.setattr("argon2.low_level.verify_secret", fails)
    with pytest.raises(TooManyChecks):
        fits(HASH, "swordfish")


async def test_what_was_found_is_remembered_for_a_while() -> None:
    """A right password for a minute, a wrong one for some seconds; each only with its own hash."""
    clock, work = ManualClock(), Work()
    work.let(2)
    checks = Passwords(clock, work)
    assert checks.remembered(HASH, "swordfish") is None
    assert await checks.check(HASH, "swordfish", "192.0.2.1")
    assert not await checks.check(HASH, "guess", "192.0.2.1")
    assert (checks.remembered(HASH, "swordfish"), checks.remembered(HASH, "guess")) == (True, False)
    assert checks.remembered(HASH + "x", "swordfish") is None
    clock.advance(room.REMEMBERED_WRONG)
    assert (checks.remembered(HASH, "swordfish"), checks.remembered(HASH, "guess")) == (True, None)
    clock.advance(room.REMEMBERED)
    assert checks.remembered(HASH, "swordfish") is None
    assert work.calls == ["swordfish", "guess"]


async def test_memory_is_bounded_and_guesses_do_not_push_out_what_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten first; right and wrong ones are counted apart. No password is kept as it is."""
    monkeypatch.setattr(room, "MOST_REMEMBERED", 3)
    checks = Passwords(ManualClock(), lambda known, password: password == "swordfish")
    await checks.check(HASH, "swordfish", "192.0.2.1")
    for number in range(5):
        await checks.check(HASH, f"wrong {number}", "192.0.2.1")
    assert checks.remembered(HASH, "swordfish")
    assert [checks.remembered(HASH, f"wrong {number}") for number in range(5)] == [None, None, False, False, False]
    assert "swordfish" not in repr(vars(checks))


async def test_a_few_at_once_and_the_others_wait() -> None:
    """However many ask: two run, the rest waits in the order in which it came."""
    work = Work()
    checks = Passwords(ManualClock(), work)
    asking = [asyncio.ensure_future(checks.check(HASH, str(n), f"192.0.2.{n}", f"project {n}")) for n in range(10)]
    await work.begun(2)
    work.let(10)
    assert await asyncio.gather(*asking) == [False] * 10
    assert work.most_at_once == room.AT_ONCE
    assert sorted(work.calls[:2]) == ["0", "1"]
    assert len(work.calls) == 10


async def test_the_same_password_at_the_same_time_is_checked_once() -> None:
    """The connections that a browser opens for one page; one that leaves takes nothing from the others."""
    work = Work()
    checks = Passwords(ManualClock(), work)
    asking = [asyncio.ensure_future(checks.check(HASH, "swordfish", "192.0.2.1")) for _ in range(6)]
    await work.begun(1)
    asking[0].cancel()
    work.let(1)
    assert await asyncio.gather(*asking[1:]) == [True] * 5
    assert work.calls == ["swordfish"]


async def test_more_than_may_wait_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """One above the bound in all, whoever asks; then there is room again."""
    monkeypatch.setattr(room, "MOST_WAITING", 10)
    work = Work()
    checks = Passwords(ManualClock(), work)
    asking = [asyncio.ensure_future(checks.check(HASH, str(n), f"192.0.2.{n}", f"project {n}")) for n in range(12)]
    await work.begun(2)
    with pytest.raises(TooManyChecks):
        await checks.check(HASH, "one more", "192.0.2.99")
    work.let(13)
    await asyncio.gather(*asking)
    assert not await checks.check(HASH, "one more", "192.0.2.99")


async def test_one_project_may_not_make_the_others_wait() -> None:
    """However dear its hashes and however many ask for it: the next project's check begins at once."""
    work = Work()
    checks = Passwords(ManualClock(), work)
    asking = [
        asyncio.ensure_future(checks.check(HASH, str(n), f"192.0.2.{n}", "dear")) for n in range(room.MOST_PER_PROJECT)
    ]
    await work.begun(1)
    with pytest.raises(TooManyChecks):
        await checks.check(HASH, "one more", "192.0.2.99", "dear")
    other = asyncio.ensure_future(checks.check(HASH, "swordfish", "192.0.2.99", "other"))
    await work.begun(2)
    assert sorted(work.calls) == ["0", "swordfish"]
    work.let(room.MOST_PER_PROJECT + 1)
    assert await other
    assert await asyncio.gather(*asking) == [False] * room.MOST_PER_PROJECT
    assert (checks._of_project, checks._turns, checks._wanted) == ({}, {}, {})


async def test_a_check_that_nobody_waits_for_does_not_run() -> None:
    """Whoever asks and leaves makes no work."""
    work = Work()
    checks = Passwords(ManualClock(), work)
    asking = [asyncio.ensure_future(checks.check(HASH, str(n), f"192.0.2.{n}")) for n in range(5)]
    await work.begun(1)
    for one in asking[1:4]:
        one.cancel()
    work.let(2)
    assert not await asking[4]
    assert work.calls == ["0", "4"]
    assert checks.remembered(HASH, "1") is None


async def test_one_address_may_not_take_all_the_room() -> None:
    """Above its share it is told so at once, while others are served; then it has room again."""
    work = Work()
    checks = Passwords(ManualClock(), work)
    asking = [asyncio.ensure_future(checks.check(HASH, str(n), "2001:db8::1")) for n in range(room.MOST_PER_ADDRESS)]
    await work.begun(1)
    with pytest.raises(TooManyChecks):
        await checks.check(HASH, "one more", "2001:db8::2")
    work.let(room.MOST_PER_ADDRESS + 2)
    assert await checks.check(HASH, "swordfish", "192.0.2.1")
    await asyncio.gather(*asking)
    assert await checks.check(HASH, "swordfish", "2001:db8::2")


@virtual
async def test_an_address_that_guesses_is_slowed_down() -> None:
    """After a few wrong ones each takes longer, up to a bound; other addresses, and the same one later, do not wait."""
    loop = asyncio.get_running_loop()
    checks = Passwords(loop.time, lambda known, password: password == "swordfish")

    async def guess(password: str, address: str) -> float:
        began = loop.time()
        assert not await checks.check(HASH, password, address)
        return round(loop.time() - began, 3)

    waited = [await guess(str(number), "2001:db8::1") for number in range(room.FREE_GUESSES + 9)]
    assert waited[: room.FREE_GUESSES + 1] == [0.0] * (room.FREE_GUESSES + 1)
    assert waited[room.FREE_GUESSES + 1 :][:4] == [0.1, 0.2, 0.4, 0.8]
    assert waited[-2:] == [room.LONGEST_DELAY] * 2
    assert await guess("a", "2001:db8:0:1::1") == 0.0
    assert await guess("b", "2001:db8::ffff") == room.LONGEST_DELAY  # the same household
    await asyncio.sleep(room.FORGIVEN_AFTER + 1)
    assert await guess("c", "2001:db8::1") == 0.0


@virtual
async def test_a_right_password_ends_the_slowing() -> None:
    """Somebody who remembered it in the end."""
    loop = asyncio.get_running_loop()
    checks = Passwords(loop.time, lambda known, password: password == "swordfish")
    for number in range(room.FREE_GUESSES + 3):
        await checks.check(HASH, str(number), "192.0.2.1")
    assert await checks.check(HASH, "swordfish", "192.0.2.1")
    began = loop.time()
    assert not await checks.check(HASH, "later", "192.0.2.1")
    assert loop.time() == began


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
    ],
)
def test_what_counts_as_one_address(address: str, prefix: str) -> None:
    """One IPv4 address, or one network of an IPv6 one."""
    assert prefix_of(address) == prefix
