"""What a relay's refusal means for an agent: to wait and try again, or the end, and by which exit code. Pure.

And the other way round: what an agent refuses a relay for.
"""

from __future__ import annotations

from collections.abc import Mapping

from relay.agent.config import Exit
from relay.wire.access import AccessRules, not_enforced
from relay.wire.hello import VERSION, Refused, Welcome

FINAL = {
    "bad_key": Exit.KEY_REFUSED,
    "expired": Exit.KEY_REFUSED,
    "revoked": Exit.KEY_REVOKED,
    "tunnel_closed": Exit.TUNNEL_CLOSED,
    "name_taken": Exit.NAME_REFUSED,
    "name_reserved": Exit.NAME_REFUSED,
    "version": Exit.VERSION_REFUSED,
    "bad_hello": Exit.UNEXPECTED,
}
# Final only without a time to wait: as long as the relay gives one, another agent's end may make room.
_FINAL_FOR_NOW = {"too_many": Exit.KEY_REFUSED}
# Tried again even without a time: neither says anything about this agent.
_PASSING = frozenset(("registry_unavailable", "draining"))
OWN_EVENTS = frozenset(("revoked", "tunnel_closed"))
"""Refusals that are events of their own."""


def wait_after(refused: Refused, established: bool) -> float | None:
    """Seconds to wait at least before the next attempt; None when there will be none. `established`: the agent was
    admitted before.
    """
    if refused.retry_after is not None and (established or refused.code not in FINAL):
        return refused.retry_after
    return 0.0 if refused.code in _PASSING else None


def exit_for(refused: Refused) -> Exit:
    """The exit code of an agent that ends by this refusal."""
    return FINAL.get(refused.code) or _FINAL_FOR_NOW.get(refused.code, Exit.UNEXPECTED)


def unfit(welcome: Welcome, access: Mapping[str, AccessRules]) -> str:
    """Why an agent must not serve a relay that admits it so; empty when it may."""
    if welcome.version != VERSION:
        return f"It answered with version {welcome.version} of the protocol; this agent speaks {VERSION}."
    if names := not_enforced(access, welcome.access):
        return (
            f"It would not ask visitors of {', '.join(names)} for what they must show, so no tunnel was opened; "
            "the relay is too old."
        )
    return ""
