"""The keys: registered, looked up, revoked, replaced. The rules of minting and of revoking have rooms of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from sqlalchemy import BindParameter, ColumnElement, bindparam, or_, select, tuple_, update

from relay.registry.audit import Action, append, storable
from relay.registry.database import Database, Writing
from relay.registry.errors import NotAllowed
from relay.registry.lineages import Lineages
from relay.registry.minting import add_key, insert_key, live_project
from relay.registry.records import Actor, KeyFilter, KeyRecord, NewKey, Note, Page, Revocation, Rotated, State
from relay.registry.revocation import revoke_tree, told
from relay.registry.rows import after, key_of, page, page_size
from relay.registry.schema import KEYS, SIGNERS
from relay.registry.trees import acting, living, newest, not_over, predecessors, unknown

ANY = KeyFilter()
SOME = 500  # ids in one query


def among(column: ColumnElement[str], ids: Collection[str]) -> list[ColumnElement[bool]]:
    """Whether a column is one of these: the conditions of as many queries as are needed."""
    wanted = list(ids)
    return [column.in_(wanted[start : start + SOME]) for start in range(0, len(wanted), SOME)]


class Keys:
    """Each change is one transaction with its row in the audit. Raises Unavailable when the database is."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now
        self._lineages = Lineages(database)

    # ------------------------------------------------------------------------------------------------ reading

    async def get(self, key_id: str) -> KeyRecord:
        """Raises NotFound."""
        async with self._database.reading() as read:
            row = await read.row(select(KEYS).where(KEYS.c.id == key_id))
        if row is None:
            raise unknown(key_id)
        return key_of(row)

    async def find(self, ids: Collection[str]) -> dict[str, KeyRecord]:
        """Those of the ids that are known."""
        found: dict[str, KeyRecord] = {}
        async with self._database.reading() as read:
            for some in among(KEYS.c.id, ids):
                found.update((row.id, key_of(row)) for row in await read.rows(select(KEYS).where(some)))
        return found

    async def list(self, which: KeyFilter = ANY, limit: int = 100, cursor: str | None = None) -> Page[KeyRecord]:
        """Oldest first. Raises NotAllowed for a cursor that no page gave."""
        query = select(KEYS).order_by(KEYS.c.created_at, KEYS.c.id).limit(page_size(limit) + 1)
        if which.project is not None:
            query = query.where(KEYS.c.project_id == which.project)
        if which.kind is not None:
            query = query.where(KEYS.c.kind == str(which.kind))
        if which.state is not None:
            query = query.where(_in_state(which.state, self._now()))
        if cursor is not None:
            query = query.where(tuple_(KEYS.c.created_at, KEYS.c.id) > tuple_(*after(cursor, (float, str))))
        async with self._database.reading() as read:
            rows = await read.rows(query)
        return page(rows, page_size(limit), key_of, ("created_at", "id"))

    async def lineage(self, key_id: str) -> Sequence[KeyRecord]:
        """The key's ancestors, topmost first, and at the end the key itself. Raises NotFound."""
        return await self._lineages.of(key_id)

    async def masters(self) -> Sequence[KeyRecord]:
        """All operator and master keys, also those that are revoked or expired: a refusal says which it was."""
        query = select(KEYS).where(KEYS.c.public_key.is_not(None))
        async with self._database.reading() as read:
            return [key_of(row) for row in await read.rows(query)]

    # ----------------------------------------------------------------------------------------------- changing

    async def mint(self, actor: Actor, new: NewKey) -> KeyRecord:
        """Registers a key under its parent. An operator key without a parent is for the relay itself to make.

        Raises NotFound (parent, project), NotAllowed (a rule; its code says which) and Conflict (the id is known).
        """
        async with self._database.writing() as write:
            now = self._now()
            record = await add_key(write, now, new, above=bool(actor.key_id))
            await append(write, now, minted(actor, record))
        return record

    async def revoke(self, actor: Actor, key_id: str, cascade: bool) -> Revocation:
        """Revokes a key, with `cascade` all below it too. What was revoked before counts 0. Raises NotFound."""
        async with self._database.writing() as write:
            now = self._now()
            await acting(write, actor, now)
            before = write.ledger.revocation_seq
            done = await revoke_tree(write, now, actor, key_id, cascade=cascade)
            if write.ledger.revocation_seq != before:
                row = await write.row(select(KEYS.c.project_id).where(KEYS.c.id == key_id))
                project = "" if row is None else row.project_id or ""
                details = {"cascade": cascade, **told(done)}
                await append(write, now, Note(actor, Action.KEY_REVOKE, key_id, project, details))
        return done

    async def rotate(
        self,
        actor: Actor,
        key_id: str,
        public: bytes,
        id_new: str,
        overlap_s: float,
        *,
        token_version: int | None = None,
    ) -> Rotated:
        """Replaces the newest key of the line that `key_id` is of; those before stay valid for `overlap_s` seconds.

        Nothing happens when the newest has this `token_version` or a higher one.
        Raises NotFound, NotAllowed (revoked, expired, not a kind that is rotated), Conflict (the id is known).
        """
        async with self._database.writing() as write:
            now = self._now()
            old = await newest(write, key_id)
            if token_version is not None and token_version <= old.token_version:
                return Rotated(None, old)
            if not old.kind.private:
                raise NotAllowed("kind", f"A key of the kind {old.kind} is not rotated; mint another one.")
            await acting(write, actor, now)
            if actor.key_id == key_id != old.id:  # it may be in the hands of whoever it was replaced for
                raise NotAllowed("key_replaced", f"The key {key_id} was replaced already; its newest is {old.id}.")
            await living(write, old.id, now)
            if old.project_id is not None:
                await live_project(write, old.project_id)
            new = NewKey(
                old.kind, id_new, old.project_id, old.parent_id, public, old.scope, old.label, None, old.expires_at
            )
            version = old.token_version if token_version is None else token_version
            record = await insert_key(write, now, new, version, old.first)
            line = await self._replace(write, old, record, now + max(0.0, overlap_s))
            details = {"new": record.id, "overlap": overlap_s, "token_version": version}
            await append(write, now, Note(actor, Action.KEY_ROTATE, old.id, old.project_id or "", details))
        return Rotated(record, next(one for one in line if one.id == old.id), line)

    async def _replace(self, write: Writing, old: KeyRecord, new: KeyRecord, until: float) -> tuple[KeyRecord, ...]:
        line = predecessors(old.id)
        later = or_(KEYS.c.expires_at.is_(None), KEYS.c.expires_at > until)
        await write.run(update(KEYS).where(KEYS.c.id.in_(select(line.c.id)), later).values(expires_at=until))
        await write.run(update(KEYS).where(KEYS.c.id == old.id).values(successor_id=new.id))
        return tuple(map(key_of, await write.rows(select(KEYS).join(line, KEYS.c.id == line.c.id))))

    async def touch(self, used: Mapping[str, tuple[float, str]]) -> None:
        """Notes when and from where keys were last used; ids that are not known are passed over."""
        if not used:
            return
        at: BindParameter[float] = bindparam("used_at")
        change = (
            update(KEYS)
            .where(KEYS.c.id == bindparam("used_id"), or_(KEYS.c.last_used_at.is_(None), KEYS.c.last_used_at < at))
            .values(last_used_at=at, last_used_from=bindparam("used_from"))
        )
        values = [
            {"used_id": one, "used_at": when, "used_from": storable(where)} for one, (when, where) in used.items()
        ]
        async with self._database.writing() as write:
            await write.run(change, values)


def _in_state(state: State, now: float) -> ColumnElement[bool]:
    if state == "revoked":
        return KEYS.c.revoked_at.is_not(None)
    lives: ColumnElement[bool] = not_over(now)
    if state == "expired":
        return KEYS.c.revoked_at.is_(None) & ~lives
    retired = KEYS.c.signer.in_(select(SIGNERS.c.kid).where(SIGNERS.c.retired_at.is_not(None)))
    # Of most keys nobody wrote down who signed them: without the `or`, they would be in neither state.
    which = retired if state == "retired" else or_(KEYS.c.signer.is_(None), ~retired)
    return KEYS.c.revoked_at.is_(None) & lives & which


def minted(actor: Actor, record: KeyRecord) -> Note:
    """What the audit says of a new key."""
    details: dict[str, object] = {
        "kind": str(record.kind),
        "parent": record.parent_id or "",
        "scope": record.scope.to_json(),
        "expires_at": record.expires_at,
    }
    if record.tunnel is not None:
        details["tunnel"] = record.tunnel
    return Note(actor, Action.KEY_MINT, record.id, record.project_id or "", details)
