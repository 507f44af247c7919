"""What is alive, over HTTP: listed by project, closed by those who may."""

from __future__ import annotations

from pathlib import Path

from relay.keys.scopes import Scope
from tests.api.world import world


async def test_tunnels_are_listed_by_project(tmp_path: Path) -> None:
    """By name, in pages that a tunnel which comes or goes does not upset."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one")
        two, other = await at.project(operator, "two")
        for name, project in (("c", one), ("a", one), ("b", two), ("d", one)):
            at.live(name, project.id)
        answer = await at.ask(other, "GET", "/tunnels")
        assert answer.json["items"] == [
            {
                "name": "b",
                "url": "https://b.tunnels.example",
                "project": two.id,
                "project_name": "two",
                "key_id": "mtk_child_000000000000",
                "links": 2,
                "since": "2027-01-15T08:00:00.250000Z",
                "streams": 3,
                "private": False,
            }
        ]
        assert answer.json["next_cursor"] is None

        async def names(who: object, query: str) -> tuple[str, str | None]:
            body = (await at.ask(operator if who is None else master, "GET", f"/tunnels{query}")).json
            return "".join(one["name"] for one in body["items"]), body["next_cursor"]

        assert await names(None, "") == ("abcd", None)
        assert await names(master, "") == ("acd", None)
        assert await names(None, "?project=one") == ("acd", None)
        first, cursor = await names(None, "?limit=2")
        at.alive.names = [one for one in at.alive.names if one.name != "b"]
        assert (first, await names(None, f"?limit=2&cursor={cursor}")) == ("ab", ("cd", None))
        assert (await at.ask(master, "GET", "/tunnels?project=two")).status == 404
        assert (await at.ask(master, "GET", "/tunnels?cursor=_w")).json["code"] == "invalid"


async def test_a_tunnel_is_closed(tmp_path: Path) -> None:
    """Its agents are told by whom; to another project it is as if it did not exist."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one")
        narrow = await at.master(operator, one, scope=Scope(("mcp-*",)))
        _, other = await at.project(operator, "two")
        at.live("a", one.id)
        for path in ("/tunnels/a", "/tunnels/b"):
            assert (await at.ask(other, "DELETE", path)).status == 404
        assert (await at.ask(narrow, "DELETE", "/tunnels/a")).json["code"] == "forbidden"
        assert at.alive.closed == []
        for who in (master, operator):
            assert (await at.ask(who, "DELETE", "/tunnels/a")).status == 204
        assert at.alive.closed == [
            ("a", f"The tunnel a was closed by {master.id}."),
            ("a", f"The tunnel a was closed by {operator.id}."),
        ]
        rows = [row for row, _ in await at.registry.audit.read() if row.action == "tunnel.close"]
        assert [(row.actor, row.subject, row.project) for row in rows] == [
            (master.id, "a", one.id), (operator.id, "a", one.id),
        ]  # fmt: skip
