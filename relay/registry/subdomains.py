"""Reserved names: the first claim of a free name reserves it, and the login that did may move it, nobody else.

Whose a name is, is decided in `names`; here are the transactions. Of a name in use, a claim reads only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import select, update

from relay.keys.forms import Kind
from relay.registry.audit import Action, append
from relay.registry.database import Database, Writing
from relay.registry.errors import NotAllowed, NotFound
from relay.registry.minting import live_project
from relay.registry.names import WEEK, check_free, check_label, check_room, row_of, take
from relay.registry.records import Actor, KeyRecord, Note, Page, Subdomain
from relay.registry.rows import after, page, page_size, subdomain_of
from relay.registry.schema import SUBDOMAINS
from relay.registry.trees import acting, living, same_holder


class Subdomains:
    """Each change is one transaction with its rows in the audit. Raises Unavailable when the database is."""

    def __init__(self, database: Database, now: Callable[[], float], quarantine: float = WEEK) -> None:
        """`quarantine`: seconds for which a name that was given back is kept from other projects."""
        self._database = database
        self._now = now
        self._quarantine = quarantine

    async def claim(self, actor: Actor, names: Sequence[str], claimant: KeyRecord) -> None:
        """Makes sure that all names are the claimant's project's. Raises NotAllowed, and then none was reserved."""
        project = claimant.project_id
        wanted = list(dict.fromkeys(names))
        if claimant.kind is not Kind.CHILD or project is None:
            raise NotAllowed("kind", "Tunnels are opened with a child key.")
        for name in wanted:
            check_label(name)
            if not claimant.scope.allows(name):
                raise NotAllowed("name_outside_scope", f"The key's scope does not cover the name {name}.")
        held = select(SUBDOMAINS.c.name).where(
            SUBDOMAINS.c.name.in_(wanted), SUBDOMAINS.c.project_id == project, SUBDOMAINS.c.released_at.is_(None)
        )
        async with self._database.reading() as read:
            if len(await read.rows(held)) == len(wanted):
                return
        async with self._database.writing() as write:
            now = self._now()
            await living(write, claimant.id, now)
            await live_project(write, project)
            login = claimant.parent_id or claimant.id
            notes = [
                Note(actor, Action.SUBDOMAIN_CLAIM, name, project, {"key": claimant.id})
                for name in wanted
                if await self._take(write, now, name, project, login)
            ]
            if notes:
                await check_room(write, now, project, self._quarantine)
            await append(write, now, *notes)

    async def reserve(self, actor: Actor, name: str, project_id: str) -> Subdomain:
        """Reserves a name for a project. Nothing happens when it is. Raises NotFound (project), NotAllowed."""
        async with self._database.writing() as write:
            now = self._now()
            await acting(write, actor, now)
            await live_project(write, project_id)
            if await self._take(write, now, name, project_id, actor.key_id):
                await check_room(write, now, project_id, self._quarantine)
                await append(write, now, Note(actor, Action.SUBDOMAIN_RESERVE, name, project_id))
            return await _get(write, name)

    async def release(self, actor: Actor, name: str) -> None:
        """Gives a name back. Raises NotFound when it is not reserved."""
        async with self._database.writing() as write:
            now = self._now()
            await acting(write, actor, now)
            held = await _held(write, name)
            await write.run(update(SUBDOMAINS).where(SUBDOMAINS.c.name == name).values(released_at=now))
            write.ledger.names_seq += 1
            await append(write, now, Note(actor, Action.SUBDOMAIN_RELEASE, name, held.project_id))

    async def move(self, actor: Actor, name: str, project_id: str) -> Subdomain:
        """Gives a name to another project. Only for the key that reserved it, or its successors.

        Raises NotFound (name, project), NotAllowed (somebody else's, a project that is not the key's).
        """
        async with self._database.writing() as write:
            now = self._now()
            held = await _held(write, name)
            await live_project(write, project_id)
            if not await same_holder(write, held.login, actor.key_id):
                raise NotAllowed("not_login", f"The name {name} may be moved only with the key that reserved it.")
            key = (await living(write, actor.key_id, now))[-1]
            if key.kind is not Kind.OPERATOR and key.project_id != project_id:
                raise NotAllowed("foreign_project", "A name moves only to a project that the key belongs to.")
            if held.project_id != project_id:
                change = {"project_id": project_id, "reserved_at": now}
                await write.run(update(SUBDOMAINS).where(SUBDOMAINS.c.name == name).values(**change))
                await check_room(write, now, project_id, self._quarantine)
                write.ledger.names_seq += 1
                note = Note(actor, Action.SUBDOMAIN_MOVE, name, project_id, {"from": held.project_id})
                await append(write, now, note)
            return await _get(write, name)

    async def get(self, name: str) -> Subdomain:
        """A name that is reserved or once was. Raises NotFound."""
        async with self._database.reading() as read:
            row = await row_of(read, name)
        if row is None:
            raise _unknown()
        return subdomain_of(row)

    async def list(self, project: str | None = None, limit: int = 100, cursor: str | None = None) -> Page[Subdomain]:
        """Reserved names, by name. Raises NotAllowed for a cursor that no page gave."""
        query = select(SUBDOMAINS).where(SUBDOMAINS.c.released_at.is_(None))
        query = query.order_by(SUBDOMAINS.c.name).limit(page_size(limit) + 1)
        if project is not None:
            query = query.where(SUBDOMAINS.c.project_id == project)
        if cursor is not None:
            query = query.where(SUBDOMAINS.c.name > after(cursor, (str,))[0])
        async with self._database.reading() as read:
            rows = await read.rows(query)
        return page(rows, page_size(limit), subdomain_of, ("name",))

    async def owners(self) -> dict[str, str]:
        """Every reserved name with the id of its project."""
        query = select(SUBDOMAINS.c.name, SUBDOMAINS.c.project_id).where(SUBDOMAINS.c.released_at.is_(None))
        async with self._database.reading() as read:
            return {row.name: row.project_id for row in await read.rows(query)}

    async def _take(self, write: Writing, now: float, name: str, project: str, login: str) -> bool:
        """Reserves a name unless it is the project's already; whether it did."""
        row = await check_free(write, now, name, project, login=login, quarantine=self._quarantine)
        if row is not None and row.released_at is None:
            return False
        await take(write, now, row, {"name": name, "project_id": project, "login": login})
        return True


async def _get(write: Writing, name: str) -> Subdomain:
    row = await row_of(write, name)
    if row is None:
        raise _unknown()
    return subdomain_of(row)


async def _held(write: Writing, name: str) -> Subdomain:
    found = await _get(write, name)
    if found.released_at is not None:
        raise _unknown()
    return found


def _unknown() -> NotFound:
    return NotFound("That name is not reserved.")
