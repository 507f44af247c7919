"""The key that an agent holds, over days of virtual time: when one is minted, for whom, what becomes of failures."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from relay.agent import keyholder as room
from relay.agent.config import Exit, FixedKey, KeyRefused, KeySource, MintedKey
from relay.agent.keyholder import KeyHolder
from relay.agent.link import LinkFailed, LinkRefused
from relay.wire.hello import Refused, Welcome
from tests.agent.keysource import DAY, Mint, Mover
from tests.support.clock import virtual

T = TypeVar("T")
HOUR = 3600.0
AWAY = KeyRefused("The relay cannot be reached.", False, Exit.UNEXPECTED)
NEVER = KeyRefused("The master key was revoked; start with another one.", True, Exit.KEY_REFUSED)


@pytest.fixture(autouse=True)
def clocks_are_looked_at_rarely(monkeypatch: pytest.MonkeyPatch) -> float:
    """A day has fewer steps so; how often it really is."""
    really = room.CHECK_EVERY
    monkeypatch.setattr(room, "CHECK_EVERY", 1800.0)
    return really


async def at_once(call: Callable[[], T], /) -> T:
    """Instead of a thread, which the virtual loop would not wait for."""
    return call()


class Live:
    """A session that is up, and takes a key, or fails as it is told to."""

    def __init__(self, slot: int, key: str) -> None:
        self.slot = slot
        self.key = key
        self.offered: list[tuple[float, str]] = []
        self.fails: list[Exception] = []

    async def renew(self, key: str) -> Welcome:
        self.offered.append((asyncio.get_running_loop().time(), key))
        await asyncio.sleep(0.01)
        if self.fails:
            raise self.fails.pop(0)
        self.key = key
        return Welcome("s", (), 5.0, 100)


class Life:
    """A holder on a virtual loop, whose wall clock may be set and jump; its sessions and what it reported."""

    def __init__(self, source: Callable[[Callable[[], float]], KeySource] = Mint) -> None:
        self.loop = asyncio.get_running_loop()
        self.start = self.loop.time()
        self.skipped = 0.0
        self.source: Any = source(self.now)
        self.events: list[dict[str, Any]] = []
        self.holder = KeyHolder(self.source, self.events.append, self.now, at_once)
        self.sessions: list[Live] = []
        self.task = asyncio.ensure_future(self.holder.keep_fresh(lambda: self.sessions))

    def now(self) -> float:
        return 1_750_000_000.0 + self.loop.time() + self.skipped

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    async def up(self, links: int) -> list[Live]:
        """Links that connect at the same time."""
        keys = await asyncio.gather(*(self.holder.key() for _ in range(links)))
        self.sessions += [Live(slot, key) for slot, key in enumerate(keys)]
        return self.sessions

    async def until_age(self, hours: float) -> None:
        """So many hours after the start."""
        await asyncio.sleep(self.start + hours * HOUR - self.loop.time())


@asynccontextmanager
async def a_life(source: Callable[[Callable[[], float]], KeySource] = Mint) -> AsyncIterator[Life]:
    life = Life(source)
    try:
        yield life
    finally:
        life.task.cancel()
        await asyncio.gather(life.task, return_exceptions=True)


def refused(code: str, retry_after: float | None = None) -> LinkRefused:
    return LinkRefused(Refused(code, "No.", retry_after))


# ---- a key for a link


@pytest.mark.parametrize("links", [1, 2, 4])
@virtual
async def test_one_key_for_all_links(links: int) -> None:
    """However many ask at the same time, one is minted; it is told by its id."""
    async with a_life() as life:
        await life.up(links)
        assert {one.key for one in life.sessions} == {"key-1"}
        assert life.source.asked == 1
        (minted,) = life.said("minted")
        assert "key-1" not in str(minted)
        assert minted["expires_at"] == "2025-06-16T15:23:20Z"


@virtual
async def test_a_link_that_comes_back_shows_the_key_that_is_held() -> None:
    """A relay that restarts all day long mints nothing."""
    async with a_life() as life:
        for hour in range(16):
            await life.until_age(hour)
            assert await life.holder.key() == "key-1"
        assert life.source.asked == 1


@virtual
async def test_a_source_that_is_away_is_asked_for_ever() -> None:
    """As a relay that cannot be reached: at once, then in growing intervals, each failure told; one asks for all."""
    async with a_life() as life:
        life.source.refusals = [AWAY] * 300
        start = life.loop.time()
        await life.up(4)
        assert life.source.asked == 301
        waits = [event["retry_in"] for event in life.said("mint_failed")]
        assert len(waits) == 300
        assert waits[0] == 0
        assert max(waits[:20]) <= 0.25
        assert 0.25 < max(waits) <= 30
        assert life.loop.time() - start == pytest.approx(sum(waits), abs=0.1)
        assert {event["message"] for event in life.said("mint_failed")} == {str(AWAY)}


@virtual
async def test_a_source_that_says_when_is_asked_then() -> None:
    """A registry that is busy may ask for patience."""
    async with a_life() as life:
        life.source.refusals = [KeyRefused("Busy.", False, Exit.UNEXPECTED, retry_after=7.0)]
        await life.up(1)
        assert life.said("mint_failed")[0]["retry_in"] == 7.0
        assert life.loop.time() - life.start == 7.0


@virtual
async def test_a_refusal_for_good_is_told_once_and_to_all_links() -> None:
    """The source is not asked again."""
    async with a_life() as life:
        life.source.refusals = [NEVER]
        ends = await asyncio.gather(*(life.holder.key() for _ in range(4)), return_exceptions=True)
        assert ends == [NEVER] * 4
        assert life.source.asked == 1
        assert life.said("mint_failed") == [{"event": "mint_failed", "message": str(NEVER), "retry_in": None}]


@virtual
async def test_a_key_that_the_relay_calls_expired_is_replaced_once() -> None:
    """One more is minted for all links that were told so; if the relay calls that expired too, its clock is wrong."""
    async with a_life() as life:
        await life.up(2)
        assert life.holder.replace("key-1")
        assert await life.holder.key() == "key-2"
        assert life.holder.replace("key-1")
        assert await life.holder.key() == "key-2"
        assert not life.holder.replace("key-2")
        life.holder.welcomed("key-2")
        assert life.holder.replace("key-2")
        assert await life.holder.key() == "key-3"


# ---- while links are up


@pytest.mark.parametrize("links", [1, 2, 4])
@virtual
async def test_a_key_is_replaced_at_two_thirds_of_its_life_on_every_live_session(links: int) -> None:
    """One mint for all, and so for ever: in four days each key lives as long as it should."""
    async with a_life() as life:
        sessions = await life.up(links)
        await life.until_age(4 * 24)
        offers = sessions[0].offered
        assert all(one.offered == offers for one in sessions)
        assert [key for _, key in offers] == [f"key-{number}" for number in range(2, 2 + len(offers))]
        ages = [now - before for before, (now, _) in zip([life.start, *(at for at, _ in offers)], offers, strict=False)]
        assert all(DAY * (2 / 3 - 0.011) <= age <= DAY * 2 / 3 + 1 for age in ages)
        assert life.source.asked == 1 + len(offers) == 7
        assert len(life.said("renewed")) == links * len(offers)
        assert {event["slot"] for event in life.said("renewed")} == set(range(links))
        assert await life.holder.key() == sessions[0].key


@virtual
async def test_without_a_session_the_next_key_is_held_all_the_same() -> None:
    """The agent was not connected when it was due."""
    async with a_life() as life:
        await life.up(0)
        await life.holder.key()
        await life.until_age(17)
        assert await life.holder.key() == "key-2"


@virtual
async def test_sleep_through_the_whole_life_of_a_key() -> None:
    """A machine that slept a day: the links that come back wait for one new key, and nobody shows the old one."""
    async with a_life() as life:
        sessions = await life.up(2)
        life.skipped += DAY
        sessions.clear()
        keys = await asyncio.gather(*(life.holder.key() for _ in range(2)))
        assert keys == ["key-2", "key-2"]
        await life.until_age(1)
        assert life.source.asked == 2


@virtual
async def test_sleep_past_the_time_to_renew_is_noticed_at_once(
    clocks_are_looked_at_rarely: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within half a minute of waking the live sessions have a new key."""
    monkeypatch.setattr(room, "CHECK_EVERY", clocks_are_looked_at_rarely)
    async with a_life() as life:
        (one,) = await life.up(1)
        await life.until_age(0.1)
        life.skipped += 17 * HOUR
        woke = life.loop.time()
        await life.until_age(0.2)
        [(at, key)] = one.offered
        assert key == "key-2"
        assert at - woke <= 30


@virtual
async def test_a_wall_clock_that_is_set_back_delays_nothing() -> None:
    """Renewal comes when two thirds have really passed."""
    async with a_life() as life:
        (one,) = await life.up(1)
        await life.until_age(1)
        life.skipped -= 365 * DAY
        await life.until_age(16.1)
        assert [key for _, key in one.offered] == ["key-2"]


@virtual
async def test_a_relay_whose_clock_is_a_year_ahead_changes_nothing() -> None:
    """Nor one that is behind: keys are neither over at once nor kept for ever."""
    for ahead in (-365 * DAY, 365 * DAY):
        async with a_life(lambda now, ahead=ahead: Mint(now, ahead=ahead)) as life:  # type: ignore[misc]
            (one,) = await life.up(1)
            await life.until_age(24)
            assert [key for _, key in one.offered] == ["key-2"]


# ---- renewals that fail


@virtual
async def test_a_source_that_is_away_at_renewal_is_asked_again_while_the_old_key_serves() -> None:
    """More and more rarely, and nobody is disturbed meanwhile."""
    async with a_life() as life:
        (one,) = await life.up(1)
        await life.until_age(15)
        life.source.refusals = [AWAY] * 4
        await life.until_age(22)
        assert [key for _, key in one.offered] == ["key-2"]
        waits = [event["retry_in"] for event in life.said("mint_failed")]
        assert len(waits) == 4
        assert waits[0] >= 0.005 * DAY
        assert waits[3] > waits[0]
        assert all(wait <= 0.05 * DAY for wait in waits)


@virtual
async def test_a_refusal_for_good_at_renewal_counts_only_when_the_old_key_has_ended() -> None:
    """Until then it is tried again; the last attempt is at the very end, and then the agent has no key."""
    async with a_life() as life:
        await life.up(1)
        life.source.refusals = [NEVER] * 1000
        await life.until_age(23.7)
        assert not life.task.done()
        assert await life.holder.key() == "key-1"
        await life.until_age(23.8)
        assert life.task.exception() is NEVER
        assert life.said("mint_failed")[-1]["retry_in"] is None
        before = life.source.asked
        with pytest.raises(KeyRefused):
            await life.holder.key()
        assert life.source.asked == before


@pytest.mark.parametrize(
    ("failure", "offered"),
    [
        (refused("registry_unavailable", 1.0), ["key-2"] * 4),
        (refused("bad_key"), ["key-2", "key-3", "key-4", "key-5"]),
        (LinkFailed("no answer"), ["key-2"] * 4),
    ],
    ids=["for now", "for good", "no answer"],
)
@virtual
async def test_a_renewal_that_fails_is_tried_again(failure: Exception, offered: list[str]) -> None:
    """By the same key, unless it was refused for good: then by another one. Each failure is told with its wait."""
    async with a_life() as life:
        (one,) = await life.up(1)
        one.fails = [failure] * 3
        await life.until_age(20)
        assert [key for _, key in one.offered] == offered
        assert one.key == offered[-1]
        failed = life.said("renewal_failed")
        assert [event["slot"] for event in failed] == [0, 0, 0]
        assert {event["code"] for event in failed} == {getattr(failure, "refused", Refused("", "")).code or None}
        assert all(0 < event["retry_in"] <= 0.05 * DAY for event in failed)
        assert len(life.said("minted")) == len(set(offered)) + 1


@virtual
async def test_a_key_that_every_session_refuses_is_not_shown_by_those_that_come_back() -> None:
    """They were admitted by the old one, which is valid still; at its end the new one has the better prospects."""
    async with a_life() as life:
        sessions = await life.up(2)
        for one in sessions:
            one.fails = [refused("registry_unavailable", 1.0)] * 1000
        await life.until_age(23)
        assert await life.holder.key() == "key-1"
        assert not life.task.done()
        await life.until_age(23.9)
        assert await life.holder.key() == "key-2"


@virtual
async def test_one_session_that_does_not_take_the_key_is_offered_it_again_alone() -> None:
    """The others live by it already, and so does whoever comes back."""
    async with a_life() as life:
        first, second = await life.up(2)
        second.fails = [LinkFailed("no answer")] * 2
        await life.until_age(16.1)
        assert (first.key, second.key) == ("key-2", "key-1")
        assert await life.holder.key() == "key-2"
        await life.until_age(18)
        assert second.key == "key-2"
        assert (len(first.offered), len(second.offered)) == (1, 3)
        assert life.source.asked == 2


@virtual
async def test_a_session_that_never_takes_a_key_keeps_nothing_from_the_others() -> None:
    """The next life begins as ever."""
    async with a_life() as life:
        first, second = await life.up(2)
        second.fails = [refused("bad_key")] * 10_000
        await life.until_age(40)
        assert second.key == "key-1"
        assert [key for _, key in first.offered] == ["key-2", "key-3"]
        assert life.source.asked == 3


# ---- keys given by hand


def a_token(issued: float, expires: float) -> str:
    """A child key as a relay would sign it, with a signature that nobody looks at here."""
    import base64
    import json

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"mtk_child_{part({'alg': 'EdDSA'})}.{part({'iat': issued, 'exp': expires})}.sig"


@pytest.mark.parametrize(
    "text", ["secret", "a.b.c", "mtk_child_x.e30.y", "..", a_token(float("nan"), 5), "x." + "W" * 4000 + ".y", "x.fQ.y"]
)
def test_a_key_that_says_nothing_of_itself_has_no_end(text: str) -> None:
    """It is shown for as long as the relay takes it."""
    assert FixedKey(text).fresh() == MintedKey(text, 0.0, math.inf, renewable=False)
    assert text not in repr(FixedKey(text))


@virtual
async def test_a_key_given_by_hand_is_never_replaced() -> None:
    """Not at its end, and not when the relay calls it expired; the developer is told once, while there is time."""
    loop = asyncio.get_running_loop()
    issued = 1_750_000_000.0 + loop.time() - 2 * HOUR
    text = a_token(issued, issued + DAY)
    async with a_life(lambda now: FixedKey(text)) as life:
        (one,) = await life.up(1)
        await life.until_age(19)
        assert life.events == []
        await life.until_age(30)
        (hint,) = life.events
        assert hint["event"] == "hint"
        assert "ends in 2 h 24 min" in hint["message"]
        assert one.offered == []
        assert await life.holder.key() == text
        assert not life.holder.replace(text)
        assert not life.holder.over(text)
        assert life.task.done()


@virtual
async def test_a_key_without_an_end_needs_no_care() -> None:
    """Nothing waits, nothing is told."""
    async with a_life(lambda now: FixedKey("secret")) as life:
        await life.up(1)
        await life.until_age(1)
        assert life.task.done()
        assert life.events == []


# ---- names of the same login


@virtual
async def test_a_source_without_claims_claims_nothing() -> None:
    """Most have none."""
    async with a_life() as life:
        assert not await life.holder.claim(("a",))


@pytest.mark.parametrize("moves", [True, False, KeyRefused("The login may not.", True, Exit.KEY_REFUSED)])
@virtual
async def test_names_are_claimed_once(moves: bool | Exception) -> None:
    """However many links ask; all of them hear what came of it, and a failure is a hint."""
    async with a_life(lambda now: Mover(now, moves)) as life:
        assert set(await asyncio.gather(*(life.holder.claim(("a", "b")) for _ in range(4)))) == {moves is True}
        assert life.source.claims == [("a", "b")]
        told = {True: {"event": "claimed", "subdomains": ["a", "b"]}}
        failed = {"event": "hint", "message": "The login may not."}
        assert life.events == ([told[True]] if moves is True else [failed] if moves else [])
