"""Admission by child keys on a real registry: what each wrong key is told, what it costs, and what the audit keeps."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from relay.keys.forms import Kind, with_checksum
from relay.keys.private import PrivateKey
from relay.keys.scopes import Scope
from relay.keys.tokens import Grant, SigningKey, TokenVerifier, new_id
from relay.registry import Actor, Database, NewKey, Registry, Unavailable
from relay.registry.records import RELAY, Project
from relay.tunnels.admission import Principal
from relay.tunnels.journal import Journal
from relay.tunnels.keyadmission import AWAY, KeyAdmission, KeyRoom
from relay.tunnels.revocations import DEAF_AFTER, Revocations, Verdict
from relay.wire.hello import Hello, Refused

DOMAIN = "tunnels.localhost"
AGENT = "192.0.2.7"


@dataclass
class World:
    """One relay's registry, keys and admission; `queries` counts what it asked the registry for."""

    registry: Registry
    operator: PrivateKey
    signer: SigningKey
    steady: float = 0.0
    ahead: float = 0.0
    """Seconds by which admission's clock is ahead."""
    uses: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.revocations = Revocations()
        self.revocations.heard(0.0)
        self.journal = Journal(time.time)
        self.reserved: dict[str, str] = {}
        self.verifier = TokenVerifier(DOMAIN, {self.signer.kid: self.signer.public})
        room = KeyRoom(
            self.verifier,
            self.registry,
            self.revocations,
            self.journal,
            lambda key_id, address: self.uses.append((key_id, address)),
            self.reserved,
            lambda: time.time() + self.ahead,
            lambda: self.steady,
        )
        self.admission = KeyAdmission(room)

    async def project(self, name: str) -> tuple[Project, PrivateKey]:
        """A project with its first master key."""
        key = PrivateKey.generate(Kind.MASTER)
        new = NewKey(Kind.MASTER, key.id, None, self.operator.id, key.public)
        project, _ = await self.registry.projects.create(Actor(self.operator.id), name, new)
        return project, key

    async def child(self, project: Project, master: PrivateKey, **wanted: Any) -> str:
        """The text of a child key of that master."""
        life = wanted.pop("life", 3600.0)
        scope = Scope(**wanted)
        now = time.time()
        lineage = (self.operator.id, master.id)
        grant = Grant(Kind.CHILD, new_id(Kind.CHILD), project.id, lineage, scope, int(now), int(now + life))
        new = NewKey(Kind.CHILD, grant.key_id, project.id, master.id, None, scope, expires_at=grant.expires_at)
        await self.registry.keys.mint(Actor(master.id, (self.operator.id,)), new)
        return self.signer.sign(grant, DOMAIN)

    async def admit(self, key: str, *names: str) -> Principal | Refused:
        return await self.admission.admit(Hello("i", 0, 1, key, names or ("demo",)), AGENT)

    async def refused(self, key: str, *names: str) -> Refused:
        answer = await self.admit(key, *names)
        assert isinstance(answer, Refused)
        return answer


@pytest.fixture
async def world(sqlite_url: str) -> AsyncIterator[World]:
    database = await Database.open(sqlite_url)
    operator = PrivateKey.generate(Kind.OPERATOR)
    registry = Registry(database, time.time)
    await registry.keys.mint(RELAY, NewKey(Kind.OPERATOR, operator.id, None, None, operator.public))
    yield World(registry, operator, SigningKey.generate())
    await database.close()


async def test_a_good_key_is_a_principal(world: World) -> None:
    """With its project, lineage, scope and end; its names are the project's from now on, and its use is noted."""
    project, master = await world.project("one")
    key = await world.child(project, master, names=("demo*",), tunnels=3)
    admitted = await world.admit(key, "demo", "demo-2")
    assert isinstance(admitted, Principal)
    assert admitted.project == project.id
    assert admitted.lineage == (world.operator.id, master.id)
    assert admitted.scope == Scope(("demo*",), 3)
    assert 3500 < admitted.expires_at - time.time() <= 3600
    assert world.reserved == {"demo": project.id, "demo-2": project.id}
    assert await world.registry.subdomains.owners() == world.reserved
    assert world.uses == [(admitted.key_id, AGENT)]
    assert world.journal.waiting() == []
    assert world.admission.last_word(admitted, ("demo", "demo-2")) is None


async def test_the_name_must_be_within_the_scope_and_not_kept_for_the_relay(world: World) -> None:
    """Each name of a hello, or none; a known key's refusal is a row of the audit."""
    project, master = await world.project("one")
    key = await world.child(project, master, names=("demo*",))
    refused = await world.refused(key, "demo", "other")
    assert (refused.code, refused.retry_after) == ("bad_key", None)
    assert "'other'" in refused.message
    assert "demo*" in refused.message
    assert (await world.refused(key, "www")).code == "name_reserved"
    assert await world.registry.subdomains.owners() == {}
    [note] = world.journal.waiting()
    assert (note.action, note.project, note.actor.address) == ("session.refused", project.id, AGENT)
    assert note.details == {"code": "bad_key", "names": ["demo", "other"]}


async def test_more_names_than_tunnels_reserve_none(world: World) -> None:
    """A key for one tunnel does not collect names by being refused."""
    key = await world.child(*await world.project("one"), tunnels=1)
    assert (await world.refused(key, "a", "b")).code == "too_many"
    assert await world.registry.subdomains.owners() == {}
    assert isinstance(await world.admit(key, "a"), Principal)


async def test_another_projects_name_is_taken(world: World) -> None:
    """Whoever was first has it."""
    one, two = await world.project("one"), await world.project("two")
    assert isinstance(await world.admit(await world.child(*one)), Principal)
    assert (await world.refused(await world.child(*two))).code == "name_taken"
    assert world.reserved == {"demo": one[0].id}


@pytest.mark.parametrize("where", ["memory", "registry"])
async def test_a_revoked_key_is_told_by_whom_and_when(world: World, where: str) -> None:
    """Whether this node has heard of it already or the registry says so; it is final."""
    project, master = await world.project("one")
    key = await world.child(project, master)
    admitted = await world.admit(key)
    assert isinstance(admitted, Principal)
    if where == "memory":
        world.revocations.learn({admitted.key_id: Verdict(master.id, time.time())})
    else:
        await world.registry.keys.revoke(Actor(master.id), master.id, cascade=True)
    refused = await world.refused(key)
    assert (refused.code, refused.retry_after) == ("revoked", None)
    assert master.id in refused.message
    assert "UTC" in refused.message


async def test_keys_that_no_relay_signed_ask_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forged, mistyped, of another relay or kind, expired: refused before the registry is asked; counted, unless the
    signature tells whose key it is.
    """
    project, master = await world.project("one")
    good = await world.child(project, master)

    async def never(*args: object) -> None:
        raise AssertionError("the registry was asked")

    monkeypatch.setattr(world.registry.keys, "lineage", never)
    grant = Grant(Kind.CHILD, new_id(Kind.CHILD), project.id, (), Scope(), int(time.time()), int(time.time()) + 60)
    foreign = SigningKey.generate()
    wrong = {
        "mistyped": good[:-1] + ("a" if good[-1] != "a" else "b"),
        "forged": with_checksum(good[:-12] + "AAAAAA"),
        "foreign": foreign.sign(grant, DOMAIN),
        "elsewhere": world.signer.sign(grant, "other.example"),
        "master": master.text,
        "nothing": "",
        "junk": "x" * 8192,
    }
    for name, key in wrong.items():
        refused = await world.refused(key)
        assert (name, refused.code, refused.retry_after) == (name, "bad_key", None)
        assert not key or key not in refused.message
    assert "master key opens no tunnel" in (await world.refused(master.text)).message
    assert [note.details["code"] for note in world.journal.waiting()] == ["bad_key"]  # the one for elsewhere
    world.ahead = 3601.0
    assert (await world.refused(good)).code == "expired"
    assert world.journal.waiting()[-1].details == {"code": "expired", "names": ["demo"]}


async def test_a_key_is_no_wider_than_what_was_minted_and_than_any_above_it(world: World) -> None:
    """Whatever its signature is worth: a scope or a project that the registry does not have counts for nothing."""
    project, master = await world.project("one")
    other, _ = await world.project("two")
    for shown, registered, words in (
        ((project.id, Scope()), Scope(("demo",)), "wider than it was minted"),
        ((project.id, Scope(("demo",), 9)), Scope(("demo",), 2), "wider than it was minted"),
        ((other.id, Scope(("demo",))), Scope(("demo",)), "does not know"),
    ):
        times = int(time.time()), int(time.time()) + 60
        grant = Grant(Kind.CHILD, new_id(Kind.CHILD), shown[0], (), shown[1], *times)
        new = NewKey(Kind.CHILD, grant.key_id, project.id, master.id, None, registered, expires_at=times[1])
        await world.registry.keys.mint(Actor(master.id, (world.operator.id,)), new)
        refused = await world.refused(world.signer.sign(grant, DOMAIN))
        assert (refused.code, refused.retry_after) == ("bad_key", None)
        assert words in refused.message
    assert world.reserved == {}


async def test_a_deaf_node_admits_nobody_new(world: World) -> None:
    """It may have missed a revocation; the agent may try again."""
    project, master = await world.project("one")
    key = await world.child(project, master)
    admitted = await world.admit(key)
    assert isinstance(admitted, Principal)
    world.steady = DEAF_AFTER + 1
    assert await world.admit(key) == AWAY
    assert world.admission.last_word(admitted, ("demo",)) == AWAY


async def test_a_registry_that_is_away_admits_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent is told to try again."""
    project, master = await world.project("one")
    key = await world.child(project, master)

    async def away(*args: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(world.registry.keys, "lineage", away)
    assert await world.admit(key) == AWAY


async def test_the_last_word_hears_what_happened_meanwhile(world: World) -> None:
    """A revocation, and a name that changed hands, between the check and the moment when the session would count."""
    project, master = await world.project("one")
    key = await world.child(project, master)
    admitted = await world.admit(key)
    assert isinstance(admitted, Principal)
    world.reserved["demo"] = "another"
    refused = world.admission.last_word(admitted, ("demo",))
    assert refused is not None
    assert (refused.code, refused.retry_after) == ("name_taken", 1.0)
    world.revocations.learn({admitted.key_id: Verdict(master.id, 0.0)})
    refused = world.admission.last_word(admitted, ("demo",))
    assert refused is not None
    assert refused.code == "revoked"


async def test_a_key_of_a_retired_signer_is_as_good_as_expired(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that an agent that can get another one does; without a query, and also between the check and the moment when
    the session would count. Who showed it is not proven any more, so it is counted by its address.
    """
    project, master = await world.project("one")
    key = await world.child(project, master)
    admitted = await world.admit(key)
    assert isinstance(admitted, Principal)
    assert admitted.signer == world.signer.kid
    other = SigningKey.generate()
    world.verifier.learn({other.kid: other.public}, {world.signer.kid})
    asked = world.admission.last_word(admitted, ("demo",))
    monkeypatch.setattr(world.registry.keys, "lineage", None)
    for refused in (asked, await world.refused(key)):
        assert refused is not None
        assert (refused.code, refused.retry_after) == ("expired", None)
        assert "retired" in refused.message
    assert world.journal.waiting() == []
    world.journal.sum_up()
    assert [dict(note.details) for note in world.journal.waiting()] == [{"retired": 1}]


async def test_a_new_key_for_a_session_is_of_the_same_project(world: World) -> None:
    """And has to cover the names that the session holds."""
    one, two = await world.project("one"), await world.project("two")
    admitted = await world.admit(await world.child(*one))
    assert isinstance(admitted, Principal)
    renewed = await world.admission.renew(admitted, await world.child(*one), ("demo",), AGENT)
    assert isinstance(renewed, Principal)
    assert renewed.key_id != admitted.key_id
    foreign = await world.admission.renew(admitted, await world.child(*two), ("demo",), AGENT)
    assert isinstance(foreign, Refused)
    narrow = await world.admission.renew(admitted, await world.child(*one, names=("other",)), ("demo",), AGENT)
    assert isinstance(narrow, Refused)
