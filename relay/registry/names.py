"""Whose a name is: what may be claimed, by whom, and when a name that was given back is free for others."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, func, insert, or_, select, update

from relay.keys.scopes import LABEL
from relay.registry.database import Reading, Writing
from relay.registry.errors import NotAllowed
from relay.registry.schema import SUBDOMAINS
from relay.registry.trees import same_holder

WEEK = 604_800.0
MOST_NAMES = 10_000
"""Of one project: those it holds, and those that are kept from others for its sake."""


def check_label(name: str) -> None:
    """Raises NotAllowed for a name that cannot stand in a host name."""
    if not LABEL.fullmatch(name):
        raise NotAllowed("name_form", "A name is 1 to 63 of a-z, 0-9 and -, and neither begins nor ends with -.")


async def row_of(read: Reading, name: str) -> Row[Any] | None:
    return await read.row(select(SUBDOMAINS).where(SUBDOMAINS.c.name == name))


async def check_free(
    read: Reading, now: float, name: str, project_id: str, *, login: str = "", quarantine: float = WEEK
) -> Row[Any] | None:
    """The name's row, None without any; raises NotAllowed when another project has it, or had it until lately.

    After `quarantine` seconds, and at once for the login that reserved it, a name given back is free.
    """
    check_label(name)
    row = await row_of(read, name)
    if row is None or row.project_id == project_id:
        return row
    if row.released_at is None:
        raise NotAllowed("name_taken", f"The name {name} belongs to another project; choose another one.")
    if row.released_at + quarantine > now and not (login and await same_holder(read, row.login, login)):
        raise NotAllowed("name_taken", f"The name {name} was another project's until lately; choose another one.")
    return row


async def take(write: Writing, now: float, row: Row[Any] | None, values: dict[str, str]) -> None:
    """Reserves a name (`name`, `project_id`, `login`) whose row, as `check_free` gave it, is this."""
    write.ledger.names_seq += 1
    changed = {**values, "reserved_at": now, "released_at": None}
    if row is None:
        await write.run(insert(SUBDOMAINS), changed)
    else:
        await write.run(update(SUBDOMAINS).where(SUBDOMAINS.c.name == values["name"]).values(**changed))


async def check_room(read: Reading, now: float, project_id: str, quarantine: float) -> None:
    """Raises NotAllowed when the project has more names than one may: every node keeps all of them in memory."""
    kept = or_(SUBDOMAINS.c.released_at.is_(None), SUBDOMAINS.c.released_at + quarantine > now)
    count = select(func.count()).select_from(SUBDOMAINS).where(SUBDOMAINS.c.project_id == project_id, kept)
    row = await read.row(count)
    if row is not None and row[0] > MOST_NAMES:
        raise NotAllowed("too_many", f"A project holds at most {MOST_NAMES} names; release some that it needs no more.")
