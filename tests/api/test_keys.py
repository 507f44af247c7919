"""Keys over HTTP: listed, shown, rotated with an overlap, revoked alone or as a tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relay.keys.forms import Kind
from relay.keys.private import PrivateKey
from tests.api.world import DAY, Holder, World, b64, world


async def revoke(at: World, who: Holder, key_id: str, **wish: Any) -> tuple[int, Any]:
    """(status, body)."""
    answer = await at.ask(who, "POST", f"/keys/{key_id}/revoke", wish)
    return answer.status, answer.json


async def rotate(at: World, who: Holder, key_id: str, **wish: Any) -> tuple[int, Any, Holder]:
    """(status, body, whoever has the new key)."""
    private = PrivateKey.generate(who.record.kind)
    answer = await at.ask(who, "POST", f"/keys/{key_id}/rotate", {"public_key": b64(private.public), **wish})
    record = (await at.registry.keys.find([private.id])).get(private.id, who.record)
    return answer.status, answer.json, Holder(record, private)


def counts(**given: int) -> dict[str, int]:
    """What a revocation answers."""
    return {"operator": 0, "master": 0, "child": 0, "visitor": 0, "remaining": 0} | given


async def test_keys_are_listed_by_project_kind_and_state(tmp_path: Path) -> None:
    """A master sees its project; an operator all, or what is asked for; pages hold every key once."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one")
        two, other = await at.project(operator, "two")
        child = await at.signed(Kind.CHILD, master, one.id)
        short = await at.signed(Kind.CHILD, master, one.id, expires_at=at.clock() + 5)
        visitor = await at.signed(Kind.VISITOR, master, one.id)
        foreign = await at.signed(Kind.CHILD, other, two.id)
        await revoke(at, operator, visitor.id)
        at.clock.advance(10)

        async def listed(who: Holder, query: str = "") -> set[str]:
            answer = await at.ask(who, "GET", f"/keys{query}")
            assert answer.status == 200
            return {one["id"] for one in answer.json["items"]}

        mine = {master.id, child.id, short.id, visitor.id}
        assert await listed(master) == await listed(operator, "?project=one") == await listed(master, "?project=one")
        assert await listed(master) == mine
        assert await listed(operator) == mine | {operator.id, other.id, foreign.id}
        assert await listed(master, "?state=valid") == {master.id, child.id}
        assert await listed(master, "?state=expired") == {short.id}
        assert await listed(master, "?state=revoked") == {visitor.id}
        assert await listed(operator, "?kind=master&state=valid") == {master.id, other.id}
        assert await listed(operator, f"?project={two.id}&kind=child") == {foreign.id}
        assert (await at.ask(master, "GET", "/keys?project=two")).status == 404
        seen: list[str] = []
        cursor = ""
        while cursor is not None:
            answer = (await at.ask(operator, "GET", f"/keys?limit=2{cursor and '&cursor=' + cursor}")).json
            seen += [one["id"] for one in answer["items"]]
            cursor = answer["next_cursor"]
        assert sorted(seen) == sorted(mine | {operator.id, other.id, foreign.id})


async def test_a_key_shows_who_used_it(tmp_path: Path) -> None:
    """When and from where, as the node noted it."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        _, master = await at.project(operator, "one")
        await at.registry.keys.touch({master.id: (at.clock() + 1, "203.0.113.9")})
        shown = (await at.ask(operator, "GET", f"/keys/{master.id}")).json
        assert (shown["last_used_at"], shown["last_used_from"]) == ("2027-01-15T08:00:01.250000Z", "203.0.113.9")


async def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    """Unknown, foreign, above, or no id at all: the same words; a whole key is never repeated."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one")
        two, other = await at.project(operator, "two")
        child = await at.signed(Kind.CHILD, master, one.id)
        foreign = await at.signed(Kind.CHILD, other, two.id)
        for who, hidden in ((master, other.id), (master, foreign.id), (master, operator.id), (child, master.id)):
            for method, path in (("GET", f"/keys/{hidden}"), ("POST", f"/keys/{hidden}/revoke")):
                answer = await at.ask(who, method, path)
                absent = await at.ask(who, method, path.replace(hidden, "mtk_master_000000000000"))
                assert answer.status == absent.status == 404
                assert answer.json == absent.json | {
                    "detail": absent.json["detail"].replace("mtk_master_000000000000", hidden)
                }
        assert (await at.ask(operator, "GET", f"/keys/{child.text}")).status == 404
        assert master.private is not None
        answer = await at.ask(operator, "GET", f"/keys/{master.private.text}")
        assert (answer.status, master.id in answer.json["detail"]) == (404, True)
        assert master.private.text not in answer.body.decode()


async def test_revoking_a_tree(tmp_path: Path) -> None:
    """Alone or with all below, told to who is alive before the answer; a second time nothing is left to do."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one")
        children = [await at.signed(Kind.CHILD, master, one.id) for _ in range(3)]
        assert await revoke(at, operator, children[0].id) == (200, counts(child=1))
        assert at.alive.revoked == [(frozenset((children[0].id,)), operator.id, at.clock())]
        assert await revoke(at, operator, children[0].id) == (200, counts())
        assert await revoke(at, operator, master.id) == (200, counts(master=1, remaining=2))
        assert (await at.ask(children[1], "GET", "/whoami")).status == 200
        assert await revoke(at, operator, master.id, cascade=True) == (200, counts(child=2))
        assert at.alive.revoked[-1][0] == {children[1].id, children[2].id}
        assert (await at.ask(children[1], "GET", "/whoami")).json["reason"] == "revoked"
        assert await revoke(at, operator, master.id, cascade=True) == (200, counts())
        assert len(at.alive.revoked) == 3
        assert (await at.ask(operator, "POST", f"/keys/{master.id}/revoke")).json == counts()  # no body: no cascade


async def test_keys_that_revoke_themselves(tmp_path: Path) -> None:
    """A child itself; a master itself with all below, and then it is no key any more."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one")
        first, second = [await at.signed(Kind.CHILD, master, one.id) for _ in range(2)]
        assert (await revoke(at, first, second.id))[0] == 404
        assert await revoke(at, first, first.id) == (200, counts(child=1))
        assert (await at.ask(first, "GET", "/whoami")).status == 401
        assert await revoke(at, master, master.id, cascade=True) == (200, counts(master=1, child=1))
        assert (await revoke(at, master, master.id))[0] == 401


async def test_a_master_revokes_only_what_it_made(tmp_path: Path) -> None:
    """What another master of its project made it sees, and may not touch."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one")
        other = await at.master(operator, one)
        child, above = await at.signed(Kind.CHILD, other, one.id), await at.signed(Kind.CHILD, operator, one.id)
        for key_id in (other.id, child.id, above.id):
            assert (await at.ask(master, "GET", f"/keys/{key_id}")).status == 200
            status, problem = await revoke(at, master, key_id)
            assert (status, problem["code"]) == (403, "forbidden")
        assert [one.right for one in at.refused] == ["keys.revoke"] * 3


async def test_rotating_with_an_overlap(tmp_path: Path) -> None:
    """The new key counts at once, the old one until the time that was said; the relay shows both."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        _, master = await at.project(operator, "one")
        status, body, newer = await rotate(at, master, master.id, overlap=3600)
        assert (status, body["rotated"]) == (200, True)
        assert (body["key"]["id"], body["key"]["parent"], body["key"]["state"]) == (newer.id, operator.id, "valid")
        assert (body["old"]["id"], body["old"]["successor"]) == (master.id, newer.id)
        assert body["old"]["expires_at"] == "2027-01-15T09:00:00.250000Z"
        for who in (master, newer):
            assert (await at.ask(who, "GET", "/whoami")).status == 200
        at.clock.advance(3601)
        assert (await at.ask(master, "GET", "/whoami")).json["reason"] == "expired"
        assert (await at.ask(newer, "GET", "/whoami")).status == 200
        answer = await at.ask(newer, "POST", f"/keys/{newer.id}/rotate", {"public_key": body["key"]["public_key"]})
        assert (answer.status, answer.json["reason"]) == (409, "key_exists")


async def test_rotating_without_an_overlap_ends_the_whole_line(tmp_path: Path) -> None:
    """Also a key that was replaced before and had time left: at once, and not when the node next looks."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        _, first = await at.project(operator, "one")
        _, _, second = await rotate(at, first, first.id)
        assert (await at.ask(first, "GET", "/whoami")).status == 200
        status, body, third = await rotate(at, second, second.id, overlap=0)
        assert (status, body["old"]["id"], body["old"]["state"]) == (200, second.id, "expired")
        for who in (first, second):
            assert (await at.ask(who, "GET", "/whoami")).json["reason"] == "expired"
        assert (await at.ask(third, "GET", "/whoami")).status == 200


async def test_rotating_on_a_schedule(tmp_path: Path) -> None:
    """Nothing happens while the version is the same, also for a job that still holds the old key."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        _, master = await at.project(operator, "one")
        status, body, newer = await rotate(at, master, master.id, token_version=1)
        assert (status, body["rotated"], body["key"]["token_version"]) == (200, True, 1)
        for who in (master, newer):
            for version in (0, 1):
                status, body, _ = await rotate(at, who, who.id, token_version=version)
                assert (status, body["rotated"], body["key"]["id"]) == (200, False, newer.id)
        status, body, newest = await rotate(at, newer, newer.id, token_version=2)
        assert (status, body["rotated"], body["key"]["id"]) == (200, True, newest.id)


async def test_a_replaced_key_does_not_replace_its_successor(tmp_path: Path) -> None:
    """Whoever got hold of the old one must not get the new one by it, nor end it; the new one may end the old."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one")
        child = await at.signed(Kind.CHILD, master, one.id)
        _, _, newer = await rotate(at, master, master.id)
        for wish in ({}, {"token_version": 1}, {"overlap": 0}):
            status, problem, _ = await rotate(at, master, master.id, **wish)
            assert (status, problem["code"]) == (403, "forbidden")
            assert newer.id in problem["detail"]
        assert (await revoke(at, master, newer.id))[0] == 403
        assert (await rotate(at, master, newer.id))[0] == 403
        _, _, newest = await rotate(at, newer, newer.id)
        assert await revoke(at, newest, child.id) == (200, counts(child=1))
        assert await revoke(at, newest, master.id) == (200, counts(master=1))
        assert (await at.ask(master, "GET", "/whoami")).json["reason"] == "revoked"
        status, body, _ = await rotate(at, operator, newer.id, overlap=0)
        assert (status, body["old"]["id"]) == (200, newest.id)


async def test_operators_rotate_themselves_and_each_other(tmp_path: Path) -> None:
    """What the old one made goes on working for the new one's projects."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        _, master = await at.project(operator, "one")
        status, _, newer = await rotate(at, operator, operator.id, overlap=60)
        assert status == 200
        assert (await rotate(at, operator, operator.id))[0] == 403
        at.clock.advance(61)
        assert (await at.ask(newer, "GET", "/projects/one")).status == 200
        assert (await at.ask(master, "POST", "/keys", {"kind": "child"})).status == 201


async def test_only_long_lived_keys_are_rotated(tmp_path: Path) -> None:
    """The others are minted anew."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one")
        child = await at.signed(Kind.CHILD, master, one.id, expires_at=at.clock() + DAY)
        answer = await at.ask(operator, "POST", f"/keys/{child.id}/rotate", {"public_key": "A" * 43})
        assert (answer.status, answer.json["code"]) == (409, "conflict")


async def test_a_key_whose_signer_was_retired_is_told_to_be(tmp_path: Path) -> None:
    """In a list, alone, and in the list of such keys; one that has ended otherwise is told that."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one")
        await at.registry.signers.add(at.signer.kid, at.signer.public, "a")
        minted = await at.ask(master, "POST", "/keys", {"kind": "child"})
        key_id = minted.json["key"]["id"]
        ended = (await at.ask(master, "POST", "/keys", {"kind": "child"})).json["key"]["id"]
        await revoke(at, master, ended)
        unknown = await at.signed(Kind.CHILD, master, one.id)
        await at.ask(operator, "DELETE", f"/signers/{at.signer.kid}")
        at.office.verifier.learn({}, [at.signer.kid])
        listed = {each["id"]: each["state"] for each in (await at.ask(master, "GET", "/keys?kind=child")).json["items"]}
        assert listed == {key_id: "retired", ended: "revoked", unknown.id: "valid"}
        assert (await at.ask(master, "GET", f"/keys/{key_id}")).json["state"] == "retired"
        retired = (await at.ask(master, "GET", "/keys?state=retired")).json["items"]
        assert [each["id"] for each in retired] == [key_id]
