"""Why a node should not be given work now: each reason is a sentence for whoever looks at /readyz. Changes nothing."""

from __future__ import annotations

from relay.edge.services import CLOSED, REFUSING
from relay.node.assemble import Node
from relay.registry.errors import Unavailable

_MEMORY = {
    REFUSING: "memory is short: new requests are refused",
    CLOSED: "memory is short: new requests are refused, and nobody is accepted",
}


def reasons(node: Node, now: float) -> list[str]:
    """Empty while there is none. `now` is loop time."""
    found = []
    if node.services.draining:
        found.append("draining")
    one = node.follower.followed
    if one.revocations.deaf(now):
        silence = one.revocations.silence(now)
        found.append(f"the registry was not heard for {silence:.0f} s: no agent is admitted, what is connected goes on")
    if node.services.level >= REFUSING:
        found.append(_MEMORY[min(node.services.level, CLOSED)])
    try:
        one.signing.key()
    except Unavailable:
        found.append("the signing key of this node was retired, and it has no other yet: no key is minted")
    return found
