"""What was used in each month, by key: added up as it comes, and told for a project, a key with all below it, one key.

A month is a text, `2026-11`, in UTC. What a key used counts for the keys above it and for its project; of a key that
replaced others, the line counts, so that nobody begins anew by rotating. Operator keys are not counted: nothing is
below one of them but what is some project's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, func, select, true

from relay.keys.forms import Kind
from relay.registry.database import Database
from relay.registry.dialects import insert_or_add
from relay.registry.keys import among
from relay.registry.records import UsageRow, UsageSum, UsageTotal
from relay.registry.schema import KEYS, USAGE

_COUNTERS = ("requests", "bytes_in", "bytes_out")


class Usage:
    """Counters by project, key and month. Raises Unavailable when the database is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, rows: Sequence[UsageRow]) -> None:
        """Adds to the counters."""
        if rows:
            async with self._database.writing() as write:
                statement = insert_or_add(write.dialect, USAGE, _COUNTERS)
                await write.run(statement, [asdict(row) for row in rows])

    async def sums(
        self, month: str, projects: Collection[str] | None = None, keys: Collection[str] = ()
    ) -> dict[str, UsageSum]:
        """What projects (None: all) used, and each master key's line in them with all below it, by their ids.

        Further `keys`, by their own ids, with what they used themselves. Who used nothing is left out.
        """
        found: defaultdict[str, UsageSum] = defaultdict(UsageSum)
        async with self._database.reading() as read:
            for where in _in_projects(projects):
                for row in await read.rows(_BY_PARENT.where(USAGE.c.period == month, where)):
                    for one in {row.project_id, row.above} - {None}:
                        found[one] = _plus(found[one], row)
                for some in among(USAGE.c.key_id, keys):
                    for row in await read.rows(select(USAGE).where(USAGE.c.period == month, where, some)):
                        found[row.key_id] = _plus(found[row.key_id], row)
        return dict(found)

    async def month(
        self, month: str, projects: Collection[str] | None = None, most: int | None = None
    ) -> list[UsageTotal]:
        """What each key of these projects (None: of all) used, those with the most requests first; at most so many."""
        found: list[UsageTotal] = []
        async with self._database.reading() as read:
            for where in _in_projects(projects):
                query = _BY_KEY.where(USAGE.c.period == month, where).limit(most)
                found += [UsageTotal(**row._mapping) for row in await read.rows(query)]
        found.sort(key=lambda one: (-one.requests, -one.bytes_in - one.bytes_out, one.key_id))
        return found[:most]


def _in_projects(projects: Collection[str] | None) -> list[ColumnElement[bool]]:
    """The conditions of as many queries as are needed."""
    return [true()] if projects is None else among(USAGE.c.project_id, projects)


def _by_parent() -> Select[Any]:
    key, parent = KEYS.alias("key"), KEYS.alias("parent")
    # A line is a master key's, whichever of its keys the used one was minted with.
    line = func.coalesce(parent.c.line, parent.c.id).label("above")
    counters = [func.sum(USAGE.c[one]).label(one) for one in _COUNTERS]
    master = and_(parent.c.id == key.c.parent_id, parent.c.kind == str(Kind.MASTER))
    joined = USAGE.outerjoin(key, key.c.id == USAGE.c.key_id).outerjoin(parent, master)
    return select(USAGE.c.project_id, line, *counters).select_from(joined).group_by(USAGE.c.project_id, line)


def _by_key() -> Select[Any]:
    counters = [USAGE.c[one] for one in _COUNTERS]
    joined = USAGE.outerjoin(KEYS, KEYS.c.id == USAGE.c.key_id)
    query = select(USAGE.c.project_id, USAGE.c.key_id, KEYS.c.parent_id, *counters).select_from(joined)
    in_all = USAGE.c.bytes_in + USAGE.c.bytes_out
    return query.order_by(USAGE.c.requests.desc(), in_all.desc(), USAGE.c.key_id)


_BY_PARENT, _BY_KEY = _by_parent(), _by_key()


def _plus(before: UsageSum, row: Row[Any]) -> UsageSum:
    # A sum of PostgreSQL's is a Decimal.
    return UsageSum(
        before.requests + int(row.requests), before.bytes_in + int(row.bytes_in), before.bytes_out + int(row.bytes_out)
    )
