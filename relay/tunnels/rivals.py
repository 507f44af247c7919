"""Which of two agents may have a name, and which of two links a place. Asks the hub what is alive, and the holders of a
name whether they are.
"""

from __future__ import annotations

import asyncio

from relay.tunnels.hub import Hub, Link
from relay.wire.errors import AwayCode
from relay.wire.hello import Refused

PROBE_WITHIN = 0.7


async def clear_rivals(hub: Hub, link: Link) -> Refused | None:
    """Another agent has a name that `link` claims: it keeps it if it answers, else it is evicted."""
    for tunnel in hub.rivals(link):
        taken = Refused("name_taken", f"The name {tunnel.name!r} is taken by another agent that is connected.")
        holders = list(tunnel.links)
        if tunnel.project != link.project:
            owner = hub.reserved.get(tunnel.name)
            if owner != link.project:
                return taken if owner is None else Refused(taken.code, taken.message, 1.0)
            for holder in holders:
                hub.dismiss(holder, AwayCode.SUPERSEDED, f"the name {tunnel.name!r} moved to another project")
            continue
        answers = await asyncio.gather(*(holder.session.probe(PROBE_WITHIN) for holder in holders))
        if any(answers):
            return Refused(taken.code, taken.message, 5.0)
        for holder in holders:
            hub.detach(holder)
            holder.session.abort("another agent of the same project took the name over")
    # While we waited, yet another agent may have come: judged again, without waiting.
    if hub.rivals(link):
        return Refused("name_taken", "Another agent claimed the name at the same moment.", 1.0)
    return None


def clear_twin(hub: Hub, link: Link) -> Refused | None:
    """Same instance, same slot: the newer generation wins at once."""
    twin = hub.twin(link)
    if twin is None:
        return None
    if twin.generation >= link.generation:
        return Refused("stale_generation", "A newer link of the same agent is connected.", 1.0)
    hub.detach(twin)
    if not (twin.session.leaving and twin.session.streams):  # one that we sent away may finish what it carries
        twin.session.close(AwayCode.SUPERSEDED, "a newer link of the same agent took this one's place")
    return None
