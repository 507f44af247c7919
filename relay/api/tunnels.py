"""What is alive on this node, over HTTP."""

from __future__ import annotations

from relay.api import models, problems
from relay.api.call import Call, Reply
from relay.api.office import LiveTunnel
from relay.api.projects import Names, listed
from relay.api.rights import Right, Thing
from relay.api.wishes import OfProject
from relay.keys import compact
from relay.keys.times import text_of
from relay.registry.audit import Action
from relay.registry.records import Note


async def _shape(call: Call, tunnel: LiveTunnel, names: Names) -> models.Tunnel:
    return models.Tunnel(
        name=tunnel.name,
        url=call.office.public_url(tunnel.name),
        project=tunnel.project,
        project_name=await names.of(tunnel.project),
        key_id=tunnel.key_id,
        links=tunnel.links,
        since=text_of(tunnel.since),
        streams=tunnel.streams,
        private=tunnel.private,
    )


async def page(call: Call) -> Reply:
    """Live names of the caller's project, or of all to an operator, by name."""
    query = call.taken(OfProject)
    project = await listed(call, query.project, Right.TUNNELS_LIST)
    after = "" if query.cursor is None else _name_in(query.cursor)
    alive = [
        one for one in call.office.live.tunnels() if one.name > after and (project is None or one.project == project)
    ]
    alive.sort(key=lambda one: one.name)
    shown = alive[: query.limit]
    names = Names(call.office)
    items = [await _shape(call, one, names) for one in shown]
    cursor = _cursor_after(shown[-1].name) if len(alive) > len(shown) else None
    return Reply(models.Tunnels(items=items, next_cursor=cursor))


async def close(call: Call) -> Reply:
    """Ends a tunnel: its agents are told, and cut. The name stays reserved, the key valid."""
    name = call.path["name"]
    hidden = problems.not_found("tunnel", name)
    tunnel = next((one for one in call.office.live.tunnels() if one.name == name), None)
    if tunnel is None:
        raise hidden
    call.demand(Right.TUNNELS_CLOSE, Thing(tunnel.project, name=name), hidden)
    # Beside the row of the agent that loses the tunnel: who took it away.
    ordered = Note(call.actor, Action.TUNNEL_CLOSE, name, tunnel.project, {"ordered": True})
    await call.office.registry.audit.record([ordered])
    call.office.live.close(name, f"The tunnel {name} was closed by {call.who.key_id}.")
    return Reply(None, 204)


def _cursor_after(name: str) -> str:
    return compact.encode(name.encode())


def _name_in(cursor: str) -> str:
    try:
        return compact.decode(cursor).decode()
    except ValueError:
        problem = problems.invalid("The cursor is not one of this list; start again without it.")
        problem.reason = "cursor"
        raise problem from None
