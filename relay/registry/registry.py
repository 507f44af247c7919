"""The registry as its callers see it: one object, a part for each thing. What a node polls is here too.

It knows nothing of sessions, and decides nothing about who may ask: callers were told who they serve.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import insert, select, update

from relay.keys.forms import public_text
from relay.keys.times import text_of
from relay.registry.audit import Action, Audit, append
from relay.registry.database import SEQUENCES, Database
from relay.registry.errors import Conflict, NotFound, SchemaError
from relay.registry.keys import Keys
from relay.registry.names import WEEK
from relay.registry.projects import Projects
from relay.registry.records import RELAY, Actor, Note, Position, Revoked, Signer
from relay.registry.schema import KEYS, SIGNERS
from relay.registry.subdomains import Subdomains
from relay.registry.trees import not_over
from relay.registry.usage import Usage


class Changes:
    """What a node asks again and again, to learn what other nodes and commands changed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def position(self) -> Position:
        """One cheap query. Raises Unavailable."""
        async with self._database.reading() as read:
            row = await read.row(select(*SEQUENCES))
        if row is None:
            raise SchemaError("The database has no ledger; restore it from a backup.")
        return Position(row.revocation_seq, row.keys_seq, row.names_seq)

    async def revoked_since(self, seq: int) -> list[Revoked]:
        """Keys revoked after this place in the revocation sequence."""
        query = select(KEYS.c.id, KEYS.c.revoked_by, KEYS.c.revoked_at).where(KEYS.c.revoked_seq > seq)
        async with self._database.reading() as read:
            return [
                Revoked(row.id, row.revoked_by, row.revoked_at)
                for row in await read.rows(query.order_by(KEYS.c.revoked_seq))
            ]

    async def revoked_alive(self, now: float) -> list[Revoked]:
        """Revoked keys that would be valid otherwise."""
        query = select(KEYS.c.id, KEYS.c.revoked_by, KEYS.c.revoked_at)
        query = query.where(KEYS.c.revoked_seq.is_not(None), not_over(now))
        async with self._database.reading() as read:
            return [Revoked(row.id, row.revoked_by, row.revoked_at) for row in await read.rows(query)]


class Signers:
    """Public halves of the keys that nodes sign child and visitor keys with."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now

    async def add(self, kid: str, public: bytes, node: str) -> None:
        """Nothing happens when it is known. Raises Conflict when the id is known with another key, or retired."""
        async with self._database.writing() as write:
            row = await write.row(select(SIGNERS).where(SIGNERS.c.kid == kid))
            if row is not None:
                if bytes(row.public_key) != public:
                    raise Conflict("signer_exists", f"The signing key {kid} is registered with another public key.")
                if row.retired_at is not None:
                    raise Conflict("signer_retired", f"The signing key {kid} was retired at {text_of(row.retired_at)}.")
                return
            now = self._now()
            await write.run(insert(SIGNERS), {"kid": kid, "public_key": public, "node": node, "created_at": now})
            write.ledger.keys_seq += 1
            encoded = public_text(public)
            await append(write, now, Note(RELAY, Action.SIGNER_ADD, kid, "", {"node": node, "public_key": encoded}))

    async def retire(self, actor: Actor, kid: str) -> bool:
        """From now on nothing that it signed counts; False when it was retired before. Raises NotFound."""
        async with self._database.writing() as write:
            row = await write.row(select(SIGNERS).where(SIGNERS.c.kid == kid))
            if row is None:
                raise NotFound(f"There is no signing key {kid}.")
            if row.retired_at is not None:
                return False
            now = self._now()
            await write.run(update(SIGNERS).where(SIGNERS.c.kid == kid).values(retired_at=now))
            write.ledger.keys_seq += 1
            await append(write, now, Note(actor, Action.SIGNER_RETIRE, kid, "", {"node": row.node}))
            return True

    async def all(self) -> list[Signer]:
        """Also those that are retired, for heads of the audit that they signed; the oldest first."""
        query = select(SIGNERS).order_by(SIGNERS.c.created_at, SIGNERS.c.kid)
        async with self._database.reading() as read:
            return [
                Signer(row.kid, bytes(row.public_key), row.node, row.created_at, row.retired_at)
                for row in await read.rows(query)
            ]


class Registry:
    """Projects, keys, names, audit. `now`: seconds since the epoch (UTC). `quarantine`: see `Subdomains`."""

    def __init__(self, database: Database, now: Callable[[], float], quarantine: float = WEEK) -> None:
        self.database = database
        self.projects = Projects(database, now)
        self.keys = Keys(database, now)
        self.subdomains = Subdomains(database, now, quarantine)
        self.audit = Audit(database, now)
        self.changes = Changes(database)
        self.signers = Signers(database, now)
        self.usage = Usage(database)
