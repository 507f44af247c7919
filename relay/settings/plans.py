"""Plans: limits under a name, which an operator gives to projects. Tables `[plans.NAME]` of the settings file. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from relay.keys.scopes import LABEL, MAX_LIMIT, Scope
from relay.settings.amounts import bandwidth_of, size_of
from relay.settings.errors import SettingsError

BUILT_IN: Mapping[str, Scope] = MappingProxyType(
    {"hobby": Scope(tunnels=3, bandwidth=bandwidth_of("10 Mbit/s"), monthly_requests=20_000)}
)
"""The plans that come along; a table of the same name takes the place of one."""
NONE = "none"
"""The word of commands for no plan, so no plan's name."""


@dataclass(frozen=True, slots=True)
class _Member:
    """How a limit is written in a plan. `read` raises ValueError; `form` follows "must be"."""

    limit: str
    read: Callable[[object], int]
    form: str
    example: str


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError
    return value


def _counted(limit: str, of: str, example: str) -> _Member:
    return _Member(limit, _count, f"a whole number from 1 on, of {of}", example)


_SIZE = "bytes, a number or a text such as"
MEMBERS: Mapping[str, _Member] = MappingProxyType(
    {
        "tunnels": _counted("tunnels", "tunnels at a time", "3"),
        "streams": _counted("streams", "requests and connections under way at a time", "100"),
        "rate": _counted("rate", "requests a second", "10"),
        "bandwidth": _Member(
            "bandwidth", bandwidth_of, 'bytes a second each way, a number or a text such as "10 Mbit/s"', '"10 Mbit/s"'
        ),
        "body": _Member("body", size_of, f'{_SIZE} "10MiB", for one request', '"10MiB"'),
        "requests": _counted("monthly_requests", "requests a month", "20000"),
        "bytes": _Member("monthly_bytes", size_of, f'{_SIZE} "5GiB", a month and both ways together', '"5GiB"'),
    }
)


def plans_of(value: object, where: str) -> Mapping[str, Scope]:
    """All plans: those that come along and those of the value of `plans`. `where` says whose it is.

    Raises `SettingsError`.
    """
    if not isinstance(value, dict):
        raise SettingsError(f"plans (in {where}) must be tables, for example [plans.small] with the line tunnels = 3.")
    return MappingProxyType({**BUILT_IN, **{name: _plan_of(name, table, where) for name, table in value.items()}})


def _plan_of(name: str, table: object, where: str) -> Scope:
    place = f"[plans.{name}] in {where}"
    if not LABEL.fullmatch(name) or name == NONE:
        raise SettingsError(
            f"plans.{name} (in {where}) must be named by 1 to 63 of a-z, 0-9 and - other than {NONE}, "
            "for example [plans.small]."
        )
    if not isinstance(table, dict):
        raise SettingsError(f"plans.{name} (in {where}) must be a table, for example [plans.{name}] with tunnels = 3.")
    limits: dict[str, int] = {}
    for member, given in table.items():
        known = MEMBERS.get(member)
        if known is None:
            near = difflib.get_close_matches(member, MEMBERS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(MEMBERS)}."
            raise SettingsError(f"{member} ({place}) is no limit of a plan; limits are lines such as rate = 10; {hint}")
        limits[known.limit] = _limit(known, given, f"{member} ({place})")
    return Scope(**limits)  # type: ignore[arg-type]  # never the names


def _limit(member: _Member, given: object, what: str) -> int:
    try:
        amount = member.read(given)
        if not 0 < amount <= MAX_LIMIT:
            raise ValueError
    except ValueError:
        name = what.partition(" ")[0]
        raise SettingsError(
            f"{what} must be {member.form}, for example {name} = {member.example}, but it is {given!r}."
        ) from None
    return amount
