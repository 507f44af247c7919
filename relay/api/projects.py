"""Projects over HTTP, and what every other subject needs to know of them: which one is meant, and what it is called."""

from __future__ import annotations

import re

from relay.api import models, problems, wishes
from relay.api.call import Call, Reply
from relay.api.keyshapes import key_of, limits_of, told_of_revocation
from relay.api.office import Office
from relay.api.rights import Right, Thing
from relay.api.wishes import NewProject, Paging, PlanWish
from relay.keys.forms import Kind, read_public
from relay.keys.private import id_of_public
from relay.keys.times import text_of, text_or_none
from relay.registry.errors import NotFound
from relay.registry.records import NewKey, Project

_REF = re.compile(wishes.PROJECT)


def shape(office: Office, project: Project) -> models.Project:
    """As it is told."""
    return models.Project(
        id=project.id,
        name=project.name,
        plan=project.plan,
        limits=limits_of(office.plans.limits_of(project.plan)),
        created_at=text_of(project.created_at),
        created_by=project.created_by,
        deleted_at=text_or_none(project.deleted_at),
    )


async def find(call: Call, ref: str, right: Right) -> Project:
    """The project with this id or name, if the caller has the right to it; raises `Problem`."""
    hidden = problems.not_found("project", ref)
    if not _REF.fullmatch(ref):
        raise hidden
    try:
        project = await call.office.registry.projects.get(ref)
    except NotFound:
        raise hidden from None
    call.demand(right, Thing(project.id), hidden)
    return project


async def meant(call: Call, ref: str | None, right: Right) -> Project:
    """The project that something is made in: the one that is named, else the caller's own, else `default`."""
    ref = ref or call.who.project
    if ref is None:
        return await call.office.registry.projects.default(call.actor)
    return await find(call, ref, right)


async def listed(call: Call, ref: str | None, right: Right) -> str | None:
    """The id of the project whose things are listed; None: of all."""
    if ref is not None:
        return (await find(call, ref, right)).id
    return None if call.everywhere(right) else call.who.project


class Names:
    """What projects are called. A name never changes, so each is asked for once while an answer is made."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._known: dict[str, str | None] = {}

    async def of(self, project_id: str | None) -> str | None:
        """The name of the project with this id; None: there is none."""
        if project_id is None:
            return None
        if project_id not in self._known:
            try:
                self._known[project_id] = (await self._office.registry.projects.get(project_id)).name
            except NotFound:
                self._known[project_id] = None
        return self._known[project_id]


# ---- handlers


async def create(call: Call) -> Reply:
    """A project, with the master key whose public half was sent."""
    wish = call.taken(NewProject)
    public = read_public(wish.master.public_key)
    master = NewKey(
        kind=Kind.MASTER,
        id=id_of_public(Kind.MASTER, public),
        project_id=None,
        parent_id=call.who.key_id,
        public=public,
        scope=call.who.scope,
        label=wish.master.label,
        expires_at=call.who.expires_at,
    )
    plan = _known(call.office, wish.plan)
    project, record = await call.office.registry.projects.create(call.actor, wish.name, master, plan)
    call.office.keyring.learn(record)
    call.office.plans.changed(project.id, plan)
    key = key_of(call.office, record, project.name)
    return Reply(models.CreatedProject(project=shape(call.office, project), master=key), 201)


async def page(call: Call) -> Reply:
    """Projects that live, oldest first."""
    query = call.taken(Paging)
    found = await call.office.registry.projects.list(query.limit, query.cursor)
    return Reply(models.Projects(items=[shape(call.office, one) for one in found.items], next_cursor=found.next_cursor))


async def show(call: Call) -> Reply:
    """One project."""
    return Reply(shape(call.office, await find(call, call.path["project"], Right.PROJECTS_SHOW)))


async def give_plan(call: Call) -> Reply:
    """Gives a project a plan, or takes it; live tunnels are bounded by it at once."""
    project = await find(call, call.path["project"], Right.PROJECTS_PLAN)
    plan = _known(call.office, call.taken(PlanWish).plan)
    project = await call.office.registry.projects.give_plan(call.actor, project.id, plan)
    call.office.plans.changed(project.id, plan)
    return Reply(shape(call.office, project))


async def plans(call: Call) -> Reply:
    """The plans that projects may be given."""
    known = call.office.plans
    return Reply(
        models.Plans(
            items=[
                models.Plan(name=name, default=name == known.default, limits=limits_of(scope))
                for name, scope in sorted(known.known.items())
            ]
        )
    )


def _known(office: Office, plan: str | None) -> str | None:
    """The plan. Raises `Problem` when there is none of this name."""
    if plan is None or plan in office.plans.known:
        return plan
    there = ", ".join(sorted(office.plans.known))
    problem = problems.invalid(
        f"There is no plan {problems.quoted(plan)}; there are: {there}.",
        "Choose one of them, or have the relay's operator write it into the settings.",
    )
    problem.reason = "plan"
    raise problem


async def delete(call: Call) -> Reply:
    """Ends a project: its keys are revoked, its names released."""
    project = await find(call, call.path["project"], Right.PROJECTS_DELETE)
    revocation = await call.office.registry.projects.delete(call.actor, project.id)
    return Reply(told_of_revocation(call.office, revocation))
