"""An agent and its key at a real relay side: shown, kept, renewed on live links, expired, revoked, taken by a claim."""

from __future__ import annotations

import asyncio
import threading

import pytest

from relay.agent import keyholder as keyholder_room
from relay.agent import shift as shift_room
from relay.agent.config import Exit, KeyRefused
from relay.wire.errors import AwayCode
from relay.wire.hello import Refused
from tests.agent.keysource import DAY, Mint, Mover
from tests.agent.localside import Service, on_every_loop
from tests.agent.relayside import a_relay, send_away, settings, until
from tests.agent.running import request, running, served
from tests.support.clock import ManualClock

SOON = 0.02
WHY = "The key mtk_child_a was revoked by mtk_master_b at 2025-06-15 12:00:00 UTC."


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks are looked at all the time, so that a jump of the wall clock is seen at once."""
    monkeypatch.setattr(keyholder_room, "CHECK_EVERY", 0.005)


# ---- one key


@pytest.mark.parametrize("links", [2, 4])
@on_every_loop
async def test_one_key_is_minted_for_all_links(links: int) -> None:
    """Before the first hello, off the event loop."""
    mint = Mint(ManualClock())
    async with served(links=links, keys=mint) as (relay, run):
        assert relay.answers.keys == ["key-1"] * links
        assert mint.asked == 1
        assert threading.main_thread() not in mint.threads
        kinds = [event["event"] for event in run.events]
        assert kinds.index("minted") < kinds.index("connected")
        assert "key-1" not in str(run.events)


@on_every_loop
async def test_a_relay_that_restarts_is_shown_the_key_that_is_held() -> None:
    """A restart mints no flood."""
    mint = Mint(ManualClock())
    async with served(links=2, keys=mint) as (relay, run):
        for count in (4, 6):
            for session in relay.sessions:
                session.abort("the relay restarts")
            await until(lambda: len(run.said("connected")) == count and len(relay.links) == 2)  # noqa: B023
        assert set(relay.answers.keys) == {"key-1"}
        assert mint.asked == 1


@on_every_loop
async def test_a_source_that_is_away_is_tried_until_it_answers() -> None:
    """The agent waits for its key as it waits for its relay, and says why."""
    mint = Mint(ManualClock())
    mint.refusals = [KeyRefused("The relay cannot be reached.", False, Exit.UNEXPECTED)] * 3
    async with served(keys=mint) as (relay, run):
        assert [event["message"] for event in run.said("mint_failed")] == ["The relay cannot be reached."] * 3
        assert relay.answers.keys == ["key-1"]


@on_every_loop
async def test_a_source_that_says_no_for_good_ends_the_agent() -> None:
    """With its sentence and its code; no link was dialled."""
    mint = Mint(ManualClock())
    mint.refusals = [KeyRefused("The master key may not do that.", True, Exit.KEY_REFUSED)]
    async with a_relay() as relay, running(settings(relay.url, links=4, keys=mint)) as run:
        assert await run.exits() == Exit.KEY_REFUSED
        assert run.said("mint_failed") == [
            {"event": "mint_failed", "message": "The master key may not do that.", "retry_in": None}
        ]
        assert mint.asked == 1
        assert relay.sessions == []


@on_every_loop
async def test_an_agent_that_waits_for_its_key_can_be_stopped() -> None:
    """At once, whatever the source waits for."""
    mint = Mint(ManualClock())
    mint.gate = threading.Event()
    async with a_relay() as relay, running(settings(relay.url, keys=mint)) as run:
        await until(lambda: mint.asked)
        assert await run.stop() == Exit.STOPPED
        mint.gate.set()


# ---- renewal


@on_every_loop
async def test_a_new_key_comes_to_every_live_link_and_disturbs_no_stream(impatient: None) -> None:
    """One mint for all links, at two thirds of a life; the answer that was under way arrives whole."""
    wall = ManualClock()
    mint = Mint(wall)
    async with Service() as service, served(links=3, keys=mint, port=service.port, now=wall) as (relay, run):
        owner = request(relay, slot=1)
        peer = await service.accept()
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        await until(lambda: bytes(owner.body) == b"first")
        wall.advance(0.67 * DAY)
        await until(lambda: len(run.said("renewed")) == 3)
        assert relay.answers.renewals == ["key-2"] * 3
        assert mint.asked == 2
        await peer.send(b"after")
        await until(lambda: owner.trailers is not None or owner.reset)
        assert bytes(owner.body) == b"firstafter"
        assert not run.said("disconnected")
        relay.links[0].session.abort("cut")
        await until(lambda: len(run.said("connected")) == 4)
        assert relay.answers.keys == ["key-1"] * 3 + ["key-2"]


@on_every_loop
async def test_a_link_that_only_finishes_has_its_key_renewed_too(impatient: None) -> None:
    """A long answer on a link that the relay sent away must not end with the key."""
    wall = ManualClock()
    async with Service() as service, served(keys=Mint(wall), port=service.port, now=wall) as (relay, run):
        owner = request(relay)
        peer = await service.accept()
        await peer.head()
        send_away(relay.sessions[0])
        await until(lambda: len(run.said("connected")) == 2)
        wall.advance(0.67 * DAY)
        await until(lambda: len(run.said("renewed")) == 2)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await until(lambda: owner.trailers is not None or owner.reset)
        assert bytes(owner.body) == b"ok"


@on_every_loop
async def test_a_renewal_that_is_refused_changes_nothing(impatient: None) -> None:
    """The link goes on by the old key, and so does one that comes back; the next attempt goes better."""
    wall = ManualClock()
    mint = Mint(wall)
    async with served(keys=mint, now=wall) as (relay, run):
        relay.answers.renewal_refusals = [Refused("registry_unavailable", "Later.", 1.0)]
        wall.advance(0.67 * DAY)
        await until(lambda: run.said("renewal_failed"))
        (failed,) = run.said("renewal_failed")
        assert (failed["slot"], failed["code"], failed["message"]) == (0, "registry_unavailable", "Later.")
        relay.links[0].session.abort("cut")
        await until(lambda: len(run.said("connected")) == 2)
        assert relay.answers.keys == ["key-1", "key-1"]
        wall.advance(failed["retry_in"] + 1)
        await until(lambda: run.said("renewed"))
        assert relay.answers.renewals == ["key-2", "key-2"]
        assert not run.said("refused")


@on_every_loop
async def test_a_machine_that_slept_a_day_comes_back_with_one_new_key() -> None:
    """The old one is over, which nobody needs to be told by the relay."""
    wall = ManualClock()
    mint = Mint(wall)
    async with served(links=2, keys=mint, now=wall) as (relay, run):
        wall.advance(DAY)
        for session in relay.sessions:
            session.abort("the machine slept")
        await until(lambda: len(run.said("connected")) == 4)
        assert relay.answers.keys == ["key-1"] * 2 + ["key-2"] * 2
        assert mint.asked == 2


# ---- expiry


@on_every_loop
async def test_a_key_that_the_relay_calls_expired_is_replaced() -> None:
    """Once for all links, without a word of refusal: the agent helped itself."""
    mint = Mint(ManualClock())
    async with a_relay() as relay:
        relay.answers.refusals = [Refused("expired", "The key has expired.")] * 2
        async with running(settings(relay.url, links=2, keys=mint)) as run:
            await until(lambda: len(run.said("connected")) == 2)
            assert sorted(relay.answers.keys) == ["key-1", "key-1", "key-2", "key-2"]
            assert not run.said("refused", "disconnected")


@on_every_loop
async def test_a_relay_that_calls_every_key_expired_is_left() -> None:
    """Its clock is wrong, and minting more would not help."""
    mint = Mint(ManualClock())
    async with a_relay() as relay:
        relay.answers.refusals = [Refused("expired", "The key has expired.")] * 9
        async with running(settings(relay.url, keys=mint)) as run:
            assert await run.exits() == Exit.KEY_REFUSED
            assert relay.answers.keys == ["key-1", "key-2"]
            assert run.said("refused")[0]["code"] == "expired"


@on_every_loop
async def test_a_key_given_by_hand_that_has_expired_ends_the_agent() -> None:
    """There is no other one to show."""
    async with served() as (relay, run):
        relay.answers.refusals = [Refused("expired", "The key has expired.")]
        relay.links[0].session.abort("cut")
        assert await run.exits() == Exit.KEY_REFUSED
        assert relay.answers.keys == ["good", "good"]


@on_every_loop
async def test_a_session_that_ends_with_its_key_is_followed_by_one_with_another() -> None:
    """A relay that says REVOKED to a key whose time is over says nothing that a new key would not cure."""
    wall = ManualClock()
    async with served(keys=Mint(wall), now=wall) as (relay, run):
        wall.advance(DAY)
        relay.sessions[0].close(AwayCode.REVOKED, "The key has expired.")
        await until(lambda: len(run.said("connected")) == 2)
        assert relay.answers.keys == ["key-1", "key-2"]
        assert not run.said("revoked")


@pytest.mark.parametrize("times", [1, 2])
@on_every_loop
async def test_a_new_key_that_a_node_does_not_know_yet_is_shown_once_more(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another node minted it a moment ago, and with it perhaps its signer; refused again, it is refused."""
    monkeypatch.setattr(shift_room, "KNOWN_AFTER", SOON)
    async with a_relay() as relay:
        relay.answers.refusals = [Refused("bad_key", "Unknown.")] * times
        async with running(settings(relay.url, keys=Mint(ManualClock()))) as run:
            if times == 1:
                await until(lambda: run.said("connected"))
                assert not run.said("refused", "disconnected")
            else:
                assert await run.exits() == Exit.KEY_REFUSED
            assert relay.answers.keys == ["key-1", "key-1"]


@on_every_loop
async def test_a_key_that_was_known_is_not_shown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was admitted a while ago and is refused now is refused for good."""
    wall = ManualClock()
    async with served(keys=Mint(wall), now=wall) as (relay, run):
        wall.advance(shift_room.NEW_KEY)
        relay.answers.refusals = [Refused("bad_key", "No.")]
        relay.links[0].session.abort("cut")
        assert await run.exits() == Exit.KEY_REFUSED
        assert relay.answers.keys == ["key-1"] * 2


# ---- the end of a key, of a tunnel, of a name


@pytest.mark.parametrize(
    ("away", "event", "code"),
    [
        (AwayCode.REVOKED, "revoked", Exit.KEY_REVOKED),
        (AwayCode.CLOSED, "tunnel_closed", Exit.TUNNEL_CLOSED),
    ],
)
@on_every_loop
async def test_a_verdict_on_one_link_ends_the_agent(away: AwayCode, event: str, code: Exit) -> None:
    """With the relay's sentence, told once; nothing is tried again, and no link is left."""
    async with served(links=3, keys=Mint(ManualClock())) as (relay, run):
        relay.sessions[1].close(away, WHY)
        assert await run.exits() == code
        assert run.said("revoked", "tunnel_closed", "refused") == [{"event": event, "message": WHY}]
        await until(lambda: all(session.ended for session in relay.sessions))
        assert len(relay.answers.hellos) == 3


@on_every_loop
async def test_a_verdict_on_all_links_is_told_once() -> None:
    """As a revocation does it."""
    async with served(links=4) as (relay, run):
        for session in relay.sessions:
            session.close(AwayCode.REVOKED, WHY)
        assert await run.exits() == Exit.KEY_REVOKED
        assert len(run.said("revoked")) == 1
        assert len(relay.answers.hellos) == 4


@on_every_loop
async def test_a_verdict_on_a_link_that_only_finishes_counts() -> None:
    """It was sent away before, and its last stream still ran."""
    async with Service() as service, served(port=service.port) as (relay, run):
        request(relay)
        await service.accept()
        send_away(relay.sessions[0])
        await until(lambda: len(run.said("connected")) == 2)
        relay.sessions[0].close(AwayCode.REVOKED, WHY)
        assert await run.exits() == Exit.KEY_REVOKED


@on_every_loop
async def test_a_name_that_moved_is_said_to_have() -> None:
    """The relay's own word for why a link ended is the reason; a relay that merely stops needs none."""
    async with served() as (relay, run):
        relay.answers.refusals = [Refused("name_taken", "The name belongs to another project.")]
        relay.sessions[0].close(AwayCode.SUPERSEDED, "the name moved to another project")
        assert await run.exits() == Exit.NAME_REFUSED
        assert run.said("disconnected")[0]["reason"] == "the name moved to another project"


@pytest.mark.parametrize("established", [False, True])
@pytest.mark.parametrize(
    ("refused", "event", "code"),
    [
        (Refused("revoked", WHY), "revoked", Exit.KEY_REVOKED),
        (Refused("tunnel_closed", "Closed."), "tunnel_closed", Exit.TUNNEL_CLOSED),
        (Refused("name_taken", "The name belongs to another project."), "refused", Exit.NAME_REFUSED),
        (Refused("too_many", "This key opens at most 1 tunnel."), "refused", Exit.KEY_REFUSED),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
@on_every_loop
async def test_a_refusal_without_a_time_is_the_end(refused: Refused, event: str, code: Exit, established: bool) -> None:
    """At the start and after a link broke, and of all links; the key is not shown again."""
    async with a_relay() as relay:
        if not established:
            relay.answers.refusals = [refused]
        async with running(settings(relay.url, links=2 if established else 1, keys=Mint(ManualClock()))) as run:
            if established:
                await until(lambda: len(relay.links) == len(run.said("connected")) == 2)
                relay.answers.refusals = [refused]
                relay.links[0].session.abort("cut")
            assert await run.exits() == code
            (told,) = run.said("refused", "revoked", "tunnel_closed")
            assert (told["event"], told["message"]) == (event, refused.message)
            assert len(relay.answers.hellos) == (3 if established else 1)


@pytest.mark.parametrize("retry_after", [None, SOON])
@on_every_loop
async def test_a_registry_that_is_away_is_waited_for(retry_after: float | None) -> None:
    """Nothing was decided about the key."""
    async with a_relay() as relay:
        relay.answers.refusals = [Refused("registry_unavailable", "Later.", retry_after)] * 3
        async with running(settings(relay.url)) as run:
            await until(lambda: run.said("established"))
            assert len(relay.answers.hellos) == 4


# ---- names of the same login


@on_every_loop
async def test_a_name_of_the_same_login_is_taken_over_at_the_start() -> None:
    """Once for all links, and each tries again; the refusal is not told, because it was cured."""
    mover = Mover(ManualClock(), moves=True)
    async with a_relay() as relay:
        relay.answers.refusals = [Refused("name_taken", "Taken.")] * 2
        async with running(settings(relay.url, links=2, keys=mover, names=("a", "b"))) as run:
            await until(lambda: len(run.said("connected")) == 2)
            assert mover.claims == [("a", "b")]
            assert mover.asked == 1
            assert run.said("claimed", "refused") == [{"event": "claimed", "subdomains": ["a", "b"]}]


@pytest.mark.parametrize("moves", [True, False])
@on_every_loop
async def test_a_name_that_is_refused_after_all_is_the_end(moves: bool) -> None:
    """The source is asked once, whatever it answers."""
    mover = Mover(ManualClock(), moves=moves)
    async with a_relay() as relay:
        relay.answers.refusals = [Refused("name_taken", "Taken.", 5.0)] * 9
        async with running(settings(relay.url, keys=mover)) as run:
            assert await run.exits() == Exit.NAME_REFUSED
            assert mover.claims == [("demo",)]
            assert len(relay.answers.hellos) == 1 + moves


@pytest.mark.parametrize("retry_after", [None, SOON])
@on_every_loop
async def test_a_name_is_never_taken_back(retry_after: float | None) -> None:
    """Two agents of one login would take it from each other for ever: whoever lost it later lost it."""
    mover = Mover(ManualClock(), moves=True)
    async with served(keys=mover) as (relay, run):
        relay.answers.refusals = [Refused("name_taken", "Taken.", retry_after)]
        relay.links[0].session.abort("cut")
        if retry_after is None:
            assert await run.exits() == Exit.NAME_REFUSED
        else:
            await until(lambda: len(run.said("connected")) == 2)
        assert mover.claims == []


@on_every_loop
async def test_a_source_that_fails_in_its_claim_leaves_the_refusal_as_it_is() -> None:
    """Why it failed is a hint."""
    mover = Mover(ManualClock(), KeyRefused("The login may not move names.", True, Exit.KEY_REFUSED))
    async with a_relay() as relay:
        relay.answers.refusals = [Refused("name_taken", "Taken.")]
        async with running(settings(relay.url, keys=mover)) as run:
            assert await run.exits() == Exit.NAME_REFUSED
            assert run.said("hint") == [{"event": "hint", "message": "The login may not move names."}]
            assert run.said("refused")[0]["message"] == "Taken."


@on_every_loop
async def test_a_defect_of_a_source_ends_the_agent_with_its_own_code() -> None:
    """It is reported; nothing half-dead is left."""
    mint = Mint(ManualClock())
    mint.refusals = [ZeroDivisionError("no such number")]
    loop = asyncio.get_running_loop()
    before, troubles = loop.get_exception_handler(), []
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    async with a_relay() as relay, running(settings(relay.url, keys=mint)) as run:
        assert await run.exits() == Exit.UNEXPECTED
        assert "ZeroDivisionError" in run.said("error")[0]["message"]
    loop.set_exception_handler(before)
    assert len(troubles) == 1
