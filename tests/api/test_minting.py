"""Minting over HTTP: what a key may be made from, how it is narrowed, and that it counts at once."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from relay.api.wishes import Pattern
from relay.keys.forms import Kind
from relay.keys.private import PrivateKey
from relay.keys.scopes import Scope
from relay.keys.tokens import Grant, SigningKey
from relay.registry import RELAY, Unavailable
from tests.api.world import Holder, World, b64, world


async def mint(at: World, who: Holder, **wish: Any) -> tuple[int, Any]:
    """(status, body)."""
    answer = await at.ask(who, "POST", "/keys", wish)
    return answer.status, answer.json


async def test_a_child_key_opens_nothing_wider_than_asked(tmp_path: Path) -> None:
    """By default all names for a day; what was registered is what was signed, lineage included."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        project, master = await at.project(operator, "one")
        status, made = await mint(at, master, kind="child", label="laptop")
        assert status == 201
        key = made["key"]
        assert (key["kind"], key["project_name"], key["parent"], key["label"]) == ("child", "one", master.id, "laptop")
        assert key["scope"] == Scope().to_json()
        assert at.signer.kid == (await at.registry.keys.get(key["id"])).signer
        assert (key["created_at"], key["expires_at"]) == ("2027-01-15T08:00:00.250000Z", "2027-01-16T08:00:01.000000Z")
        grant = at.office.verifier.verify(made["text"], Kind.CHILD, at.clock())
        assert (grant.key_id, grant.project, grant.lineage) == (key["id"], project.id, (operator.id, master.id))
        child = Holder((await at.registry.keys.find([key["id"]]))[key["id"]], text=made["text"])
        assert (grant.expires_at, grant.scope) == (child.record.expires_at, child.record.scope)
        assert (await at.ask(child, "GET", "/whoami")).json == key
        assert (await at.ask(master, "GET", f"/keys/{key['id']}")).json.items() >= key.items()
        assert made["text"] not in (await at.ask(master, "GET", "/keys")).body.decode()


async def test_what_is_left_out_is_as_the_parents(tmp_path: Path) -> None:
    """Names, limits and life are narrowed by themselves; what is asked for beyond them is refused in words."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        scope = Scope(
            ("mcp-*", "web"), 3, 100, 1000, streams=50, body=4096, monthly_requests=10**6, monthly_bytes=10**9
        )
        _, master = await at.project(operator, "one", scope=scope, expires_at=at.clock() + 7200.5)
        status, made = await mint(at, master, kind="child")
        assert (status, made["key"]["scope"]) == (201, scope.to_json())
        assert made["key"]["expires_at"] == "2027-01-15T10:00:00.000000Z"
        status, made = await mint(at, master, kind="child", life=60, scope={"names": ["mcp-a*"], "tunnels": 1})
        assert (status, made["key"]["scope"]) == (201, scope.to_json() | {"names": ["mcp-a*"], "tunnels": 1})
        assert made["key"]["expires_at"] == "2027-01-15T08:01:01.000000Z"
        for wish, said in (
            ({"life": 7201}, "'life' of the body is too long"),
            ({"scope": {"names": ["*"]}}, "the names *"),
            ({"scope": {"names": None}}, "the names *"),
            ({"scope": {"names": ["mcp-a", "other"]}}, "the names other"),
            ({"scope": {"tunnels": 4}}, "4 tunnels"),
            ({"scope": {"tunnels": None}}, "unlimited tunnels"),
            ({"scope": {"rate": None}}, "unlimited requests"),
            ({"scope": {"bandwidth": 1001}}, "1001 bytes"),
            ({"scope": {"streams": 51}}, "51 streams"),
            ({"scope": {"body": None}}, "unlimited bytes in one request"),
            ({"scope": {"monthly_requests": 10**6 + 1}}, "1000001 requests a month"),
            ({"scope": {"monthly_bytes": None}}, "unlimited bytes a month"),
        ):
            status, problem = await mint(at, master, kind="child", **wish)
            assert (status, problem["code"]) == (422, "invalid"), wish
            assert said in problem["detail"], wish
        at.clock.advance(7200)
        status, problem = await mint(at, master, kind="child")
        assert (status, problem["code"]) == (422, "invalid")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"kind": "operator"}, "kind"),
    ({"kind": "Child"}, "kind"),
    ({}, "kind"),
    ({"kind": "child", "public_key": "A" * 43}, "public_key"),
    ({"kind": "child", "tunnel": "demo"}, "tunnel"),
    ({"kind": "visitor"}, "tunnel"),
    ({"kind": "visitor", "tunnel": "Demo"}, "tunnel"),
    ({"kind": "visitor", "tunnel": "demo", "scope": {}}, "scope"),
    ({"kind": "master"}, "public_key"),
    ({"kind": "child", "life": 0}, "life"),
    ({"kind": "child", "life": 1.5}, "life"),
    ({"kind": "child", "life": "60"}, "life"),
    ({"kind": "child", "life": True}, "life"),
    ({"kind": "child", "life": 10**30}, "life"),
    ({"kind": "child", "scope": {"names": []}}, "scope"),
    ({"kind": "child", "scope": {"names": ["a"] * 17}}, "scope"),
    ({"kind": "child", "scope": {"names": ["-a"]}}, "scope"),
    ({"kind": "child", "scope": {"names": ["****"]}}, "scope"),
    ({"kind": "child", "scope": {"names": ["a.b"]}}, "scope"),
    ({"kind": "child", "scope": {"tunnels": 0}}, "scope"),
    ({"kind": "child", "scope": {"streams": 0}}, "scope.streams"),
    ({"kind": "child", "scope": {"body": "1MiB"}}, "scope.body"),
    ({"kind": "child", "scope": {"requests": 1}}, "scope.requests"),
    ({"kind": "child", "label": "\u0000"}, "label"),
    ({"kind": "child", "lifetime": 60}, "lifetime"),
]


async def test_wishes_that_make_no_sense(tmp_path: Path) -> None:
    """Refused with the name of the member; no key is made."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        await at.project(operator, "one")
        before = (await at.ask(operator, "GET", "/keys")).json
        for wish, member in WRONG:
            status, problem = await mint(at, operator, **wish)
            assert (status, problem["code"]) == (422, "invalid"), wish
            assert member in problem["detail"], wish
        assert (await at.ask(operator, "GET", "/keys")).json == before


async def test_a_visitor_key_is_for_one_tunnel(tmp_path: Path) -> None:
    """It carries the name; for a name that the minting key could not open, or another project's, there is none."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        project, master = await at.project(operator, "one", scope=Scope(("mcp-*",), tunnels=2))
        _, other = await at.project(operator, "two")
        status, made = await mint(at, master, kind="visitor", tunnel="mcp-a", life=60)
        assert (status, made["key"]["tunnel"], made["key"]["scope"]["names"]) == (201, "mcp-a", ["mcp-a"])
        grant = at.office.verifier.verify(made["text"], Kind.VISITOR, at.clock())
        assert (grant.tunnel, grant.project, grant.key_id) == ("mcp-a", project.id, made["key"]["id"])
        status, problem = await mint(at, master, kind="visitor", tunnel="web")
        assert (status, problem["reason"]) == (422, "scope_wider")
        assert "the names web" in problem["detail"]
        assert (await at.ask(other, "PUT", "/subdomains/mcp-b", {})).status == 200
        status, problem = await mint(at, master, kind="visitor", tunnel="mcp-b")
        assert (status, problem["code"], problem["reason"]) == (409, "conflict", "name_taken")


async def test_a_second_master_key(tmp_path: Path) -> None:
    """An operator registers the public half of one; it has no text here, and counts from the answer on."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        project, _ = await at.project(operator, "one")
        private = PrivateKey.generate(Kind.MASTER)
        wish = {"kind": "master", "project": "one", "public_key": b64(private.public), "scope": {"tunnels": 2}}
        status, made = await mint(at, operator, **wish)
        assert (status, made["text"], made["key"]["id"], made["key"]["expires_at"]) == (201, None, private.id, None)
        assert made["key"]["scope"]["tunnels"] == 2
        holder = Holder((await at.registry.keys.find([private.id]))[private.id], private)
        assert (await mint(at, holder, kind="child"))[1]["key"]["project"] == project.id
        assert (await mint(at, operator, **wish))[0] == 409


async def test_whose_project_a_key_is_for(tmp_path: Path) -> None:
    """The caller's own; an operator's is `default`, made when it is first needed, or the one that is named."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        project, master = await at.project(operator, "one")
        await at.project(operator, "two")
        for ref in (None, "one", project.id):
            wish = {} if ref is None else {"project": ref}
            assert (await mint(at, master, kind="child", **wish))[1]["key"]["project"] == project.id
            expected = "default" if ref is None else "one"
            assert (await mint(at, operator, kind="child", **wish))[1]["key"]["project_name"] == expected
        foreign, absent = (
            await mint(at, master, kind="child", project="two"),
            await mint(at, master, kind="child", project="six"),
        )
        assert foreign[0] == absent[0] == 404
        assert foreign[1]["detail"].replace("two", "six") == absent[1]["detail"]


async def test_minting_stops_with_the_key_above(tmp_path: Path) -> None:
    """A key that was revoked a moment ago elsewhere, and is still on this node's ring, mints nothing."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        _, master = await at.project(operator, "one")
        await at.registry.keys.revoke(RELAY, operator.id, False)
        status, problem = await mint(at, master, kind="child")
        assert (status, problem["code"], problem["reason"]) == (403, "forbidden", "key_revoked")


async def test_nothing_is_said_that_was_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the registry does not take the key, no text of it leaves the relay."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        signed: list[str] = []

        async def away(*_: object) -> None:
            raise Unavailable("The database cannot be reached; try again in a moment.")

        monkeypatch.setattr(at.registry.keys, "mint", away)
        sign = SigningKey.sign

        def noted(key: SigningKey, grant: Grant, issuer: str) -> str:
            signed.append(sign(key, grant, issuer))
            return signed[-1]

        monkeypatch.setattr(SigningKey, "sign", noted)
        answer = await at.ask(operator, "POST", "/keys", {"kind": "child"})
        assert answer.status == 503
        assert signed[0] not in answer.body.decode()


def test_patterns_of_names_are_those_of_scopes() -> None:
    """What the document lets through makes a scope, and nothing else does: tried with all short patterns."""
    taken = TypeAdapter(Pattern)
    for length in range(8):
        for letters in itertools.product("a-*", repeat=length):
            pattern = "".join(letters)
            try:
                possible = bool(Scope((pattern,)))
            except ValueError:
                possible = False
            try:
                said = bool(taken.validate_python(pattern))
            except ValidationError:
                said = False
            assert said is possible, pattern
