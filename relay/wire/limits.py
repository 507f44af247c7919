"""How many requests a tunnel takes, as an agent asks for it in its HELLO. Pure.

It alone decides which limits are well formed; how they are kept is the relay's. They bound what visitors of one tunnel
do, beside what the key allows: a brake for loops, not a right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from relay.wire.access import by_name
from relay.wire.errors import RemoteProtocolError

MOST_RATE: Final = 1_000_000
"""Requests a second."""


@dataclass(frozen=True, slots=True)
class TunnelLimits:
    """Requests a second, of all visitors together and of each address; None: not limited. At least one is."""

    rate: int | None = None
    rate_per_address: int | None = None


_MEMBERS: Final = tuple(field.name for field in fields(TunnelLimits))


def limits_to_json(limits: Mapping[str, TunnelLimits]) -> dict[str, Any]:
    """The member `limits` of HELLO."""
    return {
        name: {member: rate for member in _MEMBERS if (rate := getattr(one, member)) is not None}
        for name, one in limits.items()
    }


def limits_from_json(value: object, names: tuple[str, ...]) -> dict[str, TunnelLimits]:
    """The limits of some of `names`. Raises `RemoteProtocolError` that names what is wrong."""
    return {name: _limits(f"hello: limits of {name}", given) for name, given in by_name("limits", value, names).items()}


def _limits(where: str, given: Mapping[str, Any]) -> TunnelLimits:
    rates = {member: given[member] for member in _MEMBERS if member in given}
    for member, rate in rates.items():
        if type(rate) is not int or not 1 <= rate <= MOST_RATE:
            raise RemoteProtocolError(f"{where}: {member} must be an integer from 1 to {MOST_RATE}")
    if not rates:  # whoever wrote it meant some limit, and there would be none
        raise RemoteProtocolError(f"{where} has neither rate nor rate_per_address")
    return TunnelLimits(**rates)


def limited_from_json(value: object, names: tuple[str, ...]) -> tuple[str, ...]:
    """The member `limits` of WELCOME: those of `names` whose limits the relay keeps. Raises `RemoteProtocolError`."""
    if not isinstance(value, list) or not all(isinstance(name, str) and name in names for name in value):
        raise RemoteProtocolError("welcome: limits must be a list of names of tunnels")
    if len(set(value)) != len(value):
        raise RemoteProtocolError("welcome: a name stands twice in limits")
    return tuple(value)


def not_kept(asked: Mapping[str, TunnelLimits], kept: tuple[str, ...]) -> list[str]:
    """The names whose limits the relay does not keep: it is older than they are."""
    return [name for name in asked if name not in kept]
