"""Projects over HTTP: made with a master key that the relay never sees, listed in pages, ended with all they have."""

from __future__ import annotations

from pathlib import Path

from relay.keys.forms import Kind
from relay.keys.private import PrivateKey
from relay.keys.scopes import Scope
from tests.api.world import Holder, b64, world


async def test_a_project_is_made_with_its_master_key(tmp_path: Path) -> None:
    """The command keeps the private half; the key counts from the answer on."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        private = PrivateKey.generate(Kind.MASTER)
        body = {"name": "mcp-server", "master": {"public_key": b64(private.public), "label": "laptop"}}
        answer = await at.ask(operator, "POST", "/projects", body)
        assert answer.status == 201
        project, master = answer.json["project"], answer.json["master"]
        assert project["id"].startswith("proj_mcp_server_")
        assert (project["name"], project["created_by"], project["deleted_at"]) == ("mcp-server", operator.id, None)
        assert project["created_at"] == "2027-01-15T08:00:00.250000Z"
        assert (master["id"], master["kind"], master["project"]) == (private.id, "master", project["id"])
        assert (master["project_name"], master["parent"], master["label"]) == ("mcp-server", operator.id, "laptop")
        assert (master["public_key"], master["expires_at"]) == (b64(private.public), None)
        holder = Holder((await at.registry.keys.find([private.id]))[private.id], private)
        assert (await at.ask(holder, "GET", "/whoami")).json == master
        for again in (body, body | {"name": "other"}):
            answer = await at.ask(operator, "POST", "/projects", again)
            assert (answer.status, answer.json["code"]) == (409, "conflict")
        assert answer.json["reason"] == "key_exists"


async def test_a_project_has_a_plan(tmp_path: Path) -> None:
    """Given when it is made or later by an operator, known to the node and in the audit before the answer, told of."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        public = b64(PrivateKey.generate(Kind.MASTER).public)
        body = {"name": "one", "master": {"public_key": public}, "plan": "small"}
        made = (await at.ask(operator, "POST", "/projects", body)).json["project"]
        small = {**Scope().limits(), "tunnels": 1, "monthly_requests": 10}
        assert (made["plan"], made["limits"]) == ("small", small)
        assert at.plans.told == [(made["id"], "small")]
        at.plans.known["large"], at.plans.default = Scope(tunnels=9), "large"
        large = {**Scope().limits(), "tunnels": 9}
        for plan, limits in (("large", large), (None, large), ("small", small)):
            answer = await at.ask(operator, "PATCH", "/projects/one", {"plan": plan})
            assert (answer.status, answer.json["plan"], answer.json["limits"]) == (200, plan, limits)
            assert answer.json == (await at.ask(operator, "GET", "/projects/one")).json
            assert at.plans.told[-1] == (made["id"], plan)
        rows = [row for row, _ in await at.registry.audit.read() if row.action == "project.plan"]
        assert [row.details["plan"] for row in rows] == ["large", None, "small"]
        assert {(row.actor, row.subject) for row in rows} == {(operator.id, made["id"])}


async def test_a_plan_that_does_not_exist(tmp_path: Path) -> None:
    """The answer names those that do; nothing is changed. Without a plan it must be said that there is to be none."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        await at.project(operator, "one")
        before = await at.registry.audit.head()
        at.plans.known["large"] = Scope()
        for plan in ("huge", "none"):
            answer = await at.ask(operator, "PATCH", "/projects/one", {"plan": plan})
            assert (answer.status, answer.json["reason"]) == (422, "plan")
            assert answer.json["detail"] == f"There is no plan '{plan}'; there are: large, small."
        for body in ({}, {"plan": ""}, {"plan": 1}, {"plan": None, "name": "x"}):
            assert (await at.ask(operator, "PATCH", "/projects/one", body)).status == 422
        assert await at.registry.audit.head() == before
        assert at.plans.told == []


async def test_the_plans_that_there_are(tmp_path: Path) -> None:
    """With their limits, by name, and which of them is the default."""
    async with world(tmp_path) as at:
        at.plans.known |= {"free": Scope(), "big": Scope(bandwidth=10)}
        at.plans.default = "free"
        operator = await at.operator()
        _, master = await at.project(operator, "one")
        for who in (operator, master):
            items = (await at.ask(who, "GET", "/plans")).json["items"]
            assert [(one["name"], one["default"], one["limits"]) for one in items] == [
                ("big", False, Scope(bandwidth=10).limits()),
                ("free", True, Scope().limits()),
                ("small", False, Scope(tunnels=1, monthly_requests=10).limits()),
            ]


async def test_projects_in_pages(tmp_path: Path) -> None:
    """Every one once, whatever the size of a page."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        made = []
        for number in range(5):
            made.append((await at.project(operator, f"p{number}"))[0].id)
            at.clock.advance(1)
        for size in (1, 2, 5, 500):
            seen: list[str] = []
            cursor = ""
            pages = 0
            while True:
                answer = (await at.ask(operator, "GET", f"/projects?limit={size}{cursor}")).json
                assert len(answer["items"]) <= size
                seen += [one["id"] for one in answer["items"]]
                pages += 1
                if answer["next_cursor"] is None:
                    break
                cursor = f"&cursor={answer['next_cursor']}"
            assert seen == made
            assert pages == -(-5 // size)


async def test_a_project_by_id_and_by_name(tmp_path: Path) -> None:
    """Also to its own master; to another one it is as if it did not exist."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        project, master = await at.project(operator, "one")
        _, other = await at.project(operator, "two")
        for ref in (project.id, "one"):
            for who in (operator, master):
                assert (await at.ask(who, "GET", f"/projects/{ref}")).json["id"] == project.id
            hidden = await at.ask(other, "GET", f"/projects/{ref}")
            absent = await at.ask(operator, "GET", "/projects/none")
            assert hidden.status == absent.status == 404
            assert hidden.json == absent.json | {"detail": absent.json["detail"].replace("none", ref)}
        assert (at.refused[0].key_id, at.refused[0].code, at.refused[0].right) == (
            other.id, "not_found", "projects.show"
        )  # fmt: skip
        for strange in ("%00", "a%2Fb", "..%2f", "%F0%9F%94%91", "a" * 65, "%20"):
            assert (await at.ask(operator, "GET", f"/projects/{strange}")).status == 404


async def test_deleting_a_project_revokes_all_that_it_has(tmp_path: Path) -> None:
    """The keys are cut before the answer, the name is free again, the project is still shown by its id."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        project, master = await at.project(operator, "one")
        child = await at.signed(Kind.CHILD, master, project.id)
        visitor = await at.signed(Kind.VISITOR, master, project.id)
        answer = await at.ask(operator, "DELETE", "/projects/one")
        assert answer.json == {"operator": 0, "master": 1, "child": 1, "visitor": 1, "remaining": 0}
        assert at.alive.revoked == [(frozenset((master.id, child.id, visitor.id)), operator.id, at.clock())]
        for who in (master, child):
            assert (await at.ask(who, "GET", "/whoami")).json["reason"] == "revoked"
        assert (await at.ask(operator, "GET", "/projects")).json["items"] == []
        assert (await at.ask(operator, "GET", "/projects/one")).status == 404
        shown = await at.ask(operator, "GET", f"/projects/{project.id}")
        assert shown.json["deleted_at"] == "2027-01-15T08:00:00.250000Z"
        assert (await at.ask(operator, "DELETE", f"/projects/{project.id}")).status == 404
        for body in ({"kind": "child", "project": project.id}, {"kind": "child", "project": "one"}):
            assert (await at.ask(operator, "POST", "/keys", body)).status == 404
        assert (await at.ask(operator, "PUT", "/subdomains/a", {"project": project.id})).status == 404
