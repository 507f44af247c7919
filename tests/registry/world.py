"""A registry with an operator in it, and short ways to make projects and keys. Time is the test's."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from relay.keys.forms import Kind, new_id
from relay.keys.scopes import Scope
from relay.registry import RELAY, Actor, Database, KeyRecord, Limits, NewKey, Project, Registry
from tests.support.clock import ManualClock

NOW = 1_800_000_000.0
DAY = 86_400.0
LIMITS = Limits()


def a_key(kind: Kind, **given: Any) -> NewKey:
    """A key as a command would ask for it; what a kind needs and was not given is filled in."""
    if kind in (Kind.OPERATOR, Kind.MASTER):
        given.setdefault("public", secrets.token_bytes(32))
    else:
        given.setdefault("expires_at", NOW + DAY)
    values: dict[str, Any] = {"id": new_id(kind), "project_id": None, "parent_id": None, **given}
    return NewKey(kind, **values)


def actor(key: KeyRecord, address: str = "192.0.2.7") -> Actor:
    """Whoever holds this key."""
    return Actor(key.id, (key.parent_id,) if key.parent_id else (), address)


@dataclass
class World:
    """`operator` is registered; everything else a test makes."""

    registry: Registry
    database: Database
    clock: ManualClock
    operator: KeyRecord
    url: str

    @property
    def by(self) -> Actor:
        """The operator, acting."""
        return actor(self.operator)

    async def project(self, name: str = "one", **master: Any) -> tuple[Project, KeyRecord]:
        """A project and its master key."""
        new = a_key(Kind.MASTER, parent_id=self.operator.id, **master)
        return await self.registry.projects.create(self.by, name, new)

    async def child(self, parent: KeyRecord, project: str | None = None, **given: Any) -> KeyRecord:
        """A child key."""
        new = a_key(Kind.CHILD, parent_id=parent.id, project_id=project or parent.project_id, **given)
        return await self.registry.keys.mint(actor(parent), new)

    async def actions(self) -> list[str]:
        """What the audit has, oldest first, without the operator's own minting."""
        return [row.action for row, _ in await self.registry.audit.read(1, 10_000)]

    async def last(self) -> Any:
        """The newest row of the audit."""
        seq, _ = await self.registry.audit.head()
        return (await self.registry.audit.read(seq - 1, 1))[0][0]


@asynccontextmanager
async def world(url: str, limits: Limits = LIMITS, quarantine: float = 7 * DAY) -> AsyncIterator[World]:
    """A registry on this database, which has the schema and nothing else."""
    clock = ManualClock(NOW)
    database = await Database.open(url, limits)
    try:
        registry = Registry(database, clock, quarantine)
        operator = await registry.keys.mint(RELAY, a_key(Kind.OPERATOR, scope=Scope()))
        yield World(registry, database, clock, operator, url)
    finally:
        await database.close()
