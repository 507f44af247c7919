"""From a carrier to a link: hello and its deadline, admission, twins and rivals, strangers, renewal, the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from relay.keys.scopes import Scope
from relay.tunnels.admission import Principal
from relay.tunnels.crowds import FAILURES_AT_ONCE
from relay.tunnels.doorway import HASTY, HASTY_WEIGHT, HELLO_WITHIN, PROVEN_WEIGHT
from relay.tunnels.rivals import PROBE_WITHIN
from relay.wire import frames
from relay.wire.errors import AwayCode
from relay.wire.frames import encode, encode_going_away
from relay.wire.hello import Hello, Refused
from tests.mux.ends import Owner, f_data, f_head, f_open, f_ping, settle
from tests.support.clock import virtual
from tests.tunnels.agents import House, Keys, Knocker


class SlowKeys(Keys):
    """Whose registry is locked."""

    async def admit(self, hello: Hello, address: str) -> Principal | Refused:
        await asyncio.sleep(60)
        return await super().admit(hello, address)


def names_of(house: House) -> dict[str, list[int]]:
    """Live names, with the slots of their links."""
    return {name: [link.slot for link in tunnel.links] for name, tunnel in house.hub.tunnels.items()}


@virtual
async def test_a_good_hello_is_welcomed() -> None:
    """The welcome names each tunnel's address and how to behave; from then on the names are alive."""
    house = House()
    agent = await house.agent("demo", "other")
    welcome = agent.welcome
    assert welcome is not None
    assert welcome.tunnels == (
        ("demo", "http://demo.tunnels.localhost:8080"),
        ("other", "http://other.tunnels.localhost:8080"),
    )
    assert (welcome.version, welcome.ping_interval, welcome.max_streams, welcome.relay) == (1, 5.0, 4096, "test/1")
    assert welcome.session
    assert names_of(house) == {"demo": [0], "other": [0]}
    assert agent.kinds()[0] == "WELCOME"
    assert house.reports == [("agent_up", ("demo", "other"))]


@virtual
async def test_two_sessions_have_two_names() -> None:
    """The session's name in the welcome is its own."""
    house = House()
    one, two = await house.agent("x", slot=0), await house.agent("x", slot=1)
    assert one.welcome is not None
    assert two.welcome is not None
    assert one.welcome.session != two.welcome.session


@virtual
async def test_an_agent_that_leaves_takes_its_names_along() -> None:
    """When the connection breaks, and at once when the agent says that it goes."""
    house = House()
    agent = await house.agent()
    await agent.leave()
    assert house.hub.tunnels == {}
    agent = await house.agent()
    await agent.send(encode_going_away(AwayCode.SHUTDOWN, 0, "bye"))
    assert house.hub.tunnels == {}
    assert agent.lost is None
    await agent.leave()
    assert house.reports == [("agent_up", ("demo",)), ("agent_down", ("demo",))] * 2


# ---- hellos that are not welcome


@virtual
async def test_silence_is_refused_after_the_hellos_time() -> None:
    """No hello: refused, with a retry, and closed; pings do not prolong it, and before that nothing happens."""
    house = House()
    knocker = house.knock()
    await knocker.send(f_ping())
    await asyncio.sleep(HELLO_WITHIN - 0.1)
    assert knocker.kinds() == []
    await asyncio.sleep(0.2)
    assert knocker.refused_as == ("bad_hello", 1.0)
    assert knocker.lost is not None


@virtual
async def test_a_key_that_takes_too_long_is_not_called_a_missing_hello() -> None:
    """The registry may be slow: the agent comes back, and reads why."""
    house = House(SlowKeys())
    agent = await house.agent("demo")
    await asyncio.sleep(HELLO_WITHIN + 0.1)
    assert agent.refused_as == ("overloaded", 1.0)
    assert house.hub.tunnels == {}


@virtual
async def test_an_admitted_agent_is_not_timed() -> None:
    """The hello's deadline is over with the welcome, also for an agent that is silent but for its pongs."""
    house = House()
    agent = await house.agent()
    await asyncio.sleep(100)
    assert agent.lost is None
    assert names_of(house) == {"demo": [0]}


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        (b"{}", "names"),
        (b"[]", "object"),
        (b"\xff\xfe", "JSON"),
        (b'{"names":["UPPER"]}', "UPPER"),
        ('{"names":["…' + "é" * 70 + '"]}', "subdomain"),
    ],
)
@virtual
async def test_a_malformed_hello_is_refused_with_what_is_wrong(payload: bytes | str, word: str) -> None:
    """`bad_hello` for good, the member named; nobody was asked for its key."""
    house = House()
    knocker = house.knock()
    await knocker.send(encode(frames.HELLO, 0, payload.encode() if isinstance(payload, str) else payload))
    assert knocker.refused_as == ("bad_hello", None)
    assert knocker.refused is not None
    assert word in knocker.refused.message
    assert knocker.lost is not None
    assert house.keys.asked == []


@virtual
async def test_a_bad_key_is_refused_and_closed() -> None:
    """With the admission's own words, and no name comes up."""
    house = House()
    agent = await house.agent(key="stolen")
    assert agent.refused_as == ("bad_key", None)
    assert agent.lost is not None
    assert (house.hub.tunnels, house.reports) == ({}, [])


@virtual
async def test_a_version_in_common_is_needed() -> None:
    """Without one: refused before any key is looked at, and the relay's version is said. With one: welcome."""
    house = House()
    agent = await house.agent(versions=(2, 3))
    assert agent.refused_as == ("version", None)
    assert agent.refused is not None
    assert "version 1" in agent.refused.message
    assert house.keys.asked == []
    agent = await house.agent(versions=(7, 1))
    assert agent.welcome is not None
    assert agent.welcome.version == 1


@virtual
async def test_a_second_hello_breaks_the_protocol() -> None:
    """After the first, admitted or not yet, and so do the relay's own frames."""
    house = House()
    agent = await house.agent()
    await agent.hello(generation=5)
    assert agent.blamed("HELLO out of place")
    assert house.hub.tunnels == {}
    for kind in (frames.WELCOME, frames.REFUSED, frames.RENEWED):
        knocker = house.knock()
        await knocker.send(encode(kind, 0, b"{}"))
        assert knocker.blamed("out of place")


@virtual
async def test_a_stranger_may_say_nothing_else() -> None:
    """Renewal, streams and data before the welcome end the connection."""
    for frame in (encode(frames.RENEW, 0, b'{"key":"good"}'), f_open(1), f_data(1)):
        house = House()
        knocker = house.knock()
        await knocker.send(frame)
        assert knocker.verdict is not None
        assert knocker.verdict[0] == AwayCode.PROTOCOL_ERROR
        assert knocker.lost is not None


@virtual
async def test_an_agent_opens_no_streams() -> None:
    """Also after the welcome: OPEN from that side is a protocol error."""
    house = House()
    agent = await house.agent()
    await agent.send(f_open(2))
    assert agent.blamed("OPEN")
    assert house.hub.tunnels == {}


@virtual
async def test_an_agent_that_goes_before_it_was_admitted_never_comes_up() -> None:
    """It breaks off, or says that it goes (too early), while its key is looked at: no name is left behind."""
    for goes in ("breaks", "says so"):
        house = House()
        gate = asyncio.Event()
        admit = house.keys.admit

        async def slow(hello: object, admit: object = admit, gate: asyncio.Event = gate) -> object:
            await gate.wait()
            return await admit(hello)  # type: ignore[operator]

        house.keys.admit = slow  # type: ignore[method-assign,assignment]
        agent = await house.agent()
        if goes == "breaks":
            await agent.leave()
        else:
            await agent.send(encode_going_away(AwayCode.SHUTDOWN, 0))
            assert agent.blamed("GOING_AWAY before the handshake")
        gate.set()
        await settle()
        assert names_of(house) == {}, goes
        assert house.reports == []


@virtual
async def test_admission_that_fails_refuses_and_asks_to_come_again() -> None:
    """A defect behind the door is no reason to keep the agent waiting for another verdict."""
    troubles: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    house = House()
    house.keys.fail = RuntimeError("the registry is away")
    agent = await house.agent()
    code, retry = agent.refused_as
    assert code == "overloaded"
    assert retry is not None
    assert agent.lost is not None
    assert len(troubles) == 1


# ---- twins and rivals


@virtual
async def test_a_newer_generation_evicts_its_twin_at_once() -> None:
    """Same instance, same slot: the old link is told `superseded` and the name does not blink."""
    house = House()
    old = await house.agent(generation=1)
    old.answers = False
    new = await house.agent(generation=2)
    assert new.welcome is not None
    assert old.verdict is not None
    assert old.verdict[0] == AwayCode.SUPERSEDED
    assert old.lost is not None
    assert names_of(house) == {"demo": [0]}
    assert house.hub.tunnels["demo"].links[0].generation == 2


@virtual
async def test_a_twin_that_was_sent_away_finishes_what_it_carries() -> None:
    """The relay told the old link to come anew: the new one takes its place, and streams on the old one go on."""
    house = House()
    old = await house.agent(generation=1)
    session = house.hub.tunnels["demo"].links[0].session
    owner = Owner()
    owner.stream = session.open(b"request", True, owner)
    session._last_id = frames.MAX_STREAM_ID - 4
    session.open(b"the last", True, Owner())
    new = await house.agent(generation=2)
    assert new.welcome is not None
    assert [link.generation for link in house.hub.tunnels["demo"].links] == [2]
    await old.send(f_head(1), f_data(1, b"answer", ended=True))
    assert (bytes(owner.body), owner.trailers) == (b"answer", b"")
    newest = await house.agent(generation=3)
    assert newest.welcome is not None
    assert new.lost is not None


@pytest.mark.parametrize("generation", [4, 5])
@virtual
async def test_an_older_generation_is_refused(generation: int) -> None:
    """An equal or older twin is asked to come later; the live one stays."""
    house = House()
    live = await house.agent(generation=5)
    late = await house.agent(generation=generation)
    assert late.refused_as == ("stale_generation", 1.0)
    assert live.lost is None
    assert names_of(house) == {"demo": [0]}


@virtual
async def test_another_slot_is_one_more_link() -> None:
    """Links of one instance share their names."""
    house = House()
    for slot in (2, 0, 1):
        assert (await house.agent(slot=slot)).welcome is not None
    assert names_of(house) == {"demo": [0, 1, 2]}


@virtual
async def test_a_rival_that_answers_keeps_its_name() -> None:
    """The newcomer of the same project is refused, with a retry; the holder is not disturbed."""
    house = House()
    holder = await house.agent(instance="a")
    newcomer = await house.agent(instance="b")
    assert newcomer.refused_as == ("name_taken", 5.0)
    assert newcomer.refused is not None
    assert "'demo'" in newcomer.refused.message
    assert holder.lost is None
    assert names_of(house) == {"demo": [0]}


@virtual
async def test_a_rival_that_does_not_answer_is_evicted() -> None:
    """All links of the dead holder go, after the probe's time and no later, and the newcomer is welcomed."""
    house = House()
    holders = [await house.agent("demo", "more", instance="a", slot=slot) for slot in (0, 1)]
    await asyncio.sleep(1.0)
    for holder in holders:
        holder.answers = False
    newcomer = house.knock()
    await newcomer.hello("demo", instance="b")
    await asyncio.sleep(PROBE_WITHIN - 0.1)
    assert newcomer.welcome is None
    await asyncio.sleep(0.2)
    assert newcomer.welcome is not None
    assert all(holder.lost is not None for holder in holders)
    assert {name: tunnel.instance for name, tunnel in house.hub.tunnels.items()} == {"demo": "b"}


@virtual
async def test_one_link_that_answers_is_enough() -> None:
    """A holder with one dead link of two is alive."""
    house = House()
    dead = await house.agent(instance="a", slot=0)
    await house.agent(instance="a", slot=1)
    await asyncio.sleep(1.0)
    dead.answers = False
    newcomer = house.knock()
    await newcomer.hello(instance="b")
    await asyncio.sleep(1.0)
    assert newcomer.refused_as == ("name_taken", 5.0)
    assert names_of(house) == {"demo": [0, 1]}


@virtual
async def test_another_project_is_always_refused() -> None:
    """Dead or alive, a name is not taken over from another project; the refusal is for good, and nobody is probed."""
    house = House(Keys(foreign="theirs"))
    holder = await house.agent(instance="a")
    await asyncio.sleep(1.0)
    holder.answers = False
    foreign = await house.agent(instance="b", key="foreign")
    assert foreign.refused_as == ("name_taken", None)
    assert holder.lost is None
    assert names_of(house) == {"demo": [0]}


@virtual
async def test_another_project_cannot_pass_for_the_same_agent() -> None:
    """The same instance and slot with another project's key: no name is shared, no link evicted."""
    house = House(Keys(foreign="theirs"))
    holder = await house.agent("demo", instance="a", slot=0)
    assert (await house.agent("demo", instance="a", slot=1, key="foreign")).refused_as == ("name_taken", None)
    assert (await house.agent("demo", instance="a", slot=0, generation=9, key="foreign")).refused_as[0] == "name_taken"
    assert (await house.agent("other", instance="a", slot=0, generation=9, key="foreign")).welcome is not None
    assert holder.lost is None
    assert names_of(house) == {"demo": [0], "other": [0]}


@virtual
async def test_two_newcomers_for_a_dead_name_do_not_both_win() -> None:
    """Both wait for the probe; one is welcomed, the other told that it came too late, and to try again."""
    house = House()
    holder = await house.agent(instance="a")
    await asyncio.sleep(1.0)
    holder.answers = False
    newcomers = [house.knock() for _ in range(2)]
    for at, newcomer in enumerate(newcomers):
        await newcomer.hello(instance=f"b{at}")
    await asyncio.sleep(1.0)
    welcomed = [newcomer for newcomer in newcomers if newcomer.welcome is not None]
    assert len(welcomed) == 1
    (late,) = [newcomer for newcomer in newcomers if newcomer.welcome is None]
    code, retry = late.refused_as
    assert (code, retry) == ("name_taken", 1.0)
    assert names_of(house) == {"demo": [0]}


@virtual
async def test_all_names_of_a_hello_or_none() -> None:
    """One taken name refuses the whole hello."""
    house = House()
    await house.agent("taken", instance="a")
    both = await house.agent("free", "taken", instance="b")
    assert both.refused_as[0] == "name_taken"
    assert names_of(house) == {"taken": [0]}


# ---- strangers


@virtual
async def test_strangers_are_bounded_per_address_and_in_all() -> None:
    """One too many is told to come again, at once; others are not touched; room comes back when one goes or enters."""
    house = House(most_strangers=5, most_strangers_per_address=3)
    crowd = [house.knock("192.0.2.1") for _ in range(3)]
    await settle()
    late = house.knock("192.0.2.1")
    await settle()
    assert late.refused_as == ("overloaded", 1.0)
    assert late.lost is not None
    elsewhere = [house.knock("192.0.2.2") for _ in range(2)]
    full = house.knock("192.0.2.3")
    await settle()
    assert full.refused_as == ("overloaded", 1.0)
    assert all(knocker.refused is None for knocker in crowd + elsewhere)
    await crowd[0].hello("x", instance="x")
    await crowd[1].leave()
    assert crowd[0].welcome is not None
    again = [house.knock("192.0.2.1"), house.knock("192.0.2.1")]
    await settle()
    assert all(knocker.refused is None for knocker in again)


@virtual
async def test_strangers_that_come_and_go_are_not_remembered() -> None:
    """After many of them, refused ones too, everybody is let in again."""
    house = House(most_strangers=3, most_strangers_per_address=2)
    for _ in range(20):
        knockers = [house.knock() for _ in range(4)]
        await settle()
        for knocker in knockers:
            await knocker.leave()
    assert (await house.agent()).welcome is not None
    agents: list[Knocker] = []
    for slot in range(4):
        agents.append(await house.agent("more", instance="many", slot=slot))
    assert all(agent.welcome is not None for agent in agents)


# ---- strangers that come in vain


async def failures_of(*knocks: Callable[[House], Awaitable[object]], keys: Keys | None = None) -> float:
    """What such a visit at the door counts."""
    house = House(keys)
    await house.agent("taken", instance="holder")
    for knock in knocks:
        await knock(house)
    bucket = house.doorway.failures._buckets.get("192.0.2.1")
    return 0.0 if bucket is None else FAILURES_AT_ONCE - bucket.tokens


async def hang_up(house: House) -> None:
    knocker = house.knock()
    await settle()
    await knocker.leave()


async def hang_up_late(house: House) -> None:
    knocker = house.knock()
    await asyncio.sleep(HASTY)
    await knocker.leave()


async def talk_nonsense(house: House) -> None:
    knocker = house.knock()
    await knocker.send(b"nonsense")


async def say_hello_and_go(house: House) -> None:
    house.keys.admit = lambda *_: asyncio.sleep(60)  # type: ignore[method-assign,assignment]
    knocker = house.knock()
    await knocker.hello("x")
    await knocker.leave()


async def wait_in_vain(house: House) -> None:
    house.knock()
    await asyncio.sleep(HELLO_WITHIN + 1)


@pytest.mark.parametrize(
    ("knock", "weight"),
    [
        (lambda house: house.agent("x", key="stolen"), 1.0),
        (lambda house: house.agent("x", versions=(9,)), 1.0),
        (lambda house: house.agent("taken", instance="rival"), PROVEN_WEIGHT),
        (lambda house: house.agent("taken", instance="holder", generation=0), PROVEN_WEIGHT),
        (wait_in_vain, PROVEN_WEIGHT),
        (hang_up, HASTY_WEIGHT),
        (talk_nonsense, HASTY_WEIGHT),
        (say_hello_and_go, HASTY_WEIGHT),
        (hang_up_late, 0.0),
        (lambda house: house.agent("free", instance="welcome"), 0.0),
    ],
)
@virtual
async def test_what_counts_as_coming_in_vain(knock: Callable[[House], Awaitable[object]], weight: float) -> None:
    """A refusal, less where the key was a good one; a handshake for nothing, much less; no patience that ended."""
    assert await failures_of(knock) == pytest.approx(weight)


@pytest.mark.parametrize("code", ["overloaded", "registry_unavailable"])
@virtual
async def test_what_is_the_relays_own_doing_is_not_counted(code: str) -> None:
    """Whoever is told to come again comes again."""
    house = House()
    house.keys.second_thought = Refused(code, "Later.", 1.0)
    assert (await house.agent("x")).refused_as == (code, 1.0)
    house.doorway.go_away("restarting")
    await house.agent("y")
    full = House(most_strangers=0)
    full.knock()
    await settle()
    assert not house.doorway.failures._buckets
    assert not full.doorway.failures._buckets


@virtual
async def test_strangers_of_one_ipv6_network_are_one() -> None:
    """Whoever has one address of it has them all."""
    house = House(most_strangers_per_address=2)
    knockers = [house.knock(f"2001:db8:1:2::{number}") for number in range(3)]
    elsewhere = house.knock("2001:db8:1:3::1")
    await settle()
    assert [knocker.refused is None for knocker in knockers] == [True, True, False]
    assert elsewhere.refused is None


@virtual
async def test_the_links_of_one_key_are_bounded() -> None:
    """Those included that left and have not ended; another key has its own; who leaves makes room."""
    house = House(Keys(other="default"), most_links_per_key=2)
    one = await house.agent("one", instance="a")
    await house.agent("two", instance="b")
    late = await house.agent("three", instance="c")
    assert late.refused_as == ("too_many", 10.0)
    await one.send(encode_going_away(AwayCode.SHUTDOWN, 0, "bye"))
    assert (await house.agent("three", instance="c")).refused_as == ("too_many", 10.0)
    assert (await house.agent("three", instance="c", key="other")).welcome is not None
    await one.leave()
    assert (await house.agent("four", instance="d")).welcome is not None


@virtual
async def test_a_link_that_was_renewed_counts_for_its_new_key() -> None:
    """And no longer for the old one."""
    house = House(Keys(newer="default"), most_links_per_key=1)
    agent = await house.agent("one", instance="a")
    await agent.renew("newer")
    assert agent.renewed
    assert (await house.agent("two", instance="b", key="newer")).refused_as[0] == "too_many"
    other = await house.agent("two", instance="b")
    assert other.welcome is not None
    await agent.leave()
    await other.leave()
    assert not house.hub.by_key


@virtual
async def test_admission_hears_why_an_admitted_key_was_refused_all_the_same() -> None:
    """For the audit: names that are taken, older links, too much of something; at a renewal too."""
    house = House(Keys(other="another project"))
    agent = await house.agent("demo", instance="a", generation=5)
    await house.agent("demo", instance="b")
    await house.agent("demo", instance="a", generation=4)
    await house.agent("demo", instance="c", key="other")
    house.keys.scope = Scope(tunnels=1)
    await house.agent("more", instance="d")
    house.keys.second_thought = Refused("revoked", "It was revoked.")
    await agent.renew("good")
    assert house.keys.told == [
        ("id of good", "name_taken"),
        ("id of good", "stale_generation"),
        ("id of other", "name_taken"),
        ("id of good", "too_many"),
        ("id of good", "revoked"),
    ]


# ---- renewal


@virtual
async def test_a_new_key_on_a_live_session() -> None:
    """A good one is answered with the session's values; a bad one is refused; the session lives on either way."""
    house = House(Keys(newer="default"))
    agent = await house.agent("demo")
    await agent.renew("newer")
    (renewed,) = agent.renewed
    assert renewed.tunnels == (("demo", "http://demo.tunnels.localhost:8080"),)
    await agent.renew("stolen")
    assert agent.refused_as == ("bad_key", None)
    await asyncio.sleep(20)
    assert agent.lost is None
    assert house.keys.asked == ["good", "newer", "stolen"]
    assert names_of(house) == {"demo": [0]}


@virtual
async def test_a_malformed_renewal_breaks_the_protocol() -> None:
    """A body without a key ends the session."""
    house = House()
    agent = await house.agent()
    await agent.send(encode(frames.RENEW, 0, b'{"key":7}'))
    assert agent.blamed("key")


@virtual
async def test_a_renewal_that_cannot_be_judged_leaves_the_session_alone() -> None:
    """A defect behind the door is answered with a refusal and a time to try again."""
    troubles: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
    house = House()
    agent = await house.agent()
    house.keys.fail = RuntimeError("the registry is away")
    await agent.renew("good")
    assert agent.refused_as[0] == "overloaded"
    house.keys.fail = None
    await agent.renew("good")
    assert len(agent.renewed) == 1
    assert agent.lost is None
    assert len(troubles) == 1


@virtual
async def test_renewals_come_one_at_a_time() -> None:
    """A second one before the first is answered ends the session: an agent cannot pile up checks of keys."""
    house = House()
    agent = await house.agent()
    await agent.send(*[encode(frames.RENEW, 0, b'{"key":"good"}')] * 1000)
    assert agent.blamed("RENEW")
    assert len(house.keys.asked) <= 2


# ---- the end


@virtual
async def test_a_doorway_that_goes_away_takes_nobody_new() -> None:
    """Agents are told and go on serving what they have, new requests too; whoever comes is asked to come again."""
    house = House()
    agent, stranger = await house.agent(), house.knock()
    house.doorway.go_away("restarting")
    await settle()
    assert agent.verdict == (AwayCode.SHUTDOWN, "restarting")
    assert agent.lost is None
    link = house.hub.tunnels["demo"].choose()
    assert link is not None
    link.session.open(b"request", True, Owner())
    assert stranger.refused_as == ("draining", 0.25)
    assert (await house.agent(instance="b")).refused_as == ("draining", 0.25)


@virtual
async def test_whose_key_is_judged_when_the_relay_goes_away_hears_it_with_the_verdict() -> None:
    """No link comes up on a relay that has just sent all of them away."""
    house = House()
    holder, late = await house.agent("held", instance="h"), house.knock()
    await asyncio.sleep(1.0)
    holder.answers = False
    await late.hello("held", instance="b")
    assert late.refused is None
    house.doorway.go_away("restarting")
    await asyncio.sleep(1.0)
    assert late.refused_as == ("draining", 0.25)


@virtual
async def test_closing_ends_everything() -> None:
    """Admitted or not, everybody is told why, and no task or name is left."""
    house = House()
    agent, stranger = await house.agent(), house.knock()
    waiting = house.knock()
    holder = await house.agent("held", instance="h")
    await asyncio.sleep(1.0)
    holder.answers = False
    await waiting.hello("held", instance="b")
    await house.doorway.aclose("the relay stops")
    await settle()
    for knocker in (agent, stranger, waiting, holder):
        assert knocker.verdict == (AwayCode.SHUTDOWN, "the relay stops")
        assert knocker.lost is not None
    assert house.hub.tunnels == {}
    assert len(asyncio.all_tasks()) == 1


# ---- what is asked right before it counts


@virtual
async def test_the_last_word_is_asked_when_everything_else_is_done() -> None:
    """A key that was revoked while its agent waited at the door stays outside."""
    house = House()
    house.keys.second_thought = Refused("revoked", "It was revoked.")
    agent = await house.agent()
    assert agent.refused_as == ("revoked", None)
    assert house.hub.tunnels == {}


@virtual
async def test_the_last_word_counts_for_a_new_key_too() -> None:
    """The session goes on with the key that it has."""
    house = House()
    agent = await house.agent()
    house.keys.second_thought = Refused("revoked", "It was revoked.")
    await agent.renew("good")
    assert agent.refused_as == ("revoked", None)
    assert agent.renewed == []
    assert agent.lost is None


@virtual
async def test_a_key_opens_as_many_tunnels_as_its_scope_says() -> None:
    """Over all its agents; the same name on another link is no second tunnel."""
    house = House()
    house.keys.scope = Scope(tunnels=2)
    await house.agent("one", instance="a")
    await house.agent("one", instance="a", slot=1)
    await house.agent("two", instance="b")
    third = await house.agent("three", instance="c")
    assert third.refused_as == ("too_many", None)
    assert set(house.hub.tunnels) == {"one", "two"}


@virtual
async def test_a_new_key_must_cover_the_tunnels_that_are_open() -> None:
    """Their number too: a narrower key for a session with more of them is refused, and the session goes on."""
    house = House()
    agent = await house.agent("one", "two")
    house.keys.scope = Scope(tunnels=1)
    await agent.renew("good")
    assert agent.refused_as == ("too_many", None)
    assert (agent.renewed, agent.lost) == ([], None)
    house.keys.scope = Scope(tunnels=2)
    await agent.renew("good")
    assert len(agent.renewed) == 1


@virtual
async def test_a_name_that_moved_is_taken_from_its_live_agent() -> None:
    """At once, whether that one answers or not: the registry says whose it is."""
    house = House(Keys(other="another project"))
    old = await house.agent("demo", instance="a")
    house.hub.reserved["demo"] = "another project"
    new = await house.agent("demo", instance="b", key="other")
    assert new.welcome is not None
    assert old.lost is not None
    assert "GOING_AWAY" in old.kinds()
    assert house.hub.tunnels["demo"].project == "another project"
