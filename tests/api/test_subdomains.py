"""Names over HTTP: reserved, listed, given up, moved; never to the wrong project."""

from __future__ import annotations

from pathlib import Path

from relay.keys.forms import Kind
from relay.keys.scopes import Scope
from tests.api.world import DAY, world


async def test_a_name_is_reserved_once(tmp_path: Path) -> None:
    """For the caller's project, again without effect; another project is refused in words."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        one, master = await at.project(operator, "one")
        _, other = await at.project(operator, "two")
        answer = await at.ask(master, "PUT", "/subdomains/mcp-a", {})
        assert answer.status == 200
        assert answer.json == {
            "name": "mcp-a",
            "url": "https://mcp-a.tunnels.example",
            "project": one.id,
            "project_name": "one",
            "reserved_at": "2027-01-15T08:00:00.250000Z",
            "released_at": None,
            "login": master.id,
        }
        at.clock.advance(10)
        assert (await at.ask(master, "PUT", "/subdomains/mcp-a")).json == answer.json
        for who, body in ((other, {}), (operator, {"project": "two"}), (operator, {})):
            taken = await at.ask(who, "PUT", "/subdomains/mcp-a", body)
            assert (taken.status, taken.json["code"], taken.json["reason"]) == (409, "conflict", "name_taken")
        assert (await at.ask(other, "PUT", "/subdomains/b", {"project": "one"})).status == 404


async def test_names_that_nobody_gets(tmp_path: Path) -> None:
    """What is no label, what is the relay's own, what is outside the scope of the key."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        _, master = await at.project(operator, "one", scope=Scope(("mcp-*",)))
        for name in ("A", "a_b", "-a", "a" * 64, "a.b", "%00", "%C3%A4"):
            answer = await at.ask(operator, "PUT", f"/subdomains/{name}", {})
            assert (answer.status, answer.json["code"]) == (422, "invalid"), name
        assert (await at.ask(operator, "PUT", "/subdomains/www", {})).json["code"] == "conflict"
        assert (await at.ask(master, "PUT", "/subdomains/web", {})).json["code"] == "forbidden"
        assert (await at.ask(master, "PUT", "/subdomains/mcp-a", {})).status == 200
        assert (await at.ask(operator, "PUT", "/subdomains/web", {"project": "one"})).status == 200
        assert (await at.ask(master, "DELETE", "/subdomains/web")).json["code"] == "forbidden"


async def test_names_in_pages(tmp_path: Path) -> None:
    """A master sees its project's, an operator all or one project's; a page ends where it is told."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        _, master = await at.project(operator, "one")
        _, other = await at.project(operator, "two")
        for name in ("c", "a", "b"):
            await at.ask(master, "PUT", f"/subdomains/{name}", {})
        await at.ask(other, "PUT", "/subdomains/d", {})
        for who, query, expected in (
            (master, "", "abc"),
            (other, "", "d"),
            (operator, "", "abcd"),
            (operator, "?project=one", "abc"),
            (operator, "?limit=3", "abc"),
        ):
            answer = await at.ask(who, "GET", f"/subdomains{query}")
            assert "".join(one["name"] for one in answer.json["items"]) == expected
        rest = await at.ask(operator, "GET", f"/subdomains?limit=3&cursor={answer.json['next_cursor']}")
        assert [one["name"] for one in rest.json["items"]] == ["d"]
        assert rest.json["next_cursor"] is None
        assert (await at.ask(master, "GET", "/subdomains?project=two")).status == 404


async def test_a_name_that_is_given_up(tmp_path: Path) -> None:
    """Its agents are told; it is hidden from others, and theirs only after the quarantine."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        _, master = await at.project(operator, "one")
        _, other = await at.project(operator, "two")
        await at.ask(master, "PUT", "/subdomains/a", {})
        assert (await at.ask(other, "DELETE", "/subdomains/a")).status == 404
        answer = await at.ask(master, "DELETE", "/subdomains/a")
        assert (answer.status, answer.body) == (204, b"")
        assert at.alive.closed == [("a", f"The name a was released by {master.id}.")]
        assert at.alive.moved == [("a", "")]
        assert (await at.ask(master, "DELETE", "/subdomains/a")).status == 404
        assert (await at.ask(master, "GET", "/subdomains")).json["items"] == []
        assert (await at.ask(other, "PUT", "/subdomains/a", {})).json["reason"] == "name_taken"
        at.clock.advance(7 * DAY + 1)
        assert (await at.ask(other, "PUT", "/subdomains/a", {})).status == 200
        assert (await at.ask(operator, "DELETE", "/subdomains/none")).status == 404
        assert (await at.ask(operator, "DELETE", "/subdomains/%00")).status == 404


async def test_a_name_moves_with_the_login_that_reserved_it(tmp_path: Path) -> None:
    """To another project, which the node hears of at once; another operator's name does not move."""
    async with world(tmp_path) as at:
        operator, second = await at.operator(), await at.operator()
        one, master = await at.project(operator, "one")
        two, _ = await at.project(operator, "two")
        await at.ask(operator, "PUT", "/subdomains/a", {"project": "one"})
        assert (await at.ask(second, "POST", "/subdomains/a/move", {"project": "two"})).json["reason"] == "not_login"
        assert (await at.ask(master, "POST", "/subdomains/a/move", {"project": "one"})).json["code"] == "forbidden"
        assert at.alive.moved == []
        at.clock.advance(5)
        moved = (await at.ask(operator, "POST", "/subdomains/a/move", {"project": "two"})).json
        assert (moved["project"], moved["project_name"], moved["login"]) == (two.id, "two", operator.id)
        assert moved["reserved_at"] == "2027-01-15T08:00:05.250000Z"
        assert at.alive.moved == [("a", two.id)]
        for path in ("/subdomains/none/move", "/subdomains/a/move"):
            assert (await at.ask(operator, "POST", path, {"project": "none"})).status == 404
        child = await at.signed(Kind.CHILD, master, one.id)
        assert (await at.ask(child, "POST", "/subdomains/a/move", {"project": "one"})).status == 403
