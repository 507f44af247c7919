"""Every test that takes `here` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.registry.world import World, world
from tests.support.databases import (
    database_url,
    empty_url,
    fresh_postgres_url,
    fresh_url,
    postgres,
    postgres_template,
    postgres_url,
    sqlite_template,
    sqlite_url,
)

__all__ = [
    "database_url",
    "empty_url",
    "fresh_postgres_url",
    "fresh_url",
    "postgres",
    "postgres_template",
    "postgres_url",
    "sqlite_template",
    "sqlite_url",
]


@pytest.fixture
async def here(database_url: str) -> AsyncIterator[World]:
    """A registry with an operator, on one database and on the other."""
    async with world(database_url) as made:
        yield made
