"""What was used in a month, and what is left of it: the registry's counts, with what this node has not written yet.

A key is bounded by its own limits and by those of the keys and of the project above it, each for the sum of all below;
so what it has left is the least that any of them has left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from relay.api import models
from relay.api.authenticate import ancestors
from relay.api.call import Call, Reply
from relay.api.keyshapes import limits_of
from relay.api.office import Office
from relay.api.projects import listed
from relay.api.rights import Reach, Right, reach
from relay.api.wishes import UsageQuery
from relay.keys.forms import Kind, is_public_id
from relay.keys.scopes import Scope
from relay.keys.times import text_of
from relay.limits.months import Month, month_of
from relay.registry.records import KeyRecord, Project, UsageSum

MOST = 500
"""Projects, and keys, in one answer."""
NOTHING = UsageSum()
# Rotations followed from the first key of a line to the newest.
_LONGEST_LINE = 1000


@dataclass(frozen=True, slots=True)
class Books:
    """One month, of some projects and keys. `now`: it is this one (and this node may have counted more of it)."""

    office: Office
    month: Month
    now: bool
    sums: Mapping[str, UsageSum]
    projects: Mapping[str, Project]

    @classmethod
    async def read(cls, office: Office, month: Month, projects: Collection[str] | None, keys: Collection[str]) -> Books:
        """Of these projects (None: of all that used something) and the master keys in them, and of further keys."""
        sums = await office.registry.usage.sums(month.name, projects, keys)
        meant = [one for one in sums if not is_public_id(one)] if projects is None else projects
        found = await office.registry.projects.find(meant)
        now = month.starts <= office.now() < month.ends
        if now:
            office.usage.count()
        return cls(office, month, now, sums, found)

    @classmethod
    async def of_key(cls, office: Office, record: KeyRecord, month: Month) -> Books:
        """For one key and all above it."""
        projects = [] if record.project_id is None else [record.project_id]
        return await cls.read(office, month, projects, [record.id])

    def used(self, id: str) -> UsageSum:
        """By a project, a child key, or a line of master keys."""
        written = self.sums.get(id, NOTHING)
        known = self.office.usage.used(id) if self.now else None
        if known is None:
            return written
        # Both only grow: this node is ahead of the registry by what it has not written, behind by what others have.
        return UsageSum(
            max(written.requests, known.requests),
            max(written.bytes_in, known.bytes_in),
            max(written.bytes_out, known.bytes_out),
        )

    def order(self, id: str) -> tuple[int, int, str]:
        """Sorts those with the most requests to the front."""
        used = self.used(id)
        return -used.requests, -used.bytes_in - used.bytes_out, id

    def limits(self, record: KeyRecord) -> models.Limits:
        """Those that hold for a key in effect."""
        return limits_of(record.scope.bounded(scope for _, scope in self._chain(record)))

    def told_of_month(self, record: KeyRecord) -> models.KeyMonth | None:
        """What a key has used; None for one below which nothing is counted."""
        if record.kind not in (Kind.MASTER, Kind.CHILD):
            return None
        used, left = self.used(record.first)._asdict(), self._left(self._chain(record))
        return models.KeyMonth(month=self.month.name, ends_at=text_of(self.month.ends), left=left, **used)

    def told_of_key(self, record: KeyRecord) -> models.KeyUsage:
        """An entry of the list of keys."""
        project = self.projects.get(record.project_id or "")
        return models.KeyUsage(
            key=record.id,
            kind=record.kind,
            label=record.label,
            project=record.project_id or "",
            project_name=None if project is None else project.name,
            limits=self.limits(record),
            left=self._left(self._chain(record)),
            **self.used(record.first)._asdict(),
        )

    def told_of_project(self, project_id: str) -> models.ProjectUsage:
        """An entry of the list of projects."""
        project, limits = self.projects.get(project_id), self._limits_of(project_id)
        return models.ProjectUsage(
            project=project_id,
            project_name=None if project is None else project.name,
            plan=None if project is None else project.plan,
            limits=limits_of(limits),
            left=self._left([(project_id, limits)]),
            **self.used(project_id)._asdict(),
        )

    def _chain(self, record: KeyRecord) -> list[tuple[str, Scope]]:
        """The limits of the key and of all above it, each with the id under which is counted."""
        found = [(one.first, one.scope) for one in (record, *ancestors(self.office, record))]
        if record.project_id is not None:
            found.append((record.project_id, self._limits_of(record.project_id)))
        return found

    def _limits_of(self, project_id: str) -> Scope:
        project = self.projects.get(project_id)
        return self.office.plans.limits_of(None if project is None else project.plan)

    def _left(self, chain: Iterable[tuple[str, Scope]]) -> models.Left:
        requests, amounts = [], []
        for id, scope in chain if self.now else ():
            used = self.used(id)
            if scope.monthly_requests is not None:
                requests.append(max(0, scope.monthly_requests - used.requests))
            if scope.monthly_bytes is not None:
                amounts.append(max(0, scope.monthly_bytes - used.bytes_in - used.bytes_out))
        return models.Left(requests=min(requests, default=None), bytes=min(amounts, default=None))


# ---- handlers


async def show(call: Call) -> Reply:
    """What projects and keys used in a month; a child key is told of itself only."""
    query, office = call.taken(UsageQuery), call.office
    project = await listed(call, query.project, Right.USAGE_SHOW)
    month = month_of(office.now()) if query.month is None else _month(query.month)
    if reach(call.who, Right.USAGE_SHOW) is Reach.ITSELF:
        record = await office.registry.keys.get(call.who.key_id)
        books = await Books.of_key(office, record, month)
        return _reply(books, [], [books.told_of_key(record)], more=False)
    meant = None if project is None else [project]
    rows = await office.registry.usage.month(month.name, meant, MOST + 1)
    books = await Books.read(office, month, meant, [row.key_id for row in rows])
    projects, keys = list(books.projects), [one for one in books.sums if is_public_id(one)]
    for ids in (projects, keys):
        ids.sort(key=books.order)
    records = await office.registry.keys.find(keys[:MOST])
    return _reply(
        books,
        [books.told_of_project(one) for one in projects[:MOST]],
        [books.told_of_key(_newest(office, records[one])) for one in keys[:MOST] if one in records],
        more=max(len(projects), len(keys)) > MOST,
    )


def _newest(office: Office, record: KeyRecord) -> KeyRecord:
    """The last key of the line that begins with this one."""
    for _ in range(_LONGEST_LINE):
        after = None if record.successor_id is None else office.keyring.public_of(record.successor_id)
        if after is None:
            break
        record = after
    return record


def _reply(books: Books, projects: list[models.ProjectUsage], keys: list[models.KeyUsage], *, more: bool) -> Reply:
    month, ends_at = books.month.name, text_of(books.month.ends)
    return Reply(models.Usage(month=month, ends_at=ends_at, projects=projects, keys=keys, more=more))


def _month(name: str) -> Month:
    year, _, month = name.partition("-")
    return month_of(datetime(int(year), int(month), 1, tzinfo=UTC).timestamp())
