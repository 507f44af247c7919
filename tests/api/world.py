"""A relay's API without sockets: the real registry on SQLite, the real application, called as ASGI.

What is alive is a stand-in that remembers what it was told; the composition root has the real one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

from starlette.applications import Starlette

from relay.api.app import build_app
from relay.api.office import LiveTunnel, Office, Refusal
from relay.keys.forms import Kind
from relay.keys.private import PrivateKey
from relay.keys.scopes import Scope
from relay.keys.tokens import Grant, SigningKey, TokenVerifier, new_id
from relay.registry import Database, Limits, Registry, migrate
from relay.registry.records import RELAY, Actor, KeyRecord, NewKey, Project, Signer, UsageSum
from tests.support.clock import ManualClock

HOST = "relay.example"
DOMAIN = "tunnels.example"
ADDRESS = "192.0.2.1"
START = 1_800_000_000.25
DAY = 86_400.0
LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole response."""

    status: int
    fields: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


async def ask(app: Any, method: str, path: str, body: Any = None, **fields: str | list[str]) -> Answered:
    """A request straight at the application. `body`: bytes as they are, else as JSON. A list makes several fields."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    if content:
        fields.setdefault("content_type", "application/json")
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [
            (name.replace("_", "-").encode(), value.encode("latin-1"))
            for name, values in {"host": HOST, **fields}.items()
            for value in ([values] if isinstance(values, str) else values)
        ],
        "client": (ADDRESS, 1),
        "server": ("192.0.2.2", 80),
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    received = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answered(sent[0]["status"], received, b"".join(message.get("body", b"") for message in sent[1:]))


def b64(raw: bytes) -> str:
    """As the API writes public keys."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Ring:
    """The keyring as a dictionary."""

    def __init__(self) -> None:
        self.records: dict[str, KeyRecord] = {}

    def public_of(self, key_id: str) -> KeyRecord | None:
        """See `Keyring`."""
        return self.records.get(key_id)

    def learn(self, record: KeyRecord) -> None:
        """See `Keyring`."""
        self.records[record.id] = record


class Away:
    """A registry that nobody may ask: any use of it fails the test."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the registry was asked: {name}")


@dataclass
class Alive:
    """What is alive, as it is said to be; and what it was told."""

    names: list[LiveTunnel] = field(default_factory=list)
    closed: list[tuple[str, str]] = field(default_factory=list)
    revoked: list[tuple[frozenset[str], str, float]] = field(default_factory=list)
    moved: list[tuple[str, str]] = field(default_factory=list)
    ring: Ring = field(default_factory=Ring, compare=False)

    def tunnels(self) -> list[LiveTunnel]:
        """See `Live`."""
        return list(self.names)

    def close(self, name: str, sentence: str) -> None:
        """See `Live`."""
        self.closed.append((name, sentence))

    def on_revoked(self, ids: Collection[str], by: str, at: float) -> None:
        """See `Live`."""
        self.revoked.append((frozenset(ids), by, at))
        for key_id in ids & self.ring.records.keys():
            self.ring.learn(replace(self.ring.records[key_id], revoked_at=at, revoked_by=by))

    def on_moved(self, name: str, project: str) -> None:
        """See `Live`."""
        self.moved.append((name, project))


@dataclass
class Plans:
    """Plans as they are said to be; and what it was told."""

    known: dict[str, Scope] = field(default_factory=lambda: {"small": Scope(tunnels=1, monthly_requests=10)})
    default: str | None = None
    told: list[tuple[str, str | None]] = field(default_factory=list)

    def limits_of(self, plan: str | None) -> Scope:
        """See `relay.api.office.Plans`."""
        name = plan or self.default
        return Scope() if name is None else self.known.get(name, Scope())

    def changed(self, project_id: str, plan: str | None) -> None:
        """See `relay.api.office.Plans`."""
        self.told.append((project_id, plan))


class Counted:
    """What this node has counted, as it is said to be."""

    def __init__(self) -> None:
        self.sums: dict[str, UsageSum] = {}

    def count(self) -> None:
        """See `Usages`."""

    def used(self, id: str) -> UsageSum | None:
        """See `Usages`."""
        return self.sums.get(id)


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody with a key: an operator or master key, or the text of a child or visitor key."""

    record: KeyRecord
    private: PrivateKey | None = None
    text: str = ""

    @property
    def id(self) -> str:
        """The public id."""
        return self.record.id


class World:
    """One relay with its operator; times are those of `clock`."""

    def __init__(self, registry: Registry | None, clock: ManualClock) -> None:
        self.registry = registry or cast(Registry, Away())
        self.clock = clock
        self.ring = Ring()
        self.alive = Alive(ring=self.ring)
        self.signer = SigningKey.generate()
        self.signers: list[Signer] = []
        self.used: list[tuple[str, str]] = []
        self.refused: list[Refusal] = []
        self.trusted: set[str] = set()
        self.plans = Plans()
        self.counted = Counted()
        self.office = Office(
            registry=self.registry,
            keyring=self.ring,
            verifier=TokenVerifier(DOMAIN, {self.signer.kid: self.signer.public}),
            signing=self,
            issuer=DOMAIN,
            audiences=frozenset((HOST,)),
            now=clock,
            public_url=lambda name: f"https://{name}.{DOMAIN}",
            base_url=f"https://{DOMAIN}",
            version="1.2.3",
            live=self.alive,
            used=lambda key_id, address: self.used.append((key_id, address)),
            trusts=self.trusted.__contains__,
            refused=self.refused.append,
            plans=self.plans,
            usage=self.counted,
        )
        self.app: Starlette = build_app(self.office)

    # ---- what it signs with: see `Signing`

    def key(self) -> SigningKey:
        """Always the same one."""
        return self.signer

    async def learn(self, signers: Sequence[Signer]) -> None:
        """As it was told."""
        self.signers = list(signers)

    # ---- asking

    async def ask(
        self, who: Holder | None, method: str, path: str, body: Any = None, **fields: str | list[str]
    ) -> Answered:
        """A request with somebody's key, below /api/v1."""
        if who is not None:
            fields["authorization"] = f"Bearer {self.proof(who)}"
        return await ask(self.app, method, f"/api/v1{path}", body, **fields)

    def proof(self, who: Holder) -> str:
        """What a request of this holder's carries."""
        if who.private is not None:
            return who.private.sign_request(HOST, self.clock())
        return who.text

    # ---- making, past the API

    async def operator(self, **differences: Any) -> Holder:
        """Another operator."""
        private = PrivateKey.generate(Kind.OPERATOR)
        new = NewKey(Kind.OPERATOR, private.id, None, None, private.public)
        return self._holder(await self.registry.keys.mint(RELAY, replace(new, **differences)), private)

    async def project(self, operator: Holder, name: str, **differences: Any) -> tuple[Project, Holder]:
        """A project with its master."""
        private = PrivateKey.generate(Kind.MASTER)
        new = NewKey(Kind.MASTER, private.id, None, operator.id, private.public)
        project, record = await self.registry.projects.create(actor(operator), name, replace(new, **differences))
        return project, self._holder(record, private)

    async def master(self, operator: Holder, project: Project, **differences: Any) -> Holder:
        """Another master of a project."""
        private = PrivateKey.generate(Kind.MASTER)
        new = NewKey(Kind.MASTER, private.id, project.id, operator.id, private.public)
        return self._holder(await self.registry.keys.mint(actor(operator), replace(new, **differences)), private)

    async def signed(self, kind: Kind, parent: Holder, project: str, **differences: Any) -> Holder:
        """A child or visitor key, registered as it is signed."""
        tunnel = "demo" if kind is Kind.VISITOR else None
        scope = Scope((tunnel,)) if tunnel else Scope()
        new = NewKey(kind, new_id(kind), project, parent.id, None, scope, "", tunnel, self.clock() + DAY)
        new = replace(new, **differences)
        record = await self.registry.keys.mint(actor(parent), new)
        return Holder(record, text=self.sign(record, (parent.id,)))

    def sign(self, record: KeyRecord, lineage: tuple[str, ...], **differences: Any) -> str:
        """The text of a key."""
        grant = Grant(
            record.kind,
            record.id,
            record.project_id or "",
            lineage,
            record.scope,
            float(int(record.created_at)),
            float(int(record.expires_at or 0)),
            record.tunnel or "",
        )
        return self.signer.sign(replace(grant, **differences), DOMAIN)

    def live(self, name: str, project: str, key_id: str = "mtk_child_000000000000") -> None:
        """A tunnel comes alive."""
        self.alive.names.append(LiveTunnel(name, project, key_id, 2, self.clock(), 3, False))

    def _holder(self, record: KeyRecord, private: PrivateKey) -> Holder:
        self.ring.learn(record)
        return Holder(record, private)


def actor(holder: Holder) -> Actor:
    """For changes past the API."""
    return Actor(holder.id)


_EMPTY: list[bytes] = []


async def _fill(path: Path) -> None:
    """An empty registry; migrated once for all tests of this process, then copied."""
    if not _EMPTY:
        await asyncio.to_thread(migrate.ensure, f"sqlite:///{path}")
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        _EMPTY.append(path.read_bytes())
    path.write_bytes(_EMPTY[0])


def without_registry() -> World:
    """A relay for what needs no registry, and must not ask it."""
    return World(None, ManualClock(START))


@asynccontextmanager
async def world(folder: Path, limits: Limits = LIMITS) -> AsyncIterator[World]:
    """A relay whose registry is in this folder."""
    path = folder / "relay.db"
    await _fill(path)
    clock = ManualClock(START)
    database = await Database.open(f"sqlite:///{path}", limits)
    try:
        yield World(Registry(database, clock), clock)
    finally:
        await database.close()
