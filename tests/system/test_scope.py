"""What an admitted agent may do with its session, and no more: names, streams, other keys, other agents' places.

Agents are made by hand and break the rules one at a time. Beside them another project's agent serves the name `bee`,
whose visitors must never see a byte of theirs.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from relay.exchange.heads import ResponseHead, decode_request, encode_response
from relay.wire import frames
from relay.wire.errors import AwayCode
from relay.wire.hello import Hello, Refused, Renew, Welcome, decode_refused, decode_welcome, encode_hello, encode_renew
from tests.support.keys import Api
from tests.support.messages import Response
from tests.support.processes import DOMAIN, RelayProcess
from tests.support.rawhttp import exchange
from tests.system.forger import another_id, child, forged_keys, id_of, parts_of, signing_secret
from tests.system.handagent import HandAgent
from tests.system.hostileagent import frame

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUARANTINE = 1.0
SOON = 5.0
RACES = 5
EVIL = "bytes of somebody else"

_numbers = itertools.count(1)


class Rogue(HandAgent):
    """Says what a test wants once it is admitted; keeps requests for `/wait` until it is told to answer."""

    def __init__(self, port: int, hello: Hello, label: str = EVIL) -> None:
        super().__init__(port, hello, label=label)
        self.waiting: asyncio.Queue[int] = asyncio.Queue()
        """Streams of requests for `/wait`."""
        self._renewed: asyncio.Queue[Welcome | Refused] = asyncio.Queue()

    async def say(self, *raw: bytes) -> None:
        """Frames, whatever they are, in one message."""
        await self._connection.send(b"".join(raw))

    async def renew(self, key: str) -> Welcome | Refused:
        """What the relay says to another key."""
        await self.say(frame(frames.RENEW, 0, encode_renew(Renew(key))))
        return await asyncio.wait_for(self._renewed.get(), SOON)

    async def was_cut(self) -> list[int]:
        """The codes with which the relay ended this session, which it must do soon."""
        await asyncio.wait_for(self.ended.wait(), SOON)
        return self.away

    async def _take(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == frames.RENEWED:
            self._renewed.put_nowait(decode_welcome(payload))
        elif kind == frames.REFUSED:
            self._renewed.put_nowait(decode_refused(payload))
        elif kind == frames.OPEN_END and decode_request(payload).target == b"/wait":
            self.waiting.put_nowait(stream)
        else:
            await super()._take(kind, stream, payload)


def answer(stream: int, text: str = EVIL) -> bytes:
    """A whole response on a stream."""
    head = ResponseHead(200, b"OK", [(b"Content-Length", b"%d" % len(text))])
    return frame(frames.HEAD, stream, encode_response(head)) + frame(frames.DATA_END, stream, text.encode())


@dataclass
class House:
    """A relay with two projects."""

    relay: RelayProcess
    one: Api
    two: Api
    secret: bytes
    """The relay's signing key: no test of a rogue agent has it, but keys that are wrong must be signed rightly."""
    bee: Rogue = field(init=False)

    def hand(self, key: str, *names: str, instance: str = "", slot: int = 0, generation: int = 1) -> Rogue:
        """A link of an agent made by hand."""
        hello = Hello(instance or f"i{next(_numbers)}", slot, generation, key, names)
        return Rogue(self.relay.agents_port, hello)

    async def refused(self, key: str, *names: str, **hello: Any) -> Refused:
        """The refusal of such a hello; the link was ended."""
        async with self.hand(key, *names, **hello) as rogue:
            assert isinstance(rogue.answer, Refused), rogue.answer
            await rogue.was_cut()
            return rogue.answer

    async def get(self, name: str, path: str = "/") -> Response:
        """One request to a name."""
        request = f"GET {path} HTTP/1.1\r\nHost: {name}.{DOMAIN}\r\nConnection: close\r\n\r\n"
        return await exchange(self.relay.public_port, request.encode())

    async def served(self, name: str, text: str = EVIL) -> bool:
        """Whether an agent with this label answers for the name."""
        found = await self.get(name)
        return (found.status, found.body) == (200, text.encode())

    async def is_nobodys(self, name: str) -> bool:
        """Whether the relay knows of no such tunnel."""
        return (await self.get(name)).status == 404


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """Started once for all tests here; what they do, `bee` never notices."""
    async with RelayProcess(args=["--quarantine", f"{QUARANTINE}", "--hold", "0"]) as relay:
        one, two = await relay.api.create_project("one"), await relay.api.create_project("two")
        house = House(relay, one, two, signing_secret(relay.data))
        async with house.hand(await two.mint(), "bee", instance="bee") as house.bee:
            house.bee.label = "bee"
            yield house
            assert await house.served("bee", "bee")
            assert (house.bee.away, house.bee.ended.is_set()) == ([], False)
            assert set(house.bee.opened) == {b"/"}


@pytest.fixture
def name() -> str:
    """A name for each test."""
    return f"n{next(_numbers)}"


async def narrow(api: Api, *names: str, **scope: Any) -> str:
    """A child key for these names."""
    return await api.mint(scope={"names": list(names), **scope})


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", ["bee", "free", "own"])
async def test_a_second_hello_is_cut(house: House, name: str, second: str) -> None:
    """Whether it claims another project's name, a free one, or one that its key does allow."""
    wanted = {"bee": "bee", "free": f"{name}-free", "own": f"{name}-own"}[second]
    key = await narrow(house.one, name, f"{name}-own")
    async with house.hand(key, name) as rogue:
        assert await house.served(name)
        hello = Hello("again", 1, 2, key, (wanted,))
        await rogue.say(frame(frames.HELLO, 0, encode_hello(hello)), answer(1), answer(3))
        assert await rogue.was_cut() == [AwayCode.PROTOCOL_ERROR]
    assert not await house.served(wanted)
    assert (await house.get(name)).status == 503
    if wanted != "bee":
        assert await house.is_nobodys(wanted)


async def test_each_name_of_a_hello_is_checked(house: House, name: str) -> None:
    """One outside the scope, of another project or kept for the relay refuses all, also on a further link."""
    key = await narrow(house.one, name, f"{name}-*-x", "bee", "api")
    for names, code in (
        ((name, f"{name}-other"), "bad_key"),
        ((f"{name}-x",), "bad_key"),
        ((f"x{name}",), "bad_key"),
        ((f"{name}-a-x", f"{name}-a-xx"), "bad_key"),
        ((name, "bee"), "name_taken"),
        ((name, "api"), "name_reserved"),
    ):
        refused = await house.refused(key, *names)
        assert (refused.code, refused.retry_after) == (code, None)
        assert await house.is_nobodys(names[0])
    async with house.hand(key, name, f"{name}-a-b-x", instance="mine") as agent:
        assert isinstance(agent.answer, Welcome)
        assert (await house.refused(key, name, f"{name}-y", instance="mine", slot=1)).code == "bad_key"
        assert await house.served(name)
        assert await house.served(f"{name}-a-b-x")
        assert await house.is_nobodys(f"{name}-y")


async def test_a_key_opens_so_many_tunnels_at_once(house: House, name: str) -> None:
    """Counted over all agents that show it; one that ends makes room, and links of one tunnel are one tunnel."""
    key = await narrow(house.one, f"{name}*", tunnels=2)
    assert (await house.refused(key, name, f"{name}-2", f"{name}-3")).code == "too_many"
    async with house.hand(key, f"{name}-2"):
        async with house.hand(key, name, instance="a"), house.hand(key, name, instance="a", slot=1) as link:
            assert isinstance(link.answer, Welcome)
            assert (await house.refused(key, f"{name}-3")).code == "too_many"
            assert not await house.served(f"{name}-3")
        async with asyncio.timeout(SOON):  # until the relay has seen that the others left
            while True:
                async with house.hand(key, f"{name}-3") as third:
                    if isinstance(third.answer, Welcome):
                        break


async def test_another_projects_instance_and_slot_are_not_ours(house: House, name: str) -> None:
    """Whoever claims to be another agent's next link, or its newer generation, gets no name of it and ends nothing."""
    key = await house.one.mint()
    for slot, generation in ((0, 2**53), (1, 1)):
        refused = await house.refused(key, "bee", instance="bee", slot=slot, generation=generation)
        assert (refused.code, refused.retry_after) == ("name_taken", None)
        async with house.hand(key, f"{name}-{slot}", instance="bee", slot=slot, generation=generation) as twin:
            assert isinstance(twin.answer, Welcome)
            assert await house.served("bee", "bee")
            assert await house.served(f"{name}-{slot}")


# ---- streams ---------------------------------------------------------------------------------------------------------

STRANGE: dict[str, Callable[[int], bytes]] = {
    "a head": lambda number: frame(frames.HEAD, number, encode_response(ResponseHead(200, b"OK", []))),
    "a response": answer,
    "data": lambda number: frame(frames.DATA, number, EVIL.encode()),
    "an end": lambda number: frame(frames.END, number),
    "a reset": lambda number: frame(frames.RESET, number, bytes(3)),
    "credit": lambda number: frame(frames.CREDIT, number, (1).to_bytes(4, "big")),
    "a stream of its own": lambda number: frame(frames.OPEN_END, number, b"x"),
}


@pytest.mark.parametrize("what", STRANGE)
async def test_a_stream_that_was_never_opened_is_cut(house: House, name: str, what: str) -> None:
    """Whatever is said on it; that another agent has a stream of this number, with a visitor, changes nothing."""
    mine, theirs = await house.one.mint(), await house.two.mint()
    async with house.hand(theirs, f"{name}-other") as other:
        visitor = asyncio.create_task(house.get(f"{name}-other", "/wait"))
        stream = await asyncio.wait_for(other.waiting.get(), SOON)
        for number in (stream, 2, 2**31 - 1):
            async with house.hand(mine, name) as rogue:
                assert isinstance(rogue.answer, Welcome)
                await rogue.say(STRANGE[what](number))
                assert await rogue.was_cut() == [AwayCode.PROTOCOL_ERROR]
        assert not visitor.done()
        await other.say(answer(stream, "its own"))
        assert (await visitor).body == b"its own"
        assert other.away == []


async def test_a_stream_that_has_ended_says_nothing_more(house: House, name: str) -> None:
    """Frames for it are late: ignored, and never another visitor's, who has the next number."""
    async with house.hand(await house.one.mint(), name) as rogue:
        visitor = asyncio.create_task(house.get(name, "/wait"))
        first = await asyncio.wait_for(rogue.waiting.get(), SOON)
        await rogue.say(answer(first, "first"))
        assert (await visitor).body == b"first"
        visitor = asyncio.create_task(house.get(name, "/wait"))
        second = await asyncio.wait_for(rogue.waiting.get(), SOON)
        await rogue.say(answer(first), answer(first), answer(second, "second"))
        assert (await visitor).body == b"second"
        assert rogue.away == []


# ---- other keys on a live session ------------------------------------------------------------------------------------


async def wrong_keys(house: House, name: str) -> dict[str, tuple[str, str]]:
    """Keys that a session for `name` must not go on with, each with the code of its refusal."""
    good = await narrow(house.one, name)
    header, claims = parts_of(good)

    def like(**changed: object) -> str:
        return child(header, {**claims, **changed}, house.secret)

    revoked, cut_off = await narrow(house.one, name), await house.one.mint()
    await house.one.do("POST", f"/keys/{id_of(revoked)}/revoke", {})
    await house.one.do("POST", f"/keys/{id_of(cut_off)}/revoke", {"cascade": True})
    visitor = await house.one.mint("visitor", tunnel=name)
    keys = {
        "for another name": (await narrow(house.one, f"{name}-b"), "bad_key"),
        "for one tunnel of two": (await narrow(house.one, f"{name}*", tunnels=1), "too_many"),
        "of another project": (await house.two.mint(), "bad_key"),
        "revoked": (revoked, "revoked"),
        "revoked with a tree": (cut_off, "revoked"),
        "expired": (like(exp=claims["iat"] - 1, iat=1, nbf=1), "expired"),
        "wider than it was minted": (like(scp={"names": ["*"]}), "bad_key"),
        "unlike what it was minted for": (like(prj=parts_of(await house.two.mint())[1]["prj"]), "bad_key"),
        "never minted": (like(jti=another_id()), "bad_key"),
        "a visitor's": (visitor, "bad_key"),
        "a master's": (house.one.key, "bad_key"),
        "nothing": ("", "bad_key"),
    }
    return keys | {
        f"forged: {what}": (key, "expired" if what == "expired" else "bad_key")
        for what, key in forged_keys(good, house.secret).items()
    }


async def test_a_session_goes_on_with_no_worse_key(house: House, name: str) -> None:
    """Refused, each in its way, and the session stays what it was: until its own key is revoked, not the others."""
    own, wrong = await narrow(house.one, name, f"{name}-2"), await wrong_keys(house, name)
    async with house.hand(own, name, f"{name}-2") as rogue:
        for what, (key, code) in wrong.items():
            refused = await rogue.renew(key)
            assert isinstance(refused, Refused), what
            assert (what, refused.code) == (what, code)
            assert not key or key not in refused.message
        assert await house.served(name)
        assert await house.is_nobodys(f"{name}-b")
        await house.one.do("POST", f"/keys/{id_of(wrong['for one tunnel of two'][0])}/revoke", {})
        assert await house.served(name)
        await house.one.do("POST", f"/keys/{id_of(own)}/revoke", {})
        assert await rogue.was_cut() == [AwayCode.REVOKED]


async def test_a_new_key_replaces_the_old_one(house: House, name: str) -> None:
    """From then on the session lives and ends with the new key."""
    old, new = await narrow(house.one, name), await narrow(house.one, f"{name}*")
    async with house.hand(old, name) as agent:
        assert isinstance(await agent.renew(new), Welcome)
        await house.one.do("POST", f"/keys/{id_of(old)}/revoke", {})
        assert await house.served(name)
        await house.one.do("POST", f"/keys/{id_of(new)}/revoke", {})
        assert await agent.was_cut() == [AwayCode.REVOKED]


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"key":7}', b'{"key":"' + b"a" * 8193 + b'"}', b"[]", b"\xff\xff", b'{"key":"' + b"a" * 16384 + b'"}'],
    ids=["no key", "a number", "too long", "no object", "no JSON", "longer than its frame may be"],
)
async def test_a_malformed_new_key_is_cut(house: House, name: str, body: bytes) -> None:
    """It is no key at all."""
    async with house.hand(await house.one.mint(), name) as rogue:
        await rogue.say(frame(frames.RENEW, 0, body))
        assert await rogue.was_cut() == [AwayCode.PROTOCOL_ERROR]


async def test_a_session_ends_with_its_key(house: House, name: str) -> None:
    """When the key expires the session is cut and the key opens nothing more; one with a new key goes on."""
    keys = [await house.one.mint(life=3) for _ in range(2)]  # the first of them ends in the same second, or before
    async with house.hand(keys[1], f"{name}-1") as ends, house.hand(keys[0], f"{name}-2") as stays:
        assert isinstance(ends.answer, Welcome)
        assert isinstance(await stays.renew(await house.one.mint()), Welcome)
        assert await ends.was_cut() == [AwayCode.SHUTDOWN]
        now = time.time()
        assert all(now >= parts_of(key)[1]["exp"] for key in keys)
        for key in keys:
            assert (await house.refused(key, f"{name}-1")).code == "expired"
        assert (await house.get(f"{name}-1")).status == 503
        assert await house.served(f"{name}-2")


# ---- whose name it is ------------------------------------------------------------------------------------------------


async def test_two_projects_race_for_a_name(house: House, name: str) -> None:
    """One of them has it from then on, and its visitors see nobody else's bytes, whatever the other one does."""
    keys = {"one": await house.one.mint(), "two": await house.two.mint()}
    for race in range(RACES):
        wanted = f"{name}-{race}"
        async with AsyncExitStack() as stack:
            agents = {project: house.hand(key, wanted) for project, key in keys.items()}
            for project, agent in agents.items():
                agent.label = project
            await asyncio.gather(*(stack.enter_async_context(agent) for agent in agents.values()))
            winners = [project for project, agent in agents.items() if isinstance(agent.answer, Welcome)]
            assert len(winners) == 1
            assert await house.served(wanted, winners[0])
            (loser,) = keys.keys() - set(winners)
            refused = agents[loser].answer
            assert isinstance(refused, Refused)
            assert refused.code == "name_taken"
        assert (await house.refused(keys[loser], wanted)).code == "name_taken"


async def test_a_hello_races_a_reservation(house: House, name: str) -> None:
    """Of a project that reserves a name and another one's agent that claims it just then, one has it."""
    key = await house.two.mint()
    for race in range(RACES):
        wanted = f"{name}-{race}"
        async with AsyncExitStack() as stack:
            agent = house.hand(key, wanted)
            (status, _), _ = await asyncio.gather(
                house.one.ask("PUT", f"/subdomains/{wanted}", {}), stack.enter_async_context(agent)
            )
            assert (status < 300) is not isinstance(agent.answer, Welcome)
        items = (await house.relay.api.do("GET", "/subdomains?limit=500"))["items"]
        owners = {item["name"]: item["project_name"] for item in items}
        assert owners[wanted] == ("one" if status < 300 else "two")


async def test_a_released_name_is_kept_from_others_for_a_while(house: House, name: str) -> None:
    """Its agent is cut; its project may have it back at once, another one only after the quarantine."""
    keys = await house.one.mint(), await house.two.mint()
    async with house.hand(keys[0], name) as holder:
        assert isinstance(holder.answer, Welcome)
        await house.one.do("DELETE", f"/subdomains/{name}")
        assert await holder.was_cut() == [AwayCode.CLOSED]
    async with house.hand(keys[0], name) as back:
        assert isinstance(back.answer, Welcome)
    released = time.time()
    await house.one.do("DELETE", f"/subdomains/{name}")
    async with asyncio.timeout(QUARANTINE + SOON):
        while True:
            async with house.hand(keys[1], name) as other:
                if isinstance(other.answer, Welcome):
                    assert time.time() - released >= QUARANTINE
                    break
                assert other.answer.code == "name_taken"
            assert await house.is_nobodys(name)
    assert (await house.refused(keys[0], name)).code == "name_taken"
