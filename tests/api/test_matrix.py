"""Every operation with every kind of key, on what is its own and what is not, in every state of the key.

Allowed exactly where the table on docs/keys.md says; whatever is refused leaves no trace in the registry.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from relay.keys.forms import Kind
from relay.keys.private import PrivateKey
from relay.keys.scopes import Scope
from relay.keys.tokens import SigningKey
from relay.registry.records import Project
from tests.api.rightspage import rows
from tests.api.world import Alive, Answered, Holder, World, actor, b64, world

STATES = ("valid", "expired", "revoked", "wider than its parent")
SHORT = 5.0


@dataclass
class House:
    """Two projects, each with a master key, and for each kind of key one in every state, of the project `own`."""

    at: World
    operator: Holder
    own: tuple[Project, Holder]
    foreign: tuple[Project, Holder]
    others: dict[str, Holder] = field(default_factory=dict)
    callers: dict[str, Holder] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def fresh(self) -> str:
        """A name that nothing has."""
        return f"fresh-{next(self.numbers)}"

    async def key(self, kind: Kind, **differences: Any) -> Holder:
        """A key of this kind, of the project `own`."""
        project, master = self.own
        if kind is Kind.OPERATOR:
            return await self.at.operator(**differences)
        if kind is Kind.MASTER:
            return await self.at.master(self.operator, project, **differences)
        return await self.at.signed(kind, master, project.id, **differences)


async def built(at: World, kind: Kind) -> House:
    """A house for callers of one kind."""
    operator = await at.operator()
    house = House(at, operator, await at.project(operator, "own"), await at.project(operator, "foreign"))
    for whose, (project, master) in {"own": house.own, "foreign": house.foreign}.items():
        house.others[whose] = await at.signed(Kind.CHILD, master, project.id)
        await at.registry.subdomains.reserve(actor(operator), f"held-{whose}", project.id)
        at.live(f"live-{whose}", project.id)
    house.callers["valid"] = await house.key(kind)
    house.callers["expired"] = await house.key(kind, expires_at=at.clock() + SHORT)
    house.callers["revoked"] = await house.key(kind)
    await at.registry.keys.revoke(actor(operator), house.callers["revoked"].id, False)
    gone = (await at.registry.keys.find([house.callers["revoked"].id]))[house.callers["revoked"].id]
    at.ring.learn(gone) if gone.public is not None else None
    if kind is not Kind.OPERATOR:  # which has no parent
        house.callers["wider than its parent"] = await wider(house, kind)
    at.clock.advance(SHORT + 1)
    return house


async def wider(house: House, kind: Kind) -> Holder:
    """A key that claims more than the registry gave it, or than the key above it has."""
    at = house.at
    if kind is Kind.MASTER:
        narrow = await at.operator()
        holder = await at.master(narrow, house.own[0])
        at.ring.learn(replace(narrow.record, scope=Scope(tunnels=1)))
        return holder
    holder = await house.key(kind, scope=Scope(("demo",), tunnels=1))
    return replace(holder, text=at.sign(holder.record, (house.own[1].id,), scope=Scope(("*",))))


@dataclass
class Attempt:
    """One request: by whom, on whose things. What it would use up is made for it where it is to succeed."""

    house: House
    who: Holder | None
    kind: Kind
    whose: str
    allowed: bool

    @property
    def project(self) -> Project:
        """The project that it is about."""
        return (self.house.own if self.whose == "own" else self.house.foreign)[0]

    @property
    def master(self) -> Holder:
        """That project's master key."""
        return (self.house.own if self.whose == "own" else self.house.foreign)[1]

    @property
    def me(self) -> str:
        """The caller's id; without a key, somebody's."""
        return self.house.operator.id if self.who is None else self.who.id

    async def ask(self, method: str, path: str, body: Any = None) -> Answered:
        """The request."""
        return await self.house.at.ask(self.who, method, path, body)

    async def itself(self) -> str:
        """The id of the caller's own key, which is not needed afterwards."""
        if self.allowed:
            self.who = await self.house.key(self.kind)
        return self.me

    async def other(self, kind: Kind = Kind.CHILD) -> str:
        """A key of the project that the caller did not make."""
        if not self.allowed:
            return self.house.others[self.whose].id if kind is Kind.CHILD else self.master.id
        if kind is Kind.MASTER:
            return (await self.house.at.master(self.house.operator, self.project)).id
        return (await self.house.at.signed(kind, self.master, self.project.id)).id

    async def descendant(self) -> str:
        """A key of the project that the caller made."""
        if not self.allowed or self.who is None:
            return await self.other()
        return (await self.house.at.signed(Kind.CHILD, self.who, self.project.id)).id

    async def held(self) -> str:
        """A reserved name of the project."""
        if not self.allowed or self.who is None:
            return f"held-{self.whose}"
        name = self.house.fresh()
        await self.house.at.registry.subdomains.reserve(actor(self.who), name, self.project.id)
        return name

    async def doomed(self) -> str:
        """A project to be deleted."""
        if not self.allowed:
            return self.project.id
        return (await self.house.at.project(self.house.operator, self.house.fresh()))[0].id

    async def signer(self) -> str:
        """A key that a node signs with."""
        key = SigningKey.generate()
        if self.allowed:
            await self.house.at.registry.signers.add(key.kid, key.public, "a")
        return key.kid


def public_key() -> str:
    """Of a key that nobody keeps."""
    return b64(PrivateKey.generate(Kind.MASTER).public)


async def mint(one: Attempt, kind: str, **wish: str) -> Answered:
    """A key for the project."""
    return await one.ask("POST", "/keys", {"kind": kind, "project": one.project.id, **wish})


async def create(one: Attempt) -> Answered:
    """A project of a new name."""
    return await one.ask("POST", "/projects", {"name": one.house.fresh(), "master": {"public_key": public_key()}})


async def give_plan(one: Attempt) -> Answered:
    """Where it is not refused, the one that it has: whoever asks changes nothing for the requests after."""
    return await one.ask("PATCH", f"/projects/{one.project.id}", {"plan": None})


async def rotate(one: Attempt, key_id: str) -> Answered:
    """To a new key."""
    return await one.ask("POST", f"/keys/{key_id}/rotate", {"public_key": public_key()})


async def revoke(one: Attempt, key_id: str) -> Answered:
    """With all below."""
    return await one.ask("POST", f"/keys/{key_id}/revoke", {"cascade": True})


async def move(one: Attempt) -> Answered:
    """To the other project."""
    target = one.house.foreign[0] if one.whose == "own" else one.house.own[0]
    return await one.ask("POST", f"/subdomains/{await one.held()}/move", {"project": target.id})


async def reserve(one: Attempt) -> Answered:
    """A new name."""
    return await one.ask("PUT", f"/subdomains/{one.house.fresh()}", {"project": one.project.id})


def plain(method: str, path: str) -> Callable[[Attempt], Awaitable[Answered]]:
    """A request without a body; the project, whose it is, and the caller are filled in."""
    return lambda one: one.ask(method, path.format(project=one.project.id, whose=one.whose, me=one.me))


async def _on(one: Attempt, method: str, path: str, key: Awaitable[str]) -> Answered:
    return await one.ask(method, path + await key)


# How each row of the page is tried.
REQUESTS: dict[str, Callable[[Attempt], Awaitable[Answered]]] = {
    "whoami": plain("GET", "/whoami"),
    "projects create": create,
    "projects list": plain("GET", "/projects"),
    "projects show": plain("GET", "/projects/{project}"),
    "projects delete": lambda one: _on(one, "DELETE", "/projects/", one.doomed()),
    "projects plan": give_plan,
    "plans list": plain("GET", "/plans"),
    "usage show itself": plain("GET", "/usage"),
    "usage show other": plain("GET", "/usage?project={project}"),
    "keys mint master": lambda one: mint(one, "master", public_key=public_key()),
    "keys mint child": lambda one: mint(one, "child"),
    "keys mint visitor": lambda one: mint(one, "visitor", tunnel=f"held-{one.whose}"),
    "keys list": plain("GET", "/keys?project={project}"),
    "keys show itself": plain("GET", "/keys/{me}"),
    "keys show other": lambda one: _on(one, "GET", "/keys/", one.other()),
    "keys rotate itself": lambda one: _then(rotate, one, one.itself()),
    "keys rotate other": lambda one: _then(rotate, one, one.other(Kind.MASTER)),
    "keys revoke itself": lambda one: _then(revoke, one, one.itself()),
    "keys revoke descendant": lambda one: _then(revoke, one, one.descendant()),
    "keys revoke other": lambda one: _then(revoke, one, one.other()),
    "subdomains list": plain("GET", "/subdomains?project={project}"),
    "subdomains reserve": reserve,
    "subdomains release": lambda one: _on(one, "DELETE", "/subdomains/", one.held()),
    "subdomains move": move,
    "tunnels list": plain("GET", "/tunnels?project={project}"),
    "tunnels close": plain("DELETE", "/tunnels/live-{whose}"),
    "audit list": plain("GET", "/audit"),
    "audit head": plain("GET", "/audit/head"),
    "signers list": plain("GET", "/signers"),
    "signers retire": lambda one: _on(one, "DELETE", "/signers/", one.signer()),
}


async def _then(request: Callable[[Attempt, str], Awaitable[Answered]], one: Attempt, key: Awaitable[str]) -> Answered:
    return await request(one, await key)


def allowed(cell: str, whose: str) -> bool:
    """Whether a valid key may, by what its cell says."""
    return {"yes": True, "own project": whose == "own", "itself": True, "no": False}[cell]


def test_every_row_is_tried() -> None:
    """And no other."""
    assert list(REQUESTS) == list(rows())


@pytest.mark.parametrize("kind", list(Kind))
async def test_the_matrix(tmp_path: Path, kind: Kind) -> None:
    """What the table says, and nothing else; a key that is not valid may nothing."""
    async with world(tmp_path) as at:
        house = await built(at, kind)
        cases = list(itertools.product(house.callers, REQUESTS, ("own", "foreign")))
        assert len(cases) == len(REQUESTS) * 2 * (3 if kind is Kind.OPERATOR else 4)
        granted = [one for one in cases if one[0] == "valid" and allowed(rows()[one[1]][kind], one[2])]
        before = await at.registry.audit.head()
        for state, row, whose in cases:
            if (state, row, whose) in granted:
                continue
            answer = await REQUESTS[row](Attempt(house, house.callers[state], kind, whose, False))
            # A visitor key is good for nothing here, so nobody asks the registry whether it is still good.
            expected = (403, 404) if state == "valid" else (401, 403) if kind is Kind.VISITOR else (401,)
            assert answer.status in expected, (state, row, whose, answer)
        assert await at.registry.audit.head() == before
        assert at.alive == Alive(at.alive.names)
        assert len(at.refused) == len(cases) - len(granted)
        for state, row, whose in granted:
            answer = await REQUESTS[row](Attempt(house, house.callers[state], kind, whose, True))
            assert answer.status < 300, (state, row, whose, answer)
        assert len(at.refused) == len(cases) - len(granted)


async def test_without_a_key(tmp_path: Path) -> None:
    """Nothing at all."""
    async with world(tmp_path) as at:
        house = await built(at, Kind.MASTER)
        before = await at.registry.audit.head()
        for row, whose in itertools.product(REQUESTS, ("own", "foreign")):
            answer = await REQUESTS[row](Attempt(house, None, Kind.MASTER, whose, False))
            assert (answer.status, answer.json["code"]) == (401, "unauthorized"), row
        assert await at.registry.audit.head() == before
        assert at.alive == Alive(at.alive.names)
