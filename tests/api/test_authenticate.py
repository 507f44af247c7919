"""Whose request it is: every proof that counts, every one that does not, and what each of them costs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.keys.forms import Kind, with_checksum
from relay.keys.private import PrivateKey
from relay.keys.scopes import Scope
from relay.keys.tokens import SigningKey, new_id
from relay.registry.records import KeyRecord
from tests.api.world import DAY, DOMAIN, HOST, START, Holder, World, actor, without_registry, world


def record_of(private: PrivateKey) -> KeyRecord:
    """As a keyring would hold it."""
    project = None if private.kind is Kind.OPERATOR else "proj_one_000000"
    return KeyRecord(
        private.id, private.kind, project, None, private.public, Scope(), "", None, START, None, None, None, None, 0,
        None, None, None,
    )  # fmt: skip


def signed(secret: bytes, claims: dict[str, Any], header: dict[str, Any], algorithm: str = "EdDSA") -> str:
    """A token with exactly these claims."""
    key = Ed25519PrivateKey.from_private_bytes(secret) if algorithm == "EdDSA" else secret
    return jwt.encode(claims, key, algorithm=algorithm, headers=header)


class Forger:
    """Somebody who knows the id of a good key, and what tokens look like."""

    def __init__(self, at: World) -> None:
        self.good = PrivateKey.generate(Kind.OPERATOR)
        self.stranger = PrivateKey.generate(Kind.OPERATOR)
        self.at = at
        at.ring.learn(record_of(self.good))

    def claims(self, **differences: Any) -> dict[str, Any]:
        """Those of a good request."""
        now = int(START)
        return {"iss": self.good.id, "aud": HOST, "iat": now, "exp": now + 60, "jti": "x"} | differences

    def tokens(self) -> dict[str, str]:
        """What must not count, by what is wrong with it: signed by the right key where that helps nobody."""
        header: dict[str, Any] = {"typ": "mtk-request+jwt", "kid": self.good.id}
        good, other = self.good.secret, self.stranger.secret
        child = SigningKey.generate()
        child_claims = {"iss": DOMAIN, "aud": DOMAIN, "jti": new_id(Kind.CHILD), "exp": int(START + DAY)}
        child_header = {"typ": "mtk-child+jwt", "kid": self.at.signer.kid}
        return {
            "signature": signed(other, self.claims(), header),
            "key that nobody knows": signed(
                other, self.claims(iss=self.stranger.id), header | {"kid": self.stranger.id}
            ),
            "issuer": signed(good, self.claims(iss=self.stranger.id), header),
            "audience": signed(good, self.claims(aud="other.example"), header),
            "no audience": signed(good, {k: v for k, v in self.claims().items() if k != "aud"}, header),
            "expired": signed(good, self.claims(iat=int(START) - 200, exp=int(START) - 100), header),
            "not yet": signed(good, self.claims(iat=int(START) + 100, exp=int(START) + 160), header),
            "two hours": signed(good, self.claims(exp=int(START) + 7200), header),
            "no end": signed(good, {k: v for k, v in self.claims().items() if k != "exp"}, header),
            "type": signed(good, self.claims(), header | {"typ": "JWT"}),
            "algorithm": signed(self.good.public, self.claims(), header, "HS256"),
            "no algorithm": jwt.encode(self.claims(), "", algorithm="none", headers=header),
            "no key": signed(good, self.claims(), {"typ": "mtk-request+jwt"}),
            "kid that is a path": signed(good, self.claims(), header | {"kid": "../../etc/passwd"}),
            "long": "a" * 5000,
            "not a token": "x",
            "three dots": "a.b.c",
            "public id": self.good.id,
            "child, other relay's": with_checksum("mtk_child_" + signed(child.secret, child_claims, child_header)),
            "child, mistyped": with_checksum("mtk_child_" + signed(child.secret, child_claims, child_header))[:-1]
            + "0",
            "child, cut": "mtk_child_x",
            "child, none of ours": with_checksum(
                "mtk_child_" + signed(child.secret, child_claims, child_header | {"kid": child.kid})
            ),
        }


async def test_no_forged_key_costs_a_query() -> None:
    """401 with a challenge and a next step, without asking the registry; nothing of the token is repeated."""
    at = without_registry()
    forger = Forger(at)
    for wrong, token in forger.tokens().items():
        answer = await at.ask(None, "GET", "/whoami", authorization=f"Bearer {token}")
        assert (answer.status, answer.json["code"]) == (401, "unauthorized"), wrong
        assert answer.fields["www-authenticate"] == 'Bearer error="invalid_token"', wrong
        assert answer.json["next_action"], wrong
        assert answer.json["reason"], wrong
        assert len(token) < 10 or token not in answer.body.decode(), wrong
    assert at.used == []
    assert len(at.refused) == len(forger.tokens())
    proven = {"issuer", "audience", "no audience", "expired", "not yet", "two hours", "no end"}
    assert sum(one.key_id == forger.good.id for one in at.refused) == len(proven)
    assert all(one.key_id in ("", forger.good.id) for one in at.refused)


@pytest.mark.parametrize(
    ("fields", "challenge"),
    [
        ([], "Bearer"),
        ([""], 'Bearer error="invalid_token"'),
        (["Bearer"], 'Bearer error="invalid_token"'),
        (["Bearer  "], 'Bearer error="invalid_token"'),
        (["Basic dXNlcjpwYXNz"], 'Bearer error="invalid_token"'),
        (["Bearer a", "Bearer b"], 'Bearer error="invalid_token"'),
    ],
)
async def test_no_key_at_all(fields: list[str], challenge: str) -> None:
    """In any spelling of nothing, and two are none; a key in the query or a cookie is none either."""
    at = without_registry()
    answer = await at.ask(None, "GET", "/whoami?key=a", authorization=fields, cookie="key=a")
    assert (answer.status, answer.fields["www-authenticate"]) == (401, challenge)


async def test_a_private_key_must_not_be_sent() -> None:
    """Even the right one: it is refused in words that say what to do now, without a query and without repeating it."""
    at = without_registry()
    for kind in (Kind.OPERATOR, Kind.MASTER):
        private = PrivateKey.generate(kind)
        at.ring.learn(record_of(private))
        answer = await at.ask(None, "GET", "/whoami", authorization=f"Bearer {private.text}")
        assert answer.status == 401
        assert "must never be sent" in answer.json["detail"]
        assert "Rotate" in answer.json["next_action"]
        assert private.text[-49:] not in answer.body.decode()
        mistyped = await at.ask(None, "GET", "/whoami", authorization=f"Bearer {private.text[:-1]}")
        assert (mistyped.status, mistyped.json["reason"]) == (401, "malformed")


async def test_a_good_key_in_any_spelling_of_the_scheme(tmp_path: Path) -> None:
    """`bearer` in any case; its use is noted with the address, once a request."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        for scheme in ("Bearer", "bearer", "BEARER"):
            answer = await at.ask(None, "GET", "/whoami", authorization=f"{scheme} {at.proof(operator)}")
            assert (answer.status, answer.json["id"]) == (200, operator.id)
        assert at.used == [(operator.id, "192.0.2.1")] * 3
        assert at.refused == []


async def test_each_kind_says_who_it_is(tmp_path: Path) -> None:
    """Operator, master and child; a visitor key is refused, and known to be one."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        project, master = await at.project(operator, "one")
        child = await at.signed(Kind.CHILD, master, project.id)
        visitor = await at.signed(Kind.VISITOR, master, project.id)
        for who in (operator, master, child):
            answer = await at.ask(who, "GET", "/whoami")
            assert (answer.status, answer.json["id"], answer.json["state"]) == (200, who.id, "valid")
        answer = await at.ask(visitor, "GET", "/whoami")
        assert (answer.status, answer.json["code"]) == (403, "forbidden")
        (refusal,) = at.refused
        assert (refusal.key_id, refusal.project, refusal.lineage) == (visitor.id, project.id, (master.id,))


async def test_a_visitor_key_is_refused_without_a_query() -> None:
    """Whether it was revoked does not matter: it is good for nothing here."""
    at = without_registry()
    record = replace(
        record_of(PrivateKey.generate(Kind.MASTER)),
        id=new_id(Kind.VISITOR), kind=Kind.VISITOR, scope=Scope(("demo",)), tunnel="demo", expires_at=START + 60,
    )  # fmt: skip
    answer = await at.ask(None, "GET", "/whoami", authorization=f"Bearer {at.sign(record, ())}")
    assert (answer.status, answer.json["code"]) == (403, "forbidden")


async def dead(at: World, who: Holder) -> str:
    """What a dead key is told."""
    at.refused.clear()
    answer = await at.ask(who, "GET", "/whoami")
    assert (answer.status, answer.json["code"]) == (401, "unauthorized")
    assert [one.key_id for one in at.refused] == [who.id]
    return f"{answer.json['reason']}: {answer.json['detail']}"


async def test_a_revoked_key_is_told_by_whom_and_when(tmp_path: Path) -> None:
    """Operator, master, child: once it proved to be that key."""
    async with world(tmp_path) as at:
        operator, second = await at.operator(), await at.operator()
        project, master = await at.project(operator, "one")
        child = await at.signed(Kind.CHILD, master, project.id)
        for who in (child, master, second):
            answer = await at.ask(operator, "POST", f"/keys/{who.id}/revoke", {})
            assert answer.status == 200
            sentence = f"revoked: The key {who.id} was revoked by {operator.id} at 2027-01-15 08:00:00 UTC."
            assert await dead(at, who) == sentence


async def test_an_expired_key_is_told_so(tmp_path: Path) -> None:
    """Whatever its kind."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        short = await at.operator(parent_id=None, expires_at=START + 10)
        project, master = await at.project(operator, "one", expires_at=START + 10)
        child = await at.signed(Kind.CHILD, master, project.id, expires_at=START + 9)
        at.clock.advance(20)
        assert re.match(f"expired: The key {short.id} expired at ", await dead(at, short))
        assert re.match(f"expired: The key {master.id} expired at ", await dead(at, master))
        assert (await dead(at, child)).startswith("expired: ")


async def test_a_child_key_that_the_registry_does_not_know(tmp_path: Path) -> None:
    """Signed by the relay, but never committed, or for another project than the registry says: no key."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        project, master = await at.project(operator, "one")
        child = await at.signed(Kind.CHILD, master, project.id)
        unknown = replace(child.record, id=new_id(Kind.CHILD))
        for text in (at.sign(unknown, (master.id,)), at.sign(child.record, (master.id,), project="proj_two_000000")):
            answer = await at.ask(None, "GET", "/whoami", authorization=f"Bearer {text}")
            assert (answer.status, answer.json["code"]) == (401, "unauthorized")
            assert "does not know" in answer.json["detail"]


async def test_a_key_wider_than_its_parent_is_no_key(tmp_path: Path) -> None:
    """Checked when it is used, too: against what the registry has of it, and against every key above it."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        project, master = await at.project(operator, "one", scope=Scope(("mcp-*",), tunnels=2))
        child = await at.signed(Kind.CHILD, master, project.id, scope=Scope(("mcp-a",), tunnels=1))
        assert (await at.ask(child, "GET", "/whoami")).status == 200
        wide = at.sign(child.record, (master.id,), scope=Scope(("mcp-a", "b"), tunnels=1))
        answer = await at.ask(None, "GET", "/whoami", authorization=f"Bearer {wide}")
        assert (answer.status, answer.json["reason"]) == (401, "wider")
        assert "the names b" in answer.json["detail"]
        at.ring.learn(replace(master.record, scope=Scope(("other",))))
        assert (await at.ask(child, "GET", "/whoami")).json["reason"] == "wider"
        at.ring.learn(replace(master.record, scope=Scope(("mcp-*",))))
        at.ring.learn(replace(operator.record, scope=Scope(("a",))))
        assert (await at.ask(master, "GET", "/whoami")).json["reason"] == "wider"


async def test_who_acted_stands_in_the_audit(tmp_path: Path) -> None:
    """Key, lineage and address of the request, as a trusted proxy saw it."""
    async with world(tmp_path) as at:
        operator = await at.operator()
        _, master = await at.project(operator, "one")
        at.trusted.add("192.0.2.1")
        await at.ask(master, "POST", "/keys", {"kind": "child"}, x_forwarded_for=["203.0.113.9", "198.51.100.7"])
        row, _ = (await at.registry.audit.read(0, 100))[-1]
        assert (row.action, row.actor, row.lineage, row.address) == (
            "key.mint", master.id, (operator.id,), "198.51.100.7"
        )  # fmt: skip
        assert actor(master).key_id == at.used[-1][0]


@settings(max_examples=100)
@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=200), st.data())
async def test_whatever_is_sent_as_a_key(text: str, data: st.DataObject) -> None:
    """Nonsense, with or without the beginning of a key or of a token, is 401: no error of ours, and no query."""
    at = without_registry()
    begin = data.draw(st.sampled_from(["", "mtk_master_", "mtk_child_eyJ", "mtk_visitor_", "mtk_", "a.b.", "eyJ."]))
    answer = await at.ask(None, "GET", "/whoami", authorization=f"Bearer {begin}{text}")
    assert (answer.status, answer.json["code"]) == (401, "unauthorized")
