"""What was used and what is left, over HTTP: by project and by key, with what this node has not written yet."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

from relay.keys.forms import Kind
from relay.keys.private import PrivateKey
from relay.keys.scopes import Scope
from relay.registry.records import UsageRow, UsageSum
from tests.api.world import Holder, World, actor, b64, world

MONTH, BEFORE = "2027-01", "2026-12"
ENDS = "2027-02-01T00:00:00.000000Z"


async def use(at: World, who: Holder, requests: int, amount: int = 0, month: str = MONTH) -> None:
    """Counted and written."""
    row = UsageRow(who.record.project_id or "", who.id, month, requests, amount, 2 * amount)
    await at.registry.usage.add([row])


async def shown(at: World, who: Holder, query: str = "") -> Any:
    """The month, as somebody is told of it."""
    answer = await at.ask(who, "GET", f"/usage{query}")
    assert answer.status == 200, answer.json
    return answer.json


def entries(told: Any, kind: str, *members: str) -> dict[str, tuple[Any, ...]]:
    """Some members of each project, or of each key, by id; the order is checked."""
    found = told[f"{kind}s"]
    assert found == sorted(found, key=lambda one: (-one["requests"], -one["bytes_in"] - one["bytes_out"]))
    return {one[kind]: tuple(one[member] for member in members) for one in found}


AMOUNTS = ("requests", "bytes_in", "bytes_out")


async def test_a_month_of_projects_and_keys(tmp_path: Path) -> None:
    """An operator is told of all, a master key of its project, a child key of itself; what is below counts above."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one", label="laptop")
        two, other = await at.project(operator, "two")
        first, second = [await at.signed(Kind.CHILD, master, one.id) for _ in range(2)]
        foreign = await at.signed(Kind.CHILD, other, two.id)
        direct = await at.signed(Kind.CHILD, operator, one.id)
        for who, requests in ((first, 1), (second, 10), (direct, 100), (foreign, 1000)):
            await use(at, who, requests, 5)
        await use(at, first, 7, 1, BEFORE)
        told = await shown(at, operator)
        assert (told["month"], told["ends_at"], told["more"]) == (MONTH, ENDS, False)
        assert entries(told, "project", "project_name", *AMOUNTS) == {
            two.id: ("two", 1000, 5, 10), one.id: ("one", 111, 15, 30)
        }  # fmt: skip
        assert entries(told, "key", "kind", "label", "project_name", *AMOUNTS) == {
            other.id: ("master", "", "two", 1000, 5, 10), foreign.id: ("child", "", "two", 1000, 5, 10),
            direct.id: ("child", "", "one", 100, 5, 10), master.id: ("master", "laptop", "one", 11, 10, 20),
            second.id: ("child", "", "one", 10, 5, 10), first.id: ("child", "", "one", 1, 5, 10),
        }  # fmt: skip
        for who, query in ((master, ""), (operator, "?project=one"), (master, f"?project={one.id}")):
            own = await shown(at, who, query)
            assert set(entries(own, "project")) == {one.id}
            assert set(entries(own, "key")) == {direct.id, master.id, second.id, first.id}
        itself = await shown(at, first)
        assert (itself["projects"], entries(itself, "key", *AMOUNTS)) == ([], {first.id: (1, 5, 10)})
        past = await shown(at, operator, f"?month={BEFORE}")
        assert (past["month"], past["ends_at"]) == (BEFORE, "2027-01-01T00:00:00.000000Z")
        assert entries(past, "key", "requests") == {master.id: (7,), first.id: (7,)}
        assert (await shown(at, first, f"?month={BEFORE}"))["keys"][0]["requests"] == 7


async def test_a_project_that_used_nothing(tmp_path: Path) -> None:
    """Is told of where it was asked for, with zeros, and left out of the list of all; so are its keys."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one")
        assert (await shown(at, operator))["projects"] == []
        for who, query in ((operator, "?project=one"), (master, "")):
            told = await shown(at, who, query)
            assert entries(told, "project", *AMOUNTS) == {one.id: (0, 0, 0)}
            assert told["keys"] == []


async def test_what_is_left_is_the_least_of_the_chain(tmp_path: Path) -> None:
    """Of the key's own limits, those of the key above, and the plan of the project, each for the sum of all below."""
    async with world(tmp_path) as at:
        at.plans.known["big"] = Scope(monthly_requests=1000, monthly_bytes=500, tunnels=4, rate=7)
        operator = await at.operator()
        one, master = await at.project(operator, "one", scope=Scope(monthly_requests=100, rate=9, body=3))
        await at.registry.projects.give_plan(actor(operator), one.id, "big")
        narrow = Scope(monthly_requests=30, rate=8, tunnels=2, body=3)
        first = await at.signed(Kind.CHILD, master, one.id, scope=narrow)
        second = await at.signed(Kind.CHILD, master, one.id, scope=Scope(monthly_requests=100, rate=9, body=3))
        await use(at, first, 10, 20)
        await use(at, second, 75, 40)
        told = await shown(at, operator)
        assert entries(told, "project", "plan", "left") == {one.id: ("big", {"requests": 915, "bytes": 320})}
        assert entries(told, "key", "left") == {
            master.id: ({"requests": 15, "bytes": 320},),
            second.id: ({"requests": 15, "bytes": 320},),
            first.id: ({"requests": 15, "bytes": 320},),
        }
        effective = {
            "tunnels": 2, "rate": 7, "bandwidth": None, "streams": None, "body": 3,
            "monthly_requests": 30, "monthly_bytes": 500,
        }  # fmt: skip
        assert entries(told, "key", "limits")[first.id] == (effective,)
        details = (await at.ask(first, "GET", f"/keys/{first.id}")).json
        assert (details["effective"], details["scope"]) == (effective, narrow.to_json())
        assert details["usage"] == {
            "month": MONTH, "ends_at": ENDS, "requests": 10, "bytes_in": 20, "bytes_out": 40,
            "left": {"requests": 15, "bytes": 320},
        }  # fmt: skip
        await use(at, first, 900, 400)
        assert entries(await shown(at, operator), "key", "left")[first.id] == ({"requests": 0, "bytes": 0},)
        past = await shown(at, operator, f"?month={BEFORE}&project=one")
        assert past["projects"][0]["left"] == {"requests": None, "bytes": None}


async def test_what_is_not_written_yet_counts(tmp_path: Path) -> None:
    """Whichever is more: this node may be ahead of the registry, or behind it where others write too; in this month."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one", scope=Scope(monthly_requests=100))
        child = await at.signed(Kind.CHILD, master, one.id, scope=Scope(monthly_requests=100))
        await use(at, child, 10, 10)
        await use(at, child, 1, 1, BEFORE)
        at.counted.sums = dict.fromkeys((one.id, child.id), UsageSum(12, 9, 21)) | {master.id: UsageSum(15, 0, 0)}
        told = await shown(at, master)
        assert entries(told, "project", *AMOUNTS) == {one.id: (12, 10, 21)}
        assert entries(told, "key", *AMOUNTS) == {master.id: (15, 10, 20), child.id: (12, 10, 21)}
        assert (await at.ask(child, "GET", f"/keys/{child.id}")).json["usage"]["left"]["requests"] == 85
        assert (await shown(at, master, f"?month={BEFORE}"))["projects"][0]["requests"] == 1
        assert (await shown(at, master, "?month=2027-02"))["projects"][0]["requests"] == 0  # it has not begun


async def test_a_key_that_was_rotated_goes_on_where_it_was(tmp_path: Path) -> None:
    """What the old one used counts for the new one, which is the one that is told of."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one", scope=Scope(monthly_requests=100))
        old = await at.signed(Kind.CHILD, master, one.id, scope=Scope(monthly_requests=100))
        private = PrivateKey.generate(Kind.MASTER)
        answer = await at.ask(master, "POST", f"/keys/{master.id}/rotate", {"public_key": b64(private.public)})
        assert answer.status == 200
        newest = Holder(await at.registry.keys.get(private.id), private)
        new = await at.signed(Kind.CHILD, newest, one.id, scope=Scope(monthly_requests=100))
        await use(at, old, 30)
        await use(at, new, 20)
        told = await shown(at, newest)
        assert entries(told, "key", "requests", "left") == {
            newest.id: (50, {"requests": 50, "bytes": None}),
            old.id: (30, {"requests": 50, "bytes": None}),
            new.id: (20, {"requests": 50, "bytes": None}),
        }
        for key_id in (master.id, newest.id):
            assert (await at.ask(newest, "GET", f"/keys/{key_id}")).json["usage"]["requests"] == 50


async def test_keys_below_which_nothing_is_counted(tmp_path: Path) -> None:
    """An operator's and a visitor's have limits in effect, and no month of their own."""
    async with world(tmp_path) as at:
        at.plans.default = "small"
        operator = await at.operator()
        one, master = await at.project(operator, "one")
        visitor = await at.signed(Kind.VISITOR, master, one.id)
        for who, requests in ((operator, None), (visitor, 10)):
            told = (await at.ask(operator, "GET", f"/keys/{who.id}")).json
            assert (told["usage"], told["effective"]["monthly_requests"]) == (None, requests)


async def test_many_keys_are_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those with the most requests are told of, and that there are more."""
    monkeypatch.setattr("relay.api.usage.MOST", 3)
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one")
        children = [await at.signed(Kind.CHILD, master, one.id) for _ in range(4)]
        for number, child in enumerate(children):
            await use(at, child, number + 1)
        told = await shown(at, master)
        assert [key["key"] for key in told["keys"]] == [master.id, children[3].id, children[2].id]
        assert told["more"]


async def test_what_is_no_month(tmp_path: Path) -> None:
    """Is refused with the name of the member; what is another's is not there."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        _, master = await at.project(operator, "one")
        await at.project(operator, "two")
        for query in ("month=2027-13", "month=2027-1", "month=now", "month=", "month=9999-99", "limit=3"):
            answer = await at.ask(operator, "GET", f"/usage?{query}")
            assert (answer.status, answer.json["code"]) == (422, "invalid"), query
            assert f"'{query.partition('=')[0]}' of the query" in answer.json["detail"]
        assert (await at.ask(master, "GET", "/usage?project=two")).status == 404
        assert (await at.ask(operator, "GET", f"/usage?project={secrets.token_hex(8)}")).status == 404
