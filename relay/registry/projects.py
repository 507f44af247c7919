"""Projects: made with their first master key, deleted with all their keys; the names of the living are unique."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from dataclasses import replace

from sqlalchemy import insert, or_, select, tuple_, update

from relay.keys.forms import DIGITS, Kind
from relay.keys.scopes import LABEL
from relay.registry.audit import Action, append
from relay.registry.database import Database, Reading, Writing
from relay.registry.errors import Conflict, NotAllowed, NotFound
from relay.registry.keys import among, minted
from relay.registry.minting import add_key
from relay.registry.records import Actor, KeyRecord, NewKey, Note, Page, Project, Revocation
from relay.registry.revocation import revoke_where, told
from relay.registry.rows import after, page, page_size, project_of
from relay.registry.schema import KEYS, PROJECTS, SUBDOMAINS
from relay.registry.trees import acting

DEFAULT = "default"


class Projects:
    """Each change is one transaction with its rows in the audit. Raises Unavailable when the database is."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now

    async def create(
        self, actor: Actor, name: str, master: NewKey, plan: str | None = None
    ) -> tuple[Project, KeyRecord]:
        """A project and its first master key, whose parent is an operator key; `master.project_id` is filled in.

        Whether there is such a plan is the caller's to know.
        Raises Conflict (the name is another living project's, the key is known), NotAllowed (form, rules of keys).
        """
        if master.kind is not Kind.MASTER:
            raise NotAllowed("kind", "The first key of a project is a master key.")
        async with self._database.writing() as write:
            now = self._now()
            project = await _insert(write, now, actor, name, plan)
            key = await add_key(write, now, replace(master, project_id=project.id))
            await append(write, now, _created(actor, project), minted(actor, key))
        return project, key

    async def default(self, actor: Actor) -> Project:
        """The project for whoever names none, made when there is none."""
        async with self._database.reading() as read:
            found = await _living(read, DEFAULT)
        if found is not None:
            return found
        async with self._database.writing() as write:
            found = await _living(write, DEFAULT)
            if found is None:
                now = self._now()
                found = await _insert(write, now, actor, DEFAULT)
                await append(write, now, _created(actor, found))
        return found

    async def get(self, id_or_name: str) -> Project:
        """A living project by id or name, or a deleted one by id. Raises NotFound."""
        which = or_(PROJECTS.c.id == id_or_name, (PROJECTS.c.name == id_or_name) & PROJECTS.c.deleted_at.is_(None))
        async with self._database.reading() as read:
            row = await read.row(select(PROJECTS).where(which))
        if row is None:
            raise NotFound("There is no such project.")
        return project_of(row)

    async def find(self, ids: Collection[str]) -> dict[str, Project]:
        """Those of the ids that are known, also of projects that were deleted."""
        found: dict[str, Project] = {}
        async with self._database.reading() as read:
            for some in among(PROJECTS.c.id, ids):
                found.update((row.id, project_of(row)) for row in await read.rows(select(PROJECTS).where(some)))
        return found

    async def list(self, limit: int = 100, cursor: str | None = None) -> Page[Project]:
        """Those that live, oldest first. Raises NotAllowed for a cursor that no page gave."""
        query = select(PROJECTS).where(PROJECTS.c.deleted_at.is_(None))
        query = query.order_by(PROJECTS.c.created_at, PROJECTS.c.id).limit(page_size(limit) + 1)
        if cursor is not None:
            query = query.where(tuple_(PROJECTS.c.created_at, PROJECTS.c.id) > tuple_(*after(cursor, (float, str))))
        async with self._database.reading() as read:
            rows = await read.rows(query)
        return page(rows, page_size(limit), project_of, ("created_at", "id"))

    async def give_plan(self, actor: Actor, project_id: str, plan: str | None) -> Project:
        """Gives a project a plan, None: none of its own. Nothing happens when it has it. Raises NotFound."""
        async with self._database.writing() as write:
            now = self._now()
            await acting(write, actor, now)
            row = await write.row(select(PROJECTS).where(PROJECTS.c.id == project_id, PROJECTS.c.deleted_at.is_(None)))
            if row is None:
                raise NotFound("There is no such project.")
            before = project_of(row)
            if before.plan != plan:
                await write.run(update(PROJECTS).where(PROJECTS.c.id == project_id).values(plan=plan))
                write.ledger.names_seq += 1
                details = {"plan": plan, "before": before.plan}
                await append(write, now, Note(actor, Action.PROJECT_PLAN, project_id, project_id, details))
            return replace(before, plan=plan)

    async def plans(self) -> dict[str, str]:
        """The plan of every living project that has one of its own, by the project's id."""
        query = select(PROJECTS.c.id, PROJECTS.c.plan).where(
            PROJECTS.c.deleted_at.is_(None), PROJECTS.c.plan.is_not(None)
        )
        async with self._database.reading() as read:
            return {row.id: row.plan for row in await read.rows(query)}

    async def delete(self, actor: Actor, project_id: str) -> Revocation:
        """Revokes all its keys and gives its names back. Raises NotFound, also when it is deleted already."""
        async with self._database.writing() as write:
            now = self._now()
            await acting(write, actor, now)
            lives = (PROJECTS.c.id == project_id) & PROJECTS.c.deleted_at.is_(None)
            if not await write.run(update(PROJECTS).where(lives).values(deleted_at=now)):
                raise NotFound("There is no such project.")
            done = await revoke_where(write, now, actor, KEYS.c.project_id == project_id)
            held = (SUBDOMAINS.c.project_id == project_id) & SUBDOMAINS.c.released_at.is_(None)
            given_back = update(SUBDOMAINS).where(held).values(released_at=now).returning(SUBDOMAINS.c.name)
            names = sorted(row.name for row in await write.rows(given_back))
            write.ledger.names_seq += 1
            details = {**told(done), "names": names}
            await append(write, now, Note(actor, Action.PROJECT_DELETE, project_id, project_id, details))
        return done


async def _living(read: Reading, name: str) -> Project | None:
    row = await read.row(select(PROJECTS).where(PROJECTS.c.name == name, PROJECTS.c.deleted_at.is_(None)))
    return None if row is None else project_of(row)


async def _insert(write: Writing, now: float, actor: Actor, name: str, plan: str | None = None) -> Project:
    if not LABEL.fullmatch(name):
        raise NotAllowed(
            "project_name", "A project's name is 1 to 63 of a-z, 0-9 and -, and neither begins nor ends with -."
        )
    if await _living(write, name) is not None:
        raise Conflict("project_exists", f"There is a project {name} already; choose another name.")
    suffix = "".join(secrets.choice(DIGITS) for _ in range(6))
    project = Project(f"proj_{name[:24].replace('-', '_')}_{suffix}", name, plan, now, actor.key_id, None)
    values = {"id": project.id, "name": name, "plan": plan, "created_at": now, "created_by": actor.key_id}
    await write.run(insert(PROJECTS), values)
    if plan is not None:
        write.ledger.names_seq += 1
    return project


def _created(actor: Actor, project: Project) -> Note:
    plan = {} if project.plan is None else {"plan": project.plan}
    return Note(actor, Action.PROJECT_CREATE, project.id, project.id, {"name": project.name, **plan})
