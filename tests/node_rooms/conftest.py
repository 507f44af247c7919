"""Every test's data directory holds a migrated database, so that a start takes no step of its own; a node on it."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.node.assemble import Node, assemble
from relay.node.ground import lay
from relay.registry import Database, Registry
from relay.settings import ServeSettings
from tests.support.databases import postgres, postgres_template, postgres_url, sqlite_template

__all__ = ["postgres", "postgres_template", "postgres_url", "sqlite_template"]


@pytest.fixture(autouse=True)
def migrated(tmp_path: Path, sqlite_template: Path) -> None:
    """The directory is the test's own `tmp_path`."""
    shutil.copyfile(sqlite_template, tmp_path / "relay.db")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A node that has loaded, and is polled by the test."""
    async with lay(ServeSettings(data=tmp_path), 8080) as ground:
        made = assemble(ground, lambda event: None)
        await made.follower.load()
        yield made


@pytest.fixture
async def other(node: Node, tmp_path: Path) -> AsyncIterator[Registry]:
    """The same registry, as another node opened it."""
    database = await Database.open(f"sqlite:///{tmp_path}/relay.db")
    yield Registry(database, time.time)
    await database.close()
