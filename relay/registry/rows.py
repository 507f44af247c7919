"""From rows to records, and pages of a list: where a page ended is in its cursor, so nothing is kept between pages."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from sqlalchemy import Row

from relay.keys.forms import Kind
from relay.keys.scopes import Scope
from relay.registry.errors import NotAllowed
from relay.registry.records import KeyRecord, Page, Project, Subdomain

T = TypeVar("T")
MOST = 1000


def project_of(row: Row[Any]) -> Project:
    return Project(row.id, row.name, row.plan, row.created_at, row.created_by, row.deleted_at)


def key_of(row: Row[Any]) -> KeyRecord:
    return KeyRecord(
        id=row.id,
        kind=Kind(row.kind),
        project_id=row.project_id,
        parent_id=row.parent_id,
        public=None if row.public_key is None else bytes(row.public_key),
        scope=Scope.from_json(row.scope),
        label=row.label,
        tunnel=row.tunnel,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        revoked_by=row.revoked_by,
        revoked_seq=row.revoked_seq,
        token_version=row.token_version,
        successor_id=row.successor_id,
        last_used_at=row.last_used_at,
        last_used_from=row.last_used_from,
        line=row.line,
        signer=row.signer,
    )


def row_of_key(record: KeyRecord) -> dict[str, Any]:
    values = asdict(record)
    return {
        **values,
        "public_key": values.pop("public"),
        "kind": str(record.kind),
        "scope": record.scope.to_short_json(),
    }


def subdomain_of(row: Row[Any]) -> Subdomain:
    return Subdomain(row.name, row.project_id, row.login, row.reserved_at, row.released_at)


# ------------------------------------------------------------------------------------------------------ pages


def page_size(limit: int) -> int:
    """At least 1, at most MOST."""
    return max(1, min(MOST, limit))


def page(rows: Sequence[Row[Any]], limit: int, of: Callable[[Row[Any]], T], place: Sequence[str]) -> Page[T]:
    """A page of `rows`, of which there is one more than `limit` when another page follows."""
    items = tuple(of(row) for row in rows[:limit])
    if len(rows) <= limit:
        return Page(items, None)
    last = [getattr(rows[limit - 1], one) for one in place]
    return Page(items, base64.urlsafe_b64encode(json.dumps(last).encode()).decode().rstrip("="))


def after(cursor: str, kinds: Sequence[type]) -> list[Any]:
    """What a cursor holds: values of these types. Raises NotAllowed for one that no page gave."""
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        values = None
    if not isinstance(values, list) or [type(one) for one in values] != list(kinds):
        raise _bad_cursor()
    for one in values:
        if (isinstance(one, float) and not math.isfinite(one)) or (isinstance(one, str) and not one.isprintable()):
            raise _bad_cursor()
    return values


def _bad_cursor() -> NotAllowed:
    return NotAllowed("cursor", "The cursor is not one of this list; start again without it.")
