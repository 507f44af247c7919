"""Reserved names over HTTP."""

from __future__ import annotations

from relay.api import models, problems
from relay.api.call import Call, Reply
from relay.api.projects import Names, find, listed, meant
from relay.api.rights import Right, Thing
from relay.api.wishes import MoveWish, OfProject, ReserveWish
from relay.keys.times import text_of, text_or_none
from relay.registry.errors import NotFound
from relay.registry.records import Subdomain
from relay.tunnels.admission import refuse_reserved
from relay.wire.hello import LABEL


def _shape(call: Call, subdomain: Subdomain, project_name: str | None) -> models.Subdomain:
    return models.Subdomain(
        name=subdomain.name,
        url=call.office.public_url(subdomain.name),
        project=subdomain.project_id,
        project_name=project_name,
        reserved_at=text_of(subdomain.reserved_at),
        released_at=text_or_none(subdomain.released_at),
        login=subdomain.login,
    )


async def page(call: Call) -> Reply:
    """Names of the caller's project, or of all to an operator."""
    query = call.taken(OfProject)
    project = await listed(call, query.project, Right.SUBDOMAINS_LIST)
    found = await call.office.registry.subdomains.list(project, query.limit, query.cursor)
    names = Names(call.office)
    items = [_shape(call, one, await names.of(one.project_id)) for one in found.items]
    return Reply(models.Subdomains(items=items, next_cursor=found.next_cursor))


async def reserve(call: Call) -> Reply:
    """Keeps a name for a project; nothing changes when it has it already."""
    name = call.path["name"]
    if not LABEL.fullmatch(name):
        raise problems.invalid(f"{problems.quoted(name)} is no subdomain: 1 to 63 of a-z, 0-9 and - inside.")
    kept = refuse_reserved((name,))
    if kept is not None:
        raise problems.conflict(kept.message, "Choose another name.")
    project = await meant(call, call.taken(ReserveWish).project, Right.SUBDOMAINS_RESERVE)
    call.demand(Right.SUBDOMAINS_RESERVE, Thing(project.id, name=name), problems.not_found("project", project.id))
    reserved = await call.office.registry.subdomains.reserve(call.actor, name, project.id)
    return Reply(_shape(call, reserved, project.name))


async def release(call: Call) -> Reply:
    """Gives a name up. Whoever serves it is told, and cut; other projects wait for the quarantine to end."""
    name = (await _find(call, Right.SUBDOMAINS_RELEASE)).name
    await call.office.registry.subdomains.release(call.actor, name)
    call.office.live.close(name, f"The name {name} was released by {call.who.key_id}.")
    call.office.live.on_moved(name, "")
    return Reply(None, 204)


async def move(call: Call) -> Reply:
    """Gives a name to another project of the same login, also while it is alive."""
    subdomain = await _find(call, Right.SUBDOMAINS_MOVE)
    project = await find(call, call.taken(MoveWish).project, Right.SUBDOMAINS_MOVE)
    moved = await call.office.registry.subdomains.move(call.actor, subdomain.name, project.id)
    call.office.live.on_moved(subdomain.name, project.id)
    return Reply(_shape(call, moved, project.name))


async def _find(call: Call, right: Right) -> Subdomain:
    name = call.path["name"]
    hidden = problems.not_found("subdomain", name)
    if not LABEL.fullmatch(name):
        raise hidden
    try:
        subdomain = await call.office.registry.subdomains.get(name)
    except NotFound:
        raise hidden from None
    call.demand(right, Thing(subdomain.project_id, name=name), hidden)
    return subdomain
